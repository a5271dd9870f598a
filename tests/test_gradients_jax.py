"""Gradients beside JAX's for the same function: values, and FLOPs of products by XLA's count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tenfold.evaluate.agreement import seeded_inputs
from tenfold.ir import Graph, Op, graph_totals, interpret
from tenfold.ir.gradient import differentiated, trained
from tenfold.ir.unfused import unfused
from test_partition import built

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.jax
jnp = jax.numpy
jaxprs_in_params = pytest.importorskip("jax.extend.core").jaxprs_in_params


def _norm(op: Op, x: Any, scale: Any, bias: Any = 0.0) -> Any:
    square = x - x.mean(-1, keepdims=True) if op.kind == "layer_norm" else x
    inverse = jax.lax.rsqrt((square * square).mean(-1, keepdims=True) + op.attrs["epsilon"])
    return square * inverse * scale + bias


def _matmul(op: Op, a: Any, b: Any) -> Any:
    return jnp.matmul(a, jnp.swapaxes(b, -1, -2) if op.attrs.get("transpose_b") else b)


def _conv(op: Op, x: Any, w: Any, bias: Any = None) -> Any:
    rank = x.ndim - 2
    flat: Any = op.attrs.get("pads") or (0,) * 2 * rank
    y = jax.lax.conv_general_dilated(
        x,
        w,
        op.attrs.get("strides") or (1,) * rank,
        list(zip(flat[:rank], flat[rank:], strict=True)),
    )
    return y if bias is None else y + bias.reshape(1, -1, *(1,) * rank)


def _rotary(op: Op, x: Any, cos: Any, sin: Any) -> Any:
    heads: Any = op.attrs["num_heads"]
    b, s, width = x.shape
    first, second = jnp.split(x.reshape(b, s, heads, -1), 2, axis=-1)
    c, n = cos[:, :, None], sin[:, :, None]
    turned = jnp.concatenate((first * c - second * n, second * c + first * n), -1)
    return turned.reshape(b, s, width)


MEANT: Mapping[str, Callable[..., Any]] = {
    "add": lambda _, a, b: a + b,
    "mul": lambda _, a, b: a * b,
    "relu": lambda _, x: jax.nn.relu(x),
    "swish": lambda _, x: jax.nn.silu(x),
    "tanh": lambda _, x: jnp.tanh(x),
    "exp": lambda _, x: jnp.exp(x),
    "cos": lambda _, x: jnp.cos(x),
    "sin": lambda _, x: jnp.sin(x),
    "gelu": lambda op, x: jax.nn.gelu(x, approximate=op.attrs.get("approximate") == "tanh"),
    "softmax": lambda _, x: jax.nn.softmax(x, -1),
    "layer_norm": _norm,
    "rms_norm": _norm,
    "matmul": _matmul,
    "conv": _conv,
    "rotary_embedding": _rotary,
    "gather": lambda op, x, i: jnp.take(x, i, axis=op.attrs["axis"]),
    "transpose": lambda op, x: jnp.transpose(x, op.attrs["perm"]),
    "unsqueeze": lambda _, x, axes: jnp.expand_dims(x, tuple(np.asarray(axes).tolist())),
    "identity": lambda _, x: x,
    "concat": lambda op, *xs: jnp.concatenate(xs, op.attrs["axis"]),
    "cast": lambda op, x: x.astype(np.float32 if op.attrs["to"] == "fp32" else np.int64),
}


def in_jax(graph: Graph, feeds: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a graph, op by op in JAX."""
    live: dict[str, Any] = {**graph.constants, **feeds, **weights}
    for op in graph.ops:
        given = [live[n] for n in op.inputs if n]
        shape = tuple(int(str(d)) for d in graph.values[op.outputs[0]].dims)
        if op.kind == "expand":
            live[op.outputs[0]] = jnp.broadcast_to(given[0], shape)
        elif op.kind == "reshape":
            live[op.outputs[0]] = given[0].reshape(shape)
        elif op.kind == "range":
            live[op.outputs[0]] = np.arange(*(float(g) for g in given), dtype=np.float32)
        else:
            live[op.outputs[0]] = MEANT[op.kind](op, *given)
    return {n: live[n] for n in graph.outputs}


def products(jaxpr: Any) -> int:
    """FLOPs of dots and convolutions in a jaxpr, each by XLA's own count."""
    total = 0
    for eqn in jaxpr.eqns:
        for inner in jaxprs_in_params(eqn.params):
            total += products(inner)
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]

            def alone(*args: Any, eqn: Any = eqn) -> Any:
                return eqn.primitive.bind(*args, **eqn.params)

            total += int(jax.jit(alone).lower(*shapes).cost_analysis()["flops"])
    return total


@pytest.mark.parametrize("name", ["llama", "gpt-2, tied", "bert", "mlp", "cnn", "vit"])
def test_gradients_are_those_of_jax_and_take_as_many_flops(name: str) -> None:
    graph = unfused(built(name))
    weights = {n: graph.constants[n] for n in trained(graph)}
    feeds = seeded_inputs(graph, 0)
    made = differentiated(graph, weights)
    rng = np.random.default_rng(0)
    seeds = {
        s.removeprefix("grad."): rng.standard_normal(
            [int(str(d)) for d in made.graph.values[s].dims]
        ).astype(np.float32)
        for s in made.seeds
    }

    def forward(given: Any) -> Any:
        return {n: y for n, y in in_jax(graph, feeds, given).items() if n in seeds}

    def backward(given: Any, cotangent: Any) -> Any:
        return jax.vjp(forward, given)[1](cotangent)[0]

    want = jax.jit(backward)(weights, seeds)
    got = interpret(made.graph, {**feeds, **{f"grad.{n}": a for n, a in seeds.items()}})
    # some are zero but for rounding (of a bias that all scores of a row have)
    scale = float(np.median([np.abs(w).max() for w in want.values()]))
    for n, grad in made.grads.items():
        np.testing.assert_allclose(got[grad], want[n], rtol=2e-3, atol=2e-4 * scale, err_msg=n)
    counted = products(jax.make_jaxpr(backward)(weights, seeds).jaxpr)
    assert int(str(graph_totals(made.graph).contraction_flops)) == counted
