"""Whole models as eager PyTorch runs them: the same layers as the zoo's of these names."""

from __future__ import annotations

from typing import Any

from tenfold.calibration import Forward
from tenfold.machine import Stack

MODELS: tuple[Forward, ...] = tuple(
    Forward(model, batch, seq, dtype, stack)
    for stack in (Stack.EAGER, Stack.COMPILED)
    for model, batches, seq in (("bert-base", (1, 8), 384), ("resnet50", (1, 32), None))
    for batch in batches
    for dtype in ("fp16", "fp32")
)


def module(torch: Any, name: str) -> Any:
    """The network of this name, its weights as they are drawn."""
    return {"bert-base": _bert, "resnet50": _resnet}[name](torch)


def inputs(torch: Any, what: Forward, device: str, dtype: Any) -> Any:
    """What the network reads: token numbers, or images."""
    if what.seq is not None:
        return torch.randint(0, _WORDS, (what.batch, what.seq), device=device)
    return torch.randn(what.batch, 3, 224, 224, device=device).to(dtype)


_WORDS, _WIDTH, _INNER, _HEADS, _LAYERS = 30522, 768, 3072, 12, 12


def _bert(torch: Any) -> Any:
    """Devlin et al. 2018, base: attention as products and a softmax, as ``eager`` means it."""
    nn = torch.nn

    class Layer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(_WIDTH, _WIDTH) for _ in range(4))
            self.up, self.down = nn.Linear(_WIDTH, _INNER), nn.Linear(_INNER, _WIDTH)
            self.first, self.second = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)

        def forward(self, x: Any) -> Any:
            b, s, _ = x.shape
            q, k, v = (
                f(x).view(b, s, _HEADS, _WIDTH // _HEADS).transpose(1, 2)
                for f in (self.q, self.k, self.v)
            )
            scores = torch.matmul(q, k.transpose(-1, -2)) / (_WIDTH // _HEADS) ** 0.5
            mixed = torch.matmul(torch.softmax(scores, -1), v).transpose(1, 2).reshape(b, s, -1)
            x = self.first(x + self.o(mixed))
            return self.second(x + self.down(nn.functional.gelu(self.up(x))))

    class Bert(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(_WORDS, _WIDTH), nn.Embedding(512, _WIDTH)
            self.norm = nn.LayerNorm(_WIDTH)
            self.layers = nn.ModuleList(Layer() for _ in range(_LAYERS))

        def forward(self, tokens: Any) -> Any:
            x = self.norm(self.words(tokens) + self.places.weight[: tokens.shape[1]])
            for layer in self.layers:
                x = layer(x)
            return x

    return Bert()


_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def _resnet(torch: Any) -> Any:
    """He et al. 2015, 50 layers; the stride is in the 3 x 3 convolution, as MLPerf has it."""
    nn = torch.nn

    def conv(inner: int, outer: int, side: int, stride: int = 1) -> Any:
        layer = nn.Conv2d(inner, outer, side, stride, side // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outer))

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inner: int, width: int, stride: int) -> None:
            super().__init__()
            self.one, self.two = conv(inner, width, 1), conv(width, width, 3, stride)
            self.three = conv(width, 4 * width, 1)
            same = stride == 1 and inner == 4 * width
            self.past = nn.Identity() if same else conv(inner, 4 * width, 1, stride)

        def forward(self, x: Any) -> Any:
            relu = nn.functional.relu
            return relu(self.three(relu(self.two(relu(self.one(x))))) + self.past(x))

    blocks, inner = [], 64
    for width, count, stride in _STAGES:
        for i in range(count):
            blocks.append(Block(inner, width, stride if i == 0 else 1))
            inner = 4 * width
    stem = (conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 1000))
    return nn.Sequential(*stem, *blocks, *head)
