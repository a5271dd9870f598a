"""Collectives on A100 and H100: NCCL as others measured it, and engines' own kernels.

Each source times something of its own beside a collective. That is found on every second of its
rows, as one time for all, and the other rows are scored.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tenfold.chips import chip
from tenfold.cluster import Collective, Exchange, Tokens, collective, exchange, topology_of
from tenfold.validation.record import Row

LONG = 1 << 20  # bytes from which links count more than launches
OFFSETS_S = np.linspace(-1e-5, 1.5e-4, 641)
_Line: TypeAlias = Mapping[str, str]
_NCCL = {"alltoall": Collective.ALL_TO_ALL, "sendrecv": Collective.SEND_RECV}


@dataclass(frozen=True, slots=True)
class _Timed:
    kind: Collective
    size: float
    count: int
    time_s: float


@dataclass(frozen=True, slots=True)
class _Source:
    """A file, the rows of it that are meant, and how a line reads; ``fitted`` where the link's
    constants come from it.
    """

    path: str
    chip: str
    name: str
    read: Callable[[_Line], _Timed]
    wanted: Callable[[_Line], bool] = lambda _: True
    engine: bool = False
    fitted: bool = False


def _kind(name: str) -> Collective:
    return _NCCL[name] if name in _NCCL else Collective(name)


_BYTES = {"half": 2, "int8": 1, "bfloat16": 2}


def _aiconfigurator(r: _Line) -> _Timed:
    size = int(r["message_size"]) * _BYTES[r["nccl_dtype"]]
    return _Timed(_kind(r["op_name"]), size, int(r["num_gpus"]), float(r["latency_ms"]) * 1e-3)


def _apex(r: _Line) -> _Timed:
    size = float(r["size_kb"]) * 1024
    return _Timed(_kind(r["collective"]), size, int(r["gpus_per_node"]), float(r["time_us"]) * 1e-6)


def _vidur(r: _Line) -> _Timed:
    size, time_s = float(r["size_elems_or_bytes"]), float(r["latency_ms"]) * 1e-3
    return _Timed(Collective.ALL_REDUCE, size, int(r["num_workers"]), time_s)


def _tests(r: _Line) -> _Timed:
    return _Timed(
        _kind(r["collective"]), float(r["bytes"]), int(r["devices"]), float(r["time_us"]) * 1e-6
    )


def _llmcompass(r: _Line) -> _Timed:
    return _Timed(Collective.ALL_REDUCE, float(r["bytes"]), 4, float(r["latency_us"]) * 1e-6)


def _own_kernels(r: _Line) -> _Timed:
    size = int(r["message_size"]) * _BYTES[r["allreduce_dtype"]]
    return _Timed(Collective.ALL_REDUCE, size, int(r["num_gpus"]), float(r["latency"]) * 1e-3)


def _of_engine(system: str, backend: str) -> Callable[[_Line], bool]:
    def wanted(r: _Line) -> bool:
        own = r["system"] == system and r["backend"] == backend
        return own and ("graph" in r["kernel_source"] or backend == "trtllm")

    return wanted


_A100, _H100 = "a100-sxm-80", "h100-sxm"
_ENGINES = ("vllm", "sglang", "trtllm")
_SYSTEMS = ((_A100, "a100_sxm"), (_H100, "h100_sxm"))
SOURCES: tuple[_Source, ...] = (
    _Source("aiconfigurator/nccl_a100.csv", _A100, "aiconfigurator", _aiconfigurator, fitted=True),
    _Source(
        "collectives/apex.csv", _H100, "apex", _apex, lambda r: r["size_kb"] != "0", fitted=True
    ),
    _Source(
        "vidur/network_a100_dgx_all_reduce.csv",
        _A100,
        "vidur",
        _vidur,
        lambda r: r["num_workers"] == r["devices_per_node"],
    ),
    _Source("llmcompass/allreduce_A100x4.csv", _A100, "llmcompass", _llmcompass),
    *(
        _Source(
            "collectives/nccl_tests.csv",
            name,
            f"nccl-tests {library}",
            _tests,
            lambda r, n=name, x=library: (r["chip"], r["library"]) == (n, x),  # type: ignore[misc]
        )
        for name, library in ((_A100, "nccl-tests"), (_A100, "nccl 2.18.5"), (_H100, "nccl 2.18.5"))
    ),
    *(
        _Source(
            "collectives/allreduce_custom.csv",
            name,
            backend,
            _own_kernels,
            _of_engine(system, backend),
            engine=True,
        )
        for name, system in _SYSTEMS
        for backend in _ENGINES
    ),
)


def measured(folder: Path) -> Iterator[Row]:
    """Every source, short and long messages apart."""
    for s in SOURCES:
        path = folder / s.path
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            rows = [s.read(r) for r in csv.DictReader(file) if s.wanted(r)]
        yield from _scored(s, [t for t in rows if t.size > 0])


def _scored(s: _Source, rows: Sequence[_Timed]) -> Iterator[Row]:
    record = chip(s.chip)
    joined = topology_of(record)
    found = [collective(t.kind, t.size, t.count, joined, record, engine=s.engine) for t in rows]
    plain, times = (np.array(x) for x in ([m.time_s for m in found], [t.time_s for t in rows]))
    own = slice(0, None, 2)
    beside = 0.0 if s.fitted else _beside(plain[own], times[own])
    chosen = range(len(rows)) if s.fitted else range(1, len(rows), 2)
    what = "engines' all-reduce" if s.engine else "collectives"
    for i in chosen:
        t, m = rows[i], found[i]
        predicted = max(m.time_s + beside, 1e-7)
        size = "of 1 MiB and more" if t.size >= LONG else "below 1 MiB"
        within = abs(np.log(predicted / t.time_s)) <= np.log1p(m.error)
        yield Row(
            area=f"{what} {size}, {s.chip}{_FROM[s.fitted, s.engine]}",
            case=f"{s.name} {t.kind} bytes={t.size:.0f} chips={t.count}",
            predicted=predicted,
            reference=t.time_s,
            unit="s",
            source=s.name,
            inside=bool(within),
            seen=s.fitted or s.engine,
        )


# whether the constants of a link were fitted to a source, or read off some of its rows
_FROM = {(True, False): ", fitted to", (False, True): ", constants read here", (False, False): ""}


def _beside(plain: np.ndarray, times: np.ndarray) -> float:
    """Seconds that a source times beside, by the least mean error."""
    both = np.maximum(plain[:, None] + OFFSETS_S, 1e-7) / times[:, None]
    return float(OFFSETS_S[np.argmin(np.abs(np.log(both)).mean(axis=0))])


def experts(folder: Path) -> Iterator[Row]:
    """DeepEP's exchange of tokens: H200, since H100's rows were fitted to."""
    for path, low_latency in (("deepep_low_latency.csv", True), ("deepep_normal.csv", False)):
        full = folder / "collectives" / path
        if not full.is_file():
            continue
        with full.open(newline="", encoding="utf-8") as file:
            for r in csv.DictReader(file):
                for way in Exchange:
                    yield _exchanged(r, way, low_latency=low_latency)


_CHIPS = {"h100_sxm": _H100, "h200_sxm": "h200-sxm"}
_LOW = {Exchange.DISPATCH: "dispatch", Exchange.COMBINE: "combine"}
# DeepEP sends fp8 with a scale for 128 elements, and brings 16 bits back
_BYTES_OF = {Exchange.DISPATCH: 1 + 4 / 128, Exchange.COMBINE: 2.0}


def _exchanged(r: _Line, way: Exchange, *, low_latency: bool) -> Row:
    record = chip(_CHIPS[r["system"]])
    tokens, hidden, choices, boxes = (
        int(float(r[c])) for c in ("num_token", "hidden_size", "num_topk", "node_num")
    )
    what = Tokens(tokens, hidden * _BYTES_OF[way], choices)
    taken = None if low_latency else int(float(r[f"{_LOW[way]}_sms"]))
    done = exchange(way, what, 8 * boxes, topology_of(record), record, multiprocessors=taken)
    column = f"{_LOW[way]}_{'avg_t_us' if low_latency else 'transmit_us'}"
    time_s = float(r[column]) * 1e-6
    kind = "low latency" if low_latency else "normal"
    seen = record.name == _H100
    return Row(
        area=f"exchange of experts' tokens, {kind}, {record.name}{', fitted to' if seen else ''}",
        case=f"{way} tokens={tokens} hidden={hidden} topk={choices} chips={8 * boxes}",
        predicted=done.time_s,
        reference=time_s,
        unit="s",
        source="aiconfigurator",
        inside=bool(abs(np.log(done.time_s / time_s)) <= np.log1p(done.error)),
        seen=seen,
    )
