"""Documents for programs: the keys of ``--json``. A key is absent until its value is real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tenfold.carbon import Envelope
from tenfold.chips import Chip
from tenfold.estimate import Estimate
from tenfold.evaluate.advice import Advice, Relaxed
from tenfold.evaluate.agreement import Quality
from tenfold.evaluate.profiling import Profile
from tenfold.ir import active_parameters, graph_totals
from tenfold.machine import Buffer, KernelRun, Level, Program
from tenfold.zoo import ZooModel


def interval(e: Estimate) -> list[float]:
    return [e.low, e.high]


def chip_document(chip: Chip, *, figures: bool) -> dict[str, Any]:
    """One chip; with ``figures`` every figure with its status and source."""
    document: dict[str, Any] = {
        "name": chip.name,
        "year": chip.year,
        "organisation": chip.organisation,
        "kind": chip.kind,
        "peak_flops": {p.value: v for p, v in chip.peak_flops.items()},
        "memory_bytes": chip.memory_bytes,
        "memory_bytes_per_s": chip.memory_bytes_per_s,
        "sram_bytes": chip.sram_bytes,
        "tdp_w": chip.tdp_w,
        "cooling": chip.cooling or None,
        "sources": dict(chip.sources),
    }
    if figures:
        document["figures"] = {
            path: {
                "value": q.value,
                "interval": [q.low, q.high],
                "status": q.status,
                "source": q.source,
                "note": q.note or None,
            }
            for path, q in chip.figures.items()
        }
    return _present(document)


def _present(document: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in document.items() if v not in (None, "", 0.0) or k == "coverage"}


def model_document(model: ZooModel) -> dict[str, Any]:
    """One model: parameters as counted and as published, those that one token passes, arithmetic of
    an item.
    """
    from tenfold.model import Sizes, prepare

    graph = model.graph()
    flops = graph_totals(prepare(graph, Sizes()).graph).flops
    document = {
        "name": model.name,
        "parameters": graph.parameters,
        "active_parameters": active_parameters(graph),
        "published_parameters": model.published,
        "published_active_parameters": model.active,
        "flops_per_item": flops,
        "family": model.family,
        "source": model.source,
        "status": model.status,
        "note": model.note,
    }
    return _present(document)


def kernel_document(k: KernelRun) -> dict[str, Any]:
    t = k.kernel.traffic
    return {
        "name": k.kernel.name,
        "ops": list(k.kernel.ops),
        "time_s": k.time_s,
        "repeat": k.kernel.repeat,
        "bound": k.bound,
        "flops": k.kernel.flops,
        "bytes": {
            "weights": t.off_chip.weights,
            "inputs": t.off_chip.inputs,
            "outputs": t.off_chip.outputs,
            "near": t.near.total,
            "prefetch": t.prefetch,
        },
    }


def program_document(program: Program, text: str) -> dict[str, Any]:
    """The compiled program: groups with reasons, text, and every buffer in both memories."""
    memory = program.memory
    return {
        "model": program.model,
        "chip": program.chip,
        "dtype": program.precision.value,
        "groups": [
            {
                "name": g.name,
                "ops": [
                    {"kind": op.kind, "name": op.name, "why": why}
                    for op, why in zip(g.ops, g.reasons, strict=True)
                ],
                "inputs": list(g.inputs),
                "outputs": list(g.outputs),
            }
            for g in program.groups
        ],
        "program": text,
        "memory": (
            [buffer_document(b, memory.level) for b in memory.near]
            + [buffer_document(b, "off chip") for b in memory.far]
        ),
        "bytes": {
            "moved": program.moved_bytes,
            "weights": program.weight_bytes,
            "activations": memory.far_bytes,
            "activations_lower_bound": memory.lower_bound,
            "near_capacity": memory.capacity,
        },
    }


def advice_document(relaxed: Sequence[Relaxed], advice: Sequence[Advice]) -> dict[str, Any]:
    """What each unit would give if it took no time, and what to do, as shares of the time."""
    return {
        "bottleneck": [{"unit": r.unit, "gain": r.gain} for r in relaxed],
        "advice": [
            {"do": a.do, "gain_per_item": a.gain} | ({"mind": a.mind} if a.mind else {})
            for a in advice
        ],
    }


def quality_document(p: Profile, q: Quality) -> dict[str, Any]:
    finite = {"sqnr_db": q.sqnr_db, "worst_sqnr_db": q.worst_sqnr_db}
    return {
        "dtype": p.run.program.precision.value,
        "scheme": q.scheme,
        "cosine": q.cosine,
        "top1_agreement": q.top1,
        "worst_op": q.worst,
        "covered": q.covered,
        "inputs": q.inputs,
        **{k: v for k, v in finite.items() if math.isfinite(v)},
    }


def buffer_document(b: Buffer, where: str) -> dict[str, Any]:
    document = {
        "name": b.name,
        "role": b.role.value,
        "where": where,
        "offset": b.offset,
        "bytes": b.bytes,
        "first": b.first,
        "last": b.last,
    }
    return document | ({"why": b.why} if b.why else {})


def profile_document(p: Profile, *, sources: bool) -> dict[str, Any]:
    """One run of ``profile``. ``time_s`` is one pass over ``batch`` items."""
    run, program = p.run, p.run.program
    c = run.counters
    document: dict[str, Any] = {
        "chip": program.chip,
        "batch": p.batch,
        "dtype": program.precision.value,
        "sizes": dict(p.sizes),
        "time_s": run.time_s.value,
        "interval_s": interval(run.time_s),
        "interval_status": "provisional",
        "bound": run.bound,
        "energy_j": run.energy_j.value,
        "interval_j": interval(run.energy_j),
        "energy_entries_j": {e.what: e.amount.value for e in run.energy},
        "energy_basis": run.energy_basis,
        "power_w": run.power_w,
        "flops": program.flops,
        "mfu": run.mfu,
        "memory_bytes": program.memory_bytes,
        "bytes": {
            "off_chip_read": c.read[Level.OFF_CHIP.value],
            "off_chip_write": c.written[Level.OFF_CHIP.value],
            "on_chip": c.bytes(Level.ON_CHIP),
            "near": c.bytes(Level.NEAR),
        },
        "counters": {
            "cycles": c.cycles,
            "active": c.active,
            "weight_stall": c.weight_stall,
            "weight_shift": c.weight_shift,
            "memory_stall": c.memory_stall,
            "vector": c.vector,
            "idle": c.idle,
            "macs_useful": c.macs_useful,
            "macs_wasted": c.macs_wasted,
        },
        "coverage": program.native_fraction,
        "launch_s": run.launch_s,
        "kernels": [kernel_document(k) for k in run.kernels],
    }
    if program.assumed:
        document["assumed"] = dict(program.assumed)
    if program.precision.value != "fp32":
        document["quality"] = "not checked"
    if p.rent:
        document |= {
            "usd_per_million": p.rent.usd.value,
            "interval_usd_per_million": interval(p.rent.usd),
        }
        document["price"] = {
            "usd_per_hour": p.rent.price.usd_per_s * 3600,
            "provider": p.rent.price.provider,
            "date": p.rent.price.date,
        }
    if p.footprint:
        f = p.footprint
        document |= {
            "gco2e_per_million": f.kgco2e.value * 1e3,
            "interval_gco2e_per_million": [f.kgco2e.low * 1e3, f.kgco2e.high * 1e3],
        }
        document["energy_at_meter_j_per_million"] = {e.what: e.amount.value for e in f.energy}
        document["region"] = f.region.name
    if sources:
        document["sources"] = source_list(p)
    return document


def source_list(p: Profile) -> list[str]:
    """Every figure behind the run that has a source: chip constants, price, grid."""

    record = p.chip
    used = [f"{path}: {q.status}, {record.sources[q.source]}" for path, q in record.figures.items()]
    if p.rent:
        used.append(f"price: {p.rent.price.status}, {p.rent.price.source} ({p.rent.price.date})")
    if p.footprint:
        used.append(f"grid: {p.footprint.region.source}")
    return used


def envelope_document(e: Envelope) -> dict[str, Any]:
    return {
        "energy_kwh": e.energy_j / 3.6e6,
        "kgco2e": e.kgco2e,
        "kg_per_kwh": e.kgco2e_per_j * 3.6e6,
        "grid": e.grid,
        "ev_miles": [e.ev_miles.low, e.ev_miles.high],
    }
