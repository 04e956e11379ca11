"""What a flow may ask of its driver, and the typed helpers by which it asks.

A raw `yield` has type Any, so it stands only here; everybody else writes `reply = yield from send(…)`.
Every limit is absolute, on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from ccroute.accounting import LedgerRow
from ccroute.backends import Backend, HttpRequest
from ccroute.types import Chunk

T = TypeVar("T")


class Sending(Protocol):
    """Where a transport notes whether any byte of a request may have reached the server; it does so
    however the sending ends, also when it is cancelled."""

    sent: bool


class Enter(NamedTuple):
    """Wait for a place at the backend's host, where it serves only so many calls at a time.

    `model` is the one that would be loaded there. `queued` is called, with how many are ahead, when
    there is no place yet.
    """

    backend: Backend
    model: str
    priority: int
    until: float
    queued: Callable[[int], None]


class Leave(NamedTuple):
    """The attempt is over: its connection and its place at the host are given up."""


class Send(NamedTuple):
    """Send a request and wait for the head of the answer. Ends what was sent before."""

    backend: Backend
    http: HttpRequest
    headers: Sequence[tuple[bytes, bytes]]
    connect: float | None
    """Seconds for name look-up, TCP and TLS, where a new connection is needed."""
    until: float
    progress: Sending

    def __repr__(self) -> str:
        """Without what the headers hold: one of them is the key."""
        return f"Send({self.http!r} to {self.backend!r} with {len(self.headers)} headers)"


class Read(NamedTuple):
    """Wait for the next bytes of the answer's body; `b""` is its end."""

    until: float


class Sleep(NamedTuple):
    """Let `seconds` pass."""

    seconds: float


class Emit(NamedTuple):
    """Hand chunks to whoever reads the stream."""

    chunks: Sequence[Chunk]


class Record(NamedTuple):
    """Write one attempt into the ledger."""

    row: LedgerRow


class Reply(NamedTuple):
    """The head of an answer; header names are lower case.

    `reconnected`: the server had closed the kept connection before a byte came back, so the
    request went out once more on a fresh one.
    """

    status: int
    headers: Mapping[str, str]
    reconnected: bool = False

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.headers)} headers)"


class Failure(NamedTuple):
    """Why there is no answer, or no more of it.

    queue: no place at the host. connect: no connection. tls: the other end is not who it should be.
    broken: the connection ended. timeout: `until` or `connect` passed. protocol: what came is not
    HTTP. `sent` says whether any byte of the request may have reached the server.
    """

    kind: Literal["queue", "connect", "tls", "broken", "timeout", "protocol"]
    detail: str
    sent: bool
    reconnected: bool = False


Effect: TypeAlias = Enter | Leave | Send | Read | Sleep | Emit | Record
Flow: TypeAlias = Generator[Effect, Any, T]


def enter(effect: Enter) -> Flow[Failure | None]:
    """A place at the host, or why there is none."""
    failure: Failure | None = yield effect
    return failure


def leave() -> Flow[None]:
    """Give up connection and place."""
    yield Leave()


def send(effect: Send) -> Flow[Reply | Failure]:
    """The head of the answer, or why there is none."""
    reply: Reply | Failure = yield effect
    return reply


def read(until: float) -> Flow[bytes | Failure]:
    """The next bytes of the body, `b""` at its end."""
    data: bytes | Failure = yield Read(until)
    return data


def sleep(seconds: float) -> Flow[None]:
    """Let time pass."""
    yield Sleep(seconds)


def emit(chunks: Sequence[Chunk]) -> Flow[None]:
    """Hand chunks to the reader of the stream."""
    yield Emit(chunks)


def record(row: LedgerRow) -> Flow[None]:
    """Write a ledger row."""
    yield Record(row)
