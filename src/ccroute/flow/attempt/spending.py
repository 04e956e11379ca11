"""What an attempt may spend: its worst case, its wait for its budgets, and the limit that they set to its
answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from ccroute import observe
from ccroute.accounting.budgets import alone, fits
from ccroute.accounting.money import NOTHING
from ccroute.accounting.tokens import estimate
from ccroute.display import rounded_usd
from ccroute.errors import BudgetExceededError
from ccroute.failures import NO_BUDGET, NO_BUDGET_REFUSED
from ccroute.flow.attempt.charge import dearest
from ccroute.flow.attempt.context import MIN_ATTEMPT, AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.effects import Flow, sleep_until_woken
from ccroute.flow.state import RouterState
from ccroute.routing import Plan
from ccroute.routing.budgets.budgets import Budgets
from ccroute.routing.budgets.reservation import Reservation
from ccroute.routing.budgets.table import BudgetTable
from ccroute.routing.budgets.worst_case import LEAST, InTheWay, WorstCase, worst_case
from ccroute.routing.plan import TOLERANCE
from ccroute.types import Request
from ccroute.types.clock import END

_A_DAY: Final = 86_400.0
_GRACE: Final = 60.0
"""Seconds after a call's deadline for which its reservation is kept, if its process died."""


def reserve(table: BudgetTable, budgets: Budgets, attempt: AttemptContext) -> Reservation | None:
    """Reserve the attempt's worst case in all its budgets. None: it is done; otherwise ask `allowed`."""
    asked = _reservation(table, budgets, attempt)
    if asked is None:
        return None
    attempt.reservation = asked
    attempt.held.append(asked)
    budgets.ask(asked, attempt.started_at)
    if asked.in_the_way is not None:
        return asked
    if asked.shortened_by is not None or asked.worst.is_unlimited:
        _put_limit(attempt, asked)
    return None


def allowed(attempt: AttemptContext, asked: Reservation) -> Flow[Fault | None]:
    """Wait for others in flight, or for the next window; the fault where a budget does not allow the attempt
    in time."""
    yield from _wait(attempt, asked)
    if asked.in_the_way is not None:
        fault = _refused(attempt, asked.worst, asked.in_the_way)
        _tell(attempt, asked.in_the_way, str(fault.error), waits=False)
        return fault
    _put_limit(attempt, asked)
    return None


def foresee(table: BudgetTable, budgets: Budgets, attempt: AttemptContext) -> Fault | None:
    """The same without reserving: the fault with which the attempt would be refused now."""
    asked = _reservation(table, budgets, attempt)
    if asked is None:
        return None
    budgets.foresee(asked)
    way, total = asked.in_the_way, attempt.timeout.total
    if way is not None:
        left = None if total is None else attempt.started_at + timedelta(seconds=total)
        in_time = left is None or way.until < left
        if way.because != "in flight" and not (way.may_wait and in_time):
            return _refused(attempt, asked.worst, way)
        attempt.note_change(f"waits, {_lack(attempt, asked.worst, way)}")
        return None
    _put_limit(attempt, asked)
    return None


def fits_now(table: BudgetTable, budgets: Budgets, attempt: AttemptContext) -> bool:
    """Whether all its budgets allow the attempt at once. Reserves nothing."""
    asked = _reservation(table, budgets, attempt)
    if asked is not None:
        budgets.foresee(asked)
    return asked is None or asked.in_the_way is None


def longest_prompt(plan: Plan, state: RouterState) -> int:
    """The most tokens that the prompt may have."""
    tokens = plan.prompt.estimated(state.count_tokens, plan.request)
    return ceil(tokens * TOLERANCE) if state.count_tokens is estimate else tokens


def _reservation(table: BudgetTable, budgets: Budgets, attempt: AttemptContext) -> Reservation | None:
    """What the attempt has to reserve; None if it needs no budget."""
    plan, backend = attempt.plan, attempt.candidate.deployment.backend
    needs = table.needs(plan.agent, plan.group, backend.name, plan.request.session)
    if not needs:
        return None
    expires = _expires(attempt) if budgets.store.shared else END
    return Reservation(budgets, needs, attempt.id, _worst(attempt), expires)


def _worst(attempt: AttemptContext) -> WorstCase:
    """The worst case of what would be sent now."""
    request, deployment, asked = attempt.request, attempt.candidate.deployment, attempt.plan.request
    backend, info = deployment.backend, deployment.info
    longest = info.max_output
    if longest is None and request.reasoning_effort is None:
        longest = backend.usual_output  # what is sent; with a budget to think, it would be more
    may_shorten = asked.max_tokens is None
    if may_shorten and (info.params or info.drops):
        may_shorten = "max_tokens" not in (info.params or ()) and "max_tokens" not in (info.drops or ())
    if may_shorten and backend.wire_name is None:  # a wire of the user's own may not carry it
        may_shorten = "max_tokens" not in backend.refusals(_limited(request, LEAST), deployment.model)
    return worst_case(
        dearest(deployment, request, attempt.started_at),
        request,
        longest_prompt(attempt.plan, attempt.state),
        longest,
        may_shorten=may_shorten,
    )


def _expires(attempt: AttemptContext) -> datetime:
    """When the reservation ends if this process dies."""
    seconds = min(attempt.deadline - attempt.state.clock.monotonic(), _A_DAY) + _GRACE
    return attempt.state.clock.now() + timedelta(seconds=seconds)


def _wait(attempt: AttemptContext, asked: Reservation) -> Flow[None]:
    """Until it is decided, or the time is up."""
    monotonic, until = attempt.state.clock.monotonic, attempt.deadline - MIN_ATTEMPT
    is_told, began = False, monotonic()
    waits_for = asked.in_the_way
    while (seconds := asked.budgets.wait(asked)) and (way := asked.in_the_way) is not None:
        left = until - monotonic()
        if left <= 0 or (way.because == "spent" and seconds > left):
            break
        if not is_told:
            _tell(attempt, way, _lack(attempt, asked.worst, way), waits=True)
            is_told = attempt.is_queued = True
        yield from sleep_until_woken(min(seconds, left), asked)
    if is_told and waits_for is not None:
        attempt.note_change(f"waited {monotonic() - began:.1f} s for {waits_for.need}")
        attempt.leave_queue()


def _put_limit(attempt: AttemptContext, asked: Reservation) -> None:
    """Limit the answer to what was reserved, where the server would not keep to that by itself."""
    worst, output, shortened_by = asked.worst, asked.output, asked.shortened_by
    if shortened_by is not None:
        attempt.note_change(f"max_tokens {worst.output} → {output}, what {shortened_by} still affords")
    elif worst.is_unlimited and worst.may_shorten and (bounded := worst.bounded_by(asked.needs)) is not None:
        attempt.note_change(f"max_tokens {output}: the model has no max_output, and {bounded} needs a limit")
    else:
        return
    attempt.request = _limited(attempt.request, output)


def _limited(request: Request, output: int) -> Request:
    return replace(request, max_tokens=output)


def _tell(attempt: AttemptContext, way: InTheWay, reason: str, *, waits: bool) -> None:
    name = attempt.deployment.name
    event = observe.OverBudget(attempt.call_id, attempt.plan.agent, name, way.need.name, reason, waits)
    attempt.state.emit(event)


def _refused(attempt: AttemptContext, worst: WorstCase, way: InTheWay) -> Fault:
    """The error of an attempt that a budget does not allow, and what follows."""
    claim, standing = way.claim, way.standing
    error = BudgetExceededError(f"{_lack(attempt, worst, way)}. {_advice(attempt, worst, way)}")
    error.__cause__ = way.error
    error.budget, in_usd = way.need.name, _is_usd(worst, way)
    error.limit = claim.usd if in_usd else claim.tokens
    if standing is not None:
        error.spent = standing.spent_usd if in_usd else standing.spent_tokens
    if claim.until != END:
        error.resets_at = claim.until
        if way.because == "spent" and not way.is_final:
            error.retry_after = max((claim.until - attempt.state.clock.now()).total_seconds(), 0.0)
    return Fault(error, NO_BUDGET if way.need.budget.then == "fallback" else NO_BUDGET_REFUSED)


def _advice(attempt: AttemptContext, worst: WorstCase, way: InTheWay) -> str:
    """What the user may do about it."""
    if way.because == "unknown":
        return "A call that needs a budget is not sent until it can"
    if way.because == "no price":
        example = f'prices={{"{attempt.deployment.model}": Price(3, 15)}}'
        return f"Give it one, such as {example}, or a budget in tokens"
    if way.because == "in flight":
        return "They did not end in time: raise timeout= or the budget, or lower max_tokens"
    if way.may_wait:
        return "It ends too late to wait for: raise timeout= or the budget, or lower max_tokens"
    if not _is_usd(worst, way) and way.need.scope.kind != "backend":
        return "Raise the budget, or lower max_tokens"
    if way.need.budget.then == "fallback":
        return "Raise the budget, lower max_tokens, or give the agent a free model as its last fallback"
    return 'Raise the budget, lower max_tokens, or let a free model answer instead: then="fallback"'


def _is_usd(worst: WorstCase, way: InTheWay) -> bool:
    """Whether the limit in USD is in the way, and not the one in tokens."""
    claim, standing = way.claim, way.standing
    if claim.usd is None or claim.tokens is None or standing is None:
        return claim.usd is not None
    only = claim._replace(tokens=None)
    if way.because == "spent":
        standing = alone(standing)
    return worst.price is None or not fits(only, standing, worst.usd(worst.output), 0)


def _lack(attempt: AttemptContext, worst: WorstCase, way: InTheWay) -> str:
    """Why a budget does not allow an attempt, in a sentence."""
    claim, standing, name = way.claim, way.standing, attempt.deployment.name
    budget = str(way.need)
    if standing is None:
        return f"the ledger cannot say what is spent of {budget}: {type(way.error).__name__}"
    if way.because == "no price":
        why = attempt.deployment.why_unpriced
        return f"the price of {name} is unknown{f' ({why})' if why else ''}, so {budget} cannot allow it"
    shortest = min(worst.least, worst.output) if way.because == "spent" and worst.may_shorten else None
    output = shortest or worst.output
    if _is_usd(worst, way):
        left = rounded_usd(max((claim.usd or NOTHING) - standing.spent_usd, NOTHING))
        held, most = rounded_usd(standing.reserved_usd), rounded_usd(worst.usd(output))
    else:
        left = f"{max((claim.tokens or 0) - standing.spent_tokens, 0)} tokens"
        held, most = str(standing.reserved_tokens), str(worst.tokens(output))
    lack = f"{budget} has {left} left"
    if way.because == "in flight":
        lack += f", {held} of it reserved by calls in flight"
    elif claim.until != END:
        lack += f" until {claim.until:%Y-%m-%d %H:%M} UTC"
    least = f" even with max_tokens={shortest}" if shortest else ""
    return f"{lack}, and a call to {name} may take {most}{least}"
