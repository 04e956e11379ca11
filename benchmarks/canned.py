"""Connections that answer from memory, blocking and awaited, so that only the router's own work is left."""

from __future__ import annotations

from ccroute import Router
from ccroute.flow.effects import Reply, Send

Answer = tuple[int, tuple[bytes, ...]]
"""A status, and the pieces of a body."""


class Canned:
    """Connections and exchange in one: each request gets the next of `answers`, in turn."""

    sent = True

    def __init__(self, *answers: Answer) -> None:
        self._answers = answers
        self._asked = 0

    def exchange(self, effect: Send) -> Canned:
        self._status, pieces = self._answers[self._asked % len(self._answers)]
        self._asked += 1
        self._rest = iter((*pieces, b""))
        return self

    def aexchange(self, effect: Send) -> _Awaited:
        self.exchange(effect)
        return _Awaited(self)

    def send(self) -> Reply:
        return Reply(self._status, {"content-type": "application/json"})

    def read(self, until: float) -> bytes:
        return next(self._rest)

    def release(self) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to close."""


class _Awaited:
    """The exchange of `Canned`, awaited."""

    sent = True

    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    async def send(self) -> Reply:
        return self._canned.send()

    async def read(self, until: float) -> bytes:
        return self._canned.read(until)

    def release(self) -> None:
        """Nothing to give back."""


def answered_from_memory(router: Router, *answers: Answer) -> Router:
    """`router`, with these answers in place of its connections."""
    router._connections = Canned(*answers)  # type: ignore[assignment]
    return router
