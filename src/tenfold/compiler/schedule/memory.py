"""The memory plan: which buffers stay in the large on-chip memory, from when to when, and where.

Residency follows XLA's memory-space assignment in outline: a buffer that lives on chip between two kernels saves
its writes and reads off chip; what saves most for the room and the time it takes comes first. Weights that fit
beside all that stay between calls. What is left of the room takes weights of later kernels while earlier ones,
which leave the off-chip interface idle, still run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from tenfold.chips import Chip
from tenfold.compiler.schedule.offsets import Interval, place, tightest
from tenfold.machine import Balance
from tenfold.machine.kernel import Buffer, Kernel, MemoryPlan, Role, Traffic

Profile: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
PREFETCH_DISTANCE = 8  # kernels ahead that weights may be fetched


@dataclass(frozen=True, slots=True)
class _Life:
    """A buffer over the whole program: who makes it, who reads it, what of it is moved."""

    name: str
    role: Role
    bytes: int
    first: int
    last: int
    moved: int


@dataclass(slots=True)
class _Near:
    """The on-chip memory while it is filled: bytes in use at each kernel, and who got in."""

    capacity: int
    used: Profile
    chosen: list[Buffer] = field(default_factory=list)

    def fits(self, life: _Life) -> bool:
        return int(self.used[life.first : life.last + 1].max(initial=0)) + life.bytes <= self.capacity

    def add(self, life: _Life, why: str) -> None:
        self.used[life.first : life.last + 1] += life.bytes
        self.chosen.append(Buffer(life.name, life.role, life.bytes, life.first, life.last, 0, why))


def plan_memory(
    made: Sequence[Kernel],
    sizes: Mapping[str, int],
    inputs: frozenset[str],
    outputs: frozenset[str],
    chip: Chip,
    balances: Sequence[Balance],
) -> tuple[tuple[Kernel, ...], MemoryPlan]:
    """The kernels with their traffic split by memory, and where every buffer lives.

    ``sizes`` are the bytes of each buffer. The model's own ``inputs`` and ``outputs`` come from and go to off-chip
    memory, except on a chip whose activations never leave it. Without ``balances`` everything stays off chip.
    """
    lives = _lives(made, sizes, outputs)
    near = _Near(int(chip.near_bytes), np.zeros(len(made) + 1, dtype=np.int64))
    moved_early: dict[tuple[int, str], tuple[int, int]] = {}
    if balances and chip.near is not None and near.capacity:
        _keep_activations(near, lives, frozenset() if chip.activation_level else inputs | outputs)
        if not chip.activation_level:
            _keep_weights(near, lives, made, balances)
            moved_early = _prefetch(near, lives, made, balances)
    plan = _placed(near, lives, chip)
    inside = {b.name for b in plan.near}
    early = {at: what for at, what in moved_early.items() if _early_name(*at) in inside}
    return tuple(_split(i, k, inside, early) for i, k in enumerate(made)), plan


def _lives(made: Sequence[Kernel], sizes: Mapping[str, int], outputs: frozenset[str]) -> dict[str, _Life]:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    moved: dict[str, int] = {}
    roles: dict[str, Role] = {}
    for i, k in enumerate(made):
        for o in k.operands:
            first.setdefault(o.name, i if o.role is Role.OUTPUT else 0)
            last[o.name] = i
            moved[o.name] = moved.get(o.name, 0) + o.bytes
            if o.name not in roles or o.role is Role.WEIGHT:
                roles[o.name] = o.role
    last |= {n: len(made) - 1 for n in outputs if n in first}
    return {n: _Life(n, roles[n], sizes.get(n, moved[n]), first[n], last[n], moved[n]) for n in first}


def _keep_activations(near: _Near, lives: Mapping[str, _Life], io: frozenset[str]) -> None:
    """Activations by bytes saved over room times time."""
    wanted = [v for v in lives.values() if v.role is not Role.WEIGHT and v.name not in io and v.bytes]
    for v in sorted(wanted, key=lambda v: (-v.moved / (v.bytes * (v.last - v.first + 1)), v.first)):
        if near.fits(v):
            near.add(v, f"{v.moved:,} bytes off chip saved")


_STAYS = "stays between calls"


def _keep_weights(near: _Near, lives: Mapping[str, _Life], made: Sequence[Kernel], balances: Sequence[Balance]) -> None:
    """Weights of the kernels that wait longest for their bytes, as many as fit all the time."""
    end = len(made)
    wanted: list[tuple[float, _Life]] = []
    for v in lives.values():
        if v.role is Role.WEIGHT and v.moved:
            b = balances[v.last]
            waiting = max(0.0, b.interface_s - b.others_s) / max(b.interface_s, 1e-12)
            wanted.append((waiting * v.moved / v.bytes, replace(v, first=0, last=end)))
    for gain, v in sorted(wanted, key=lambda w: (-w[0], w[1].bytes)):
        if gain > 0 and near.fits(v):
            near.add(v, _STAYS)


def _prefetch(
    near: _Near, lives: Mapping[str, _Life], made: Sequence[Kernel], balances: Sequence[Balance]
) -> dict[tuple[int, str], tuple[int, int]]:
    """(kernel, weight) to the earlier kernel that fetches it and how many bytes, where that one leaves the interface idle."""
    slack = [max(0.0, b.others_s - b.interface_s) * b.bytes_per_s for b in balances]
    stays = {b.name for b in near.chosen}
    moved: dict[tuple[int, str], tuple[int, int]] = {}
    for j, k in enumerate(made):
        lack = max(0.0, balances[j].interface_s - balances[j].others_s) * balances[j].bytes_per_s
        for o in (o for o in k.operands if o.role is Role.WEIGHT and o.name not in stays):
            for i in range(j - 1, max(-1, j - 1 - PREFETCH_DISTANCE), -1):
                amount = int(min(o.bytes, lack, slack[i]))
                life = _Life(_early_name(j, o.name), Role.WEIGHT, amount, i, j, amount)
                if k.repeat == made[i].repeat == 1 and amount > 0 and near.fits(life):
                    near.add(life, f"fetched while kernel {i} runs")
                    moved[j, o.name] = (i, amount)
                    slack[i] -= amount
                    lack -= amount
                    break
    return moved


def _early_name(kernel: int, weight: str) -> str:
    return f"{weight} for {kernel}"


def _placed(near: _Near, lives: Mapping[str, _Life], chip: Chip) -> MemoryPlan:
    """Offsets in both memories; what fragmentation pushes beyond the on-chip memory goes off chip."""
    offsets, _ = place([Interval(b.name, b.first, b.last, b.bytes) for b in near.chosen])
    chosen = [b for b in near.chosen if offsets[b.name] + b.bytes <= near.capacity]
    inside = {b.name for b in chosen}
    far = [Interval(v.name, v.first, v.last, v.bytes) for v in lives.values() if v.role is not Role.WEIGHT and v.name not in inside]
    far_offsets, far_bytes = place(far)
    return MemoryPlan(
        level=chip.near.name if chip.near else "",
        capacity=near.capacity,
        near=tuple(replace(b, offset=offsets[b.name]) for b in chosen),
        far=tuple(Buffer(b.name, lives[b.name].role, b.bytes, b.first, b.last, far_offsets[b.name]) for b in far),
        far_bytes=far_bytes,
        lower_bound=tightest(far),
    )


def _split(number: int, kernel: Kernel, kept: set[str], early: Mapping[tuple[int, str], tuple[int, int]]) -> Kernel:
    """The kernel with its traffic by memory."""
    sums = {name: getattr(kernel.traffic, name) for name in Traffic.__slots__}
    for o in kernel.operands:
        far_field, near_field = _FIELDS[o.role]
        ahead = early.get((number, o.name), (0, 0))[1]
        near_part = o.bytes if o.name in kept else ahead
        sums["prefetched"] += ahead
        sums[far_field] -= near_part
        sums[near_field] += near_part
    sums["prefetch"] += sum(amount for at, amount in early.values() if at == number)
    return replace(kernel, traffic=Traffic(**sums))


_FIELDS = {Role.WEIGHT: ("weights", "near_weights"), Role.INPUT: ("inputs", "near_inputs"), Role.OUTPUT: ("outputs", "near_outputs")}
