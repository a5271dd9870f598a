"""The figures that a chip can have, by their path in its file, each with its dimension and range.

The list is closed: what is not here is not read, and so is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tenfold.chips.constants import ERROR, OF_KIND, PREDICTED, spec_of
from tenfold.chips.kinds import ROLES, Kind, MatrixPrecision
from tenfold.facts import FROM_0, WHOLE, Range, Spec
from tenfold.units import Dimension

_HZ = Spec(Dimension.FREQUENCY_HZ, Range(0.0, 1e13, open_low=True))
_WATTS = Spec(Dimension.POWER_W, Range(0.0, 1e7, open_low=True))
_FLOPS = Spec(Dimension.FLOPS_PER_S, Range(0.0, 1e24, open_low=True))
_BYTES = Spec(Dimension.BYTES, Range(0.0, 1e18, open_low=True))
_RATE = Spec(Dimension.BYTES_PER_S, Range(0.0, 1e20, open_low=True))
_WHOLE = Spec(Dimension.COUNT, WHOLE)
_SECONDS = Spec(Dimension.TIME_S, FROM_0)

CALIBRATION = "calibration."
OFFSETS = "offsets."
PEAK = "peak."
OWN: Mapping[str, Spec] = {
    "process": Spec(Dimension.LENGTH_M),
    "die_area": Spec(Dimension.AREA_M2),
    "transistors": Spec(Dimension.COUNT),
    "clock": _HZ,
    "units": _WHOLE,
    "vector_ops_per_cycle": Spec(Dimension.COUNT, Range(0.0, 1e12, open_low=True)),
    "vector_bits": Spec(Dimension.COUNT, Range(32.0, 65536.0, whole=True)),
    "tdp": _WATTS,
    "idle_power": _WATTS,
    "busy_power": _WATTS,
    "system_power": _WATTS,
    "power_cap": _WATTS,
    "achieved_matmul": _FLOPS,
}
SECTIONS: Mapping[str, Mapping[str, Spec]] = {
    "peak": {p.value: _FLOPS for p in MatrixPrecision},
    "matrix": {"arrays": _WHOLE, "rows": _WHOLE, "columns": _WHOLE},
    "memory": {"capacity": _BYTES, "bandwidth": _RATE},
    "links": {"count": _WHOLE, "bandwidth_one_way": _RATE},
    "host": {"bandwidth": _RATE},
}
SRAM: Mapping[str, Spec] = {
    "capacity": _BYTES,
    "read_bandwidth": _RATE,
    "write_bandwidth": _RATE,
}


def constants_of(kind: Kind) -> dict[str, Spec]:
    """Names under ``[calibration]`` that a chip of this kind may have: constants, and errors."""
    return {c.value: spec_of(c) for c in OF_KIND[kind]} | {
        f"{p.value}_error": ERROR for p in PREDICTED
    }


def paths(kind: Kind) -> Iterator[tuple[str, Spec]]:
    """Every figure that a chip of this kind can have, but for offsets, whose names are free."""
    yield from OWN.items()
    for section, entries in SECTIONS.items():
        yield from ((f"{section}.{name}", spec) for name, spec in entries.items())
    for role in sorted(ROLES[kind]):
        yield from ((f"sram.{role.value}.{name}", spec) for name, spec in SRAM.items())
    yield from ((f"{CALIBRATION}{name}", spec) for name, spec in constants_of(kind).items())


_SPECS: Mapping[Kind, Mapping[str, Spec]] = {kind: dict(paths(kind)) for kind in Kind}


def spec(kind: Kind, path: str) -> Spec:
    """What the figure at ``path`` is. Raises KeyError for a path that no chip of the kind has."""
    return _SECONDS if path.startswith(OFFSETS) else _SPECS[kind][path]
