"""A real model with ONNX Runtime beside its prediction, kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.chips import Chip, HostConstant
from tenfold.ir.graph import Graph
from tenfold.ir.table import Rate
from tenfold.machine import Group, KernelRun, Run
from tenfold.measure.runtime import ModelTime, NodeTime

QUANTIZING = "DynamicQuantizeMatMul"  # ONNX Runtime's node that quantizes its operand as well


@dataclass(frozen=True, slots=True)
class Pair:
    """Kernels of a group of ours and nodes of ONNX Runtime that do the same work."""

    name: str
    ops: str
    predicted_s: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whole times, the pairs, and what only one side has: seconds of nodes and of kernels without a
    partner.
    """

    predicted_s: float
    measured_s: float
    pairs: tuple[Pair, ...]
    measured_alone_s: float
    predicted_alone_s: float


def compare_nodes(run: Run, measured: ModelTime, chip: Chip, graph: Graph) -> Comparison:
    """Each node goes to the group that does the work of the op of its name in ``graph``, the model
    as it came; layouts have no partner.

    What timing a node on its own adds is in the predicted time of a pair. Kernels without nodes,
    and nodes without kernels, are summed apart.
    """
    holder = _holders(run.program.groups, graph)
    parts: dict[int, list[KernelRun]] = {}
    copies = 0.0
    for k in run.kernels:
        if k.kernel.rate is Rate.REORDER:
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
    for at, nodes in taken.items():
        if any(n.op == QUANTIZING for n in nodes):
            for i in _quantizing(at, run.program.groups) & parts.keys() - taken.keys():
                parts[at] += parts.pop(i)
    watching_s = chip.constant(HostConstant.WATCHING_S)
    pairs = tuple(_pair(parts[i], nodes, watching_s) for i, nodes in sorted(taken.items()))
    lonely = copies + sum(_seconds(p) for i, p in parts.items() if i not in taken)
    return Comparison(run.time_s.value, measured.time_s, pairs, alone, lonely)


def _holders(groups: Sequence[Group], graph: Graph) -> dict[str, int]:
    """The group of each op and value by its name: those that the group holds, and those of
    ``graph`` that it was made of.

    The latter lie between what the group writes and what it reads.
    """
    holder: dict[str, int] = {}
    # a contraction's name before that of a copy made for it
    numbered = sorted(enumerate(groups), key=lambda g: g[1].anchor is None)
    for i, group in numbered:
        for op in group.ops:
            for name in (op.name, *op.outputs):
                holder.setdefault(name, i)
    maker = {o: op for op in graph.ops for o in op.outputs if o}
    for i, group in numbered:
        waiting, seen = list(group.outputs), set(group.inputs)
        while waiting:
            value = waiting.pop()
            if value not in maker or value in seen or holder.get(value, i) != i:
                continue
            seen.add(value)
            op = maker[value]
            for name in (op.name, *op.outputs):
                holder.setdefault(name, i)
            waiting += [n for n in op.inputs if n]
    return holder


def _quantizing(at: int, groups: Sequence[Group]) -> set[int]:
    """The groups that quantize what group ``at`` reads."""
    reads = set(groups[at].inputs)
    return {
        i
        for i, g in enumerate(groups)
        if any(o.kind == "dynamic_quantize" for o in g.ops) and reads & set(g.outputs)
    }


def _holder(name: str, holder: dict[str, int]) -> int | None:
    """By the node's name, or by what ONNX Runtime made it of: fused nodes add to the name of one
    they replace.
    """
    for candidate in (name, *_stems(name)):
        if candidate in holder:
            return holder[candidate]
    return None


def _stems(name: str) -> Sequence[str]:
    """The name with the endings left off that ONNX Runtime's transformers add."""
    found = []
    for ending in (
        "_nchwc",
        "/MatMulAddFusion",
        "/MatMulScaleFusion",
        "/MatmulTransposeFusion",
        "_MatMul_With_Add",
        "_token_0",
        "_fused",
    ):
        if ending in name:
            found.append(name.split(ending)[0])
    return found


def _pair(parts: Sequence[KernelRun], nodes: Sequence[NodeTime], watching_s: float) -> Pair:
    return Pair(
        parts[0].kernel.name,
        "+".join(n.op for n in nodes),
        _seconds(parts) + len(nodes) * watching_s,
        sum(n.time_s for n in nodes),
    )


def _seconds(parts: Sequence[KernelRun]) -> float:
    return sum(k.time_s * k.kernel.repeat for k in parts)
