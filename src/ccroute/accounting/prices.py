"""Which price a deployment has, and what a usage costs at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Literal, Protocol

from ccroute.accounting.money import NOTHING
from ccroute.errors import ConfigError
from ccroute.types import FREE, Price, Usage

PriceLike = Price | Literal["free"]


class Tokens(Protocol):
    """Token counts in the buckets of `Usage`."""

    @property
    def input(self) -> int: ...
    @property
    def cache_read(self) -> int: ...
    @property
    def cache_write_5m(self) -> int: ...
    @property
    def cache_write_1h(self) -> int: ...
    @property
    def output(self) -> int: ...


class PriceBook:
    """Explicit prices by name: a deployment `backend/model`, or the model's own name behind any backend.

    An alias has no price: the model that served is priced. `"free"` is a price of zero. A name that is not
    there has no price, and its cost is `None`.

    Raises `ConfigError` with each value that is no price, and its name.
    """

    def __init__(self, prices: Mapping[str, PriceLike] | None = None) -> None:
        if not isinstance(prices, Mapping | None):
            raise ConfigError(f"prices: give a mapping of models to prices, not {type(prices).__name__}")
        given = (prices or {}).items()
        if faults := [fault for name, price in given if (fault := _fault(name, price))]:
            raise ConfigError(*faults)
        self._prices = {name: FREE if price == "free" else price for name, price in given}

    def __iter__(self) -> Iterator[str]:
        return iter(self._prices)

    def find(self, deployment: str) -> Price | None:
        """The price of `backend/model`: its own entry, else that of the bare model."""
        price = self._prices.get(deployment)
        return price if price is not None else self._prices.get(deployment.partition("/")[2])


def _fault(name: object, price: object) -> str | None:
    if not isinstance(name, str):
        return f"prices: a model is named by a str, not {name!r}"
    priced = isinstance(price, Price) or price == "free"
    return None if priced else f'prices.{name}: give a Price or "free", not {price!r}'


def cost(usage: Usage, price: Price | None) -> Decimal | None:
    """USD for the `usage` of one request, exact; `None` when the price is unknown.

    The prompt's whole length chooses the tier of a price that has tiers, so a sum over several
    requests cannot be priced: ask for each.
    """
    if price is None:
        return None
    return cost_at(usage, price.tier(usage.prompt_tokens) if price.above else price)


def cost_at(usage: Tokens, tier: Price) -> Decimal:
    """USD for `usage` at one tier, whatever the length of its prompts."""
    per_million = (
        usage.input * tier.input
        + usage.output * tier.output
        + usage.cache_read * tier.cache_read
        + usage.cache_write_5m * tier.cache_write
        + usage.cache_write_1h * tier.cache_write_1h
    )
    return per_million.scaleb(-6) if per_million else NOTHING
