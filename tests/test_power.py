"""Power sets the clock: the solver against a scan, watts within the limit, caps, and laws over the
catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tenfold.chips import Chip, Kind, MatrixPrecision, capped, chip, names
from tenfold.compiler import build
from tenfold.errors import InputError, MissingFigure
from tenfold.evaluate.operators import OperatorCall, kernel_of
from tenfold.machine import Run, simulate, time_kernels
from tenfold.machine.energy import dynamic_energy, energy_model, power_limit
from tenfold.machine.power import LOWEST, Drawn, PowerLimit, power_facts, process_of, voltage
from tenfold.model import Sizes, load, prepare

LIMIT = PowerLimit(static_w=50.0, limit_w=200.0, top_share=0.8)


def drawn(clocked_w: float, other_w: float, driven: float) -> Drawn:
    """A kernel of a second at the own clock, ``driven`` of which the clock drives."""
    return Drawn(clocked_w, other_w, driven, 1 - driven)


@pytest.mark.parametrize("clocked_w", [10.0, 149.0, 151.0, 300.0, 600.0])
@pytest.mark.parametrize("driven", [0.2, 0.7, 1.0])
def test_the_clock_is_the_highest_within_the_limit(clocked_w: float, driven: float) -> None:
    """A scan over a hundred thousand clocks finds the same one."""
    d = drawn(clocked_w, 20.0, driven)
    s = LIMIT.sustained(d)
    shares = np.linspace(LOWEST, 1.0, 100_001)
    watts = 50 + (clocked_w * LIMIT.joules(shares) + 20) / ((1 - driven) + driven / shares)
    allowed = shares[watts <= 200]
    if len(allowed):
        assert float(s.share) == pytest.approx(allowed.max(), abs=2e-5)
        assert float(s.time_s) == pytest.approx((1 - driven) + driven / float(s.share))
    mean = (float(s.joules) * clocked_w + 20) / float(s.time_s) + 50
    assert mean <= 200 * (1 + 1e-6)
    assert LIMIT.within(d) is (float(s.share) == 1.0)


def test_below_the_lowest_clock_the_whole_kernel_is_braked() -> None:
    d = drawn(10.0, 900.0, 0.1)  # memory alone draws more than the limit
    s = LIMIT.sustained(d)
    assert float(s.share) == pytest.approx(LOWEST, abs=1e-6)
    assert (float(s.joules) * 10 + 900) / float(s.time_s) == pytest.approx(150)


def test_voltage_falls_to_a_floor() -> None:
    floor = power_facts().floor.value
    shares = np.linspace(0, 1, 101)
    found = voltage(shares)
    assert found[-1] == 1.0
    assert found.min() == floor
    assert (np.diff(found) >= 0).all()


def test_the_nearest_process_is_taken() -> None:
    assert [process_of(nm).nm for nm in (28, 16, 12, 8, 6, 5, 4, 3)] == [16, 16, 12, 8, 7, 5, 4, 3]


def large(c: Chip, dtype: str) -> tuple[float, float]:
    """Seconds and watts of a large product."""
    precision = c.storage(dtype)
    call = OperatorCall(1, "matmul", dtype, {"m": 8192, "n": 8192, "k": 8192}, engine=False)
    (timed,), _ = time_kernels(c, (kernel_of(call, c, precision),))
    model = energy_model(c, precision)
    joules = dynamic_energy(model, timed.counters, timed.clocked).total.value
    return timed.time_s, joules / timed.time_s + model.static_w.value


def limited() -> Iterator[tuple[Chip, MatrixPrecision]]:
    for c in map(chip, names()):
        if c.kind is Kind.GPU and power_limit(c) is not None:
            yield from ((c, p) for p in c.peak_flops)


PAIRS = [(c.name, p.value) for c, p in limited()]


@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_no_gpu_draws_more_than_its_tdp(name: str, dtype: str) -> None:
    c = chip(name)
    assert c.tdp_w is not None
    assert large(c, dtype)[1] <= c.tdp_w * (1 + 1e-6)


@pytest.mark.parametrize("name", ["t4", "a100-pcie-40", "h100-sxm", "b200", "mi300x"])
def test_a_whole_model_stays_within_too(name: str) -> None:
    c = chip(name)
    bound = prepare(load("bert-large"), Sizes(16, 384))
    for precision in c.peak_flops:
        run = simulate(build(bound.graph, c, precision, bound.batch), c)
        assert c.tdp_w is not None
        assert run.power_w <= c.tdp_w * (1 + 1e-6)
        for k in run.kernels:
            watts = k.energy.total.value / k.time_s + energy_model(c, precision).static_w.value
            assert watts <= c.tdp_w * (1 + 1e-6)


def capped_run(watts: str) -> Run:
    c = capped(chip("l40s"), watts)
    bound = prepare(load("bert-large"), Sizes(32, 384))
    return simulate(build(bound.graph, c, MatrixPrecision.BF16, bound.batch), c)


def test_a_capped_card_is_slower_and_more_efficient() -> None:
    runs = [capped_run(w) for w in ("350W", "300W", "250W", "200W")]
    times = [r.time_s.value for r in runs]
    assert times == sorted(times)
    assert times[-1] > 1.2 * times[0]
    assert runs[1].energy_j.value < runs[0].energy_j.value
    assert all(r.power_w <= w for r, w in zip(runs, (350, 300, 250, 200), strict=True))


def test_a_cap_is_named_and_says_what_it_changed() -> None:
    c = capped(chip("l4"), "60 W")
    assert c.name == "l4 (power_cap 60 W)"
    assert c.sold_as == "l4"
    assert [(x.path, x.before, x.after) for x in c.changes] == [("power_cap", 72.0, 60.0)]
    assert capped(c, None) is c


@pytest.mark.parametrize(
    ("name", "cap", "message"),
    [
        ("l4", "100W", "at most its TDP of 72 W"),
        ("l4", "0W", "above 0"),
        ("l4", "-5W", "above 0"),
        ("l4", "60", "unit"),
        ("l4", "60 GB", "60 GB"),
    ],
)
def test_caps_that_are_none(name: str, cap: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        capped(chip(name), cap)


def test_a_cap_below_what_an_idle_chip_draws() -> None:
    with pytest.raises(InputError, match="draws 18 W when it does nothing"):
        power_limit(capped(chip("l4"), "15W"))


def test_a_chip_without_tdp_has_no_cap() -> None:
    without = next(c for c in map(chip, names()) if c.tdp_w is None and c.modelled)
    with pytest.raises(MissingFigure, match="a power cap"):
        capped(without, "100W")


def test_lanes_and_matrix_units_are_told_apart() -> None:
    """CDNA 2 has matrix units for fp32; NVIDIA's cards and older ones do it on vector lanes."""
    fp32 = MatrixPrecision.FP32
    assert not chip("mi210").on_lanes(fp32)
    assert all(chip(n).on_lanes(fp32) for n in ("t4", "v100-pcie-32", "a100-pcie-40", "h100-sxm"))
    assert not chip("t4").on_lanes(MatrixPrecision.FP16)


def test_the_card_of_70_watts_runs_fp32_at_half_of_its_clock() -> None:
    """NeuSight measured 3.9 of 8.1 TFLOP/s in large products; 0.9 to 1.3 GHz were measured by
    Google once warm, of 1.59 (Jouppi et al., ISCA 2021, figure 14).
    """
    seconds, watts = large(chip("t4"), "fp32")
    assert 2 * 8192**3 / seconds == pytest.approx(3.9e12, rel=0.1)
    assert watts == pytest.approx(70, rel=1e-3)
