"""The document of a model on this machine under load."""

from __future__ import annotations

from msgspec import UNSET

from tenfold.loadtest import LoadResult, TrialTimes, valid
from tenfold.report.documents.part import some
from tenfold.report.documents.serving import LoadtestDocument, ToldPart, TrialPart


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
        misses=m.verdict.misses,
        reasons=m.verdict.reasons,
        p50_s=total.p50_s if total.answered else UNSET,
        p99_s=total.p99_s if total.answered else UNSET,
    )


def load_document(result: LoadResult) -> LoadtestDocument:
    """The run that is reported, what the simulation says of it, and all that were tried."""
    shown, told = _trial(result.shown), result.simulated.total
    return LoadtestDocument(
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
