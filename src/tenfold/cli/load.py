"""`tenfold loadtest`: the policy on the real clock, ONNX Runtime on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import units
from tenfold.cli.common import Json, app, emit, heading, progress, terminal
from tenfold.errors import InputError
from tenfold.units import Dimension

if TYPE_CHECKING:
    from tenfold.loadtest import Session, TrialTimes
    from tenfold.serving import Result

LONGEST_PROFILE = 64


@app.command()
def loadtest(
    model: Annotated[str, typer.Argument(help="An .onnx file.")],
    slo: Annotated[str, typer.Option(help="99 of 100 answers within this, such as 20ms.")],
    rate: Annotated[
        str | None,
        typer.Option(help="Items a second (default: the highest that holds is searched)."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(min=0.5, help="Length of each run, longer where 662 requests take longer."),
    ] = 5.0,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of ONNX Runtime (default: all cores but one)."),
    ] = None,
    largest: Annotated[
        int, typer.Option(min=1, help="The largest batch to consider.")
    ] = LONGEST_PROFILE,
    seq: Annotated[
        int | None,
        typer.Option(help="Sequence length, where the model leaves it open (default 128)."),
    ] = None,
    loadgen: Annotated[
        bool | None,
        typer.Option(
            "--loadgen/--own",
            help=(
                "MLPerf LoadGen's Server scenario, or our own Poisson arrivals (default: LoadGen if"
                " installed)."
            ),
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="LoadGen's Offline scenario too: all at once, none is late."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """The same policy as in `simulate`, on the real clock: ONNX Runtime on this machine, beside
    what the simulation says of it.
    """
    from tenfold.loadtest import (
        Session,
        loadgen_offline,
        profile_batches,
        slo_policy,
        spare_threads,
    )

    slo_s = units.parse(slo, Dimension.TIME_S)
    per_s = _rate(rate)
    if slo_s <= 0:
        raise InputError(f"--slo must be above 0, got {slo}")
    use_loadgen = _loadgen(loadgen, offline=offline)
    session = Session(model, threads=threads or spare_threads(), seq=seq)
    with progress("profiling batches", 1) as advance:
        times = profile_batches(session, slo_s, largest)
        advance()
    least = sorted(times[1])[len(times[1]) // 2]
    if least > slo_s:
        raise InputError(
            f"an SLO of {slo} cannot be held: one item alone takes {least * 1e3:.4g} ms here, the"
            " least possible"
        )
    tried, best = _trials(session, times, slo_s, per_s, seconds, use_loadgen=use_loadgen)
    shown = best or tried[-1]
    told = _simulated(session, times, slo_s, shown.rate_per_s, seconds)
    samples = (
        loadgen_offline(session, slo_policy(session.name, times), max(64, int(seconds / least)))
        if offline
        else None
    )
    if as_json:
        document = _document(session, times, slo_s, shown, tried, told, samples)
        emit(document | {"arrivals": "loadgen" if use_loadgen else "poisson"})
    else:
        _print(session, times, slo_s, shown, tried, told, samples)
    if best is None:
        raise typer.Exit(1)


def _rate(rate: str | None) -> float | None:
    if rate is None:
        return None
    per_s = units.parse(rate if "/" in rate else f"{rate} /s", Dimension.RATE_PER_S)
    if per_s <= 0:
        raise InputError(f"--rate must be above 0, got {rate}")
    return per_s


def _loadgen(asked: bool | None, *, offline: bool) -> bool:
    from tenfold.loadtest import loadgen_module

    if asked is None and not offline:
        try:
            loadgen_module()
        except InputError:
            return False
        return True
    if asked or offline:
        loadgen_module()
    return asked is not False


def _trials(
    session: Session,
    times: Mapping[int, Sequence[float]],
    slo_s: float,
    rate: float | None,
    seconds: float,
    *,
    use_loadgen: bool,
) -> tuple[list[TrialTimes], TrialTimes | None]:
    """The run at the rate, or the search for the highest that holds; the one to report is None
    where none held.
    """
    from tenfold.loadtest import capacity, drive, highest, loadgen_server, slo_policy, valid
    from tenfold.loadtest.search import STEPS

    def attempt(per_s: float) -> TrialTimes:
        policy = slo_policy(session.name, times)
        run = loadgen_server if use_loadgen else drive
        return run(session, policy, slo_s, per_s, seconds)

    if rate is not None:
        with progress("one run", 1) as advance:
            found = attempt(rate)
            advance()
        return [found], found if valid(found) else None
    with progress("searching the highest rate", STEPS) as advance:
        best, tried = highest(attempt, 0.75 * capacity(times, slo_s), advance)
    return tried, best


def _simulated(
    session: Session,
    times: Mapping[int, Sequence[float]],
    slo_s: float,
    rate: float,
    seconds: float,
) -> Result:
    from tenfold.loadtest import served_ratios, simulated

    ratios = served_ratios(session, times, slo_s, rate, max(1.0, min(seconds, 200 / rate)))
    return simulated(session.name, times, ratios, slo_s, rate, max(seconds, 2000 / rate))


def _run_document(m: TrialTimes) -> dict[str, Any]:
    from tenfold.loadtest import valid

    total = m.result.total
    document: dict[str, Any] = {
        "rate_per_s": m.rate_per_s,
        "goodput_per_s": total.goodput_per_s,
        "offered": total.offered,
        "rejected": total.refused,
        "mean_batch": total.mean_batch,
        "valid": valid(m),
        "misses": m.verdict.misses,
        "reasons": list(m.verdict.reasons),
    }
    return document | ({"p50_s": total.p50_s, "p99_s": total.p99_s} if total.answered else {})


def _document(
    session: Session,
    times: Mapping[int, Sequence[float]],
    slo_s: float,
    shown: TrialTimes,
    tried: Sequence[TrialTimes],
    told: Result,
    samples: float | None,
) -> dict[str, Any]:
    document = {"model": session.name, "slo_s": slo_s} | _run_document(shown)
    times_told = (
        {"p50_s": told.total.p50_s, "p99_s": told.total.p99_s} if told.total.answered else {}
    )
    document["simulated"] = {
        "goodput_per_s": told.total.goodput_per_s,
        "mean_batch": told.total.mean_batch,
    } | times_told
    document["service_s"] = {str(b): sorted(t)[len(t) // 2] for b, t in times.items()}
    document["runs"] = [_run_document(m) for m in tried]
    return document | ({"offline_per_s": samples} if samples is not None else {})


def _print(
    session: Session,
    times: Mapping[int, Sequence[float]],
    slo_s: float,
    shown: TrialTimes,
    tried: Sequence[TrialTimes],
    told: Result,
    samples: float | None,
) -> None:
    from rich import box
    from rich.table import Table

    from tenfold.loadtest import valid
    from tenfold.report.serving import reason_lines

    console = terminal()
    service = ", ".join(f"{b}: {units.show(sorted(t)[len(t) // 2], 's')}" for b, t in times.items())
    console.print(
        heading(
            session.name,
            f"99 of 100 within {units.show(slo_s, 's')}; medians by batch here: {service}",
        ),
        soft_wrap=True,
    )
    table = Table(
        "",
        "rate",
        "goodput",
        "refused",
        "p50",
        "p99",
        "mean batch",
        "verdict",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for m in tried:
        verdict = "valid" if valid(m) else "; ".join(m.verdict.reasons) or "invalid"
        table.add_row("measured", *_cells(m.rate_per_s, m.result), verdict)
    table.add_row("simulated", *_cells(shown.rate_per_s, told), "")
    console.print(table)
    for line in reason_lines(shown.result):
        console.print(line, soft_wrap=True)
    if samples is not None:
        console.print(f"Offline: {samples:,.0f} a second.")


def _cells(rate: float, r: Result) -> list[str]:
    t = r.total
    times = [units.show(x, "s") if math.isfinite(x) else "-" for x in (t.p50_s, t.p99_s)]
    return [
        f"{rate:,.0f}/s",
        f"{t.goodput_per_s:,.0f}/s",
        f"{t.refused / max(t.offered, 1):.2%}",
        *times,
        f"{t.mean_batch:.1f}",
    ]
