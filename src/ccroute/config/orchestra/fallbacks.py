"""The fallback models of an agent's entry, in every form that files have.

A name, a list of names, or `{model, triggers, tokenThreshold, automatic}`, alone or in a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ccroute.config.foreign.builder import Builder, unknown_key
from ccroute.config.foreign.section import AnySpelling, Section
from ccroute.config.foreign.spelling import folded, misspelt
from ccroute.config.reading.source import Place
from ccroute.failures import TRIGGERS, Trigger
from ccroute.routing.names import did_you_mean

TABLE_KEYS: Final = ("model", "models", "triggers", "automatic", "tokenThreshold", "enabled", "disabled")
OTHER_TRIGGERS: Final[Mapping[str, Trigger]] = {
    "context_length": "token_limit",
    "context_window": "token_limit",
    "rate_limited": "rate_limit",
    "too_many_requests": "rate_limit",
    "quota": "rate_limit",
    "unavailable": "availability",
    "error": "availability",
    "failure": "availability",
    "timeout": "availability",
    "overloaded": "availability",
    "cost": "budget",
    "cost_limit": "budget",
}
"""Other words for ccroute's triggers."""
_WORDS: Final[Mapping[str, Trigger]] = {**dict(zip(TRIGGERS, TRIGGERS, strict=True)), **OTHER_TRIGGERS}
_TRIGGERS: Final[Mapping[str, Trigger]] = {folded(word): trigger for word, trigger in _WORDS.items()}


def read_fallbacks(value: object, place: Place, builder: Builder) -> list[tuple[Any, Place]]:
    """Fallback models in the native shape, each with its place."""
    if isinstance(value, list | tuple):
        return [each for i, one in enumerate(value) for each in _read(one, (*place, i), builder)]
    return [] if value is None or value is False or value == "" else _read(value, place, builder)


def _read(value: object, place: Place, builder: Builder) -> list[tuple[Any, Place]]:
    if isinstance(value, Mapping):
        return _read_table(value, place, builder)
    expanded = builder.expand(value, place)
    return [] if expanded is None else [(expanded, place)]


def _read_table(table: Mapping[str, Any], place: Place, builder: Builder) -> list[tuple[Any, Place]]:
    if not table or not builder.takes_part(table, place):
        return []
    section = AnySpelling(builder, (table, place), TABLE_KEYS)
    if "automatic" in section and not section.flag("automatic"):
        builder.ignore(place, "is not used by itself: automatic is false")
        return []
    models = [*section.entries("model"), *section.entries("models")]
    if not models:
        wrong = next((key for key in table if misspelt(key, ("model",)) and folded(key) != "models"), None)
        builder.fault((*place, wrong or "model"), unknown_key("model") if wrong else "is missing")
    triggers = _triggers(section, builder)
    if "tokenThreshold" in section:
        text = "a fallback for token_limit is used when the prompt does not fit the model's context window"
        section.ignore("tokenThreshold", text)
    return [
        ({"model": model, "triggers": triggers} if triggers else model, model_place)
        for model, model_place in models
    ]


def _triggers(section: Section, builder: Builder) -> list[Trigger]:
    found: list[Trigger] = []
    for value, place in section.entries("triggers"):
        trigger = _TRIGGERS.get(folded(value))
        if trigger is None:
            close = did_you_mean(str(value), TRIGGERS)
            known = ", ".join(TRIGGERS)
            builder.fault(place, f'unknown trigger "{value}"{close}; the triggers are {known}')
        elif trigger not in found:
            found.append(trigger)
    return found
