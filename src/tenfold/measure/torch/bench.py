"""Timing calls through PyTorch: on a GPU inside a captured graph, so that no launch counts.

Cold is the difference between a graph that also sweeps the cache before each call and one that only
sweeps. On a processor, which stands in where there is no GPU, calls are timed one after the other.
"""

from __future__ import annotations

import importlib
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from tenfold.errors import InputError

LONGEST_S = 0.3  # that one call is repeated
ROUNDS = 5  # of which the median counts
MOST_CALLS = 200  # in a graph
SWEPT_BYTES = 512 << 20  # twice the largest cache of the catalogue, MI300X's of 256 MiB
WATCHED_S = 1.5  # that a call is repeated while power and clock are read


class Place(StrEnum):
    """Where PyTorch computes."""

    CUDA = "cuda"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Mean watts and clock while a call was repeated."""

    power_w: float
    clock_hz: float


@dataclass(frozen=True, slots=True)
class Bench:
    """PyTorch at a place, and what is known of it; ``tells_power`` where the driver does."""

    torch: Any
    place: Place
    card: str
    versions: str
    tells_power: bool = False

    def seconds(self, call: Callable[[], Any], *, warm: bool) -> float:
        """Of one call, the median of several rounds."""
        with self.torch.no_grad():
            match self.place:
                case Place.CUDA:
                    return self._in_graphs(call, warm=warm)
                case Place.CPU:
                    return _one_by_one(call)
                case _:
                    assert_never(self.place)

    def _in_graphs(self, call: Callable[[], Any], *, warm: bool) -> float:
        once = self._graph([call], 3)
        count = max(1, min(MOST_CALLS, int(LONGEST_S / ROUNDS / max(once, 1e-7))))
        if warm:
            return self._graph([call], count)
        swept = self.torch.empty(SWEPT_BYTES, dtype=self.torch.uint8, device=self.place.value)

        def sweep() -> None:
            swept.add_(1)

        count = min(count, 50)
        both, only = self._graph([sweep, call], count), self._graph([sweep], count)
        return max(both - only, once)  # a cold call is no faster than a warm one

    def _graph(self, calls: list[Callable[[], Any]], count: int) -> float:
        """Seconds of one round of ``calls`` in a graph of ``count`` such rounds."""
        cuda = self.torch.cuda
        for c in calls:
            c()
        cuda.synchronize()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            for _ in range(count):
                for c in calls:
                    c()
        graph.replay()
        taken = []
        for _ in range(ROUNDS):
            start, end = (cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            cuda.synchronize()
            taken.append(start.elapsed_time(end) * 1e-3 / count)
        return statistics.median(taken)

    def wall(self, call: Callable[[], Any]) -> float:
        """Of a whole model: from the host's call to the end of the GPU's work."""

        def whole() -> None:
            call()
            if self.place is Place.CUDA:
                self.torch.cuda.synchronize()

        with self.torch.no_grad():
            return _one_by_one(whole)

    def drawn(self, call: Callable[[], Any]) -> Drawn | None:
        """Watts and clock while ``call`` is repeated; None where the driver tells neither."""
        if not self.tells_power:
            return None
        watts: list[float] = []
        hertz: list[float] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.05):
                power, clock = self.torch.cuda.power_draw(), self.torch.cuda.clock_rate()
                watts.append(power * 1e-3)
                hertz.append(clock * 1e6)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            began = time.perf_counter()
            with self.torch.no_grad():
                while time.perf_counter() - began < WATCHED_S:
                    for _ in range(20):
                        call()
                    self.torch.cuda.synchronize()
        finally:
            over.set()
            watcher.join()
        held = slice(len(watts) // 3, None)  # the first third is the way up
        if not watts[held]:
            return None
        return Drawn(statistics.mean(watts[held]), statistics.mean(hertz[held]))


def _one_by_one(call: Callable[[], Any]) -> float:
    for _ in range(2):
        call()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < ROUNDS or time.perf_counter() - began < LONGEST_S / ROUNDS:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
        if time.perf_counter() - began > LONGEST_S:
            break
    return statistics.median(taken)


def bench(place: Place) -> Bench:
    """PyTorch at ``place``. Raises InputError where it is not installed or finds no GPU."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise InputError(
            "measuring a GPU needs PyTorch: pip install 'tenfold[torch]', or any build of it for"
            " your card"
        ) from None
    torch.manual_seed(0)
    match place:
        case Place.CUDA:
            if not torch.cuda.is_available():
                raise InputError(
                    f"PyTorch {torch.__version__} finds no GPU here: this needs a card, its driver,"
                    " and a build of PyTorch for it"
                )
            torch.backends.cuda.matmul.allow_tf32 = False  # fp32 is meant where it is said
            torch.backends.cudnn.allow_tf32 = False
            card = str(torch.cuda.get_device_name(0))
            runtime = torch.version.cuda or torch.version.hip
            versions = f"PyTorch {torch.__version__}, runtime {runtime}, driver {_driver()}"
        case Place.CPU:
            card, versions = "processor", f"PyTorch {torch.__version__}"
        case _:
            assert_never(place)
    return Bench(torch, place, card, versions, place is Place.CUDA and _tells_power(torch))


def _tells_power(torch: Any) -> bool:
    """Whether NVML (or its like) answers: without its library PyTorch raises."""
    try:
        return torch.cuda.power_draw() > 0 and torch.cuda.clock_rate() > 0
    except Exception:  # no such library, or a card that does not tell
        return False


def _driver() -> str:
    """As NVML has it; unknown without it."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        return str(nvml.nvmlSystemGetDriverVersion())
    except Exception:  # no such library, or another maker's card
        return "unknown"
