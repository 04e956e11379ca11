"""Sums over attempts: what a report row is made of, and what a ledger keeps of rows it lets go."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ccroute.types import Usage

LATENCIES = 1000
"""How many latencies a tally keeps for its percentiles; beyond it, every second one is let go."""


class Key(NamedTuple):
    """What attempts may be grouped by; `day` is an ISO date in UTC, `model` the one that served."""

    agent: str | None
    group: str | None
    alias: str
    model: str
    backend: str
    day: str
    session: str | None


class Tally:
    """Counts, tokens by bucket, and exact USD.

    `known` holds the tokens of attempts whose price is known, so that savings compare like with
    like; `cost` is theirs.
    """

    __slots__ = (
        "attempts",
        "cache_hits",
        "cost",
        "failures",
        "known",
        "latencies",
        "override_saved",
        "overrides",
        "requests",
        "unknown_cost_requests",
        "usage",
    )

    def __init__(self) -> None:
        self.requests = self.attempts = self.failures = 0
        self.overrides = self.cache_hits = self.unknown_cost_requests = 0
        self.usage = self.known = Usage()
        self.cost = self.override_saved = Decimal(0)
        self.latencies: list[float] = []

    def add(
        self,
        usage: Usage,
        cost: Decimal | None,
        *,
        failed: bool,
        final: bool,
        cached: bool,
        overridden: bool,
        override_saved: Decimal | None,
        latency: float | None,
    ) -> None:
        """Count one attempt; `final` says that it decided its call."""
        self.attempts += 1
        self.failures += failed
        self.usage += usage
        if cost is None:
            self.unknown_cost_requests += final
        else:
            self.known += usage
            self.cost += cost
        if final:
            self.requests += 1
            self.cache_hits += cached
            self.overrides += overridden
            self.override_saved += override_saved or 0
        if latency is not None:
            self._keep([latency])

    def merge(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.requests += other.requests
        self.attempts += other.attempts
        self.failures += other.failures
        self.cache_hits += other.cache_hits
        self.overrides += other.overrides
        self.unknown_cost_requests += other.unknown_cost_requests
        self.usage += other.usage
        self.known += other.known
        self.cost += other.cost
        self.override_saved += other.override_saved
        self._keep(other.latencies)

    def copy(self) -> Tally:
        """A tally of its own with the same sums."""
        twin = Tally()
        twin.merge(self)
        return twin

    def percentile(self, percent: int) -> float | None:
        """The latency in seconds that `percent` of the answered calls did not exceed."""
        if not self.latencies:
            return None
        ranked = sorted(self.latencies)
        return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]

    def _keep(self, latencies: list[float]) -> None:
        self.latencies += latencies
        if len(self.latencies) > LATENCIES:
            del self.latencies[::2]
