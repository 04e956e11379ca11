"""Tables of a file → the objects that a caller would write by hand."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

from ccroute.backends import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend
from ccroute.backends.anthropic import KEY_ENV, OFFICIAL
from ccroute.backends.presets import PRESETS, PresetName
from ccroute.config.settings import (
    KINDS,
    BackendTable,
    Defaults,
    ModelTable,
    PriceTable,
    TierTable,
    TimeoutTable,
)
from ccroute.errors import ConfigError
from ccroute.routing import Agent
from ccroute.types import Model, Price, Timeout

WELL_KNOWN = ("anthropic", "deepseek", "ollama", "openai")
"""Providers that need no table: a name that leads to them is enough."""


def _implied_keys() -> dict[str, str]:
    addresses = {preset.base_url: preset.key_env for preset in PRESETS.values()} | {OFFICIAL: KEY_ENV}
    return {
        "{0.scheme}://{0.netloc}".format(urlsplit(address)): variable
        for address, variable in addresses.items()
        if address is not None and variable is not None
    }


_IMPLIED_KEYS = _implied_keys()


def implied_key(backend: Backend) -> str | None:
    """The variable that usually holds the key for a provider's official origin; none for any other."""
    return _IMPLIED_KEYS.get(str(backend.origin))


def build_backend(name: str, table: BackendTable, api_key: str | None = None) -> Backend:
    """Raises `ConfigError`, whose text begins with the key that is wrong where it is one."""
    kind = table.kind or name
    if kind not in KINDS:
        raise ConfigError(f"kind is missing; the kinds are {', '.join(KINDS)}")
    options: dict[str, Any] = {
        key: value
        for key, value in table.given(without=("kind", "enabled", "models", "timeout")).items()
        # "max_concurrency": null means no limit; another null is as good as nothing.
        if value is not None or key == "max_concurrency"
    }
    for key, kinds in (
        ("keep_alive", {"ollama"}),
        ("api_version", PRESETS),
        ("finish_required", PRESETS),
    ):
        if key in options and kind not in kinds:
            raise ConfigError(f"{key} is not known to a backend of kind {kind}")
    if api_key is not None:
        options["api_key"] = api_key
    if table.timeout is not None:
        options["timeout"] = build_timeout(table.timeout)
    options["models"] = {model: _model(inner) for model, inner in table.models.items()}
    if kind == "anthropic":
        return AnthropicBackend(name, **options)
    if kind == "ollama":
        return OllamaBackend(name, **options)
    return OpenAIBackend(name, preset=cast(PresetName, kind), **options)


def build_agent(table: Defaults) -> Agent:
    return Agent(**table.given(without=("agents", "budget")))


def build_timeout(table: TimeoutTable) -> Timeout:
    return Timeout(**table.given())


def build_price(table: TierTable) -> Price:
    prices = table.given(without=("above",))
    if isinstance(table, PriceTable):
        prices["above"] = {tokens: build_price(tier) for tokens, tier in table.above.items()}
    return Price(**prices)


def _model(table: ModelTable) -> Model:
    price = None if table.price is None else build_price(table.price)
    return Model(**table.given(without=("price",)), price=price)
