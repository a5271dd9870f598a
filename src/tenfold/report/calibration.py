"""Tables of a calibration: families of kernels, and whole models before and after."""

from __future__ import annotations

from collections.abc import Sequence

from tenfold import units
from tenfold.calibration import Calibration, ModelFit
from tenfold.report.fit import Fitted


def families_table(c: Calibration) -> Fitted:
    table = Fitted(
        ["kernels", "constants", "rows", "error before", "fitted on", "held out", "90 % within"]
    )
    for f in c.families:
        shown = [
            f"{n} {units.show(v, 's') if n.endswith('_s') else f'{v:.4g}'}"
            for n, v in f.constants.items()
        ]
        shown += [f"beside ({s}) {units.show(v, 's')}" for s, v in f.offsets.items()]
        table.add_row(
            f.family,
            "\n".join(shown),
            f"{len(f.fitted_on)} + {len(f.held_out)}",
            *(_mean(e) for e in (f.before, f.fitted_on, f.held_out)),
            f"{f.interval:.1%}",
        )
    return table


def models_table(models: Sequence[ModelFit]) -> Fitted:
    right = ["batch", "measured", "before", "after"]
    table = Fitted(["model", "dtype", "stack", *right, "rows"], right=right)
    for m in models:
        what = m.what
        name = what.model.rsplit("/", 1)[-1]
        table.add_row(
            name if what.seq is None else f"{name} seq {what.seq}",
            what.dtype,
            what.stack.value,
            f"{what.batch}",
            units.show(m.measured_s, "s"),
            *(f"{units.show(s, 's')} {s / m.measured_s - 1:+.1%}" for s in (m.before_s, m.after_s)),
            "held out" if m.held_out else "fitted on",
        )
    return table


def _mean(errors: Sequence[float]) -> str:
    return f"{sum(map(abs, errors)) / len(errors):.1%}" if errors else "-"
