"""What holds a model back on a chip, found by making one unit infinitely fast, and what to do about
it, each with its gain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tenfold.chips import Chip, GpuConstant, MatrixPrecision, SystolicConstant
from tenfold.chips.figures import CALIBRATION, PEAK
from tenfold.chips.record import constants
from tenfold.chips.what_if import CAP
from tenfold.compiler import DEFAULT, Options
from tenfold.errors import TenfoldError
from tenfold.estimate import Estimate
from tenfold.evaluate.profiling import Several, profile_bound
from tenfold.ir import Graph
from tenfold.machine import Network, Program, Together, simulate, target_of
from tenfold.machine.energy import power_limit
from tenfold.model import Sizes, prepare

FAST = 1e6  # times as fast is infinitely fast
NO_LIMIT_W = 1e6  # more than any chip draws
_LAUNCHES = frozenset(
    {
        GpuConstant.LAUNCH_S.value,
        GpuConstant.ATTENTION_LAUNCH_S.value,
        GpuConstant.WAVE_S.value,
        SystolicConstant.KERNEL_S.value,
    }
)
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


def bottleneck(program: Program, chip: Chip, network: Network | None = None) -> list[Relaxed]:
    """Each unit made infinitely fast on its own, or the limit of power lifted, the largest gain
    first; ``network`` joins the chip to those that run the other parts.
    """
    before = simulate(program, chip, network).time_s.value
    if not before:
        return []
    found = [
        Relaxed(unit, 1 - simulate(program, faster, network).time_s.value / before)
        for unit, faster in _relaxed(chip)
    ]
    if network is not None:
        left = simulate(program, chip, _NoLinks()).time_s.value
        found.append(Relaxed("links to other chips", 1 - left / before))
    return sorted(found, key=lambda r: -r.gain)


class _NoLinks:
    """A network on which nothing takes time."""

    def seconds(self, what: Together) -> Estimate:
        assert what.ways > 0
        return Estimate.exact(0.0)


def _relaxed(chip: Chip) -> Iterator[tuple[str, Chip]]:
    yield "off-chip memory", _faster(chip, ["memory.bandwidth"])
    yield "matrix unit", _faster(chip, [p for p in chip.figures if p.startswith(PEAK)])
    yield "vector unit", _faster(chip, ["vector_ops_per_cycle"])
    yield (
        "launches",
        chip.with_figures(
            {f"{CALIBRATION}{c.value}": 0.0 for c in constants(chip) if c.value in _LAUNCHES}
        ),
    )
    limit = power_limit(chip)
    if limit is not None:
        yield "power limit", chip.with_figures({CAP: NO_LIMIT_W})


def _faster(chip: Chip, paths: Sequence[str]) -> Chip:
    """The chip with figures so large that what they are rates of takes no time."""
    return chip.with_figures({p: (chip.number(p) or 1.0) * FAST for p in paths})


def advise(
    graph: Graph,
    sizes: Sizes,
    chip: Chip,
    precision: MatrixPrecision,
    options: Options = DEFAULT,
    several: Several | None = None,
) -> list[Advice]:
    """What would take time off an item, by trying it: larger batches, other dtypes, steps left out,
    more on-chip memory.
    """
    copies = several.layout.data if several is not None else 1

    def per_item(batch: int, on: Chip, dtype: MatrixPrecision, chosen: Options) -> float:
        bound = prepare(graph, replace(sizes, batch=batch // copies))
        found = profile_bound(bound, on, dtype=dtype.value, options=chosen, on=several)
        return found.every_s.value / batch

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
        if other in chip.peak_flops and other.bits < precision.bits:
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
    near = target_of(chip).near()
    if near is not None:
        path = f"sram.{near.name}.capacity"
        larger = chip.with_figures({path: 2 * chip.figures[path].value})
        yield f"twice the {near.name}", "another chip", sizes.batch, larger, precision, options
