"""Sends through the user's own httpx transport, instead of ccroute's connections.

A sync transport's own timeouts bound its waits; the waits of an async one end exactly at the deadline. httpx
is imported only if a transport is given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar

import httpx

from ccroute.errors import ConfigError
from ccroute.flow.effects import Failure, Reply, Send
from ccroute.runtime.exchange import AsyncExchange, Exchange, TransportErrors, failure, reply

_HTTPX = TransportErrors(
    connect_timeout=(httpx.ConnectTimeout, httpx.PoolTimeout),
    connect=(httpx.ConnectError,),
    timeout=(httpx.TimeoutException, TimeoutError),
    protocol=(httpx.ProtocolError,),
    others=(httpx.TransportError, OSError),
)
_ERRORS = _HTTPX.all
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout)
_LATE = Failure("timeout", "silent for longer than allowed", sent=True)


def through(transport: httpx.BaseTransport | httpx.AsyncBaseTransport, effect: Send) -> Exchange:
    """An exchange through a sync transport."""
    if not isinstance(transport, httpx.BaseTransport):
        raise ConfigError(
            "transport= is not a sync httpx transport: use acomplete() or astream() with an async one"
        )
    return _HttpxExchange(transport, effect)


def athrough(transport: httpx.BaseTransport | httpx.AsyncBaseTransport, effect: Send) -> AsyncExchange:
    """An exchange through an async transport."""
    if not isinstance(transport, httpx.AsyncBaseTransport):
        raise ConfigError(
            "transport= is not an async httpx transport: use complete() or stream() with a sync one"
        )
    return _AsyncHttpxExchange(transport, effect)


class _HttpxExchange:
    def __init__(self, transport: httpx.BaseTransport, effect: Send) -> None:
        self.sent = False
        self._transport = transport
        self._effect = effect
        self._response: httpx.Response | None = None
        self._body: Iterator[bytes] | None = None

    def send(self) -> Reply | Failure:
        self.sent = True  # unless the transport's error says otherwise
        try:
            self._response = response = self._transport.handle_request(_request(self._effect))
        except _ERRORS as error:
            self.sent = not isinstance(error, _UNSENT)
            return failure(error, _HTTPX, sent=self.sent)
        stream = response.stream
        self._body = iter(stream) if isinstance(stream, httpx.SyncByteStream) else iter(())
        return reply(response.status_code, response.headers.raw)

    def read(self, until: float) -> bytes | Failure:
        if self._body is None:
            return b""
        if time.monotonic() >= until:
            self.release()
            return _LATE
        try:
            for data in self._body:
                if data:
                    return data
        except _ERRORS as error:
            self.release()
            return failure(error, _HTTPX, sent=True)
        self.release()
        return b""

    def release(self) -> None:
        self._body = None
        response, self._response = self._response, None
        if response is not None:
            response.close()


class _AsyncHttpxExchange:
    _closing: ClassVar[set[asyncio.Task[None]]] = set()
    """Tasks that close a response; asyncio itself keeps only weak references to them."""

    def __init__(self, transport: httpx.AsyncBaseTransport, effect: Send) -> None:
        self.sent = False
        self._transport = transport
        self._effect = effect
        self._loop = asyncio.get_running_loop()
        self._response: httpx.Response | None = None
        self._body: AsyncIterator[bytes] | None = None

    async def send(self) -> Reply | Failure:
        self.sent = True  # unless the transport's error says otherwise
        try:
            async with asyncio.timeout(_left(self._effect.until)):
                self._response = response = await self._transport.handle_async_request(_request(self._effect))
        except _ERRORS as error:
            self.sent = not isinstance(error, _UNSENT)
            return failure(error, _HTTPX, sent=self.sent)
        stream = response.stream
        self._body = aiter(stream) if isinstance(stream, httpx.AsyncByteStream) else None
        return reply(response.status_code, response.headers.raw)

    async def read(self, until: float) -> bytes | Failure:
        if self._body is None:
            return b""
        try:
            async with asyncio.timeout(_left(until)):
                async for data in self._body:
                    if data:
                        return data
        except _ERRORS as error:
            await self._close()
            return failure(error, _HTTPX, sent=True)
        await self._close()
        return b""

    async def _close(self) -> None:
        self._body = None
        response, self._response = self._response, None
        if response is not None:
            await response.aclose()

    def release(self) -> None:
        if self._response is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close_soon)

    def _close_soon(self) -> None:
        task = self._loop.create_task(self._close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _left(until: float) -> float | None:
    return None if until == float("inf") else until - time.monotonic()


def _request(effect: Send) -> httpx.Request:
    left = _left(effect.until)
    connect = (
        left if effect.connect is None else effect.connect if left is None else min(left, effect.connect)
    )
    return httpx.Request(
        effect.http.method,
        f"{effect.backend.origin}{effect.backend.target(effect.http)}",
        headers=[(name, value) for name, value in effect.headers],
        content=effect.http.body,
        extensions={"timeout": {"connect": connect, "read": left, "write": left, "pool": left}},
    )
