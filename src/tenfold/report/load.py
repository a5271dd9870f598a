"""The document of a model on this machine under load."""

from __future__ import annotations

from msgspec import UNSET

from tenfold.loadtest import LoadResult, TrialTimes, valid
from tenfold.report.document import real
from tenfold.report.documents.part import some
from tenfold.report.documents.serving import LoadtestDocument, ToldPart, TrialPart
from tenfold.units import show


def load_sentence(result: LoadResult) -> str:
    """Whether it held, and if not why: LoadGen's own words where it judged."""
    m, slo = result.shown, show(result.study.slo_s, "s")
    rate = f"{m.rate_per_s:,.0f} a second"
    if result.held:
        p99 = m.result.total.p99_s
        return f"Held: {rate} of {result.model} within {slo}, p99 {show(p99, 's')} here."
    reasons = list(m.verdict.reasons[:1])
    if m.loadgen is not None and not m.loadgen.valid:
        said = "; ".join(m.loadgen.reasons)
        reasons.append(f"MLPerf LoadGen calls it invalid{f' ({said})' if said else ''}")
    return f"Did not hold {rate} of {result.model} within {slo}: {'; '.join(reasons)}."


def _trial(m: TrialTimes) -> TrialPart:
    """One run on the real clock."""
    total = m.result.total
    return TrialPart(
        rate_per_s=m.rate_per_s,
        goodput_per_s=total.goodput_per_s,
        offered=total.offered,
        rejected=total.refused,
        mean_batch=total.mean_batch,
        valid=valid(m),
        loadgen_reasons=real(list(m.loadgen.reasons) if m.loadgen else []),
        misses=m.verdict.misses,
        reasons=m.verdict.reasons,
        p50_s=total.p50_s if total.answered else UNSET,
        p99_s=total.p99_s if total.answered else UNSET,
    )


def load_document(result: LoadResult) -> LoadtestDocument:
    """The run that is reported, what the simulation says of it, and all that were tried."""
    shown, told = _trial(result.shown), result.simulated.total
    return LoadtestDocument(
        answer=load_sentence(result),
        model=result.model,
        slo_s=result.study.slo_s,
        **{f: getattr(shown, f) for f in shown.__struct_fields__},
        simulated=ToldPart(
            goodput_per_s=told.goodput_per_s,
            mean_batch=told.mean_batch,
            p50_s=told.p50_s if told.answered else UNSET,
            p99_s=told.p99_s if told.answered else UNSET,
        ),
        service_s={str(b): t for b, t in result.median_s.items()},
        runs=[_trial(m) for m in result.tried],
        offline_per_s=some(result.offline_per_s),
        arrivals=result.sender,
    )
