"""A real model with ONNX Runtime beside its prediction, kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.chips import Chip
from tenfold.compiler import REORDER
from tenfold.machine import KernelRun, Run
from tenfold.measure.runtime import ModelTime, NodeTime


@dataclass(frozen=True, slots=True)
class Pair:
    """Kernels of a group of ours and nodes of ONNX Runtime that do the same work."""

    name: str
    ops: str
    predicted_s: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whole times, the pairs, and what only one side has: seconds of nodes and of kernels without a partner."""

    predicted_s: float
    measured_s: float
    pairs: tuple[Pair, ...]
    measured_alone_s: float
    predicted_alone_s: float


def compare_nodes(run: Run, measured: ModelTime, chip: Chip) -> Comparison:
    """Each node goes to the group that holds the op of its name, or the value that it makes; changes of layout have no partner.

    What timing a node on its own adds is in the predicted time of a pair. Kernels without nodes, and nodes without kernels, are summed
    apart.
    """
    holder: dict[str, int] = {}
    for i, group in enumerate(run.program.groups):
        for op in group.ops:
            for name in (op.name, *op.outputs):
                holder.setdefault(name, i)
    parts: dict[int, list[KernelRun]] = {}
    copies = 0.0
    for k in run.kernels:
        if k.kernel.ops == (REORDER,):
            copies += k.time_s * k.kernel.repeat
        else:
            parts.setdefault(k.kernel.group, []).append(k)
    taken: dict[int, list[NodeTime]] = {}
    alone = 0.0
    for node in measured.nodes:
        at = _holder(node.name, holder)
        if at is None or at not in parts:
            alone += node.time_s
        else:
            taken.setdefault(at, []).append(node)
    watching_s = chip.constant("watching_s")
    pairs = tuple(_pair(parts[i], nodes, watching_s) for i, nodes in sorted(taken.items()))
    lonely = copies + sum(_seconds(p) for i, p in parts.items() if i not in taken)
    return Comparison(run.time_s.value, measured.time_s, pairs, alone, lonely)


def _holder(name: str, holder: dict[str, int]) -> int | None:
    """By the node's name, or by what ONNX Runtime made it of: fused nodes add to the name of one they replace."""
    for candidate in (name, *_stems(name)):
        if candidate in holder:
            return holder[candidate]
    return None


def _stems(name: str) -> Sequence[str]:
    """The name with the endings left off that ONNX Runtime's transformers add."""
    found = []
    for ending in ("_nchwc", "/MatMulAddFusion", "_MatMul_With_Add", "_token_0", "_fused"):
        if ending in name:
            found.append(name.split(ending)[0])
    return found


def _pair(parts: Sequence[KernelRun], nodes: Sequence[NodeTime], watching_s: float) -> Pair:
    return Pair(
        parts[0].kernel.name, "+".join(n.op for n in nodes), _seconds(parts) + len(nodes) * watching_s, sum(n.time_s for n in nodes)
    )


def _seconds(parts: Sequence[KernelRun]) -> float:
    return sum(k.time_s * k.kernel.repeat for k in parts)
