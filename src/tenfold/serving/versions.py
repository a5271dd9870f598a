"""Versions of a model behind one name: shares for canaries, copies for shadows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from tenfold.errors import InputError
from tenfold.serving.record import Decision, Policy, Refusal, Request, Start


@dataclass(frozen=True, slots=True)
class Version:
    """``model`` serves ``share`` of what comes for a name; a shadow gets a copy of that share, and
    nobody waits for its answer.
    """

    model: str
    share: float
    shadow: bool = False


def check_shares(name: str, versions: Sequence[Version]) -> None:
    """Raises InputError for shares that are negative or sum to nothing, or a shadow of more than
    all.
    """
    live = [v.share for v in versions if not v.shadow]
    if not all(0 <= v.share < float("inf") for v in versions) or not sum(live) > 0:
        raise InputError(
            f"the versions of '{name}' need shares of 0 or more with a sum above 0, got {live}"
        )
    if any(v.share > 1 for v in versions if v.shadow):
        raise InputError(f"a shadow of '{name}' copies a share of at most 1")


@final
class Versioned:
    """A policy behind names: requests for a name go to its versions by their shares, in turn,
    without chance.

    The version that is furthest behind its share takes the next request, so that any stretch of
    requests is split as asked to within one.
    """

    def __init__(self, inner: Policy, routes: Mapping[str, Sequence[Version]]) -> None:
        """Raises InputError for a name without versions, shares that are negative or sum to
        nothing, or shadows above 1.
        """
        for name, versions in routes.items():
            check_shares(name, versions)
        self._inner = inner
        self._routes = {n: tuple(v) for n, v in routes.items()}
        self._whole = {n: sum(v.share for v in vs if not v.shadow) for n, vs in routes.items()}
        self._due = {n: [0.0] * len(v) for n, v in routes.items()}

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        versions = self._routes.get(request.model)
        if versions is None:
            return self._inner.offer(request, now_s)
        due, whole = self._due[request.model], self._whole[request.model]
        for i, v in enumerate(versions):
            due[i] += v.share if v.shadow else v.share / whole
        live = max((i for i, v in enumerate(versions) if not v.shadow), key=lambda i: due[i])
        due[live] -= 1
        refused = list(self._inner.offer(replace(request, model=versions[live].model), now_s))
        for i, v in enumerate(versions):
            if v.shadow and due[i] >= 1 - 1e-9:
                due[i] -= 1
                refused += self._inner.offer(replace(request, model=v.model, shadow=True), now_s)
        return refused

    def decide(self, now_s: float) -> Decision:
        return self._inner.decide(now_s)

    def finished(self, start: Start, now_s: float, service_s: float) -> Sequence[Request]:
        return self._inner.finished(start, now_s, service_s)

    def drain(self) -> None:
        self._inner.drain()
