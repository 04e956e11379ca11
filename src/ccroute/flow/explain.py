"""Where a call would go, and why: the call's own decisions, with attempts that are only pretended.

The plan is `make_plan`'s, `RetryState` chooses who is next, `carried_request` and the codec write each
request. So nothing is decided here. Nothing is sent or drawn, and what the router has learned stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from ccroute.accounting.money import NOTHING
from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BudgetExceededError,
    CcrouteError,
    RequestError,
)
from ccroute.failures import NOT_SENT, TRIGGERS, UNSUPPORTED, Rule, Trigger
from ccroute.flow.attempt.attempt import completed
from ccroute.flow.attempt.carried import carried_request
from ccroute.flow.attempt.charge import dearest
from ccroute.flow.attempt.context import FOREVER, AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.attempt.reports import turned_away_error
from ccroute.flow.budget_stats import budget_stats
from ccroute.flow.retry import NextAttempt, RetryState
from ccroute.flow.state import RouterState
from ccroute.flow.waits.spending import foresee, longest_prompt
from ccroute.routing import Candidate, Deployment, Plan, RetryBudget, Tables, make_plan
from ccroute.routing.acquired import Unavailable
from ccroute.routing.budgets.table import Need
from ccroute.routing.budgets.worst_case import worst_case
from ccroute.routing.plan import is_tight
from ccroute.types import FailureClass, Request, Timeout
from ccroute.types.inspection import route_plan as shown
from ccroute.types.inspection.stats import BudgetStats

_PRETENDED: Final = Rule(FailureClass.UNAVAILABLE, retry_tokens=0)
"""The failure of a pretended attempt: it moves the call on to every other candidate."""


def explain(request: Request, state: RouterState) -> shown.RoutePlan:
    """The plan of a call with this request. Raises as `make_plan` does, but for `EgressDeniedError` and
    `ContextWindowExceededError`: the plan shows these instead."""
    plan = make_plan(request, state.tables, None, state.count_tokens, load=state.load)
    tokens = plan.prompt.estimated(state.count_tokens, plan.request)
    needed = tokens + (plan.request.max_tokens or 0)
    prompt = longest_prompt(plan, state)
    limits, waiting = state.timeout_of(plan.request), plan.waiting
    rehearsal = _Rehearsal(plan, state, limits)
    if rehearsal.instead is None:
        shares = _first_shares(rehearsal.asked, plan, needed)
    else:
        shares = {id(rehearsal.instead): 1.0}
    in_order = iter(rehearsal.asked)
    needs = {id(each): _needs(plan, each, state.tables) for each in plan.considered}
    budgets = budget_stats(state, [need for found in needs.values() for need in found])
    candidates = []
    for considered in plan.considered:
        why_not = rehearsal.why_not(considered)
        candidate = considered if why_not else next(in_order)
        deployment, attempt = candidate.deployment, rehearsal.attempts.get(id(candidate))
        price = deployment.price
        candidates.append(
            shown.Candidate(
                deployment=deployment.name,
                backend=deployment.backend.name,
                alias=candidate.alias,
                fallback=candidate.fallback,
                reason=_reason(candidate, plan, state.tables, needed),
                allowed=why_not is None,
                why_not=why_not,
                probability=shares.get(id(candidate), 0.0),
                worst_cost=_worst_cost(
                    deployment, attempt.request if attempt else plan.request, prompt, state.clock.now()
                ),
                budget_left=_left([budgets[need.name] for need in needs[id(candidate)]]),
                predicted_wait=rehearsal.predicted_wait(deployment),
                context_window=deployment.info.context_window,
                input_price=None if price is None else price.input,
                output_price=None if price is None else price.output,
                price_source=deployment.price_source,
                why_unpriced=deployment.why_unpriced,
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
        budgets=tuple(budgets.values()),
        timeout=limits.total,
        waiting_cost=None if waiting is None else waiting.usd_per_hour or None,
        max_wait_free=None if waiting is None else waiting.longest,
    )


class _Rehearsal:
    """A call in which every attempt fails: who is asked, and why the others are not.

    asked:    the candidates that a call would ask, in order.
    instead:  the first of them, if it is asked so that the call need not wait for another one.
    attempts: one for each candidate that may serve, as far as it comes before it is sent. (A deployment may
              be a candidate twice, for different failures, so the keys are ids.)
    """

    def __init__(self, plan: Plan, state: RouterState, limits: Timeout) -> None:
        self._plan, self._state, self._limits = plan, state, limits
        self._now = now = state.clock.monotonic()
        self._unavailable = dict[str, Unavailable]()
        self._faults = dict[int, Fault | None]()
        self.attempts = dict[int, AttemptContext]()
        self.reasons = list(plan.reasons)
        if plan.limit is not None and (wait := state.rate_limits.unavailable(plan.limit)) is not None:
            self.reasons.append(f"agent {plan.agent}: {wait.why}; its turn comes in {wait.until - now:.0f} s")
        self.asked: Sequence[Candidate] = ()
        self.instead: Candidate | None = None
        if plan.denied is not None:
            self.reasons.append(str(plan.denied))
            return
        at = state.clock.now()
        for each in plan.candidates:
            attempt = AttemptContext(
                state=state,
                plan=plan,
                call_id="",
                timeout=limits,
                deadline=FOREVER,
                candidate=each,
                stream=False,
                early=False,
                wait=0.0,
                started=now,
                started_at=at,
                waiting_since=now,
                request=plan.request,
            )
            self.attempts[id(each)], self._faults[id(each)] = attempt, _obstacle(attempt)
        self.asked = self._all_asked()
        for each in self.asked:
            self.reasons += self.attempts[id(each)].changes
        if others := self._equals():
            names = ", ".join(each.deployment.name for each in (self.asked[0], *others))
            self.reasons.append(f"{names}: the first of their hosts that has a free slot serves the call")
        most = state.retry.attempts
        if rest := [each.deployment.name for each in self.asked[most:]]:
            self.reasons.append(
                f"a call makes at most {most} attempts, so {', '.join(rest)} may not be asked; "
                "RetryPolicy(attempts=…) allows more"
            )

    def why_not(self, candidate: Candidate) -> str | None:
        """Why a call does not ask it now; None if it does."""
        if any(candidate is each for each in self.asked):
            return None
        name = candidate.deployment.name
        if name in self._plan.left_out:
            return self._plan.left_out[name]
        if (off := self._unavailable.get(name)) is not None:
            if off.limited:
                return f"{off.why}; there is room in {max(off.until - self._now, 0.0):.0f} s"
            return str(turned_away_error(off, self._now).args[0])
        fault = self._faults[id(candidate)]
        if fault is not None:
            return fault.detail
        return self._refused_by_budget(candidate) or _not_triggered(candidate, self._plan)

    def predicted_wait(self, deployment: Deployment) -> float | None:
        """Seconds until it would begin to answer; None without a limit at its host."""
        hosts = self._state.hosts
        if deployment.backend.origin not in hosts:
            return None
        return hosts.predicted(deployment, self._plan.request.priority)

    def _equals(self) -> list[Candidate]:
        """Those that may serve a call instead of the first one, where that has to wait for a slot."""
        if not self.asked or self.asked[0].deployment.backend.origin not in self._state.hosts:
            return []
        retry = RetryState(self._plan, self._state, only_shown=True)
        return [each for each in retry.equals(self.asked[0]) if self._faults[id(each)] is None]

    def _refused_by_budget(self, candidate: Candidate) -> str | None:
        """Why a fallback model for budgets is not used though a budget is spent; None: for another reason."""
        if "budget" in _triggers(candidate, self._plan):
            for fault in self._faults.values():
                error = None if fault is None else fault.error
                if isinstance(error, BudgetExceededError):
                    return f'budget {error.budget} allows no fallback models: then="fallback" would'
        return None

    def _all_asked(self) -> Sequence[Candidate]:
        """Those that are asked after failures of one kind or another: a fallback model may be for one kind
        only. If the kinds lead to different ones, they are in the order of the plan."""
        kinds: Sequence[Trigger | None] = self._plan.triggers or (_PRETENDED.trigger,)
        runs = [self._asked_after(kind) for kind in kinds]
        longest, every = max(runs, key=len), {id(each) for run in runs for each in run}
        if len(longest) == len(every):
            return longest
        found = [each for each in self._plan.candidates if id(each) in every]
        return sorted(found, key=lambda each: each is not self.instead)

    def _asked_after(self, kind: Trigger | None) -> list[Candidate]:
        """Those that a call asks, one after the other, if each fails in this way."""
        asked, now, state = list[Candidate](), self._now, self._state
        budget = RetryBudget(lambda: now)  # full, because no attempt really fails
        retry = RetryState(self._plan, state._replace(retry_budget=budget), only_shown=True)
        deadline = FOREVER if self._limits.total is None else now + self._limits.total
        while (step := retry.next(now, deadline)) is not None:
            candidate = step.candidate
            if step.early or step.wait:  # every candidate that gets calls was asked
                if not asked:
                    self._note_wait(step)
                break
            fault = self._faults[id(candidate)]
            if fault is None and (instead := self._instead_of(candidate, retry)) is not None:
                self.instead = self.instead if asked else instead
                retry.take(candidate, instead)
                continue
            if fault is None:
                asked.append(candidate)
                # The last attempt is never used up, so that the order goes on to its end.
                failed = _PRETENDED._replace(trigger=kind, uses_attempt=len(asked) < state.retry.attempts)
                fault = Fault(CcrouteError(), failed, retry=False)
            if fault.rule.failure is FailureClass.BUDGET:
                retry.over_budget(candidate, fault)
            elif fault.rule is UNSUPPORTED:
                retry.unsupported(candidate, fault)
            else:
                retry.failed(candidate, fault, now)
        self._unavailable |= retry.unavailable
        return asked

    def _instead_of(self, candidate: Candidate, retry: RetryState) -> Candidate | None:
        """The candidate that a call takes instead of waiting for this one."""
        waiting, origin = self._plan.waiting, candidate.deployment.backend.origin
        if waiting is None or origin not in self._state.hosts:
            return None
        from ccroute.flow.waits.patience import Patience  # few agents say what a wait costs

        options = (candidate, *retry.equals(candidate))
        patience = Patience(self.attempts[id(candidate)], options, retry, waiting)
        instead = patience.instead(patience.predicted)
        if instead is None:
            return None
        if instead.reason not in self.reasons:
            self.reasons.append(instead.reason)
        return instead.candidate

    def _note_wait(self, step: NextAttempt) -> None:
        """Note what a call does if it can ask no deployment at once."""
        name, wait = step.candidate.deployment.name, f"{step.wait:.0f} s"
        what = f"{name} is tried early" if step.early else f"the call waits {wait} for {name}"
        if (note := f"{what}, because nobody else is left") not in self.reasons:
            self.reasons.append(note)


def _obstacle(attempt: AttemptContext) -> Fault | None:
    """Why the request cannot be sent to the deployment, as far as that is known before it is sent."""
    deployment = attempt.deployment
    try:
        attempt.request = carried_request(attempt)
        deployment.backend.encode(attempt.request, deployment.model, attempt.stream)
    except (BackendError, RequestError) as error:
        return Fault(completed(error.with_traceback(None), attempt), UNSUPPORTED)
    table, budgets = attempt.state.tables.budgets, attempt.state.budgets
    if table is not None and budgets is not None and (no_budget := foresee(table, budgets, attempt)):
        return no_budget
    missing = deployment.backend.lacks_key()
    return None if missing is None else Fault(AuthenticationError(missing), NOT_SENT, retry=False)


def _not_triggered(candidate: Candidate, plan: Plan) -> str:
    """Why a fallback model is not used."""
    if not plan.triggers:
        return "the agent has no triggers, so its fallback models are never used"
    if usable := _triggers(candidate, plan):
        return f"this fallback model is only for {' or '.join(usable)}"
    its, agents = " or ".join(candidate.triggers), " or ".join(plan.triggers)
    return f"this fallback model is only for {its}, and the agent's only for {agents}"


def _triggers(candidate: Candidate, plan: Plan) -> list[Trigger]:
    """The failures after which a fallback model is used."""
    return [trigger for trigger in plan.triggers if trigger in candidate.triggers]


def _first_shares(asked: Sequence[Candidate], plan: Plan, needed: int) -> dict[int, float]:
    """The share of calls that ask each candidate first, by its id. Only ties of the first one have any: a
    draw by weight, without those that are not asked, gives each its share of their weights."""
    if not asked:
        return {}
    first = asked[0]
    tie = plan.ties.get(id(first))
    if tie is None:
        return {id(first): 1.0}
    weights = {
        id(each): other.weight
        for each in asked
        if (other := plan.ties.get(id(each))) is not None
        and other.group == tie.group
        and is_tight(each, needed) == is_tight(first, needed)
    }
    return {key: weight / sum(weights.values()) for key, weight in weights.items()}


def _reason(candidate: Candidate, plan: Plan, tables: Tables, needed: int) -> str:
    """Why the candidate is in the plan, with the strategy that placed it, and the triggers of a fallback
    model."""
    reason = candidate.reason
    resolution, found = tables.resolve(candidate.alias)
    if len(found) > 1:
        reason += f", {resolution.strategy}"
    if candidate.fallback and 0 < len(usable := _triggers(candidate, plan)) < len(TRIGGERS):
        reason += f", for {' or '.join(usable)}"
    if is_tight(candidate, needed):
        reason += f"; about {needed} tokens may not fit"
    return reason


def _worst_cost(deployment: Deployment, request: Request, prompt: int, moment: datetime) -> Decimal | None:
    """USD for so many tokens of prompt and the longest answer; None if the price or the length is unknown."""
    longest = deployment.info.max_output or deployment.backend.usual_output
    worst = worst_case(dearest(deployment, request, moment), request, prompt, longest, may_shorten=False)
    return None if worst.price is None or (worst.is_unlimited and worst.price) else worst.usd(worst.output)


def _needs(plan: Plan, candidate: Candidate, tables: Tables) -> Sequence[Need]:
    """The budgets that an attempt at this candidate needs."""
    if tables.budgets is None:
        return ()
    backend = candidate.deployment.backend.name
    return tables.budgets.needs(plan.agent, plan.group, backend, plan.request.session)


def _left(budgets: Sequence[BudgetStats]) -> Decimal | None:
    """USD that the tightest budget has left; None if none has a limit in USD, or what is spent is unknown."""
    left = [
        each.limit - each.spent - each.reserved
        for each in budgets
        if each.limit is not None and each.spent is not None and each.reserved is not None
    ]
    return max(min(left), NOTHING) if left else None
