"""Convolutional networks that no ONNX file is at hand for: boards of Go, and single-shot
detection.
"""

from __future__ import annotations

import msgspec

from tenfold.families.net import Net
from tenfold.ir.dims import symbol
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph


class Convolution(msgspec.Struct, forbid_unknown_fields=True, frozen=True, array_like=True):
    """Channels out, side of the kernel, stride."""

    channels: int
    side: int
    stride: int = 1


class Plain(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A stack of same-padded convolutions with ReLU, and on its result heads of 1 x 1 or dense
    layers.
    """

    size: int
    channels: int
    layers: list[Convolution]
    heads: list[int] = []
    dense: list[int] = []


def plain_graph(name: str, p: Plain, dtype: DType) -> Graph:
    """The graph with free ``batch``."""
    net = Net(name, dtype)
    x, channels, size = (
        net.input("x", (symbol("batch"), p.channels, p.size, p.size)),
        p.channels,
        p.size,
    )
    for i, c in enumerate(p.layers):
        x, channels = (
            net.activation(conv(net, x, f"layer.{i}", channels, c, pad=c.side // 2), "relu"),
            c.channels,
        )
        size = -(-size // c.stride)
    if p.dense:
        width, x = channels * size * size, net.reshape(x, "flat", 0, channels * size * size)
        for i, wide in enumerate(p.dense):
            x, width = (
                net.activation(net.linear(x, f"dense.{i}", width, wide, bias=False), "relu"),
                wide,
            )
    heads = [
        conv(net, x, f"head.{i}", channels, Convolution(h, 1), pad=0) for i, h in enumerate(p.heads)
    ]
    return net.graph(*(heads or [x]))


def conv(
    net: Net, x: str, name: str, channels: int, c: Convolution, *, pad: int, bias: bool = False
) -> str:
    weights = [net.weight(f"{name}.weight", c.channels, channels, c.side, c.side)]
    if bias:
        weights.append(net.weight(f"{name}.bias", c.channels))
    return net.op(
        "conv", x, *weights, name=name, attrs={"strides": (c.stride, c.stride), "pads": (pad,) * 4}
    )


class Detector(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """SSD (Liu et al. 2016) on a ResNet-34 cut after its third stage, as in MLPerf."""

    size: int
    blocks: list[int]
    widths: list[int]
    strides: list[int]
    extra: list[tuple[int, int, int, int]]  # narrow, wide, stride, pad
    anchors: list[int]
    classes: int
    head_stride: int


def detector_graph(name: str, d: Detector, dtype: DType) -> Graph:
    """The graph with free ``batch``: boxes and scores of every feature map."""
    net = Net(name, dtype)
    x = net.input("image", (symbol("batch"), 3, d.size, d.size))
    x = net.activation(_normed(net, x, "stem", 3, Convolution(64, 7, 2), pad=3), "relu")
    x = net.op(
        "max_pool",
        x,
        name="pool",
        attrs={"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    )
    channels = 64
    for stage, (count, width, stride) in enumerate(zip(d.blocks, d.widths, d.strides, strict=True)):
        for block in range(count):
            with net.scope(f"stage.{stage}.{block}"):
                x, channels = _residual(net, x, channels, width, stride if block == 0 else 1), width
    maps = [(x, channels)]
    for i, (narrow, wide, stride, pad) in enumerate(d.extra):
        x = net.activation(
            conv(net, x, f"extra.{i}.a", channels, Convolution(narrow, 1), pad=0, bias=True), "relu"
        )
        x = net.activation(
            conv(net, x, f"extra.{i}.b", narrow, Convolution(wide, 3, stride), pad=pad, bias=True),
            "relu",
        )
        channels = wide
        maps.append((x, channels))
    outputs = []
    for i, ((y, width), count) in enumerate(zip(maps, d.anchors, strict=True)):
        for what, each in (("boxes", 4), ("scores", d.classes)):
            head = Convolution(count * each, 3, d.head_stride)
            outputs.append(conv(net, y, f"head.{i}.{what}", width, head, pad=1, bias=True))
    return net.graph(*outputs)


def _normed(net: Net, x: str, name: str, channels: int, c: Convolution, *, pad: int) -> str:
    y = conv(net, x, name, channels, c, pad=pad)
    statistics = [
        net.weight(f"{name}.{n}", c.channels) for n in ("scale", "shift", "mean", "variance")
    ]
    return net.op("batch_norm", y, *statistics, name=f"{name}.norm")


def _residual(net: Net, x: str, channels: int, width: int, stride: int) -> str:
    y = net.activation(_normed(net, x, "a", channels, Convolution(width, 3, stride), pad=1), "relu")
    y = _normed(net, y, "b", width, Convolution(width, 3), pad=1)
    if stride != 1 or channels != width:
        x = _normed(net, x, "short", channels, Convolution(width, 1, stride), pad=0)
    return net.activation(net.op("add", x, y, name="add"), "relu")
