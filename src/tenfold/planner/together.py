"""How many chips run a model together where one does not hold it: the fewest that do, of one box or
one part of a torus, every layer shared.
"""

from __future__ import annotations

from collections.abc import Iterator

from tenfold.chips import Chip
from tenfold.cluster import Shape, topology_of
from tenfold.errors import InputError

MOST = 64  # chips that share every layer: beyond it all of a layer's time is links (assumed)
ROOM = 0.95  # of the memory that weights may take, for the guess before anything is compiled


def most_together(chip: Chip) -> int:
    """Chips of one innermost level; 1 where nobody knows how they are joined."""
    try:
        level = topology_of(chip).levels[0]
    except InputError:
        return 1
    return min(level.members, MOST)


def groups(chip: Chip, held_bytes: float) -> Iterator[int]:
    """Numbers of chips to try, the fewest that may hold ``held_bytes`` first; one alone where one
    does, none where none do.
    """
    room = chip.memory_bytes
    if room is None or held_bytes <= room:
        yield 1
        if room is None or held_bytes <= ROOM * room:
            return
    most = most_together(chip)
    if most == 1:
        return
    torus = topology_of(chip).levels[0].shape is Shape.TORUS
    for n in range(2, most + 1):
        # of a box powers of two; of a torus also what has a factor of three
        likely = n & (n - 1) == 0 or (torus and n % 3 == 0 and (n // 3) & (n // 3 - 1) == 0)
        if likely and room is not None and held_bytes <= n * ROOM * room:
            yield n
