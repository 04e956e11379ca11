"""One candidate's turn: a place at its host, its health's leave, one attempt, and what that says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    DeadlineExceededError,
    OverloadedError,
    PermissionDeniedError,
    QueueTimeoutError,
    QuotaExhaustedError,
    StreamInterruptedError,
)
from ccroute.flow.attempt import attempt
from ccroute.flow.context import Job, limits
from ccroute.flow.effects import Enter, Flow, enter
from ccroute.flow.retry import Fault, failure_class
from ccroute.routing.caller import caller_of, name_of
from ccroute.routing.notes import Note, Refusal
from ccroute.types import Completion, FailureClass, Timeout

if TYPE_CHECKING:
    from ccroute.flow.log import CallLog

MIN_ATTEMPT = 0.05
"""Seconds that must be left for an attempt to be worth starting."""
CHEAP = 1.0
"""Seconds within which a connection that is refused costs the next call little."""
PAYMENT = 402
MINUTES = 60.0
REFUSED_KEY, LONGEST_REFUSED_KEY = 5 * MINUTES, 60 * MINUTES
"""How long a credential is off after a 401, doubling each time up to the longest."""
REFUSED_MODEL = 5 * MINUTES
"""How long a deployment is off after a 403 or 404."""
NO_QUOTA = 15 * MINUTES
"""How long a credential is off after a billing limit whose end the server did not say."""

_ANSWERED = Note(counts=False)
_NEUTRAL = Note()


def turn(job: Job, log: CallLog, *, early: bool) -> Flow[Completion | Fault | Refusal]:
    """Try one deployment; a refusal says that its health does not allow it (any more). The place at
    the host is still held at the end.

    `early`: what is off may be tried before its time, if nobody else does. The row of the attempt before
    is settled as soon as it is certain that it did not decide the call.
    """
    deployment, desk, progress = job.deployment, job.desk, job.progress
    place = Enter(
        deployment.backend, deployment.model, job.request.priority, job.deadline - MIN_ATTEMPT, log.queued
    )
    running, admission, note = desk.load.begin(deployment), None, _NEUTRAL
    well, output = None, 0
    try:
        missed = yield from enter(place)
        if missed is not None:
            yield from log.settle(final=False)
            late = QueueTimeoutError(
                missed.detail, backend=deployment.backend.name, deployment=deployment.name
            )
            return Fault(late, "not_sent", again=False)
        admitted = desk.health.admit(deployment, job.request, early=early)
        if isinstance(admitted, Refusal):
            return admitted
        admission = admitted
        admission.caller = name_of(job.request)
        yield from log.settle(final=False)  # now it is certain that another attempt follows
        progress.begin(desk.clock)
        progress.admission = admission
        result = yield from attempt(job, limits(job, progress.started))
        if isinstance(result, Completion):
            note, well, output = _ANSWERED, True, result.usage.output
        else:
            note = _judged(result, job)
            well = (
                False if note.counts or result.failure in {"rejected", "credential", "unavailable"} else None
            )
        return result
    finally:
        if admission is not None:
            desk.health.settle(admission, note)
        desk.load.end(
            running,
            well,
            first_content=progress.first_content,
            duration=desk.clock.monotonic() - progress.started - progress.paused,
            output=output,
        )


def _judged(fault: Fault, job: Job) -> Note:
    """What a failed attempt says of its deployment. Sources: docs/architecture.md, "Failures"."""
    error, letter = fault.error, fault.failure
    cause = error.__cause__
    if isinstance(error, StreamInterruptedError) and isinstance(cause, CcrouteError):
        error, letter = cause, failure_class(cause)
    told = _unsaid(error)
    wait = getattr(error, "retry_after", None)
    if isinstance(error, DeadlineExceededError):
        if job.desk.clock.monotonic() - job.progress.heard < job.silence:
            return _NEUTRAL
        name, backend = job.deployment.name, job.deployment.backend.name
        silent = BackendTimeoutError("silent for longer than allowed", backend=backend, deployment=name)
        return Note(counts=True, error=silent, caller=caller_of(job.request))
    if isinstance(error, BackendTimeoutError) and _is_impatient(job):
        return _NEUTRAL
    who = caller_of(job.request)
    if isinstance(error, QuotaExhaustedError):
        key = job.progress.key
        request = who if error.status == PAYMENT else None  # it may say that this one costs too much
        return Note(error=told, off="credential", seconds=wait or NO_QUOTA, key=key, caller=request)
    if isinstance(error, AuthenticationError):
        # Without a key nothing was sent, and a key that was rotated meanwhile is not the one in use.
        key = job.progress.key
        if not job.progress.sent or key != job.deployment.backend.key_in_use:
            return _NEUTRAL
        return Note(error=told, off="credential", seconds=REFUSED_KEY, longest=LONGEST_REFUSED_KEY, key=key)
    if isinstance(error, PermissionDeniedError) or (letter == "unavailable" and not fault.again):
        return Note(error=told, off="deployment", seconds=REFUSED_MODEL, caller=who)
    if fault.waits:
        return Note(counts=False, error=told, cool=wait)  # it is there, so a breaker need not be open
    if letter in {"not_sent", "ambiguous"} or _overloaded(error):
        gone = _gone(error, letter, job)
        if (
            letter == "ambiguous"
        ):  # it may be this caller's fault, so the wait that it tells is this call's alone
            return Note(counts=True, error=told, caller=who, gone=gone)
        return Note(counts=True, error=told, cool=wait, gone=gone)
    if letter == "rejected" and fault.again is not False:
        return Note(error=told, cool=wait)
    return _NEUTRAL


def _is_impatient(job: Job) -> bool:
    """Whether the call's own limits ended the attempt before the router's, or the backend's, would have."""
    if not isinstance(job.request.timeout, Timeout):
        return False
    usual = job.deployment.backend.timeout or job.desk.timeout
    patience = min((each for each in (usual.first, usual.attempt, usual.idle) if each), default=float("inf"))
    return job.desk.clock.monotonic() - job.progress.heard < patience


def _overloaded(error: CcrouteError) -> bool:
    """503 or 529, also as an error inside a stream: the server is sick, where 429 is only strict."""
    status = getattr(error, "status", None)
    return isinstance(error, OverloadedError) and (status is None or status >= 500)


def _gone(error: CcrouteError, letter: FailureClass, job: Job) -> Literal["refused", "broken"] | None:
    """Whether the server seems to be gone. A connection that took long to fail is not worth trying soon."""
    if not isinstance(error, ConnectionFailedError) or error.should_retry is False:
        return None
    if letter == "not_sent":
        return "refused" if job.desk.clock.monotonic() - job.progress.started < CHEAP else None
    return "broken"


def not_asked(refusal: Refusal, now: float) -> CcrouteError:
    """The error of a call that was turned away: of the class that turned others away, in words of its own."""
    last = refusal.error or CcrouteError()
    left = max(refusal.until - now, 1.0)  # a probe is on its way: its end is not known
    error = _unsaid(last)
    why = "; last: ".join(dict.fromkeys((refusal.why, _kind(last))))
    detail = f"not asked: it failed in other calls and is left alone for {left:.0f} s more ({why})"
    error.args = (detail,)
    if isinstance(error, BackendError):
        error.detail, error.sent, error.retry_after = detail, False, left
    return error


def _unsaid(error: CcrouteError) -> CcrouteError:
    """The same error without its frames, which hold the prompt, and without anything the server said.

    Made without its constructor, because a user's own class may have one of its own.
    """
    twin = type(error).__new__(type(error))
    kept = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, int | float) or name in ("backend", "deployment")
    }
    vars(twin).update(kept)
    twin.args = (_kind(error),)
    if isinstance(twin, BackendError):
        twin.detail = _kind(error)
    return twin


def _kind(error: CcrouteError) -> str:
    """An error in ccroute's words alone: its class and status."""
    status = getattr(error, "status", None)
    return type(error).__name__ + ("" if status is None else f", HTTP {status}")
