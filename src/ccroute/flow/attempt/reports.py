"""What a failed attempt says of its deployment's health, and the errors of calls turned away for it."""

from __future__ import annotations

from typing import Literal

from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    DeadlineExceededError,
    StreamInterruptedError,
)
from ccroute.failures import NO_MODEL, NO_QUOTA, NOT_SENT, UNPAID, Rule, rule_of
from ccroute.flow.attempt.context import FOREVER, AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.routing.acquired import NEUTRAL, HealthReport, Unavailable
from ccroute.routing.health.breaker import caller_of
from ccroute.types import FailureClass, Timeout

CHEAP = 1.0
"""Seconds within which a connection that is refused costs the next call little."""


def health_report(fault: Fault, attempt: AttemptContext) -> HealthReport:
    """By the fault's rule, but for what the call did itself: a key that was replaced meanwhile, or limits
    shorter than usual."""
    error, rule = fault.error, fault.rule
    cause = error.__cause__
    if isinstance(error, StreamInterruptedError) and isinstance(cause, CcrouteError):
        error, rule = cause, rule_of(cause)
    caller = caller_of(attempt.plan.request)
    if isinstance(error, DeadlineExceededError):
        if _waited(attempt) < attempt.longest_silence:
            return NEUTRAL
        deployment = attempt.deployment
        silent = BackendTimeoutError(
            "silent for longer than allowed", backend=deployment.backend.name, deployment=deployment.name
        )
        return HealthReport(counts=True, error=silent, caller=caller)
    if isinstance(error, BackendTimeoutError) and _is_impatient(attempt):
        return NEUTRAL
    if isinstance(error, AuthenticationError) and not _is_current(attempt):
        return NEUTRAL
    wait, copied = error.retry_after, copy_error(error)
    if rule.turns_off is not None:
        if rule is NO_MODEL and fault.retry:
            return NEUTRAL
        seconds = wait if wait and rule in (NO_QUOTA, UNPAID) else rule.seconds
        whose = caller if rule.by_caller else None
        return HealthReport(None, copied, None, rule.turns_off, seconds, rule.longest, attempt.key, whose)
    if rule.by_caller:  # the wait that the server asks for is this call's alone
        return HealthReport(rule.breaker, copied, caller=caller, gone=_gone(error, rule, attempt))
    if rule.breaker is not None:
        return HealthReport(rule.breaker, copied, cool=wait, gone=_gone(error, rule, attempt))
    is_asked_to_wait = rule.failure is FailureClass.REJECTED and fault.retry is not False
    return HealthReport(error=copied, cool=wait) if is_asked_to_wait else NEUTRAL


def _waited(attempt: AttemptContext) -> float:
    """Seconds since the server sent content last, or was asked."""
    return attempt.state.clock.monotonic() - attempt.waiting_since


def _is_impatient(attempt: AttemptContext) -> bool:
    """Whether the call's own limits ended the attempt before the router's, or the backend's, would have."""
    if not isinstance(attempt.request.timeout, Timeout):
        return False
    usual = attempt.deployment.backend.timeout or attempt.state.timeout
    limits = [limit for limit in (usual.first, usual.attempt, usual.idle) if limit]
    return _waited(attempt) < min(limits, default=FOREVER)


def _is_current(attempt: AttemptContext) -> bool:
    """Whether a key was sent, and is the one that would be sent now."""
    return attempt.sent and attempt.key == attempt.deployment.backend.last_fingerprint


def _gone(error: CcrouteError, rule: Rule, attempt: AttemptContext) -> Literal["refused", "broken"] | None:
    """Whether the server seems to be away. A connection that took long to fail is not worth trying soon."""
    if not isinstance(error, ConnectionFailedError) or error.should_retry is False:
        return None
    if rule is not NOT_SENT:
        return "broken"
    return "refused" if attempt.state.clock.monotonic() - attempt.started < CHEAP else None


def turned_away_error(reason: Unavailable, now: float) -> CcrouteError:
    """The error of a call that was not sent: of the type that other calls had, or of a rate limit, in words
    of its own."""
    last = reason.error or CcrouteError()
    left = max(reason.until - now, 1.0)  # a probe is on its way: its end is not known
    error = copy_error(last)
    if reason.limited:
        why, is_agents = getattr(last, "detail", reason.why), getattr(last, "deployment", None) is None
        advice = "" if is_agents else ", or give the model another deployment or a fallback"
        detail = (
            f"not sent: {why}, and the call's turn comes in {left:.0f} s, after its timeout: raise timeout= "
            f"or the limit{advice}"
        )
    else:
        why = "; last: ".join(dict.fromkeys((reason.why, _kind(last))))
        detail = f"not asked: it failed in other calls and gets none for {left:.0f} s more ({why})"
    error.args = (detail,)
    if isinstance(error, BackendError):
        error.detail, error.sent, error.retry_after = detail, False, left
    return error


def copy_error(error: CcrouteError) -> CcrouteError:
    """The same error without its frames, which hold the prompt, and without the server's words.

    Made without its constructor, because a user's own class may have one of its own.
    """
    copied = type(error).__new__(type(error))
    kept = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, int | float) or name in ("backend", "deployment")
    }
    vars(copied).update(kept)
    copied.args = (_kind(error),)
    if isinstance(copied, BackendError):
        copied.detail = _kind(error)
    return copied


def _kind(error: CcrouteError) -> str:
    """An error in ccroute's words alone: its class and status."""
    status = getattr(error, "status", None)
    return type(error).__name__ + ("" if status is None else f", HTTP {status}")
