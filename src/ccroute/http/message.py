"""What an exchange takes and gives: a request, the head of its answer, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from ccroute.http.origin import Origin

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
CUT_OFF = "the server closed the connection before the answer was complete"
NOT_HTTP = "the answer breaks the protocol"
SWITCHES = "the server wants to switch protocols"
LATE = "silent for longer than allowed"
NO_CONNECTION = "no connection within the connect timeout"

FailureKind: TypeAlias = Literal["queue", "connect", "tls", "broken", "timeout", "protocol"]


class Endpoint(NamedTuple):
    """Where to connect, and how. Requests to the same endpoint share connections.

    `ca_file` has the certificate authorities to trust instead of the public ones. A `direct` endpoint is
    never reached through a proxy.
    """

    origin: Origin
    ca_file: str | None = None
    direct: bool = False


class PreparedRequest(NamedTuple):
    """One request. `headers` include `host` and, with a body, `content-length`."""

    endpoint: Endpoint
    method: str
    target: str
    headers: Headers
    body: bytes = b""

    def __repr__(self) -> str:
        """Without body and header values: they hold the prompt and the key."""
        names = ", ".join(name.decode() for name, _ in self.headers)
        where = f"{self.endpoint.origin}{self.target}"
        return f"PreparedRequest({self.method} {where}, {len(self.body)} bytes, headers: {names})"


class Reply(NamedTuple):
    """The head of an answer; header names are lower case.

    `reconnected`: the server had closed the kept connection before a byte of the answer, so the request was
    sent once more on a new one. `body`: the whole body, if it came with the head; reading gives it, too.
    """

    status: int
    headers: Mapping[str, str]
    reconnected: bool = False
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.headers)} headers)"


class Failure(NamedTuple):
    """Why there is no answer, or no more of it.

    queue: no slot at the host. connect: no connection. tls: the other end is not who it should be. broken:
    the connection ended. timeout: a time limit passed. protocol: what came is not HTTP. `sent` says whether
    any byte of the request may have reached the server.
    """

    kind: FailureKind
    detail: str
    sent: bool
    reconnected: bool = False


class TransportError(Exception):
    """A connection cannot be made, or it failed.

    `detail` is fit for users: it quotes nothing that was received.
    """

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: FailureKind = kind
        self.detail = detail


class Exchange(Protocol):
    """One request and its answer. `release` may be called at any time, from any thread, repeatedly.

    sent: whether any byte of the request may have reached the server.
    """

    sent: bool

    async def send(self) -> Reply | Failure:
        """Send the request and wait for the head of the answer."""
        ...

    async def read(self, until: float) -> bytes | Failure:
        """The next bytes of the body, `b""` at its end. `until` is an instant of `time.monotonic`."""
        ...

    def release(self) -> None:
        """End the exchange at once, and close its connection unless the answer was read to its end."""
        ...
        ...


def write_head(method: str, target: str, headers: Headers) -> bytes:
    """A request's first bytes, up to its body."""
    lines = [f"{method} {target} HTTP/1.1".encode(), *map(b": ".join, headers), b"", b""]
    return b"\r\n".join(lines)


def reason(error: Exception) -> str:
    """The operating system's text for an error, without addresses."""
    if (fault := getattr(error, "verify_message", None)) is not None:  # of ssl
        return f"the certificate is not valid: {fault}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
