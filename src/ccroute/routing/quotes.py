"""Which price a model has: its own configuration first, then the router's prices, then "local is free"."""

from __future__ import annotations

from ccroute.accounting import PriceBook
from ccroute.errors import RequestError
from ccroute.routing.tables import MAX_KNOWN, Deployment, Tables
from ccroute.types import FREE, Price


class Quotes:
    """Prices of deployments and of names, in USD per million tokens; None where nobody knows."""

    def __init__(self, tables: Tables, prices: PriceBook) -> None:
        self._tables = tables
        self._prices = prices
        self._known: dict[str, Price | None] = {}

    def deployment(self, deployment: Deployment) -> Price | None:
        """The price of what serves, never of the alias it was asked for by."""
        try:
            return self._known[deployment.name]
        except KeyError:
            price = self._look_up(deployment)
            if len(self._known) < MAX_KNOWN:
                self._known[deployment.name] = price
            return price

    def knows(self, name: str) -> bool:
        """Whether the name leads to a deployment, has a price of its own, or is spelt as provider/model."""
        try:
            self._tables.resolve(name)
        except RequestError:
            return "/" in name or self._prices.find(name) is not None
        return True

    def name(self, name: str) -> Price | None:
        """The price of an alias's first deployment, or of the name itself."""
        try:
            first = self._tables.deployment(self._tables.resolve(name).deployments[0])
        except RequestError:
            return self._prices.find(name)
        return self.deployment(first) or self._prices.find(name)

    def _look_up(self, deployment: Deployment) -> Price | None:
        own = deployment.info.price
        if own is not None:
            return FREE if own == "free" else own
        backend = deployment.backend
        names = (f"{backend.name}/{model}" for model in backend.names(deployment.model))
        price = next((price for name in names if (price := self._prices.find(name)) is not None), None)
        if price is None and deployment.backend.is_free(deployment.model):
            return FREE
        return price
