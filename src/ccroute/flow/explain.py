"""Where a call would go, and why: the call's own decisions, with attempts that are only pretended.

The plan is `make_plan`'s, `RetryState` chooses who is next, and `carried_request` writes each request. So
nothing is decided here. Nothing is sent or drawn either, and what the router has learned stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import ceil
from typing import Final, NamedTuple

from ccroute.accounting import cost
from ccroute.accounting.tokens import count_safely, estimate
from ccroute.errors import AuthenticationError, BackendError, CcrouteError, RequestError
from ccroute.failures import NOT_SENT, TRIGGERS, UNSUPPORTED, Rule
from ccroute.flow.attempt import completed
from ccroute.flow.attempt_context import FOREVER, AttemptContext
from ccroute.flow.call_context import timeout_of
from ccroute.flow.carried import carried_request
from ccroute.flow.reports import turned_away_error
from ccroute.flow.retry import Fault, RetryState
from ccroute.flow.state import RouterState
from ccroute.routing import Candidate, Deployment, Plan, RetryBudget, Tables, make_plan
from ccroute.routing.plan import TOLERANCE, cached, is_tight
from ccroute.types import FailureClass, Request, Timeout
from ccroute.types import route_plan as shown
from ccroute.types.route import new_usage

_PRETENDED: Final = Rule(FailureClass.UNAVAILABLE, retry_tokens=0)
"""The failure of a pretended attempt: it moves the call on to every other candidate."""


class _Rehearsal(NamedTuple):
    """A call in which every attempt fails: who is asked, in order, and why the others are not."""

    asked: Sequence[Candidate]
    why_not: dict[str, str]
    reasons: list[str]


def explain(request: Request, tables: Tables, state: RouterState) -> shown.RoutePlan:
    """The plan of a call with this request. Raises as `make_plan` does, but for `EgressDeniedError` and
    `ContextWindowExceededError`: the plan tells them."""
    count = cached(state.count_tokens)
    plan = make_plan(request, tables, None, count, load=state.load)
    tokens = count_safely(count, plan.request)
    needed = tokens + (plan.request.max_tokens or 0)
    prompt = ceil(tokens * TOLERANCE) if state.count_tokens is estimate else tokens
    limits = state.timeout if plan.request.timeout is None else timeout_of(plan, state)
    rehearsal = _rehearse(plan, state, limits)
    shares = _first_shares(rehearsal.asked, plan, needed)
    in_order = iter(rehearsal.asked)
    candidates = []
    for considered in plan.considered:
        name = considered.deployment.name
        candidate = considered if name in rehearsal.why_not else next(in_order)
        deployment = candidate.deployment
        candidates.append(
            shown.Candidate(
                deployment=deployment.name,
                backend=deployment.backend.name,
                alias=candidate.alias,
                fallback=candidate.fallback,
                reason=_reason(candidate, plan, tables, needed),
                allowed=name not in rehearsal.why_not,
                why_not=rehearsal.why_not.get(name),
                probability=shares.get(deployment.name, 0.0),
                worst_cost=_worst_cost(deployment, plan.request, prompt),
                context_window=deployment.info.context_window,
            )
        )
    return shown.RoutePlan(
        agent=plan.agent,
        requested_model=plan.requested_model,
        model=plan.model,
        overridden=plan.overridden,
        estimated_tokens=tokens,
        candidates=tuple(candidates),
        reasons=tuple(rehearsal.reasons),
        timeout=limits.total,
    )


def _rehearse(plan: Plan, state: RouterState, limits: Timeout) -> _Rehearsal:
    asked, why_not, reasons = list[Candidate](), dict(plan.left_out), list(plan.reasons)
    if plan.denied is not None:
        return _Rehearsal(asked, why_not, [*reasons, str(plan.denied)])
    now, most, total = state.clock.monotonic(), state.retry.attempts, limits.total
    budget = RetryBudget(lambda: now)  # full, because no attempt really fails
    retry = RetryState(plan, state._replace(retry_budget=budget), asks_keys=False)
    while (step := retry.next(now, FOREVER if total is None else now + total)) is not None:
        candidate, name = step.candidate, step.candidate.deployment.name
        if step.early or step.wait:  # everybody who gets calls was asked
            if not asked and step.early:
                reasons.append(f"{name} is tried early, because nobody else is left")
            elif not asked:
                reasons.append(f"the call waits {step.wait:.0f} s for {name}, because nobody else is left")
            break
        # An attempt that is not made.
        at = state.clock.now()
        attempt = AttemptContext(
            state, plan, "", limits, FOREVER, candidate, False, False, 0.0, now, at, now, plan.request
        )
        fault = _obstacle(attempt)
        if fault is None:
            asked.append(candidate)
            reasons += attempt.changes
            # The last attempt is never used up, so that the order goes on to its end.
            retry.failed(candidate, _pretended(plan, uses_attempt=len(asked) < most), now)
            continue
        why_not[name] = fault.detail
        if fault.rule is UNSUPPORTED:
            retry.unsupported(candidate, fault)
        else:
            retry.failed(candidate, fault, now)
    asked_names = {candidate.deployment.name for candidate in asked}
    for candidate in plan.candidates:
        name, off = candidate.deployment.name, retry.unavailable.get(candidate.deployment.name)
        if name not in asked_names and name not in why_not:
            why_not[name] = turned_away_error(off, now).args[0] if off else _not_triggered(plan)
    if len(asked) > most:
        rest = ", ".join(candidate.deployment.name for candidate in asked[most:])
        reasons.append(
            f"a call makes at most {most} attempts, so {rest} may not be asked; RetryPolicy(attempts=…) "
            "allows more"
        )
    return _Rehearsal(asked, why_not, reasons)


def _obstacle(attempt: AttemptContext) -> Fault | None:
    """Why the request cannot be sent to the deployment, as far as that is known before it is sent."""
    deployment = attempt.deployment
    try:
        deployment.backend.encode(carried_request(attempt), deployment.model, attempt.stream)
    except (BackendError, RequestError) as error:
        return Fault(completed(error.with_traceback(None), attempt), UNSUPPORTED)
    missing = deployment.backend.lacks_key()
    return None if missing is None else Fault(AuthenticationError(missing), NOT_SENT, retry=False)


def _pretended(plan: Plan, *, uses_attempt: bool) -> Fault:
    """A failure for which the agent's fallback models may be used, if there is one."""
    trigger = plan.triggers[0] if plan.triggers else _PRETENDED.trigger
    rule = _PRETENDED._replace(trigger=trigger, uses_attempt=uses_attempt)
    return Fault(CcrouteError("pretended"), rule, retry=False)


def _not_triggered(plan: Plan) -> str:
    """Why a fallback model is not used."""
    if not plan.triggers:
        return "the agent has no triggers, so its fallback models are never used"
    return f"the agent's fallback models are only for {', '.join(plan.triggers)}"


def _first_shares(asked: Sequence[Candidate], plan: Plan, needed: int) -> dict[str, float]:
    """The share of calls that ask each deployment first. Only ties of the first one have one: a draw by
    weight, without those that are not asked, gives each its share of their weights."""
    if not asked:
        return {}
    first = asked[0]
    tie = plan.ties.get(first.deployment.name)
    if tie is None:
        return {first.deployment.name: 1.0}
    weights = {
        candidate.deployment.name: other.weight
        for candidate in asked
        if (other := plan.ties.get(candidate.deployment.name)) is not None
        and other.group == tie.group
        and is_tight(candidate, needed) == is_tight(first, needed)
    }
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def _reason(candidate: Candidate, plan: Plan, tables: Tables, needed: int) -> str:
    """Why it is there, with the strategy that placed it, and what it is for."""
    reason = candidate.reason
    resolution, found = tables.resolve(candidate.alias)
    if len(found) > 1:
        reason += f", {resolution.strategy}"
    if candidate.fallback and 0 < len(plan.triggers) < len(TRIGGERS):
        reason += f", for {' or '.join(plan.triggers)}"
    if is_tight(candidate, needed):
        reason += f"; about {needed} tokens may not fit"
    return reason


def _worst_cost(deployment: Deployment, request: Request, prompt: int) -> Decimal | None:
    """USD for so many tokens of prompt and the longest answer; None if the price or the length is unknown."""
    price, longest = deployment.price, request.max_tokens or deployment.info.max_output
    if price is None or (longest is None and price.tier(prompt).output):
        return None
    return cost(new_usage(input=prompt, output=longest or 0), price)
