"""Scenario files: tenants, models and arrivals on one chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tenfold import units
from tenfold.errors import DataFileError, InputError, UnitError, UnknownName
from tenfold.facts import convert
from tenfold.files import check_printable, read_text
from tenfold.scenario.arrivals import Arriving, Closed, read_arrivals
from tenfold.serving import Choice, OnOff, Trace, Version
from tenfold.serving.versions import check_shares
from tenfold.units import Dimension

DEFAULT_SPREAD = 0.05
DEFAULT_LARGEST = 64  # batch
OF_NETWORKS = ("seq", "dtype")  # fields that given times leave without use
MOST_REQUESTS = 100_000_000  # of all streams of a run
MOST_BATCH = 1 << 20
MOST_SPREAD = 10.0  # coefficient of variation
LEAST_TIME_S, LONGEST_S = 1e-9, 3.2e7
MOST_SEED = 2**64 - 1
MOST_PRIORITY = 1_000_000
MOST_WORKERS = 10_000
MOST_CLIENTS = 100_000
MOST_PERIODS = 1_000_000  # of an on-off stream


class _Stream(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    model: str
    slo: str
    arrivals: dict[str, str | int | float]
    priority: int = 0


class _Tenant(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    stream: list[_Stream]
    weight: float = 1.0
    greedy: bool = False


class _Model(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    network: str = ""
    seq: int | None = None
    dtype: str | None = None
    largest: int | None = None
    times: dict[str, str] = {}
    weights: str = ""
    load: str = ""
    spread: float = DEFAULT_SPREAD
    source: str = ""


class _Version(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    of: str
    model: str
    share: float
    shadow: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    duration: str
    model: list[_Model]
    tenant: list[_Tenant]
    chip: str = ""
    memory: str = ""
    workers: int = 1
    seed: int = 0
    warm_up: str = "0 s"
    version: list[_Version] = []
    policy: dict[str, str | int | float] = {}
    note: str = ""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What one tenant sends to one model name."""

    model: str
    slo_s: float
    arrivals: Arriving
    priority: int


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """A tenant; ``greedy`` marks one that is meant to ask for more than its share."""

    name: str
    weight: float
    greedy: bool
    streams: tuple[StreamSpec, ...]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model: a network whose times the machine gives, or given times by batch."""

    name: str
    network: str
    seq: int | None
    dtype: str | None
    largest: int
    times_s: Mapping[int, float]
    weight_bytes: float | None
    load_s: float | None
    spread: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario file in SI units."""

    name: str
    duration_s: float
    warm_up_s: float
    seed: int
    chip: str
    memory_bytes: float | None
    workers: int
    models: tuple[ModelSpec, ...]
    tenants: tuple[TenantSpec, ...]
    routes: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)
    policy: Choice = field(default_factory=Choice)
    note: str = ""


def read_scenario(path: Path) -> Scenario:
    """The scenario of a TOML file.

    Raises DataFileError for an unknown field, a wrong type or unit; InputError for names that do
    not meet, duplicates, or values that cannot be.
    """
    text = read_text(path)
    try:
        found = msgspec.toml.decode(text)
        check_printable(found)
        file = convert(found, _File)
    except RecursionError as error:
        raise DataFileError(f"{path.name}: is nested too deep to be read") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise DataFileError(f"{path.name}: {error}") from error
    try:
        scenario = _scenario(file, path.parent)
    except UnknownName:
        raise
    except InputError as error:
        raise DataFileError(f"{path.name}: {error}") from error
    return scenario


def _scenario(file: _File, folder: Path) -> Scenario:
    if not file.model or not file.tenant:
        raise InputError("a scenario needs at least one [[model]] and one [[tenant]]")
    _distinct("model", [m.name for m in file.model])
    _distinct("tenant", [t.name for t in file.tenant])
    names = [m.name for m in file.model]
    routes: dict[str, list[Version]] = {}
    for v in file.version:
        if v.model not in names:
            raise UnknownName("model", v.model, names)
        routes.setdefault(v.of, []).append(Version(v.model, v.share, v.shadow))
    for name, versions in routes.items():
        check_shares(name, versions)
    if not 0 <= file.seed <= MOST_SEED or not 1 <= file.workers <= MOST_WORKERS:
        raise InputError(
            f"a seed is 0 to {MOST_SEED} and workers 1 to {MOST_WORKERS:,}, got {file.seed} and"
            f" {file.workers}"
        )
    models = tuple(_model(m, folder) for m in file.model)
    duration, warm_up = (
        units.parse(file.duration, Dimension.TIME_S),
        units.parse(file.warm_up, Dimension.TIME_S),
    )
    if not 0 <= warm_up < duration:
        raise InputError(
            f"a scenario lasts longer than its warm-up, got {file.duration} and {file.warm_up}"
        )
    tenants = tuple(_tenant(t, {*names, *routes}, folder) for t in file.tenant)
    _check_amounts(tenants, duration)
    return Scenario(
        name=file.name,
        duration_s=duration,
        warm_up_s=warm_up,
        seed=file.seed,
        chip=file.chip,
        memory_bytes=_memory(file.memory) if file.memory else None,
        workers=file.workers,
        models=models,
        tenants=tenants,
        routes={n: tuple(v) for n, v in routes.items()},
        policy=_policy(file.policy),
        note=file.note,
    )


def _memory(text: str) -> float:
    held = units.parse(text, Dimension.BYTES)
    if held <= 0:
        raise InputError(
            f"memory holds more than 0 B, got '{text}': leave it out for the chip's own, or for"
            " room for every model where no chip is named"
        )
    return held


def _check_amounts(tenants: Sequence[TenantSpec], duration_s: float) -> None:
    """Raises InputError for more requests, clients or periods, over the scenario as a whole, than a
    simulation holds, or a trace of which none comes before the end.
    """
    requests, clients = 0.0, 0
    for t in tenants:
        for s in t.streams:
            match s.arrivals:
                case Closed():
                    clients += s.arrivals.clients
                case Trace():
                    _check_trace(t.name, s.arrivals, duration_s)
                    requests += s.arrivals.within(duration_s)
                case OnOff():
                    _check_periods(t.name, s.arrivals, duration_s)
                    requests += s.arrivals.rate_per_s * duration_s
                case _:
                    requests += s.arrivals.rate_per_s * duration_s
    if requests > MOST_REQUESTS:
        raise InputError(
            f"its streams send {requests:,.3g} requests in {duration_s:g} s, more than the"
            f" {MOST_REQUESTS:,} that a run may have"
        )
    if clients > MOST_CLIENTS:
        raise InputError(
            f"its closed loops have {clients:,} clients, more than the {MOST_CLIENTS:,} that a run"
            " may have"
        )


def _check_trace(tenant: str, trace: Trace, duration_s: float) -> None:
    if trace.recorded_s[0] >= duration_s:
        raise InputError(
            f"tenant '{tenant}': its trace begins after the end of the scenario at {duration_s:g} s"
        )


def _check_periods(tenant: str, arrivals: OnOff, duration_s: float) -> None:
    periods = duration_s / (arrivals.on_s + arrivals.off_s)
    if periods > MOST_PERIODS:
        raise InputError(
            f"tenant '{tenant}': {periods:,.3g} times on and off in {duration_s:g} s are more than"
            f" the {MOST_PERIODS:,} that a run may have"
        )


def left_out(scenario: Scenario) -> list[str]:
    """What of a scenario's files the run does not see, in words."""
    found = []
    for t in scenario.tenants:
        for s in t.streams:
            if isinstance(s.arrivals, Trace):
                rows = len(s.arrivals.recorded_s)
                late = rows - s.arrivals.within(scenario.duration_s)
                if late:
                    found.append(
                        f"{late:,} of the {rows:,} rows of the trace of '{t.name}' come after the"
                        f" end at {scenario.duration_s:g} s"
                    )
    return found


def _distinct(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{what} '{name}' is there {names.count(name)} times: names must differ"
            )


def _network(name: str, folder: Path) -> str:
    """A name from the zoo, or a file beside the scenario."""
    beside = folder / name
    is_path = Path(name).suffix in (".onnx", ".json") or beside.exists()
    return str(beside) if name and is_path else name


def _model(m: _Model, folder: Path) -> ModelSpec:
    if bool(m.network) == bool(m.times):
        raise InputError(f"model '{m.name}' needs either a network or times by batch")
    unread = [name for name in OF_NETWORKS if m.times and getattr(m, name) is not None]
    if unread:
        raise InputError(
            f"model '{m.name}' has times, so that nothing reads its {', '.join(unread)}: leave out"
            " one or the other"
        )
    largest = DEFAULT_LARGEST if m.largest is None else m.largest
    if not 1 <= largest <= MOST_BATCH or not 0 <= m.spread <= MOST_SPREAD:
        raise InputError(
            f"model '{m.name}' needs a largest batch of 1 to {MOST_BATCH:,} and a spread of 0 to"
            f" {MOST_SPREAD:g}, got {largest} and {m.spread:g}"
        )
    times = {}
    for batch, time in m.times.items():
        if not _is_batch(batch):
            raise InputError(
                f"model '{m.name}': times are by batch, a whole number of 1 to {MOST_BATCH:,}"
                f" without leading zeros, got '{batch[:30]}'"
            )
        if m.largest is None or int(batch) <= largest:
            times[int(batch)] = _time_of(m.name, batch, time)
    if m.times and not times:
        raise InputError(f"model '{m.name}' has no times up to its largest batch, {largest}")
    return ModelSpec(
        name=m.name,
        network=_network(m.network, folder),
        seq=m.seq,
        dtype=m.dtype,
        largest=largest,
        times_s=times,
        weight_bytes=_not_negative(m, "weights", Dimension.BYTES),
        load_s=_not_negative(m, "load", Dimension.TIME_S),
        spread=m.spread,
    )


def _is_batch(text: str) -> bool:
    plain = text.isdecimal() and text.isascii() and not text.startswith("0")
    return plain and len(text) < 10 and int(text) <= MOST_BATCH


def _time_of(model: str, batch: str, text: str) -> float:
    value = units.parse(text, Dimension.TIME_S)
    if not LEAST_TIME_S <= value <= LONGEST_S:
        raise InputError(
            f"model '{model}': a batch of {batch} takes {text}, and times are of a nanosecond to"
            " a year"
        )
    return value


def _not_negative(m: _Model, field: str, dimension: Dimension) -> float | None:
    text = getattr(m, field)
    value = units.parse(text, dimension) if text else None
    if value is not None and value < 0:
        raise InputError(f"model '{m.name}': {field} is not negative, got {text}")
    return value


def _tenant(t: _Tenant, models: set[str], folder: Path) -> TenantSpec:
    if not t.stream:
        raise InputError(
            f"tenant '{t.name}' sends nothing: it needs at least one [[tenant.stream]]"
        )
    if not 0 < t.weight < float("inf"):
        raise InputError(f"tenant '{t.name}' needs a weight above 0 and finite, got {t.weight:g}")
    streams = []
    for s in t.stream:
        if s.model not in models:
            raise UnknownName("model", s.model, models)
        slo = units.parse(s.slo, Dimension.TIME_S)
        if not LEAST_TIME_S <= slo <= LONGEST_S:
            raise InputError(f"tenant '{t.name}': an SLO is of a nanosecond to a year, got {s.slo}")
        if abs(s.priority) > MOST_PRIORITY:
            raise InputError(
                f"tenant '{t.name}': a priority is at most {MOST_PRIORITY:,} either way, got"
                f" {s.priority}"
            )
        try:
            streams.append(StreamSpec(s.model, slo, read_arrivals(s.arrivals, folder), s.priority))
        except UnitError as error:
            raise UnitError(f"tenant '{t.name}': {error}") from error
        except InputError as error:
            raise InputError(f"tenant '{t.name}': {error}") from error
    return TenantSpec(t.name, t.weight, t.greedy, tuple(streams))


def _policy(given: Mapping[str, str | int | float]) -> Choice:
    """A policy by its kind with the knobs that it has."""
    kind = str(given.get("kind", "slo"))
    spec = Choice(kind).spec
    texts = {name: text for name, text in given.items() if name != "kind"}
    Choice(kind, dict.fromkeys(texts, 0.0))  # no knob of another policy
    return Choice(kind, {k.name: k.read(texts[k.name]) for k in spec.knobs if k.name in texts})
