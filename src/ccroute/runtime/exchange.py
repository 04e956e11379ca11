"""An exchange: one request and its answer, its time limits, and its errors as `Failure` values."""

from __future__ import annotations

import os
import select
import ssl
import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol

import httpcore

from ccroute.flow.effects import Failure, Reply
from ccroute.runtime.clock import LONGEST_WAIT

Errors = tuple[type[Exception], ...]

_CLOSED = ("Server disconnected", "peer closed connection", "peer unexpectedly closed connection")


class TransportErrors(NamedTuple):
    """The exception classes of an HTTP library, by cause. Any other exception is a bug and is not caught."""

    connect_timeout: Errors
    connect: Errors
    timeout: Errors
    protocol: Errors
    others: Errors

    @property
    def all(self) -> Errors:
        """All of these classes."""
        return tuple(error for errors in self for error in errors)


HTTPCORE = TransportErrors(
    connect_timeout=(httpcore.ConnectTimeout, httpcore.PoolTimeout),
    connect=(httpcore.ConnectError,),
    timeout=(httpcore.TimeoutException, TimeoutError),
    protocol=(httpcore.ProtocolError,),
    others=(httpcore.NetworkError, OSError),
)


class ProxyTimeout(httpcore.ConnectTimeout):
    """No connection in time, because of a proxy. The message names the proxy."""


class Exchange(Protocol):
    """One request and its answer, blocking. `release` may be called at any time, from any thread, repeatedly.

    sent: whether any byte of the request may have reached the server.
    """

    sent: bool

    def send(self) -> Reply | Failure:
        """Send the request and wait for the head of the answer."""
        ...

    def read(self, until: float) -> bytes | Failure:
        """The next bytes, `b""` at the end."""
        ...

    def release(self) -> None:
        """End the exchange at once, and close its connection unless the answer was read to its end."""
        ...
        ...


class AsyncExchange(Protocol):
    """One request and its answer, on the running loop. `release` does not wait."""

    sent: bool

    async def send(self) -> Reply | Failure:
        """Send the request and wait for the head of the answer."""
        ...

    async def read(self, until: float) -> bytes | Failure:
        """The next bytes, `b""` at the end."""
        ...

    def release(self) -> None:
        """End the exchange at once, and close its connection unless the answer was read to its end."""
        ...
        ...


class Deadline:
    """The time limits of a connection's current exchange, as absolute instants, and its progress.

    httpcore starts its timeout again for each `recv`, so a server that sends slowly could exceed any limit.
    So httpcore's timeouts are not used: each exchange sets `until` here, and so does each read.
    """

    __slots__ = ("connect_until", "over", "process", "received", "sent", "until")

    def __init__(self) -> None:
        self.over = False  # True: closed, so a thread that uses the connection stops at its next wait
        self.process = os.getpid()
        self.begin(float("inf"), None)

    def begin(self, until: float, connect: float | None) -> float:
        """Start a new exchange, with nothing sent or received; returns the present instant."""
        now = time.monotonic()
        self.until = until
        self.connect_until = float("inf") if connect is None else now + connect
        self.sent = self.received = False
        return now

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child's copy: the parent may still use the connection."""
        return self.process != os.getpid()

    def left(self) -> float:
        """Seconds left for a read or write. Raises `ReadTimeout` at the deadline, `ReadError` after close."""
        left = self.until - time.monotonic()
        if self.over:
            raise httpcore.ReadError("the connection was closed")
        if left <= 0:
            raise httpcore.ReadTimeout("no answer in time")
        return left if left < LONGEST_WAIT else LONGEST_WAIT

    def left_to_connect(self) -> float:
        """Seconds left to connect. Raises `ConnectTimeout` at the deadline, `ConnectError` after close."""
        left = min(self.connect_until, self.until) - time.monotonic()
        if self.over:
            raise httpcore.ConnectError("the connection was closed")
        if left <= 0:
            raise httpcore.ConnectTimeout("no connection in time")
        return min(left, LONGEST_WAIT)


def readable(sock: Any) -> bool:
    """Whether a read would not wait: an idle connection was closed, or has unexpected bytes."""
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def reason(error: Exception) -> str:
    """The operating system's text for an error, without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ExceptionGroup):
        return reason(error.exceptions[0])
    return str(error) or type(error).__name__


def failure(error: Exception, errors: TransportErrors, *, sent: bool, reconnected: bool = False) -> Failure:
    """The `Failure` for a transport's error; `errors` are those of its library. The error is not kept."""
    # h11 leaves a reference cycle of error and frame: it would keep the caller's frames and streams alive.
    cause: BaseException | None = error
    while cause is not None:
        cause = cause.with_traceback(None).__context__
    if isinstance(error, errors.connect_timeout):
        late = str(error) if isinstance(error, ProxyTimeout) else "no connection within the connect timeout"
        return Failure("timeout", late, sent, reconnected)
    if isinstance(error, errors.connect):
        kind: Literal["tls", "connect"] = "tls" if isinstance(error.__cause__, ssl.SSLError) else "connect"
        return Failure(kind, reason(error), sent, reconnected)
    if isinstance(error, errors.timeout):
        return Failure("timeout", "silent for longer than allowed", sent, reconnected)
    if not isinstance(error, errors.protocol):
        return Failure("broken", reason(error), sent, reconnected)
    # Not the library's message: it quotes the bytes received.
    if str(error).startswith(_CLOSED):
        return Failure(
            "broken", "the server closed the connection before the answer was complete", sent, reconnected
        )
    return Failure("protocol", "the answer breaks the protocol", sent, reconnected)


def reply(
    status: int, headers: Iterable[tuple[bytes, bytes]], *, reconnected: bool = False
) -> Reply | Failure:
    """The head of an answer. A switch of protocols (101) is a `Failure`."""
    if status == 101:
        return Failure("protocol", "the server wants to switch protocols", sent=True)
    names = {name.decode("ascii", "replace").lower(): value.decode("latin-1") for name, value in headers}
    return Reply(status, names, reconnected)
