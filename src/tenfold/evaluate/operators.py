"""Single operators as kernels: what a row of a request asks for, with its operands in off-chip
memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tenfold.chips import Chip, GpuConstant, Kind, MatrixPrecision, SramRole
from tenfold.compiler import Options, build
from tenfold.errors import InputError
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Attr, Graph, Op, Value
from tenfold.ir.infer import Scope, infer_op
from tenfold.ir.table import Lowering, Rate
from tenfold.machine import (
    Experts,
    Kernel,
    Moved,
    NearMemory,
    Product,
    Traffic,
    target_of,
    warm,
)
from tenfold.machine.attention import softmax_in_two

PREFILL, DECODE, CONV = "attention_prefill", "attention_decode", "conv2d"
# element-wise operators and how many tensors each reads
POINTWISE: Mapping[str, int] = {
    "gelu": 1, "relu": 1, "tanh": 1, "sigmoid": 1, "exp": 1, "add": 2, "sub": 2, "mul": 2, "div": 2,
    "pow": 2,
}  # fmt: skip
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "matmul": ("m", "n", "k"),
    "batched_matmul": ("batch", "m", "n", "k"),
    PREFILL: ("batch", "q_len", "heads", "kv_heads", "head_dim", "causal"),
    DECODE: ("batch", "kv_len", "heads", "kv_heads", "head_dim"),
    "moe": ("tokens", "hidden", "inter", "topk", "experts", "tp", "ep", "distribution", "gated"),
    CONV: (
        "batch", "channels", "height", "width", "filters", "kernel", "stride", "padding", "groups",
    ),
    "softmax": ("rows", "cols"),
    "layernorm": ("rows", "cols"),
    **dict.fromkeys(POINTWISE, ("rows", "cols")),
}  # fmt: skip
DTYPES: Mapping[str, DType] = {
    "fp32": DType.F32, "fp16": DType.F16, "bf16": DType.BF16, "fp8": DType.F8E4M3, "int8": DType.I8,
    "tf32": DType.F32, "fp4": DType.F4E2M1, "fp8_block": DType.F8E4M3,
}  # fmt: skip
OF_LIBRARY = frozenset({PREFILL, DECODE, "moe"})  # whose constants an engine's library has
BLOCKED = "fp8_block"  # fp8 with a scale for each block (DeepSeek-V3, section 3.3)


@dataclass(frozen=True, slots=True)
class OperatorCall:
    """One row: what to run, in which dtype, with which extents; ``line`` is its line in the
    file. ``engine``: as serving engines' kernels do it, where a chip has such; else as in a graph.
    ``warm``: operands may lie in a GPU's L2 from the call before; else they come from memory.
    """

    line: int
    op: str
    dtype: str
    extents: Mapping[str, int]
    distribution: str = ""
    engine: bool = True
    warm: bool = False


def kernel_of(r: OperatorCall, chip: Chip, precision: MatrixPrecision) -> Kernel:
    """The kernel of one call, as a whole. Raises InputError for extents that contradict each
    other, and for a warm call on a chip without a cache of that kind.
    """
    kernel = _KERNELS[r.op](r, chip, precision)
    if not r.warm:
        return kernel
    if chip.kind is not Kind.GPU:
        raise InputError(
            f"warm operands are those of a GPU's L2: {chip.name} has no such cache, so leave"
            " --warm out"
        )
    return warm(kernel, chip.level_bytes(SramRole.L2))


def precision_of(r: OperatorCall, chip: Chip) -> MatrixPrecision:
    """What the matrix unit computes in. Raises UnsupportedDType for what the chip has not, and
    InputError for scales a block of anything but a product of a serving engine.
    """
    if r.dtype != BLOCKED:
        return chip.storage(r.dtype)
    if r.op != "matmul" or not (r.engine and target_of(chip).serves):
        raise InputError(
            f"{BLOCKED} is of products as serving engines run them on GPUs: {r.op} on {chip.name}"
            " has no such kernel here"
        )
    return chip.storage("fp8")


def kernels_of(kernel: Kernel, r: OperatorCall, chip: Chip) -> tuple[Kernel, ...]:
    """The kernels that the call of ``kernel`` runs as: itself on a GPU.

    On a software-scheduled chip attention and softmax run in parts, and a product on its own has no
    neighbour to overlap with: operands that fit are fetched whole, then used, and a result that
    fits stays for its consumer.
    """
    target = target_of(chip)
    if r.op in (PREFILL, DECODE) and not target.serves:
        return build(_attention_of(r), chip, kernel.precision, 1).kernels
    near = target.near()
    if near is None:
        return (kernel,)
    if not kernel.products:
        return softmax_in_two(kernel) if kernel.rate is Rate.SOFTMAX else (kernel,)
    return _alone(kernel, near)


def _graph(
    kind: str,
    dtype: DType,
    shapes: Sequence[tuple[int, ...]],
    attrs: Mapping[str, Attr],
    weights: Collection[int] = (),
) -> Graph:
    """A graph of one op; operands at the places ``weights`` are constants."""
    scope = Scope()
    names = tuple(f"x{i}" for i in range(len(shapes)))
    for name, shape in zip(names, shapes, strict=True):
        scope.declare(Value(name, dtype, shape))
    op = infer_op(scope, Op(kind, names, ("y",), attrs))
    held = {names[i]: None for i in weights}
    inputs = tuple(n for n in names if n not in held)
    return Graph(kind, inputs, ("y",), (op,), scope.values, held)


_WHOLE = Options(without=("fuse", "residency"))  # one kernel an op, operands off chip


def _single(graph: Graph, chip: Chip, precision: MatrixPrecision) -> Kernel:
    """The kernel that the op table and the lowering make of one op."""
    made = build(graph, chip, precision, 1, _WHOLE).kernels
    vector, functions = sum(k.vector_ops for k in made), sum(k.transcendentals for k in made)
    return replace(made[-1], vector_ops=vector, transcendentals=functions)


def _matmul(r: OperatorCall, chip: Chip, precision: MatrixPrecision) -> Kernel:
    """Either operand may be the stationary one: the second counts as weights.

    An engine's fp8 product comes and goes in 16 bits: its activations are quantized first.
    """
    m, n, k = (r.extents[name] for name in ("m", "n", "k"))
    graph = _graph("matmul", DTYPES[r.dtype], [(m, k), (k, n)], {}, weights=(1,))
    kernel = _single(graph, chip, precision)
    if not (r.engine and target_of(chip).serves and precision is MatrixPrecision.FP8):
        return kernel
    moved = replace(kernel.traffic.off_chip, outputs=m * n * WIDE_BYTES)
    return replace(kernel, traffic=Traffic(moved), quantizes=m * k, blocked=r.dtype == BLOCKED)


def _batched_matmul(r: OperatorCall, chip: Chip, precision: MatrixPrecision) -> Kernel:
    """``batch`` products, each of operands of its own."""
    b, m, n, k = (r.extents[name] for name in ("batch", "m", "n", "k"))
    return _single(_graph("matmul", DTYPES[r.dtype], [(b, m, k), (b, k, n)], {}), chip, precision)


def _conv(r: OperatorCall, chip: Chip, precision: MatrixPrecision) -> Kernel:
    """A convolution over two axes; windows are square."""
    e = r.extents
    if e["channels"] % e["groups"] or e["filters"] % e["groups"]:
        raise InputError(
            f"line {r.line}: {e['groups']} groups divide neither {e['channels']} channels nor"
            f" {e['filters']} filters: they must divide both"
        )
    side = min(e["height"], e["width"]) + 2 * e["padding"]
    if e["kernel"] > side:
        raise InputError(
            f"line {r.line}: a window of {e['kernel']} does not fit into {side}, padding included"
        )
    x = (e["batch"], e["channels"], e["height"], e["width"])
    w = (e["filters"], e["channels"] // e["groups"], e["kernel"], e["kernel"])
    attrs: dict[str, Attr] = {
        "strides": (e["stride"],) * 2,
        "pads": (e["padding"],) * 4,
        "group": e["groups"],
    }
    return _single(_graph("conv", DTYPES[r.dtype], [x, w], attrs, weights=(1,)), chip, precision)


def _pointwise(kind: str, tensors: int) -> Callable[[OperatorCall, Chip, MatrixPrecision], Kernel]:
    def kernel(r: OperatorCall, chip: Chip, precision: MatrixPrecision) -> Kernel:
        shapes = [(r.extents["rows"], r.extents["cols"])] * tensors
        return _single(_graph(kind, DTYPES[r.dtype], shapes, {}), chip, precision)

    return kernel


WIDE_BYTES = 2  # of an element that an engine's 8-bit product brings back


def _row_wise(
    kind: str, attrs: Mapping[str, Attr], affine: bool
) -> Callable[[OperatorCall, Chip, MatrixPrecision], Kernel]:
    def kernel(r: OperatorCall, chip: Chip, precision: MatrixPrecision) -> Kernel:
        rows, cols = r.extents["rows"], r.extents["cols"]
        shapes: list[tuple[int, ...]] = [(rows, cols)] + ([(cols,), (cols,)] if affine else [])
        return _single(_graph(kind, DTYPES[r.dtype], shapes, attrs), chip, precision)

    return kernel


def _attention_of(r: OperatorCall) -> Graph:
    e = r.extents
    decode = r.op == DECODE
    batch, heads, kv_heads, dim = e["batch"], e["heads"], e["kv_heads"], e["head_dim"]
    queries, keys = (1, e["kv_len"]) if decode else (e["q_len"], e["q_len"])
    held = (batch, kv_heads, keys, dim)
    attrs: dict[str, Attr] = {"is_causal": int(not decode and bool(e["causal"]))}
    shapes = [(batch, heads, queries, dim), held, held]
    return _graph("attention", DTYPES[r.dtype], shapes, attrs)


def _attention(r: OperatorCall, chip: Chip, precision: MatrixPrecision) -> Kernel:
    """An engine's prefill stores keys and values in the cache first, and its decode of grouped
    heads reads less of it than there is.
    """
    kernel = _single(_attention_of(r), chip, precision)
    attention = kernel.attention
    if attention is None or not (r.engine and target_of(chip).serves):
        return kernel
    if r.op != DECODE:
        return replace(kernel, attention=replace(attention, writes_cache=True))
    grouped = attention.heads > attention.kv_heads
    read = 1.0
    if grouped:  # yet no sooner than memory delivers all of it at its peak
        least = chip.constant(GpuConstant.MEMORY_FRACTION)
        read = max(chip.constant(GpuConstant.DECODE_CACHE_FRACTION), least)
    all_cached = 2 * attention.batch * attention.kv_len * attention.kv_heads * attention.head_dim
    spared = int(all_cached * precision.bits / 8 * (1 - read))
    moved = kernel.traffic.off_chip
    return replace(
        kernel,
        attention=replace(attention, cache_read=read),
        traffic=Traffic(replace(moved, inputs=moved.inputs - spared)),
    )


def _moe(r: OperatorCall, _chip: Chip, precision: MatrixPrecision) -> Kernel:
    """Experts of the most loaded rank: two products for each expert that has tokens (Shazeer et al.
    2017, section 2).
    """
    e = r.extents
    if e["experts"] % e["ep"] or e["topk"] > e["experts"]:
        raise InputError(
            f"{e['experts']} experts with top-{e['topk']} over {e['ep']} ranks: experts must divide"
            " by ep and topk not exceed them"
        )
    gates = 2 if e["gated"] else 1
    counts = expert_counts(e["tokens"], e["experts"], e["topk"], e["ep"], r.distribution, r.line)
    routed, active = sum(counts), sum(c > 0 for c in counts)
    m, inter = math.ceil(routed / max(active, 1)), math.ceil(e["inter"] / e["tp"])
    width, hidden = precision.bits / 8, e["hidden"]
    return Kernel(
        name="moe",
        ops=("moe",),
        kind=Lowering.MATRIX,
        precision=precision,
        products=(Product(active, m, gates * inter, hidden), Product(active, m, hidden, inter)),
        flops=2 * (gates + 1) * routed * inter * hidden,
        vector_ops=3 * routed * inter,
        transcendentals=routed * inter,
        rate=Rate.PRODUCT,
        traffic=Traffic(
            Moved(
                weights=int((gates + 1) * active * inter * hidden * width),
                inputs=int(routed * (hidden + inter) * width),
                outputs=int(routed * (hidden + (gates + 1) * inter) * width),
            )
        ),
        operand_bits=precision.bits,
        experts=Experts(e["tokens"], hidden, inter, e["experts"], counts, bool(e["gated"])),
    )


_DEALS = 9  # ways in which experts are dealt to ranks, of which the median is taken


@lru_cache(maxsize=4096)
def expert_counts(
    tokens: int, experts: int, top_k: int, ranks: int, distribution: str, line: int
) -> tuple[int, ...]:
    """Tokens of each expert on the most loaded of ``ranks``.

    ``balanced``, or ``power_law_ALPHA``: the popularity of experts are the quantiles of a density
    that falls with the power ALPHA between one token and 80 % of all (the distribution of
    aiconfigurator's measurements), dealt to ranks at random.
    """
    routed = tokens * top_k
    if distribution == "balanced":
        wanted = np.full(experts, routed / experts)
    else:
        wanted = _power_law(experts, max(0.8 * tokens, 2.0), _exponent(distribution, line))
        wanted = np.minimum(wanted / wanted.sum() * routed, tokens)
    counts = np.floor(wanted)
    missing = round(routed - counts.sum())
    while missing > 0:  # the largest remainders first, nobody above all tokens
        open_ = counts < tokens
        whole = min(missing // max(int(open_.sum()), 1), int((tokens - counts)[open_].min()))
        if whole > 1:  # so many rounds, in which each that has room gets one
            counts[open_] += whole
            wanted, missing = np.maximum(wanted, counts), round(routed - counts.sum())
            continue
        order = np.argsort(-(wanted - counts) + (counts >= tokens) * tokens, kind="stable")[
            :missing
        ]
        counts[order] += 1
        wanted, missing = np.maximum(wanted, counts), round(routed - counts.sum())
    if ranks == 1:
        return tuple(int(c) for c in counts)
    rng = np.random.default_rng(0)
    deals = [
        max(rng.permutation(counts).reshape(ranks, -1), key=lambda rank: float(rank.sum()))
        for _ in range(_DEALS)
    ]
    return tuple(int(c) for c in sorted(deals, key=lambda rank: float(rank.sum()))[_DEALS // 2])


def _power_law(experts: int, most: float, alpha: float) -> np.ndarray:
    """Quantiles of a density x**-alpha on [1, most]."""
    at = (np.arange(experts) + 0.5) / experts
    if abs(alpha - 1) < 1e-9:
        return most**at
    return ((most ** (1 - alpha) - 1) * at + 1) ** (1 / (1 - alpha))


def _exponent(distribution: str, line: int) -> float:
    name, _, exponent = distribution.rpartition("_")
    try:
        alpha = float(exponent)
    except ValueError:
        alpha = math.nan
    if name != "power_law" or not 0 < alpha < 100:
        raise InputError(
            f"line {line}, column 'distribution': found '{distribution}', allowed are balanced and"
            " power_law_ALPHA"
        )
    return alpha


_KERNELS: Mapping[str, Callable[[OperatorCall, Chip, MatrixPrecision], Kernel]] = {
    "matmul": _matmul,
    "batched_matmul": _batched_matmul,
    PREFILL: _attention,
    DECODE: _attention,
    "moe": _moe,
    "softmax": _row_wise("softmax", {"axis": -1}, affine=False),
    "layernorm": _row_wise("layer_norm", {"axis": -1}, affine=True),
    CONV: _conv,
    **{op: _pointwise(op, tensors) for op, tensors in POINTWISE.items()},
}


FETCH = "fetch"  # the kernel that brings the operands of a product on its own


def _alone(kernel: Kernel, near: NearMemory) -> tuple[Kernel, ...]:
    t = kernel.traffic.off_chip
    if t.total > near.bytes or near.holds_all:
        stays = replace(kernel, traffic=Traffic(replace(t, outputs=0)))
        return (stays if t.outputs <= near.bytes else kernel,)
    fetch = Kernel(
        name=FETCH,
        ops=("copy",),
        kind=Lowering.MOVE,
        precision=kernel.precision,
        traffic=Traffic(Moved(inputs=t.reads)),
        operand_bits=kernel.operand_bits,
    )
    return fetch, replace(kernel, traffic=Traffic(near=t))
