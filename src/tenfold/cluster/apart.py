"""What lies apart on several chips that each have tokens of their own: experts, to which tokens go
and come back (Lepikhin et al. 2020, GShard, section 3.2), and stretches of sequences, the keys and
values of which all chips gather (Grattafiori et al. 2024, Llama 3, section 3.3.2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tenfold.cluster.layout import Side
from tenfold.cluster.part import Held, Part
from tenfold.errors import InputError
from tenfold.ir.cost import op_call
from tenfold.ir.graph import Attr, Graph, Op, Value, stored_numbers
from tenfold.ir.infer import Scope, infer_op, row_of
from tenfold.ir.ops.attention_apart import APART as ATTENTION
from tenfold.ir.ops.backward_experts import APART, WEIGHTS
from tenfold.ir.sharding import Cut
from tenfold.ir.table import Rate


@dataclass(frozen=True, slots=True)
class Experts:
    """``ways`` chips hold a share of the experts each, every one ``stride`` places after the one
    before; the busiest gets ``skew`` times as many tokens as the mean.
    """

    ways: int
    stride: int = 1
    skew: float = 1.0


def experts_of(graph: Graph) -> frozenset[str]:
    """The constants that hold experts."""
    return frozenset(
        op.inputs[i] for op in graph.ops if op.kind in APART for i in WEIGHTS if op.inputs[i]
    )


def experts_count(graph: Graph) -> int:
    """Of the smallest layer of experts; 1 where there is none."""
    layers = (op.inputs[WEIGHTS[0]] for op in graph.ops if op.kind in APART)
    counts = (graph.values[n].dims[0] for n in layers)
    return min((n for n in counts if isinstance(n, int)), default=1)


def check_experts(graph: Graph, ways: int) -> None:
    """Raises InputError where ``ways`` chips cannot share the experts of ``graph`` equally."""
    if ways == 1:
        return
    layers = [op for op in graph.ops if op.kind in APART]
    if not layers:
        raise InputError(f"{Side.EXPERT}={ways}: {graph.name} has no experts to lie apart")
    for op in layers:
        count = graph.values[op.inputs[WEIGHTS[0]]].dims[0]
        if not isinstance(count, int) or count % ways:
            raise InputError(
                f"{Side.EXPERT}={ways}: '{op.name}' has {count} experts, which {ways} chips cannot"
                " share equally: give a divisor"
            )


def experts_apart(graph: Graph, how: Experts) -> Part:
    """The part of a static ``graph`` that each of ``how.ways`` chips runs on its own share of the
    first axis of all inputs, which is what ``graph`` is bound for. Results by token are cut along
    their first axis, gradients of experts are those of the chip's own.

    Raises InputError for experts that are computed and not held.
    """
    own = experts_of(graph)
    computed = next((n for n in own if n not in graph.constants), None)
    if computed is not None:
        raise InputError(f"{graph.name}: experts that are computed ('{computed}') cannot lie apart")
    attrs: dict[str, Attr] = {"ways": how.ways, "stride": how.stride, "skew": how.skew}
    return _part(graph, how.ways, Cut(0), APART, attrs, own)


def context_apart(graph: Graph, ways: int, stride: int) -> Part:
    """The part of a static ``graph`` that each of ``ways`` chips runs on its stretch of all
    sequences, which is what ``graph`` is bound for; every one is ``stride`` places after the one
    before.
    """
    return _part(graph, ways, Cut(1), ATTENTION, {"ways": ways, "stride": stride})


def check_context(graph: Graph, ways: int) -> None:
    """Raises InputError where sequences of ``graph`` cannot lie apart on ``ways`` chips: it has no
    attention, one with a mask of its own or a cache, or mixes tokens in another way.
    """
    if ways == 1:
        return
    said = f"{Side.CONTEXT}={ways}: sequences of {graph.name} cannot lie apart"
    if not any(op.kind in ATTENTION for op in graph.ops):
        raise InputError(f"{said}: it has no attention in one kernel")
    for op in graph.ops:
        row = row_of(op)
        masked = op.kind in ATTENTION and any(op.inputs[3:])
        other = row.attention is not None and op.kind not in ATTENTION
        mixes = row.rate is Rate.CONVOLUTION or row.space(op_call(graph, op)).serial is not None
        if masked or other or mixes or op.bodies:
            raise InputError(f"{said}: '{op.name}' ({op.kind}) mixes tokens beside it")


def _part(
    graph: Graph,
    ways: int,
    cut: Cut,
    kinds: Mapping[str, str],
    attrs: Mapping[str, Attr],
    shared: Collection[str] = (),
) -> Part:
    """Ops of ``kinds`` are those of several chips; constants that are ``shared`` are cut along
    their first axis, inputs and outputs as ``cut`` says.
    """
    scope = Scope(prefix="apart")
    held: dict[str, Held] = {}
    for name in graph.inputs:
        scope.declare(graph.values[name])
    for name, content in graph.constants.items():
        value, own = graph.values[name], name not in shared
        scope.declare(value if own else _share(value, ways), content if own else None)
        held[name] = Held(name, None, content) if own else Held(name, Cut(0))
        if name in graph.stored:
            scope.stored[name] = graph.stored[name] // (1 if own else ways)
    ops = tuple(infer_op(scope, _swapped(op, kinds, attrs)) for op in graph.ops)
    constants = {n: h.content for n, h in held.items()}
    made = replace(graph, ops=ops, values=scope.values, constants=constants, stored=scope.stored)
    return Part(
        graph=made,
        ways=ways,
        inputs=dict.fromkeys(graph.inputs, cut),
        outputs=dict.fromkeys(graph.outputs, cut),
        constants=held,
        repeated_flops=0,
    )


def _share(value: Value, ways: int) -> Value:
    count, *others = value.dims
    assert isinstance(count, int)
    return replace(value, shape=(count // ways, *others))


def _swapped(op: Op, kinds: Mapping[str, str], attrs: Mapping[str, Attr]) -> Op:
    kind = kinds.get(op.kind)
    return op if kind is None else replace(op, kind=kind, attrs={**op.attrs, **attrs})


def held_apart(graph: Graph) -> int:
    """Weights of a part that are experts apart from those of other chips."""
    names = {op.inputs[i] for op in graph.ops if row_of(op).exchange is not None for i in WEIGHTS}
    return sum(stored_numbers(graph.values[n], graph.stored) for n in names)
