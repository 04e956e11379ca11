"""What a failure cost, whom to try next, and how long to wait before it. The only user of tenacity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
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
from ccroute.routing import Candidate
from ccroute.routing.agents import Trigger
from ccroute.types import FailureClass, RetryPolicy

if TYPE_CHECKING:
    from tenacity import RetryCallState

_REJECTED = frozenset({408, 409, 425, 429, 503, 529})
"""Statuses by which a server says that it did not begin."""

# The first that fits decides; a subclass stands before its base.
_CLASS_BY_ERROR: tuple[tuple[type[CcrouteError], FailureClass], ...] = (
    (ContextWindowExceededError, "L"),
    (RequestError, "C"),
    (EgressDeniedError, "C"),
    (AuthenticationError, "A"),
    (PermissionDeniedError, "A"),
    (QuotaExhaustedError, "A"),
    (ModelNotFoundError, "M"),
    (RateLimitError, "W1"),
    (OverloadedError, "W1"),
    (ServerError, "W2"),
    (ProtocolError, "W2"),
    (ConnectionFailedError, "W2"),
    (BackendTimeoutError, "W2"),
)


def failure_class(error: CcrouteError) -> FailureClass:
    """The class of an error that a codec raised: what it cost and what may follow.

    A backend's answer that is none of the known ones (a redirect, 405, 410) is "M": this deployment
    will not answer, others may.
    """
    if isinstance(error, BackendError) and not error.sent:
        return "W0"
    # A request or a bill that is refused stays so, whatever status said it.
    refused = isinstance(error, RequestError | QuotaExhaustedError)
    if not refused and getattr(error, "status", None) in _REJECTED:
        return "W1"
    for kind, letter in _CLASS_BY_ERROR:
        if isinstance(error, kind):
            return letter
    return "M"


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed attempt: the typed error, its class, and whether the same deployment may be tried again."""

    error: CcrouteError
    failure: FailureClass
    again: bool | None = None
    """False: another deployment only (TLS faults, `x-should-retry: false`). True: the server asks to be
    tried once more. None: as its class says."""

    @property
    def trigger(self) -> Trigger:
        """Which of an agent's fallback triggers this failure is."""
        if self.failure == "L":
            return "token_limit"
        limited = isinstance(self.error, RateLimitError) and not isinstance(self.error, QuotaExhaustedError)
        return "rate_limit" if limited else "availability"

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asked to be left alone for."""
        return getattr(self.error, "retry_after", None)


class Step(NamedTuple):
    """Whom to try next, and the seconds to wait before it."""

    candidate: Candidate
    wait: float


class Walk:
    """One call's way through its candidates: bounded, never twice where it cannot help.

    Sources: the rules in docs/architecture.md, "Failures".
    """

    def __init__(
        self,
        policy: RetryPolicy,
        candidates: Sequence[Candidate],
        triggers: Sequence[Trigger],
        random: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._candidates = candidates
        self._triggers = triggers
        self._random = random
        self._counted = 0
        self._tries: Counter[str] = Counter()
        self._ambiguous: Counter[str] = Counter()
        self._off: set[str] = set()
        self._ready: dict[str, float] = {}
        self._window: int | None = None
        self._last: Fault | None = None

    def first(self) -> Candidate:
        """The candidate to begin with."""
        return self._candidates[0]

    def failed(self, candidate: Candidate, fault: Fault, now: float) -> None:
        """Take note of a failed attempt that ended at `now` (monotonic seconds)."""
        deployment = candidate.deployment
        self._last = fault
        self._tries[deployment.name] += 1
        self._counted += fault.failure != "W0"
        match fault.failure:
            case "A" if not isinstance(fault.error, PermissionDeniedError):
                self._off.add(deployment.backend.name)  # the credential is everyone's there
            case "W2":
                self._ambiguous[deployment.backend.name] += 1
            case "L":
                limit = getattr(fault.error, "limit", None) or deployment.info.context_window
                self._window = max(self._window or 0, limit or 0)
        again = fault.failure in {"W0", "W1", "W2"} or (fault.failure == "M" and fault.again)
        if not again or fault.again is False:
            self._off.add(deployment.name)
        wait = fault.retry_after
        self._ready[deployment.name] = now + (self._backoff(deployment.name) if wait is None else wait)

    def next(self, now: float) -> Step | None:
        """Whom to try after the last failure, or None when nobody is left."""
        if self._last is None or self._last.failure in {"C", "W3"} or self._spent(self._counted):
            return None
        open_ = [candidate for candidate in self._candidates if self._may(candidate)]
        untried = [candidate for candidate in open_ if not self._tries[candidate.deployment.name]]
        if untried:
            return Step(self._best(untried), 0.0)
        if not open_:
            return None
        soonest = min(open_, key=lambda candidate: self._ready[candidate.deployment.name])
        return Step(soonest, max(0.0, self._ready[soonest.deployment.name] - now))

    def _best(self, untried: Sequence[Candidate]) -> Candidate:
        """The next in order; the last attempt goes to a backend not tried yet, if there is one."""
        if self._spent(self._counted + 1):
            tried = {c.deployment.backend.name for c in self._candidates if self._tries[c.deployment.name]}
            return next((c for c in untried if c.deployment.backend.name not in tried), untried[0])
        return untried[0]

    def _may(self, candidate: Candidate) -> bool:
        deployment, backend = candidate.deployment.name, candidate.deployment.backend.name
        return (
            self._tries[deployment] < min(self._policy.per_deployment, self._policy.attempts)
            and not {deployment, backend} & self._off
            and self._ambiguous[backend] < 2
            and self._triggered(candidate)
            and self._fits(candidate)
        )

    def _triggered(self, candidate: Candidate) -> bool:
        return not candidate.fallback or self._last is None or self._last.trigger in self._triggers

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
