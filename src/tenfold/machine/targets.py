"""The machine of a chip."""

from __future__ import annotations

from typing import assert_never

from tenfold.chips import Chip, Kind
from tenfold.errors import InputError
from tenfold.machine.gpu.target import Gpu
from tenfold.machine.host.target import Host
from tenfold.machine.plain.target import Plain
from tenfold.machine.stack import Stack
from tenfold.machine.systolic.target import Systolic
from tenfold.machine.target import Target


def target_of(chip: Chip, stack: Stack = Stack.ENGINE, *, flash: bool = False) -> Target:
    """The chip as its kind of machine, driven by ``stack``, on a GPU with each attention in one
    kernel where ``flash`` says so. Raises InputError for one that is only
    listed, and for a stack of GPUs on another kind.
    """
    if stack is not Stack.ENGINE and chip.kind is not Kind.GPU:
        raise InputError(
            f"the stack '{stack}' is one of GPUs: {chip.name} is driven by its maker's compiler or"
            " runtime, so leave --stack out"
        )
    match chip.kind:
        case Kind.SYSTOLIC:
            return Systolic(chip)
        case Kind.GPU:
            return Gpu(chip, stack, flash)
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
