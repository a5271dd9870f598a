"""The memory plan: which buffers stay in the large on-chip memory, from when to when, and where.

Residency follows XLA's memory-space assignment in outline: a buffer that lives on chip between two
kernels saves its writes and reads off chip; what saves most for the room and the time it takes
comes first. Where a chip keeps weights from call to call, those that fit beside all that stay. What
is left of the room takes weights of later kernels while earlier ones, which leave the off-chip
interface idle, still run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, assert_never

import numpy as np

from tenfold.compiler.schedule.offsets import Interval, place, tightest
from tenfold.machine import Balance, NearMemory
from tenfold.machine.kernel import Buffer, Kernel, MemoryPlan, Moved, Role

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


@dataclass(frozen=True, slots=True)
class _Slice:
    """A part of a weight that an earlier kernel fetches for the one that reads it (kernels by
    number).
    """

    weight: str
    reader: int
    fetcher: int
    bytes: int


@dataclass(slots=True)
class _Near:
    """The on-chip memory while it is filled: bytes in use at each kernel, and who got in."""

    capacity: int
    used: Profile
    chosen: list[Buffer] = field(default_factory=list)

    def fits(self, life: _Life) -> bool:
        return (
            int(self.used[life.first : life.last + 1].max(initial=0)) + life.bytes <= self.capacity
        )

    def add(self, life: _Life, why: str) -> None:
        self.used[life.first : life.last + 1] += life.bytes
        self.chosen.append(
            Buffer(
                name=life.name,
                role=life.role,
                bytes=life.bytes,
                first=life.first,
                last=life.last,
                offset=0,
                why=why,
            )
        )


def plan_memory(
    made: Sequence[Kernel],
    sizes: Mapping[str, int],
    inputs: frozenset[str],
    outputs: frozenset[str],
    memory: NearMemory | None,
) -> tuple[tuple[Kernel, ...], MemoryPlan]:
    """The kernels with their traffic split by memory, and where every buffer lives.

    ``sizes`` are the bytes of each buffer. The model's own ``inputs`` and ``outputs`` come from and
    go to off-chip memory, except on a chip whose activations never leave it. Without ``memory``
    everything stays off chip.
    """
    lives = _lives(made, sizes, outputs)
    near = _Near(int(memory.bytes) if memory else 0, np.zeros(len(made) + 1, dtype=np.int64))
    slices: dict[str, _Slice] = {}
    if memory is not None and near.capacity:
        _keep_activations(near, lives, frozenset() if memory.holds_all else inputs | outputs)
        if not memory.holds_all:
            balances = [memory.balance(k) for k in made]
            if memory.keeps_weights:
                _keep_weights(near, lives, made, balances)
            slices = _prefetch(near, made, balances)
    plan = _placed(near, lives, memory.name if memory else "")
    inside = {b.name for b in plan.near}
    ahead, fetched = Counter[tuple[int, str]](), Counter[int]()
    for s in (s for name, s in slices.items() if name in inside):
        ahead[s.reader, s.weight] += s.bytes
        fetched[s.fetcher] += s.bytes
    kernels = (
        _split(
            k,
            inside,
            {n: b for n in {o.name for o in k.operands} if (b := ahead[i, n])},
            fetched[i],
        )
        for i, k in enumerate(made)
    )
    return tuple(kernels), plan


def _lives(
    made: Sequence[Kernel], sizes: Mapping[str, int], outputs: frozenset[str]
) -> dict[str, _Life]:
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
    return {
        n: _Life(n, roles[n], sizes.get(n, moved[n]), first[n], last[n], moved[n]) for n in first
    }


def _keep_activations(near: _Near, lives: Mapping[str, _Life], io: frozenset[str]) -> None:
    """Activations by bytes saved over room times time."""
    wanted = [
        v for v in lives.values() if v.role is not Role.WEIGHT and v.name not in io and v.bytes
    ]
    for v in sorted(wanted, key=lambda v: (-v.moved / (v.bytes * (v.last - v.first + 1)), v.first)):
        if near.fits(v):
            near.add(v, f"{v.moved:,} bytes off chip saved")


_STAYS = "stays between calls"


def _keep_weights(
    near: _Near, lives: Mapping[str, _Life], made: Sequence[Kernel], balances: Sequence[Balance]
) -> None:
    """Weights of the kernels that wait longest for their bytes, as many as fit all the time.

    Where not all do, room is left for fetching the others ahead: each of its bytes serves many
    weights a pass.
    """
    end = len(made)
    wanted: list[tuple[float, _Life]] = []
    for v in lives.values():
        if v.role is Role.WEIGHT and v.moved:
            b = balances[v.last]
            waiting = b.lack_bytes / max(b.interface_s * b.bytes_per_s, 1e-12)
            wanted.append((waiting * v.moved / v.bytes, replace(v, first=0, last=end)))
    room = near.capacity - int(near.used.max(initial=0))
    if sum(v.bytes for _, v in wanted) > room:
        ahead = _Near(near.capacity, near.used.copy(), list(near.chosen))
        _prefetch(ahead, made, balances)
        room = near.capacity - int(ahead.used.max(initial=0))
    for gain, v in sorted(wanted, key=lambda w: (-w[0], w[1].bytes)):
        if gain > 0 and v.bytes <= room:
            near.add(v, _STAYS)
            room -= v.bytes


def _prefetch(
    near: _Near, made: Sequence[Kernel], balances: Sequence[Balance]
) -> dict[str, _Slice]:
    """Slices of weights by the name of the buffer they wait in: fetched by earlier kernels that
    leave the interface idle.
    """
    slack = [b.slack_bytes for b in balances]
    stays = {b.name for b in near.chosen}
    slices: dict[str, _Slice] = {}
    for j, k in enumerate(made):
        lack, own = balances[j].lack_bytes, balances[j].start_bytes
        for o in (o for o in k.operands if o.role is Role.WEIGHT and o.name not in stays):
            left = o.bytes
            for i in range(j, max(-1, j - 1 - PREFETCH_DISTANCE), -1):
                amount = int(min(left, lack, slack[i] if i < j else own))
                name = f"{o.name} for {j}, slice of {i}"
                life = _Life(name, Role.WEIGHT, amount, i, j, amount)
                if k.repeat == made[i].repeat == 1 and amount > 0 and near.fits(life):
                    near.add(life, f"fetched while kernel {i} runs")
                    slices[name] = _Slice(o.name, j, i, amount)
                    slack[i] -= amount
                    own -= amount if i == j else 0
                    lack -= amount
                    left -= amount
    return slices


def _placed(near: _Near, lives: Mapping[str, _Life], level: str) -> MemoryPlan:
    """Offsets in both memories; what fragmentation pushes beyond the on-chip memory goes off
    chip.
    """
    offsets, _ = place([Interval(b.name, b.first, b.last, b.bytes) for b in near.chosen])
    chosen = [b for b in near.chosen if offsets[b.name] + b.bytes <= near.capacity]
    inside = {b.name for b in chosen}
    far = [
        Interval(v.name, v.first, v.last, v.bytes)
        for v in lives.values()
        if v.role is not Role.WEIGHT and v.name not in inside
    ]
    far_offsets, far_bytes = place(far)
    return MemoryPlan(
        level=level,
        capacity=near.capacity,
        near=tuple(replace(b, offset=offsets[b.name]) for b in chosen),
        far=tuple(
            Buffer(b.name, lives[b.name].role, b.bytes, b.first, b.last, far_offsets[b.name])
            for b in far
        ),
        far_bytes=far_bytes,
        lower_bound=tightest(far),
    )


def _split(kernel: Kernel, kept: set[str], early: Mapping[str, int], fetches: int) -> Kernel:
    """The kernel with its traffic by memory: bytes of its weights that come ``early``, and what it
    ``fetches`` for others.
    """
    far, near = kernel.traffic.off_chip, kernel.traffic.near
    for o in kernel.operands:
        part = o.bytes if o.name in kept else early.get(o.name, 0)
        far, near = _plus(far, o.role, -part), _plus(near, o.role, part)
    prefetched = kernel.traffic.prefetched + sum(early.get(o.name, 0) for o in kernel.operands)
    split = replace(
        kernel.traffic,
        off_chip=far,
        near=near,
        prefetched=prefetched,
        prefetch=kernel.traffic.prefetch + fetches,
    )
    return replace(kernel, traffic=split)


def _plus(moved: Moved, role: Role, bytes_: int) -> Moved:
    match role:
        case Role.WEIGHT:
            return replace(moved, weights=moved.weights + bytes_)
        case Role.INPUT:
            return replace(moved, inputs=moved.inputs + bytes_)
        case Role.OUTPUT:
            return replace(moved, outputs=moved.outputs + bytes_)
        case _:
            assert_never(role)
