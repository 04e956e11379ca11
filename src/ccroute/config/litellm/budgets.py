"""Budgets: of all calls, of a provider, and of an entry of `model_list`.

LiteLLM's own rules: litellm/router_strategy/budget_limiter.py for providers and entries, and
litellm/litellm_core_utils/duration_parser.py for when the budget of all calls is reset, both in
https://github.com/BerriAI/litellm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING, Any, Final

from ccroute.config.foreign.section import Section
from ccroute.config.litellm.keys import PROVIDER_BUDGET, note_unread
from ccroute.config.reading.source import Place

if TYPE_CHECKING:
    from ccroute.config.litellm.model_list.entries import Entry

_DURATION: Final = re.compile(r"(\d+)(mo|[smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_WINDOWS: Final = {3600: "hour", 86_400: "day"}
_MONTHS: Final = frozenset({"1mo", "30d"})
"""Durations for which LiteLLM resets the budget on the first of a month."""
_MICRO: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget as a native table, and the place of each of its keys."""

    table: Mapping[str, Any]
    places: Mapping[str, Place]


class Budgets:
    """Reads the budgets of a file, and then adds them. `providers`: the budgets of providers, by name."""

    def __init__(self, router: Section, litellm: Section) -> None:
        self._builder = litellm.builder
        self._zone = {"tz": zone} if (zone := litellm.text("timezone")) else {}
        self._zone_at = {"tz": litellm.place("timezone")} if self._zone else {}
        self._of_all = _limit(litellm, ("max_budget", "budget_duration"), "refuse", rolling=False)
        self.providers: dict[str, Limit] = {}
        table, place = router.layer("provider_budget_config")
        for provider, value in table.items():
            here = (*place, provider)
            if not isinstance(value, Mapping):
                self._builder.fault(here, "should be a table with budget_limit and time_period")
                continue
            note_unread(self._builder, value, here, PROVIDER_BUDGET)
            section = Section(self._builder, (value, here))
            usual = ("budget_limit", "time_period")
            keys = usual if "budget_limit" in section else ("max_budget", "budget_duration")
            if (limit := _limit(section, keys, "fallback", rolling=True)) is not None:
                self.providers[provider] = limit

    def add(self, entries: Sequence[Entry]) -> None:
        """Add the budgets to the native table. The entries have their backends by now."""
        if self._of_all is not None:
            self._put("router", self._of_all)
        for entry in entries:
            if entry.budget is not None:
                self._put(f"backend:{entry.backend}", entry.budget)
        for provider, limit in self.providers.items():
            of_provider = [entry for entry in entries if entry.provider == provider]
            backends = dict.fromkeys(entry.backend for entry in of_provider if entry.budget is None)
            where = limit.places["usd"]
            if not of_provider:
                self._builder.ignore(where, "no model is of that provider")
            if own := [entry for entry in of_provider if entry.budget is not None]:
                names = ", ".join(dict.fromkeys(entry.name for entry in own))
                self._builder.warn(where, f"does not count what {names} cost, with budgets of their own")
            share = limit.table["usd"]
            if len(backends) > 1:
                share = (share / len(backends)).quantize(_MICRO, ROUND_DOWN)
                names = ", ".join(backends)
                text = f"the backends {names} have {share:f} USD each, because each has a budget of its own"
                self._builder.warn(where, text)
            for backend in backends:
                self._put(f"backend:{backend}", limit, usd=share)

    def _put(self, scope: str, limit: Limit, **changed: Decimal) -> None:
        self._builder.options.setdefault("budgets", {})[scope] = {**limit.table, **changed, **self._zone}
        places = {**limit.places, **self._zone_at}
        self._builder.comes_from(places["usd"], "budgets", scope)
        for key, place in places.items():
            self._builder.comes_from(place, "budgets", scope, key)


def entry_limit(params: Section) -> Limit | None:
    """The budget of an entry; None if it has none."""
    return _limit(params, ("max_budget", "budget_duration"), "fallback", rolling=True)


def _limit(section: Section, keys: tuple[str, str], then: str, *, rolling: bool) -> Limit | None:
    """The budget of two keys, an amount and a duration; None if there is none that ccroute can keep.

    `rolling`: in LiteLLM the window begins with the first call, and a budget without a duration is ignored.
    Otherwise the window is one of the calendar, and a budget without a duration has no end.
    """
    amount, duration = keys
    usd = section.number(amount)
    if not usd:
        if amount in section and usd is not None:
            section.ignore(amount, "0 is no limit, in LiteLLM either")
        if duration in section:
            section.ignore(duration, f"has a meaning beside {amount} only")
        return None
    window: str | None = "total"
    if duration in section:
        window = _window(section, duration)
    elif rolling:
        window = None
        text = f"is no limit without {duration}, in LiteLLM either"
        section.warn(amount, text)
        section.ignore(amount, text)
    if window is None:
        return None
    if rolling:
        section.ignore(duration, f"each {window} of the calendar instead of one that begins with a call")
    places = {"usd": section.place(amount), "per": section.place(duration)}
    return Limit({"usd": usd, "per": window, "then": then}, places)


def _window(section: Section, key: str) -> str | None:
    """The window of a duration; None if ccroute has no such window."""
    text = (section.text(key) or "").strip()
    found = _DURATION.fullmatch(text)
    if found is None:
        if not section.builder.is_faulty(section.place(key)):
            section.fault(key, 'should be a duration such as "30d"')
        return None
    if text in _MONTHS:
        return "month"
    window = _WINDOWS.get(int(found[1]) * _SECONDS.get(found[2], 0))
    if window is None:
        reason = f"a budget is for an hour, a day or a month: one for {text} is not kept"
        section.warn(key, reason)
        section.ignore(key, reason)
    return window
