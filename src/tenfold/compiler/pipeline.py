"""The compiler on one screen: passes, fusion, kernels, memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tenfold.chips import Chip, MatrixPrecision
from tenfold.compiler import lower
from tenfold.compiler.fusion import fuse, separate
from tenfold.compiler.passes import DCE, PASSES, Observer, run_passes, without_weights
from tenfold.compiler.schedule import ordered, plan_memory
from tenfold.errors import InputError, UnknownName
from tenfold.ir.binding import bind
from tenfold.ir.graph import Graph
from tenfold.machine import Cut, Group, Kernel, Program, Stack, Target, target_of
from tenfold.machine.kernel import REORDERED

STEPS: Mapping[str, str] = {
    **{p.name: p.does for p in (*PASSES, DCE)},
    "precision": (
        "tensors are stored in the chip's precision; without it they stay as in the file and only"
        " products use it"
    ),
    "fuse": "ops that need not go through memory between them run as one kernel",
    "order": "kernels run in the order that keeps least alive, where the graph leaves a choice",
    "residency": (
        "activations and weights stay in the large on-chip memory, and weights are fetched ahead;"
        " on GPUs results are found in L2"
    ),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the compiler is asked for: steps to leave out, whether weights keep their contents (to
    run the program), what drives the chip, and whether each attention is one kernel (``flash``)
    whatever drives it and however long that takes. Values whose names begin with ``wide`` are
    stored as they are in the file.
    """

    without: tuple[str, ...] = ()
    keep_weights: bool = False
    stack: Stack = Stack.ENGINE
    flash: bool = False
    wide: str = ""

    def __post_init__(self) -> None:
        for name in self.without:
            if name not in STEPS:
                raise UnknownName("pass", name, STEPS)


DEFAULT = Options()
LARGEST_BUFFER = 1 << 44  # bytes of one tensor


def build(
    graph: Graph,
    chip: Chip,
    precision: MatrixPrecision,
    items: int,
    options: Options = DEFAULT,
    observe: Observer | None = None,
) -> Program:
    """The program for ``graph``, which must be bound to static shapes.

    ``items`` is how many inputs one pass handles (the batch). Floats are stored and multiplied in
    ``precision``. Raises ModelError for a shape that is not static, UnknownName for a step that
    does not exist, InputError for a stack that does not drive such a chip.
    """
    target = target_of(chip, options.stack, flash=options.flash)
    if observe is None:
        key = run_passes, options, target.single_ops
        clean = graph.derived(key, lambda: _clean(graph, options, None, target))
    else:
        clean = _clean(graph, options, observe, target)
    groups, bodies = _groups(clean, target, options.without)
    stored = None if "precision" in options.without else precision.bits
    scope = lower.scope_of(clean, chip, precision, stored, options.wide)
    outputs = frozenset(scope.root.get(n, n) for n in clean.outputs)
    activations = lower.activation_sizes(scope, groups)
    _check_buffers(graph.name, activations)
    if "order" not in options.without:
        groups = ordered(groups, activations, outputs)
    # without fusion an attention stays whole, but where the runtime has no kernel for one anyway
    whole = "fuse" in options.without and not target.single_ops
    lowered = lower.kernels(scope, groups, bodies)
    cut = Cut(clean, groups, scope.root, scope.bytes)
    made = tuple(target.laid_out(lowered if whole else _cut(lowered, cut, target), cut))
    if "residency" not in options.without:
        made = tuple(target.cached(made))
    sizes = {
        o.name: scope.bytes(o.name) if o.name in clean.values else o.bytes
        for k in made
        for o in k.operands
    }
    near = None if "residency" in options.without else target.near()
    kept = outputs | {f"{o}{REORDERED}" for o in outputs}
    kernels, memory = plan_memory(made, sizes, frozenset(clean.inputs), kept, near)
    return Program(
        model=graph.name,
        chip=chip.name,
        precision=precision,
        items=items,
        kernels=kernels,
        weight_bytes=lower.weight_bytes(scope),
        io_bytes=sum(scope.bytes(n) for n in (*clean.inputs, *clean.outputs)),
        native_fraction=lower.native_fraction(made),
        graph=clean,
        groups=groups,
        memory=memory,
        assumed=(
            *((n, b) for n, b in graph.bounds.items() if isinstance(b, int)),
            *((n, 1) for n in lower.unknown_trips(clean) if n not in graph.bounds),
        ),
        without=tuple(options.without),
        stack=options.stack,
    )


def _clean(graph: Graph, options: Options, observe: Observer | None, target: Target) -> Graph:
    """What the passes make of ``graph``: the same for all chips of a kind."""
    known = graph if options.keep_weights else without_weights(graph)
    return run_passes(known, options.without, observe, single_ops=target.single_ops)


def _check_buffers(model: str, activations: Mapping[str, int]) -> None:
    large = max(activations.values(), default=0)
    if large > LARGEST_BUFFER:
        raise InputError(
            f"{model} would need a buffer of {large:,} bytes, which is beyond any machine: use"
            " a smaller batch or size"
        )


def _cut(kernels: Iterable[Kernel], cut: Cut, target: Target) -> Iterator[Kernel]:
    """The kernels that the groups run as."""
    for kernel in kernels:
        yield from target.parts(kernel, cut.groups[kernel.group], cut.root)


def _groups(
    graph: Graph, target: Target, without: Collection[str]
) -> tuple[tuple[Group, ...], dict[int, tuple[Group, ...]]]:
    """Groups of the graph, and those of each body of control flow in it."""
    bodies: dict[int, tuple[Group, ...]] = {}

    def grouped(g: Graph) -> tuple[Group, ...]:
        for op in g.ops:
            for body in op.bodies:
                bodies[id(body)] = grouped(body)
        if "fuse" in without:
            return separate(g)
        return g.derived((fuse, target.rules), lambda: fuse(g, target.rules))

    return grouped(graph), bodies


def compile(
    graph: Graph,
    chip: Chip,
    *,
    dtype: str | None = None,
    items: int | None = None,
    options: Options = DEFAULT,
) -> Program:
    """The program of a bound ``graph`` for ``chip`` in ``dtype`` (the chip's best precision by
    default).

    Extents that depend on data are set to their upper bound. ``items`` is what one pass handles, by
    default the first extent of the first input. Raises InputError for a graph with free dimensions,
    UnsupportedDType for a dtype the chip has not.
    """
    if graph.symbols:
        raise InputError(
            f"the graph still has free dimensions ({', '.join(graph.symbols)}): bind them first"
        )
    precision = chip.storage(dtype)
    if items is None:
        first = next((graph.values[n].shape for n in graph.inputs if graph.values[n].shape), None)
        items = int(first[0]) if first else 1
    return build(bind(graph, {}, assume_bounds=True), chip, precision, items, options)
