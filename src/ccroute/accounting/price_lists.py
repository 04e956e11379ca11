"""Prices of providers' models, from the library genai-prices (the extra `prices`).

Knows addresses, models' names, times and the library's data; must not know backends. The library takes 0.2 s
to import, so that is done for the first model that no configuration prices. Nothing is read from the network.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ccroute.accounting.prices import PriceBook
from ccroute.types import FREE, Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

_log = logging.getLogger("ccroute")

Terms: TypeAlias = tuple[tuple[str, str], ...]
"""How an answer was served, such as `(("service_tier", "flex"),)`."""

NOT_INSTALLED: Final = "no price is given, and the extra is not installed: pip install 'ccroute[prices]'"
_BUCKETS: Final = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_5m_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
}
_SEARCHES: Final = "web_searches_kcount"
_COUNTED_APART: Final = re.compile(r".*(?:audio|searches|code_executions).*_(?:mtok|kcount)")
"""Prices of what an answer counts separately, or of tools that chat completions do not have. They do not
apply to text."""
_SEARCHES_ALWAYS: Final = re.compile(r".*-search-(?:preview|api)(?:-.*)?")
"""OpenAI's models that search the web for each answer, at a price of each search. Their answers do not count
the searches: https://developers.openai.com/api/docs/pricing"""
_NOT_IN_USD: Final = ("zhipuai", "open.bigmodel.cn", "api.moonshot.cn", "api.minimaxi.com")
"""A provider and hosts that bill in CNY. The library has prices in USD for them, at a fixed rate."""
_SHARED_HOSTS: Final = (".modal.run", ".modal.direct", ".azure-api.net")
"""Hosts on which anybody can run a server or a gateway, though the library knows them as a provider's."""
_FACTORS: Final = {
    # https://platform.claude.com/docs/en/about-claude/pricing#data-residency-pricing
    ("anthropic", "inference_geo", "us"): Decimal("1.1"),
    # https://console.groq.com/docs/flex-processing
    ("groq", "service_tier", "flex"): Decimal(1),
}
"""Terms that the library has no price for: the price is that many times the usual one."""
_WEEKENDS_OFF: Final = {"deepseek": timezone(timedelta(hours=8))}
"""Providers with peak hours on working days only, and the time zone of these. The library does not know days
of the week: https://github.com/pydantic/genai-prices/issues/582. Noon in UTC is no peak hour."""
_SATURDAY: Final = 5
_MOST_ANSWERED: Final = 64
"""Models' names in answers that one list caches, at most."""


class PriceList:
    """The prices of one model at one provider: by date, time of day and terms.

    provider, model: their ids in the library; `model` is empty if the library does not have the model.
    why_unknown:     why the price is unknown now; empty if it is known.
    has_audio:       whether audio has a separate price.
    """

    def __init__(self, provider: Provider, name: str, info: ModelInfo | None) -> None:
        self.provider = provider.id
        self.model = "" if info is None else info.id
        self._provider, self._name, self._info = provider, name, info
        self._get_prices: Any = None if info is None else info.get_prices
        self._always = self._unchanging()
        self._known: dict[
            int, Price | str
        ] = {}  # by the id of the library's price object, which lives as long as this
        self._answered: dict[str, PriceList] = {}
        found = self._find(datetime.now(UTC))
        self.why_unknown = found if isinstance(found, str) else ""
        self.has_audio = info is not None and any("audio" in key for key in _keys(info))

    def now(self) -> Price | None:
        """The price at this moment; None if unknown."""
        return self.at(datetime.now(UTC))

    def usual(self) -> Price | None:
        """The price at most hours of today; None if unknown."""
        today = datetime.now(UTC)
        prices = [self.at(today.replace(hour=hour)) for hour in range(24)]
        return max(prices, key=prices.count)

    def at(self, moment: datetime) -> Price | None:
        """The price at a moment; None if unknown."""
        found = self._find(moment)
        return None if isinstance(found, str) else found

    def under(self, moment: datetime, terms: Terms) -> Price | str:
        """The price of an answer that was served under these terms, or why it is unknown."""
        if not terms:
            return self._find(moment)
        context, factor = dict[str, str](), Decimal(1)
        for name, value in terms:
            known = _FACTORS.get((self.provider, name, value))
            if known is not None:
                factor *= known
            elif self._has_variant(moment, name, value):
                context[name] = value
            else:
                return f"genai-prices has no price of {name} {value} for {self._shown()}"
        found = self._find(moment, context)
        return found if factor == 1 or isinstance(found, str) else _times(found, factor)

    def answered(self, model: str) -> PriceList:
        """The list of the model that the answer names, if it is known at this provider; else this one.

        OpenRouter's answers name a model without its variant (`:free`), so they are not asked.
        """
        if not model or model == self._name or self.provider == "openrouter":
            return self
        found = self._answered.get(model)
        if found is None:
            made = _safely(self._provider, model)
            found = self if isinstance(made, str) or not made.model else made
            if len(self._answered) < _MOST_ANSWERED:
                self._answered[model] = found
        return found

    @property
    def names_are_own(self) -> bool:
        """Whether the user chose the models' names, as for Azure's deployments."""
        return self.provider == "azure"

    def _unchanging(self) -> Price | str | None:
        """The usual price, or why it is unknown, where that is the same at all times; else None."""
        info = self._info
        if info is None:
            return f"genai-prices has no model {self._name} of {self.provider}"
        if self.provider in ("openai", "azure") and _SEARCHES_ALWAYS.fullmatch(info.id):
            return f"{self._shown()} is also billed for each of its web searches"
        return None if isinstance(info.prices, list) else self._read(vars(info.prices))

    def _find(self, moment: datetime, context: Mapping[str, str] | None = None) -> Price | str:
        always = self._always
        if always is not None and (isinstance(always, str) or not context):
            return always
        found, zone = self._listed(moment, context), _WEEKENDS_OFF.get(self.provider)
        if zone is not None and moment.astimezone(zone).weekday() >= _SATURDAY:
            quiet = self._listed(moment.astimezone(UTC).replace(hour=12), context)
            if isinstance(found, Price) and isinstance(quiet, Price) and quiet.output < found.output:
                return quiet
        return found

    def _listed(self, moment: datetime, context: Mapping[str, str] | None) -> Price | str:
        listed = self._get_prices(moment, context)
        if context:
            return self._read(vars(listed))
        found = self._known.get(id(listed))
        if found is None:
            found = self._known[id(listed)] = self._read(vars(listed))
        return found

    def _read(self, listed: Mapping[str, Any]) -> Price | str:
        """The library's price as a `Price`, or why it cannot be one."""
        given = {key: value for key, value in listed.items() if value is not None}
        if not given and self.model.endswith(":free"):
            return FREE
        for key in given:
            if key not in _BUCKETS and not _COUNTED_APART.fullmatch(key):
                return f"{self._shown()} is also billed by {key}"
        for key, what in (("input_mtok", "prompts"), ("output_mtok", "answers")):
            if key not in given:
                return f"genai-prices has no price of the {what} of {self._shown()}"
        limits = sorted({tier.start for value in given.values() for tier in getattr(value, "tiers", ())})
        try:
            return Price(
                **_at_length(given, 0),
                # mypy checks the values against all fields, and `above` takes none of them.
                above={limit: Price(**_at_length(given, limit)) for limit in limits},  # type: ignore[arg-type]
                web_search=given.get(_SEARCHES),
            )
        except (TypeError, ValueError) as error:
            return f"{self._shown()}: {error}"

    def _has_variant(self, moment: datetime, name: str, value: str) -> bool:
        # As in the library: another provider's model has no variants here.
        info = self._info
        if info is None or all(info is not each for each in self._provider.models):
            return False
        return any(
            variant.when == {name: value}
            and (variant.constraint is None or variant.constraint.active(moment))
            for variant in info.price_variants or ()
        )

    def _shown(self) -> str:
        return f"{self.model} of {self.provider}"


def price_list(url: str, host: str, model: str) -> PriceList | str:
    """The prices of `model` at the server with this base URL, or why they are unknown.

    The provider is known only by the host. Any other server may use a model's name for another model.
    """
    providers = _providers()
    if providers is None:
        return NOT_INSTALLED
    if host in _NOT_IN_USD:
        return f"{host} does not bill in USD"
    if not host.endswith(_SHARED_HOSTS):
        for provider in providers:
            # A pattern may end within a host's name, or at the start of the path.
            found = re.match(provider.api_pattern, url)
            if found and (found.end() == len(url) or url[found.end()] == "/" or url[found.end() - 1] in "./"):
                return _safely(provider, model)
    return f"genai-prices does not know the provider at {host}"


def price_of_model(name: str, prices: PriceBook, *, usual: bool = False) -> Price | None:
    """The price of a model that no backend here serves: from the price book, or else from the provider that
    made the model. None if unknown.

    usual: the price at most hours of today, instead of the price now.
    """
    found = prices.find(name)
    if found is None and (listed := first_party(name)) is not None:
        found = listed.usual() if usual else listed.now()
    return found


def how_to_price(name: str) -> str:
    """What to do about a model that has no price."""
    return f'give prices={{"{name}": Price(…)}}{or_install()}'


def or_install() -> str:
    """The other way to get a price, if the library is not installed."""
    return "" if _providers() else ", or pip install 'ccroute[prices]' for the prices of providers"


@lru_cache(1024)
def first_party(name: str) -> PriceList | None:
    """The prices of a model at the provider who made it, or at the one that the name begins with
    (`groq/llama-3.3-70b-versatile`); None if the library does not know it."""
    providers = _providers() or ()
    before, slash, model = name.partition("/")
    if slash:
        found = next((each for each in providers if each.id == before.lower()), None)
    else:
        model = name
        by_model = (each for each in providers if each.model_match and each.model_match.is_match(name))
        found = next(by_model, None)
    if found is None or found.id in _NOT_IN_USD:
        return None
    made = _safely(found, model)
    return None if isinstance(made, str) else made


def _safely(provider: Provider, model: str) -> PriceList | str:
    """The prices of a model at a provider, or why they are unknown. An error in the library is only logged,
    because it must not fail a call."""
    try:
        return PriceList(provider, model, _find_model(provider, model))
    except Exception as error:
        why = f"genai-prices failed for {model} of {provider.id}: {type(error).__name__}"
        _log.warning("%s", why)
        return why


def _providers() -> list[Provider] | None:
    """The library's providers, from its current snapshot; None if it is not installed."""
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        return None
    return get_snapshot().providers


def _find_model(provider: Provider, name: str) -> ModelInfo | None:
    # Not with the snapshot's look-up: it caches every name, and clients may send any names.
    if provider.id == "google":
        name = name.rpartition("/")[2]  # models/gemini-2.5-flash, google/gemini-2.5-flash
    return provider.find_model(name, all_providers=_providers())


def _keys(info: ModelInfo) -> Iterator[str]:
    """The names of all prices of a model."""
    prices = [each.prices for each in info.prices] if isinstance(info.prices, list) else [info.prices]
    return (key for each in prices for key, value in vars(each).items() if value is not None)


def _at_length(given: Mapping[str, Any], prompt: int) -> dict[str, Decimal]:
    """The price of each bucket for prompts longer than so many tokens."""
    found = dict[str, Decimal]()
    for key, bucket in _BUCKETS.items():
        price = given.get(key)
        if price is not None:
            tiers = [tier.price for tier in getattr(price, "tiers", ()) if tier.start <= prompt and prompt]
            found[bucket] = tiers[-1] if tiers else getattr(price, "base", price)
    return found


def _times(price: Price, factor: Decimal) -> Price:
    """The price of all tokens times `factor`."""
    return Price(
        price.input * factor,
        price.output * factor,
        cache_read=price.cache_read * factor,
        cache_write=price.cache_write * factor,
        cache_write_1h=price.cache_write_1h * factor,
        above={limit: _times(tier, factor) for limit, tier in price.above},
        web_search=price.web_search,
    )
