"""Sums over rows: what a report shows, and what a ledger keeps of old rows."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import reduce
from itertools import accumulate, chain, pairwise
from operator import add, attrgetter, sub
from typing import Any, Final, NamedTuple, TypeVar

from ccroute.accounting.money import EXACT, NOTHING, total_usd
from ccroute.accounting.prices import cost_at
from ccroute.accounting.row import Key, LedgerRow, keys_of
from ccroute.types import Price
from ccroute.types.route import LEAST_LOAD

K = TypeVar("K", bound=Hashable)
LATENCIES: Final = 100_000
"""The most latencies that a tally keeps exactly. With more, all are condensed to 1 %."""


class Lengths(NamedTuple):
    """A range of prompt lengths, in tokens: one tier of a price."""

    shortest: int
    longest: int


def tiers_of(limits: Iterable[int] = ()) -> tuple[Lengths, ...]:
    """All prompt lengths, divided into ranges above each of the `limits`, as with `Price.above`."""
    return tuple(Lengths(low + 1, high) for low, high in pairwise((-1, *limits, sys.maxsize)))


USUAL_TIERS: Final = tiers_of(
    (
        32_000,
        64_000,
        100_000,
        128_000,
        131_072,
        199_999,
        200_000,
        256_000,
        262_144,
        272_000,
        400_000,
        512_000,
        524_288,
        1_000_000,
    )
)
"""Where the prices of models change, by the data of genai-prices 0.2.3 and by their context windows."""


class TokenCounts(NamedTuple):
    """Tokens of several attempts, in the buckets of `Usage`."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompts and answers together."""
        return sum(self) - self.reasoning

    def plus(self, other: TokenCounts) -> TokenCounts:
        """The sum, bucket by bucket."""
        return TokenCounts(*map(add, self, other))

    def minus(self, other: TokenCounts) -> TokenCounts:
        """The difference, bucket by bucket."""
        return TokenCounts(*map(sub, self, other))


@dataclass(slots=True)
class Tally:
    """Sums over attempts: counts, tokens by bucket, and exact USD.

    requests:       the attempts that decided a call; `unknown_cost_requests`: those of them without a price.
    failures:       the attempts that failed or broke off.
    estimated:      the attempts whose tokens are estimated; `estimated_cost` is their part of `cost`.
    overrides:      the calls where the agent's model replaced another; `overrides_known` counts those whose
                    saving is in `override_saved`.
    tokens:         by the range of the prompt's length, because long prompts may cost more. None: the tokens
                    of unknown price, which are not in `cost`.
    latencies:      of the answered calls, in microseconds; `condense` counts them in `rounded` instead.
    wait:           microseconds that the attempts waited before they began, `LedgerRow.queue`.
    loads:          the attempts for which a server loaded a model; it took `load_time`, in microseconds.
    """

    requests: int = 0
    attempts: int = 0
    failures: int = 0
    unknown_cost_requests: int = 0
    estimated: int = 0
    cache_hits: int = 0
    overrides: int = 0
    overrides_known: int = 0
    cost: Decimal = NOTHING
    estimated_cost: Decimal = NOTHING
    override_saved: Decimal = NOTHING
    tokens: dict[Lengths | None, TokenCounts] = field(default_factory=dict)
    latencies: array[int] = field(default_factory=lambda: array("q"))
    rounded: dict[int, int] = field(default_factory=dict)
    wait: int = 0
    loads: int = 0
    load_time: int = 0

    def add(self, row: LedgerRow, tiers: Sequence[Lengths] = USUAL_TIERS) -> None:
        """Count one attempt. `tiers`: the ranges of prompt lengths that are summed up separately."""
        usage, tier = row.usage, None  # of a price that is unknown
        self.attempts += 1
        self.failures += row.outcome in {"failed", "interrupted"}
        self.estimated += usage.estimated
        if row.cost is None:
            self.unknown_cost_requests += row.final
        else:
            prompt = usage.prompt_tokens
            for tier in tiers:
                if prompt <= tier[1]:
                    break
            self.cost = EXACT.add(self.cost, row.cost)
            if usage.estimated:
                self.estimated_cost = EXACT.add(self.estimated_cost, row.cost)
        self.add_tokens(tier, TokenCounts(*_buckets(usage)))
        if row.final:
            self.requests += 1
            self.cache_hits += row.cached
            self.overrides += row.overridden
            if row.override_saved is not None:
                self.overrides_known += 1
                self.override_saved = EXACT.add(self.override_saved, row.override_saved)
        if row.queue:
            self.wait += _microseconds(row.queue)
        if row.load is not None and row.load >= LEAST_LOAD:
            self.loads += 1
            self.load_time += _microseconds(row.load)
        if row.latency is not None and row.outcome == "ok":
            self.latencies.append(_microseconds(row.latency))
            if len(self.latencies) > LATENCIES:
                self.condense()

    def add_tokens(self, tier: Lengths | None, tokens: TokenCounts) -> None:
        """Add tokens of prompts of these lengths, or of unknown price."""
        counted = self.tokens.get(tier)
        self.tokens[tier] = tokens if counted is None else counted.plus(tokens)

    def condense(self) -> None:
        """Replace the latencies by counts of those that are equal within 1 %."""
        for latency in self.latencies:
            step = _step(latency)
            self.rounded[step] = self.rounded.get(step, 0) + 1
        del self.latencies[:]

    @property
    def usage(self) -> TokenCounts:
        """The tokens of all attempts."""
        first, *others = self.tokens.values() or [NO_TOKENS]
        return reduce(TokenCounts.plus, others, first)

    @property
    def known_cost(self) -> Decimal | None:
        """USD, without the attempts of unknown price; `None` if only they used tokens."""
        if None not in self.tokens or any(used.total_tokens for tier, used in self.tokens.items() if tier):
            return self.cost
        return None

    def cost_at(self, price: Price) -> Decimal | None:
        """USD that the tokens of known price would have cost at `price`, each attempt's at its own tier.

        `None` where a tier begins between prompts that were summed up together.
        """
        total = NOTHING
        for lengths, tokens in self.tokens.items():
            if lengths is not None:
                tier = price.tier(lengths.shortest)
                if price.above and tier is not price.tier(lengths.longest):
                    return None
                total = EXACT.add(total, cost_at(tokens, tier))
        return total

    def percentiles(self, *percents: int) -> list[float | None]:
        """Percentiles of the latencies of answered calls, in seconds.

        Each is the latency of one call, to a microsecond. If some latencies were condensed, it is right to 1
        %.
        """
        if self.rounded:
            counts = Counter(self.rounded)
            counts.update(map(_step, self.latencies))
            steps = sorted(counts)
            below = list(accumulate(counts[step] for step in steps))
            numbers = [bisect_left(below, counts.total() * percent / 100) for percent in percents]
            return [math.exp(steps[number] / _STEPS) / 1e6 for number in numbers]
        if not self.latencies:
            return [None for _ in percents]
        values = self.latencies.tolist()
        places = [-(-len(values) * percent // 100) - 1 for percent in percents]
        if len(values) > _MANY:
            return [_value_at(place, values) / 1e6 for place in places]
        values.sort()
        return [values[place] / 1e6 for place in places]


def merged(tallies: Sequence[Tally]) -> Tally:
    """The sum of tallies, a new one."""
    whole = Tally()
    for name in _COUNTS:
        setattr(whole, name, sum(map(attrgetter(name), tallies)))
    for name in _AMOUNTS:
        setattr(whole, name, total_usd(map(attrgetter(name), tallies)))
    tokens = defaultdict[Lengths | None, list[TokenCounts]](list)
    for tally in tallies:
        for lengths, used in tally.tokens.items():
            tokens[lengths].append(used)
    whole.tokens = {
        lengths: TokenCounts(*map(sum, zip(*each, strict=True))) for lengths, each in tokens.items()
    }
    for tally in tallies:
        whole.latencies += tally.latencies
        for step, calls in tally.rounded.items():
            whole.rounded[step] = whole.rounded.get(step, 0) + calls
    return whole


def joined(*several: Mapping[Key, Tally]) -> dict[Key, Tally]:
    """The sums over all of these."""
    return combined(chain.from_iterable(sums.items() for sums in several))


def combined(sums: Iterable[tuple[K, Tally]]) -> dict[K, Tally]:
    """The sum of each key's tallies. If a key has only one, that object is the sum."""
    found: dict[K, Tally] = {}
    more = defaultdict[K, list[Tally]](list)
    for key, tally in sums:
        if found.setdefault(key, tally) is not tally:
            more[key].append(tally)
    for key, tallies in more.items():
        found[key] = merged([found[key], *tallies])
    return found


def tallied(
    rows: Iterable[LedgerRow], by: Sequence[str] = Key._fields, tiers: Sequence[Lengths] = USUAL_TIERS
) -> dict[Key, Tally]:
    """Sums over rows, per value of `by`; the other parts of the keys are empty."""
    parts = [attrgetter(name) for name in by]
    sums = defaultdict[tuple[Any, ...], Tally](Tally)
    for row in rows:
        sums[tuple([part(row) for part in parts])].add(row, tiers)
    key = keys_of(by)
    return {key(group): tally for group, tally in sums.items()}


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """Pause the garbage collector while many sums are made. None of them is garbage, and to look at them
    again and again takes a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


NO_TOKENS: Final = TokenCounts()
_buckets: Final = attrgetter(*TokenCounts._fields)
_COUNTS: Final = [each.name for each in fields(Tally) if each.type == "int"]
_AMOUNTS: Final = [each.name for each in fields(Tally) if each.type == "Decimal"]
_MANY: Final = 10_000
"""If there are more latencies, only those near a percentile are sorted."""
_STEPS: Final = 50
"""Condensed latencies are counted in steps; each step is 2 % longer than the one before."""


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6 + 0.5)


def _value_at(place: int, values: list[int]) -> int:
    """The value that would be at this place if they were sorted."""
    while len(values) > _MANY:
        sample = sorted(values[:: len(values) // 1000])
        middle = place * len(sample) // len(values)
        low, high = sample[max(0, middle - 40)], sample[min(middle + 40, len(sample) - 1)]
        near = [value for value in values if low <= value <= high]
        below = sum(map(low.__gt__, values))
        if not below <= place < below + len(near) or len(near) == len(values):
            break
        values, place = near, place - below
    return sorted(values)[place]


def _step(latency: int) -> int:
    return round(_STEPS * math.log(latency)) if latency else 0
