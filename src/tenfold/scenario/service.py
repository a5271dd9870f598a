"""From the machine to the server: how long, and how many joules, a batch takes on a chip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tenfold.chips import Chip, Kind
from tenfold.cluster import Layout
from tenfold.compiler import DEFAULT, Options
from tenfold.economics import dispatch, idle_power
from tenfold.errors import DoesNotFit, FixedBatch, ModelError
from tenfold.estimate import Estimate
from tenfold.evaluate.profiling import Profile, Several, profile_bound
from tenfold.ir import Graph
from tenfold.machine import target_of
from tenfold.model import Bound, Sizes, fixed_batch, prepare

LARGEST_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Service:
    """A model on a chip by batch: time and energy of one pass, bytes of its weights, and why no
    larger batch is in it; ``together`` chips share every layer.
    """

    chip: Chip
    runs: Mapping[int, Profile]
    weight_bytes: float
    stopped: str
    together: int = 1

    @property
    def times_s(self) -> Mapping[int, Estimate]:
        """Of each batch as it is served, what the host takes of the chip's time included."""
        return {b: served(self.chip, b, r.time_s) for b, r in self.runs.items()}

    @property
    def energy_j(self) -> Mapping[int, Estimate]:
        """Of each batch: the pass, and idle power for what the host takes."""
        return {b: r.energy_j + self._waits_j(b, r) for b, r in self.runs.items()}

    def _waits_j(self, batch: int, run: Profile) -> Estimate:
        waits_s = served(self.chip, batch, run.time_s).value - run.time_s.value
        each_w = run.energy_j.value / run.time_s.value / self.together
        top_w = max(self.chip.tdp_w or 0.0, each_w)
        return idle_power(self.chip, top_w) * (waits_s * self.together)

    @property
    def dtype(self) -> str:
        return next(iter(self.runs.values())).run.program.precision.value

    @property
    def memory_bytes(self) -> float:
        """Off chip, at the largest batch, of the chip that holds most."""
        return max(r.memory_bytes for r in self.runs.values())


def served(chip: Chip, batch: int, time_s: Estimate) -> Estimate:
    """A pass on an accelerator with what its host takes, which calls the chip itself: a share of
    the time, and a while for each request, up to the most that was ever seen. A processor is its
    own host, and measured so.
    """
    if target_of(chip).own_host:
        return time_s
    busy, each, most = dispatch("busy"), dispatch("item"), dispatch("most")

    def end(time: float, share: float, item: float, limit: float) -> float:
        return time / share + min(batch * item, time * limit)

    return Estimate(
        end(time_s.value, busy.value, each.value, most.value),
        end(time_s.low, busy.high, each.low, most.low),
        end(time_s.high, busy.low, each.high, most.high),
    )


def batches(largest: int) -> list[int]:
    """1, 2, 4 … and ``largest``."""
    sizes = [1]
    while sizes[-1] * 2 <= largest:
        sizes.append(sizes[-1] * 2)
    return sizes if sizes[-1] == largest else [*sizes, largest]


class Models:
    """A graph bound to each batch once, and compiled for each chip and batch once."""

    def __init__(self, graph: Graph, sizes: Sizes, options: Options = DEFAULT) -> None:
        self.graph, self.sizes, self.options = graph, sizes, options
        self.fixed = fixed_batch(graph)  # a smaller batch runs as this one, a larger one cannot be
        self._bound: dict[int, Bound] = {}
        self._runs: dict[tuple[Chip, str | None, int, int], Profile] = {}

    def run(self, chip: Chip, dtype: str | None, batch: int, together: int = 1) -> Profile:
        """The batch on ``chip``, or on chips that share every layer ``together``, compiled once.

        Raises DoesNotFit, UnsupportedDType, MissingFigure, ModelError; InputError for chips that
        cannot share it.
        """
        key = chip, dtype, batch, together
        if key not in self._runs:
            # chips that are no GPUs have one stack, their maker's
            options = self.options if chip.kind is Kind.GPU else DEFAULT
            on = Several(Layout(tensor=together)) if together > 1 else None
            done = profile_bound(self.at(batch), chip, dtype=dtype, options=options, on=on)
            self._runs[key] = done
        return self._runs[key]

    def at(self, batch: int) -> Bound:
        if batch not in self._bound:
            within = 1 if batch <= self.fixed else batch
            self._bound[batch] = prepare(self.graph, self.sizes.at(within))
        return self._bound[batch]


def service(
    models: Models,
    chip: Chip,
    dtype: str | None,
    *,
    within_s: float,
    sizes: Iterable[int],
    together: int = 1,
) -> Service:
    """The model at each batch of ``sizes`` in turn, up to the first that takes longer than
    ``within_s`` or does not fit.

    Raises what a batch of one raises: DoesNotFit, UnsupportedDType, MissingFigure, ModelError.
    """
    runs: dict[int, Profile] = {}
    stopped = "the largest batch asked for"
    for batch in sizes:
        try:
            run = models.run(chip, dtype, batch, together)
        except (DoesNotFit, FixedBatch, ModelError) as error:
            if not runs:
                raise
            stopped = f"a batch of {batch} cannot be: {error}"
            break
        runs[batch] = run
        if run.time_s.value > within_s:
            stopped = f"a batch of {batch} takes longer than may be"
            break
    weights = next(iter(runs.values())).run.program.weight_bytes
    return Service(chip, runs, weights, stopped, together)
