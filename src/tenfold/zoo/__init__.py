"""Models by name: architectures as data files, built by their families, and the CNNs whose files
ship inside ``onnx``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from tenfold import units
from tenfold.errors import DataFileError, InputError, UnknownName
from tenfold.facts import Status, convert, read_file
from tenfold.families import FAMILIES, build
from tenfold.importers import load_onnx
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph
from tenfold.units import Dimension

DATA = Path(__file__).parent / "data"


class _Count(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    value: str
    status: Status
    source: str


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    family: str
    dtype: str
    parameters: _Count
    shape: dict[str, Any]
    active_parameters: _Count | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A model by name: its family, where it was published, and what was published of its size.

    ``published`` are the parameters as printed, ``active`` those that one token passes, None where
    all do.
    """

    name: str
    family: str
    source: str
    status: Status
    note: str
    published: float | None
    active: float | None
    dtype: DType
    path: Path | None
    shape: msgspec.Struct | None

    def graph(self, phase: str | None = None) -> Graph:
        """Its graph with free dimensions. Raises InputError for a phase that it does not have."""
        if self.path is not None:
            if phase not in (None, "forward"):
                raise InputError(
                    f"{self.name} has no phase '{phase}': it does not generate token by token, only"
                    " forward"
                )
            return load_onnx(self.path)
        assert self.shape is not None
        return build(self.name, self.family, self.shape, phase, self.dtype)


def _cnn(name: str, file: str, source: str) -> ZooModel:
    import onnx

    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{file}.onnx"
    return ZooModel(
        name=name,
        family="cnn",
        source=source,
        status=Status.VERIFIED,
        note="",
        published=None,
        active=None,
        dtype=DType.F32,
        path=path,
        shape=None,
    )


def _from_file(path: Path) -> ZooModel:
    try:
        file = read_file(path, _File)
        if file.family not in FAMILIES:
            raise UnknownName("family", file.family, FAMILIES)
        shape = convert(file.shape, FAMILIES[file.family].shape)
        counts = [
            units.parse(c.value, Dimension.COUNT)
            for c in (file.parameters, file.active_parameters)
            if c
        ]
        if file.dtype not in set(DType):
            raise UnknownName("dtype", file.dtype, list(DType))
        dtype = DType(file.dtype)
    except DataFileError:
        raise
    except (ValueError, InputError) as error:
        raise DataFileError(f"{path.name}: {error}") from error
    if path.stem != file.name:
        raise DataFileError(
            f"{path.name}: the model is named '{file.name}', the file must be '{file.name}.toml'"
        )
    published, active = counts[0], counts[1] if len(counts) > 1 else None
    return ZooModel(
        name=file.name,
        family=file.family,
        source=file.parameters.source,
        status=file.parameters.status,
        note=file.note,
        published=published,
        active=active,
        dtype=dtype,
        path=None,
        shape=shape,
    )


_CNNS = (
    ("alexnet", "bvlc_alexnet", "Krizhevsky, Sutskever, Hinton, NIPS 2012"),
    ("densenet121", "densenet121", "Huang et al., CVPR 2017"),
    ("inception-v1", "inception_v1", "Szegedy et al., CVPR 2015"),
    ("inception-v2", "inception_v2", "Ioffe, Szegedy, ICML 2015"),
    ("resnet50", "resnet50", "He et al., CVPR 2016"),
    ("shufflenet", "shufflenet", "Zhang et al., CVPR 2018"),
    ("squeezenet", "squeezenet", "Iandola et al., 2016"),
    ("vgg19", "vgg19", "Simonyan, Zisserman, ICLR 2015"),
    ("zfnet512", "zfnet512", "Zeiler, Fergus, ECCV 2014"),
)

NAMES: tuple[str, ...] = tuple(
    sorted([*(n for n, _, _ in _CNNS), *(p.stem for p in DATA.glob("*.toml"))])
)
_FILES: Mapping[str, tuple[str, str]] = MappingProxyType({n: (f, s) for n, f, s in _CNNS})


@lru_cache(maxsize=256)
def model(name: str) -> ZooModel:
    """The model called ``name``. Raises UnknownName with the nearest names."""
    if name not in NAMES:
        raise UnknownName(
            "model", name, NAMES, "(or give the path of an .onnx file or a config.json)"
        )
    return _cnn(name, *_FILES[name]) if name in _FILES else _from_file(DATA / f"{name}.toml")
