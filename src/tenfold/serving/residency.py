"""Which models are in the chip's memory, and what a switch costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from tenfold.errors import InputError


@dataclass(frozen=True, slots=True)
class Weights:
    """What keeping a model takes: ``bytes`` of the chip's memory, ``load_s`` to bring them in."""

    bytes: float = 0.0
    load_s: float = 0.0


@final
class Residency:
    """The models in memory, within a budget; the one used longest ago by cost leaves first.

    The value of staying is the load that would have to be repeated, discounted by how long nobody
    has asked: load / idle time.
    """

    def __init__(self, weights: Mapping[str, Weights], budget_bytes: float) -> None:
        """All that fit are resident at first, in the order given. Raises InputError for a model
        that never fits.
        """
        self._weights = dict(weights)
        self._budget = budget_bytes
        self._resident: dict[str, float] = {}
        self._used = 0.0
        self._ready: dict[str, float] = {}  # when the weights that are under way will be in
        for name, w in weights.items():
            if w.bytes > budget_bytes:
                raise InputError(
                    f"model '{name}' takes {w.bytes / 1e6:.6g} MB, more than the memory budget of"
                    f" {budget_bytes / 1e6:.6g} MB"
                )
            if self._used + w.bytes <= budget_bytes:
                self._resident[name] = float("-inf")
                self._used += w.bytes

    @property
    def resident(self) -> tuple[str, ...]:
        return tuple(self._resident)

    @property
    def used_bytes(self) -> float:
        return self._used

    def load_s(self, model: str, now_s: float) -> float:
        """What a batch of ``model`` waits for its weights if it starts now; the rest of the way
        where they are coming already.
        """
        if model not in self._resident:
            return self._weights[model].load_s
        return max(self._ready.get(model, now_s) - now_s, 0.0)

    def use(
        self, model: str, now_s: float, pinned: frozenset[str] = frozenset()
    ) -> tuple[str, ...] | None:
        """Take ``model`` in and note its use: who left for it; None where the ``pinned`` ones leave
        no room.
        """
        if model in self._resident:
            self._resident[model] = now_s
            return ()
        need = self._used + self._weights[model].bytes - self._budget
        leaving: list[str] = []
        for name in sorted(
            (n for n in self._resident if n not in pinned), key=lambda n: self._worth(n, now_s)
        ):
            if need <= 1e-9 * self._budget:
                break
            leaving.append(name)
            need -= self._weights[name].bytes
        if need > 1e-9 * self._budget:
            return None
        for name in leaving:
            del self._resident[name]
            self._used -= self._weights[name].bytes
        self._resident[model] = now_s
        self._ready[model] = now_s + self._weights[model].load_s
        self._used += self._weights[model].bytes
        return tuple(leaving)

    def _worth(self, name: str, now_s: float) -> float:
        return self._weights[name].load_s / max(now_s - self._resident[name], 1e-12)
