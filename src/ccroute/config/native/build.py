"""Turns the tables of a file into the objects that a caller would write by hand."""

from __future__ import annotations

from typing import Any

from ccroute.backends import Backend
from ccroute.backends.registry import find_kind, kind_names, registered
from ccroute.config.native.settings import (
    BackendTable,
    BudgetTable,
    Defaults,
    FallbackTable,
    ModelTable,
    PriceTable,
    TierTable,
    TimeoutTable,
)
from ccroute.config.native.values import plain
from ccroute.errors import ConfigError
from ccroute.routing import Agent, Fallback
from ccroute.types import Budget, Model, Price, Timeout


def implied_key(backend: Backend) -> str | None:
    """Return the variable that usually holds the key for a provider's official origin; None for any other."""
    variables = (kind.key_variable for kind in registered().values() if kind.origin == backend.origin)
    return next(filter(None, variables), None)


def build_backend(name: str, table: BackendTable, api_key: str | None = None) -> Backend:
    """Return the backend. Raises `ValueError`, or `ConfigError`, whose text may begin with the wrong key."""
    kind = table.kind or name
    found = find_kind(kind)
    if found is None:
        raise ConfigError(f"kind is missing; the kinds are {', '.join(kind_names())}")
    options: dict[str, Any] = {
        key: value
        for key, value in table.given(without=("kind", "enabled", "models", "timeout")).items()
        # "max_concurrency": null means no limit; any other null counts as absent.
        if value is not None or key == "max_concurrency"
    }
    own = options.keys() - BackendTable.model_fields.keys()
    options |= {key: plain(options[key]) for key in own}
    if unknown := next((key for key in options if key not in found.options), None):
        raise ConfigError(f"{unknown} is not known to a backend of kind {kind}")
    if api_key is not None:
        options["api_key"] = api_key
    if table.timeout is not None:
        options["timeout"] = build_timeout(table.timeout)
    options["models"] = {model: _model(inner) for model, inner in table.models.items()}
    return found.make(name, **options)


def build_agent(table: Defaults) -> Agent:
    fallback = list(map(build_fallback, table.fallback))
    return Agent(**table.given(without=("agents", "budget", "fallback")), fallback=fallback)


def build_fallback(table: FallbackTable) -> str | Fallback:
    return Fallback(table.model, table.triggers) if "triggers" in table.model_fields_set else table.model


def build_timeout(table: TimeoutTable) -> Timeout:
    return Timeout(**table.given())


def build_price(table: TierTable) -> Price:
    prices = table.given(without=("above",))
    if isinstance(table, PriceTable):
        prices["above"] = {tokens: build_price(tier) for tokens, tier in table.above.items()}
    return Price(**prices)


def build_budget(table: BudgetTable) -> Budget:
    return Budget(**table.given())


def _model(table: ModelTable) -> Model:
    price = None if table.price is None else build_price(table.price)
    return Model(**table.given(without=("price",)), price=price)
