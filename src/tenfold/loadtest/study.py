"""A model on this machine under load, as `tenfold loadtest` asks: batches timed, rates tried, the
same simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from statistics import median_high
from typing import TypeAlias

from tenfold.errors import InputError
from tenfold.evaluate.watch import LONGEST_RUN_S
from tenfold.loadtest.search import STEPS, capacity, highest, valid
from tenfold.loadtest.session import Session, profile_batches, spare_threads
from tenfold.loadtest.trial import (
    TrialTimes,
    drive,
    loadgen_module,
    loadgen_offline,
    loadgen_server,
    served_ratios,
    simulated,
    slo_policy,
)
from tenfold.serving import Result

TIMES_THE_SLO = 10.0  # a run may take, before it is ended
LEAST_SAMPLES = 64  # of an offline run
Bars: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


class Sender(StrEnum):
    """Who sends the requests: LoadGen's Server scenario, or our own Poisson process."""

    LOADGEN = "loadgen"
    POISSON = "poisson"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStudy:
    """What is asked: ``model`` within ``slo_s`` at ``rate_per_s`` (None: the highest that holds is
    searched), each run for ``duration_s``. None leaves threads to the machine, the sequence to the
    model and the sender to what is installed. ``offline`` adds LoadGen's Offline scenario.
    """

    model: str
    slo_s: float
    rate_per_s: float | None = None
    duration_s: float
    largest: int
    threads: int | None = None
    seq: int | None = None
    sender: Sender | None = None
    offline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What came out: the run to report, ``held`` or else the last tried; all runs; what the
    simulation says of the one; medians of a batch's time.
    """

    study: LoadStudy
    model: str
    sender: Sender
    median_s: Mapping[int, float]
    held: bool
    shown: TrialTimes
    tried: tuple[TrialTimes, ...]
    simulated: Result
    offline_per_s: float | None


def _silent(_what: str, _total: int) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


def load_tested(study: LoadStudy, bars: Bars = _silent) -> LoadResult:
    """The whole study; ``bars`` shows what is under way, and of how many parts.

    Raises InputError for what cannot be asked, LoadGen that is not installed, and an SLO below what
    one item takes.
    """
    sender = _sender(study)
    threads = study.threads or spare_threads()
    longest_s = max(LONGEST_RUN_S, TIMES_THE_SLO * study.slo_s)
    session = Session(study.model, threads=threads, seq=study.seq, longest_run_s=longest_s)
    with bars("profiling batches", 1) as advance:
        times = profile_batches(session, study.slo_s, study.largest)
        advance()
    medians = {b: median_high(t) for b, t in times.items()}
    if medians[1] > study.slo_s:
        raise InputError(
            f"an SLO of {study.slo_s * 1e3:.4g} ms cannot be held: one item alone takes"
            f" {medians[1] * 1e3:.4g} ms here, the least possible"
        )
    tried, best = _trials(study, session, times, sender, bars)
    shown = best or tried[-1]
    return LoadResult(
        study=study,
        model=session.name,
        sender=sender,
        median_s=medians,
        held=best is not None,
        shown=shown,
        tried=tuple(tried),
        simulated=_simulated(study, session, times, shown.rate_per_s),
        offline_per_s=_offline(study, session, times, medians[1]) if study.offline else None,
    )


def _sender(study: LoadStudy) -> Sender:
    """LoadGen wherever it is, unless the study says otherwise."""
    if study.sender is None and not study.offline:
        try:
            loadgen_module()
        except InputError:
            return Sender.POISSON
        return Sender.LOADGEN
    if study.sender is Sender.LOADGEN or study.offline:
        loadgen_module()
    return study.sender or Sender.LOADGEN


def _trials(
    study: LoadStudy,
    session: Session,
    times: Mapping[int, Sequence[float]],
    sender: Sender,
    bars: Bars,
) -> tuple[list[TrialTimes], TrialTimes | None]:
    """The run at the rate, or the search for the highest that holds; the one to report is None
    where none held.
    """

    def attempt(per_s: float) -> TrialTimes:
        policy = slo_policy(session.name, times)
        run = loadgen_server if sender is Sender.LOADGEN else drive
        return run(session, policy, study.slo_s, per_s, study.duration_s)

    if study.rate_per_s is not None:
        with bars("one run", 1) as advance:
            found = attempt(study.rate_per_s)
            advance()
        return [found], found if valid(found) else None
    with bars("searching the highest rate", STEPS) as advance:
        best, tried = highest(attempt, 0.75 * capacity(times, study.slo_s), advance)
    return tried, best


def _simulated(
    study: LoadStudy, session: Session, times: Mapping[int, Sequence[float]], rate: float
) -> Result:
    short_s = max(1.0, min(study.duration_s, 200 / rate))
    ratios = served_ratios(session, times, study.slo_s, rate, short_s)
    long_s = max(study.duration_s, 2000 / rate)
    return simulated(session.name, times, ratios, study.slo_s, rate, long_s)


def _offline(
    study: LoadStudy, session: Session, times: Mapping[int, Sequence[float]], item_s: float
) -> float:
    samples = max(LEAST_SAMPLES, int(study.duration_s / item_s))
    return loadgen_offline(session, slo_policy(session.name, times), samples)
