"""The policies by name: what each is, its knobs, the settings that tuning tries, how it is built.

Scenario files, tuning, tests and the command line read this one table: a policy more is a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tenfold import units
from tenfold.errors import InputError, UnitError, UnknownName
from tenfold.facts import ABOVE_0, FROM_0, WHOLE, Range, Spec
from tenfold.serving.baselines import Aimd, Clockwork, FixedBatch, MaxDelay
from tenfold.serving.policy import Served, SloPolicy
from tenfold.serving.record import NEVER, Policy
from tenfold.units import Dimension

_BETWEEN = Range(0.0, 1.0 - 1e-9, open_low=True)  # a fraction that is neither 0 nor 1


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting of a policy: what it can be, and its default; None for one that may be left out."""

    name: str
    spec: Spec
    default: float | None

    def read(self, text: str | float) -> float:
        """The value in SI, of a number or of text with a unit. Raises InputError."""
        try:
            value = units.parse(str(text), self.spec.dimension)
        except UnitError as error:
            raise InputError(f"policy: {self.name}: {error}") from error
        if fault := self.spec.range.fault(value):
            raise InputError(f"policy: {self.name} {fault}, got {text}")
        return value

    def shown(self, value: float) -> str:
        if self.spec.dimension is Dimension.TIME_S:
            return f"{self.name} {units.show(value, 's')}"
        return f"{self.name} {value:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy by name with its knobs as set; those not set have their default."""

    policy: str = "slo"
    knobs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UnknownName("policy", self.policy, POLICIES)
        known = {k.name for k in POLICIES[self.policy].knobs}
        for name in self.knobs:
            if name not in known:
                has = ", ".join(sorted(known)) or "none"
                raise InputError(f"policy '{self.policy}' has no knob '{name}': it has {has}")

    @property
    def spec(self) -> PolicySpec:
        return POLICIES[self.policy]

    def value(self, knob: str) -> float | None:
        """The setting of a knob, its default where it is not set."""
        default = next(k.default for k in self.spec.knobs if k.name == knob)
        return self.knobs.get(knob, default)

    @property
    def words(self) -> str:
        """The knobs in words."""
        values = ((k, self.value(k.name)) for k in self.spec.knobs)
        return ", ".join(k.shown(v) for k, v in values if v is not None) or "none but the SLO"


@dataclass(frozen=True, slots=True)
class World:
    """What a policy is built for: the models, weights of the tenants, workers, bytes of memory."""

    models: Mapping[str, Served]
    tenants: Mapping[str, float]
    workers: int = 1
    budget_bytes: float = NEVER


@dataclass(frozen=True, slots=True)
class Tried:
    """What tuning goes by: batches to try, and the strictest SLO in seconds."""

    batches: tuple[int, ...]
    slo_s: float


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A policy. ``grid`` are the settings that tuning tries; ``build`` makes it of its knobs."""

    name: str
    says: str
    knobs: tuple[Knob, ...]
    grid: Callable[[Tried], Iterator[Mapping[str, float]]]
    build: Callable[[World, Choice], Policy]

    def choices(self, tried: Tried) -> list[Choice]:
        return [Choice(self.name, knobs) for knobs in self.grid(tried)]


_BATCH = Knob("batch", Spec(Dimension.COUNT, WHOLE), 8)
_DELAY = Knob("delay", Spec(Dimension.TIME_S, FROM_0), 0.001)
_QUEUE = Knob("queue", Spec(Dimension.COUNT, WHOLE), None)
_STEP = Knob("step", Spec(Dimension.COUNT, WHOLE), 1)
_BACKOFF = Knob("backoff", Spec(Dimension.FRACTION, _BETWEEN), 0.9)
_MARGIN = Knob("margin", Spec(Dimension.FRACTION, ABOVE_0), 1.0)
_DELAYS = (0.0, 0.05, 0.2)  # shares of the strictest SLO that are tried


def _set(choice: Choice, knob: Knob) -> float:
    value = choice.value(knob.name)
    assert value is not None, knob.name
    return value


def _slo(world: World, _choice: Choice) -> Policy:
    return SloPolicy(
        world.models, world.tenants, workers=world.workers, budget_bytes=world.budget_bytes
    )


def _fixed(world: World, choice: Choice) -> Policy:
    return FixedBatch(world.models, int(_set(choice, _BATCH)), world.budget_bytes)


def _delay(world: World, choice: Choice) -> Policy:
    queue = choice.value(_QUEUE.name)
    return MaxDelay(
        world.models,
        int(_set(choice, _BATCH)),
        _set(choice, _DELAY),
        queue=int(queue) if queue is not None else None,
        budget_bytes=world.budget_bytes,
    )


def _aimd(world: World, choice: Choice) -> Policy:
    step, backoff = int(_set(choice, _STEP)), _set(choice, _BACKOFF)
    return Aimd(world.models, step, backoff, world.budget_bytes)


def _clockwork(world: World, choice: Choice) -> Policy:
    margin, batch = _set(choice, _MARGIN), int(_set(choice, _BATCH))
    return Clockwork(world.models, margin, batch, world.budget_bytes)


def _delay_grid(tried: Tried) -> Iterator[Mapping[str, float]]:
    for batch, share in itertools.product(tried.batches, _DELAYS):
        knobs = {"batch": batch, "delay": tried.slo_s * share}
        yield knobs
        yield knobs | {"queue": 2 * batch}


POLICIES: Mapping[str, PolicySpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            PolicySpec(
                name="slo",
                says="holds the p99 of each tenant, with the SLO for its only knob",
                knobs=(),
                grid=lambda _: iter(({},)),
                build=_slo,
            ),
            PolicySpec(
                name="fixed",
                says="always the same batch",
                knobs=(_BATCH,),
                grid=lambda tried: ({"batch": b} for b in tried.batches),
                build=_fixed,
            ),
            PolicySpec(
                name="delay",
                says="a batch, sooner when the oldest has waited a while (Triton)",
                knobs=(_BATCH, _DELAY, _QUEUE),
                grid=_delay_grid,
                build=_delay,
            ),
            PolicySpec(
                name="aimd",
                says="a batch that grows until one takes too long (Clipper)",
                knobs=(_STEP, _BACKOFF),
                grid=lambda _: (
                    {"step": s, "backoff": b} for s, b in itertools.product((1, 2, 4), (0.5, 0.9))
                ),
                build=_aimd,
            ),
            PolicySpec(
                name="clockwork",
                says="the batch that must start first, as large as its deadline allows (Clockwork)",
                knobs=(_MARGIN, _BATCH),
                grid=lambda tried: (
                    {"batch": b, "margin": m}
                    for b, m in itertools.product(tried.batches, (1.0, 1.25, 2.0))
                ),
                build=_clockwork,
            ),
        )
    }
)
BASELINES: tuple[str, ...] = tuple(name for name in POLICIES if name != "slo")
