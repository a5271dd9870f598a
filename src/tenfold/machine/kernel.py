"""What a machine runs: kernels, each with what it computes and what it moves."""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.chips import MatrixPrecision
from tenfold.ir.table import Lowering


@dataclass(frozen=True, slots=True)
class Product:
    """``batch`` independent products [m, k] x [k, n], done ``repeat`` times one after the other."""

    batch: int
    m: int
    n: int
    k: int
    repeat: int = 1

    @property
    def macs(self) -> int:
        return self.batch * self.m * self.n * self.k * self.repeat


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that cross the off-chip memory interface, by what they are."""

    weights: int = 0
    inputs: int = 0
    outputs: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.inputs + self.outputs

    @property
    def reads(self) -> int:
        return self.weights + self.inputs


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch on the chip.

    ``flops`` is useful contraction arithmetic (a multiply-add is two), ``products`` what the matrix unit
    executes for it. ``vector_ops`` and ``transcendentals`` run on the vector unit. ``operand_bits`` is the
    width of matrix operands. ``rows`` x ``columns`` is the extent that a row-wise kernel walks.
    """

    name: str
    ops: tuple[str, ...]
    kind: Lowering
    precision: MatrixPrecision
    products: tuple[Product, ...] = ()
    flops: int = 0
    vector_ops: int = 0
    transcendentals: int = 0
    traffic: Traffic = Traffic()
    operand_bits: int = 16
    repeat: int = 1

    @property
    def arithmetic(self) -> int:
        return self.flops + self.vector_ops + self.transcendentals

    @property
    def shape(self) -> tuple[object, ...]:
        """All that its time depends on: kernels of equal shape are simulated once."""
        return (
            self.kind,
            self.precision,
            self.products,
            self.flops,
            self.vector_ops,
            self.transcendentals,
            self.traffic,
            self.operand_bits,
        )


@dataclass(frozen=True, slots=True)
class Program:
    """Kernels in order for one chip, and the memory they need. ``io_bytes`` are the model's own inputs and outputs.

    ``native_fraction`` is the share of arithmetic in ops that Tenfold knows; ``assumed`` names extents
    that depend on data and were set to their upper bound.
    """

    model: str
    chip: str
    precision: MatrixPrecision
    items: int
    kernels: tuple[Kernel, ...]
    weight_bytes: int
    peak_activation_bytes: int
    io_bytes: int
    native_fraction: float
    assumed: tuple[tuple[str, int], ...] = ()

    @property
    def memory_bytes(self) -> int:
        return self.weight_bytes + self.peak_activation_bytes

    @property
    def flops(self) -> int:
        return sum(k.flops * k.repeat for k in self.kernels)
