"""What a failure cost, whom to try next, and how long to wait before it. The only user of tenacity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    ContextWindowExceededError,
    EgressDeniedError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    ServerError,
)
from ccroute.flow.desk import Desk
from ccroute.routing import Candidate, Deployment
from ccroute.routing.agents import Trigger
from ccroute.routing.notes import Refusal
from ccroute.types import FailureClass, Request

if TYPE_CHECKING:
    from tenacity import RetryCallState

POLL, LONGEST_POLL = 0.25, 2.0
"""Seconds until a server that is loading is asked again, doubling up to the longest, less some jitter."""
_REJECTED = frozenset({408, 409, 425, 429, 503, 529})
"""Statuses by which a server says that it did not begin."""

# The first that fits decides; a subclass stands before its base.
_CLASS_BY_ERROR: tuple[tuple[type[CcrouteError], FailureClass], ...] = (
    (ContextWindowExceededError, "context_length"),
    (RequestError, "invalid_request"),
    (EgressDeniedError, "invalid_request"),
    (AuthenticationError, "credential"),
    (PermissionDeniedError, "credential"),
    (QuotaExhaustedError, "credential"),
    (ModelNotFoundError, "unavailable"),
    (RateLimitError, "rejected"),
    (OverloadedError, "rejected"),
    (ServerError, "ambiguous"),
    (ProtocolError, "ambiguous"),
    (ConnectionFailedError, "ambiguous"),
    (BackendTimeoutError, "ambiguous"),
)


def failure_class(error: CcrouteError) -> FailureClass:
    """The class of an error that a codec raised: what it cost and what may follow.

    A backend's answer that is none of the known ones (a redirect, 405, 410) is "unavailable": this deployment
    will not answer, others may.
    """
    if isinstance(error, BackendError) and not error.sent:
        return "not_sent"
    # A request or a bill that is refused stays so, whatever status said it.
    refused = isinstance(error, RequestError | QuotaExhaustedError)
    if not refused and getattr(error, "status", None) in _REJECTED:
        return "rejected"
    for kind, letter in _CLASS_BY_ERROR:
        if isinstance(error, kind):
            return letter
    return "unavailable"


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed attempt: the typed error, its class, and whether the same deployment may be tried again."""

    error: CcrouteError
    failure: FailureClass
    again: bool | None = None
    """False: another deployment only (TLS faults, `x-should-retry: false`). True: the server asks to be
    tried once more. None: as its class says."""
    elsewhere: bool = False
    """Of "invalid_request": only this deployment cannot serve the request, another may."""
    drops: str | None = None
    """Of "invalid_request": the parameter that the server refused, without which it is asked again."""

    @property
    def trigger(self) -> Trigger:
        """Which of an agent's fallback triggers this failure is."""
        return "token_limit" if self.failure == "context_length" else _trigger(self.error)

    @property
    def waits(self) -> bool:
        """Whether the server only has to finish something (loading, its queue) before it can answer."""
        return (
            self.again is not False and self.failure == "rejected" and getattr(self.error, "loading", False)
        )

    @property
    def ends(self) -> bool:
        """Whether no other candidate can help."""
        return self.failure == "delivered" or (self.failure == "invalid_request" and not self.elsewhere)

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asked to be left alone for."""
        return getattr(self.error, "retry_after", None)


def _trigger(error: CcrouteError | None) -> Trigger:
    limited = isinstance(error, RateLimitError) and not isinstance(error, QuotaExhaustedError)
    return "rate_limit" if limited else "availability"


class Step(NamedTuple):
    """Whom to try next, and the seconds to wait before it. `early`: its time has not come yet, but
    nobody else is left, so one call may probe it."""

    candidate: Candidate
    wait: float
    early: bool = False


class Walk:
    """One call's way through its candidates: bounded, never twice where it cannot help.

    `refused` says who was passed over at the last step, and why. Sources: the rules in
    docs/architecture.md, "Failures".
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        triggers: Sequence[Trigger],
        desk: Desk,
        request: Request | None = None,
    ) -> None:
        self.refused: dict[str, Refusal] = {}
        self._candidates = candidates
        self._triggers = triggers
        self._policy = desk.retry
        self._random = desk.clock.random
        self._health = desk.health
        self._request = request
        self._budget = desk.retries
        self._counted = 0
        self._tries: Counter[str] = Counter()
        self._polls: Counter[str] = Counter()
        self._ambiguous: Counter[str] = Counter()
        self._cost: dict[str, int] = {}  # of another attempt at a backend, in tokens of its retry budget
        self._off: set[str] = set()
        self._turned_away = False
        self._may_probe = True
        self._ready: dict[str, float] = {}
        self._window: int | None = None
        self._last: Fault | None = None

    def failed(self, candidate: Candidate, fault: Fault, now: float) -> None:
        """Take note of a failed attempt that ended at `now` (monotonic seconds)."""
        if fault.drops:  # asked again without it; no attempt is used up, for nothing was done
            return
        deployment = candidate.deployment
        self._last = fault
        if fault.waits:
            self._wait_for(deployment, fault, now)
            return
        self._tries[deployment.name] += 1
        self._counted += fault.failure != "not_sent"
        self._cost[deployment.backend.name] = 2 if fault.failure == "ambiguous" else 1
        match fault.failure:
            case "credential" if not isinstance(fault.error, PermissionDeniedError):
                self._off.add(deployment.backend.name)  # the credential is everyone's there
            case "ambiguous":
                self._ambiguous[deployment.backend.name] += 1
            case "context_length":
                limit = getattr(fault.error, "limit", None) or deployment.info.context_window
                self._window = max(self._window or 0, limit or 0)
        again = fault.failure in {"not_sent", "rejected", "ambiguous"} or (
            fault.failure == "unavailable" and fault.again
        )
        if not again or fault.again is False:
            self._off.add(deployment.name)
        wait = fault.retry_after
        self._ready[deployment.name] = now + (self._backoff(deployment.name) if wait is None else wait)

    def unable(self, candidate: Candidate, fault: Fault) -> None:
        """Take note of a candidate that cannot carry the request: nothing was sent, and nothing counts."""
        self._last = self._last or fault
        self._off.add(candidate.deployment.name)

    def turned_away(self, step: Step, refusal: Refusal) -> None:
        """Its health changed while the call waited for a place at its host, or another call probes it."""
        self._turned_away = True
        self._may_probe = self._may_probe and not step.early
        self.refused[step.candidate.deployment.name] = refusal

    def next(self, now: float) -> Step | None:
        """Whom to try now, or None when nobody is left."""
        if self._last is None:
            first = self._candidates[0]
            if not self._turned_away and self._refusal(first) is None:
                self._budget.first(first.deployment.backend.name)
                return Step(first, 0.0)
        elif self._last.ends or self._spent(self._counted):
            return None
        step = self._choose(now)
        while step is not None and not self._paid(step.candidate.deployment.backend.name):
            step = self._choose(now)
        return step

    def left(self) -> list[str]:
        """The deployments that might have answered, had the call more attempts."""
        if self._last is None or self._last.ends or not self._spent(self._counted):
            return []
        untried = [c for c in self._candidates if not self._tries[c.deployment.name] and self._may(c)]
        return [c.deployment.name for c in untried if self._triggered(c, self.refused)]

    def _choose(self, now: float) -> Step | None:
        open_ = [candidate for candidate in self._candidates if self._may(candidate)]
        refusals = {candidate.deployment.name: self._refusal(candidate) for candidate in open_}
        self.refused |= {name: refusal for name, refusal in refusals.items() if refusal is not None}
        open_ = [candidate for candidate in open_ if self._triggered(candidate, refusals)]
        untried = [c for c in open_ if not (self._tries | self._polls)[c.deployment.name]]
        fresh = [c for c in untried if refusals[c.deployment.name] is None]
        if fresh:
            return Step(self._best(fresh), 0.0)

        def ready(candidate: Candidate) -> float:
            refusal = refusals[candidate.deployment.name]
            return max(self._ready.get(candidate.deployment.name, now), refusal.until if refusal else now)

        waiting = [c for c in open_ if (refusal := refusals[c.deployment.name]) is None or refusal.cooling]
        if waiting:
            soonest = min(waiting, key=ready)
            return Step(soonest, ready(soonest) - now)
        return Step(min(untried, key=ready), 0.0, early=True) if untried and self._may_probe else None

    def _refusal(self, candidate: Candidate) -> Refusal | None:
        """Why its health forbids it; a key that was rotated meanwhile is not the one that was refused."""
        backend = candidate.deployment.backend
        refusal = self._health.refusal(candidate.deployment, self._request)
        if refusal is None or refusal.keys is None:
            return refusal
        key = backend.rotated_key()
        if key is None or key in refusal.keys:
            return refusal
        self._health.renew(backend.name)
        return self._health.refusal(candidate.deployment, self._request)

    def _wait_for(self, deployment: Deployment, fault: Fault, now: float) -> None:
        """A server that is loading is asked again and again, while there is time: no attempt is used up."""
        self._cost.setdefault(deployment.backend.name, 0)
        wait = fault.retry_after
        if wait is None or wait < POLL:
            longest = min(LONGEST_POLL, POLL * 2.0 ** self._polls[deployment.name])
            wait = longest * (1 + self._random()) / 2
        self._polls[deployment.name] += 1
        self._ready[deployment.name] = now + wait

    def _paid(self, backend: str) -> bool:
        """Whether the backend's retry budget allows this attempt; the first one is free."""
        cost = self._cost.get(backend)
        if cost is not None:
            return self._budget.take(backend, cost)
        self._budget.first(backend)
        return True

    def _best(self, fresh: Sequence[Candidate]) -> Candidate:
        """The next in order; the last attempt goes to a backend not tried yet, if there is one."""
        if self._spent(self._counted + 1):
            return next((c for c in fresh if c.deployment.backend.name not in self._cost), fresh[0])
        return fresh[0]

    def _may(self, candidate: Candidate) -> bool:
        deployment, backend = candidate.deployment.name, candidate.deployment.backend.name
        return (
            self._tries[deployment] < min(self._policy.per_deployment, self._policy.attempts)
            and not {deployment, backend} & self._off
            and self._ambiguous[backend] < 2
            and self._budget.allows(backend, self._cost.get(backend, 0))
            and self._fits(candidate)
        )

    def _triggered(self, candidate: Candidate, refusals: Mapping[str, Refusal | None]) -> bool:
        """Whether this call may go to it: a fallback model only for what its agent's triggers name."""
        if not candidate.fallback:
            return True
        if self._last is not None:
            return self._last.trigger in self._triggers
        # Nobody was tried yet, so it is the first choice that is turned off, or does not fit.
        before = [c for c in self._candidates[: self._candidates.index(candidate)] if not c.fallback]
        found = [refusals.get(c.deployment.name) for c in before]
        return not before or any(r is not None and _trigger(r.error) in self._triggers for r in found)

    def _fits(self, candidate: Candidate) -> bool:
        """After an overflow: only where the window is larger, or unknown for a model of another name."""
        if self._window is None:
            return True
        window = candidate.deployment.info.context_window
        return candidate.fallback if window is None else window > self._window

    def _spent(self, attempts: int) -> bool:
        from tenacity import stop_after_attempt  # only a call that failed pays for importing it

        return stop_after_attempt(self._policy.attempts)(_state(attempts))

    def _backoff(self, deployment: str) -> float:
        """Full jitter: uniform(0, min(max, base * 2**n)) before the n-th retry, counted from 0."""
        from tenacity import wait_exponential

        ceiling = wait_exponential(self._policy.base, self._policy.max)(_state(self._tries[deployment]))
        return self._random() * ceiling


def _state(attempt: int) -> RetryCallState:
    """As much of a retry's state as tenacity's waits and stops look at."""
    from tenacity import RetryCallState, Retrying

    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    return state
