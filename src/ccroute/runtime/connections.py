"""Single HTTP/1.1 connections: one request at a time on each, and never a pool to be searched.

httpx's and httpcore's pools look at every connection on every request; a stack does not, and a
cancelled call simply throws its connection away.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, TypeAlias

import httpcore

from ccroute.backends import Backend
from ccroute.flow.effects import Failure, Reply, Send
from ccroute.runtime.exchange import HTTPCORE, AsyncExchange, Exchange, failure, reply
from ccroute.runtime.lease import Lease
from ccroute.runtime.loops import LoopBackend
from ccroute.runtime.sockets import SocketBackend
from ccroute.runtime.stacks import Connection, Key, LoopConnection, LoopPool, Stack, close_all

if TYPE_CHECKING:
    import httpx

Transport: TypeAlias = "httpx.BaseTransport | httpx.AsyncBaseTransport"
"""An httpx transport to use instead of ccroute's own connections: tests, corporate proxies."""

_ERRORS = HTTPCORE.all


class _Blocking:
    """An exchange on a blocking connection."""

    def __init__(self, connection: Connection, stack: Stack[Connection], response: httpcore.Response) -> None:
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
        self, connection: LoopConnection, pool: LoopPool, origin: Key, response: httpcore.Response
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


class Connections:
    """All connections of one router. Nothing is opened before the first call."""

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport
        self._stacks: dict[Key, Stack[Connection]] = {}
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopPool] = (
            weakref.WeakKeyDictionary()
        )
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        # Also closes the idle sockets of a router that was dropped without close().
        self._close_stacks = weakref.finalize(self, close_all, self._stacks)

    def send(self, effect: Send) -> tuple[Exchange | None, Reply | Failure]:
        """Send a request, blocking; the exchange gives the body of the answer."""
        if self._transport is not None:
            from ccroute.runtime.transports import send_through

            return send_through(self._transport, effect)
        key = Key(effect.backend.origin, effect.backend.ca_file)
        stack = self._stacks.setdefault(key, Stack())
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
        key = Key(effect.backend.origin, effect.backend.ca_file)
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

    async def _pool(self) -> LoopPool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = LoopPool()
            await pool.park()
        return pool

    def _blocking(self, key: Key) -> Connection:
        backend = SocketBackend(lease := Lease())
        http = httpcore.HTTPConnection(_origin(key), ssl_context=self._ssl(key), network_backend=backend)
        return Connection(http, backend, lease)

    def _on_loop(self, key: Key) -> LoopConnection:
        backend = LoopBackend(lease := Lease())
        http = httpcore.AsyncHTTPConnection(_origin(key), ssl_context=self._ssl(key), network_backend=backend)
        return LoopConnection(http, backend, lease)

    def _ssl(self, key: Key) -> ssl.SSLContext | None:
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


def _never_answered(error: Exception, lease: Lease) -> bool:
    """Whether a kept connection turned out to be dead: it broke before a byte of the answer came."""
    return not lease.received and not isinstance(error, httpcore.TimeoutException)


def _connect_until(effect: Send) -> float:
    return float("inf") if effect.connect is None else time.monotonic() + effect.connect


def _origin(key: Key) -> httpcore.Origin:
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
