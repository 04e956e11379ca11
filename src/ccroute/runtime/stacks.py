"""Open connections: one stack per origin for threads, and one per origin for each event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, MutableSet
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import httpcore

from ccroute.backends import Origin
from ccroute.runtime.exchange import Deadline
from ccroute.runtime.loops import LoopBackend
from ccroute.runtime.sockets import SocketBackend

H = TypeVar("H", httpcore.HTTPConnection, httpcore.AsyncHTTPConnection)
B = TypeVar("B", SocketBackend, LoopBackend)

KEEP = 30.0
"""Seconds an idle connection is kept. If its server closes it earlier, its next use notices that."""
MAX_IDLE = 1024
"""Idle connections kept per origin at most."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Open(Generic[H, B]):
    """An open connection and its limits. `opened` contains it until it is closed."""

    http: H
    backend: B
    deadline: Deadline
    opened: MutableSet[Any] = field(default_factory=set[Any])

    def close(self) -> None:
        """Close at once, also from another thread."""
        self.deadline.over = True
        self.opened.discard(self)
        if self.backend.stream is not None:
            self.backend.stream.abort()


class Connection(_Open[httpcore.HTTPConnection, SocketBackend]):
    """A blocking connection."""

    __slots__ = ()


class LoopConnection(_Open[httpcore.AsyncHTTPConnection, LoopBackend]):
    """A connection of one event loop."""

    __slots__ = ()


C = TypeVar("C", Connection, LoopConnection)


class Stack(Generic[C]):
    """The open connections to one origin. Needs no lock, because a deque appends and pops atomically.

    `opened` contains all of them. A weak set for threads: a connection dropped by an interrupt is freed.
    """

    def __init__(self, opened: MutableSet[C], *, closed: bool = False) -> None:
        self._idle: deque[tuple[float, C]] = deque()
        self.opened: MutableSet[C] = opened
        self.closed = closed

    def add(self, connection: C) -> C:
        """Add a new connection, which is in use, and return it."""
        connection.opened = self.opened
        self.opened.add(connection)
        return connection

    def counts(self) -> tuple[int, int]:
        """How many connections are idle and in use at this moment."""
        idle = len(self._idle)
        return idle, max(len(self.opened) - idle, 0)

    def pop(self) -> C | None:
        """The idle connection used last that is still open, or None."""
        while self._idle:
            try:
                expires, connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            try:
                if time.monotonic() < expires and not connection.http.has_expired():
                    return connection
            except BaseException:  # interrupted: no other call would close it
                connection.close()
                raise
            connection.close()
        return None

    def push(self, connection: C) -> None:
        """Keep a connection for the next call, and close those that have been idle for too long."""
        # Bytes after the answer's end would be read as the next answer. httpcore does not publish h11's
        # buffer, so this uses private attributes.
        h11 = getattr(getattr(connection.http, "_connection", None), "_h11_state", None)
        if self.closed or not connection.http.is_idle() or h11 is None or h11.trailing_data[0]:
            connection.close()
            return
        now = time.monotonic()
        self._idle.append((now + KEEP, connection))
        while self._idle and (self._idle[0][0] < now or len(self._idle) > MAX_IDLE):
            try:
                self._idle.popleft()[1].close()
            except IndexError:
                break

    def close(self) -> None:
        """Close the idle connections now, and each of the others when its exchange ends."""
        self.closed = True
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread took it
                self._idle.pop()[1].close()


class ConnectionKey(NamedTuple):
    """Calls with the same key share connections. `ca_file` has the certificate authorities to trust; a
    connection for a `local` backend never uses a proxy."""

    origin: Origin
    ca_file: str | None
    local: bool

    @property
    def http(self) -> httpcore.Origin:
        """The origin as an object of httpcore."""
        return httpcore.Origin(self.origin.scheme.encode(), self.origin.host.encode(), self.origin.port)


class LoopPool:
    """The connections of one event loop, closed when the loop ends.

    `asyncio.run` finalises the loop's async generators before it closes the loop. So each pool starts one
    generator whose `finally` closes the connections.
    """

    def __init__(self, *, closed: bool = False) -> None:
        self._stacks: dict[ConnectionKey, Stack[LoopConnection]] = {}
        self._parked: AsyncGenerator[None, None] | None = None
        self._closed = closed

    async def park(self) -> None:
        """Start the generator that closes this pool when the running loop ends."""
        self._parked = self._until_the_loop_ends()
        await anext(self._parked)

    def stack(self, key: ConnectionKey) -> Stack[LoopConnection]:
        """This loop's connections to one origin."""
        stack = self._stacks.get(key)
        if stack is None:
            stack = self._stacks[key] = Stack(set(), closed=self._closed)
        return stack

    def close_idle(self) -> None:
        """Close the idle connections now, and each of the others when its exchange ends."""
        self._closed = True
        close_all(self._stacks)

    def counts(self) -> list[tuple[Origin, int, int]]:
        """For each origin, how many connections are idle and in use."""
        return counts(self._stacks)

    def close_dead(self) -> None:
        """Close the sockets of a loop that was closed without finalising its generators."""
        self._closed, self._parked = True, None
        for connection in self._opened():
            if connection.backend.stream is not None:
                connection.backend.stream.close_dead()

    def _opened(self) -> list[LoopConnection]:
        # Copied in one step: another thread may close one meanwhile.
        return [connection for stack in self._stacks.values() for connection in [*stack.opened]]

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._parked = None  # the generator refers to the loop, which must not be kept alive
            self.close_idle()
            for connection in self._opened():
                connection.close()
            await asyncio.sleep(0)  # a transport closes its socket in the loop's next iteration


def close_all(stacks: dict[ConnectionKey, Stack[Any]]) -> None:
    for stack in stacks.values():
        stack.close()


def counts(stacks: dict[ConnectionKey, Stack[Any]]) -> list[tuple[Origin, int, int]]:
    """For each origin, how many connections are idle and in use. Another thread may add a stack meanwhile."""
    return [(key.origin, *stack.counts()) for key, stack in stacks.copy().items()]


class _NoLock:
    """A lock that does nothing: the connection has one user at a time."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


_NO_LOCK = _NoLock()


def unlock(http: httpcore.AsyncHTTPConnection) -> None:
    """Remove httpcore's locks from a connection that has one user at a time.

    anyio yields to the loop at each lock: measured, a fifth of a call's CPU. httpcore has no public option
    for it.
    """
    for owner, lock in ((http, "_request_lock"), (getattr(http, "_connection", None), "_state_lock")):
        if hasattr(owner, lock):
            setattr(owner, lock, _NO_LOCK)
