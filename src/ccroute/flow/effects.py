"""What a flow may ask of its driver, and the typed helpers by which it asks.

Effects are data: they hold no callback, and nothing is changed through them. A raw `yield` has type Any,
so it is only here; all other code writes `reply = yield from send(…)`. `until` is always an instant on the
monotonic clock; `Sleep.seconds` and `Send.connect` are durations.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from ccroute.backends import Backend, HttpRequest
from ccroute.types import Chunk

T = TypeVar("T")


class Enter(NamedTuple):
    """Ask for a slot at the backend's host, which may serve only so many calls at a time.

    The result is None (the call has a slot), `Queued` (it waits for one: go on with `Wait`), or a `Failure`.
    Flows ask only for hosts with a limit. `model` is the one that would be loaded there.
    """

    backend: Backend
    model: str
    priority: int


class Wait(NamedTuple):
    """Wait for the slot that `Enter` queued for. The result is None, or a `Failure` at `until`."""

    until: float


class Leave(NamedTuple):
    """The attempt is over: its connection and its slot are given back."""


class Send(NamedTuple):
    """Send a request and wait for the head of the answer. Ends what was sent before.

    `connect` is the seconds for name look-up, TCP and TLS, where a new connection is needed. Where a call is
    cancelled meanwhile, the driver throws `Stopped` into the flow.
    """

    backend: Backend
    http: HttpRequest
    headers: Sequence[tuple[bytes, bytes]]
    connect: float | None
    until: float

    def __repr__(self) -> str:
        """Without the headers' values: one of them is the key."""
        return f"Send({self.http!r} to {self.backend!r} with {len(self.headers)} headers)"


class Read(NamedTuple):
    """Wait for the next bytes of the answer's body; `b""` is its end."""

    until: float


class Sleep(NamedTuple):
    """Let `seconds` pass."""

    seconds: float


class Emit(NamedTuple):
    """Give chunks to the reader of the stream."""

    chunks: Sequence[Chunk]


class Queued(NamedTuple):
    """The host is busy, and `ahead` calls wait already."""

    ahead: int


class Reply(NamedTuple):
    """The head of an answer; header names are lower case.

    `reconnected`: the server had closed the kept connection before a byte came back, so the
    request was sent once more on a fresh one.
    """

    status: int
    headers: Mapping[str, str]
    reconnected: bool = False

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.headers)} headers)"


class Failure(NamedTuple):
    """Why there is no answer, or no more of it.

    queue: no slot at the host. connect: no connection. tls: the other end is not who it should be.
    broken: the connection ended. timeout: `until` or `connect` passed. protocol: what came is not
    HTTP. `sent` says whether any byte of the request may have reached the server.
    """

    kind: Literal["queue", "connect", "tls", "broken", "timeout", "protocol"]
    detail: str
    sent: bool
    reconnected: bool = False


class Stopped(BaseException):
    """Thrown into a flow that is stopped while it sends: `error` stopped it, and `sent` says whether any byte
    of the request may have reached the server."""

    def __init__(self, error: BaseException, *, sent: bool) -> None:
        super().__init__(sent)
        self.error = error
        self.sent = sent


Effect: TypeAlias = Enter | Wait | Leave | Send | Read | Sleep | Emit
Flow: TypeAlias = Generator[Effect, Any, T]


def enter(effect: Enter) -> Flow[Queued | Failure | None]:
    """A slot at the host, a place in its queue, or why there is neither."""
    entered: Queued | Failure | None = yield effect
    return entered


def wait(until: float) -> Flow[Failure | None]:
    """The slot that the call is queued for, or why there is none."""
    failure: Failure | None = yield Wait(until)
    return failure


def leave() -> Flow[None]:
    """Give back connection and slot."""
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
    """Give chunks to the reader of the stream."""
    yield Emit(chunks)
