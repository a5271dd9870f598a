"""Models by name: for now the CNNs whose ONNX graphs ship inside the ``onnx`` package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tenfold.errors import UnknownName


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A model by name: its family, where it was published, and the file that holds its graph."""

    name: str
    family: str
    source: str
    file: str

    @property
    def path(self) -> Path:
        import onnx

        return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / self.file


def _cnn(name: str, file: str, source: str) -> tuple[str, ZooModel]:
    return name, ZooModel(name, "cnn", source, f"light_{file}.onnx")


MODELS: Mapping[str, ZooModel] = MappingProxyType(
    dict(
        (
            _cnn("alexnet", "bvlc_alexnet", "Krizhevsky, Sutskever, Hinton, NIPS 2012"),
            _cnn("densenet121", "densenet121", "Huang et al., CVPR 2017"),
            _cnn("inception-v1", "inception_v1", "Szegedy et al., CVPR 2015"),
            _cnn("inception-v2", "inception_v2", "Ioffe, Szegedy, ICML 2015"),
            _cnn("resnet50", "resnet50", "He et al., CVPR 2016"),
            _cnn("shufflenet", "shufflenet", "Zhang et al., CVPR 2018"),
            _cnn("squeezenet", "squeezenet", "Iandola et al., 2016"),
            _cnn("vgg19", "vgg19", "Simonyan, Zisserman, ICLR 2015"),
            _cnn("zfnet512", "zfnet512", "Zeiler, Fergus, ECCV 2014"),
        )
    )
)


def model(name: str) -> ZooModel:
    """The model called ``name``. Raises UnknownName with the nearest names."""
    if name not in MODELS:
        raise UnknownName("model", name, MODELS, "(or give the path of an .onnx file)")
    return MODELS[name]
