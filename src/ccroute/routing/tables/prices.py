"""Prices of names that may have no deployment: a requested model, a baseline, a misspelt price entry."""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from ccroute.accounting import PriceBook
from ccroute.accounting.price_lists import how_to_price, price_of_model
from ccroute.display import escaped
from ccroute.errors import ConfigError, RequestError, UnknownModelError
from ccroute.routing.names import close_matches, did_you_mean
from ccroute.routing.tables.tables import Tables
from ccroute.types import Price

_log = logging.getLogger("ccroute")
_MOST_COMPARED: Final = 200
"""Prices compared with the models' names at most; a longer list is a provider's whole price list."""


def price_of(tables: Tables, name: str, *, usual: bool = False) -> Price | None:
    """The price of the name's first deployment, or else of the name itself; None if unknown.

    usual: at most hours of today, for what is not of this moment.
    """
    try:
        first = tables.resolve(name)[1][0]
    except RequestError:
        return price_of_model(name, tables.prices, usual=usual)
    price = first.price_list.usual() if usual and first.price_list is not None else first.price
    return price or tables.prices.find(name)


def is_known(tables: Tables, name: str) -> bool:
    """Whether the name has a deployment or a price, or has the form provider/model."""
    try:
        tables.resolve(name)
    except RequestError:
        return "/" in name or price_of_model(name, tables.prices) is not None
    return True


def baseline_price(tables: Tables, name: str) -> Price:
    """The price that savings are measured against. Raises `UnknownModelError` and `ConfigError`, because
    otherwise a report would have no savings, without a reason."""
    if not is_known(tables, name):
        raise UnknownModelError(name, hint=how_to_compare(name))
    price = price_of(tables, name, usual=True)
    if price is None:
        raise ConfigError(f"baseline: {_unpriced(tables, name)}")
    return price


def how_to_compare(name: str) -> str:
    """What to do about an unknown baseline."""
    return f"a baseline is an alias, a deployment, or a model with a price: {how_to_price(name)}"


def warn_of_unpriced(tables: Tables, baseline: str) -> None:
    """Log a warning if reports will have no savings, because the baseline has no price."""
    if price_of(tables, baseline, usual=True) is None:
        _log.warning("baseline: %s; reports have no savings until then", escaped(_unpriced(tables, baseline)))


def _unpriced(tables: Tables, name: str) -> str:
    with contextlib.suppress(RequestError):
        name = tables.resolve(name)[1][0].name  # an alias is no key of prices
    return f'"{name}" has no price: {how_to_price(name)}'


def warn_of_unused(tables: Tables, baseline: str | None) -> None:
    """Log a warning for each price of an alias, an unknown backend or a misspelt model: it is never used.
    Other unknown names may be used later, because callers may name any `backend/model`."""
    keys = list(tables.prices)
    if not keys:
        return
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
            source = tables.deployment(name).price_source
            if source not in (None, "genai-prices"):
                continue
            has = "no price" if source is None else f"the price of {source}"
            for key in {*close_matches(name, unknown), *close_matches(name.partition("/")[2], unknown)}:
                if source is None or price_of_model(key, PriceBook()) is None:  # else it is a model, too
                    notes.setdefault(key, f"leads to no model that this router knows, and {name} has {has}")
    for key, note in notes.items():
        _log.warning(
            'prices["%s"] %s, so nothing is priced by it: write a deployment "backend/model", or the '
            "model's own name",
            escaped(key),
            escaped(note),
        )
