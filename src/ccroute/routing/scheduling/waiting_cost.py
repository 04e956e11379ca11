"""Whether a call waits for its candidate, or pays for another one that may serve it at once.

To go on waiting or to pay is the ski-rental problem with predictions. The `break_even` is the wait that costs
as much as the other candidate. As long as predictions are good, they decide, and at the start of the wait. If
they turn out to be wrong, a call waits up to the break-even before it pays, whatever they say: so it never
costs more than twice the better choice.

A call that waits delays the calls behind it. Their price of waiting counts, too: calls that look at their own
wait only would wait too long (Naor, "The regulation of queue size by levying tolls", 1969).
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from ccroute.http.origin import Origin
from ccroute.routing.scheduling.estimates import smoothed
from ccroute.types import Price

MOST_WRONG: Final = 0.5
"""The mean error, as a share of the wait, up to which predictions decide."""
UNCHECKED: Final = 32
"""Calls that pay at once, one after the other: nobody learns whether the prediction was right. The next one
waits up to the break-even."""
UNTRIED: Final = 4
"""The same where no call has waited yet: then the prediction is hardly more than an assumption."""
HALF_LIFE: Final = 300.0
"""Seconds after which a call counts half for the work that comes to a host."""
BEHIND: Final = 2.0
"""How much of that work is behind a call that waits: see `Waits.behind`."""
LOOK_EVERY: Final = 5.0
"""Seconds after which a call that does not wait asks again what its host has loaded."""
WEIGHT: Final = 0.2
"""The weight of a new measurement."""
_MOST_KNOWN: Final = 10_000
"""Agents and deployments that are remembered. There is a limit, because names may come from clients."""
_FOREVER: Final = float("inf")
_HOUR: Final = 3600.0

_K = TypeVar("_K")
_V = TypeVar("_V")


class WaitingCost(NamedTuple):
    """What an agent or a call says of its waits.

    usd_per_hour: what it is worth not to wait; 0: nothing.
    longest:      seconds that it waits at most where another candidate may serve it; None: no limit.
    """

    usd_per_hour: Decimal = Decimal(0)
    longest: float | None = None


def waiting_cost(usd_per_hour: Decimal | None, longest: float | None) -> WaitingCost | None:
    """None: a call waits as long as it has to."""
    if not usd_per_hour and longest is None:
        return None
    return WaitingCost(usd_per_hour or Decimal(0), longest)


def usd_of(seconds: float, usd_per_hour: float) -> float:
    """What it costs to wait so long."""
    return seconds * usd_per_hour / _HOUR


def break_even(usd_per_hour: float, extra_usd: float, extra_seconds: float) -> float:
    """Seconds of waiting that cost as much as a candidate whose call costs so much more, and takes so much
    longer."""
    return extra_usd / usd_per_hour * _HOUR + extra_seconds if usd_per_hour else _FOREVER


def is_too_long(waited: float, left: float, break_even: float, *, trusted: bool) -> bool:
    """Whether a call that has waited for `waited` seconds, and as predicted has `left` seconds to wait, pays
    now for the other candidate.

    trusted: predictions have been good.
    """
    return waited >= break_even or (trusted and left >= break_even)


def expected_usd(price: Price, prompt: int, output: float) -> float:
    """What a call of so many tokens costs, about."""
    tier = price.tier(prompt)
    return (prompt * float(tier.input) + output * float(tier.output)) / 1e6


class Waits:
    """What calls with a price of waiting have shown: how right predictions are, what to expect of a call, and
    how many of them come to a host.

    Each value is replaced as a whole, so threads, tasks and finalisers may use it at once.
    """

    def __init__(self) -> None:
        self._errors: dict[str, float] = {}  # by the identity of the deployment that they waited for
        self._unchecked: dict[str, int] = {}
        self._outputs: dict[str | None, float] = {}  # by agent
        self._seconds: dict[str, float] = {}  # by deployment
        self._looked: dict[Origin, float] = {}
        self._work: dict[Origin, tuple[float, float]] = {}  # seconds × USD per hour, decayed, and since when

    def trusts(self, deployment: str) -> bool:
        """Whether predicted waits for the deployment decide."""
        most = UNCHECKED if deployment in self._errors else UNTRIED
        is_checked = self._unchecked.get(deployment, 0) < most
        return is_checked and self._errors.get(deployment, 0.0) <= MOST_WRONG

    def paid_at_once(self, deployment: str) -> None:
        """A call did not wait for the deployment at all."""
        _put(self._unchecked, deployment, self._unchecked.get(deployment, 0) + 1)

    def waited(self, deployment: str, predicted: float, seconds: float, break_even: float) -> None:
        """A call waited so long for the deployment. An error counts in proportion to the wait, or to a tenth
        of the break-even: what is far below it does not matter."""
        self._unchecked.pop(deployment, None)
        scale = max(predicted, seconds, break_even / 10 if break_even < _FOREVER else 1.0)
        error = abs(predicted - seconds) / scale if scale else 0.0
        _put(self._errors, deployment, smoothed(self._errors.get(deployment, 0.0), error, WEIGHT))

    def answered(self, agent: str | None, deployment: str, output: int, seconds: float) -> None:
        """An answer of so many tokens took so many seconds, without waits."""
        _put(self._outputs, agent, smoothed(self._outputs.get(agent), output, WEIGHT))
        _put(self._seconds, deployment, smoothed(self._seconds.get(deployment), seconds, WEIGHT))

    def looks(self, host: Origin, now: float) -> bool:
        """Whether a call that does not wait asks now what the host has loaded. Counts as if it did."""
        if now < self._looked.get(host, -_FOREVER) + LOOK_EVERY:
            return False
        _put(self._looked, host, now)
        return True

    def came(self, host: Origin, deployment: str, usd_per_hour: float, now: float) -> None:
        """A call came to a host, with this price of waiting. It takes as long as others of the deployment."""
        work = self._seconds.get(deployment, 0.0) * usd_per_hour
        _put(self._work, host, (self._work_at(host, now) + work, now))

    def behind(self, host: Origin, slots: int, now: float) -> float:
        """USD per hour that a call's wait costs the others: it makes those wait longer who come behind it.

        With work of w seconds in each second, w calls come for each one that is served, while it waits and
        then while those are served; in simulations 2 w of them count.
        """
        return BEHIND * self._work_at(host, now) * math.log(2) / HALF_LIFE / slots

    def _work_at(self, host: Origin, now: float) -> float:
        work, since = self._work.get(host, (0.0, now))
        return work * math.exp2((since - now) / HALF_LIFE)

    def usual_output(self, agent: str | None) -> float | None:
        """Tokens of the agent's answers; None: not measured."""
        return self._outputs.get(agent)

    def slower(self, deployment: str, other: str) -> float:
        """Seconds that an answer of `other` takes longer; 0 if it is quicker, or one of them is not
        measured."""
        known, its = self._seconds.get(deployment), self._seconds.get(other)
        return 0.0 if known is None or its is None else max(its - known, 0.0)


def _put(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) >= _MOST_KNOWN and key not in known:
        known.clear()
    known[key] = value
