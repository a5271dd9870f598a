"""Documents for programs, from records: the values of ``--json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from msgspec import UNSET

from tenfold.chips import Chip
from tenfold.cluster import Group
from tenfold.estimate import Estimate
from tenfold.evaluate.agreement import Quality
from tenfold.evaluate.profiling import Profile
from tenfold.ir import active_parameters, graph_totals
from tenfold.machine import (
    BUFFER_LEVELS,
    Buffer,
    Counters,
    KernelRun,
    Level,
    Program,
    Traffic,
)
from tenfold.model import Sizes, prepare
from tenfold.report.comparison import comparison_part
from tenfold.report.documents.chips import (
    ChipDocument,
    ChipPart,
    ChipsDocument,
    FigurePart,
    ModelDocument,
    ModelPart,
    ModelsDocument,
)
from tenfold.report.documents.part import Interval, Maybe
from tenfold.report.documents.profile import (
    AdvicePart,
    BufferPart,
    ChangePart,
    ChipsTogetherPart,
    CompileDocument,
    CountersPart,
    GroupedOpPart,
    GroupPart,
    KernelPart,
    PlannedBytesPart,
    PricePart,
    ProfileDocument,
    QualityPart,
    RefusedPart,
    RelaxedPart,
    RunPart,
    StagePart,
)
from tenfold.study import StudyResult
from tenfold.zoo import ZooModel

T = TypeVar("T")


def interval(e: Estimate) -> Interval:
    return (e.low, e.high)


def real(value: T | None) -> Maybe[T]:
    """``value``, or no key where it is None, empty or 0, as unknown figures are."""
    return value if value else UNSET


def chip_part(chip: Chip) -> ChipPart:
    """One chip without its figures."""
    return ChipPart(
        name=chip.name,
        year=real(chip.year),
        organisation=real(chip.organisation),
        kind=chip.kind,
        peak_flops={p.value: v for p, v in chip.peak_flops.items()},
        memory_bytes=real(chip.memory_bytes),
        memory_bytes_per_s=real(chip.memory_bytes_per_s),
        sram_bytes=real(chip.sram_bytes),
        tdp_w=real(chip.tdp_w),
        cooling=real(chip.cooling),
        sources=dict(chip.sources),
    )


def chip_document(chip: Chip) -> ChipDocument:
    """One chip: every figure with its status and source."""
    part = chip_part(chip)
    figures = {
        path: FigurePart(
            value=q.value,
            interval=(q.low, q.high),
            status=q.status,
            source=q.source,
            note=real(q.note),
        )
        for path, q in chip.figures.items()
    }
    return ChipDocument(**{f: getattr(part, f) for f in part.__struct_fields__}, figures=figures)


def chips_document(chips: Sequence[Chip]) -> ChipsDocument:
    return ChipsDocument(chips=[chip_part(c) for c in chips])


def model_part(model: ZooModel) -> ModelPart:
    """One model: parameters as counted and as published, those that one token passes, arithmetic of
    an item.
    """
    graph = model.graph()
    return ModelPart(
        name=model.name,
        parameters=graph.parameters,
        active_parameters=real(active_parameters(graph)),
        published_parameters=real(model.published),
        published_active_parameters=real(model.active),
        flops_per_item=graph_totals(prepare(graph, Sizes()).graph).flops,
        family=model.family,
        source=model.source,
        status=model.status,
        note=real(model.note),
    )


def models_document(parts: Sequence[ModelPart]) -> ModelsDocument:
    return ModelsDocument(models=parts)


def model_document(part: ModelPart) -> ModelDocument:
    return ModelDocument(**{f: getattr(part, f) for f in part.__struct_fields__})


def kernel_part(k: KernelRun) -> KernelPart:
    return KernelPart(
        name=k.kernel.name,
        ops=k.kernel.ops,
        time_s=k.time_s,
        repeat=k.kernel.repeat,
        bound=k.bound,
        clock=k.clock,
        flops=k.kernel.flops,
        bytes=_moved(k.kernel.traffic),
    )


def program_document(program: Program, text: str) -> CompileDocument:
    """The compiled program: groups with reasons, text, and every buffer in both memories."""
    memory = program.memory
    return CompileDocument(
        model=program.model,
        chip=program.chip,
        dtype=program.precision.value,
        groups=[
            GroupPart(
                name=g.name,
                ops=[
                    GroupedOpPart(kind=op.kind, name=op.name, why=why)
                    for op, why in zip(g.ops, g.reasons, strict=True)
                ],
                inputs=g.inputs,
                outputs=g.outputs,
            )
            for g in program.groups
        ],
        program=text,
        memory=[
            *(_buffer(b, memory.level) for b in memory.near),
            *(_buffer(b, "off chip") for b in memory.far),
        ],
        bytes=PlannedBytesPart(
            moved=program.moved_bytes,
            weights=program.weight_bytes,
            activations=memory.far_bytes,
            activations_lower_bound=memory.lower_bound,
            near_capacity=memory.capacity,
        ),
    )


def _buffer(b: Buffer, where: str) -> BufferPart:
    return BufferPart(
        name=b.name,
        role=b.role.value,
        where=where,
        offset=b.offset,
        bytes=b.bytes,
        first=b.first,
        last=b.last,
        why=real(b.why),
    )


def study_document(result: StudyResult, *, sources: bool) -> ProfileDocument:
    """The document of ``profile``. What would make it quicker is in a single run."""
    asked = result.study
    return ProfileDocument(
        model=result.model,
        runs=[_run(p, result, sources=sources) for p in result.runs],
        measured=(
            [comparison_part(p.batch, c) for p, c in result.measured] if asked.measure else UNSET
        ),
        quality=[_quality(p, q) for p, q in result.quality] if asked.quality else UNSET,
        rejected=(
            [RefusedPart(chip=r.chip, batch=r.batch, reason=r.reason) for r in result.refused]
            if result.refused
            else UNSET
        ),
    )


def _quality(p: Profile, q: Quality) -> QualityPart:
    def finite(x: float) -> Maybe[float]:
        return x if math.isfinite(x) else UNSET

    return QualityPart(
        dtype=p.run.program.precision.value,
        scheme=q.scheme,
        cosine=q.cosine,
        top1_agreement=q.top1,
        worst_op=q.worst,
        covered=q.covered,
        inputs=q.inputs,
        sqnr_db=finite(q.sqnr_db),
        worst_sqnr_db=finite(q.worst_sqnr_db),
    )


def _run(p: Profile, result: StudyResult, *, sources: bool) -> RunPart:
    """One run of ``profile``. ``time_s`` is one pass over ``batch`` items."""
    run, program, f = p.run, p.run.program, p.footprint
    narrow = program.precision.value != "fp32" and not result.study.quality
    held = result.held
    return RunPart(
        chip=program.chip,
        batch=p.batch,
        dtype=program.precision.value,
        stack=program.stack.value,
        sizes=dict(p.sizes),
        time_s=p.time_s.value,
        interval_s=interval(p.time_s),
        interval_status="provisional",
        bound=run.bound,
        energy_j=p.energy_j.value,
        interval_j=interval(p.energy_j),
        energy_entries_j={e.what: e.amount.value for e in p.energy},
        energy_basis=run.energy_basis,
        power_w=p.power_w,
        flops=p.flops,
        mfu=p.mfu,
        memory_bytes=p.memory_bytes,
        bytes=_crossed(run.counters),
        counters=_counters(run.counters),
        coverage=program.native_fraction,
        launch_s=run.launch_s,
        kernels=[kernel_part(k) for k in run.kernels],
        assumed=real(dict(program.assumed)),
        set_by_hand=real(
            {c.path: ChangePart(before=c.before, after=c.after) for c in p.chip.changes}
        ),
        quality="not checked" if narrow else UNSET,
        usd_per_million=p.rent.usd.value if p.rent else UNSET,
        interval_usd_per_million=interval(p.rent.usd) if p.rent else UNSET,
        price=_price(p),
        gco2e_per_million=f.kgco2e.value * 1e3 if f else UNSET,
        interval_gco2e_per_million=interval(f.kgco2e * 1e3) if f else UNSET,
        energy_at_meter_j_per_million={e.what: e.amount.value for e in f.energy} if f else UNSET,
        region=f.region.name if f else UNSET,
        sources=source_list(p) if sources else UNSET,
        bottleneck=[RelaxedPart(unit=r.unit, gain=r.gain) for r in held.by] if held else UNSET,
        advice=(
            [AdvicePart(do=a.do, gain_per_item=a.gain, mind=real(a.mind)) for a in held.advice]
            if held
            else UNSET
        ),
        group=_group(p.group) if p.group else UNSET,
    )


def _group(g: Group) -> ChipsTogetherPart:
    return ChipsTogetherPart(
        count=g.layout.chips,
        layout={side.value: n for side, n in g.layout.ways.items()},
        cluster=g.topology.name,
        every_s=g.every_s.value,
        interval_every_s=interval(g.every_s),
        links_s=g.together_s,
        repeated_flops=g.repeated_flops,
        stages=[
            StagePart(
                time_s=s.run.time_s.value,
                handed_s=s.handed.value,
                memory_bytes=s.memory_bytes,
            )
            for s in g.stages
        ],
    )


def _moved(t: Traffic) -> Mapping[str, float]:
    far = t.off_chip
    nearer = (level for level in BUFFER_LEVELS if level is not Level.OFF_CHIP)
    return {
        "weights": far.weights,
        "inputs": far.inputs,
        "outputs": far.outputs,
        "prefetch": t.prefetch,
        **{level.key: t.at(level).total for level in nearer},
    }


def _crossed(c: Counters) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for level in Level:
        found[f"{level.key}_read"] = c.read_at(level)
        found[f"{level.key}_write"] = c.written_at(level)
        found[level.key] = c.bytes(level)
    return found


def _counters(c: Counters) -> CountersPart:
    return CountersPart(
        cycles=c.cycles,
        active=c.active,
        weight_stall=c.weight_stall,
        weight_shift=c.weight_shift,
        memory_stall=c.memory_stall,
        vector=c.vector,
        idle=c.idle,
        macs_useful=c.macs_useful,
        macs_wasted=c.macs_wasted,
    )


def _price(p: Profile) -> Maybe[PricePart]:
    if p.rent is None:
        return UNSET
    price = p.rent.price
    return PricePart(usd_per_hour=price.usd_per_s * 3600, provider=price.provider, date=price.date)


def source_list(p: Profile) -> list[str]:
    """Every figure behind the run that has a source: chip constants, price, grid."""
    record = p.chip
    used = [f"{path}: {q.status}, {record.sources[q.source]}" for path, q in record.figures.items()]
    if p.rent:
        used.append(f"price: {p.rent.price.status}, {p.rent.price.source} ({p.rent.price.date})")
    if p.footprint:
        used.append(f"grid: {p.footprint.region.source}")
    return used
