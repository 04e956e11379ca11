"""Sums over attempts: what a report row is made of, and what a ledger keeps of rows it lets go."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ccroute.accounting.prices import cost_at
from ccroute.types import Price, Usage

LATENCIES = 1000
"""How many latencies a tally keeps for its percentiles; beyond it, every second one is let go."""
BAND = 1000
"""Tokens of prompt by which sums are kept apart, so that each can be priced at its own tier."""


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

    `known` holds the tokens of the `priced` attempts, those whose price is known, so that savings
    compare like with like; `cost` is theirs. It is kept by length of prompt: `known[n]` sums up the
    attempts whose prompts had more than `n * BAND` and up to `(n + 1) * BAND` tokens. An attempt that
    used nothing (turned away, rejected) is not `priced`: it says nothing of the price.
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
        "overrides_known",
        "priced",
        "requests",
        "unknown_cost_requests",
        "unpriced",
        "usage",
    )

    def __init__(self) -> None:
        self.requests = self.attempts = self.failures = self.priced = self.unpriced = 0
        self.overrides = self.overrides_known = self.cache_hits = self.unknown_cost_requests = 0
        self.usage = Usage()
        self.known: dict[int, Usage] = {}
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
            self.unpriced += 1
            self.unknown_cost_requests += final
        else:
            self.cost += cost
            if usage.total_tokens:
                self.priced += 1
                self._know((usage.prompt_tokens - 1) // BAND, usage)
        if final:
            self.requests += 1
            self.cache_hits += cached
            self.overrides += overridden
            if override_saved is not None:
                self.overrides_known += 1
                self.override_saved += override_saved
        if latency is not None:
            self._keep([latency])

    def merge(self, other: Tally) -> None:
        """Add another tally to this one."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for band, usage in other.known.items():
            self._know(band, usage)
        self._keep(other.latencies)

    def copy(self) -> Tally:
        """A tally of its own with the same sums."""
        twin = Tally()
        twin.merge(self)
        return twin

    def cost_at(self, price: Price) -> Decimal | None:
        """USD that the tokens of the priced attempts would have cost at `price`, each at its own tier.

        `None` where that cannot be told: a tier begins within a band that has attempts. Tiers at
        multiples of `BAND` tokens never do.
        """
        total = Decimal(0)
        for band, usage in self.known.items():
            tier = price.tier(band * BAND + 1)
            if tier != price.tier((band + 1) * BAND):
                return None
            total += cost_at(usage, tier)
        return total

    def percentile(self, percent: int) -> float | None:
        """The latency in seconds that `percent` of the answered calls did not exceed."""
        if not self.latencies:
            return None
        ranked = sorted(self.latencies)
        return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]

    def _know(self, band: int, usage: Usage) -> None:
        known = self.known.get(band)
        self.known[band] = usage if known is None else known + usage

    def _keep(self, latencies: list[float]) -> None:
        self.latencies += latencies
        if len(self.latencies) > LATENCIES:
            del self.latencies[::2]


_COUNTS = tuple(name for name in Tally.__slots__ if name not in {"known", "latencies"})
