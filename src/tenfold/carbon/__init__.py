"""Carbon: operational, location-based, from joules at the chip to grams at the grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import msgspec

from tenfold.carbon.grids import DATA, Region, region_named, regions
from tenfold.chips import Chip
from tenfold.errors import InputError
from tenfold.estimate import Estimate
from tenfold.facts import Account, Entry, Status, read_file

__all__ = [
    "J_PER_KWH",
    "Envelope",
    "Footprint",
    "Region",
    "assumption",
    "envelope",
    "footprint",
    "region_named",
    "regions",
    "system_share",
]

J_PER_KWH = 3.6e6


class _Figure(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    value: float
    low: float
    high: float
    status: Status
    source: str


class _Overhead(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    figure: dict[str, _Figure]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Energy at the meter and carbon, as entries that sum: chip, host share, facility overhead."""

    energy: Account
    region: Region

    @property
    def energy_j(self) -> Estimate:
        return self.energy.total

    @property
    def kgco2e(self) -> Estimate:
        return self.energy_j * self.region.kgco2e_per_j


@lru_cache(maxsize=1)
def _overhead() -> _Overhead:
    path = DATA / "overhead.toml"
    return read_file(path, _Overhead)


def assumption(name: str) -> Estimate:
    """A figure of ``overhead.toml`` with its interval."""
    f = _overhead().figure[name]
    return Estimate(f.value, f.low, f.high)


def footprint(
    chip: Chip, chip_energy_j: Estimate, region: str, pue: Estimate | None = None
) -> Footprint:
    """Operational carbon of ``chip_energy_j`` joules drawn by ``chip`` in ``region``.

    energy = chip x system share x PUE (Patterson et al. 2021, section 2.5); carbon = energy x grid
    intensity, location-based annual mean. The system share is the chip's published system power
    over its TDP where there are both, else a measured general ratio; ``pue`` is the general one
    unless given.
    """
    place = region_named(region)
    share = system_share(chip)
    host = _times(chip_energy_j, share, 1.0)
    facility = _times(chip_energy_j + host, pue or assumption("pue"), 1.0)
    energy = Account(
        (
            Entry("chip", chip_energy_j),
            Entry("host and board", host),
            Entry("cooling and power delivery", facility),
        )
    )
    return Footprint(energy, place)


def _times(energy: Estimate, factor: Estimate, less: float) -> Estimate:
    """``energy`` x (``factor`` - ``less``)."""
    return energy * Estimate(factor.value - less, factor.low - less, factor.high - less)


def system_share(chip: Chip) -> Estimate:
    """Power of the chip with its board and share of the host over the chip's own: published powers,
    else a measured general ratio.
    """
    if "system_power" in chip.figures and "tdp" in chip.figures:
        ratio = chip.figures["system_power"].value / chip.figures["tdp"].value
        if ratio >= 1:
            return Estimate(
                ratio,
                min(ratio, assumption("system_over_chip").low),
                max(ratio, assumption("system_over_chip").high),
            )
    return assumption("system_over_chip")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The back of the envelope: a power for a time."""

    energy_j: float
    kgco2e: float
    kgco2e_per_j: float
    grid: str
    ev_miles: Estimate


def envelope(power_w: float, time_s: float, region: str | None) -> Envelope:
    """``power_w`` for ``time_s``: energy, carbon and how far an electric car would drive on it.

    Without a region the grid is the US average of 2020. Raises InputError for a power or time that
    is not positive.
    """
    if power_w <= 0 or time_s <= 0:
        raise InputError(f"power and time must be above 0, got {power_w:g} W for {time_s:g} s")
    energy = power_w * time_s
    if region is None:
        rate, grid = assumption("us_grid_kg_per_kwh").value / J_PER_KWH, "US average of 2020"
    else:
        place = region_named(region)
        rate, grid = place.kgco2e_per_j, f"{place.shown}, mean of {place.year}"
    per_mile = assumption("ev_kwh_per_mile")
    kwh = energy / J_PER_KWH
    return Envelope(
        energy,
        energy * rate,
        rate,
        grid,
        Estimate(kwh / per_mile.value, kwh / per_mile.high, kwh / per_mile.low),
    )
