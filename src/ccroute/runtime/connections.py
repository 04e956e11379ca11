"""HTTP/1.1 connections with one request at a time on each.

The pools of httpx and httpcore search all connections on every request; a stack does not. A cancelled call
closes its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias
from weakref import WeakSet

import httpcore

from ccroute.backends import Origin
from ccroute.flow.effects import Failure, Reply, Send
from ccroute.runtime.exchange import HTTPCORE, AsyncExchange, Deadline, Exchange, failure, reply
from ccroute.runtime.loops import LoopBackend
from ccroute.runtime.sockets import SocketBackend
from ccroute.runtime.stacks import (
    C,
    Connection,
    ConnectionKey,
    LoopConnection,
    LoopPool,
    Stack,
    close_all,
    counts,
    unlock,
)

if TYPE_CHECKING:
    import httpx

    from ccroute.runtime.proxies import Proxies

Transport: TypeAlias = "httpx.BaseTransport | httpx.AsyncBaseTransport"
"""An httpx transport to use instead of ccroute's own connections, for tests or corporate proxies."""

QUICK = 0.5
"""Seconds: a kept connection that breaks within them had been closed by its server, so the request is sent
again. After them, the server may have worked on the request, and sending it again is a new attempt."""

CALL_CLOSED = Failure("broken", "the call was closed", sent=False)

_ERRORS = HTTPCORE.all


class _Exchange(Generic[C]):
    """The common part of both kinds of exchange: the request, its connection, and whether it was sent."""

    _stack: Stack[C] | None = None
    _connection: C | None = None

    def __init__(self, owner: Connections, effect: Send) -> None:
        self.sent = False
        self._owner = owner
        self._effect = effect
        self._key = ConnectionKey(effect.backend.origin, effect.backend.ca_file, effect.backend.local)
        self._response: httpcore.Response | None = None
        self._body: Any = None
        self._released = False

    def _request(self) -> httpcore.Request:
        backend, http = self._effect.backend, self._effect.http
        url = httpcore.URL(
            scheme=backend.origin.scheme.encode(),
            host=backend.origin.host.encode(),
            port=backend.origin.port,
            target=backend.target(http).encode("ascii"),
        )
        return httpcore.Request(http.method, url, headers=list(self._effect.headers), content=http.body)

    def _was_dead(self, error: Exception, deadline: Deadline, began: float) -> bool:
        """Whether the server had closed a kept connection: it broke at once, before a byte was received."""
        quick = time.monotonic() - began < QUICK and not self._released
        return quick and not deadline.received and not isinstance(error, httpcore.TimeoutException)

    def _ended(self) -> bytes:
        """Keep the connection, because the body is complete. Returns `b""`."""
        self._body = None
        connection, self._connection = self._connection, None  # another call may use it at once
        if connection is not None and self._stack is not None:
            self._stack.push(connection)
        return b""

    def release(self) -> None:
        self._released, self._body = True, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Blocking(_Exchange[Connection]):
    """An exchange on a blocking connection."""

    _body: Iterator[bytes] | None

    def send(self) -> Reply | Failure:
        stack = self._stack = self._owner._stacks.get(self._key) or self._owner.stack(self._key)
        request, kept, reconnected = self._request(), stack.pop(), False
        while True:
            try:
                connection = self._connection = kept or stack.add(self._owner.blocking(self._key))
            except OSError as error:  # the file of its certificate authorities is missing
                return failure(error, HTTPCORE, sent=reconnected, reconnected=reconnected)
            if self._released:
                connection.close()
                return CALL_CLOSED
            began = connection.deadline.begin(self._effect.until, self._effect.connect)
            try:
                self._response = response = connection.http.handle_request(request)
                self._body = iter(response.iter_stream())
                return reply(response.status, response.headers, reconnected=reconnected)
            except _ERRORS as error:
                connection.close()
                if kept is not None and self._was_dead(error, connection.deadline, began):
                    kept, reconnected = None, True
                    continue
                sent = connection.deadline.sent or reconnected
                return failure(error, HTTPCORE, sent=sent, reconnected=reconnected)
            except BaseException:
                connection.close()
                raise
            finally:
                self.sent = connection.deadline.sent or reconnected

    def read(self, until: float) -> bytes | Failure:
        connection, response = self._connection, self._response
        if self._body is None or connection is None or response is None:
            return b""
        connection.deadline.until = until
        try:
            for data in self._body:
                if data:
                    return data
            response.close()
        except _ERRORS as error:
            self.release()
            return failure(error, HTTPCORE, sent=True)
        return self._ended()


class _OnLoop(_Exchange[LoopConnection]):
    """An exchange on a connection of the running loop: as `_Blocking`, awaited."""

    _body: AsyncIterator[bytes] | None

    def __init__(self, owner: Connections, effect: Send) -> None:
        super().__init__(owner, effect)
        self._loop = asyncio.get_running_loop()

    async def send(self) -> Reply | Failure:
        stack = self._stack = (await self._owner.pool()).stack(self._key)
        request, kept, reconnected = self._request(), stack.pop(), False
        while True:
            try:
                connection = self._connection = kept or stack.add(self._owner.on_loop(self._key))
            except OSError as error:
                return failure(error, HTTPCORE, sent=reconnected, reconnected=reconnected)
            if self._released:
                connection.close()
                return CALL_CLOSED
            began = connection.deadline.begin(self._effect.until, self._effect.connect)
            try:
                self._response = response = await connection.http.handle_async_request(request)
                unlock(connection.http)
                self._body = response.aiter_stream().__aiter__()
                return reply(response.status, response.headers, reconnected=reconnected)
            except _ERRORS as error:
                connection.close()
                if kept is not None and self._was_dead(error, connection.deadline, began):
                    kept, reconnected = None, True
                    continue
                sent = connection.deadline.sent or reconnected
                return failure(error, HTTPCORE, sent=sent, reconnected=reconnected)
            except BaseException:
                connection.close()
                raise
            finally:
                self.sent = connection.deadline.sent or reconnected

    async def read(self, until: float) -> bytes | Failure:
        connection, response = self._connection, self._response
        if self._body is None or connection is None or response is None:
            return b""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this stream began on another event loop: read it on that one")
        connection.deadline.until = until
        try:
            async for data in self._body:
                if data:
                    return data
            await response.aclose()
        except _ERRORS as error:
            self.release()
            return failure(error, HTTPCORE, sent=True)
        return self._ended()


class ConnectionStats(NamedTuple):
    """How many connections to an origin are open: kept for the next call, and in use."""

    idle: int
    in_use: int


class Connections:
    """All connections of one router. Opens nothing before the first call.

    `trust_env` uses the proxies that the environment names, but not for a `transport`.
    """

    def __init__(self, transport: Transport | None = None, *, trust_env: bool = False) -> None:
        self._transport = transport
        self._proxies = _proxies() if trust_env else None
        self._closed = False
        self._stacks: dict[ConnectionKey, Stack[Connection]] = {}
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopPool] = (
            weakref.WeakKeyDictionary()
        )
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        # Also closes the idle sockets of a router that was dropped without close().
        self._close_stacks = weakref.finalize(self, close_all, self._stacks)

    def exchange(self, effect: Send) -> Exchange:
        """A blocking exchange that has not sent anything."""
        if self._transport is None:
            return _Blocking(self, effect)
        from ccroute.runtime.transports import through

        return through(self._transport, effect)

    def aexchange(self, effect: Send) -> AsyncExchange:
        """An exchange on the running loop that has not sent anything."""
        if self._transport is None:
            return _OnLoop(self, effect)
        from ccroute.runtime.transports import athrough

        return athrough(self._transport, effect)

    def stats(self) -> dict[Origin, ConnectionStats]:
        """The open connections to each origin, of all threads and loops together. Never waits."""
        counted, found = counts(self._stacks), dict[Origin, ConnectionStats]()
        for loop in self._pools.keyrefs():  # a copy, unlike the keys: another thread may add one meanwhile
            if (key := loop()) is not None and (pool := self._pools.get(key)) is not None:
                counted += pool.counts()
        for origin, idle, in_use in counted:
            before = found.get(origin, ConnectionStats(0, 0))
            found[origin] = ConnectionStats(before.idle + idle, before.in_use + in_use)
        return found

    def close(self) -> None:
        """Close the idle connections of threads and loops now, and each of the others when its call ends."""
        self._closed = True
        self._close_stacks()
        self._close_dead()
        for loop, pool in list(self._pools.items()):
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(pool.close_idle)

    async def aclose(self) -> None:
        """`close`, and wait until this loop's idle connections are gone."""
        self.close()
        await asyncio.sleep(0)  # the pool of this loop closes them
        await asyncio.sleep(0)  # and their sockets close in the loop's next iteration

    def after_fork(self) -> None:
        """Forget all connections in a forked child: they and their loops belong to the parent."""
        close_all(self._stacks)
        self._stacks.clear()
        self._pools = weakref.WeakKeyDictionary()

    def stack(self, key: ConnectionKey) -> Stack[Connection]:
        """The blocking connections with this key, made at the first use."""
        return self._stacks.setdefault(key, Stack(WeakSet(), closed=self._closed))

    async def pool(self) -> LoopPool:
        """The connections of the running loop."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            self._close_dead()
            pool = self._pools[loop] = LoopPool(closed=self._closed)
            await pool.park()
        return pool

    def _close_dead(self) -> None:
        """Close the connections of loops that were closed without finalising their async generators."""
        for loop in [loop for loop in list(self._pools) if loop.is_closed()]:
            pool = self._pools.pop(loop, None)
            if pool is not None:
                pool.close_dead()

    def blocking(self, key: ConnectionKey) -> Connection:
        """A new blocking connection."""
        if self._proxies is not None and (proxy := self._proxies.find(key)) is not None:
            return proxy.blocking(key, self._ssl(key))
        backend = SocketBackend(deadline := Deadline())
        http = httpcore.HTTPConnection(key.http, ssl_context=self._ssl(key), network_backend=backend)
        return Connection(http, backend, deadline)

    def on_loop(self, key: ConnectionKey) -> LoopConnection:
        """A new connection on the running loop."""
        if self._proxies is not None and (proxy := self._proxies.find(key)) is not None:
            return proxy.on_loop(key, self._ssl(key))
        backend = LoopBackend(deadline := Deadline())
        http = httpcore.AsyncHTTPConnection(key.http, ssl_context=self._ssl(key), network_backend=backend)
        unlock(http)
        return LoopConnection(http, backend, deadline)

    def _ssl(self, key: ConnectionKey) -> ssl.SSLContext | None:
        """The context for a certificate authority, made at its first use in about 20 ms; None for http."""
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


def _proxies() -> Proxies:
    from ccroute.runtime.proxies import Proxies  # imports urllib.request

    return Proxies()
