"""Which candidate a call tries next, and when.

Knows rules, candidates and counts; must not know what is sent. Sources: docs/architecture.md, "Failures".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ccroute.errors import DeadlineExceededError
from ccroute.failures import TOO_LONG, Trigger, rule_of
from ccroute.flow.attempt.context import FOREVER, MIN_ATTEMPT
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.backoff import backoff, poll_wait
from ccroute.flow.candidates import Candidates
from ccroute.flow.state import RouterState
from ccroute.routing import Candidate, Plan
from ccroute.routing.acquired import Unavailable
from ccroute.routing.retry_budget import RetryTokens
from ccroute.types import FailureClass

if TYPE_CHECKING:
    from ccroute.routing.rate_limits import Limit, Turn

_NONE: frozenset[str] = frozenset()


class NextAttempt(NamedTuple):
    """Whom to try next, and the seconds to wait before it.

    pause:  the seconds of them that pass before it waits for its turn under a rate limit.
    early:  its time has not come yet, but nobody else is left, so one call may probe it.
    queues: no other candidate is left, so the call waits for its turn under the deployment's rate limit.
    tokens: what it cost of the backend's retry budget.
    turn:   its turn under the deployment's rate limit, which may not have come yet.
    instead: it is taken because another candidate would have to wait, so it does not wait for anything.
    """

    candidate: Candidate
    wait: float
    pause: float = 0.0
    early: bool = False
    queues: bool = False
    tokens: RetryTokens | None = None
    turn: Turn | None = None
    instead: bool = False

    def settle(self) -> None:
        """Give back what it holds: the attempt is not made."""
        for each in (self.tokens, self.turn):
            if each is not None:
                each.settle()


class RetryState(Candidates):
    """What one call has tried, and what it may try next: bounded, and never twice where it cannot help.

    unavailable:       the candidates that were passed over, and why.
    fault:             the last failure of an attempt.
    unsupported_fault: why a candidate cannot serve the request; nothing was sent there.
    budget_fault:      why no budget allows a candidate; nothing was sent there.
    lacked_time:       whether there was somebody to try, and no time for it.

    only_shown: for a plan that is only shown: takes nothing, and asks no `api_key` callable whether the key
                that was refused is still its key.
    """

    def __init__(self, plan: Plan, state: RouterState, *, only_shown: bool = False) -> None:
        self.unavailable: dict[str, Unavailable] = {}
        self.fault: Fault | None = None
        self.unsupported_fault: Fault | None = None
        self.budget_fault: Fault | None = None
        self._budget_triggers: set[Trigger | None] = set()
        self.lacked_time = False
        self._plan = plan
        self._state = state
        self._only_shown = only_shown
        self._attempts_left = state.retry.attempts
        self._may_probe = True
        self._window: int | None = None  # tokens that were too few
        # By deployment: its attempts, how often it was polled, when it is ready for another (monotonic).
        self._tries: dict[str, int] = {}
        self._polls: dict[str, int] = {}
        self._ready: dict[str, float] = {}
        # By a backend's identity: its ambiguous attempts, its key's fingerprint, the retry tokens of another
        # attempt.
        self._ambiguous: dict[str, int] = {}
        self._fingerprints: dict[str, int | None] = {}
        self._retry_tokens: dict[str, int] = {}
        self._moved_to: set[str] = set()  # deployments: to each of them a call moves once
        self._taken: set[str] = set()  # deployments that were taken so as not to wait: each of them once
        self._taken_next: Candidate | None = None
        self._useless_deployments = _NONE  # they cannot help this call
        self._useless_backends = _NONE

    def next(self, now: float, deadline: float = FOREVER) -> NextAttempt | None:
        """Whom to try now (monotonic seconds); None when nobody is left, or no time before `deadline`."""
        step = self._next(now)
        over = self.fault is not None and isinstance(self.fault.error, DeadlineExceededError)
        if step is None:
            return None
        wait = step.wait if step.turn is None else max(step.wait, step.turn.room.at - now)
        if not over and deadline - now >= wait + MIN_ATTEMPT:
            return step
        step.settle()
        self.lacked_time = True
        return None

    def _next(self, now: float) -> NextAttempt | None:
        last = self.fault or self.unsupported_fault or self.budget_fault
        if self._taken_next is not None:
            pass
        elif last is None:
            first = self._plan.candidates[0]
            if not self.unavailable and self._unavailable(first) is None:
                turn, limit = None, first.deployment.limit
                if limit is None or (not self._only_shown and (turn := self._turn(limit)) is not None):
                    budget = self._state.retry_budget
                    if budget.left:
                        budget.first(first.deployment.backend.identity)
                    return NextAttempt(first, 0.0, turn=turn)
        elif last.rule.others == "none" or self._attempts_left <= 0:
            return None
        while (chosen := self._choose(now)) is not None:
            if isinstance(acquired := self._acquired(chosen), NextAttempt):
                return acquired
        return None

    def _acquired(self, step: NextAttempt) -> NextAttempt | Unavailable:
        """The step with its retry tokens and its turn under a rate limit; or why it gets none of them."""
        backend, limit = step.candidate.deployment.backend.identity, step.candidate.deployment.limit
        if (cost := self._retry_tokens.get(backend)) is None:
            self._state.retry_budget.first(backend)
        elif (tokens := self._state.retry_budget.take(backend, cost)) is None:
            return Unavailable(FOREVER, "its retry budget is used up", None)
        else:
            step = step._replace(tokens=tokens)
        if limit is None or self._only_shown:
            return step
        if (turn := self._turn(limit, queues=step.queues)) is None:
            step.settle()
            return Unavailable(FOREVER, "its rate limit is reached", None, limited=True)
        return step._replace(turn=turn)

    def _leave(self, candidate: Candidate) -> None:
        """A candidate is not asked now, so its backend's retry budget gains nothing."""
        if (backend := candidate.deployment.backend.identity) not in self._retry_tokens:
            self._state.retry_budget.not_made(backend)

    def take(self, before: Candidate, candidate: Candidate) -> None:
        """`candidate` is next, because `before` would have to wait. If it does not answer, the call comes
        back."""
        self._leave(before)
        self._taken.add(candidate.deployment.name)
        self._taken_next = candidate

    def moved(self, before: Candidate, candidate: Candidate) -> NextAttempt | Unavailable:
        """The same attempt, but at `candidate`, whose host had a slot first; or why that gets no call now. A
        call that has a slot does not wait for anything else."""
        self._moved_to.add(candidate.deployment.name)
        self._leave(before)
        return self._acquired(NextAttempt(candidate, 0.0))

    def _ask_limit(self, name: str, limit: Limit, reasons: dict[str, Unavailable | None], now: float) -> None:
        """Put into `reasons` that a deployment is at its rate limit, if that lasts longer than a cooldown."""
        reason, tokens = reasons[name], 0 if limit.tpm is None else self._reserved(limit)
        if reason is not None and not reason.cooling:
            return
        full = self._state.rate_limits.unavailable(limit, tokens)
        if full is not None and (reason is None or full.until > reason.until):
            reasons[name] = full
            if reason is not None:
                self._ready[name] = max(self._ready.get(name, now), reason.until)

    def failed(self, candidate: Candidate, fault: Fault, now: float) -> None:
        """An attempt failed at `now` (monotonic seconds)."""
        self.fault = fault
        if fault.drops:  # asked again without it; no attempt is used up, for nothing was done
            return
        rule, deployment, backend = fault.rule, candidate.deployment, candidate.deployment.backend.identity
        wait, random = fault.error.retry_after, self._state.clock.random
        if rule.polled:
            polls = self._polls.get(deployment.name, 0)
            self._retry_tokens.setdefault(backend, 0)
            self._ready[deployment.name] = now + poll_wait(polls, wait, random)
            self._polls[deployment.name] = polls + 1
            return
        tries = self._tries[deployment.name] = self._tries.get(deployment.name, 0) + 1
        self._attempts_left -= rule.uses_attempt
        self._retry_tokens[backend] = rule.retry_tokens
        if rule.failure is FailureClass.AMBIGUOUS:
            self._ambiguous[backend] = self._ambiguous.get(backend, 0) + 1
        if rule.turns_off == "credential":
            self._useless_backends |= {backend}
        if rule is TOO_LONG:
            limit = getattr(fault.error, "limit", None) or deployment.info.context_window
            self._window = max(self._window or 0, limit or 0)
        if not fault.may_retry:
            self._useless_deployments |= {deployment.name}
            return
        if wait is None:
            wait = backoff(self._state.retry, tries, fault.error, random)
        self._ready[deployment.name] = now + wait

    def unsupported(self, candidate: Candidate, fault: Fault) -> None:
        """A candidate cannot serve the request: nothing was sent, and nothing counts."""
        self.unsupported_fault = self.unsupported_fault or fault
        self._useless_deployments |= {candidate.deployment.name}

    def over_budget(self, candidate: Candidate, fault: Fault) -> None:
        """A budget does not allow a candidate: nothing was sent, and nothing counts."""
        self.budget_fault = self.budget_fault or fault
        self._budget_triggers.add(fault.rule.trigger)
        self._useless_deployments |= {candidate.deployment.name}

    def turned_away(self, step: NextAttempt, reason: Unavailable) -> None:
        """Its health changed while the call waited for a slot at its host, or another call probes it."""
        self._may_probe = self._may_probe and not step.early
        self.unavailable[step.candidate.deployment.name] = reason

    def left(self) -> list[str]:
        """The deployments that might have answered, had the call more attempts."""
        last = self.fault or self.unsupported_fault
        if last is None or last.rule.others == "none" or self._attempts_left > 0:
            return []
        untried = [c for c in self._plan.candidates if c.deployment.name not in self._tries and self._may(c)]
        return [c.deployment.name for c in untried if self._is_triggered(c, self.unavailable)]

    def _choose(self, now: float) -> NextAttempt | None:
        taken, self._taken_next = self._taken_next, None
        if taken is not None:
            return NextAttempt(taken, 0.0, instead=True)
        possible = [candidate for candidate in self._plan.candidates if self._may(candidate)]
        reasons = {candidate.deployment.name: self._unavailable(candidate) for candidate in possible}
        for candidate in possible:
            if (limit := candidate.deployment.limit) is not None:
                self._ask_limit(candidate.deployment.name, limit, reasons, now)
        self.unavailable |= {name: reason for name, reason in reasons.items() if reason is not None}
        possible = [candidate for candidate in possible if self._is_triggered(candidate, reasons)]
        asked = self._asked()
        untried = [c for c in possible if c.deployment.name not in asked]
        fresh = [c for c in untried if reasons[c.deployment.name] is None]
        if fresh:
            return NextAttempt(self._best(fresh), 0.0)

        def ready(candidate: Candidate) -> float:
            reason = reasons[candidate.deployment.name]
            return max(self._ready.get(candidate.deployment.name, now), reason.until if reason else now)

        waiting = [c for c in possible if (reason := reasons[c.deployment.name]) is None or reason.cooling]
        if waiting:
            soonest = min(waiting, key=ready)
            name = soonest.deployment.name
            reason, wait = reasons[name], ready(soonest) - now
            is_limited = reason is not None and reason.limited
            pause = max(self._ready.get(name, now) - now, 0.0) if is_limited else wait
            return NextAttempt(soonest, wait, pause, queues=True)
        if untried and self._may_probe:
            return NextAttempt(min(untried, key=ready), 0.0, early=True, queues=True)
        return None

    def _best(self, fresh: Sequence[Candidate]) -> Candidate:
        """The next in order; the last attempt goes to a backend not tried yet, if there is one."""
        if self._attempts_left <= 1:
            return next(
                (c for c in fresh if c.deployment.backend.identity not in self._retry_tokens), fresh[0]
            )
        return fresh[0]

    def _is_triggered(self, candidate: Candidate, reasons: Mapping[str, Unavailable | None]) -> bool:
        """Whether this call may go to it: a fallback model only for what its agent's triggers name, and its
        own."""
        if not candidate.fallback:
            return True
        usable = {*self._plan.triggers} & {*candidate.triggers}
        if (last := self.fault or self.unsupported_fault) is not None:
            return not usable.isdisjoint({last.rule.trigger} | self._budget_triggers)
        # Nobody was tried yet: the first choices are turned off, a budget does not allow them, or the prompt
        # does not fit into them.
        before = self._plan.candidates[: self._plan.candidates.index(candidate)]
        found = [reasons.get(c.deployment.name) for c in before if not c.fallback]
        triggers = {_trigger(reason) for reason in found if reason is not None} | self._budget_triggers
        return not (found or triggers) or not triggers.isdisjoint(usable)


def _trigger(reason: Unavailable) -> Trigger | None:
    """The trigger of the failure that turned a deployment off."""
    return "availability" if reason.error is None else rule_of(reason.error).trigger
