"""The whole life of one call, streamed or not: candidates are tried until one answers."""

from __future__ import annotations

from dataclasses import replace

from ccroute.errors import CcrouteError, DeadlineExceededError, StreamInterruptedError
from ccroute.flow.attempt import Job, Progress, Ticket, attempt, limits
from ccroute.flow.desk import Desk
from ccroute.flow.effects import Flow, emit, sleep
from ccroute.flow.log import CallLog
from ccroute.flow.retry import Fault, Step, Walk
from ccroute.routing import Plan
from ccroute.types import Chunk, Completion, Timeout

MIN_ATTEMPT = 0.05
"""Seconds that must be left for an attempt to be worth starting."""


def call(plan: Plan, desk: Desk, log: CallLog, ticket: Ticket, *, stream: bool) -> Flow[Completion]:
    """Try the plan's candidates until one answers; raise the last one's error when none does."""
    clock = desk.clock
    timeout = _timeout(plan, desk)
    deadline = log.started + (float("inf") if timeout.total is None else timeout.total)
    walk = Walk(desk.retry, plan.candidates, plan.triggers, clock.random)
    step: Step | None = Step(walk.first(), 0.0)
    fault: Fault | None = None
    while step is not None and _fits(step, deadline - clock.monotonic(), fault):
        if step.wait:
            yield from sleep(step.wait)  # still unsettled: if the call ends here, its last attempt decided it
        yield from log.settle(final=False)
        candidate, now = step.candidate, clock.monotonic()
        progress = Progress(now, clock.now())
        ticket.route = log.route(candidate)
        backend_timeout = (
            None if isinstance(plan.request.timeout, Timeout) else candidate.deployment.backend.timeout
        )
        bounds = limits(timeout, deadline, backend_timeout, now, stream=stream)
        job = Job(
            candidate.deployment, plan.request, stream, desk.drop_params, bounds, progress, ticket, clock
        )
        try:
            result = yield from attempt(job)
        except BaseException as stop:  # cancelled, abandoned, or a bug: noted, never handled
            log.stopped(candidate, progress, stop)
            raise
        if isinstance(result, Completion):
            completion = log.answered(candidate, progress, result)
            ticket.id, ticket.model, ticket.route = completion.id, completion.model, completion.route
            yield from log.settle(final=True)
            if stream:
                yield from emit([Chunk(finish_reason=completion.finish_reason, usage=completion.usage)])
            return completion
        fault = result
        log.failed(candidate, progress, fault)
        if isinstance(fault.error, StreamInterruptedError):
            fault.error.partial = log.partial(candidate, progress)
        walk.failed(candidate, fault, clock.monotonic())
        step = walk.next(clock.monotonic())
    yield from log.settle(final=True)
    raise _verdict(fault, step, deadline - clock.monotonic(), log)


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


def _verdict(fault: Fault | None, step: Step | None, left: float, log: CallLog) -> CcrouteError:
    """The error a call ends with: its last backend's own, or that its time was up with a step left."""
    if fault is not None and (step is None or left >= MIN_ATTEMPT or fault.failure == "L"):
        error: CcrouteError = fault.error
    elif fault is not None and isinstance(fault.error, DeadlineExceededError):
        error = fault.error
    else:
        error = DeadlineExceededError("the call's total timeout leaves no time for another attempt")
        error.__cause__ = None if fault is None else fault.error
    error.attempts = tuple(log.attempts)
    return error
