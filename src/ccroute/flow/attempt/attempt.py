"""One deployment, tried once: encode, wait for a slot, ask its health, send and read, classify.

Gives an answer, a fault, or why the deployment may not be asked; never raises a failure of the backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccroute.errors import (
    BackendError,
    CcrouteError,
    ContextWindowExceededError,
    DeadlineExceededError,
    RequestError,
    StreamInterruptedError,
)
from ccroute.failures import AMBIGUOUS, DELIVERED, NOT_SENT, UNSUPPORTED, CallFailure, rule_of
from ccroute.flow.attempt.carried import carried_request
from ccroute.flow.attempt.context import FOREVER, MIN_ATTEMPT, AttemptContext
from ccroute.flow.attempt.exchange import exchange
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.attempt.redact import cleaned
from ccroute.flow.attempt.reports import health_report
from ccroute.flow.effects import Flow, sleep
from ccroute.flow.waits.slots import Instead, Moved, make_room, take_slot
from ccroute.flow.waits.turns import turn_comes
from ccroute.routing.acquired import ANSWERED, UNDECIDED, AttemptOutcome, Unavailable
from ccroute.types import Completion

if TYPE_CHECKING:
    from ccroute.flow.retry import RetryState
    from ccroute.routing.budgets.reservation import Reservation
    from ccroute.routing.rate_limits import Turn


def run_attempt(
    attempt: AttemptContext, retry: RetryState
) -> Flow[Completion | Fault | Unavailable | Moved | Instead]:
    """Ask one deployment. Chunks of a stream are emitted on the way, none before the first content.

    Everything that was acquired is settled at the end, but for the slot at the host: the driver holds it
    until `Leave`. `retry` says which other candidates may have the slot instead.
    """
    state, deployment, request = attempt.state, attempt.candidate.deployment, attempt.plan.request
    outcome: AttemptOutcome | None = None  # of an attempt that is made
    try:
        if attempt.wait:
            yield from sleep(attempt.wait)
            attempt.restart_clock()
        turn = attempt.turn
        has_to_wait = turn is not None and (attempt.wait or turn.step is None)
        if turn is not None and has_to_wait and (no_turn := (yield from _turn(attempt, turn))):
            return no_turn
        try:
            asked = attempt.request = carried_request(attempt)
            http = deployment.backend.encode(asked, deployment.model, attempt.stream)
            if state.reserve is not None:
                reserved = state.reserve(attempt)
                if reserved is not None and (no_budget := (yield from _budget(attempt, reserved))):
                    return no_budget
                if attempt.request is not asked:
                    http = deployment.backend.encode(attempt.request, deployment.model, attempt.stream)
        except (BackendError, RequestError) as error:
            return Fault(completed(error.with_traceback(None), attempt), UNSUPPORTED)
        attempt.held.append(state.load.begin(deployment))
        if deployment.backend.origin in state.hosts and not attempt.has_slot:
            if no_slot := (yield from take_slot(attempt, retry)):
                return no_slot
            if turn is not None and (no_turn := (yield from _turn(attempt, turn))):
                return no_turn
        admission = state.health.admit(deployment, request, early=attempt.early)  # again: it may have waited
        if isinstance(admission, Unavailable):
            return admission
        outcome = UNDECIDED
        attempt.admission = admission
        attempt.held.append(admission)
        if attempt.grant is not None and attempt.grant.loads:
            yield from make_room(attempt, attempt.grant)
        try:
            answer = yield from exchange(attempt, http)
        except (BackendError, RequestError, DeadlineExceededError) as error:
            # The frames below hold the key and the server's words, which a traceback with locals would show.
            fault = _fault(error.with_traceback(None), attempt)
            report = health_report(fault, attempt)
            outcome = AttemptOutcome(report, False if report.counts or fault.rule.slows else None)
            return fault
        duration = state.clock.monotonic() - attempt.started - attempt.paused
        outcome = AttemptOutcome(ANSWERED, True, attempt.first_content, duration, answer.usage.output)
        return answer
    finally:
        attempt.settle(outcome)


def _budget(attempt: AttemptContext, reserved: Reservation) -> Flow[Fault | Unavailable | None]:
    """Wait until its budgets allow the attempt; the reason where they do not in time. Whoever waits for that
    holds no slot, so an attempt that has one does not wait, nor one that was taken because it need not."""
    if attempt.has_slot or not attempt.may_wait:
        return Unavailable(FOREVER, "it would have to wait for its budget", None)
    from ccroute.flow.waits.spending import allowed  # only with budgets

    no_budget = yield from allowed(attempt, reserved)
    if no_budget is None and attempt.turn is not None:
        return (yield from _turn(attempt, attempt.turn))
    return no_budget


def _turn(attempt: AttemptContext, turn: Turn) -> Flow[Unavailable | None]:
    """Wait for a turn under the deployment's rate limit; the reason where it does not come in time. Asked
    again after a wait for a slot, because it counts from when the request is sent."""
    name, until = attempt.deployment.name, attempt.deadline - MIN_ATTEMPT
    attempt.is_queued = True
    no_turn = yield from turn_comes(
        turn, attempt.state, until, call=attempt.call_id, agent=attempt.plan.agent, deployment=name
    )
    attempt.leave_queue()
    return no_turn


def _fault(error: CallFailure | DeadlineExceededError, attempt: AttemptContext) -> Fault:
    """The error with its place, without secrets and prompts, and its rule."""
    deployment, state = attempt.deployment, attempt.state
    if isinstance(error, DeadlineExceededError):
        fault = Fault(error, AMBIGUOUS if attempt.sent else NOT_SENT)
    else:
        error = completed(error, attempt)
        if isinstance(error, ContextWindowExceededError):
            error.limit = error.limit or deployment.info.context_window
            error.estimated = error.estimated or attempt.prompt_tokens()
        fault = Fault(error, rule_of(error), error.should_retry)
        if isinstance(error, BackendError):
            error.sent = attempt.sent  # without a key, nothing was sent
        may_drop = state.drop_params or deployment.backend.drop_params
        if may_drop or getattr(error, "parameter", None) in attempt.defaults:
            name = state.refused_parameters.learn(deployment, attempt.request, error)
            fault = fault._replace(drops=None if name in attempt.refused_before else name)
    return fault if attempt.first_content is None else _interrupted(fault.error, attempt)


def completed(error: CallFailure, attempt: AttemptContext) -> CallFailure:
    """The error with its place, without secrets and prompts."""
    backend = attempt.deployment.backend
    foreign = backend.wire_name is None and attempt.status is not None  # its message may be the server's
    secrets = attempt.secrets or backend.secrets()
    error = cleaned(error, secrets, attempt.request, attempt.deployment.model, foreign=foreign)
    error.backend, error.deployment = backend.name, attempt.deployment.name
    wait = error.retry_after  # a user's own codec may have passed on what stood in a header
    error.retry_after = float(wait) if isinstance(wait, int | float) and 0 <= wait < float("inf") else None
    return error


def _interrupted(cause: CcrouteError, attempt: AttemptContext) -> Fault:
    """What the caller already has cannot be taken back, so nothing is tried again."""
    why = (
        cause.detail if isinstance(cause, BackendError | RequestError) else "the call's total timeout passed"
    )
    error = StreamInterruptedError(
        f"the stream was cut after content had been delivered: {why}",
        backend=attempt.deployment.backend.name,
        deployment=attempt.deployment.name,
        status=getattr(cause, "status", None),
    )
    error.__cause__ = cause
    return Fault(error, DELIVERED)
