"""`tenfold simulate`: tenants, models and arrivals on one chip, on a simulated clock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.common import Json, app, emit, heading, progress, terminal
from tenfold.errors import InputError
from tenfold.files import check_apart, write_text

if TYPE_CHECKING:
    from tenfold.scenario import Ready, Scenario, Score
    from tenfold.serving import Log, Result


@app.command()
def simulate(
    file: Annotated[
        str,
        typer.Argument(
            help="A scenario file, or the name of one that ships (see --list).", show_default=False
        ),
    ] = "",
    policy: Annotated[
        str | None, typer.Option(help="slo, fixed, delay, aimd or clockwork (default: the file's).")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Beside every baseline with its knobs tuned by grid search."
        ),
    ] = False,
    explain: Annotated[int, typer.Option(min=0, help="Batches to explain, from the first.")] = 0,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page: latencies against SLOs, queue and batch over time."),
    ] = None,
    list_them: Annotated[
        bool, typer.Option("--list", help="The scenarios that come with Tenfold.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tenants, models and arrivals on one chip on a simulated clock: p99, goodput, batches and
    why.
    """
    from tenfold.report.documents.serving import ScenarioPart, ScenariosDocument
    from tenfold.report.serving import release_lines, serving_document, serving_page
    from tenfold.scenario import SHIPPED, energy_j, ready, shipped

    if list_them:
        listed = [(n, shipped(n).note) for n in SHIPPED]
        if as_json:
            parts = [ScenarioPart(name=n, note=note) for n, note in listed]
            emit(ScenariosDocument(scenarios=parts))
        else:
            for n, note in listed:
                terminal().print(heading(n, note), soft_wrap=True)
        return
    if not file:
        raise InputError(
            "simulate needs a scenario file, or the name of one that comes with Tenfold: see"
            " `tenfold simulate --list`"
        )
    check_apart({"the scenario": Path(file)}, {"--html": html})
    scenario = _scenario(file)
    with progress("compiling", 1) as advance:
        given = ready(scenario)
        advance()
    log, result = _run(given, policy)
    scores = _compare(given) if compare else []
    name = policy or scenario.policy.policy
    if html is not None:
        write_text(html, serving_page(scenario, name, log, result))
    if as_json:
        emit(
            serving_document(
                scenario,
                name,
                result,
                energy_j=energy_j(given, log, log.ended_s),
                scores=scores,
                releases=release_lines(log, explain),
            )
        )
        return
    _print(scenario, name, log, result, scores, explain)


def _scenario(file: str) -> Scenario:
    from tenfold.scenario import SHIPPED, read_scenario, shipped

    if file in SHIPPED and not Path(file).exists():
        return shipped(file)
    if not file.endswith(".toml"):
        return shipped(file)
    return read_scenario(Path(file))


def _run(given: Ready, policy: str | None) -> tuple[Log, Result]:
    """The run, with a bar that follows the simulated clock."""
    from tenfold.scenario import run
    from tenfold.serving import Choice, Decision

    own = given.scenario.policy
    choice = own if policy in (None, own.policy) else Choice(str(policy))
    shown = 0
    with progress("simulating, % of the time", 100) as advance:

        def listen(now_s: float, _decision: Decision) -> None:
            nonlocal shown
            while shown < min(100, 100 * now_s / given.scenario.duration_s):
                shown += 1
                advance()

        return run(given, choice, listener=listen)


def _compare(given: Ready) -> list[Score]:
    from tenfold.scenario import grid, score_of, tuned
    from tenfold.serving import BASELINES, Choice

    tries = sum(len(grid(given, name)) for name in BASELINES)
    with progress("tuning the baselines", tries) as advance:
        best = [tuned(given, name, advance)[0] for name in BASELINES]
    return [score_of(given, Choice()), *best]


def _print(
    scenario: Scenario, policy: str, log: Log, result: Result, scores: list[Score], explain: int
) -> None:
    from tenfold.report.serving import compare_table, reason_lines, release_lines, tenant_table
    from tenfold.scenario import left_out

    console = terminal()
    console.print(heading(scenario.name, scenario.note), soft_wrap=True)
    console.print(
        f"policy {policy}; {len(log.requests):,} requests in {log.ended_s:.4g} s; the chip was busy"
        f" {result.utilisation:.1%} of the time"
    )
    console.print(tenant_table(result))
    for line in reason_lines(result):
        console.print(line, soft_wrap=True)
    for line in release_lines(log, explain):
        console.print(line, soft_wrap=True)
    for line in left_out(scenario):
        console.print(f"Left out: {line}.", soft_wrap=True)
    if scores:
        console.print(compare_table(scores))
