"""One attempt's circumstances: what was asked of whom, how far it came, and the time it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from ccroute.backends import HttpRequest
from ccroute.flow.desk import Desk
from ccroute.routing import Candidate, Deployment
from ccroute.routing.notes import Admission
from ccroute.types import Completion, Request, Route, Timeout
from ccroute.types.clock import Clock
from ccroute.wire.codec import StreamDecoder


@dataclass(slots=True)
class Progress:
    """How far an attempt came; its log is written from here, also when it is cancelled.

    `started` is monotonic, `began` the same moment in UTC; `first_content` is seconds later. `heard`
    is the instant since which the server has been waited for without content, `paused` the seconds
    that the caller took between chunks, `key` says which of the backend's keys was sent,
    `formed` whether `response_format` was; `refused` is a whole answer that did not do what was asked,
    `admission` the leave of the deployment's health, `left_out` the parameters that it refused before.
    """

    started: float
    began: datetime
    heard: float = 0.0
    paused: float = 0.0
    key: int = 0
    sent: bool = False
    status: int | None = None
    reconnected: bool = False
    request_id: str | None = None
    first_content: float | None = None
    decoder: StreamDecoder | None = None
    dropped: tuple[str, ...] = ()
    formed: bool = False
    refused: Completion | None = None
    left_out: frozenset[str] = frozenset()
    admission: Admission | None = None

    def begin(self, clock: Clock) -> None:
        """The wait for a place at the host is over."""
        self.started = self.heard = clock.monotonic()
        self.began = clock.now()

    def so_far(self) -> Completion | None:
        """The part of a streamed answer that has come, or a whole one that was refused; None if nothing has,
        or its decoder cannot tell."""
        if self.refused is not None:
            return self.refused
        partial: Callable[[], Completion] | None = getattr(self.decoder, "partial", None)
        return None if partial is None or self.first_content is None else partial()


@dataclass(slots=True)
class Ticket:
    """What is known of a call while it runs, for whoever reads its stream."""

    id: str = ""
    model: str = ""
    route: Route = field(default_factory=Route)
    begun: Completion | None = None
    prompt: Callable[[], int] = int
    """Estimates the prompt's tokens, for whoever asks before the server tells."""
    asked: tuple[Candidate, Progress] | None = None
    """The latest attempt: who is asked, and how far that came."""


class Limits(NamedTuple):
    """The limits of one attempt: `until` and `first` are monotonic instants, the others seconds."""

    until: float
    connect: float | None
    first: float
    idle: float


class Job(NamedTuple):
    """One attempt's circumstances. `deadline` is the call's, on the monotonic clock."""

    deployment: Deployment
    request: Request
    stream: bool
    timeout: Timeout
    deadline: float
    progress: Progress
    ticket: Ticket
    desk: Desk
    http: HttpRequest

    @property
    def own(self) -> Timeout | None:
        """The backend's own limits, where the call does not say otherwise."""
        given = self.request.timeout
        return None if isinstance(given, Timeout) else self.deployment.backend.timeout

    @property
    def silence(self) -> float:
        """Seconds without content that a server may not take, whatever is asked of it."""
        idle = (self.own or self.timeout).idle
        return float("inf") if idle is None else idle


def limits(job: Job, now: float) -> Limits:
    """What remains for an attempt that starts at `now`."""
    backend = job.own
    own = backend or job.timeout
    holds_back = job.stream and job.deployment.backend.holds_back(job.request)
    idle = job.silence if job.stream and not holds_back else float("inf")
    first = own.first if own.first is not None else idle
    until = job.deadline
    if backend is not None and backend.total is not None:
        until = min(until, now + backend.total)
    for longest in (own.attempt, job.timeout.attempt):
        if longest is not None and job.stream:
            first = min(first, longest)  # after the first content no fallback could use the time
        elif longest is not None:
            until = min(until, now + longest)
    return Limits(until, own.connect, min(until, now + first), idle)


def limit_passed(job: Job, now: float) -> str:
    """The limit that ended an attempt at `now`, as `attempt=10 s`; empty where none is known."""
    own, progress = job.own or job.timeout, job.progress
    begun = progress.first_content is not None
    known = {
        "total": None if job.own is None else job.own.total,
        "attempt": min((each for each in (own.attempt, job.timeout.attempt) if each), default=None),
        "first": None if begun else own.first,
    }
    since = now - progress.started
    passed = {name: limit for name, limit in known.items() if limit is not None and limit <= since}
    if passed:
        name = min(passed, key=passed.__getitem__)
        return f"{name}={passed[name]:g} s"
    return f"idle={own.idle:g} s" if job.stream and own.idle is not None else ""
