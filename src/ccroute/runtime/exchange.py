"""What an exchange is, and what goes wrong with one, as values instead of foreign exceptions."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

import httpcore

from ccroute.flow.effects import Failure, Reply
from ccroute.runtime.lease import reason

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
    """One request and its answer, blocking. `release` may be called at any moment, from any thread, twice."""

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

    async def send(self) -> Reply | Failure:
        """Send the request and wait for the head of the answer."""
        ...

    async def read(self, until: float) -> bytes | Failure:
        """The next bytes, `b""` at the end."""
        ...

    def release(self) -> None:
        """Give up what is left of it, at once."""
        ...


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
