"""One attempt: who is asked, how far it came, what it holds, and the time it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from ccroute.accounting.tokens import estimate_text
from ccroute.backends.credentials import Secrets
from ccroute.failures import is_charged
from ccroute.flow.state import RouterState
from ccroute.routing import Candidate, Deployment, Plan
from ccroute.routing.acquired import Acquired, AttemptOutcome
from ccroute.routing.health.switches import Admission
from ccroute.types import Completion, Request, Timeout, Usage
from ccroute.wire.decoding import StreamDecoder

if TYPE_CHECKING:
    from ccroute.flow.waits.patience import Patience
    from ccroute.routing.budgets.reservation import Reservation
    from ccroute.routing.rate_limits import Turn
    from ccroute.routing.scheduling import Grant

FOREVER = float("inf")
UNUSED = Usage.model_construct()
MIN_ATTEMPT = 0.05
"""Seconds that must be left for an attempt to be worth starting."""


class Limits(NamedTuple):
    """The limits of one attempt: `until` and `first` are monotonic instants, the others seconds."""

    until: float
    connect: float | None
    first: float
    idle: float


@dataclass(slots=True, eq=False, repr=False)
class AttemptContext:
    """Everything about one attempt; the call's record of it is written from here, also when it is stopped.

    call_id:         the call's id.
    timeout:         the call's limits; `deadline` is their end, monotonic.
    early:           the deployment is tried before its time, because nobody else is left.
    wait:            seconds to sleep before it.
    request:         what is asked: the plan's request, and then as the deployment gets it.
    id:              its row's.
    turn:            its turn under the deployment's rate limit, where there is one.
    reservation:     what it may spend, where it needs a budget.
    held:            what was acquired for it.
    started, started_at: its start, monotonic and in UTC.
    admission:       given by the deployment's health; None until the attempt may send.
    sent:            whether any byte of the request may have reached the server.
    key:             the fingerprint of the key that was sent.
    secrets:         what may not be shown, with the key that was sent: a backend forgets old ones.
    known_answer:    the answer as far as it is known: what a stream's first content showed, later all of it.
    first_content:   seconds until the first content of a stream.
    waiting_since:   the instant since which the server has sent no content.
    paused:          seconds that the caller took between chunks.
    queued:          seconds that it waited for a slot at the host, for its turn under a rate limit, or for a
                     budget.
    is_queued:       it waits for that just now.
    slot_wait:       the seconds of `queued` that it waited for a slot.
    has_slot:        it has a slot at a host with a limit, and `grant` says what the schedule knows of it.
    patience:        how long it waited for that slot, where its call says what a wait costs.
    may_wait:        whether it waits for a budget: not where it was taken because it needs no wait.
    load:            seconds that the server says that it loaded the model.
    changes:         a sentence for each difference between what was asked and what was sent.
    defaults:        the parameters that were sent because the model's `params` name them.
    refused_before:  the parameters that the server is known to refuse.
    asks_for_format: whether `response_format` was sent.
    rejected_answer: a whole answer that did not do what was asked.
    is_free:         the provider does not charge for the answer.
    """

    state: RouterState
    plan: Plan
    call_id: str
    timeout: Timeout
    deadline: float
    candidate: Candidate
    stream: bool
    early: bool
    wait: float
    started: float
    started_at: datetime
    waiting_since: float
    request: Request
    id: str = ""
    turn: Turn | None = None
    reservation: Reservation | None = None
    held: list[Acquired] = field(default_factory=list)
    admission: Admission | None = None
    sent: bool = False
    key: int = 0
    secrets: Secrets | None = None
    status: int | None = None
    reconnected: bool = False
    request_id: str | None = None
    first_content: float | None = None
    paused: float = 0.0
    queued: float = 0.0
    is_queued: bool = False
    slot_wait: float = 0.0
    has_slot: bool = False
    grant: Grant | None = None
    patience: Patience | None = None
    may_wait: bool = True
    load: float | None = None
    decoder: StreamDecoder | None = None
    known_answer: Completion | None = None
    changes: tuple[str, ...] = ()
    defaults: frozenset[str] = frozenset()
    refused_before: frozenset[str] = frozenset()
    asks_for_format: bool = False
    rejected_answer: Completion | None = None
    is_free: bool = False

    def __repr__(self) -> str:
        """Without what was asked or answered."""
        return f"AttemptContext({self.deployment.name}, status={self.status})"

    @property
    def deployment(self) -> Deployment:
        """Who is asked."""
        return self.candidate.deployment

    def at(self, candidate: Candidate) -> AttemptContext:
        """The same attempt at another candidate, of which nothing is acquired yet."""
        now, clock = self.state.clock.monotonic(), self.state.clock
        return AttemptContext(
            self.state,
            self.plan,
            self.call_id,
            self.timeout,
            self.deadline,
            candidate,
            self.stream,
            False,
            0.0,
            now,
            clock.now(),
            now,
            self.plan.request,
            self.id,
            queued=self.queued,
            slot_wait=self.slot_wait,
        )

    def note_change(self, what: str) -> None:
        """Write down that the deployment gets another request than was asked."""
        self.changes += (f"{self.deployment.name}: {what}",)

    def restart_clock(self) -> None:
        """Count the attempt's time from now on."""
        clock = self.state.clock
        self.started = self.waiting_since = clock.monotonic()
        self.started_at = clock.now()

    def leave_queue(self) -> None:
        """It waited for others until now; the time it takes itself is counted from here."""
        before, self.is_queued = self.started, False
        self.restart_clock()
        self.queued += self.started - before

    def stop_waiting(self) -> None:
        """The call ends before the attempt could send: it took no time itself."""
        if self.is_queued:
            self.leave_queue()
        else:
            self.restart_clock()

    def content_begins(self) -> None:
        """The first content of a stream is there: others need not wait for the end of a probe."""
        self.first_content = self.state.clock.monotonic() - self.started
        self.known_answer = self.so_far()
        if self.admission is not None:
            self.state.health.answers(self.admission)
        if self.grant is not None:
            self.state.hosts.answered(self.grant)

    def settle(self, outcome: AttemptOutcome | None) -> None:
        """Give back everything that was acquired, the latest first. None: no attempt was made."""
        while self.held:
            self.held.pop().settle(outcome)

    def so_far(self) -> Completion | None:
        """The part of a streamed answer that has come, or a whole one that was rejected; None if nothing has,
        or its decoder cannot say."""
        if self.rejected_answer is not None:
            return self.rejected_answer
        partial: Callable[[], Completion] | None = getattr(self.decoder, "partial", None)
        if partial is None:
            return None
        try:
            return partial()
        except Exception:  # of a user's own decoder: what the attempt cost is written down all the same
            return None

    def prompt_tokens(self) -> int:
        """The prompt's tokens, estimated."""
        return self.plan.prompt.estimated(self.state.count_tokens, self.plan.request)

    def used(self, answer: Completion) -> Usage:
        """The server's usage, or an estimate of what it did not say."""
        usage = answer.usage
        if not usage.output and not usage.total_tokens:
            usage = Usage.model_construct(output=estimate_text(answer.text), estimated=True)
        if usage.estimated and not usage.prompt_tokens:
            usage = usage.model_copy(update={"input": self.prompt_tokens()})
        return usage

    def spent(self, *, refused: bool = False) -> Usage:
        """What it probably used without an answer: its prompt, and what had been streamed.

        refused: the provider charges for a request that it refused.
        """
        may_charge = refused or self.status is None or is_charged(self.status)
        if not (self.sent and may_charge):
            return UNUSED
        so_far = self.so_far()
        if so_far is not None:
            return self.used(so_far)
        return Usage.model_construct(input=self.prompt_tokens(), estimated=True)

    @property
    def own_timeout(self) -> Timeout | None:
        """The backend's own limits, where the call does not give its own."""
        given = self.plan.request.timeout
        return None if isinstance(given, Timeout) else self.candidate.deployment.backend.timeout

    @property
    def longest_silence(self) -> float:
        """Seconds without content that count as a failure of the server, whatever was asked of it."""
        idle = (self.own_timeout or self.timeout).idle
        return FOREVER if idle is None else idle

    def limits(self) -> Limits:
        """What remains for an attempt that starts now."""
        backend, call, now = self.own_timeout, self.timeout, self.started
        own = backend or call
        idle = FOREVER
        if (
            self.stream
            and own.idle is not None
            and not self.deployment.backend.buffers_tool_calls(self.request)
        ):
            idle = own.idle
        first = own.first if own.first is not None else idle
        until = self.deadline
        if backend is not None and backend.total is not None:
            until = min(until, now + backend.total)
        for longest in filter(None, (own.attempt, call.attempt)):
            if self.stream:
                first = min(first, longest)  # after the first content no fallback could use the time
            else:
                until = min(until, now + longest)
        return Limits(until, own.connect, min(until, now + first), idle)

    def limit_passed(self, now: float) -> str:
        """The limit that ended the attempt at `now`, as `attempt=10 s`; empty where none is known."""
        backend, call = self.own_timeout, self.timeout
        own = backend or call
        known = {
            "total": None if backend is None else backend.total,
            "attempt": min((each for each in (own.attempt, call.attempt) if each), default=None),
            "first": None if self.first_content is not None else own.first,
        }
        since = now - self.started
        passed = {name: limit for name, limit in known.items() if limit is not None and limit <= since}
        if passed:
            name = min(passed, key=passed.__getitem__)
            return f"{name}={passed[name]:g} s"
        return f"idle={own.idle:g} s" if self.stream and own.idle is not None else ""
