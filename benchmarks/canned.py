"""Connections that answer from memory, so that only the router's own work is left."""

from __future__ import annotations

from collections.abc import Iterator

from ccroute import Router
from ccroute.http.message import PreparedRequest, Reply

Answer = tuple[int, tuple[bytes, ...]]
"""A status, and the pieces of a body."""


class Canned:
    """Each request gets the answer of its host, or else the next of `answers`, in turn."""

    def __init__(self, *answers: Answer, **of_hosts: Answer) -> None:
        self._answers = answers
        self._of_hosts = of_hosts
        self._asked = 0

    def exchange(
        self, request: PreparedRequest, connect: float | None, until: float, *, blocking: bool
    ) -> CannedExchange:
        found = self._of_hosts.get(request.endpoint.origin.host.removesuffix(".test"))
        if found is None:
            found = self._answers[self._asked % len(self._answers)]
            self._asked += 1
        return CannedExchange(*found)

    def close(self) -> None:
        """Nothing to close."""


class CannedExchange:
    """An exchange that never waits."""

    sent = True

    def __init__(self, status: int, pieces: tuple[bytes, ...]) -> None:
        self._status = status
        self._pieces: Iterator[bytes] = iter((*pieces, b""))
        self._whole = pieces[0] if len(pieces) == 1 else None

    async def send(self) -> Reply:
        return Reply(self._status, {"content-type": "application/json"}, body=self._whole)

    async def read(self, until: float) -> bytes:
        return next(self._pieces)

    def release(self) -> None:
        """Nothing to give back."""


def answered_from_memory(router: Router, *answers: Answer, **of_hosts: Answer) -> Router:
    """`router`, with these answers in place of its connections."""
    router._connections = Canned(*answers, **of_hosts)  # type: ignore[assignment]
    return router
