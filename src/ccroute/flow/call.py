"""One call, streamed or not, from its first attempt to its answer. Its way is read from here downwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccroute.errors import CcrouteError, DeadlineExceededError, QueueTimeoutError
from ccroute.failures import TOO_LONG, UNSUPPORTED
from ccroute.flow.attempt.attempt import run_attempt
from ccroute.flow.attempt.context import MIN_ATTEMPT
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.attempt.reports import turned_away_error
from ccroute.flow.call_context import CallContext
from ccroute.flow.effects import Flow, emit, leave
from ccroute.flow.retry import RetryState
from ccroute.flow.waits.slots import Instead, Moved
from ccroute.flow.waits.turns import turn_comes
from ccroute.routing.acquired import Unavailable
from ccroute.types import Chunk, Completion, FailureClass

if TYPE_CHECKING:
    from ccroute.routing.rate_limits import Limit

_TIME_IS_UP = (DeadlineExceededError, QueueTimeoutError)


def call(context: CallContext, *, stream: bool) -> Flow[Completion[Any]]:
    """Try the plan's candidates until one answers; raise the last one's error when none does."""
    monotonic = context.state.clock.monotonic
    context.start()
    retry = RetryState(context.plan, context.state)
    answer: Completion | None = None
    result: Completion | Fault | Unavailable | Moved | Instead | None = None
    no_turn: Unavailable | None = None
    try:
        if context.plan.limit is not None:
            no_turn = yield from _agents_turn(context, context.plan.limit)
        while (
            no_turn is None
            and answer is None
            and (step := retry.next(monotonic(), context.deadline)) is not None
        ):
            current = context.next_attempt(step, retry.unavailable, stream=stream)
            result = yield from run_attempt(current, retry)
            while isinstance(result, Moved):  # with its slot
                moved = retry.moved(step.candidate, result.candidate)
                if isinstance(moved, Unavailable):
                    step, result = step._replace(candidate=result.candidate), moved
                else:
                    step, current = moved, context.moved(moved, result.grant)
                    result = yield from run_attempt(current, retry)
            if isinstance(result, Completion):
                answer = context.answered(current, result)
            elif isinstance(result, Instead):
                context.skips_wait(result)
                retry.take(step.candidate, result.candidate)
                yield from leave()
            elif isinstance(result, Unavailable):
                retry.turned_away(step, result)
                yield from leave()
            elif result.rule.failure is FailureClass.BUDGET:
                context.left_out(current, result)
                retry.over_budget(step.candidate, result)
            elif result.rule is UNSUPPORTED and current.admission is None:
                context.left_out(current, result)
                retry.unsupported(step.candidate, result)
                if current.has_slot:
                    yield from leave()
            else:
                context.failed(current, result)
                retry.failed(step.candidate, result, monotonic())
                yield from leave()
    except BaseException as stop:  # cancelled, abandoned, or a bug: written down, never handled
        context.stopped(stop)
        raise
    finally:
        if context.turn is not None and not context.record.sent:
            context.turn.settle()
        try:
            context.record.write(context.state)
        except BaseException:  # an interrupt
            context.record.write(context.state)
            raise
    if answer is None:
        error = _final_error(context, retry, no_turn)
        del retry, result
        try:
            raise error
        finally:
            del error  # its traceback has this frame: a cycle would keep the prompt
    if stream:
        yield from leave()
        yield from emit([Chunk(finish_reason=answer.finish_reason, usage=answer.usage)])
    return answer


def _agents_turn(context: CallContext, limit: Limit) -> Flow[Unavailable | None]:
    """Wait for the agent's turn under its rate limit; the reason where it does not come in time."""
    limits = context.state.rate_limits
    context.turn = turn = limits.take(limit) or limits.queue(limit)
    if turn.step is not None:
        return None
    state, agent, until = context.state, context.plan.agent, context.deadline - MIN_ATTEMPT
    no_turn = yield from turn_comes(turn, state, until, call=context.id, agent=agent, deployment=None)
    context.record.waited(f"agent {agent}", turn)
    return no_turn


def _final_error(context: CallContext, retry: RetryState, no_turn: Unavailable | None) -> CcrouteError:
    """The error a call ends with: its last backend's own, that no budget allows it, that every candidate gets
    no calls, or its agent no turn, that nobody can serve the request, or that time is up."""
    now, fault = context.state.clock.monotonic(), retry.fault
    reason = no_turn or min(retry.unavailable.values(), key=lambda reason: reason.until, default=None)
    is_over = retry.lacked_time and context.deadline - now < MIN_ATTEMPT
    if fault is None and retry.budget_fault is not None:
        error = retry.budget_fault.error
    elif fault is None and reason is not None and not is_over:
        error = turned_away_error(reason, now)
        context.report_turned_away(error, reason)
    elif fault is None and retry.unsupported_fault is not None and not retry.lacked_time:
        error = retry.unsupported_fault.error
    elif fault is None or (
        is_over and fault.rule is not TOO_LONG and not isinstance(fault.error, _TIME_IS_UP)
    ):
        error = DeadlineExceededError("the call's total timeout leaves no time for another attempt")
        error.__cause__ = None if fault is None else fault.error
    else:
        error = fault.error
    context.explain(error, retry.left())
    return error
