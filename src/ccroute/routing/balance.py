"""In which order the deployments of one alias are tried.

Whatever a strategy prefers, a deployment that failed a lot lately goes behind the others, because a
host that refuses at once looks idle, quick and cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple, TypeVar

from ccroute.routing.aliases import Strategy
from ccroute.routing.load import LatencyEstimate, Load, LoadSnapshot
from ccroute.routing.tables import Deployment
from ccroute.types import Price, Request

T = TypeVar("T")

BY_TABLE: frozenset[Strategy] = frozenset({"weighted", "ordered"})
"""The strategies that look at the table and its weights only."""
GOOD = 0.8
"""The success rate from which on a deployment is as good as others: Linkerd's default threshold."""
EXPLORE = 0.05
"""The share of calls that may go and see how quick a deployment with a stale latency is now. Without it a
router with one call in a few minutes would explore with every call."""
NEAR = 1.2
"""Predictions that differ by less are the same: answers scatter more, and equal hosts share evenly."""
TYPICAL_OUTPUT = 400
"""Tokens an answer is taken to have where nobody says more: an assumption, the same for all deployments,
so that only the ratio of a first content to a token, or of an input to an output price, depends on it."""

Rank = tuple[float | Decimal, ...]
"""Where a deployment stands: the lowest is tried first, and equal ones are drawn by weight."""


class View(NamedTuple):
    """What a strategy looks at: the call, what is known of its hosts, and what they charge.

    `count_tokens` gives the length of a prompt.
    """

    request: Request
    load: Load
    count_tokens: Callable[[Request], int]


def order(
    deployments: Sequence[T],
    weights: Sequence[float],
    strategy: Strategy,
    random: Callable[[], float],
    ranks: Sequence[Rank] | None = None,
) -> Sequence[T]:
    """`ordered`: as the table has them. Else by rank, and where there is none, drawn by weight.

    The draw is without replacement: it gives each deployment the key `u ** (1 / weight)` and sorts by
    it, which is the same as drawing one after the other (Efraimidis and Spirakis, 2006).
    """
    if len(deployments) == 1 or strategy == "ordered":
        return deployments
    keys = [random() ** (1 / weight) for weight in weights]
    drawn = sorted(range(len(keys)), key=keys.__getitem__, reverse=True)
    if ranks is not None:
        drawn.sort(key=ranks.__getitem__)  # stable: among equals the draw decides
    return [deployments[i] for i in drawn]


def ranks(
    deployments: Sequence[Deployment],
    weights: Sequence[float],
    strategy: Strategy,
    random: Callable[[], float],
    view: View,
) -> list[Rank]:
    """Each deployment's rank by a strategy that looks at the call and its hosts."""
    snapshots = [view.load.snapshot(deployment) for deployment in deployments]
    if strategy == "cost":
        places = _costs([deployment.price for deployment in deployments], view)
    else:
        places = [(_share(*each),) for each in zip(snapshots, weights, strict=True)]
        if strategy == "latency":
            waits = _waits(deployments, snapshots, view.request, random)
            places = [(*wait, *share) for wait, share in zip(waits, places, strict=True)]
    return [(_is_doubtful(snapshot), *place) for snapshot, place in zip(snapshots, places, strict=True)]


def _is_doubtful(snapshot: LoadSnapshot) -> bool:
    """Whether others go first: after a failure one call at a time goes there until one is answered."""
    return snapshot.success_rate < GOOD or (snapshot.failed_last and snapshot.running > 0)


def _share(snapshot: LoadSnapshot, weight: float) -> float:
    """The calls per weight that the host would have with this one.

    Divided by the success rate twice: once because calls that fail at once are never seen in flight,
    and once more to send less where more fails.
    """
    return (snapshot.in_flight + 1) / weight / snapshot.success_rate**2


def _waits(
    deployments: Sequence[Deployment],
    snapshots: Sequence[LoadSnapshot],
    request: Request,
    random: Callable[[], float],
) -> list[Rank]:
    """What is not measured goes first, one call at a time, and last while that call is under way.

    In between are the others, the quickest first; those near to the best of them are one.
    """
    output = min(request.max_tokens or TYPICAL_OUTPUT, TYPICAL_OUTPUT)
    waits: list[tuple[int, float]] = []
    trusted = []
    for deployment, snapshot in zip(deployments, snapshots, strict=True):
        latency = snapshot.latency
        if snapshot.running == 0 and (latency is None or (snapshot.stale and random() < EXPLORE)):
            waits.append((0, 0.0))
        elif latency is None:
            waits.append((2, 0.0))
        else:
            seconds = _seconds(latency, snapshot, deployment.backend.max_concurrency, output)
            waits.append((1, seconds))
            trusted += [] if _is_doubtful(snapshot) else [seconds]
    best = min(trusted, default=0.0)
    return [(phase, 0.0 if seconds <= best * NEAR else seconds) for phase, seconds in waits]


def _seconds(latency: LatencyEstimate, snapshot: LoadSnapshot, slots: int | None, output: int) -> float:
    """The predicted seconds until a new call is answered, and again for each try that is likely to fail.

    A host with a known number of slots makes the others wait. One without had a usual number of calls
    when it was measured; with more than that it is taken to need more time in proportion, so that a burst
    or a host that hangs is seen before its answers are (as Finagle's peak EWMA multiplies by the load).
    """
    crowd = max(1.0, (snapshot.in_flight + 1) / (slots or latency.usual()))
    return latency.predict(output) * crowd / snapshot.success_rate


def _costs(prices: Sequence[Price | None], view: View) -> list[Rank]:
    """What the call would cost by each price, in USD per million; unknown prices last."""
    if all(price == prices[0] for price in prices):
        return [(0,)] * len(prices)  # the prompt need not be counted
    prompt, output = view.count_tokens(view.request), view.request.max_tokens or TYPICAL_OUTPUT
    tiers = [None if price is None else price.tier(prompt) for price in prices]
    return [(1,) if p is None else (0, prompt * p.input + output * p.output) for p in tiers]
