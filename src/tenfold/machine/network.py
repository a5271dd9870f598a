"""What a machine needs to know of the links to other chips: what doing something together takes."""

from __future__ import annotations

from typing import Protocol

from tenfold.estimate import Estimate
from tenfold.machine.kernel import Together


class Network(Protocol):
    """The links of the chips that run a program's parts."""

    def seconds(self, what: Together) -> Estimate:
        """From the first chip's start to the last one's end.

        Raises InputError for chips that are not joined so.
        """
