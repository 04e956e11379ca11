"""Which price a deployment has, and what a usage costs at it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from ccroute.types import FREE, Price, Usage

PriceLike = Price | Literal["free"]


class PriceBook:
    """Explicit prices by name: a deployment `backend/model`, or the model's own name behind any backend.

    An alias has no price: what served is priced, whatever it was asked for by.

    `"free"` is a price of zero. A name that is not there has no price, which is not the same as
    free: its cost is `None`.
    """

    def __init__(self, prices: Mapping[str, PriceLike] | None = None) -> None:
        self._prices = {name: _price(name, price) for name, price in (prices or {}).items()}

    def find(self, deployment: str) -> Price | None:
        """The price of `backend/model`: its own entry, else that of the bare model."""
        price = self._prices.get(deployment)
        return price if price is not None else self._prices.get(deployment.partition("/")[2])


def _price(name: str, price: object) -> Price:
    if isinstance(price, Price):
        return price
    if price == "free":
        return FREE
    raise TypeError(f'prices["{name}"]: give a Price or "free", not {price!r}')


def cost(usage: Usage, price: Price | None) -> Decimal | None:
    """USD for `usage`, exact; `None` when the price is unknown."""
    if price is None:
        return None
    per_million = (
        usage.input * price.input
        + usage.output * price.output
        + usage.cache_read * price.cache_read
        + usage.cache_write_5m * price.cache_write
        + usage.cache_write_1h * price.cache_write_1h
    )
    return per_million.scaleb(-6) if per_million else _NOTHING


_NOTHING = Decimal(0)
