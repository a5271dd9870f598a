"""How a processor's runtime lays tensors out: channels in blocks of a vector for convolutions, and
copies between layouts.

Direct convolutions want blocked channels (Georganas et al. 2018, "Anatomy of high-performance deep
learning convolutions on SIMD architectures"); pooling, element-wise work and concatenation follow
them in that layout, everything else wants tensors as the model has them, and whoever changes layout
is a kernel of its own. A convolution that cannot be blocked is a product over gathered windows, one
for each item and group, with the positions of the result along the vector (Chellapilla et al.
2006). The rules follow ONNX Runtime 1.32, which a processor's kernels mean; what they leave out is
in docs/calibration.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from tenfold.chips import MatrixPrecision
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph, Op, Value
from tenfold.ir.infer import row_of
from tenfold.ir.table import Lowering, Rate
from tenfold.machine.kernel import (
    REORDERED,
    Group,
    Kernel,
    Operand,
    Product,
    Role,
    RuntimeWork,
    off_chip,
)
from tenfold.machine.target import Cut

_FOLLOW = frozenset(
    {
        "max_pool",
        "average_pool",
        "relu",
        "sigmoid",
        "tanh",
        "gelu",
        "swish",
        "hard_sigmoid",
        "hard_swish",
        "batch_norm",
        "resize",
    }
)
# done on results that went to the caches
_AFTERWARDS = frozenset({"sigmoid", "tanh", "leaky_relu", "hard_sigmoid", "hard_swish"})
_WHOLE_PICTURE = frozenset({"reduce_mean", "reduce_max"})  # global pools, which keep extents of 1
_CONCAT, _WITH_INDICES = "concat", "max_pool"
_TOGETHER = frozenset({"add", "mul", _CONCAT})
_CONV, _TRANSPOSED, _PRODUCT = "conv", "conv_transpose", "matmul"
REORDER = "reorder"  # how a kernel that changes layout is shown
WEIGHED = 128  # channels of a 1 x 1 convolution that are summed in registers


@dataclass(slots=True)
class _Layouts:
    """Which buffers lie in blocks, and the other copies that were made of any."""

    graph: Graph
    root: Mapping[str, str]
    size: Callable[[str], int]
    block: int
    blocked: set[str] = field(default_factory=set)
    copies: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> Value:
        return self.graph.values[name]


def lay_out(made: Iterable[Kernel], cut: Cut, block: int) -> Iterator[Kernel]:
    """The kernels of a processor, whose vectors hold ``block`` channels, with changes of layout
    between them.
    """
    graph, groups, root = cut.graph, cut.groups, cut.root
    layouts = _Layouts(graph, root, cut.size, block)
    for kernel in made:
        group = groups[kernel.group]
        if not kernel.operands or kernel.attention is not None:
            yield kernel
            continue
        yield from _laid(kernel, group, layouts)
    for name in dict.fromkeys(root.get(o, o) for o in graph.outputs):
        if name in layouts.blocked and name not in layouts.copies:
            yield _reorder(name, layouts, len(groups) - 1)


def _laid(kernel: Kernel, group: Group, layouts: _Layouts) -> Iterator[Kernel]:
    anchor = group.anchor
    narrow = kernel.precision is MatrixPrecision.INT8
    if anchor is not None and anchor.kind == _CONV and not narrow and _direct(anchor, layouts):
        yield from _blocked(kernel, group, anchor, layouts)
        return
    if _follows(group, layouts):
        yield kernel
        layouts.blocked.update(group.outputs)
        return
    inputs = {o.name for o in kernel.operands if o.role is Role.INPUT}
    *copies, last = _converted(kernel, layouts, plain=inputs)
    yield from copies
    if (
        anchor is not None
        and anchor.kind in (_CONV, _TRANSPOSED)
        and not narrow
        and _constant(anchor, layouts)
    ):
        yield _gathered(last, anchor, layouts)
    else:
        yield last


def _blocked(kernel: Kernel, group: Group, conv: Op, layouts: _Layouts) -> Iterator[Kernel]:
    """A direct convolution in blocks of channels, with the copies that it needs before."""
    channels, block = _dims(layouts, conv.inputs[1])[1], layouts.block
    want = {o.name for o in kernel.operands if o.role is Role.INPUT}
    given = layouts.root.get(conv.inputs[0], conv.inputs[0])
    few = channels < block and not _depthwise(conv, layouts)
    a_view = given != conv.inputs[0]
    plain = want & {given} if few or a_view else set()
    *copies, last = _converted(kernel, layouts, blocked=want - plain, plain=plain)
    yield from copies
    items = _dims(layouts, conv.inputs[0])[0]
    filters = math.prod(_dims(layouts, conv.inputs[1]))
    own = RuntimeWork(
        cached_bytes=(items - 1) * filters * kernel.operand_bits // 8,
        passes=_passes(conv, layouts) + any(o.kind in _AFTERWARDS for o in group.ops),
    )
    products = tuple(_padded(p, channels, block) for p in last.products)
    yield replace(last, products=products, runtime=own)
    layouts.blocked.update(group.outputs)


def _dims(layouts: _Layouts, name: str) -> tuple[int, ...]:
    return cast("tuple[int, ...]", layouts.value(name).dims)  # the graph is static


def _groups(op: Op) -> int:
    return cast("int", op.attrs.get("group", 1))


def _depthwise(op: Op, layouts: _Layouts) -> bool:
    filters, channels = _dims(layouts, op.inputs[1])[:2]
    return channels == 1 and filters == _groups(op)


def _passes(op: Op, layouts: _Layouts) -> int:
    """Parts in which a direct convolution sums its inputs: single channels as they lie, blocks, or
    many where it only weighs them.
    """
    channels, *window = _dims(layouts, op.inputs[1])[1:]
    if _depthwise(op, layouts):
        return 1
    if channels < layouts.block:
        return channels
    weighs = math.prod(window) == 1 and not any(cast("Sequence[int]", op.attrs.get("pads", ())))
    return -(-channels // (WEIGHED if weighs else layouts.block))


def _direct(op: Op, layouts: _Layouts) -> bool:
    """Whether a convolution runs in blocks: two dimensions, constant filters, and channels that
    fill blocks where groups cut them.
    """
    weights = op.inputs[1]
    shape, block = _dims(layouts, weights), layouts.block
    if len(shape) != 4 or not _constant(op, layouts):
        return False
    groups = _groups(op)
    filters, channels = shape[:2]
    return (
        groups == 1
        or _depthwise(op, layouts)
        or (channels % block == 0 and (filters // groups) % block == 0)
    )


def _constant(op: Op, layouts: _Layouts) -> bool:
    """Whether filters and bias are constants of floats, which a processor holds as fp32."""
    constant = all(layouts.root.get(n, n) in layouts.graph.constants for n in op.inputs[1:] if n)
    return constant and layouts.value(op.inputs[1]).dtype in (DType.F32, DType.F16, DType.BF16)


def _follows(group: Group, layouts: _Layouts) -> bool:
    """Whether a kernel takes blocked tensors as they are: its op must, and all of its inputs be
    blocked and of four dimensions.
    """
    op = group.ops[0]
    if (
        len([o for o in group.ops if row_of(o).lowering is not Lowering.VIEW]) > 1
        or op.kind not in _FOLLOW | _TOGETHER | _WHOLE_PICTURE
    ):
        return False
    inputs = [n for n in op.inputs[: None if op.kind in _TOGETHER else 1] if n]
    shapes = [_dims(layouts, n) for n in inputs]
    if any(len(s) != 4 or layouts.root.get(n, n) != n for n, s in zip(inputs, shapes, strict=True)):
        return False
    if not all(n in layouts.blocked for n in inputs) or (
        op.kind == _WITH_INDICES and len([o for o in op.outputs if o]) > 1
    ):
        return False
    if op.kind in _WHOLE_PICTURE:
        return _dims(layouts, op.outputs[0])[1:] == (shapes[0][1], 1, 1)
    if op.kind == _CONCAT:
        return op.attrs.get("axis") in (1, -3) and all(s[1] % layouts.block == 0 for s in shapes)
    return all(s == shapes[0] for s in shapes)


def _padded(p: Product, channels: int, block: int) -> Product:
    """The product as executed: whole blocks of channels go in, and out of a convolution of every
    channel on its own.
    """
    up = -(-channels // block) * block
    if p.batch > 1:
        return replace(p, batch=-(-p.batch // block) * block) if channels == 1 else p
    return replace(p, k=p.k // channels * up) if channels >= block else p


def _converted(
    kernel: Kernel, layouts: _Layouts, blocked: Collection[str] = (), plain: Collection[str] = ()
) -> Iterator[Kernel]:
    """Copies of inputs into the layout that the kernel wants, each made once, and the kernel that
    reads them.
    """
    wrong = [n for n in sorted(blocked) if n not in layouts.blocked] + [
        n for n in sorted(plain) if n in layouts.blocked
    ]
    for name in wrong:
        if name not in layouts.copies:
            yield _reorder(name, layouts, kernel.group)
    if not wrong:
        yield kernel
        return
    operands = tuple(
        replace(o, name=layouts.copies[o.name]) if o.name in wrong and o.role is Role.INPUT else o
        for o in kernel.operands
    )
    yield replace(kernel, operands=operands)


def _reorder(name: str, layouts: _Layouts, group: int) -> Kernel:
    """A copy of a buffer in the other layout."""
    size = layouts.size(name)
    layouts.copies[name] = f"{name}{REORDERED}"
    operands = (Operand(name, Role.INPUT, size), Operand(layouts.copies[name], Role.OUTPUT, size))
    return _moving(f"{name}/{REORDER}", operands, group)


def _moving(name: str, operands: tuple[Operand, ...], group: int) -> Kernel:
    return Kernel(
        name=name,
        ops=(REORDER,),
        kind=Lowering.MOVE,
        rate=Rate.REORDER,
        precision=MatrixPrecision.FP32,
        traffic=off_chip(operands),
        operand_bits=32,
        operands=operands,
        group=group,
    )


def _gathered(kernel: Kernel, op: Op, layouts: _Layouts) -> Kernel:
    """A convolution as a product over gathered windows; a transposed one as a product whose result
    is scattered into windows.
    """
    x, w, y = (_dims(layouts, n) for n in (op.inputs[0], op.inputs[1], op.outputs[0]))
    groups = _groups(op)
    window, narrow = math.prod(w[2:]), x if op.kind == _TRANSPOSED else y
    positions = math.prod(narrow[2:])
    product = Product(x[0] * groups, w[0] // groups, positions, w[1] * window)
    if op.kind == _TRANSPOSED:
        product = Product(x[0] * groups, w[1] * window, positions, w[0] // groups)
    columns = x[0] * groups * w[1] * window * positions
    as_it_lies = window == 1 and math.prod(x[2:]) == math.prod(y[2:])
    # windows, then panels of them; filters again
    moved = columns * (1 if as_it_lies else 2) + (x[0] - 1) * math.prod(w)
    names = tuple(_PRODUCT if o == op.kind else o for o in kernel.ops)
    own = RuntimeWork(cached_bytes=moved * kernel.operand_bits // 8)
    return replace(kernel, ops=names, rate=Rate.PRODUCT, products=(product,), runtime=own)
