"""What a flow may ask of its driver, and the typed helpers by which it asks.

Effects are data: they hold no callback, and nothing is changed through them. A raw `yield` has type Any,
so it is only here; all other code writes `reply = yield from send(…)`. `until` is always an instant on the
monotonic clock; `Sleep.seconds` and `Send.connect` are durations.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from ccroute.backends import Backend
from ccroute.http.message import Failure, PreparedRequest, Reply
from ccroute.types import Chunk

if TYPE_CHECKING:
    from ccroute.routing import Deployment
    from ccroute.routing.scheduling import Grant
    from ccroute.routing.sleeper import Sleeper

T = TypeVar("T")


class Enter(NamedTuple):
    """Ask for a slot at the host of any of these deployments, the preferred one first. Each host may serve
    only so many calls at a time.

    The result is a `Granted`, `Queued` (the call waits: go on with `Wait`), or a `Failure`. Flows ask only
    for hosts with a limit.
    """

    options: Sequence[Deployment]
    priority: int


class Wait(NamedTuple):
    """Wait for the slot that `Enter` queued for. The result is a `Granted`, `Look`, a `Queued` at the instant
    `decides`, or at `until` a `Failure`. After `Look` and `Queued`, the call still waits: go on with another
    `Wait`."""

    until: float
    decides: float = float("inf")


class Leave(NamedTuple):
    """The attempt is over: its connection and its slot are given back."""


class Send(NamedTuple):
    """Send a request and wait for the head of the answer. Ends what was sent before.

    `connect` is the seconds for name look-up, TCP and TLS, where a new connection is needed. Where a call is
    cancelled meanwhile, the driver throws `Stopped` into the flow.
    """

    request: PreparedRequest
    connect: float | None
    until: float


@dataclass(slots=True)  # a stream makes one of each per chunk; a named tuple would cost 0.2 µs more
class Read:
    """Wait for the next bytes of the answer's body; `b""` is its end."""

    until: float


class Sleep(NamedTuple):
    """Let `seconds` pass, or less if the `sleeper` is woken."""

    seconds: float
    sleeper: Sleeper | None = None


@dataclass(slots=True)
class Emit:
    """Give chunks to the reader of the stream."""

    chunks: Sequence[Chunk]


class Queued(NamedTuple):
    """The host is busy, and `ahead` calls wait already. `seconds`: the predicted wait from now on."""

    ahead: int
    seconds: float = 0.0


@dataclass(slots=True)
class Granted:
    """The call has a slot, for the option of this number.

    grant: what the schedule knows of it; None at a host that was freed of its limit meanwhile.
    """

    option: int = 0
    grant: Grant | None = None


class Look(NamedTuple):
    """Ask the backend which models its server has loaded, and tell the schedule: a waiting call does that, at
    most every few seconds."""

    backend: Backend


class Stopped(BaseException):
    """Thrown into a flow that is stopped while it sends: `error` stopped it, and `sent` says whether any byte
    of the request may have reached the server."""

    def __init__(self, error: BaseException, *, sent: bool) -> None:
        super().__init__(sent)
        self.error = error
        self.sent = sent


Effect: TypeAlias = Enter | Wait | Leave | Send | Read | Sleep | Emit
Flow: TypeAlias = Generator[Effect, Any, T]


def enter(effect: Enter) -> Flow[Granted | Queued | Failure]:
    """A slot at a host, a place in the queue, or why there is neither."""
    entered: Granted | Queued | Failure = yield effect
    return entered


def wait(until: float, decides: float = float("inf")) -> Flow[Granted | Look | Queued | Failure]:
    """The slot that the call is queued for, something to do meanwhile, or why there is no slot."""
    waited: Granted | Look | Queued | Failure = yield Wait(until, decides)
    return waited


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


def sleep_until_woken(seconds: float, sleeper: Sleeper) -> Flow[None]:
    """Let time pass until there is something to look at."""
    yield Sleep(seconds, sleeper)


def emit(chunks: Sequence[Chunk]) -> Flow[None]:
    """Give chunks to the reader of the stream."""
    yield Emit(chunks)
