"""Processors: a roofline of arithmetic, vector work and memory in one of two speeds, plus a fixed
cost for each operator.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tenfold.chips import Chip, HostConstant, MatrixPrecision, SramRole
from tenfold.ir.infer import row_of
from tenfold.ir.table import Lowering, Rate
from tenfold.machine.kernel import (
    REORDERED,
    Kernel,
    Moved,
    Product,
    Program,
    Role,
    RuntimeWork,
    Traffic,
)
from tenfold.machine.roofline import Parts, norm, vector_cycles

TRANSCENDENTAL_OPS = 10  # SIMD polynomial with range reduction (assumed)
# of a power function that is not vectorised, which only one core works on (assumed)
POWER_CYCLES = 40
# operations on each result that a product does as it goes: a bias, a sum, a comparison (assumed)
IN_PRODUCT = 3
# of sharing work out: what each item and group of a gathered convolution costs the core that works
# on it (assumed)
CALL = 0.5
# of sharing work out, in each step of a recurrent layer but the first: its threads are still awake
# (assumed)
STEP = 0.5
ONE_CORE = 5e9  # bytes a second that one core draws from memory at least (assumed)
_SLOW = (Lowering.MOVE, Lowering.GATHER)


def kernel_time(chip: Chip, kernel: Kernel) -> Parts:
    """Time of one operator on all cores (Williams, Waterman, Patterson 2009, Roofline, with overlap
    in part).

    Bytes marked near come from the caches, the others from memory; a change of layout or a look-up
    reaches a share of either. Work is shared out among the cores, once a step, where that is
    quicker than leaving it to one.
    """
    clock = chip.clock("time")
    launch = chip.constant(HostConstant.LAUNCH_S)
    assert chip.memory_bytes_per_s is not None
    matrix = sum(_product_s(chip, kernel, p) * p.repeat for p in kernel.products)
    results = sum(p.batch * p.m * p.n * p.repeat for p in kernel.products)
    work = (
        max(0, kernel.vector_ops - IN_PRODUCT * results)
        + kernel.transcendentals * TRANSCENDENTAL_OPS
    )
    per_cycle = (chip.vector_ops_per_cycle or 1.0) * chip.constant(HostConstant.VECTOR_FRACTION)
    # the runtime's loops go one element after the other, associative or not
    vector = vector_cycles(work, per_cycle, kernel.chain, pairs=False) / clock
    if kernel.rate is Rate.POWER:
        vector += kernel.transcendentals * POWER_CYCLES / clock
    rate = chip.memory_bytes_per_s * chip.constant(HostConstant.MEMORY_FRACTION)
    layout = kernel.rate is Rate.REORDER
    rate *= (
        chip.constant(HostConstant.MOVE_FRACTION) if kernel.kind in _SLOW and not layout else 1.0
    )
    # changes of layout go block by block and are shared out
    alone = kernel.kind is Lowering.MOVE and not layout
    rate = max(rate / (chip.units or 1), min(rate, ONE_CORE)) if alone else rate
    memory = kernel.traffic.total / rate + _cached_s(
        chip, kernel, rate * chip.constant(HostConstant.CACHE_FACTOR)
    )
    steps = max((p.repeat for p in kernel.products), default=1)
    if steps == 1:
        spent = float(norm(matrix, memory, vector))
    else:  # plain code combines the states, after the products of each step
        vector += kernel.vector_ops / ((chip.units or 1) * clock)
        spent = float(norm(matrix, memory)) + vector
    fork_s = chip.constant(HostConstant.FORK_S)
    if _own(kernel).cached_bytes and kernel.rate is not Rate.CONVOLUTION:
        spent += sum(p.batch for p in kernel.products) * CALL * fork_s / (chip.units or 1)
    forked = (1 + (steps - 1) * STEP) * fork_s
    total = spent if alone else min(spent + forked, spent * (chip.units or 1))
    return Parts(total + launch, matrix, vector, memory, 0.0, total + launch - spent)


def _cached_s(chip: Chip, kernel: Kernel, rate: float) -> float:
    """Seconds for what comes from the caches: ``rate`` bytes a second, more where the second level
    holds all that is touched.

    A recurrent layer reads its weights in every step but the first.
    """
    private = chip.level_bytes(SramRole.L2)
    quick = rate * chip.constant(HostConstant.PRIVATE_FACTOR)
    touched = kernel.traffic.near.total + _own(kernel).cached_bytes
    seconds = touched / (quick if touched + kernel.traffic.total <= private else rate)
    for p in kernel.products:
        weights = p.batch * p.n * p.k * kernel.operand_bits / 8
        seconds += (p.repeat - 1) * weights / (quick if weights <= private else rate)
    return seconds


def _own(kernel: Kernel) -> RuntimeWork:
    return kernel.runtime or NO_WORK


NO_WORK = RuntimeWork()


def entry_s(chip: Chip, program: Program) -> float:
    """What a call of the runtime costs beside the kernels: itself, and operators that only give
    bytes another shape.
    """
    views = sum(row_of(op).lowering is Lowering.VIEW for op in program.graph.ops)
    return chip.constant(HostConstant.RUN_S) + views * chip.constant(HostConstant.LAUNCH_S)


def _product_s(chip: Chip, kernel: Kernel, p: Product) -> float:
    """Seconds of one repetition: results fill whole vectors, but where each group has few columns,
    which runs across groups.

    Where results go to the caches and back between parts of the sum, each vector of them takes a
    few cycles every time.
    """
    peak = chip.peak_flops[kernel.precision]
    lanes = chip.vector_lanes
    flops = 2 * p.batch * p.m * p.n * p.k
    convolves = kernel.rate is Rate.CONVOLUTION
    across = convolves and p.batch > 1 and p.n < lanes
    vectors = p.batch * p.m * (p.n / lanes if across else math.ceil(p.n / lanes))
    per_pass = vectors * chip.constant(HostConstant.PASS_FACTOR)
    passing = _own(kernel).passes * per_pass / (chip.clock("time") * (chip.units or 1))
    if across:
        return flops / (peak * chip.constant(HostConstant.GROUPED_FRACTION)) + passing
    constant = HostConstant.CONV_FRACTION if convolves else HostConstant.MATRIX_FRACTION
    if kernel.precision is MatrixPrecision.INT8:
        constant = HostConstant.INT8_FRACTION
    share = chip.constant(constant)
    # two vectors of results in each row keep the units busy; one column is a product with a vector
    if constant is HostConstant.MATRIX_FRACTION:
        lanes = 1 if p.n == 1 else 2 * lanes
    return flops * math.ceil(p.n / lanes) * lanes / p.n / (peak * share) + passing


def cached(chip: Chip, program: Program) -> tuple[Kernel, ...]:
    """The kernels with what the caches hold marked near: all weights if they fit together, of what
    one kernel moves as much as fits.

    The model's own inputs and results are in the caches only where they and all weights fit
    together. A virtual machine is told of more last-level cache than it gets.
    """
    cache = chip.sram_bytes * chip.constant(HostConstant.CACHED_SHARE)
    all_fit = program.weight_bytes + program.io_bytes <= cache
    written = {o.name for k in program.kernels for o in k.operands if o.role is Role.OUTPUT}
    results = (
        f"{n}{REORDERED}" if f"{n}{REORDERED}" in written else n for n in program.graph.outputs
    )
    far = frozenset() if all_fit else frozenset((*program.graph.inputs, *results))
    return tuple(
        _cached(k, cache, far, weights=program.weight_bytes <= cache) for k in program.kernels
    )


def _cached(kernel: Kernel, cache: float, far: frozenset[str], *, weights: bool) -> Kernel:
    t = kernel.traffic.off_chip
    near_weights = t.weights if weights else 0
    held = min(1.0, cache / max(t.inputs + t.outputs, 1))
    reads, results = (
        sum(o.bytes for o in kernel.operands if o.role is role and o.name in far)
        for role in (Role.INPUT, Role.OUTPUT)
    )
    inputs, outputs = int((t.inputs - reads) * held), int((t.outputs - results) * held)
    split = Traffic(
        Moved(t.weights - near_weights, t.inputs - inputs, t.outputs - outputs),
        near=Moved(near_weights, inputs, outputs),
    )
    return replace(kernel, traffic=split)
