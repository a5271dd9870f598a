"""The fields of a Hugging Face configuration, read with type, range and default."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tenfold.errors import ModelError

LARGEST = 1 << 24  # bytes of a configuration file; real ones have a few thousand


_FUNCTIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_python": "gelu",
}  # fmt: skip


_PART = re.compile(r"(For[A-Z]\w*|Heads?|Encoder|Decoder|Vision|With\w+)$")


class Config:
    """The fields of a configuration, read with type, range and default."""

    def __init__(self, where: str, fields: Mapping[str, Any]) -> None:
        self.where, self.fields = where, fields

    def number(self, name: str, default: int | None, least: int = 1) -> int:
        """A whole number; a null field and a missing one take the default. Raises ModelError naming
        the field.
        """
        value = self.fields.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 40:
            raise ModelError(
                f"{self.where}: '{name}' must be a whole number of at least {least}, found"
                f" {value!r}"
            )
        return value

    def real(self, name: str, default: float, above: float = -1.0) -> float:
        value = self.fields.get(name)
        value = default if value is None else value
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value < 1e12
            or value <= above
        ):
            least = "above 0" if above == 0 else "of at least 0"
            raise ModelError(f"{self.where}: '{name}' must be a number {least}, found {value!r}")
        return float(value)

    def if_any(self, name: str, default: float) -> float:
        """A number, 0 where the field is null."""
        return (
            0.0 if name in self.fields and self.fields[name] is None else self.real(name, default)
        )

    def flag(self, name: str, default: bool) -> bool:
        value = self.fields.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: '{name}' must be true or false, found {value!r}")
        return value

    def side(self, name: str, default: int) -> int:
        """The side of a square, which some files give twice."""
        value = self.fields.get(name)
        twice = isinstance(value, list) and len(value) == 2 and value[0] == value[1]
        return (
            Config(self.where, {name: value[0]}).number(name, default)
            if twice and value
            else self.number(name, default)
        )

    def architecture(self, *known: str) -> str:
        """The end of the class that ``architectures`` names, one of ``known``; "" where it names
        none. Raises ModelError for another: it would be another network.
        """
        given = self.fields.get("architectures")
        if given is None or given == []:
            return ""
        if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], str):
            raise ModelError(
                f"{self.where}: 'architectures' must name one class, found {str(given)[:80]}"
            )
        endings = sorted(known, key=len, reverse=True)
        for end in endings:
            stem = given[0].removesuffix(end)
            # LMHeadModel or EncoderModel are no plain Model
            if stem != given[0] and stem and not _PART.search(stem):
                return end
        raise ModelError(
            f"{self.where}: 'architectures' is {given[0]!r}: read are classes that end in"
            f" {', '.join(known)}"
        )

    def labels(self) -> int:
        """How many classes are told apart."""
        labels = self.fields.get("id2label")
        return len(labels) if isinstance(labels, dict) and labels else self.number("num_labels", 2)

    def function(self, name: str, default: str) -> Any:
        value = self.fields.get(name) or default
        if not isinstance(value, str) or value not in _FUNCTIONS:
            raise ModelError(
                f"{self.where}: '{name}' is {value!r}: known are {', '.join(_FUNCTIONS)}"
            )
        return _FUNCTIONS[value]

    def theta(self, default: float = 10000.0) -> float:
        """``rope_theta``, which version 5 of the library keeps in ``rope_parameters``."""
        nested = self.fields.get("rope_parameters")
        return (
            Config(self.where, nested).real("rope_theta", default, 0)
            if isinstance(nested, dict)
            else self.real("rope_theta", default, 0)
        )

    def windows(
        self,
        default: int | None,
        windowed: Callable[[int], bool],
        layers: int = 32,
        used: bool = True,
    ) -> tuple[int, ...]:
        """The sliding window of each layer, 0 where it sees everything: by ``layer_types``, else
        where ``windowed`` says.

        A ``sliding_window`` of null is none; a missing one is the ``default``.
        """
        size = (
            self.number("sliding_window", default)
            if self.fields.get("sliding_window", default) is not None
            else 0
        )
        layers, kinds = self.number("num_hidden_layers", layers), self.fields.get("layer_types")
        if kinds is None:
            return tuple(size if used and windowed(i) else 0 for i in range(layers)) if size else ()
        known = ("sliding_attention", "full_attention")
        if (
            not isinstance(kinds, list)
            or len(kinds) != layers
            or any(k not in known for k in kinds)
        ):
            raise ModelError(
                f"{self.where}: 'layer_types' must list {layers} of {', '.join(known)}, found"
                f" {str(kinds)[:80]}"
            )
        return tuple(size if k == known[0] else 0 for k in kinds)
