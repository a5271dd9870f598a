"""The functional run: a program's kernels computed one by one, each seeing only what it declares to
read.

What a kernel does not declare to write is lost when it ends, so a wrong cut of the graph shows as a
missing value and not as a right answer for the wrong reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir.graph import Array, Op
from tenfold.ir.interpreter import check_inputs, run_op
from tenfold.ir.views import is_view, roots
from tenfold.machine.kernel import Group, Program
from tenfold.machine.numerics import Exact, Numerics


@dataclass(slots=True)
class Memory:
    """Buffers by name; views of them are made when somebody looks."""

    program: Program
    rng: np.random.Generator
    buffers: dict[str, Array | None]
    numerics: Numerics
    views: dict[str, Op] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.views = {op.outputs[0]: op for op in self.program.graph.ops if is_view(op)}

    def look(self, name: str) -> Array | None:
        """The content of a buffer or of a view of one. Raises ModelError for one that nobody
        stored.
        """
        if name in self.buffers:
            return self.buffers[name]
        op = self.views.get(name)
        if op is None:
            raise ModelError(f"'{name}' is read, but no kernel stored it")
        live: dict[str, Array | None] = {n: self.look(n) for n in op.inputs if n}
        run_op(self.program.graph, op, live, self.rng)
        return live[name]


def run_program(
    program: Program,
    inputs: Mapping[str, Array],
    *,
    numerics: Numerics | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """Outputs of ``program`` by name, in the file's own precision or rounded as ``numerics`` says.
    ``seed`` serves the random ops.

    Raises InputError for missing, extra or wrongly ranked inputs, ModelError for a weight without
    data (compile with ``keep_weights``).
    """
    graph = program.graph
    numerics = numerics or Exact()
    given = {n: numerics.store(a) for n, a in check_inputs(graph, inputs).items()}
    memory = Memory(program, np.random.default_rng(seed), {**given, **graph.constants}, numerics)
    last = _last_readers(program)
    for number, group in enumerate(program.groups):
        run_group(memory, group)
        for name in last.get(number, ()):
            memory.buffers.pop(name, None)
    results = {n: memory.look(n) for n in graph.outputs}
    missing = [n for n, a in results.items() if a is None]
    if missing:
        raise ModelError(f"output '{missing[0]}' is a weight without data")
    return {n: a for n, a in results.items() if a is not None}


def run_group(memory: Memory, group: Group) -> None:
    """One kernel: reads buffers, computes, and stores what it declares to write."""
    live: dict[str, Array | None] = {}
    for op in group.ops:
        for name in op.inputs:
            if name and name not in live:
                live[name] = memory.look(name)
        run_rounded(memory, op, live)
    for name in group.outputs:
        made = live[name]
        memory.buffers[name] = memory.numerics.store(made) if made is not None else None


def run_rounded(memory: Memory, op: Op, live: dict[str, Array | None]) -> None:
    """One op on operands as the precision has them."""
    graph = memory.program.graph
    arrays = [live[n] if n else None for n in op.inputs]
    rounded = memory.numerics.operands(op, arrays, [n in graph.constants for n in op.inputs])
    if rounded is arrays:
        run_op(graph, op, live, memory.rng)
        return
    scratch = {n: a for n, a in zip(op.inputs, rounded, strict=True) if n}
    run_op(graph, op, scratch, memory.rng)
    live |= {o: scratch[o] for o in op.outputs if o}


def _last_readers(program: Program) -> dict[int, list[str]]:
    """Buffers by the last kernel that reads them, the program's outputs left out."""
    root = roots(program.graph)
    kept = (
        {root.get(n, n) for n in program.graph.outputs}
        | set(program.graph.outputs)
        | set(program.graph.constants)
    )
    last: dict[str, int] = {}
    for number, group in enumerate(program.groups):
        last |= dict.fromkeys((*group.inputs, *group.outputs), number)
    gone: dict[int, list[str]] = {}
    for name, number in last.items():
        if name not in kept:
            gone.setdefault(number, []).append(name)
    return gone
