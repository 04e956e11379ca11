"""Stacks of single HTTP/1.1 connections: one request at a time on each, the warmest used first.

httpx's and httpcore's pools look at every connection on every request; a stack does not, and a
cancelled call simply throws its connection away. There is one stack per origin for blocking callers,
and one per origin for each event loop.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar

import httpcore

from ccroute.backends import Backend, Origin
from ccroute.flow.effects import Failure, Reply, Send
from ccroute.runtime.exchange import HTTPCORE, AsyncExchange, Exchange, failure, reply
from ccroute.runtime.network import Lease, LoopBackend, SocketBackend

if TYPE_CHECKING:
    import httpx

Transport: TypeAlias = "httpx.BaseTransport | httpx.AsyncBaseTransport"
"""An httpx transport to use instead of ccroute's own connections: tests, corporate proxies."""

_ERRORS = HTTPCORE.all

KEEP = 30.0
"""Seconds an idle connection is kept; one that its server closed earlier is noticed at its next use."""
MAX_IDLE = 1024
"""Idle connections kept per origin."""


class _Connection(NamedTuple):
    """A blocking connection and its limits."""

    http: httpcore.HTTPConnection
    backend: SocketBackend
    lease: Lease

    def close(self) -> None:
        if self.backend.stream is not None:
            self.backend.stream.close()


class _LoopConnection(NamedTuple):
    """A connection of one event loop and its limits."""

    http: httpcore.AsyncHTTPConnection
    backend: LoopBackend
    lease: Lease

    def close(self) -> None:
        if self.backend.stream is not None:
            self.backend.stream.abort()


C = TypeVar("C", _Connection, _LoopConnection)


class _Stack(Generic[C]):
    """Idle connections to one origin. Its deque's ends are popped atomically, so no lock is needed."""

    def __init__(self) -> None:
        self._idle: deque[tuple[float, C]] = deque()
        self.closed = False

    def pop(self) -> C | None:
        """The connection used last that is still good."""
        while self._idle:
            try:
                expires, connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if time.monotonic() < expires and not connection.http.has_expired():
                return connection
            connection.close()
        return None

    def push(self, connection: C) -> None:
        """Keep a connection for the next call; what has been idle for too long goes."""
        if self.closed or not connection.http.is_idle() or _surplus(connection):
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
            self._idle.pop()[1].close()


def _surplus(connection: _Connection | _LoopConnection) -> bool:
    """Whether bytes came beyond the answer's end: the next caller would take them for its own answer.

    httpcore has no public word for what h11 still holds, so this looks inside.
    """
    state = getattr(getattr(connection.http, "_connection", None), "_h11_state", None)
    return state is None or bool(state.trailing_data[0])


class _Blocking:
    """An exchange on a blocking connection."""

    def __init__(
        self, connection: _Connection, stack: _Stack[_Connection], response: httpcore.Response
    ) -> None:
        self._connection = connection
        self._stack = stack
        self._response = response
        self._body: Iterator[bytes] | None = iter(response.iter_stream())

    def read(self, until: float) -> bytes | Failure:
        if self._body is None:
            return b""
        self._connection.lease.until = until
        try:
            for data in self._body:
                if data:
                    return data
            self._response.close()
        except _ERRORS as error:
            self.release()
            return failure(error, HTTPCORE, sent=True)
        self._body = None
        self._stack.push(self._connection)
        return b""

    def release(self) -> None:
        if self._body is not None:
            self._body = None
            self._connection.close()


class _OnLoop:
    """An exchange on a connection of the running loop."""

    def __init__(
        self, connection: _LoopConnection, pool: _LoopPool, origin: _Key, response: httpcore.Response
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._body: AsyncIterator[bytes] | None = response.aiter_stream().__aiter__()

    async def read(self, until: float) -> bytes | Failure:
        if self._body is None:
            return b""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a stream belongs to the event loop on which it was begun")
        self._connection.lease.until = until
        try:
            async for data in self._body:
                if data:
                    return data
            await self._response.aclose()
        except _ERRORS as error:
            self.release()
            return failure(error, HTTPCORE, sent=True)
        self._body = None
        self._pool.back(self._origin, self._connection)
        return b""

    def release(self) -> None:
        if self._body is not None:
            self._body = None
            self._pool.discard(self._connection)


class _Key(NamedTuple):
    """What connections are shared by: where they go and whom they trust."""

    origin: Origin
    ca_file: str | None


class _LoopPool:
    """The connections of one event loop, closed when the loop ends.

    `asyncio.run` finalises the loop's async generators before it closes the loop, so one parked
    generator's `finally` is the hook: no dead sockets, no ResourceWarning.
    """

    def __init__(self) -> None:
        self._stacks: dict[_Key, _Stack[_LoopConnection]] = {}
        self._busy: set[_LoopConnection] = set()
        self._parked: AsyncGenerator[None, None] | None = None

    async def park(self) -> None:
        """Tie this pool to the running loop."""
        self._parked = self._until_the_loop_ends()
        await anext(self._parked)

    async def unpark(self) -> None:
        """Close everything, on the loop it belongs to."""
        if self._parked is not None:
            await self._parked.aclose()

    def take(self, key: _Key) -> _LoopConnection | None:
        stack = self._stacks.get(key)
        if stack is None:
            stack = self._stacks[key] = _Stack()
        connection = stack.pop()
        if connection is not None:
            self._busy.add(connection)
        return connection

    def add(self, connection: _LoopConnection) -> None:
        self._busy.add(connection)

    def back(self, key: _Key, connection: _LoopConnection) -> None:
        self._busy.discard(connection)
        self._stacks[key].push(connection)

    def discard(self, connection: _LoopConnection) -> None:
        self._busy.discard(connection)
        connection.close()

    def close(self) -> None:
        for stack in self._stacks.values():
            stack.close()
        while self._busy:
            self._busy.pop().close()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()
            await asyncio.sleep(0)  # a closed transport lets go of its socket in the loop's next round


class Connections:
    """All connections of one router. Nothing is opened before the first call."""

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport
        self._stacks: dict[_Key, _Stack[_Connection]] = {}
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopPool] = (
            weakref.WeakKeyDictionary()
        )
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        # Also closes the idle sockets of a router that was dropped without close().
        self._close_stacks = weakref.finalize(self, _close_all, self._stacks)

    def send(self, effect: Send) -> tuple[Exchange | None, Reply | Failure]:
        """Send a request, blocking; the exchange gives the body of the answer."""
        if self._transport is not None:
            from ccroute.runtime.transports import send_through

            return send_through(self._transport, effect)
        key = _Key(effect.backend.origin, effect.backend.ca_file)
        stack = self._stacks.setdefault(key, _Stack())
        request, connect_until = _request(effect), _connect_until(effect)
        kept, reconnected = stack.pop(), False
        while True:
            connection = kept or self._blocking(key)
            connection.lease.begin(effect.until, connect_until)
            try:
                response = connection.http.handle_request(request)
            except _ERRORS as error:
                connection.close()
                if kept is not None and _never_answered(error, connection.lease):
                    kept, reconnected = None, True
                    continue
                return None, failure(error, HTTPCORE, sent=connection.lease.sent)
            except BaseException:
                connection.close()
                raise
            return _Blocking(connection, stack, response), reply(
                response.status, response.headers, reconnected=reconnected
            )

    async def asend(self, effect: Send) -> tuple[AsyncExchange | None, Reply | Failure]:
        """Send a request on the running loop; the exchange gives the body of the answer."""
        if self._transport is not None:
            from ccroute.runtime.transports import asend_through

            return await asend_through(self._transport, effect)
        key = _Key(effect.backend.origin, effect.backend.ca_file)
        pool = await self._pool()
        request, connect_until = _request(effect), _connect_until(effect)
        kept, reconnected = pool.take(key), False
        while True:
            if kept is None:
                pool.add(connection := self._on_loop(key))
            else:
                connection = kept
            connection.lease.begin(effect.until, connect_until)
            try:
                response = await connection.http.handle_async_request(request)
            except _ERRORS as error:
                pool.discard(connection)
                if kept is not None and _never_answered(error, connection.lease):
                    kept, reconnected = None, True
                    continue
                return None, failure(error, HTTPCORE, sent=connection.lease.sent)
            except BaseException:
                pool.discard(connection)
                raise
            return _OnLoop(connection, pool, key, response), reply(
                response.status, response.headers, reconnected=reconnected
            )

    def close(self) -> None:
        """Close what is idle, on every loop; what is in use closes with its call."""
        self._close_stacks()
        for loop, pool in list(self._pools.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(pool.close)

    async def aclose(self) -> None:
        """`close`, and wait until this loop's connections are gone."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        self.close()
        if pool is not None:
            await pool.unpark()

    async def _pool(self) -> _LoopPool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = _LoopPool()
            await pool.park()
        return pool

    def _blocking(self, key: _Key) -> _Connection:
        backend = SocketBackend(lease := Lease())
        http = httpcore.HTTPConnection(_origin(key), ssl_context=self._ssl(key), network_backend=backend)
        return _Connection(http, backend, lease)

    def _on_loop(self, key: _Key) -> _LoopConnection:
        backend = LoopBackend(lease := Lease())
        http = httpcore.AsyncHTTPConnection(_origin(key), ssl_context=self._ssl(key), network_backend=backend)
        return _LoopConnection(http, backend, lease)

    def _ssl(self, key: _Key) -> ssl.SSLContext | None:
        """One context per certificate authority, made at its first use: each takes about 20 ms."""
        if key.origin.scheme != "https":
            return None
        context = self._contexts.get(key.ca_file)
        if context is None:
            context = (
                ssl.create_default_context(cafile=key.ca_file)
                if key.ca_file
                else httpcore.default_ssl_context()
            )
            self._contexts[key.ca_file] = context
        return context


def _close_all(stacks: dict[_Key, _Stack[_Connection]]) -> None:
    for stack in stacks.values():
        stack.close()


def _never_answered(error: Exception, lease: Lease) -> bool:
    """Whether a kept connection turned out to be dead: it broke before a byte of the answer came."""
    return not lease.received and not isinstance(error, httpcore.TimeoutException)


def _connect_until(effect: Send) -> float:
    return float("inf") if effect.connect is None else time.monotonic() + effect.connect


def _origin(key: _Key) -> httpcore.Origin:
    return httpcore.Origin(key.origin.scheme.encode(), key.origin.host.encode(), key.origin.port)


def _request(effect: Send) -> httpcore.Request:
    backend: Backend = effect.backend
    url = httpcore.URL(
        scheme=backend.origin.scheme.encode(),
        host=backend.origin.host.encode(),
        port=backend.origin.port,
        target=backend.target(effect.http).encode("ascii"),
    )
    return httpcore.Request(effect.http.method, url, headers=list(effect.headers), content=effect.http.body)
