"""A chip as the text of its file: every figure in SI units, with status and source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tenfold.chips.figures import OWN, SECTIONS, spec
from tenfold.chips.kinds import Kind
from tenfold.chips.record import Chip
from tenfold.facts import Figure, Status
from tenfold.units import Dimension

_UNITS: Mapping[Dimension, tuple[str, float]] = {  # the unit written, in SI
    Dimension.TIME_S: (" s", 1.0),
    Dimension.BYTES: (" B", 1.0),
    Dimension.BYTES_PER_S: (" B/s", 1.0),
    Dimension.FREQUENCY_HZ: (" Hz", 1.0),
    Dimension.FLOPS_PER_S: (" GFLOPS", 1e9),
    Dimension.POWER_W: (" W", 1.0),
    Dimension.AREA_M2: (" mm2", 1e-6),
    Dimension.LENGTH_M: (" nm", 1e-9),
    Dimension.FRACTION: ("", 1.0),
    Dimension.COUNT: ("", 1.0),
}


def chip_file(chip: Chip) -> str:
    """The file of ``chip``, which reads back as the same record."""
    lines = [*_head(chip), *_keys(chip, "")]
    for section in SECTIONS:
        entries = [*_texts(chip, section), *_keys(chip, f"{section}.")]
        if entries:
            lines += ["", f"[{section}]", *entries]
    for role in chip.levels:
        level = role.value
        lines += ["", "[[sram]]", f"name = {text_of(level)}", *_keys(chip, f"sram.{level}.")]
    lines += ["", "[sources]"]
    lines += [f"{text_of(k)} = {text_of(v)}" for k, v in chip.sources.items()]
    for section in ("calibration", "offsets"):
        entries = list(_keys(chip, f"{section}."))
        if entries:
            lines += ["", f"[{section}]", *entries]
    return "\n".join(lines) + "\n"


_EXPLAINED = {
    "kind": (
        "which machine model: systolic, gpu, host; roofline, for which peaks, memory and tdp are"
        " enough; or listed, for none"
    ),
    "calibration_from": "a measured chip of the same kind, whose constants this one takes",
    "clock": "in the kind's model: what cycles are counted in",
    "units": "multiprocessors of a GPU",
    "vector_ops_per_cycle": "of all vector units together",
    "tdp": "watts; energy and carbon follow from it",
    "[peak]": "dense, without sparsity; one at least",
    "[memory]": "off chip; capacity and bandwidth are needed",
    "[[sram]]": "on-chip memories by their role in the kind's model",
    "[sources]": "a line for each source that figures name",
}


def new_file(name: str, like: Chip) -> str:
    """A commented file for a chip called ``name`` with the figures of ``like``: each is assumed
    until it is changed, and constants are those of ``like``, or of its relative.
    """
    figures = {
        path: replace(f, status=Status.ASSUMED, source=LIKE, note="")
        for path, f in like.figures.items()
        if not path.startswith(("calibration.", "offsets."))
    }
    chip = replace(
        like,
        name=name,
        organisation="",
        figures=figures,
        sources={LIKE: f"copied from {like.name}: change what differs"},
        calibration_from="" if like.kind is Kind.ROOFLINE else like.sold_as,
        note="",
        relatives=(),
        peak_reason=like.peak_reason,
    )
    lines = [
        f"# {name}, begun as a copy of {like.name}. Try it: tenfold profile resnet50 --chip"
        f" {name}.toml",
        "# A figure is value, status (verified, second-hand, recalled, derived, assumed, fitted)",
        "# and source; low and high where it is uncertain. Leave out what you do not know.",
        "# All faults of the file are named at once.",
        "",
    ]
    for line in chip_file(chip).splitlines():
        key = line.split(" =")[0]
        if key in _EXPLAINED:
            lines.append(f"# {_EXPLAINED[key]}")
        lines.append(line)
    return "\n".join(lines) + "\n"


LIKE = "like"


def _head(chip: Chip) -> Iterator[str]:
    yield f"name = {text_of(chip.name)}"
    yield f"organisation = {text_of(chip.organisation)}"
    yield f"year = {chip.year}"
    yield f'kind = "{chip.kind.value}"'
    texts = {
        "cooling": chip.cooling,
        "note": chip.note,
        "peak_reason": chip.peak_reason,
        "calibration_from": chip.calibration_from,
        "activation_level": chip.activation_level.value if chip.activation_level else "",
        "weight_level": chip.weight_level.value if chip.weight_level else "",
    }
    yield from (f"{name} = {text_of(text)}" for name, text in texts.items() if text)
    if chip.relatives:
        yield f"relatives = [{', '.join(map(text_of, chip.relatives))}]"
    if chip.whole_weight_tiles:
        yield "whole_weight_tiles = true"


def _texts(chip: Chip, section: str) -> Iterator[str]:
    if section == "memory" and chip.memory is not None:
        yield f'kind = "{chip.memory.value}"'
    if section == "links" and chip.topology:
        yield f"topology = {text_of(chip.topology)}"


def _keys(chip: Chip, prefix: str) -> Iterator[str]:
    """The figures whose paths begin with ``prefix``; those of the top level for none."""
    for path, figure in chip.figures.items():
        name = path.removeprefix(prefix)
        if (path in OWN) if not prefix else path.startswith(prefix):
            yield f"{name if prefix else path} = {_figure(chip.kind, path, figure)}"


def _figure(kind: Kind, path: str, figure: Figure) -> str:
    unit, scale = _UNITS[spec(kind, path).dimension]

    def written(value: float) -> str:
        return f'"{value / scale:.12g}{unit}"'

    bounds = (("low", figure.low), ("high", figure.high))
    parts = [f"value = {written(figure.value)}"]
    parts += [f"{name} = {written(bound)}" for name, bound in bounds if bound != figure.value]
    parts += [f'status = "{figure.status.value}"', f"source = {text_of(figure.source)}"]
    if figure.note:
        parts.append(f"note = {text_of(figure.note)}")
    return "{ " + ", ".join(parts) + " }"


def text_of(text: str) -> str:
    """``text`` as a basic string of TOML."""
    return json.dumps(text, ensure_ascii=False)
