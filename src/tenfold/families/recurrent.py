"""Recurrent networks: stacks of LSTM layers, translation with attention, transducers."""

from __future__ import annotations

import msgspec

from tenfold.families.net import Net
from tenfold.ir.dims import Dim, symbol
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Attr, Graph


class Cells(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``layers`` LSTM layers of ``width`` over inputs of ``inputs``, and ``outputs`` dense layers
    of ``width`` x ``dense`` after them.
    """

    layers: int
    width: int
    inputs: int
    dense_layers: int = 0
    dense: int = 0


def cells_graph(name: str, c: Cells, dtype: DType) -> Graph:
    """The graph with free ``batch`` and ``seq`` (steps)."""
    net = Net(name, dtype)
    x = net.input("x", (symbol("seq"), symbol("batch"), c.inputs))
    width = c.inputs
    for layer in range(c.layers):
        x, width = lstm(net, x, f"layer.{layer}", width, c.width), c.width
    for layer in range(c.dense_layers):
        x, width = (
            net.activation(net.linear(x, f"dense.{layer}", width, c.dense, bias=False), "sigmoid"),
            c.dense,
        )
    return net.graph(x)


def lstm(
    net: Net,
    x: str,
    name: str,
    width_in: int,
    width: int,
    *,
    both: bool = False,
    biases: bool = False,
) -> str:
    """An LSTM layer over [seq, batch, width_in]; ``both`` directions side by side."""
    count = 2 if both else 1
    with net.scope(name):
        weights = [
            net.weight("input", count, 4 * width, width_in),
            net.weight("recurrent", count, 4 * width, width),
        ]
        if biases:
            weights.append(net.weight("bias", count, 8 * width))
        attrs: dict[str, Attr] = {
            "hidden_size": width,
            "direction": "bidirectional" if both else "forward",
        }
        y = net.op("lstm", x, *weights, name="lstm", attrs=attrs)
        if not both:
            return net.op("squeeze", y, net.ints("axis", 1), name="out")
        last = net.op("transpose", y, name="order", attrs={"perm": (0, 2, 1, 3)})
        return net.reshape(last, "out", 0, 0, 2 * width)


class Translator(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """GNMT (Wu et al. 2016): a bidirectional layer first, attention to the encoder, its context fed
    to every decoder layer.
    """

    encoder_layers: int
    decoder_layers: int
    width: int
    source_vocabulary: int
    target_vocabulary: int


def translator_graph(name: str, t: Translator, dtype: DType) -> Graph:
    """Teacher-forced translation of ``seq`` tokens into ``seq``, with free ``batch``; weights as
    published.
    """
    net = Net(name, dtype)
    seq, batch, w = symbol("seq"), symbol("batch"), t.width
    x = _embedded(net, "source", (seq, batch), t.source_vocabulary, w)
    width = w
    for layer in range(t.encoder_layers):
        y = lstm(net, x, f"encoder.{layer}", width, w, both=layer == 0, biases=True)
        x = net.op("add", x, y, name=f"encoder.{layer}.add") if layer >= 2 else y
        width = 2 * w if layer == 0 else w
    memory = net.op("transpose", x, name="memory", attrs={"perm": (1, 0, 2)})
    keys = net.linear(memory, "attention.memory", w, w, bias=False)
    y = _embedded(net, "target", (seq, batch), t.target_vocabulary, w)
    context = ""
    for layer in range(t.decoder_layers):
        fed = net.op("concat", y, context or y, name=f"decoder.{layer}.in", attrs={"axis": -1})
        out = lstm(net, fed, f"decoder.{layer}", 2 * w, w, biases=True)
        y = net.op("add", y, out, name=f"decoder.{layer}.add") if layer >= 2 else out
        context = context or _context(net, t, y, keys, memory)
    return net.graph(net.linear(y, "head", w, t.target_vocabulary, bias=False))


def _embedded(net: Net, what: str, shape: tuple[Dim, ...], vocabulary: int, width: int) -> str:
    tokens = net.input(what, shape, DType.I64)
    return net.op(
        "gather",
        net.weight(f"{what}.embedding", vocabulary, width),
        tokens,
        name=f"{what}.embed",
        attrs={"axis": 0},
    )


def _context(net: Net, t: Translator, y: str, keys: str, memory: str) -> str:
    """The encoder's states, weighted for each step of the decoder."""
    first = net.op("transpose", y, name="attention.steps", attrs={"perm": (1, 0, 2)})
    query = net.linear(first, "attention.query", t.width, t.width, bias=False)
    attrs: dict[str, Attr] = {"q_num_heads": 1, "kv_num_heads": 1}
    mixed = net.op("attention", query, keys, memory, name="attention.attend", attrs=attrs)
    return net.op("transpose", mixed, name="attention.context", attrs={"perm": (1, 0, 2)})


class Transducer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """RNN-T (Graves 2012) as in MLPerf: an encoder that stacks time twice, a prediction network, a
    joint of both.
    """

    inputs: int
    before: int  # encoder layers before time is stacked
    after: int
    stacking: int
    width: int
    prediction_layers: int
    prediction_width: int
    joint: int
    characters: int  # blank included


def transducer_graph(name: str, t: Transducer, dtype: DType) -> Graph:
    """The encoder over ``seq`` frames and, for each stacked frame, one step of prediction and
    joint.
    """
    net = Net(name, dtype)
    batch, seq = symbol("batch"), symbol("seq")
    x = net.input("frames", (seq * t.stacking, batch, t.inputs))
    width = t.inputs
    for layer in range(t.before):
        x, width = lstm(net, x, f"encoder.{layer}", width, t.width, biases=True), t.width
    batch_first = net.op("transpose", x, name="stack.batch", attrs={"perm": (1, 0, 2)})
    stacked = net.reshape(batch_first, "stack", 0, -1, t.stacking * t.width)
    x, width = (
        net.op("transpose", stacked, name="stack.time", attrs={"perm": (1, 0, 2)}),
        t.stacking * t.width,
    )
    for layer in range(t.before, t.before + t.after):
        x, width = lstm(net, x, f"encoder.{layer}", width, t.width, biases=True), t.width
    y = _embedded(net, "characters", (seq, batch), t.characters - 1, t.prediction_width)
    for layer in range(t.prediction_layers):
        y = lstm(net, y, f"prediction.{layer}", t.prediction_width, t.prediction_width, biases=True)
    both = net.op("concat", x, y, name="joint.in", attrs={"axis": -1})
    h = net.activation(
        net.linear(both, "joint", t.width + t.prediction_width, t.joint, bias=True), "relu"
    )
    return net.graph(net.linear(h, "joint.out", t.joint, t.characters, bias=True))
