"""What an exchange is, how long it may take, and its errors as values instead of foreign exceptions."""

from __future__ import annotations

import os
import select
import ssl
import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol

import httpcore

from ccroute.flow.effects import Failure, Reply
from ccroute.runtime.clock import LONGEST

Errors = tuple[type[Exception], ...]

_CLOSED = ("Server disconnected", "peer closed connection", "peer unexpectedly closed connection")


class Kinds(NamedTuple):
    """How an HTTP library names what may go wrong; anything else that it raises is a bug and passes."""

    connect_timeout: Errors
    connect: Errors
    timeout: Errors
    protocol: Errors
    others: Errors

    @property
    def all(self) -> Errors:
        """Every error that is the transport's."""
        return tuple(kind for kinds in self for kind in kinds)


HTTPCORE = Kinds(
    connect_timeout=(httpcore.ConnectTimeout, httpcore.PoolTimeout),
    connect=(httpcore.ConnectError,),
    timeout=(httpcore.TimeoutException, TimeoutError),
    protocol=(httpcore.ProtocolError,),
    others=(httpcore.NetworkError, OSError),
)


class ProxyTimeout(httpcore.ConnectTimeout):
    """No connection in time, because of the proxy that its words name."""


class Exchange(Protocol):
    """One request and its answer, blocking. `release` may be called at any moment, from any thread, twice.

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
        """Give up what is left of it, at once."""
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
        """Give up what is left of it, at once."""
        ...


class Deadline:
    """The limits of the exchange that a connection is on, as absolute instants, and what it did so far.

    httpcore reads its timeout once and starts it again for each `recv`, so a server that trickles outlives
    any limit. So its own timeouts are not used: each exchange sets `until` here, and so does each read.
    """

    __slots__ = ("connect_until", "over", "process", "received", "sent", "until")

    def __init__(self) -> None:
        self.over = False  # true: no wait is granted any more, so a thread that has the connection stops
        self.process = os.getpid()
        self.begin(float("inf"), None)

    def begin(self, until: float, connect: float | None) -> float:
        """A new exchange starts now, which is returned; nothing of it was sent or received."""
        now = time.monotonic()
        self.until = until
        self.connect_until = float("inf") if connect is None else now + connect
        self.sent = self.received = False
        return now

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child's copy: the connection is the parent's, which may be using it."""
        return self.process != os.getpid()

    def left(self) -> float:
        """Seconds a read or write may still take; raises `ReadTimeout` when there are none."""
        left = self.until - time.monotonic()
        if self.over:
            raise httpcore.ReadError("given up")
        if left <= 0:
            raise httpcore.ReadTimeout("no answer in time")
        return left if left < LONGEST else LONGEST

    def left_to_connect(self) -> float:
        """Seconds the connection may still take to come about."""
        left = min(self.connect_until, self.until) - time.monotonic()
        if self.over:
            raise httpcore.ConnectError("given up")
        if left <= 0:
            raise httpcore.ConnectTimeout("no connection in time")
        return min(left, LONGEST)


def readable(sock: Any) -> bool:
    """Whether something waits to be read: for an idle connection, its end, or bytes not asked for."""
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def reason(error: Exception) -> str:
    """An operating system's words for what went wrong, without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ExceptionGroup):
        return reason(error.exceptions[0])
    return str(error) or type(error).__name__


def failure(error: Exception, kinds: Kinds, *, sent: bool, reconnected: bool = False) -> Failure:
    """What a transport's error says about the request; nothing of the error itself is kept."""
    # h11 leaves a cycle of error and frame, which would keep the caller's frames, and a stream in them.
    cause: BaseException | None = error
    while cause is not None:
        cause = cause.with_traceback(None).__context__
    if isinstance(error, kinds.connect_timeout):
        late = str(error) if isinstance(error, ProxyTimeout) else "no connection within the connect timeout"
        return Failure("timeout", late, sent, reconnected)
    if isinstance(error, kinds.connect):
        kind: Literal["tls", "connect"] = "tls" if isinstance(error.__cause__, ssl.SSLError) else "connect"
        return Failure(kind, reason(error), sent, reconnected)
    if isinstance(error, kinds.timeout):
        return Failure("timeout", "silent for longer than allowed", sent, reconnected)
    if not isinstance(error, kinds.protocol):
        return Failure("broken", reason(error), sent, reconnected)
    # Never in the library's words: they quote what came.
    if str(error).startswith(_CLOSED):
        return Failure("broken", "the server closed it before its answer was complete", sent, reconnected)
    return Failure("protocol", "what came breaks the protocol", sent, reconnected)


def reply(
    status: int, headers: Iterable[tuple[bytes, bytes]], *, reconnected: bool = False
) -> Reply | Failure:
    """The head of an answer; a switch of protocols is none."""
    if status == 101:
        return Failure("protocol", "it wants to switch protocols", sent=True)
    names = {name.decode("ascii", "replace").lower(): value.decode("latin-1") for name, value in headers}
    return Reply(status, names, reconnected)
