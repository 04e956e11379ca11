"""The whole life of one call, streamed or not: candidates are tried until one answers."""

from __future__ import annotations

from dataclasses import replace

from ccroute.errors import CcrouteError, DeadlineExceededError, QueueTimeoutError, StreamInterruptedError
from ccroute.flow.attempt import written
from ccroute.flow.context import Job, Progress, Ticket
from ccroute.flow.desk import Desk
from ccroute.flow.effects import Flow, emit, leave, sleep
from ccroute.flow.log import CallLog
from ccroute.flow.retry import Fault, Step, Walk
from ccroute.flow.turn import MIN_ATTEMPT, not_asked, turn
from ccroute.routing import Plan
from ccroute.routing.notes import Refusal
from ccroute.types import Chunk, Completion, Timeout

_TIME_IS_UP = (DeadlineExceededError, QueueTimeoutError)


def call(plan: Plan, desk: Desk, log: CallLog, ticket: Ticket, *, stream: bool) -> Flow[Completion]:
    """Try the plan's candidates until one answers; raise the last one's error when none does."""
    clock = desk.clock
    timeout = _timeout(plan, desk)
    deadline = log.started + (float("inf") if timeout.total is None else timeout.total)
    walk = Walk(plan.candidates, plan.triggers, desk, plan.request)
    fault: Fault | None = None
    unable: Fault | None = None
    log.begun()
    step = walk.next(clock.monotonic())
    while step is not None and _fits(step, deadline - clock.monotonic(), fault):
        candidate = step.candidate
        log.chosen(step, walk.refused)
        if step.wait:
            yield from sleep(step.wait)  # still unsettled: if the call ends here, its last attempt decided it
        progress = Progress(clock.monotonic(), clock.now())
        ticket.route, ticket.asked = log.route(candidate), (candidate, progress)
        http = written(candidate.deployment, plan.request, desk, progress, stream=stream)
        if isinstance(http, Fault):
            unable = unable or http
            walk.unable(candidate, http)
            log.unable(candidate, http)
            step = walk.next(clock.monotonic())
            continue
        job = Job(candidate.deployment, plan.request, stream, timeout, deadline, progress, ticket, desk, http)
        try:
            result = yield from turn(job, log, early=step.early)
            if isinstance(result, Completion):
                result = log.answered(candidate, progress, result)
            elif isinstance(result, Fault):
                log.failed(candidate, progress, result)
        except BaseException as stop:  # cancelled, abandoned, or a bug: noted, never handled
            if log.unsettled is None:
                log.stopped(candidate, progress, stop)
            raise
        if isinstance(result, Completion):
            ticket.id, ticket.model, ticket.route = result.id, result.model, result.route
            yield from leave()
            yield from log.settle(final=True)
            if stream:
                yield from emit([Chunk(finish_reason=result.finish_reason, usage=result.usage)])
            return result
        if isinstance(result, Refusal):
            walk.turned_away(step, result)
        else:
            fault = result
            if isinstance(fault.error, StreamInterruptedError):
                fault.error.partial = log.partial(candidate, progress)
            walk.failed(candidate, fault, clock.monotonic())
        yield from leave()
        step = walk.next(clock.monotonic())
    yield from log.settle(final=True)
    raise _verdict(fault, unable, step, walk, clock.monotonic(), deadline, log)


def _timeout(plan: Plan, desk: Desk) -> Timeout:
    """The call's own limits over the router's; a bare number is the total."""
    given = plan.request.timeout
    if given is None:
        return desk.timeout
    return given if isinstance(given, Timeout) else replace(desk.timeout, total=given)


def _fits(step: Step, left: float, fault: Fault | None) -> bool:
    """Whether there is time to wait for this step and then to try it."""
    over = fault is not None and isinstance(fault.error, DeadlineExceededError)
    return not over and left >= step.wait + MIN_ATTEMPT


def _verdict(
    fault: Fault | None,
    unable: Fault | None,
    step: Step | None,
    walk: Walk,
    now: float,
    deadline: float,
    log: CallLog,
) -> CcrouteError:
    """The error a call ends with: its last backend's own, that it was turned away everywhere, that nobody
    can carry it, or that time is up."""
    refusal = min(walk.refused.values(), key=lambda refusal: refusal.until, default=None)
    over = step is not None and deadline - now < MIN_ATTEMPT
    if fault is None and refusal is not None and not over:
        error = not_asked(refusal, now)
        log.turned_away(error)
    elif fault is None and unable is not None and step is None:
        error = unable.error
    elif fault is None or (
        over and fault.failure != "context_length" and not isinstance(fault.error, _TIME_IS_UP)
    ):
        error = DeadlineExceededError("the call's total timeout leaves no time for another attempt")
        error.__cause__ = None if fault is None else fault.error
    else:
        error = fault.error
    log.explain(error, walk.left())
    return error
