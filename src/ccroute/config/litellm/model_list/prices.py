"""The price of an entry's model: LiteLLM's USD per token as USD per million tokens, exact.

What ccroute's prices cannot say exactly becomes no price, with a warning. LiteLLM's own rules:
https://github.com/BerriAI/litellm/blob/main/litellm/litellm_core_utils/llm_cost_calc/utils.py
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, TypeAlias

from ccroute.config.foreign.section import Section
from ccroute.config.litellm.keys import PRICE, PRICES, RANGES, REASONING, SEARCHES
from ccroute.config.reading.source import Place

_THOUGHTS: Final = "reasoning"
_RATES: Final = {**PRICES, REASONING: _THOUGHTS}
_SERVICES: Final = {"flex": "_flex", "priority": "_priority", "fast": "_priority"}
"""The ends of keys that are for requests of another service tier."""
_OTHER_UNITS: Final = (
    "input_cost_per_second",
    "output_cost_per_second",
    "input_cost_per_character",
    "output_cost_per_character",
)
"""If tokens cost nothing, LiteLLM bills every answer by these."""
_USUAL_SIZE: Final = "search_context_size_medium"
"""The key by which LiteLLM bills web searches of Anthropic's models. Only these report the number of
searches."""
_INCLUSIVE: Final = frozenset({"xai"})
"""Providers whose higher price begins at this number of tokens, and not above it."""

Rates: TypeAlias = dict[str, Decimal]
"""USD per million tokens, by native key or `_THOUGHTS`."""
Tiers: TypeAlias = list[tuple[int, Rates]]
"""Numbers of tokens in ascending order, each with the rates of prompts that are longer."""


def read_price(section: Section, provider: str) -> tuple[dict[str, Any], Place] | None:
    """The price and its place; None if the entry has none that ccroute can use."""
    service = _SERVICES.get(str(section.get("service_tier")).lower(), "")
    _note_other_services(section, service)
    tiers = _by_ranges(section) if RANGES in section else _by_keys(section, provider, service)
    if not tiers:
        return None
    for key, why in _inexact(section, tiers):
        section.warn(key, f"{why}, which a price of ccroute cannot say: the prices here are not used")
        return None
    (_, price), *longer = [
        (tokens, {key: usd for key, usd in rates.items() if key != _THOUGHTS}) for tokens, rates in tiers
    ]
    others: dict[str, Any] = {"above": {str(tokens): rates for tokens, rates in longer}} if longer else {}
    if (per_search := Section(section.builder, section.layer(SEARCHES)).number(_USUAL_SIZE)) is not None:
        others["web_search"] = per_search * 1000
    return price | others, next(section.place(key) for key in (RANGES, *PRICES) if key in section)


def _by_keys(section: Section, provider: str, service: str) -> Tiers:
    """The rates of the usual keys, and of the keys that end in `_above_200k_tokens`. Empty if a rate is
    missing; but a rate of 0 alone means free."""
    rates = _rates(section, "", service)
    missing = {"input", "output"} - rates.keys()
    if missing:
        if len(missing) == 2 or any(rates.values()):
            _warn_of_half(section, rates)
            return []
        rates |= dict.fromkeys(missing, Decimal(0))
    longer: dict[int, Rates] = {}
    for key in section:
        found = PRICE.fullmatch(key)
        if found and found[2] and (found[4] is None or f"_{found[4]}" == service):
            tokens = int(found[2]) * (1000 if found[3] else 1) - (provider in _INCLUSIVE)
            longer[tokens] = rates | _rates(section, f"_above_{found[2]}{found[3]}_tokens", service)
    return [(0, rates), *sorted(longer.items(), key=lambda tier: tier[0])]


def _by_ranges(section: Section) -> Tiers:
    """The rates of each range of prompt lengths. Empty if a rate is missing."""
    usual = {key: usd for key, usd in _rates(section, "", "").items() if key == "output"}
    found: list[tuple[int, int, Rates]] = []
    for row, place in section.entries(RANGES):
        match row:
            case {"range": [int(start), int(end)]}:
                inner = Section(section.builder, (row, place))
                rates = usual | _rates(inner, "", "")
                if not {"input", "output"} <= rates.keys():
                    _warn_of_half(inner, rates)
                    return []
                found.append((start, end, rates))
            case _:
                section.builder.fault(place, "should be a table with prices and range: [from, to], in tokens")
                return []
    found.sort(key=lambda each: each[0])
    if not found or found[0][0] != 0 or any(one[1] != other[0] for one, other in pairwise(found)):
        section.warn(RANGES, "its ranges do not follow one another from 0 on: the prices here are not used")
        return []
    return [(start, rates) for start, _, rates in found]


def _rates(section: Section, above: str, service: str) -> Rates:
    """The rates of the keys with these ends. If the service tier has no key, the usual key counts."""
    rates = {}
    for key, ours in _RATES.items():
        name = key + above + service if key + above + service in section else key + above
        if (per_token := section.number(name)) is not None:
            rates[ours] = per_token.scaleb(6)
    return rates


def _inexact(section: Section, tiers: Tiers) -> Iterator[tuple[str, str]]:
    """The keys because of which these rates are not the price, each with the reason."""
    if any(rates.get(_THOUGHTS, rates["output"]) != rates["output"] for _, rates in tiers):
        yield REASONING if REASONING in section else RANGES, "thoughts have another price than answers"
    if "off_peak_pricing" in section:
        yield "off_peak_pricing", "the price changes with the time of day"
    if not any(usd for _, rates in tiers for usd in rates.values()):
        for key in _OTHER_UNITS:
            if section.number(key):
                yield key, "something else than tokens is paid for"


def _warn_of_half(section: Section, rates: Rates) -> None:
    """Warn if only one of the two rates, of prompts and of answers, is given."""
    for key, ours in PRICES.items():
        if ours in rates:
            missing = next(name for name in ("input", "output") if name not in rates)
            section.warn(key, f"there is no price of the {missing}, so the model has none")
            return


def _note_other_services(section: Section, service: str) -> None:
    for key in section:
        found = PRICE.fullmatch(key)
        if found and found[4] and f"_{found[4]}" != service:
            section.ignore(key, "counts for entries with that service_tier only")
