"""Software-scheduled chips: kernels to tile programs, their exact cycles and counters.

A product [m, k] x [k, n] is cut into weight tiles of the array's rows x columns; activations stream
through in chunks of m (weight stationary: Jouppi et al., ISCA 2017, section 2). The arrays of a chip work
as a gang on different columns, rows or batch elements. Weights and activations that fit the vector
memory are fetched once. The lowering picks gang, chunk and which operand is stationary by time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tenfold.chips import Chip, Matrix, MatrixPrecision
from tenfold.machine.kernel import Kernel, Product
from tenfold.machine.maxplus import Repeat, cycles
from tenfold.machine.step import Tile

CHUNKS = (128, 256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True)
class Array:
    """What the tile program needs to know of a chip, in cycles and bytes."""

    matrix: Matrix
    clock_hz: float
    bytes_per_cycle: float
    write_bytes_per_cycle: float
    cycles_per_row: float  # of the streamed operand, at this precision
    vector_ops_per_cycle: float
    buffer_bytes: float
    minimum_rows: int
    operand_bytes: float


def array_of(chip: Chip, precision: MatrixPrecision, operand_bits: int) -> Array:
    """Raises MissingFigure for a chip without a clock."""
    clock = chip.clock("time")
    matrix = chip.matrix
    assert matrix is not None
    assert chip.memory_bytes_per_s is not None
    natural = matrix.macs_per_cycle * clock * 2
    bandwidth = chip.memory_bytes_per_s * chip.constant("memory_fraction")
    return Array(
        matrix=matrix,
        clock_hz=clock,
        bytes_per_cycle=bandwidth / clock,
        write_bytes_per_cycle=bandwidth / clock,
        cycles_per_row=natural / (chip.peak_flops[precision] * chip.constant("matrix_fraction")),
        vector_ops_per_cycle=(chip.vector_ops_per_cycle or matrix.columns) * chip.constant("vector_fraction"),
        buffer_bytes=max((s.bytes for s in chip.sram if s.name == "VMEM"), default=chip.sram_bytes) / 2,
        minimum_rows=int(chip.constant("minimum_rows")),
        operand_bytes=operand_bits / 8,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run a product: which gang of arrays does what, and the chunk of m."""

    gang_n: int
    gang_m: int
    gang_batch: int
    chunk: int


def plans(product: Product, arrays: int) -> Iterator[Plan]:
    """Ways to share ``arrays`` among columns, rows and batch, with each chunk size that differs."""
    powers = [1 << i for i in range(arrays.bit_length()) if arrays % (1 << i) == 0] + ([] if arrays & (arrays - 1) == 0 else [arrays])
    for gang_n in powers:
        for gang_batch in (g for g in powers if (arrays // gang_n) % g == 0 and (g == 1 or g <= product.batch)):
            gang_m = arrays // gang_n // gang_batch
            seen: set[int] = set()
            for chunk in CHUNKS:
                rows = min(chunk, math.ceil(product.m / gang_m))
                if rows not in seen:
                    seen.add(rows)
                    yield Plan(gang_n, gang_m, gang_batch, rows)


def _cycles(amount: float, per_cycle: float) -> int:
    return math.ceil(amount / per_cycle - 1e-9) if amount > 0 else 0


@dataclass(frozen=True, slots=True)
class Bytes:
    """Off-chip bytes of a product: of the streamed operand, of the stationary one, of the result."""

    streamed: float
    stationary: float
    result: float


def tile_program(product: Product, array: Array, plan: Plan, moved: Bytes, drain_ops: float) -> Repeat:
    """The loop nest over columns, chunks of m and k for one repetition of ``product``.

    ``drain_ops`` are vector operations per element of the result, done as it leaves the accumulators.
    """
    rows, columns = array.matrix.rows, array.matrix.columns
    m_share = math.ceil(product.m / plan.gang_m)
    n_groups = math.ceil(product.n / (columns * plan.gang_n))
    k_tiles = math.ceil(product.k / rows)
    chunks, last_chunk = divmod(m_share, plan.chunk)
    batches = math.ceil(product.batch / plan.gang_batch)
    width = product.n / n_groups  # columns that one group really has, over the gang
    weights_fit = product.k * width * array.operand_bytes * 2 <= array.buffer_bytes
    inputs_fit = product.m * product.k * array.operand_bytes <= array.buffer_bytes
    stationary = moved.stationary / (batches * n_groups * k_tiles)
    streamed = moved.streamed / (batches * k_tiles)
    result = moved.result / (batches * n_groups)

    def tile(share: float, length: int, first_n: bool, first_m: bool, first_k: bool, last_k: bool) -> Tile:
        fetch_weights = first_m or not weights_fit
        fetch_inputs = first_n or not inputs_fit
        elements = length * plan.gang_m * width * plan.gang_batch
        return Tile(
            weight_dma=_cycles(stationary, array.bytes_per_cycle) if fetch_weights else 0,
            weight_load=rows,
            act_dma=_cycles(streamed * share, array.bytes_per_cycle) if fetch_inputs else 0,
            matrix=math.ceil(max(length, array.minimum_rows) * array.cycles_per_row),
            vector=_cycles(elements * drain_ops, array.vector_ops_per_cycle) if last_k else 0,
            fill=rows + columns - 2,
            out_dma=_cycles(result * share, array.write_bytes_per_cycle) if last_k else 0,
            new_weights=True,
            first_k=first_k,
            last_k=last_k,
        )

    def k_loop(share: float, length: int, first_n: bool, first_m: bool) -> tuple[Tile | Repeat, ...]:
        if k_tiles == 1:
            return (tile(share, length, first_n, first_m, True, True),)
        parts: list[Tile | Repeat] = [tile(share, length, first_n, first_m, True, False)]
        if k_tiles > 2:
            parts.append(Repeat((tile(share, length, first_n, first_m, False, False),), k_tiles - 2))
        return (*parts, tile(share, length, first_n, first_m, False, True))

    def m_loop(first_n: bool) -> tuple[Tile | Repeat, ...]:
        parts: list[Tile | Repeat] = []
        full = plan.chunk / m_share
        if chunks:
            parts += k_loop(full, plan.chunk, first_n, True)
        if chunks > 1:
            parts.append(Repeat(k_loop(full, plan.chunk, first_n, False), chunks - 1))
        if last_chunk:
            parts += k_loop(last_chunk / m_share, last_chunk, first_n, not chunks)
        return tuple(parts)

    nest: list[Tile | Repeat] = list(m_loop(True))
    if n_groups > 1:
        nest.append(Repeat(m_loop(False), n_groups - 1))
    return Repeat(tuple(nest), batches)


def whole_tiles(product: Product, array: Array) -> float:
    """Bytes of the stationary operand where it is stored in whole tiles of the array."""
    rows, columns = array.matrix.rows, array.matrix.columns
    tiles = math.ceil(product.k / rows) * math.ceil(product.n / columns) * product.batch
    return tiles * rows * columns * array.operand_bytes


def lower_bound(program: Repeat) -> int:
    """The busiest unit's cycles: no schedule is shorter."""
    dma = matrix = vector = out = 0
    for tile, times in program.kinds():
        dma += (tile.weight_dma + tile.act_dma) * times
        matrix += tile.matrix * times
        vector += tile.vector * times
        out += tile.out_dma * times
    return max(dma + out, matrix, vector)


FINALISTS = 2


def best_program(product: Product, array: Array, moved: Bytes, drain_ops: float) -> Repeat:
    """The quickest of all plans with either operand stationary; the lower bound prunes, the exact time decides."""
    swapped = replace(product, m=product.n, n=product.m)
    candidates: list[tuple[int, int, Repeat]] = []
    for shape, bytes_ in ((product, moved), (swapped, Bytes(moved.stationary, moved.streamed, moved.result))):
        for plan in plans(shape, array.matrix.arrays):
            program = tile_program(shape, array, plan, bytes_, drain_ops)
            candidates.append((lower_bound(program), program.tiles, program))
    candidates.sort(key=lambda c: c[:2])
    return min((c[2] for c in candidates[:FINALISTS]), key=exact_cycles)


def exact_cycles(program: Repeat) -> int:
    """Cycles of a tile program; reads and writes share the memory interface, so their sum bounds it too."""
    busy = sum((t.weight_dma + t.act_dma + t.out_dma) * times for t, times in program.kinds())
    return max(cycles(program), busy)


def vector_program(kernel: Kernel, array: Array, chunk_bytes: float) -> Repeat:
    """A kernel without products: chunks stream in, through the vector unit, and out."""
    moved = max(kernel.traffic.total, 1)
    count = max(1, math.ceil(moved / chunk_bytes))
    work = kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS
    tile = Tile(
        act_dma=_cycles(kernel.traffic.reads / count, array.bytes_per_cycle),
        vector=_cycles(work / count, array.vector_ops_per_cycle),
        out_dma=_cycles(kernel.traffic.outputs / count, array.write_bytes_per_cycle),
    )
    return Repeat((tile,), count)


TRANSCENDENTAL_OPS = 8  # vector operations for one exp, log or tanh: a polynomial with range reduction (assumed)
