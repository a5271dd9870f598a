"""SCALE-Sim's files in, its cycles out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import VALIDATION, measured
from tenfold.errors import InputError
from tenfold.scalesim import (
    Dataflow,
    Layer,
    ScaleSimConfig,
    compute_report,
    read_config,
    read_topology,
    report,
    run,
)

CONFIG = """[general]
run_name = test
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 16
Dataflow : ws
Bandwidth : 10
"""


def test_the_formula_by_hand() -> None:
    """Weight stationary: ceil(K/R) ceil(N/C) folds of 2R + C + M - 2 cycles, and the last index is
    one less.
    """
    row = report(ScaleSimConfig(32, 16, Dataflow.WS), [Layer("a", m=10, n=17, k=33)])[0]
    assert row.total_cycles == 2 * 2 * (2 * 32 + 16 + 10 - 2) - 1
    assert row.mapping_efficiency == pytest.approx(100 * 33 * 17 / (4 * 32 * 16))


@given(*[st.integers(1, 600)] * 3, st.sampled_from([8, 32, 128]), st.sampled_from(list(Dataflow)))
def test_no_layer_beats_the_array(m: int, n: int, k: int, side: int, flow: Dataflow) -> None:
    row = report(ScaleSimConfig(side, side, flow), [Layer("a", m, n, k)])[0]
    assert (row.total_cycles + 1) * side * side >= m * n * k
    assert 0 < row.compute_util <= row.mapping_efficiency <= 100


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(CONFIG)
    (tmp_path / "t.csv").write_text(
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter,"
        " Strides,\nC1, 8, 8, 3, 3, 4, 5, 1,\n"
    )
    rows = run(tmp_path / "a.cfg", tmp_path / "t.csv")
    assert len(rows) == 1
    assert (
        rows[0].total_cycles
        == report(read_config(CONFIG), [Layer("C1", 36, 5, 36)])[0].total_cycles
    )
    lines = list(csv.reader(compute_report(rows).splitlines()))
    assert [c.strip() for c in lines[0][:4]] == [
        "LayerID",
        "Total Cycles (incl. prefetch)",
        "Total Cycles",
        "Stall Cycles",
    ]
    assert int(lines[1][2]) == rows[0].total_cycles


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "not a SCALE-Sim configuration"),
        (CONFIG.replace("ws", "xs"), "allowed are ws, is, os"),
        (CONFIG.replace("ArrayWidth: 16\n", ""), "no 'ArrayWidth'"),
        (CONFIG.replace("32", "-3"), "ArrayHeight needs a whole number above 0"),
    ],
)
def test_faulty_configurations(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_config(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("Layer,M,N,K,\n", "no layers"),
        (
            "Layer,M,N,K,\na,1,2,\n",
            "line 2 of the topology, K: needs a whole number above 0, found ''",
        ),
        ("Layer,M,N,K,\na,1,2,x,\n", "line 2 of the topology, K:"),
        ("name,h,w,r,s,c,k,st,\na,2,2,3,3,1,1,1,\n", "does not fit"),
        ("name,h,w,r,s,c,k,st,Batch Size,\na,8,8,3,3,1,1,1,4,\n", "has the column 'batch size'"),
        ("name,h,w,r,s,c,k,st,Sparsity,\na,8,8,3,3,1,1,1,1:2,\n", "has the column 'sparsity'"),
        ("Layer,M,N,K,Sparsity\na,1,2,3,1:2\n", "has the column 'sparsity'"),
        ("name,h,w,r,s,c,k,st,\na,8,8,3,3,1,1,1,2,\n", "line 2 .* has 9 fields, of which 8"),
    ],
)
def test_faulty_topologies(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_topology(text)


def test_a_depthwise_layer_is_one_for_each_channel() -> None:
    """As SCALE-Sim (snapshot of 2025-08-15) reports a row whose name holds DP."""
    text = (
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter,"
        " Strides,\nConv1, 16, 16, 3, 3, 3, 32, 1,\nDP_2, 14, 14, 3, 3, 4, 1, 1,\n"
    )
    layers = read_topology(text)
    assert [(x.m, x.n, x.k) for x in layers] == [(196, 32, 27), *[(144, 1, 9)] * 4]


def test_strides_by_height_and_width() -> None:
    """8 x 15 outputs; SCALE-Sim v2, whose files these are, counts 497 cycles."""
    text = "name,h,w,r,s,c,k,Stride height, Stride width,\nC1, 17, 17, 3, 3, 4, 8, 2, 1,\n"
    (layer,) = read_topology(text)
    assert (layer.m, layer.n, layer.k) == (8 * 15, 8, 36)


@measured
def test_its_own_golden_report() -> None:
    """The one of its repository that is without stalls: AlexNet's first layer on 32 x 32, weights
    stationary.
    """
    with (VALIDATION / "scalesim" / "golden" / "calc" / "COMPUTE_REPORT.csv").open() as file:
        line = [c.strip() for c in list(csv.reader(file))[1]]
    layers = read_topology("n,h,w,r,s,c,k,st\nConv1,224,224,11,11,3,96,4,\n")
    ours = report(ScaleSimConfig(32, 32, Dataflow.WS), layers)[0]
    assert ours.total_cycles == int(line[2])
    assert [ours.overall_util, ours.mapping_efficiency, ours.compute_util] == pytest.approx(
        [float(c) for c in line[4:7]]
    )
