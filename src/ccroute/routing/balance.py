"""Orders the deployments of one alias.

With every strategy, a deployment that failed often in the last minutes comes after the others, because a
host that refuses at once looks idle, quick and cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple, TypeVar

from ccroute.accounting.tokens import Prompt, TokenCounter
from ccroute.routing.load import LatencyEstimate, Load, LoadSnapshot
from ccroute.routing.tables.aliases import Strategy
from ccroute.routing.tables.deployments import Deployment
from ccroute.types import Price, Request

T = TypeVar("T")

BY_TABLE: frozenset[Strategy] = frozenset({"weighted", "ordered"})
"""The strategies that use only the table and its weights."""
GOOD = 0.8
"""The lowest success rate of a reliable deployment: Linkerd's default threshold."""
EXPLORE = 0.05
"""The share of calls that may measure a deployment with a stale latency again. Without it, a router with
one call in a few minutes would explore with every call."""
NEAR = 1.2
"""Predictions within this factor of the best count as equal: so equal hosts share the calls evenly."""
TYPICAL_OUTPUT = 400
"""Tokens of an answer, assumed to predict its time and cost. The same for all deployments, so it only sets
the ratio of the first content's time to a token's, or of the input's price to the output's."""

Rank = tuple[float | Decimal, ...]
"""A deployment's place: the lowest is tried first, and equal ones are drawn by weight."""


class View(NamedTuple):
    """The input of a strategy: the request, the load of the hosts, the prompt's length and its counter."""

    request: Request
    load: Load
    prompt: Prompt
    count_tokens: TokenCounter


def order(
    deployments: Sequence[T],
    weights: Sequence[float],
    strategy: Strategy,
    random: Callable[[], float] | None,
    ranks: Sequence[Rank] | None = None,
) -> Sequence[T]:
    """The deployments in the order to try them: in the table's with `ordered`, else by rank.

    Equal ranks are drawn by weight, without replacement: each deployment gets the key `u ** (1 / weight)`,
    and sorting by it equals drawing one after the other (Efraimidis and Spirakis, 2006). Without `random`,
    nothing is drawn: the largest weight comes first.
    """
    if len(deployments) == 1 or strategy == "ordered":
        return deployments
    keys = weights if random is None else [random() ** (1 / weight) for weight in weights]
    drawn = sorted(range(len(keys)), key=keys.__getitem__, reverse=True)
    if ranks is not None:
        drawn.sort(key=ranks.__getitem__)  # stable: the draw decides between equal ranks
    return [deployments[i] for i in drawn]


def ranks(
    deployments: Sequence[Deployment],
    weights: Sequence[float],
    strategy: Strategy,
    random: Callable[[], float] | None,
    view: View,
) -> list[Rank]:
    """Each deployment's rank by a strategy that uses the request and the load. Without `random`, no stale
    latency is measured again."""
    snapshots = [view.load.snapshot(deployment) for deployment in deployments]
    if strategy == "cost":
        places = _costs([deployment.price for deployment in deployments], view)
    else:
        places = [(_share(*each),) for each in zip(snapshots, weights, strict=True)]
        if strategy == "latency":
            waits = _waits(deployments, snapshots, view.request, random)
            places = [(*wait, *share) for wait, share in zip(waits, places, strict=True)]
    return [(is_doubtful(snapshot), *place) for snapshot, place in zip(snapshots, places, strict=True)]


def is_doubtful(snapshot: LoadSnapshot) -> bool:
    """Whether the others come first. After a failure, it gets one call at a time until one succeeds."""
    return snapshot.success_rate < GOOD or (snapshot.failed_last and snapshot.running > 0)


def _share(snapshot: LoadSnapshot, weight: float) -> float:
    """The calls per weight that the host would have with this call.

    Divided twice by the success rate: once because calls that fail at once are never counted in flight, and
    once to send fewer calls where more fail.
    """
    return (snapshot.in_flight + 1) / weight / snapshot.success_rate**2


def _waits(
    deployments: Sequence[Deployment],
    snapshots: Sequence[LoadSnapshot],
    request: Request,
    random: Callable[[], float] | None,
) -> list[Rank]:
    """Each deployment's rank by predicted seconds; those within `NEAR` of the best are equal.

    A deployment without a measured latency comes first for one call, and last while that call runs.
    """
    output = min(request.max_tokens or TYPICAL_OUTPUT, TYPICAL_OUTPUT)
    waits: list[tuple[int, float]] = []
    trusted = []
    for deployment, snapshot in zip(deployments, snapshots, strict=True):
        latency = snapshot.latency
        if snapshot.running == 0 and (
            latency is None or (snapshot.stale and random is not None and random() < EXPLORE)
        ):
            waits.append((0, 0.0))
        elif latency is None:
            waits.append((2, 0.0))
        else:
            seconds = _seconds(latency, snapshot, deployment.backend.max_concurrency, output)
            waits.append((1, seconds))
            trusted += [] if is_doubtful(snapshot) else [seconds]
    best = min(trusted, default=0.0)
    return [(phase, 0.0 if seconds <= best * NEAR else seconds) for phase, seconds in waits]


def _seconds(latency: LatencyEstimate, snapshot: LoadSnapshot, slots: int | None, output: int) -> float:
    """The predicted seconds until a new call succeeds, with the retries that are likely.

    The prediction grows with the calls in flight: in proportion to the host's slots, or without a known
    number of them, to the usual number of calls when the latency was measured. So a burst, or a host that
    hangs, shows before its answers are late (Finagle's peak EWMA also multiplies by the load).
    """
    crowd = max(1.0, (snapshot.in_flight + 1) / (slots or latency.usual()))
    return latency.predict(output) * crowd / snapshot.success_rate


def _costs(prices: Sequence[Price | None], view: View) -> list[Rank]:
    """Ranks by what the call would cost with each price; unknown prices come last."""
    if all(price == prices[0] for price in prices):
        return [(0,)] * len(prices)  # the prompt need not be counted
    prompt = view.prompt.count(view.count_tokens, view.request)
    output = view.request.max_tokens or TYPICAL_OUTPUT
    tiers = [None if price is None else price.tier(prompt) for price in prices]
    return [(1,) if p is None else (0, prompt * p.input + output * p.output) for p in tiers]
