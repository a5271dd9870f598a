"""What holds a model back on a chip, found by making one unit infinitely fast, and what to do about
it, each with its gain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tenfold.chips import Chip, MatrixPrecision
from tenfold.chips.record import Quantity
from tenfold.compiler import DEFAULT, Options, build
from tenfold.errors import TenfoldError
from tenfold.ir import Graph
from tenfold.machine import Program, simulate
from tenfold.profile import Sizes, prepare

FAST = 1e6  # times as fast is infinitely fast
_LAUNCHES = ("launch_s", "kernel_s", "attention_launch_s", "wave_s")
WORTH = 0.03  # gains below this are not advice


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A unit, and the share of the time that would go if it took none."""

    unit: str
    gain: float


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to do, the share of the time of an item that it saves, and what to mind."""

    do: str
    gain: float
    mind: str = ""


def bottleneck(program: Program, chip: Chip) -> list[Relaxed]:
    """Each unit made infinitely fast on its own, the largest gain first."""
    before = simulate(program, chip).time_s.value
    if not before:
        return []
    found = [
        Relaxed(unit, 1 - simulate(program, faster).time_s.value / before)
        for unit, faster in _relaxed(chip)
    ]
    return sorted(found, key=lambda r: -r.gain)


def _relaxed(chip: Chip) -> Iterator[tuple[str, Chip]]:
    assert chip.memory_bytes_per_s is not None
    yield "off-chip memory", replace(chip, memory_bytes_per_s=chip.memory_bytes_per_s * FAST)
    yield "matrix unit", replace(chip, peak_flops={p: v * FAST for p, v in chip.peak_flops.items()})
    yield (
        "vector unit",
        replace(chip, vector_ops_per_cycle=(chip.vector_ops_per_cycle or 1.0) * FAST),
    )
    yield "launches", replace(chip, figures=_without(chip.figures))


def _without(figures: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """The figures with every fixed cost of a launch at zero."""
    gone = {f"calibration.{n}" for n in _LAUNCHES}
    return {
        n: replace(q, value=0.0, low=0.0, high=0.0) if n in gone else q for n, q in figures.items()
    }


def advise(
    graph: Graph, sizes: Sizes, chip: Chip, precision: MatrixPrecision, options: Options = DEFAULT
) -> list[Advice]:
    """What would take time off an item, by trying it: larger batches, other dtypes, steps left out,
    more on-chip memory.
    """

    def per_item(batch: int, on: Chip, dtype: MatrixPrecision, chosen: Options) -> float:
        bound = prepare(graph, replace(sizes, batch=batch))
        return simulate(build(bound.graph, on, dtype, batch, chosen), on).time_s.value / batch

    now = per_item(sizes.batch, chip, precision, options)
    found: list[Advice] = []
    if not now:
        return found
    for do, mind, batch, on, dtype, chosen in _trials(sizes, chip, precision, options):
        try:
            gain = 1 - per_item(batch, on, dtype, chosen) / now
        except TenfoldError:  # it does not fit, or the model has one batch only
            continue
        if gain >= WORTH:
            found.append(Advice(do, gain, mind))
    return sorted(found, key=lambda a: -a.gain)


def _trials(
    sizes: Sizes, chip: Chip, precision: MatrixPrecision, options: Options
) -> Iterator[tuple[str, str, int, Chip, MatrixPrecision, Options]]:
    yield (
        f"batch {sizes.batch * 2}",
        "a batch takes longer to gather",
        sizes.batch * 2,
        chip,
        precision,
        options,
    )
    for other in (MatrixPrecision.INT8, MatrixPrecision.FP8):
        if other in chip.peak_flops and chip.bits(other) < chip.bits(precision):
            yield (
                other.value,
                "if quality holds: check with --quality",
                sizes.batch,
                chip,
                other,
                options,
            )
            break
    for step in options.without:
        left = replace(options, without=tuple(s for s in options.without if s != step))
        yield f"the compiler step '{step}'", "", sizes.batch, chip, precision, left
    near = chip.near
    if near is not None:
        larger = replace(
            chip, sram=tuple(replace(s, bytes=s.bytes * 2) if s == near else s for s in chip.sram)
        )
        yield f"twice the {near.name}", "another chip", sizes.batch, larger, precision, options
