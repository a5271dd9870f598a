"""Energy: operations x pJ by node and dtype, bytes x pJ by level, static power x time.

Dynamic energy from the table of pJ per operation (Horowitz, ISSCC 2014; Jouppi et al., ISCA 2021,
table 2) counts only arithmetic and memory cells. GPUs take the energy of a flop from their process
(``power.py``), which was measured whole. On other chips control, clocks and wires are in a chip's
``overhead``: the factor that makes the matrix unit and the memory at full rate draw what was
measured under load, or else the TDP. Chips without any published power take watts per peak
operation from their relatives, as a wide interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import assert_never

import msgspec

from tenfold.chips import Chip, GpuConstant, Kind, MatrixPrecision, MemoryTechnology, Whole
from tenfold.chips import chip as chip_named
from tenfold.errors import DataFileError, InputError, MissingFigure
from tenfold.estimate import Estimate
from tenfold.facts import Account, Entry, Figure, Status, read_file
from tenfold.machine.kernel import BytePrice, Level
from tenfold.machine.power import PowerLimit, Process, power_facts, process_of, voltage
from tenfold.machine.run import Counters

DATA = Path(__file__).parent / "data" / "energy_per_op.toml"
PJ = 1e-12


class _Node(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    nm45: float
    nm7: float
    status: Status
    source: str


class _Off(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pj: float
    low: float
    high: float
    status: Status
    source: str


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    operation: dict[str, _Node]
    sram: dict[str, _Node]
    memory: dict[MemoryTechnology, _Off]


@lru_cache(maxsize=1)
def energy_table() -> _Table:
    table = read_file(DATA, _Table)
    missing = sorted(set(MemoryTechnology) - set(table.memory))
    if missing:
        raise DataFileError(f"{DATA.name}: [memory] needs {', '.join(missing)}")
    return table


def at_node(entry: _Node, nm: float) -> float:
    """pJ at a process node: log-log between 45 and 7 nm, constant outside."""
    if nm <= 7:
        return entry.nm7
    if nm >= 45:
        return entry.nm45
    t = math.log(nm / 7) / math.log(45 / 7)
    return float(entry.nm7 * (entry.nm45 / entry.nm7) ** t)


_MULTIPLY = {
    "int8": "int8_mul", "fp8": "fp8_mul", "fp4": "fp8_mul", "bf16": "bf16_mul", "fp16": "fp16_mul",
    "tf32": "fp16_mul", "fp32": "fp32_mul",
}  # fmt: skip


def mac_pj(precision: MatrixPrecision, nm: float) -> float:
    """A multiply in ``precision`` and an add into the accumulator: int32 for int8, else fp32."""
    table = energy_table().operation
    add = "int32_add" if precision is MatrixPrecision.INT8 else "fp32_add"
    return at_node(table[_MULTIPLY[precision]], nm) + at_node(table[add], nm)


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """Joules per event on one chip, and its static watts; intervals where power was not
    published.
    """

    mac_j: Estimate
    vector_op_j: Estimate
    byte_j: Mapping[Level, Estimate]
    static_w: Estimate
    basis: str

    def __post_init__(self) -> None:
        if missing := [level.name for level in Level if level not in self.byte_j]:
            raise ValueError(f"bytes of {', '.join(missing)} have no energy: give it, or say 0")


def _off_chip(chip: Chip) -> _Off:
    """Energy a bit of the chip's off-chip memory."""
    if chip.memory is None and chip.kind is Kind.ROOFLINE:
        return _any_memory()
    if chip.memory is None:
        raise MissingFigure(
            f"energy on {chip.name} needs 'memory.kind': {', '.join(MemoryTechnology)}"
        )
    return energy_table().memory[chip.memory]


def _any_memory() -> _Off:
    """Of a memory of which nobody says what it is: the middle and the ends of all technologies."""
    known = energy_table().memory.values()
    return _Off(
        pj=statistics.median(m.pj for m in known),
        low=min(m.low for m in known),
        high=max(m.high for m in known),
        status=Status.ASSUMED,
        source="tenfold",
    )


# provisional: as far as a central figure from published power is off (first tries)
DYNAMIC_ERROR = 0.3
# of the power under load, where idle power was not published (assumed)
IDLE_SHARE = Estimate(0.25, 0.12, 0.45)
UNKNOWN_NODE_NM = 7.0


def node_nm(chip: Chip) -> float:
    return chip.figures["process"].value * 1e9 if "process" in chip.figures else UNKNOWN_NODE_NM


def dynamic_energy(model: EnergyModel, c: Counters, at_clock: float = 1.0) -> Account:
    """Dynamic joules of what was counted, by operation and level; ``at_clock``: what those that go
    with the clock are over the ones at the chip's own.
    """
    arithmetic = (
        Entry("matrix", model.mac_j * (c.macs_useful * at_clock)),
        Entry("vector", model.vector_op_j * (c.vector_ops * at_clock)),
    )
    levels = (
        Entry(level.value.shown, j * (c.bytes(level) * (at_clock if clocked(level) else 1.0)))
        for level, j in model.byte_j.items()
        if level.value.byte_price is not BytePrice.NOT_PUBLISHED
    )
    return Account((*arithmetic, *levels))


def clocked(level: Level) -> bool:
    """Whether bytes at a level cost less at a lower clock: memory off the chip has its own."""
    return level.value.byte_price is not BytePrice.MEMORY


@lru_cache(maxsize=128)
def power_limit(chip: Chip) -> PowerLimit | None:
    """Within what a chip must stay; None where nobody has published its power, or it has no
    clock.
    """
    limit = chip.number("power_cap") or chip.tdp_w
    if limit is None or chip.clock_hz is None:
        return None
    static = energy_model(chip, chip.storage(None)).static_w.value
    if limit <= static:
        raise InputError(
            f"{chip.name} draws {static:.3g} W when it does nothing: a power limit must be above,"
            f" got {limit:.4g} W"
        )
    return PowerLimit(static, limit, chip.clock_hz / process_of(node_nm(chip)).top_clock.value)


@lru_cache(maxsize=512)
def energy_model(chip: Chip, precision: MatrixPrecision) -> EnergyModel:
    """The model for ``precision``. Raises MissingFigure where neither power nor relatives are
    known.
    """
    if chip.kind is Kind.GPU:
        return _of_gpu(chip, precision)
    if chip.base is not None:
        return energy_model(chip.base, precision)
    nm = node_nm(chip)
    table = energy_table()
    raw_mac = mac_pj(precision, nm) * PJ
    raw_vector = at_node(table.operation["fp32_add"], nm) * PJ
    load, static, basis = load_power(chip)
    overhead = _overhead(chip, load, static)
    return EnergyModel(
        mac_j=overhead * raw_mac,
        vector_op_j=overhead * raw_vector,
        byte_j={level: _byte_j(level.value.byte_price, chip) for level in Level},
        static_w=static,
        basis=basis,
    )


def _byte_j(price: BytePrice, chip: Chip) -> Estimate:
    """Joules of a byte at a level that is priced so."""
    match price:
        case BytePrice.MEMORY:
            off = _off_chip(chip)
            return Estimate(off.pj, off.low, off.high) * (8 * PJ)
        case BytePrice.SRAM:
            sram = energy_table().sram["mib1_per_64bit"]
            return Estimate.within(at_node(sram, node_nm(chip)) / 8 * PJ, DYNAMIC_ERROR)
        case BytePrice.NOT_PUBLISHED:
            return Estimate.exact(0.0)
        case _:
            assert_never(price)


def _of_gpu(chip: Chip, precision: MatrixPrecision) -> EnergyModel:
    """Joules by what was measured on cards of the process, at the chip's own clock; where the power
    of its kernels was measured, by that.
    """
    load, static, basis = load_power(chip)
    constants = chip.figures
    factor = constants.get(f"calibration.{GpuConstant.MAC_ENERGY_FACTOR.value}")
    events, error = 1.0, DYNAMIC_ERROR
    if factor is not None:
        busy = chip.constant(GpuConstant.BUSY_FRACTION)
        events, error = factor.value, chip.error(Whole.ENERGY)
        static, basis = Estimate.within(busy * load.value, error), MEASURED
    lanes = flop_j(chip, None)
    mac = 2 * flop_j(chip, None if chip.on_lanes(precision) else precision)
    off = _off_chip(chip)
    way = Estimate.within(power_facts().byte_way.value, DYNAMIC_ERROR)
    byte = {
        Level.OFF_CHIP: Estimate(off.pj, off.low, off.high) * (8 * PJ),
        # what comes from memory or the caches passes on to the multiprocessors, where it is
        # counted as it comes and as it goes
        Level.ON_CHIP: way * 0.5,
    }
    return EnergyModel(
        mac_j=Estimate.within(events * mac, error),
        vector_op_j=Estimate.within(events * lanes, error),
        byte_j={level: byte.get(level, Estimate.exact(0.0)) for level in Level},
        static_w=static,
        basis=basis,
    )


MEASURED = "measured power of running kernels"


def flop_j(chip: Chip, precision: MatrixPrecision | None) -> float:
    """Joules of one flop on the matrix units of a GPU in ``precision``, on its vector lanes where
    None, at its own clock.
    """
    nm = node_nm(chip)
    own = float(voltage((chip.clock_hz or 0.0) / process_of(nm).top_clock.value)) ** 2
    if precision is None:
        return own * _at_process(nm, lambda p: p.lane_flop)
    wide = min(_at_process(nm, lambda p: p.matrix_flop), _at_most(chip) / own)
    return own * wide * power_facts().width[precision]


def _at_process(nm: float, flop: Callable[[Process], Figure | None]) -> float:
    """Joules of a flop in the process, its own or those of 7 nm scaled."""
    process = process_of(nm)
    found, seven = flop(process), flop(process_of(7.0))
    if found is not None:
        return found.value
    assert seven is not None
    if process.over_7nm is not None:
        return seven.value * process.over_7nm.value
    return seven.value * mac_pj(MatrixPrecision.BF16, nm) / mac_pj(MatrixPrecision.BF16, 7.0)


def _at_most(chip: Chip) -> float:
    """Joules of a 16-bit flop at the clock at which the best matmul ran, which drew no more than
    the TDP; infinite where nobody published one.
    """
    achieved, tdp = chip.number("achieved_matmul"), chip.tdp_w
    if achieved is None or tdp is None:
        return math.inf
    _, static, _ = load_power(chip)
    return (tdp - static.value) / achieved


def _overhead(chip: Chip, load: Estimate, static: Estimate) -> Estimate:
    """Dynamic watts under load, less the memory's at full bandwidth, over the arithmetic's raw
    watts at peak.

    The reference is the chip's best precision; the same factor serves the others.
    """
    reference = chip.storage(None)
    nm = node_nm(chip)
    off = _off_chip(chip)
    arithmetic = chip.peak_flops[reference] / 2 * mac_pj(reference, nm) * PJ
    memory = (chip.memory_bytes_per_s or 0.0) * off.pj * 8 * PJ

    def factor(load_w: float, static_w: float) -> float:
        return max(0.5, (load_w - static_w - memory) / arithmetic)

    values = sorted(
        (
            factor(load.low, static.high),
            factor(load.value, static.value),
            factor(load.high, static.low),
        )
    )
    central = factor(load.value, static.value)
    return Estimate(
        central,
        min(values[0], central / (1 + DYNAMIC_ERROR)),
        max(values[2], central * (1 + DYNAMIC_ERROR)),
    )


@lru_cache(maxsize=128)
def load_power(chip: Chip) -> tuple[Estimate, Estimate, str]:
    """Watts under full load, static watts, and what they rest on."""
    figures = chip.figures
    published = figures.get("busy_power") or figures.get("tdp")
    if published is not None:
        top = figures.get("tdp", published)
        load = Estimate(
            published.value, published.low, max(published.high, top.high, published.value)
        )
        basis = "measured power under load" if "busy_power" in figures else "TDP"
    else:
        load, basis = _from_relatives(chip)
    if "idle_power" in figures:
        idle = figures["idle_power"]
        high = min(max(idle.high, idle.value), load.value * 0.9)
        return load, Estimate(min(idle.value, high), min(idle.low, high), high), basis
    share = load.value * IDLE_SHARE.value
    return (
        load,
        Estimate(share, load.low * IDLE_SHARE.low, max(share, load.high * IDLE_SHARE.high)),
        f"{basis}, idle share assumed",
    )


def _from_relatives(chip: Chip) -> tuple[Estimate, str]:
    """Watts by the relatives' watts per peak operation: from the least to the most, geometric mean
    between.
    """
    if not chip.relatives:
        raise MissingFigure(
            f"energy on {chip.name} needs 'tdp' or 'busy_power', which nobody has published, and"
            " the chip names no relatives"
        )
    peak = max(
        chip.peak_flops.get(MatrixPrecision.BF16, 0.0),
        chip.peak_flops.get(MatrixPrecision.FP16, 0.0),
    ) or max(chip.peak_flops.values())
    rates = []
    for name in chip.relatives:
        other = chip_named(name)
        figures = [other.figures[f].value for f in ("busy_power", "tdp") if f in other.figures]
        rates += [w / max(other.peak_flops.values()) for w in figures]
    if not rates:
        raise MissingFigure(
            f"energy on {chip.name}: none of its relatives ({', '.join(chip.relatives)}) has"
            " published power"
        )
    low, high = min(rates) * peak * 0.5, max(rates) * peak
    return (
        Estimate(math.sqrt(low * high), low, high),
        (
            f"relatives {', '.join(chip.relatives)}, half the watts per operation allowed for newer"
            " processes"
        ),
    )
