"""A chip as the text of its file: every figure in SI units, with status and source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from tenfold.chips.record import Chip, Quantity, dimension_of

_UNITS = {
    "time_s": " s", "bytes": " B", "bytes_per_s": " B/s", "frequency_hz": " Hz",
    "flops_per_s": " GFLOPS", "power_w": " W", "area_m2": " mm2", "length_m": " nm", "fraction": "",
    "count": "",
}  # fmt: skip
_SCALES = {"flops_per_s": 1e9, "area_m2": 1e-6, "length_m": 1e-9}


def chip_file(chip: Chip) -> str:
    """The file of ``chip``, which reads back as the same record but for links, the host link and
    offsets, which are left out.
    """
    own = [p for p in chip.figures if "." not in p]
    lines = [
        f"name = {text_of(chip.name)}",
        f"organisation = {text_of(chip.organisation)}",
        f"year = {chip.year}",
        f'kind = "{chip.kind}"',
    ]
    lines += [
        f"{n} = {text_of(v)}"
        for n, v in (
            ("cooling", chip.cooling),
            ("note", chip.note),
            ("calibration_from", chip.calibration_from),
        )
        if v
    ]
    lines += [f"{p} = {_figure(p, chip.figures[p])}" for p in own]
    lines += ["", *_section("peak", chip.figures)]
    if chip.matrix:
        lines += ["", *_section("matrix", chip.figures)]
    lines += ["", "[memory]", f"kind = {text_of(chip.memory_kind)}", *_keys("memory", chip.figures)]
    for level in chip.sram:
        lines += [
            "",
            "[[sram]]",
            f"name = {text_of(level.name)}",
            *_keys(f"sram.{level.name}", chip.figures),
        ]
    lines += ["", "[sources]", *(f"{text_of(k)} = {text_of(v)}" for k, v in chip.sources.items())]
    lines += ["", *_section("calibration", chip.figures)]
    return "\n".join(lines) + "\n"


def _section(name: str, figures: Mapping[str, Quantity]) -> Iterator[str]:
    yield f"[{name}]"
    yield from _keys(name, figures)


def _keys(section: str, figures: Mapping[str, Quantity]) -> Iterator[str]:
    for path, q in figures.items():
        if path.rpartition(".")[0] == section:
            yield f"{path.rpartition('.')[2]} = {_figure(path, q)}"


def _figure(path: str, q: Quantity) -> str:
    dimension = dimension_of(path)

    def written(value: float) -> str:
        return f'"{value / _SCALES.get(dimension, 1.0):.9g}{_UNITS[dimension]}"'

    parts = [f"value = {written(q.value)}"]
    parts += [f"{n} = {written(v)}" for n, v in (("low", q.low), ("high", q.high)) if v != q.value]
    parts += [f'status = "{q.status}"', f"source = {text_of(q.source)}"] + (
        [f"note = {text_of(q.note)}"] if q.note else []
    )
    return "{ " + ", ".join(parts) + " }"


def text_of(text: str) -> str:
    """``text`` as a basic string of TOML."""
    return json.dumps(text, ensure_ascii=False)
