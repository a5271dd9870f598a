"""Every error that Tenfold raises on purpose.

TenfoldError
├── InputError            what the user gave cannot be used (exit 2 on the command line)
│   ├── UnknownName       no such chip, model, region, op …, with the nearest names
│   ├── ModelError        the model file is broken or contradicts itself
│   ├── UnitError         a quantity without, or with a wrong, unit
│   ├── DataFileError     a data file (chip, price, grid) is malformed
│   ├── UnsupportedDType  the chip cannot compute in that dtype
│   ├── FixedBatch        the model has a batch of its own
│   └── DoesNotFit        the model needs more memory than the chip has
└── MissingFigure         a published figure that this result needs does not exist

Messages say what was found, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_MESSAGE = 600


class TenfoldError(Exception):
    """Base of all errors that Tenfold raises on purpose. The message is one line, whatever names it
    quotes.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(
            line
            if len(line) <= LONGEST_MESSAGE
            else f"{line[: LONGEST_MESSAGE - 20]} … {line[-17:]}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """So that workers of other processes can send it: its message is all of it."""
        return _again, (type(self), str(self), dict(self.__dict__))


def _again(kind: type[TenfoldError], message: str, fields: dict[str, object]) -> TenfoldError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(fields)
    return error


class InputError(TenfoldError):
    """What the user gave cannot be used."""


class UnknownName(InputError):
    """A name that is in no catalogue; the message lists the nearest known ones."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        by_lower = {n.lower(): n for n in names}
        near = [
            by_lower[m] for m in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)
        ]
        more = f" … and {len(names) - 12} more" if len(names) > 12 else ""
        meant = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"known: {', '.join(names[:12])}{more}"
        )
        super().__init__(f"unknown {what} '{name}': {meant}{' ' + hint if hint else ''}")
        self.name = name
        self.nearest = tuple(near)


class ModelError(InputError):
    """The model file is broken, incomplete, or contradicts itself."""


class UnitError(InputError):
    """A quantity without a unit, with an unknown one, or of the wrong dimension."""


class DataFileError(InputError):
    """A data file is malformed: unknown field, wrong type, failed self-check."""


class UnsupportedDType(InputError):
    """The chip has no arithmetic for the dtype."""


class FixedBatch(InputError):
    """The model has a batch of its own, and another was asked for."""


class DoesNotFit(InputError):
    """The model needs more memory than the chip has."""

    def __init__(self, model: str, needed_bytes: float, chip: str, have_bytes: float) -> None:
        super().__init__(
            f"{model} needs {needed_bytes / 1e9:.3f} GB (weights and largest live activations),"
            f" {chip} has {have_bytes / 1e9:.3f} GB: use a smaller batch, a narrower dtype or"
            " another chip"
        )
        self.needed_bytes = needed_bytes
        self.have_bytes = have_bytes


class MissingFigure(TenfoldError):
    """A result needs a figure that nobody published and that cannot be derived."""
