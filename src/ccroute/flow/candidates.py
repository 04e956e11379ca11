"""Which candidates one call may try now: by what it has tried, by their health, limits and rights.

Must not know which of them is next: `retry` decides that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccroute.flow.state import LimitedHosts, RouterState
from ccroute.routing import Candidate, Plan
from ccroute.routing.acquired import Unavailable
from ccroute.routing.balance import is_doubtful
from ccroute.routing.plan import is_tight

if TYPE_CHECKING:
    from ccroute.routing.rate_limits import Limit, Turn

MOST_AMBIGUOUS = 2
"""Attempts at one backend that it may have worked on and did not answer."""


def equal_candidates(
    chosen: Candidate, candidates: Sequence[Candidate], hosts: LimitedHosts
) -> list[Candidate]:
    """The other candidates that serve a call as well as `chosen`, as far as its plan tells: of the same alias
    and price, where no order is given, and at `hosts`, which are those with a limit."""
    if chosen.strategy == "ordered":
        return []
    price = chosen.deployment.price  # a free slot is no reason to pay more
    return [
        each
        for each in candidates
        if each is not chosen
        and each[1:] == chosen[1:]
        and each.deployment.backend.origin in hosts
        and each.deployment.price == price
    ]


class Candidates:
    """The part of `RetryState` that says which candidates may be tried: what the call has tried of them. The
    constructor of `RetryState` sets the fields, because each call makes one."""

    _plan: Plan
    _state: RouterState
    _only_shown: bool
    _window: int | None
    _tries: dict[str, int]
    _polls: dict[str, int]
    _ambiguous: dict[str, int]
    _fingerprints: dict[str, int | None]
    _retry_tokens: dict[str, int]
    _moved_to: set[str]
    _taken: set[str]
    _useless_deployments: frozenset[str]
    _useless_backends: frozenset[str]

    def equals(self, chosen: Candidate) -> list[Candidate]:
        """The other candidates that may be tried now with equal right. Whichever host has a slot first may
        serve the call."""
        if len(self._plan.candidates) == 1 or chosen.deployment.name in self._asked():
            return []
        alike = equal_candidates(chosen, self._plan.candidates, self._state.hosts)
        return [each for each in alike if self._may_replace(each, chosen)]

    def others(self, waiting_for: Sequence[Candidate]) -> list[Candidate]:
        """The candidates that may be tried now instead of those that the call would have to wait for, each
        once. A fallback model is one of them if it is for failures of availability."""
        tried = self._asked() | self._taken | {each.deployment.name for each in waiting_for}
        return [
            each
            for each in self._plan.candidates
            if each.deployment.name not in tried
            and (not each.fallback or "availability" in {*self._plan.triggers} & {*each.triggers})
            and self._may(each)
            and self._unavailable(each) is None
            and self._has_room(each)
        ]

    def _may_replace(self, other: Candidate, chosen: Candidate) -> bool:
        """Whether another candidate may be tried now, and nothing speaks for `chosen` alone."""
        deployment, first, plan, load = other.deployment, chosen.deployment, self._plan, self._state.load
        tried = self._retry_tokens
        if not self._may(other) or deployment.name in self._asked() | self._moved_to:
            return False
        if deployment.backend.identity in tried and first.backend.identity not in tried:
            return False
        if plan.prompt.tokens is not None:
            needed = plan.prompt.tokens + (plan.request.max_tokens or 0)
            if is_tight(other, needed) and not is_tight(chosen, needed):
                return False
        # A host that refuses at once always has a free slot: it would get every call that waits.
        if is_doubtful(load.snapshot(deployment)) and not is_doubtful(load.snapshot(first)):
            return False
        return self._has_room(other) and self._unavailable(other) is None

    def _asked(self) -> set[str]:
        """The deployments that were asked."""
        return self._tries.keys() | self._polls.keys()

    def _may(self, candidate: Candidate) -> bool:
        """Whether another attempt there could help."""
        deployment, policy = candidate.deployment, self._state.retry
        backend = deployment.backend.identity
        if deployment.name in self._useless_deployments or backend in self._useless_backends:
            return False
        if self._tries.get(deployment.name, 0) >= min(policy.per_deployment, policy.attempts):
            return False
        if self._ambiguous.get(backend, 0) >= MOST_AMBIGUOUS:
            return False
        if not self._state.retry_budget.allows(backend, self._retry_tokens.get(backend, 0)):
            return False
        if self._window is None:
            return True
        # After an overflow: only a larger window, or an unknown one of a model of another name.
        window = deployment.info.context_window
        return candidate.fallback if window is None else window > self._window

    def _unavailable(self, candidate: Candidate) -> Unavailable | None:
        """Why its health forbids it; a key that was rotated meanwhile is not the one that was refused."""
        health, backend = self._state.health, candidate.deployment.backend
        reason = health.unavailable(candidate.deployment, self._plan.request)
        if reason is None or reason.keys is None or self._only_shown:
            return reason
        if backend.identity not in self._fingerprints:  # the callable may ask a vault: once per call
            self._fingerprints[backend.identity] = backend.current_fingerprint()
        key = self._fingerprints[backend.identity]
        if key is None or key in reason.keys:
            return reason
        health.renew(backend)
        return health.unavailable(candidate.deployment, self._plan.request)

    def _has_room(self, candidate: Candidate) -> bool:
        """Whether its rate limit lets it have the request now."""
        limit = candidate.deployment.limit
        if limit is None:
            return True
        tokens = 0 if limit.tpm is None else self._reserved(limit)
        return self._state.rate_limits.unavailable(limit, tokens) is None

    def _turn(self, limit: Limit, *, queues: bool = False) -> Turn | None:
        """A turn under a deployment's rate limit; None if there is no room, unless the call queues for it."""
        limits, tokens = self._state.rate_limits, 0 if limit.tpm is None else self._reserved(limit)
        return limits.queue(limit, tokens) if queues else limits.take(limit, tokens)

    def _reserved(self, limit: Limit) -> int:
        """The tokens that the request reserves of a limit."""
        plan, count = self._plan, self._state.count_tokens
        return limit.reserved(plan.prompt.estimated(count, plan.request), plan.request.max_tokens)
