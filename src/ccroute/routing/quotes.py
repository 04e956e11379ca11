"""Which price a model has: its own configuration first, then the router's prices, then "local is free"."""

from __future__ import annotations

import logging
from typing import Final

from ccroute.accounting import PriceBook
from ccroute.errors import RequestError
from ccroute.routing.names import close_matches, did_you_mean
from ccroute.routing.tables import MAX_KNOWN, Deployment, Tables
from ccroute.types import FREE, Price

_log = logging.getLogger("ccroute")
_MOST_COMPARED: Final = 200
"""Prices compared with the models' names; a longer list is somebody's whole price list."""


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

    def warn_of_useless(self, baseline: str | None) -> None:
        """Log which prices will never count: those of aliases, and those whose name is one letter off a
        model that has none. Callers may name any `backend/model`, so other names may count yet."""
        keys = list(self._prices)
        if not keys:
            return
        tables = self._tables
        known = tables.known_deployments()
        bare = {name.partition("/")[2] for name in known}
        unknown = [key for key in keys if key not in known and key not in bare and key != baseline]
        notes = {key: "is an alias" for key in unknown if key in tables.aliases}
        for key in unknown:
            backend, slash, _ = key.partition("/")
            if slash and backend not in tables.backends and (close := did_you_mean(backend, tables.backends)):
                notes.setdefault(key, f"names no backend of this router{close}")
        if len(unknown) <= _MOST_COMPARED:
            for name in known:
                if self.deployment(tables.deployment(name)) is None:
                    for key in {
                        *close_matches(name, unknown),
                        *close_matches(name.partition("/")[2], unknown),
                    }:
                        notes.setdefault(
                            key, f"leads to no model that this router knows, and {name} has no price"
                        )
        for key, note in notes.items():
            _log.warning(
                'prices["%s"] %s, so nothing is priced by it: write a deployment "backend/model", or the '
                "model's own name",
                key,
                note,
            )

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
