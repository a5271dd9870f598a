"""Software-scheduled chips: kernels to tile programs, their exact cycles and counters.

A product [m, k] x [k, n] is cut into weight tiles of the array's rows x columns; activations stream
through in chunks of m (weight stationary: Jouppi et al., ISCA 2017, section 2). The arrays of a
chip work as a gang on different columns, rows, batch elements or parts of k, whose partial sums the
vector unit adds. Weights and activations that fit the vector memory are fetched once. The lowering
picks gang, chunk and which operand is stationary by time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tenfold.chips import Chip, SystolicConstant
from tenfold.machine.kernel import Kernel, Product
from tenfold.machine.roofline import vector_cycles
from tenfold.machine.systolic.array import Array, array_of
from tenfold.machine.systolic.maxplus import Repeat, cycles
from tenfold.machine.systolic.step import Drain, Launch, Tile
from tenfold.machine.target import Balance

CHUNKS = (128, 256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True)
class Gang:
    """One way to run a product: which gang of arrays does what, and the chunk of m."""

    gang_n: int
    gang_m: int
    gang_batch: int
    gang_k: int
    chunk: int


def plans(product: Product, array: Array) -> Iterator[Gang]:
    """Ways to share the arrays among columns, rows, batch and parts of k, with each chunk size that
    differs.

    Where nothing keeps weights, rows that fit all accumulators may also be one chunk, which is then
    not double-buffered.
    """
    matrix, arrays = array.matrix, array.matrix.arrays
    chunks = (*CHUNKS, product.m) if CHUNKS[-1] < product.m <= array.one_pass_rows else CHUNKS
    powers = [1 << i for i in range(arrays.bit_length()) if arrays % (1 << i) == 0] + (
        [] if arrays & (arrays - 1) == 0 else [arrays]
    )
    most = {"batch": product.batch, "k": math.ceil(product.k / matrix.rows)}
    for gang_n in powers:
        for gang_batch in (
            g for g in powers if (arrays // gang_n) % g == 0 and (g == 1 or g <= most["batch"])
        ):
            left = arrays // gang_n // gang_batch
            for gang_k in (g for g in powers if left % g == 0 and (g == 1 or g <= most["k"])):
                gang_m = left // gang_k
                seen: set[int] = set()
                for chunk in chunks:
                    rows = min(chunk, math.ceil(product.m / gang_m))
                    if rows not in seen:
                        seen.add(rows)
                        yield Gang(gang_n, gang_m, gang_batch, gang_k, rows)


def _cycles(amount: float, per_cycle: float) -> int:
    return math.ceil(amount / per_cycle - 1e-9) if amount > 0 else 0


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of a product by operand - streamed, stationary, result - off chip, in the near memory,
    and prefetched for others.
    """

    streamed: float
    stationary: float
    result: float
    near_streamed: float = 0.0
    near_stationary: float = 0.0
    near_result: float = 0.0
    prefetch: float = 0.0
    early: bool = False  # whether near stationary bytes were fetched while an earlier kernel ran

    def swapped(self) -> Bytes:
        """The same with the other operand stationary."""
        return replace(
            self,
            streamed=self.stationary,
            stationary=self.streamed,
            near_streamed=self.near_stationary,
            near_stationary=self.near_streamed,
        )


@dataclass(frozen=True, slots=True)
class _Nest:
    """The tiles of one product under one plan: how many of each, and what each moves."""

    product: Product
    array: Array
    plan: Gang
    moved: Bytes
    drain_ops: float
    n_groups: int
    k_tiles: int
    m_share: int
    batches: int
    width: float  # columns that one group really has, over the gang
    weights_fit: bool
    inputs_fit: bool

    def tile(self, length: int, first_n: bool, first_m: bool, first_k: bool, last_k: bool) -> Tile:
        """One tile of ``length`` rows; the first ones fetch what later ones find in vector
        memory.
        """
        a, b, share = self.array, self.moved, length / self.m_share
        weights = (first_m or not self.weights_fit) / (self.batches * self.n_groups * self.k_tiles)
        inputs = (first_n or not self.inputs_fit) * share / (self.batches * self.k_tiles)
        results = last_k * share / (self.batches * self.n_groups)
        spread = b.prefetch * share / (self.batches * self.n_groups * self.k_tiles)
        elements = length * self.plan.gang_m * self.width * self.plan.gang_batch
        return Tile(
            weight_dma=_cycles(b.stationary * weights, a.bytes_per_cycle),
            weight_near=_cycles(b.near_stationary * weights, a.near_read_per_cycle),
            weight_load=a.matrix.rows,
            act_dma=_cycles(b.streamed * inputs, a.bytes_per_cycle),
            act_near=_cycles(b.near_streamed * inputs, a.near_read_per_cycle),
            matrix=math.ceil(max(length, a.minimum_rows) * a.cycles_per_row),
            vector=_cycles(elements * self.drain_ops, a.vector_ops_per_cycle) if last_k else 0,
            fill=a.matrix.rows + a.matrix.columns - 2,
            out_dma=_cycles(b.result * results, a.bytes_per_cycle),
            out_near=_cycles(b.near_result * results, a.near_write_per_cycle),
            prefetch=_cycles(spread, a.bytes_per_cycle),
            new_weights=True,
            weights_near=b.near_stationary > 0,
            weights_early=b.early,
            first_k=first_k,
            last_k=last_k,
            both=length > CHUNKS[-1],
        )

    def k_loop(self, length: int, first_n: bool, first_m: bool) -> tuple[Tile | Repeat, ...]:
        if self.k_tiles == 1:
            return (self.tile(length, first_n, first_m, True, True),)
        parts: list[Tile | Repeat] = [self.tile(length, first_n, first_m, True, False)]
        if self.k_tiles > 2:
            parts.append(
                Repeat((self.tile(length, first_n, first_m, False, False),), self.k_tiles - 2)
            )
        return (*parts, self.tile(length, first_n, first_m, False, True))

    def m_loop(self, first_n: bool) -> tuple[Tile | Repeat, ...]:
        parts: list[Tile | Repeat] = []
        chunks, last_chunk = divmod(self.m_share, self.plan.chunk)
        if chunks:
            parts += self.k_loop(self.plan.chunk, first_n, True)
        if chunks > 1:
            parts.append(Repeat(self.k_loop(self.plan.chunk, first_n, False), chunks - 1))
        if last_chunk:
            parts += self.k_loop(last_chunk, first_n, not chunks)
        return tuple(parts)


def tile_program(
    product: Product, array: Array, plan: Gang, moved: Bytes, drain_ops: float
) -> Repeat:
    """The loop nest over columns, chunks of m and k for one repetition of ``product``.

    ``drain_ops`` are vector operations per element of the result, done as it leaves the
    accumulators.
    """
    n_groups = math.ceil(product.n / (array.matrix.columns * plan.gang_n))
    width = product.n / n_groups
    k_tiles = math.ceil(product.k / (array.matrix.rows * plan.gang_k))
    nest = _Nest(
        product=product,
        array=array,
        plan=plan,
        moved=moved,
        drain_ops=drain_ops + plan.gang_k - 1,
        n_groups=n_groups,
        k_tiles=k_tiles,
        m_share=math.ceil(product.m / plan.gang_m),
        batches=math.ceil(product.batch / plan.gang_batch),
        width=width,
        weights_fit=(
            k_tiles == 1
            if array.one_pass_rows
            else product.k * width * array.operand_bytes * 2 <= array.buffer_bytes
        ),
        inputs_fit=product.m * product.k * array.operand_bytes <= array.buffer_bytes,
    )
    parts: list[Tile | Repeat] = list(nest.m_loop(True))
    if n_groups > 1:
        parts.append(Repeat(nest.m_loop(False), n_groups - 1))
    return Repeat(tuple(parts), nest.batches)


def whole_tiles(product: Product, array: Array) -> float:
    """Bytes of the stationary operand where it is stored in whole tiles of the array."""
    rows, columns = array.matrix.rows, array.matrix.columns
    tiles = math.ceil(product.k / rows) * math.ceil(product.n / columns) * product.batch
    return tiles * rows * columns * array.operand_bytes


def lower_bound(program: Repeat) -> int:
    """The busiest unit's cycles: no schedule is shorter."""
    return max(busy_cycles(program).values())


def busy_cycles(program: Repeat) -> dict[str, int]:
    """Cycles for which each unit works: off-chip interface, near memory, matrix unit, vector
    unit.
    """
    busy = {"memory": 0, "near": 0, "matrix": 0, "vector": 0}
    for tile, times in program.kinds():
        busy["memory"] += tile.interface * times
        busy["near"] += (tile.weight_near + tile.act_near + tile.out_near) * times
        busy["matrix"] += tile.matrix * times
        busy["vector"] += tile.vector * times
    return busy


FINALISTS = 8  # plans timed exactly, in the order of their lower bounds


def best_program(
    product: Product,
    array: Array,
    moved: Bytes,
    drain_ops: float,
    *,
    weights_stationary: bool = False,
) -> Repeat:
    """The quickest of all plans with either operand stationary; the lower bound prunes, the exact
    time decides.

    With ``weights_stationary`` the hardware allows only the second operand to be. Where nothing
    keeps weights, they are fetched as few times as the accumulators allow: off-chip accesses cost
    most.
    """
    swapped = replace(product, m=product.n, n=product.m)
    candidates: list[tuple[int, int, int, Repeat]] = []
    for shape, bytes_ in (
        (product, moved),
        *(() if weights_stationary else ((swapped, moved.swapped()),)),
    ):
        for plan in plans(shape, array):
            program = tile_program(shape, array, plan, bytes_, drain_ops)
            shifts = sum(tile.weight_load * times for tile, times in program.kinds())
            fetched = (
                sum(tile.weight_dma * times for tile, times in program.kinds())
                if array.one_pass_rows
                else 0
            )
            candidates.append((fetched, max(lower_bound(program), shifts), program.tiles, program))
    candidates.sort(key=lambda c: c[:3])
    best, least = candidates[0][3], cycles(candidates[0][3])
    for fetched, bound, _, program in candidates[1:FINALISTS]:
        if fetched > candidates[0][0] or bound >= least:
            break
        if (took := cycles(program)) < least:
            best, least = program, took
    return best


def launched(parts: tuple[Tile | Repeat, ...], overhead: int, prefetch: int = 0) -> Repeat:
    """A kernel's whole program: launch with what is fetched during it, tiles, and the interface's
    share at the end.
    """
    weights = sum(t.weight_dma * n for t, n in Repeat(parts).kinds())
    rest = sum((t.interface - t.weight_dma) * n for t, n in Repeat(parts).kinds())
    return Repeat((Launch(overhead, prefetch), *parts, Drain(weights, rest + prefetch)))


def vector_program(kernel: Kernel, array: Array, chunk_bytes: float) -> Repeat:
    """A kernel without products: chunks stream in, through the vector unit, and out."""
    t = kernel.traffic
    count = max(1, math.ceil(max(t.all_reads + t.all_writes, 1) / chunk_bytes))
    working = _vector_cycles(kernel, array)
    tile = Tile(
        act_dma=_cycles(t.off_chip.reads / count, array.bytes_per_cycle),
        act_near=_cycles(t.near.reads / count, array.near_read_per_cycle),
        vector=_cycles(working / count, 1.0),
        out_dma=_cycles(t.off_chip.outputs / count, array.bytes_per_cycle),
        out_near=_cycles(t.near.outputs / count, array.near_write_per_cycle),
        prefetch=_cycles(t.prefetch / count, array.bytes_per_cycle),
    )
    return Repeat((tile,), count)


# vector operations for one exp, log or tanh: a polynomial with range reduction (assumed)
TRANSCENDENTAL_OPS = 8


def _vector_cycles(kernel: Kernel, array: Array) -> float:
    ops = kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS
    return vector_cycles(ops, array.vector_ops_per_cycle, kernel.chain, pairs=True)


def balance(chip: Chip, kernel: Kernel) -> Balance:
    """A roofline of one kernel (Williams, Waterman, Patterson 2009), its buffers off chip."""
    array = array_of(chip, kernel.precision, kernel.operand_bits)
    rate = array.bytes_per_cycle * array.clock_hz
    cells = array.matrix.macs_per_cycle / array.cycles_per_row
    matrix = sum(p.macs for p in kernel.products) / cells
    vector = _vector_cycles(kernel, array)
    return Balance(
        kernel.traffic.total / rate,
        max(matrix, vector) / array.clock_hz,
        chip.constant(SystolicConstant.KERNEL_S),
        rate,
    )
