"""What of one kernel's results the next ones still find in L2.

A cache keeps what was touched last (Mattson et al. 1970: a buffer is still there when the bytes
touched since, its own included, fit). Of L2 a share counts, since results are written through it
too and its two halves hold copies. Weights are read from memory in every pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tenfold.machine.kernel import Kernel, Moved, Role

SHARE = 0.5  # of L2 (assumed)


def through_cache(kernels: Iterable[Kernel], l2_bytes: float) -> Iterator[Kernel]:
    """The kernels with what they find in L2 moved near, in the order in which they run."""
    room = SHARE * l2_bytes
    written: dict[str, tuple[float, int]] = {}  # where in the stream of bytes, and how many
    at = 0.0
    for kernel in kernels:
        read, wrote = (
            float(sum(o.bytes for o in kernel.operands if (o.role is Role.OUTPUT) is made))
            for made in (False, True)
        )
        found = 0
        for o in kernel.operands:
            if o.role is Role.INPUT and o.name in written:
                end, size = written[o.name]
                if kernel.repeat == 1 and at - end + size <= room:
                    found += o.bytes
                written[o.name] = (at + read, size)
        at += (read + wrote) * kernel.repeat
        written |= {o.name: (at, o.bytes) for o in kernel.operands if o.role is Role.OUTPUT}
        yield _found(kernel, found) if found else kernel


def _found(kernel: Kernel, found: int) -> Kernel:
    far, near = kernel.traffic.off_chip, kernel.traffic.near
    found = min(found, far.inputs)
    traffic = replace(
        kernel.traffic,
        off_chip=replace(far, inputs=far.inputs - found),
        near=Moved(near.weights, near.inputs + found, near.outputs),
    )
    return replace(kernel, traffic=traffic)


def warm(kernel: Kernel, l2_bytes: float) -> Kernel:
    """The kernel with what it reads in L2 from the call before, where all that it touches fits."""
    far = kernel.traffic.off_chip
    if far.total > SHARE * l2_bytes:
        return kernel
    near = Moved(weights=far.weights, inputs=far.inputs)
    return replace(
        kernel, traffic=replace(kernel.traffic, off_chip=Moved(outputs=far.outputs), near=near)
    )
