"""Reserves what an attempt may spend: its worst case, the wait for its budgets, and the limit of its
answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from ccroute import observe
from ccroute.accounting.tokens import estimate
from ccroute.flow.attempt.charge import dearest
from ccroute.flow.attempt.context import MIN_ATTEMPT, AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.effects import Flow, sleep_until_woken
from ccroute.flow.state import RouterState
from ccroute.flow.waits.over_budget import lack, refused
from ccroute.routing import Plan
from ccroute.routing.budgets.budgets import Budgets
from ccroute.routing.budgets.reservation import Reservation
from ccroute.routing.budgets.table import BudgetTable
from ccroute.routing.budgets.worst_case import LEAST, Blocked, WorstCase, worst_case
from ccroute.routing.plan import TOLERANCE
from ccroute.types import Request
from ccroute.types.clock import END

_A_DAY: Final = 86_400.0
_GRACE: Final = 60.0
"""Seconds after a call's deadline for which its reservation is kept, if its process died."""


def reserve(table: BudgetTable, budgets: Budgets, attempt: AttemptContext) -> Reservation | None:
    """Reserve the attempt's worst case in all its budgets. None: it is reserved. Otherwise a budget blocks
    the attempt: go on with `allowed`."""
    reservation = _reservation(table, budgets, attempt)
    if reservation is None:
        return None
    attempt.reservation = reservation
    attempt.held.append(reservation)
    budgets.ask(reservation, attempt.started_at)
    if reservation.blocked is not None:
        return reservation
    if reservation.shortened_by is not None or reservation.worst.is_unlimited:
        _put_limit(attempt, reservation)
    return None


def allowed(attempt: AttemptContext, reservation: Reservation) -> Flow[Fault | None]:
    """Wait for others in flight, or for the next window. Returns the fault if the budgets do not allow the
    attempt in time."""
    yield from _wait(attempt, reservation)
    if reservation.blocked is not None:
        fault = refused(attempt, reservation.worst, reservation.blocked)
        _emit(attempt, reservation.blocked, str(fault.error), waits=False)
        return fault
    _put_limit(attempt, reservation)
    return None


def foresee(table: BudgetTable, budgets: Budgets, attempt: AttemptContext) -> Fault | None:
    """What `reserve` and `allowed` would do now, without reserving: the fault, or a note of what would
    change."""
    reservation = _reservation(table, budgets, attempt)
    if reservation is None:
        return None
    budgets.foresee(reservation)
    blocked, total = reservation.blocked, attempt.timeout.total
    if blocked is not None:
        left = None if total is None else attempt.started_at + timedelta(seconds=total)
        in_time = left is None or blocked.until < left
        if blocked.reason != "in flight" and not (blocked.may_wait and in_time):
            return refused(attempt, reservation.worst, blocked)
        attempt.note_change(f"waits, {lack(attempt, reservation.worst, blocked)}")
        return None
    _put_limit(attempt, reservation)
    return None


def fits_now(table: BudgetTable, budgets: Budgets, attempt: AttemptContext) -> bool:
    """Whether all its budgets allow the attempt at once. Reserves nothing."""
    asked = _reservation(table, budgets, attempt)
    if asked is not None:
        budgets.foresee(asked)
    return asked is None or asked.blocked is None


def longest_prompt(plan: Plan, state: RouterState) -> int:
    """The most tokens that the prompt may have, for a server that may count more than the estimate."""
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
    request, deployment, given = attempt.request, attempt.candidate.deployment, attempt.plan.request
    backend, info = deployment.backend, deployment.info
    longest = info.max_output
    if longest is None and request.reasoning_effort is None:
        longest = backend.usual_output  # this is sent as the limit; with thinking, a higher one would be
    may_shorten = given.max_tokens is None
    if may_shorten and (info.params or info.drops):
        may_shorten = "max_tokens" not in (info.params or ()) and "max_tokens" not in (info.drops or ())
    if may_shorten and backend.wire_name is None:  # a user's wire may not support it
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


def _wait(attempt: AttemptContext, reservation: Reservation) -> Flow[None]:
    """Wait until the reservation is granted or refused, or until the time is up."""
    monotonic, until = attempt.state.clock.monotonic, attempt.deadline - MIN_ATTEMPT
    waits, began = False, monotonic()
    waits_for = reservation.blocked
    while (seconds := reservation.budgets.wait(reservation)) and (blocked := reservation.blocked) is not None:
        left = until - monotonic()
        if left <= 0 or (blocked.reason == "spent" and seconds > left):
            break
        if not waits:
            _emit(attempt, blocked, lack(attempt, reservation.worst, blocked), waits=True)
            waits = attempt.is_queued = True
        yield from sleep_until_woken(min(seconds, left), reservation)
    if waits and waits_for is not None:
        attempt.note_change(f"waited {monotonic() - began:.1f} s for {waits_for.need}")
        attempt.leave_queue()


def _put_limit(attempt: AttemptContext, reservation: Reservation) -> None:
    """Send a limit for the answer, if the server could answer with more than was reserved without one."""
    worst, output, shortened_by = reservation.worst, reservation.output, reservation.shortened_by
    if shortened_by is not None:
        attempt.note_change(f"max_tokens {worst.output} → {output}, what {shortened_by} still affords")
    elif (
        worst.is_unlimited
        and worst.may_shorten
        and (bounded := worst.bounded_by(reservation.needs)) is not None
    ):
        attempt.note_change(f"max_tokens {output}: the model has no max_output, and {bounded} needs a limit")
    else:
        return
    attempt.request = _limited(attempt.request, output)


def _limited(request: Request, output: int) -> Request:
    return replace(request, max_tokens=output)


def _emit(attempt: AttemptContext, blocked: Blocked, reason: str, *, waits: bool) -> None:
    name = attempt.deployment.name
    event = observe.OverBudget(attempt.call_id, attempt.plan.agent, name, blocked.need.name, reason, waits)
    attempt.state.emit(event)
