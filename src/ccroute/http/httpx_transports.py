"""Sends through httpx transports instead of ccroute's own connections: the user's one, or httpx's own.

The waits of an async transport end exactly at the deadline; a sync transport bounds its waits itself. httpx
is imported only if a transport is asked for.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx

from ccroute.errors import ConfigError
from ccroute.http.exchange import BaseExchange
from ccroute.http.message import (
    CUT_OFF,
    LATE,
    NO_CONNECTION,
    NOT_HTTP,
    SWITCHES,
    Endpoint,
    Failure,
    FailureKind,
    PreparedRequest,
    Reply,
    TransportError,
    reason,
)
from ccroute.http.streams.event_loops import call_soon, create_task, current_loop

_ERRORS = (httpx.TransportError, OSError, TransportError)
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""What httpx raises before it sends a request. A proxy's answer to a forwarded request is none of them."""
_CLOSED = ("Server disconnected", "peer closed connection", "peer unexpectedly closed connection")
"""How httpx says that a connection ended too early."""


class HttpxExchange(BaseExchange):
    """An `Exchange` through a transport of httpx."""

    _response: httpx.Response | None = None
    _body: AsyncIterator[bytes] | None = None
    _loop: Any = None

    async def send(self) -> Reply | Failure:
        """Send the request and wait for the head of the answer."""
        if not self._blocking:
            self._loop = current_loop()  # `release` may be called on another one
        try:
            transport: Any = await self._transport()
            request = _request(self._request, self._connect_seconds, self._until)
            with self._limit(self._until):
                self.sent = True  # unless the transport's error says otherwise
                if self._blocking:
                    response = transport.handle_request(request)
                    self._body = _Awaited(iter(response.stream))
                else:
                    response = await transport.handle_async_request(request)
                    self._body = aiter(response.stream)
        except _ERRORS as error:
            self.sent = self.sent and not isinstance(error, _UNSENT)
            return _failure(error, sent=self.sent)
        self._response = response
        if response.status_code == 101:
            return Failure("protocol", SWITCHES, sent=True)
        headers = {
            name.decode("ascii", "replace").lower(): value.decode("latin-1")
            for name, value in response.headers.raw
        }
        return Reply(response.status_code, headers)

    async def _transport(self) -> Any:
        """The user's transport, or httpx's own. Raises `ConfigError` for one of the other kind."""
        given = self._connections.transport
        if given == "httpx":
            pool = await self._connections.pool(blocking=self._blocking)
            endpoint = self._request.endpoint
            if endpoint not in pool.transports:
                kind = httpx.HTTPTransport if self._blocking else httpx.AsyncHTTPTransport
                pool.transports[endpoint] = kind(**self._settings(endpoint))
            return pool.transports[endpoint]
        if self._blocking and not isinstance(given, httpx.BaseTransport):
            raise ConfigError(
                "transport= is not a sync httpx transport: use acomplete() or astream() with an async one"
            )
        if not self._blocking and not isinstance(given, httpx.AsyncBaseTransport):
            raise ConfigError(
                "transport= is not an async httpx transport: use complete() or stream() with a sync one"
            )
        return given

    def _settings(self, endpoint: Endpoint) -> dict[str, Any]:
        proxy, context = self._connections.find_proxy(endpoint), self._connections.tls_context(endpoint)
        return {
            # For http it is not used, and quickly made.
            "verify": context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            "proxy": None if proxy is None else httpx.Proxy(str(proxy), headers=[*proxy.credentials]),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
            "trust_env": False,
        }

    async def read(self, until: float) -> bytes | Failure:
        """The next bytes of the body, `b""` at its end. `until` is an instant of `time.monotonic`."""
        if self._body is None:
            return b""
        try:
            with self._limit(until):
                async for data in self._body:
                    if data:
                        return data
        except _ERRORS as error:
            await self._close()
            return _failure(error, sent=True)
        await self._close()
        return b""

    def release(self) -> None:
        """End the exchange at once."""
        if self._response is None:
            return
        if self._blocking:
            self._response.close()
        else:
            call_soon(self._loop, create_task, self._loop, self._close)

    def _limit(self, until: float) -> contextlib.AbstractContextManager[object]:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return contextlib.nullcontext() if self._blocking else anyio.fail_after(_seconds(left))

    async def _close(self) -> None:
        self._body = None
        response, self._response = self._response, None
        if response is None:
            return
        if self._blocking:
            response.close()
        else:
            await response.aclose()


class _Awaited:
    """A sync iterator as an async one that never suspends."""

    def __init__(self, iterator: Iterator[bytes]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> _Awaited:
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self._iterator)
        except StopIteration:
            raise StopAsyncIteration from None


def _seconds(left: float) -> float | None:
    return None if left == float("inf") else left


def _request(request: PreparedRequest, connect: float | None, until: float) -> httpx.Request:
    left = _seconds(until - time.monotonic())
    limits = [limit for limit in (connect, left) if limit is not None]
    return httpx.Request(
        request.method,
        f"{request.endpoint.origin}{request.target}",
        headers=[*request.headers],
        content=request.body,
        extensions={
            "timeout": {"connect": min(limits, default=None), "read": left, "write": left, "pool": left}
        },
    )


def _failure(error: Exception, *, sent: bool) -> Failure:
    kind: FailureKind = "broken"
    detail = reason(error)
    if isinstance(error, TransportError):
        kind, detail = error.kind, error.detail
    elif isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        kind, detail = "timeout", NO_CONNECTION
    elif isinstance(error, httpx.TimeoutException | TimeoutError):
        kind, detail = "timeout", LATE
    elif isinstance(error, httpx.ConnectError):
        kind = "tls" if _is_tls(error) else "connect"
    elif isinstance(error, httpx.ProxyError):
        kind, detail = "connect", "the proxy does not connect to it"  # httpx quotes the proxy's words
    elif isinstance(error, httpx.ProtocolError):
        # Not the library's message: it quotes the bytes received.
        closed = str(error).startswith(_CLOSED)
        kind, detail = ("broken", CUT_OFF) if closed else ("protocol", NOT_HTTP)
    return Failure(kind, detail, sent)


def _is_tls(error: BaseException | None) -> bool:
    """Whether an error was caused by TLS, directly or not."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
