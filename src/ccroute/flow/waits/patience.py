"""Whether a call waits for a slot, or takes another candidate that may serve it at once: where to wait would
cost more, or takes too long.

The decision itself is pure, in `routing.scheduling.waiting_cost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from ccroute import observe
from ccroute.backends import Backend
from ccroute.display import rounded_usd
from ccroute.errors import BackendError, RequestError
from ccroute.flow.attempt.carried import carried_request
from ccroute.flow.attempt.context import FOREVER, AttemptContext
from ccroute.flow.waits.slots import Instead
from ccroute.flow.waits.spending import fits_now
from ccroute.routing import Candidate, Deployment
from ccroute.routing.balance import TYPICAL_OUTPUT
from ccroute.routing.scheduling.waiting_cost import WaitingCost, break_even, expected_usd, is_too_long, usd_of

if TYPE_CHECKING:
    from ccroute.flow.retry import RetryState

AT_ONCE: Final = 0.05
"""Seconds: a shorter wait is none."""
_OFTEN: Final = 0.5
_RARELY: Final = 10.0
"""Seconds between two decisions of a call that waits, at least and at most."""


class _Costs(NamedTuple):
    """What it costs to wait, and to take another candidate instead.

    price:      USD per hour of the call's own wait; 0: it has no price, or a price of the calls is unknown.
    behind:     USD per hour of the waits of the calls behind it.
    here:       USD that the call costs where it waits; `there`: at the other candidate.
    slower:     seconds that an answer of the other candidate takes longer.
    break_even: the seconds of waiting that cost as much as the other candidate.
    """

    price: float = 0.0
    behind: float = 0.0
    here: float = 0.0
    there: float = 0.0
    slower: float = 0.0
    break_even: float = FOREVER

    def explained(self, other: str, waited: float, left: float) -> str:
        """The reason to take `other` after `waited` seconds, with about `left` seconds still to wait."""
        if left < self.break_even:
            what, seconds = f"a wait of {waited:.1f} s has cost", waited
        else:
            so_far = f"after {waited:.1f} s, " if waited else ""
            what, seconds = f"{so_far}a wait of {_seconds(left)} would cost", left
        costs = [_money(usd_of(seconds, self.price))]
        if self.behind >= 0.01 * self.price:
            costs.append(f"the calls behind it {_money(usd_of(seconds, self.behind))}")
        if self.here:
            costs.append(f"the call itself {_money(self.here)}")
        longer = f" and {_seconds(self.slower)} more" if self.slower else ""
        return f"{what} {' and '.join(costs)}, {other} about {_money(self.there)}{longer}"


class Patience:
    """How long one call waits for a slot, at the host of any of its `options`.

    predicted: the seconds that it would wait, as predicted when it came.
    """

    def __init__(
        self, attempt: AttemptContext, options: Sequence[Candidate], retry: RetryState, waiting: WaitingCost
    ) -> None:
        self._attempt, self._options, self._retry, self._waiting = attempt, options, retry, waiting
        self._since = attempt.state.clock.monotonic()
        self._usd_per_hour = float(waiting.usd_per_hour)
        self._break_even = FOREVER  # the least one of all candidates
        self.predicted = self._least()

    def begins(self) -> None:
        """The call begins to wait, or takes another candidate at once."""
        backend, now = self._attempt.deployment.backend, self._since
        self._attempt.state.waits.came(backend.origin, self._identity, self._usd_per_hour, now)

    def unseen(self) -> list[Backend]:
        """The backends of whose hosts nobody has asked for a while what they have loaded. Only calls that
        wait ask that, so if all of them paid, it would never be noticed that the model is loaded."""
        backends = {option.deployment.backend.origin: option.deployment.backend for option in self._options}
        waits, now = self._attempt.state.waits, self._since
        return [
            backend
            for origin, backend in backends.items()
            if backend.loads_models and waits.looks(origin, now)
        ]

    def predicts_again(self) -> Instead | None:
        """The candidate that the call takes, after it was asked what its hosts have loaded."""
        self._since = self._attempt.state.clock.monotonic()
        self.predicted = self._least()
        return self.instead(self.predicted)

    def instead(self, left: float) -> Instead | None:
        """The candidate that the call takes now, with about `left` seconds to wait: the first one of the plan
        that may serve at once and is worth it."""
        self._break_even = FOREVER
        if not left and not self._waited:
            return None
        for other in self._retry.others(self._options):
            if self._seconds_at(other.deployment) <= AT_ONCE:
                worth = self._worth(other, left)
                if worth is not None and _may_serve(self._attempt.at(other)):
                    return worth
        return None

    def next_decision(self) -> float:
        """The instant at which the call decides again, if it still waits."""
        now, longest = self._attempt.state.clock.monotonic(), self._waiting.longest
        soon = now + min(max(self._break_even / 8, _OFTEN), _RARELY)
        ends = (self._since + self._break_even, self._since + (FOREVER if longest is None else longest))
        return min([soon, *(end for end in ends if end > now)])

    def took(self, instead: Instead) -> None:
        """The call takes another candidate."""
        attempt, waits, identity = self._attempt, self._attempt.state.waits, self._identity
        if not (waited := self._waited):
            waits.paid_at_once(identity)
        elif waited > self.predicted:
            waits.waited(identity, self.predicted, waited, instead.break_even)
        name, other = attempt.deployment.name, instead.candidate.deployment.name
        event = observe.WaitSkipped(attempt.call_id, attempt.plan.agent, name, other, instead.reason)
        attempt.state.emit(event)

    def answered(self, started: float, load: float) -> None:
        """The call was sent at this instant, and its answer came after a load of so many seconds."""
        waited = max(started - self._since, 0.0) + load
        self._attempt.state.waits.waited(self._identity, self.predicted, waited, self._break_even)

    @property
    def _identity(self) -> str:
        return self._attempt.deployment.identity

    @property
    def _waited(self) -> float:
        seconds = self._attempt.state.clock.monotonic() - self._since
        return seconds if seconds > AT_ONCE else 0.0

    def _least(self) -> float:
        return min(self._seconds_at(option.deployment) for option in self._options)

    def _seconds_at(self, deployment: Deployment) -> float:
        """Seconds until it would begin to answer a call that came now."""
        return self._attempt.state.hosts.predicted(deployment, self._attempt.plan.request.priority)

    def _worth(self, other: Candidate, left: float) -> Instead | None:
        """Whether the call takes `other` now, if that may serve it."""
        here, waited, longest = self._attempt.deployment, self._waited, self._waiting.longest
        costs, trusted = self._costs(other.deployment), self._attempt.state.waits.trusts(here.identity)
        if longest is not None and (waited + left > longest or waited >= longest):
            wait = f"a wait of {_seconds(waited + left)} is more than max_wait_free={longest:g} s"
            why = f"{wait}, so {other.deployment.name}"
        elif is_too_long(waited, left, costs.break_even, trusted=trusted):
            why = costs.explained(other.deployment.name, waited, left)
        else:
            self._break_even = min(self._break_even, costs.break_even)
            return None
        return Instead(other, f"{here.name}: {why}", costs.break_even)

    def _costs(self, other: Deployment) -> _Costs:
        """What it costs to wait, and to take `other` instead."""
        state, here, price = self._attempt.state, self._attempt.deployment, self._usd_per_hour
        usd, usd_here = self._usd(other), self._usd(here)
        if not price or usd is None or usd_here is None:
            return _Costs()
        slots, now = here.backend.max_concurrency or 1, state.clock.monotonic()
        behind = state.waits.behind(here.backend.origin, slots, now)
        slower = state.waits.slower(here.identity, other.identity)
        even = break_even(price + behind, usd - usd_here, slower)
        return _Costs(price, behind, usd_here, usd, slower, even)

    def _usd(self, deployment: Deployment) -> float | None:
        """What the call would cost there, about; None if the price is unknown. The answer is assumed to be as
        long as the agent's usual ones, and at most `max_tokens`."""
        if (price := deployment.price) is None:
            return None
        attempt, most = self._attempt, self._attempt.plan.request.max_tokens
        output = attempt.state.waits.usual_output(attempt.plan.agent) or TYPICAL_OUTPUT
        return expected_usd(price, attempt.prompt_tokens(), output if most is None else min(output, most))


def _may_serve(attempt: AttemptContext) -> bool:
    """Whether nothing is known that keeps the deployment from serving the request now."""
    state, deployment = attempt.state, attempt.deployment
    try:
        attempt.request = carried_request(attempt)
        deployment.backend.encode(attempt.request, deployment.model, attempt.stream)
    except (BackendError, RequestError):
        return False
    if deployment.backend.lacks_key() is not None:
        return False
    table, budgets = state.tables.budgets, state.budgets
    return table is None or budgets is None or fits_now(table, budgets, attempt)


def _seconds(seconds: float) -> str:
    return f"about {seconds:.{1 if seconds < 10 else 0}f} s"


def _money(usd: float) -> str:
    return f"{rounded_usd(Decimal(f'{usd:.2g}')).lstrip('$')} USD"
