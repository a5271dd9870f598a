"""A deadline for runs of ONNX Runtime: a loop in a model may never end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, final

LONGEST_RUN_S = 60.0  # of one run, unless more is asked for
LOOK_S = 0.5  # between two looks


@final
class Watch:
    """Ends runs that take longer than ``longest_s``: one thread for all, asleep while nothing
    runs.
    """

    def __init__(self, longest_s: float) -> None:
        self.longest_s = longest_s
        self._running: dict[int, tuple[float, Any]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    @property
    def endless(self) -> str:
        """What to say of a run that was ended."""
        return (
            f"did not come to an end within {self.longest_s:g} s: only a model that does can be"
            " measured (a loop may be without end on the inputs that are drawn)"
        )

    @contextmanager
    def over(self, options: Any) -> Iterator[None]:
        """Sets ``options.terminate``, which ONNX Runtime reads between nodes, when time is up."""
        with self._lock:
            self._running[id(options)] = (time.monotonic() + self.longest_s, options)
        self._wake.set()
        try:
            yield
        finally:
            with self._lock:
                del self._running[id(options)]

    def _look(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(min(LOOK_S, self.longest_s))
            with self._lock:
                for until, options in self._running.values():
                    if time.monotonic() > until:
                        options.terminate = True
                if not self._running:
                    self._wake.clear()


@lru_cache(maxsize=8)
def watch(longest_s: float) -> Watch:
    """The watch over all runs of a limit: its thread lasts as long as the process."""
    return Watch(longest_s)
