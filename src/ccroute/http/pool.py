"""The open connections of all threads, or of one event loop.

The pools of httpx and httpcore search all connections on every request. Here, the idle connections to an
endpoint are a stack with the last used one on top, and taking one costs the same however many there are.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, MutableSet
from typing import Any

from ccroute.http.connection import Connection
from ccroute.http.message import Endpoint
from ccroute.http.origin import Origin
from ccroute.http.streams import Network
from ccroute.http.streams.event_loops import call_at_end, create_task, current_loop, sockets_closed

KEEP = 30.0
"""Seconds an idle connection is kept. If its server closes it earlier, its next use notices that."""
MAX_IDLE = 1024
"""Idle connections kept for each endpoint at most."""


class Stack:
    """The connections to one endpoint. Needs no lock, because a deque appends and pops atomically.

    `opened` contains all of them, `idle` those that no exchange has.
    """

    def __init__(self, opened: MutableSet[Connection], *, closed: bool) -> None:
        self.opened = opened
        self.idle: deque[tuple[float, Connection]] = deque()
        self.closed = closed

    def pop(self) -> Connection | None:
        """The idle connection used last that is still open, or None."""
        while self.idle:
            try:
                expires, connection = self.idle.pop()
            except IndexError:  # another thread took it
                break
            try:
                if time.monotonic() < expires and connection.stream.is_quiet():
                    return connection
            except BaseException:  # interrupted: no other call would close it
                connection.close()
                raise
            connection.close()
        return None

    def push(self, connection: Connection) -> None:
        """Keep a connection for the next call, and close those that have been idle for too long."""
        if not connection.can_be_kept:
            connection.close()
            return
        now, idle = time.monotonic(), self.idle
        idle.append((now + KEEP, connection))
        while idle and (idle[0][0] < now or len(idle) > MAX_IDLE):
            with contextlib.suppress(IndexError):  # another thread took it
                idle.popleft()[1].close()
        if self.closed:  # asked last: another thread may close it meanwhile
            self.close()

    def close(self) -> None:
        """Close the idle connections now, and each of the others when its exchange ends."""
        self.closed = True
        while self.idle:
            with contextlib.suppress(IndexError):
                self.idle.pop()[1].close()


class Pool:
    """The stacks of all endpoints. `make_set` makes the set of an endpoint's open connections."""

    def __init__(
        self, network: Network, make_set: Callable[[], MutableSet[Connection]], *, closed: bool
    ) -> None:
        self.network = network
        self.stacks: dict[Endpoint, Stack] = {}
        self.transports: dict[Endpoint, Any] = {}  # httpx's own, where they are used instead of connections
        self._make_set = make_set
        self._closed = closed
        self._at_end: object = None
        # Also closes the idle connections of a router that was dropped without close().
        weakref.finalize(self, _close_idle, self.stacks)

    def stack(self, endpoint: Endpoint) -> Stack:
        """The connections to one endpoint."""
        stack = self.stacks.get(endpoint)
        if stack is None:
            stack = self.stacks.setdefault(endpoint, Stack(self._make_set(), closed=self._closed))
        return stack

    def keep_only(self, endpoints: Collection[Endpoint]) -> None:
        """Close the idle connections to all other endpoints now, and those in use when their exchange ends.

        For the pool of a loop: only on this loop.
        """
        for endpoint, stack in self.stacks.copy().items():
            if endpoint in endpoints:
                stack.closed = False
            else:
                stack.close()
                if not stack.opened:
                    self.stacks.pop(endpoint, None)
        if self._closed:  # asked last: another thread may close the router meanwhile
            _close_idle(self.stacks)

    def close_idle(self) -> None:
        """Close the idle connections now, and each of the others when its exchange ends."""
        self._closed = True
        _close_idle(self.stacks)

    async def aclose_idle(self) -> None:
        """`close_idle`, and close the transports. For a pool of threads, it never suspends."""
        self.close_idle()
        while self.transports:
            transport = self.transports.popitem()[1]
            if hasattr(transport, "aclose"):
                await transport.aclose()
            else:
                transport.close()

    def close_soon(self) -> None:
        """Start `aclose_idle` on the running loop, which is the pool's."""
        self.close_idle()
        if self.transports:
            create_task(current_loop(), self.aclose_idle)

    def close_all(self) -> None:
        """Close every connection, also those in use."""
        self.close_idle()
        for stack in self.stacks.values():
            for connection in [*stack.opened]:  # a copy: another thread may close one meanwhile
                connection.close()

    def counts(self) -> list[tuple[Origin, int, int]]:
        """For each endpoint, its origin and how many connections are idle and in use at this moment."""
        return [
            (endpoint.origin, idle := len(stack.idle), max(len(stack.opened) - idle, 0))
            for endpoint, stack in self.stacks.copy().items()
        ]

    async def close_with_loop(self, loop: Any) -> None:
        """Close every connection when the running loop ends."""
        self._at_end = await call_at_end(loop, self._close_all)

    async def _close_all(self) -> None:
        self._at_end = None  # it refers to the loop, which must not be kept alive
        self.close_all()
        await self.aclose_idle()
        await sockets_closed(current_loop())


def _close_idle(stacks: dict[Endpoint, Stack]) -> None:
    for stack in [*stacks.values()]:
        stack.close()
