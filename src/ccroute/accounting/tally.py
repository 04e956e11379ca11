"""One row per attempt, and sums over rows: what a report shows, and what a ledger keeps of old rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from ccroute._version import __version__
from ccroute.accounting.prices import NOTHING, cost_at
from ccroute.types import JSON, FailureClass, Outcome, Price, Usage

LATENCIES = 1000
"""How many latencies a tally keeps of the rows added to it; beyond it, every second one is dropped."""
BAND = 1000
"""Tokens. Sums are kept per band of prompt lengths, so that each can be priced at its own tier."""


class Key(NamedTuple):
    """What reports may group attempts by; `day` is an ISO date in UTC, `model` the one that served."""

    agent: str | None
    group: str | None
    alias: str
    model: str
    backend: str
    day: str
    session: str | None


class LedgerRow(NamedTuple):
    """One attempt: its agent and deployment, what it used and cost. It has no prompt and no answer.

    `started` is UTC, durations are seconds, money is USD. `cost` is `None` when the deployment has
    no known price. `final` marks the attempt that decided the call. Only that one has `latency` (of
    the whole call) and `override_saved` (the requested model's price minus the served one's, where
    both are known).

    first_content: until the first content of a stream; `duration` is the whole attempt, without `queue`.
    queue:         how long it waited for a slot at the host, or for its turn under a rate limit.
    load:          how long the server says that it loaded the model, where it says so (Ollama).
    price_source:  where the price is from, as `Deployment.price_source`; "provider" where the answer says
                   what it costs; None where it is unknown.
    version:       ccroute's own; None in rows of older versions.
    """

    id: str
    call: str
    started: datetime
    agent: str | None
    group: str | None
    session: str | None
    requested_model: str | None
    alias: str
    backend: str
    deployment: str
    model: str
    outcome: Outcome
    failure: FailureClass | None
    status: int | None
    usage: Usage
    cost: Decimal | None
    overridden: bool
    fallback: bool
    duration: float
    first_content: float | None
    final: bool
    cached: bool = False
    latency: float | None = None
    override_saved: Decimal | None = None
    metadata: Mapping[str, JSON] = MappingProxyType({})
    price_source: str | None = None
    queue: float = 0.0
    load: float | None = None
    version: str | None = __version__

    def to_dict(self) -> dict[str, JSON]:
        """The row as flat JSON: `usage` as its token counts, money as str, `started` as ISO 8601."""
        row = self._asdict()
        tokens = row.pop("usage").model_dump()
        return as_json(
            {**row, "started": self.started.isoformat(), "metadata": dict(self.metadata), **tokens}
        )

    def key(self) -> Key:
        """What reports may group this row by."""
        day = self.started.date().isoformat()
        return Key(self.agent, self.group, self.alias, self.model, self.backend, day, self.session)


@dataclass(slots=True)
class Tally:
    """Counts, tokens by bucket, and exact USD.

    `known` holds the tokens of the `priced` attempts, those whose price is known: savings compare them with
    `cost`, which is theirs. `known[n]` sums up the attempts whose prompts had more than `n * BAND` and up
    to `(n + 1) * BAND` tokens. An attempt that used no tokens (a rejected one) is not `priced`.
    `unpriced_usage` holds the tokens of the others.
    """

    requests: int = 0
    attempts: int = 0
    failures: int = 0
    priced: int = 0
    unpriced: int = 0
    unknown_cost_requests: int = 0
    cache_hits: int = 0
    overrides: int = 0
    overrides_known: int = 0
    unpriced_usage: Usage = field(default_factory=Usage)
    cost: Decimal = NOTHING
    override_saved: Decimal = NOTHING
    known: dict[int, Usage] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    def add(self, row: LedgerRow) -> None:
        """Count one attempt."""
        self.attempts += 1
        self.failures += row.outcome in {"failed", "interrupted"}
        if row.cost is None:
            self.unpriced += 1
            self.unknown_cost_requests += row.final
            self.unpriced_usage += row.usage
        else:
            self.cost += row.cost
            prompt = row.usage.prompt_tokens
            if prompt or row.usage.output:
                self.priced += 1
                self.add_known((prompt - 1) // BAND, row.usage)
        if row.final:
            self.requests += 1
            self.cache_hits += row.cached
            self.overrides += row.overridden
            if row.override_saved is not None:
                self.overrides_known += 1
                self.override_saved += row.override_saved
        if row.latency is not None and row.outcome == "ok":
            self.latencies.append(row.latency)
            if len(self.latencies) > LATENCIES:
                del self.latencies[::2]

    @property
    def usage(self) -> Usage:
        """The tokens of all attempts."""
        return sum(self.known.values(), self.unpriced_usage)

    def merge(self, other: Tally) -> None:
        """Add another tally to this one."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for band, usage in other.known.items():
            self.add_known(band, usage)
        self.latencies += other.latencies

    def cost_at(self, price: Price) -> Decimal | None:
        """USD that the tokens of the priced attempts would have cost at `price`, each at its own tier.

        `None` where a tier begins within a band that has attempts. Tiers at multiples of `BAND` tokens
        never do.
        """
        total = NOTHING
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
        self.latencies.sort()  # in place: the next percentile has a sorted list
        return self.latencies[max(0, -(-len(self.latencies) * percent // 100) - 1)]

    def add_known(self, band: int, usage: Usage) -> None:
        """Add tokens of known price, of prompts whose lengths are in this band."""
        known = self.known.get(band)
        self.known[band] = usage if known is None else known + usage


def as_json(row: Mapping[str, Any]) -> dict[str, JSON]:
    """The row with amounts as str."""
    return {name: as_text(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def as_text(amount: Decimal) -> str:
    """The amount in figures, without an exponent and without zeros at its end: each ledger stores it in its
    own way."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_COUNTS = tuple(name for name in Tally.__slots__ if name not in {"known", "latencies"})
