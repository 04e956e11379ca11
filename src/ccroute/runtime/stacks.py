"""Open connections, the idle ones in a stack with the warmest on top: one stack per origin for threads, and
one per origin for each event loop."""

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
"""Seconds an idle connection is kept; one that its server closed earlier is noticed at its next use."""
MAX_IDLE = 1024
"""Idle connections kept per origin."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Open(Generic[H, B]):
    """An open connection and its limits. `opened` holds it until it is closed."""

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
    """The open connections to one origin. The ends of a deque are popped atomically, so no lock is needed.

    `opened` holds all of them. For threads it is a weak set: one that an interrupt drops is closed, too.
    """

    def __init__(self, opened: MutableSet[C], *, closed: bool = False) -> None:
        self._idle: deque[tuple[float, C]] = deque()
        self.opened: MutableSet[C] = opened
        self.closed = closed

    def add(self, connection: C) -> C:
        """A new connection, which is in use."""
        connection.opened = self.opened
        self.opened.add(connection)
        return connection

    def counts(self) -> tuple[int, int]:
        """How many connections are idle and in use at this moment."""
        idle = len(self._idle)
        return idle, max(len(self.opened) - idle, 0)

    def pop(self) -> C | None:
        """The connection used last that is still good."""
        while self._idle:
            try:
                expires, connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            try:
                if time.monotonic() < expires and not connection.http.has_expired():
                    return connection
            except BaseException:  # interrupted, and no other call has it
                connection.close()
                raise
            connection.close()
        return None

    def push(self, connection: C) -> None:
        """Keep a connection for the next call; what has been idle for too long goes."""
        # Bytes beyond the answer's end would be the next call's answer. httpcore has no public word for what
        # h11 still holds, so this looks inside.
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
        """Close what is idle; what is in use closes when it comes back."""
        self.closed = True
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread took it
                self._idle.pop()[1].close()


class Key(NamedTuple):
    """What connections are shared by: their origin, the file of the certificate authorities they trust, and
    whether the backend is `local`, so that no proxy may see what they carry."""

    origin: Origin
    ca_file: str | None
    local: bool

    @property
    def http(self) -> httpcore.Origin:
        """The origin as httpcore writes it."""
        return httpcore.Origin(self.origin.scheme.encode(), self.origin.host.encode(), self.origin.port)


class LoopPool:
    """The connections of one event loop, closed when the loop ends.

    `asyncio.run` finalises the loop's async generators before it closes the loop, so one parked
    generator's `finally` is the hook: no dead sockets, no ResourceWarning.
    """

    def __init__(self, *, closed: bool = False) -> None:
        self._stacks: dict[Key, Stack[LoopConnection]] = {}
        self._parked: AsyncGenerator[None, None] | None = None
        self._closed = closed

    async def park(self) -> None:
        """Tie this pool to the running loop."""
        self._parked = self._until_the_loop_ends()
        await anext(self._parked)

    def stack(self, key: Key) -> Stack[LoopConnection]:
        """This loop's connections to one origin."""
        stack = self._stacks.get(key)
        if stack is None:
            stack = self._stacks[key] = Stack(set(), closed=self._closed)
        return stack

    def close_idle(self) -> None:
        """Close what is idle, now and later; what is in use closes when it comes back."""
        self._closed = True
        close_all(self._stacks)

    def counts(self) -> list[tuple[Origin, int, int]]:
        """For each origin, how many connections are idle and in use."""
        return counts(self._stacks)

    def close_dead(self) -> None:
        """The loop is closed and ran no finaliser: its sockets are closed without it."""
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
            self._parked = None  # it holds the loop, which this pool must not keep alive
            self.close_idle()
            for connection in self._opened():
                connection.close()
            await asyncio.sleep(0)  # a closed transport lets go of its socket in the loop's next round


def close_all(stacks: dict[Key, Stack[Any]]) -> None:
    for stack in stacks.values():
        stack.close()


def counts(stacks: dict[Key, Stack[Any]]) -> list[tuple[Origin, int, int]]:
    """For each origin, how many connections are idle and in use. Another thread may add a stack meanwhile."""
    return [(key.origin, *stack.counts()) for key, stack in stacks.copy().items()]


class _NoLock:
    """A lock for what has one user at a time."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


_NO_LOCK = _NoLock()


def unlock(http: httpcore.AsyncHTTPConnection) -> None:
    """Take httpcore's locks out of a connection that has one user at a time.

    anyio gives the loop a turn at each of them: measured, a fifth of a call's CPU. httpcore has no
    public switch for it.
    """
    for owner, lock in ((http, "_request_lock"), (getattr(http, "_connection", None), "_state_lock")):
        if hasattr(owner, lock):
            setattr(owner, lock, _NO_LOCK)
