"""The model's door: from a path or a name to a graph, and to one for a choice of sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tenfold import zoo
from tenfold.errors import FixedBatch, InputError, ModelError
from tenfold.families import FAMILIES
from tenfold.importers import config_generates, load_config, load_onnx
from tenfold.ir.binding import bind, with_values
from tenfold.ir.dims import symbols_of
from tenfold.ir.graph import Array, Graph, Value

# Free dimensions that the user says nothing of: the first of these that the model accepts.
SEQUENCES = (128, 512, 1024, 16000)
IMAGES = ((224, 224), (48, 320), (32, 320), (64, 256), (512, 512), (640, 640))
STATES = ("state", "hidden", "h", "c", "h0", "c0")  # recurrent states are [layers, batch, width]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the user wants of the free dimensions; None means the first default that the model
    accepts. ``named`` are others by name, extents that depend on data among them, and ``values``
    the contents of inputs that decide sizes.
    """

    batch: int = 1
    seq: int | None = None
    height: int | None = None
    width: int | None = None
    named: tuple[tuple[str, int], ...] = ()
    values: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def at(self, batch: int) -> Sizes:
        return replace(self, batch=batch)


def load(model: str | Path, phase: str | None = None) -> Graph:
    """The graph of an ONNX file, of a Hugging Face ``config.json`` (or the folder it is in), or of
    a zoo model.

    ``phase`` is forward, prefill or decode, for networks that generate token by token. Raises
    UnknownName for a name that is none of them, ModelError for a broken file, InputError for a
    phase that it does not have.
    """
    path = Path(model)
    if len(str(model)) > 1024:
        raise InputError(
            f"'{str(model)[:60]}…' is no path and no name of a model: it has {len(str(model)):,}"
            " characters"
        )
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    if path.suffix not in (".onnx", ".json") and not path.exists():
        return zoo.model(str(model)).graph(phase)
    if path.is_dir():
        raise InputError(
            f"the folder '{model}' holds no config.json: give an .onnx file, a config.json or a"
            " name from `tenfold models`"
        )
    if not path.is_file():
        raise InputError(
            f"there is no file '{model}': give the path of an .onnx file or a config.json, or a"
            " name from `tenfold models`"
        )
    if path.suffix == ".json":
        return load_config(path, phase)
    if phase not in (None, "forward"):
        raise InputError(
            f"an ONNX file has no phase '{phase}', only forward: what it computes is what is in it"
        )
    return load_onnx(path)


def generates(model: str | Path) -> bool:
    """Whether a model that ``load`` takes generates token by token. An ONNX file does not say."""
    path = Path(model)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json":
        return config_generates(path)
    if path.suffix == ".onnx" or path.exists():
        return False
    found = zoo.model(str(model))
    return found.path is None and FAMILIES[found.family].generates


def roles(graph: Graph) -> dict[str, str]:
    """What each free dimension of the inputs is: batch, seq, height, width, or other.

    The first axis is the batch, unless it is named after length or time; the spatial axes of a
    rank-4 float input are height and width; an axis named after length or time, or the second one,
    is the sequence.
    """
    found: dict[str, str] = {}
    # names alone first: an expression (2*batch) does not say what its parts are
    for alone in (True, False):
        for name in graph.inputs:
            _find_roles(graph.values[name], found, alone=alone)
    return found


def _find_roles(value: Value, found: dict[str, str], *, alone: bool) -> None:
    shape = value.shape or ()
    image = len(shape) == 4 and value.dtype.is_float
    last = (
        len(shape) == 4
        and isinstance(shape[3], int)
        and shape[3] in (1, 3, 4)
        and not isinstance(shape[1], int)
    )
    state = len(shape) == 3 and value.name.lower() in STATES
    for axis, d in enumerate(shape):
        if isinstance(d, int) or d.is_Symbol != alone:
            continue
        for s in sorted(symbols_of(d)):
            role = _role(s, axis, image, channels_last=last)
            found.setdefault(s, "batch" if state and axis == 1 else role)


def _role(name: str, axis: int, image: bool, *, channels_last: bool) -> str:
    low = name.lower()
    ordered = any(w in low for w in ("seq", "len", "time", "samples", "frames", "step"))
    if "batch" in low or low == "n" or (axis == 0 and not ordered):
        return "batch"
    if ordered:
        return "seq"
    if image and axis == (1 if channels_last else 2):
        return "height"
    if image and axis == (2 if channels_last else 3):
        return "width"
    return "seq" if axis == 1 or not image else "other"


def candidates(graph: Graph, wanted: Sizes) -> Iterator[dict[str, int]]:
    """Sizes for all free dimensions of ``graph``, what the user left open varied over the defaults.

    Raises InputError for a size below 1, or one that the model has no dimension for.
    """
    for name, size in (
        ("batch", wanted.batch),
        ("seq", wanted.seq),
        ("height", wanted.height),
        ("width", wanted.width),
    ):
        if size is not None and size < 1:
            raise InputError(f"{name} must be at least 1, got {size}")
    kinds = roles(graph)
    for name in ("seq", "height", "width"):
        if getattr(wanted, name) is not None and name not in kinds.values():
            raise InputError(
                f"the model has no free {name}: its free dimensions are"
                f" {', '.join(graph.symbols) or 'none'}"
            )
    named = {n: size for n, size in wanted.named if n in kinds}
    seen: list[dict[str, int]] = []
    for height, width in IMAGES:
        for seq in SEQUENCES:
            values = {
                "batch": wanted.batch,
                "seq": wanted.seq or seq,
                "height": wanted.height or height,
                "width": wanted.width or width,
                "other": 1,
            }
            sizes = {name: values[kind] for name, kind in kinds.items()} | named
            if "batch" not in kinds.values() and wanted.batch != 1:
                sizes["batch"] = wanted.batch
            if sizes not in seen:
                seen.append(sizes)
                yield sizes


@dataclass(frozen=True, slots=True)
class Bound:
    """A graph for one choice of sizes, ready for any chip."""

    graph: Graph
    batch: int
    sizes: Mapping[str, int]


def fixed_batch(graph: Graph) -> int:
    """The batch that a file fixes for all of its inputs, where that is above 1; else 1."""
    if "batch" in roles(graph).values():
        return 1
    shapes = [graph.values[n].shape or () for n in graph.inputs]
    firsts = {s[0] for s in shapes if len(s) > 1}
    (first,) = firsts if len(firsts) == 1 else (1,)
    return first if isinstance(first, int) else 1


def prepare(graph: Graph, wanted: Sizes) -> Bound:
    """``graph`` bound to what the user wants, open sizes at the first defaults that the model
    accepts.

    A batch that the file fixes is the batch. Raises InputError for sizes the model has not,
    FixedBatch for another batch than its own, ModelError where it accepts none.
    """
    fixed = fixed_batch(graph)
    if fixed > 1:
        if wanted.batch not in (1, fixed):
            raise FixedBatch(
                f"the model's batch is fixed at {fixed}, got {wanted.batch}: leave the batch out"
            )
        return replace(_prepared(graph, wanted.at(1)), batch=fixed)
    return _prepared(graph, wanted)


def _prepared(graph: Graph, wanted: Sizes) -> Bound:
    graph, bounds = _decided(graph, wanted)
    first: ModelError | None = None
    for sizes in candidates(graph, wanted):
        try:
            bound = bind(graph, sizes, assume_bounds=True, bounds=bounds)
        except ModelError as error:
            first = first or error
        else:
            return Bound(bound, wanted.batch, {**sizes, **bounds})
    assert first is not None
    raise first


# what extents that depend on data are called
_OF_DATA = re.compile(r"^v\d+_|\.trips$")
MOST_VALUES = 16  # numbers of an input whose content can be given


def _decided(graph: Graph, wanted: Sizes) -> tuple[Graph, dict[str, int]]:
    """``graph`` with the contents of inputs that were given, and bounds for extents that depend on
    data. A name is a free dimension, else an input, else such an extent.
    """
    kinds = roles(graph)
    values: dict[str, Array] = {}
    bounds: dict[str, int] = {}
    for name, numbers in (
        *((n, (float(size),)) for n, size in wanted.named if n not in kinds),
        *wanted.values,
    ):
        if name in graph.inputs:
            values[name] = _content(graph, name, numbers)
        elif len(numbers) == 1:
            if not _OF_DATA.search(name):
                raise InputError(
                    f"the model has no free dimension '{name}': it has"
                    f" {', '.join(graph.symbols) or 'none'}; and no input of that name"
                )
            bounds[name] = int(numbers[0])
        else:
            raise InputError(
                f"the model has no input '{name}': it has {', '.join(graph.inputs) or 'none'}"
            )
    return (with_values(graph, values) if values else graph), bounds


def _content(graph: Graph, name: str, numbers: tuple[float, ...]) -> Array:
    value = graph.values[name]
    if not (value.dtype.is_float or value.dtype.numpy.kind in "iu") or len(numbers) > MOST_VALUES:
        raise InputError(
            f"the content of input '{name}' ({value.dtype}) cannot be given in words: allowed are"
            f" up to {MOST_VALUES} numbers for an input of numbers"
        )
    return np.asarray(numbers, np.float64)
