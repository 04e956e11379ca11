"""One call, streamed or not, from its first attempt to its answer. Its way is read from here downwards."""

from __future__ import annotations

from typing import Any

from ccroute.errors import CcrouteError, DeadlineExceededError, QueueTimeoutError, StreamInterruptedError
from ccroute.failures import TOO_LONG, UNSUPPORTED
from ccroute.flow.attempt import MIN_ATTEMPT, attempt
from ccroute.flow.call_context import CallContext
from ccroute.flow.effects import Flow, emit, leave
from ccroute.flow.reports import turned_away_error
from ccroute.flow.retry import Fault, NextAttempt, RetryState
from ccroute.routing.acquired import Unavailable
from ccroute.types import Chunk, Completion

_TIME_IS_UP = (DeadlineExceededError, QueueTimeoutError)


def call(context: CallContext, *, stream: bool) -> Flow[Completion[Any]]:
    """Try the plan's candidates until one answers; raise the last one's error when none does."""
    monotonic = context.state.clock.monotonic
    context.start()
    retry = RetryState(context.plan, context.state)
    step: NextAttempt | None = None
    fault: Fault | None = None
    unsupported: Fault | None = None
    answer: Completion | None = None
    result: Completion | Fault | Unavailable | None = None
    try:
        while answer is None:
            step = retry.next(monotonic())
            if step is None or not _has_time(step, context.deadline - monotonic(), fault):
                break
            current = context.next_attempt(step, retry.unavailable, stream=stream)
            result = yield from attempt(current)
            if isinstance(result, Completion):
                answer = context.answered(current, result)
            elif isinstance(result, Unavailable):
                retry.turned_away(step, result)
                yield from leave()
            elif result.rule is UNSUPPORTED and current.admission is None:
                unsupported = unsupported or result
                context.unsupported(current, result)
                retry.unsupported(step.candidate, result)
            else:
                fault = result
                context.failed(current, fault)
                if isinstance(fault.error, StreamInterruptedError):
                    fault.error.partial = context.partial(current)
                retry.failed(step.candidate, fault, monotonic())
                yield from leave()
    except BaseException as stop:  # cancelled, abandoned, or a bug: written down, never handled
        context.stopped(stop)
        raise
    finally:
        try:
            context.record()
        except BaseException:  # an interrupt
            context.record()
            raise
    if answer is None:
        error = _final_error(context, retry, step, fault, unsupported)
        del retry, fault, unsupported, result
        try:
            raise error
        finally:
            del error  # its traceback has this frame: a cycle would keep the prompt
    if stream:
        yield from leave()
        yield from emit([Chunk(finish_reason=answer.finish_reason, usage=answer.usage)])
    return answer


def _has_time(step: NextAttempt, left: float, fault: Fault | None) -> bool:
    """Whether there is time to wait for this step and then to try it."""
    is_over = fault is not None and isinstance(fault.error, DeadlineExceededError)
    return not is_over and left >= step.wait + MIN_ATTEMPT


def _final_error(
    context: CallContext,
    retry: RetryState,
    step: NextAttempt | None,
    fault: Fault | None,
    unsupported: Fault | None,
) -> CcrouteError:
    """The error a call ends with: its last backend's own, that every candidate gets no calls, that nobody can
    serve the request, or that time is up."""
    if step is not None and step.tokens is not None:
        step.tokens.settle()  # there is no time for that attempt
    now = context.state.clock.monotonic()
    reason = min(retry.unavailable.values(), key=lambda reason: reason.until, default=None)
    is_over = step is not None and context.deadline - now < MIN_ATTEMPT
    if fault is None and reason is not None and not is_over:
        error = turned_away_error(reason, now)
        context.turned_away(error)
    elif fault is None and unsupported is not None and step is None:
        error = unsupported.error
    elif fault is None or (
        is_over and fault.rule is not TOO_LONG and not isinstance(fault.error, _TIME_IS_UP)
    ):
        error = DeadlineExceededError("the call's total timeout leaves no time for another attempt")
        error.__cause__ = None if fault is None else fault.error
    else:
        error = fault.error
    context.explain(error, retry.left())
    return error
