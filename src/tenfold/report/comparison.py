"""A real model with ONNX Runtime beside its prediction, as a table and as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenfold.report.documents.profile import ComparisonPart, NodePart
from tenfold.report.fit import Fitted
from tenfold.units import show

if TYPE_CHECKING:
    from tenfold.measure import Comparison


def comparison_part(batch: int, c: Comparison) -> ComparisonPart:
    return ComparisonPart(
        batch=batch,
        time_s=c.measured_s,
        predicted_s=c.predicted_s,
        error=c.predicted_s / c.measured_s - 1,
        nodes=[
            NodePart(name=p.name, ops=p.ops, time_s=p.measured_s, predicted_s=p.predicted_s)
            for p in c.pairs
        ],
        only_measured_s=c.measured_alone_s,
        only_predicted_s=c.predicted_alone_s,
    )


def comparison_table(batch: int, c: Comparison, top: int) -> Fitted:
    """The nodes that took longest, and the whole run."""
    said = f"ONNX Runtime on this machine, batch {batch}"
    table = Fitted(["kernel", "nodes", "measured", "predicted", "error"], title=said)
    for p in sorted(c.pairs, key=lambda p: -p.measured_s)[:top]:
        table.add_row(
            p.name,
            p.ops,
            show(p.measured_s, "s"),
            show(p.predicted_s, "s"),
            f"{p.predicted_s / p.measured_s - 1:+.0%}",
        )
    if c.measured_alone_s:
        table.add_row(
            "nodes that the prediction has not", "", show(c.measured_alone_s, "s"), "", ""
        )
    if c.predicted_alone_s:
        table.add_row(
            "kernels that ONNX Runtime has not", "", "", show(c.predicted_alone_s, "s"), ""
        )
    table.add_section()
    table.add_row(
        "whole run",
        "",
        show(c.measured_s, "s"),
        show(c.predicted_s, "s"),
        f"{c.predicted_s / c.measured_s - 1:+.0%}",
    )
    return table
