"""The machine of a chip."""

from __future__ import annotations

from typing import assert_never

from tenfold.chips import Chip, Kind
from tenfold.errors import InputError
from tenfold.machine.gpu.target import Gpu
from tenfold.machine.host.target import Host
from tenfold.machine.plain.target import Plain
from tenfold.machine.systolic.target import Systolic
from tenfold.machine.target import Target


def target_of(chip: Chip) -> Target:
    """The chip as its kind of machine. Raises InputError for one that is only listed."""
    match chip.kind:
        case Kind.SYSTOLIC:
            return Systolic(chip)
        case Kind.GPU:
            return Gpu(chip)
        case Kind.HOST:
            return Host(chip)
        case Kind.ROOFLINE:
            return Plain(chip)
        case Kind.LISTED:
            raise InputError(
                f"{chip.name} is listed for its figures only: there is no machine model of it"
            )
        case _:
            assert_never(chip.kind)
