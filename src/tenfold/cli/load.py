"""`tenfold loadtest`: the policy on the real clock, ONNX Runtime on this machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold import units
from tenfold.cli.common import Json, Seq, app, emit, finite, heading, progress, terminal
from tenfold.errors import InputError
from tenfold.units import Dimension

if TYPE_CHECKING:
    from tenfold.loadtest import LoadResult
    from tenfold.serving import Result

LARGEST = 64  # batch


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
        typer.Option(help="Length of each run, longer where 662 requests take longer."),
    ] = 5.0,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of ONNX Runtime (default: all cores but one)."),
    ] = None,
    largest: Annotated[int, typer.Option(min=1, help="The largest batch to consider.")] = LARGEST,
    seq: Seq = None,
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
    from tenfold.loadtest import LoadStudy, Sender, load_tested
    from tenfold.report.load import load_document

    slo_s = units.parse(slo, Dimension.TIME_S)
    if slo_s <= 0:
        raise InputError(f"--slo must be above 0, got {slo}")
    senders = {None: None, True: Sender.LOADGEN, False: Sender.POISSON}
    study = LoadStudy(
        model=model,
        slo_s=slo_s,
        rate_per_s=_rate(rate),
        duration_s=_seconds(seconds),
        threads=threads,
        largest=largest,
        seq=seq,
        sender=senders[loadgen],
        offline=offline,
    )
    result = load_tested(study, progress)
    if as_json:
        emit(load_document(result))
    else:
        _print(result)
    if not result.held:
        raise typer.Exit(1)


LONGEST_S = 86_400.0


def _seconds(seconds: float) -> float:
    """Half a second at least, a day at most."""
    if not LEAST_S <= finite("--seconds", seconds) <= LONGEST_S:
        raise InputError(
            f"--seconds is {LEAST_S:g} to {LONGEST_S:,.0f}, the length of a run, got {seconds:g}"
        )
    return seconds


LEAST_S = 0.5


def _rate(rate: str | None) -> float | None:
    if rate is None:
        return None
    per_s = units.parse(rate if "/" in rate else f"{rate} /s", Dimension.RATE_PER_S)
    if per_s <= 0:
        raise InputError(f"--rate must be above 0, got {rate}")
    return per_s


def _print(result: LoadResult) -> None:

    from tenfold.loadtest import valid
    from tenfold.report.fit import Fitted
    from tenfold.report.load import load_sentence
    from tenfold.report.serving import reason_lines

    console = terminal()
    console.print(load_sentence(result), style="bold", soft_wrap=True)
    service = ", ".join(f"{b}: {units.show(t, 's')}" for b, t in result.median_s.items())
    console.print(
        heading(
            result.model,
            f"99 of 100 within {units.show(result.study.slo_s, 's')}; medians by batch here:"
            f" {service}",
        ),
        soft_wrap=True,
    )
    table = Fitted(["", "rate", "goodput", "refused", "p50", "p99", "mean batch", "verdict"])
    for m in result.tried:
        verdict = "valid" if valid(m) else "; ".join(m.verdict.reasons) or "invalid"
        table.add_row("measured", *_cells(m.rate_per_s, m.result), verdict)
    table.add_row("simulated", *_cells(result.shown.rate_per_s, result.simulated), "")
    console.print(table)
    for line in reason_lines(result.shown.result):
        console.print(line, soft_wrap=True)
    if result.offline_per_s is not None:
        console.print(f"Offline: {result.offline_per_s:,.0f} a second.")


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
