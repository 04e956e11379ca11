"""Turns merged settings and the caller's own objects into the keyword arguments for a router."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from ccroute.accounting.stores.opening import with_path
from ccroute.backends import Backend
from ccroute.backends.registry import well_known
from ccroute.config.merge import Merged
from ccroute.config.native.build import (
    build_agent,
    build_backend,
    build_budget,
    build_fallback,
    build_price,
    build_timeout,
    implied_key,
)
from ccroute.config.native.settings import NOT_YET, BackendTable, PriceTable, Settings
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import Place
from ccroute.config.references import (
    STAND_IN,
    Directory,
    absence,
    alias_name,
    alias_table,
    target_names,
    with_callers,
)
from ccroute.errors import ConfigError
from ccroute.routing import Agent, AliasTable
from ccroute.routing.names import did_you_mean, slug
from ccroute.routing.tables.agents import OTHERS, Fallback, model_of
from ccroute.types import RetryPolicy

_BUILT = (
    "agents",
    "aliases",
    "backends",
    "budgets",
    "fallbacks",
    "groups",
    "ledger",
    "prices",
    "retry",
    "strategy",
    "timeout",
)
"""Settings that are converted before they are passed on."""
_NEARLY: Final = 0.9
_LEAST: Final = Decimal("0.001")
"""USD per million tokens. A lower price is probably one per token."""


class Assembly:
    """Makes the `options` of a router. Collects `faults` (place, text), `unknown`, which are those of names
    without a target, and `warnings`."""

    def __init__(self, merged: Merged, environment: Environment, overrides: Mapping[str, Any]) -> None:
        self._merged = merged
        self._settings = merged.settings
        self._environment = environment
        self._overrides = overrides
        self.faults: list[tuple[str, str]] = []
        self.unknown: list[tuple[str, str]] = []
        self.warnings: list[str] = [*self._not_yet(), *self._too_cheap(), *self._new_agents()]
        self.options: dict[str, Any] = self._tables() | dict(overrides)
        self._named = list(self._models())
        given: list[Backend] = list(overrides.get("backends") or ())
        over: Mapping[Any, Any] = overrides.get("aliases") or {}
        self._settings = self._without_unused(over)
        replaced = {backend.name for backend in given}
        backends = [
            self._backend(name, table)
            for name, table in self._settings.backends.items()
            if table.enabled and name not in replaced
        ]
        wanted = self._resolve(over, given)
        backends += [self._backend(name, BackendTable(kind=name)) for name in wanted]
        self.options["backends"] = [*filter(None, backends), *given]
        if "budgets" not in overrides:
            self._check_budgets()

    @property
    def settings(self) -> Settings:
        """The merged settings without backends that no name uses."""
        return self._settings

    def _tables(self) -> dict[str, Any]:
        """The options that the sources give, without backends and aliases."""
        settings = self._settings
        options = settings.given(without=(*_BUILT, *NOT_YET))
        options["agents"] = {name: build_agent(table) for name, table in settings.agents.items()}
        options["groups"] = {name: build_agent(table) for name, table in settings.groups.items()}
        options["fallbacks"] = {
            name: list(map(build_fallback, models)) for name, models in settings.fallbacks.items()
        }
        options["prices"] = {name: build_price(table) for name, table in settings.prices.items()}
        if settings.budgets:
            options["budgets"] = {scope: build_budget(table) for scope, table in settings.budgets.items()}
        if settings.ledger is not None:
            options["ledger"] = self._ledger(settings.ledger)
        if settings.timeout is not None:
            options["timeout"] = build_timeout(settings.timeout)
        if settings.retry is not None:
            try:
                options["retry"] = RetryPolicy(**settings.retry.given())
            except ValueError as error:
                self._fault(("retry",), str(error))
        return options

    def _new_agents(self) -> Iterator[str]:
        """Warnings of agents that sources only name, and whose names resemble configured ones."""
        only_named = set(self._merged.mentioned)
        known = {slug(name): name for name in self._settings.agents if name not in only_named}
        for name in self._merged.mentioned if "agents" not in self._overrides else ():
            if close := difflib.get_close_matches(slug(name), known, n=1, cutoff=_NEARLY):
                where = self._merged.where(("agents", name))
                yield f'{where}: "{name}" is a new agent; was "{known[close[0]]}" meant?'

    def _ledger(self, path: str) -> str:
        """The path, also of a journal, as written from its file's folder."""
        source = self._merged.source(("ledger",))
        folder = source.path.parent if source is not None and source.path is not None else Path()
        return with_path(path, lambda path: str(folder / Path(path).expanduser()))

    def _without_unused(self, over: Mapping[Any, Any]) -> Settings:
        """Return the settings without backends from agents' addresses that no name uses."""
        names = [model for model, _ in self._named]
        for target in with_callers(over, self._settings.aliases).values():
            names += target_names(target)
        used = {name.partition("/")[0] for name in names}
        backends = {
            name: table
            for name, table in self._settings.backends.items()
            if name in used or name not in self._merged.implied
        }
        return self._settings.model_copy(update={"backends": backends})

    def _backend(self, name: str, table: BackendTable) -> Backend | None:
        place = ("backends", name)
        source = self._merged.source(place)
        if source is not None and source.faulty(source.where(place)):
            return None  # the rest of it would only give faults that follow from the first
        try:
            backend = build_backend(name, table)
            variable = None if table.api_key else implied_key(backend)
            if variable is None:
                return backend
            if key := self._environment.get(variable):
                return build_backend(name, table, key)
        except (ConfigError, TypeError, ValueError) as error:  # another package's class may raise any
            text = str(error).removeprefix(f"backend {name}: ")
            first, _, rest = text.partition(" ")
            self._fault(*((*place, first), rest) if first in BackendTable.model_fields else (place, text))
            return None
        if not self._environment.keep_unset:
            where = self._merged.where(place)
            self.warnings.append(f"{where}: {variable} is not set, so there is no key for {backend.origin}")
        return backend

    def _resolve(self, over: Mapping[Any, Any], given: list[Backend]) -> list[str]:
        """Build the alias table, report unknown names, return the names of the well-known backends needed."""
        aliases = with_callers(over, self._settings.aliases | self._left_out("aliases"))
        strategy = self._settings.strategy
        if isinstance(over, AliasTable) and over.strategy != "weighted":
            strategy = over.strategy
        table, faulty = alias_table(aliases, strategy)
        self.options["aliases"] = table
        absent = {name: why for name, why in self._merged.absent.items() if name not in aliases}
        for name, texts in faulty.items():
            for text in texts:
                known = next((each for each in absent if text.startswith(f'"{each}" is neither ')), None)
                self._fault(("aliases", name), absence(known, absent) if known else text)
        tables = self._settings.backends.items()
        directory = Directory(
            table,
            frozenset(map(alias_name, aliases)),
            backends={name for name, table in tables if table.enabled}
            | {backend.name for backend in given}
            | self._left_out("backends").keys(),
            disabled={name for name, table in tables if not table.enabled},
            well_known=well_known(),
            absent=absent,
        )
        for key, target in aliases.items():
            directory.check_alias(alias_name(key), target, self._merged.where(("aliases", alias_name(key))))
        for model, place in self._named:
            directory.check_model(model, self._user(place))
        self.unknown = directory.faults()
        return directory.wanted

    def _user(self, place: Place) -> str:
        """Where a model is used. A place in a list does not have the agent's name, so it is added."""
        where = self._merged.where(place)
        is_named = place[0] != "agents" or f"-{slug(str(place[1]))}-" in f"-{slug(where)}-"
        return where if is_named else f"{where} ({place[1]})"

    def _left_out(self, section: str) -> dict[str, str]:
        """Names whose value has a fault. Using such a name is not another fault."""
        places = self._merged.left_out
        return {str(place[1]): STAND_IN for place in places if place[0] == section and place[1:]}

    def _models(self) -> Iterator[tuple[str, Place]]:
        """Every model that the options name, and its place. Also reports unknown groups."""
        groups = self.options["groups"] or {}
        for section in ("agents", "groups"):
            for name, given in (self.options[section] or {}).items():
                agent = Agent(given) if isinstance(given, str) else given
                if agent.model is not None:
                    yield agent.model, (section, name, "model")
                for i, fallback in enumerate(agent.fallback):
                    yield model_of(fallback), (section, name, "fallback", i)
                if agent.group is not None and agent.group not in groups:
                    advice = (
                        did_you_mean(agent.group, groups) or '; add it under "groups", where it may be empty'
                    )
                    self._fault((section, name, "group"), f'unknown group "{agent.group}"{advice}')
        for name, models in (self.options["fallbacks"] or {}).items():
            if name != OTHERS:
                yield name, ("fallbacks", name)
            for i, fallback in enumerate([models] if isinstance(models, str | Fallback) else models):
                yield model_of(fallback), ("fallbacks", name, i)
        if (model := self.options.get("default_model")) is not None:
            yield model, ("default_model",)

    def _not_yet(self) -> Iterator[str]:
        """Warnings of keys that this version does not enforce, one for each key."""
        given = self._settings.given()
        for key in NOT_YET:
            if key in given:
                yield f"{self._merged.where((key,))}: {key} is not enforced by this version of ccroute"

    def _check_budgets(self) -> None:
        """Report budgets of unknown agents, groups and backends. Leaves out the budget of a backend that is
        disabled, or that no name leads to."""
        known: dict[str, set[str]] = {
            "agent": {*(self.options["agents"] or ()), *self._left_out("agents")},
            "group": {*(self.options["groups"] or ()), *self._left_out("groups")},
            "backend": {*(each.name for each in self.options["backends"]), *self._left_out("backends")},
        }
        unused = {*self._merged.settings.backends, *well_known()} - known["backend"]
        for scope in self._settings.budgets:
            kind, _, name = scope.partition(":")
            if name in known.get(kind, {name}) or (kind == "agent" and slug(name) in map(slug, known[kind])):
                continue
            at = self._merged.given_at(("budgets", scope))
            if at[0] != "budgets":  # of an agent or a group in a file, which the caller's arguments replace
                del self.options["budgets"][scope]
            elif kind == "backend" and name in unused:
                del self.options["budgets"][scope]
                self._merged.ignore(("budgets", scope), "no name leads to that backend, or it is disabled")
            else:
                from ccroute.routing.budgets.table import unknown_holder  # only with a fault

                self._fault(("budgets", scope), unknown_holder(kind, name, str(at[1]), known))

    def _too_cheap(self) -> Iterator[str]:
        """Warnings of prices that are too low per million tokens, but usual per token."""
        prices: dict[Place, PriceTable | None] = {
            ("prices", name): table for name, table in self._settings.prices.items()
        }
        for name, backend in self._settings.backends.items():
            for model, table in backend.models.items():
                prices["backends", name, "models", model, "price"] = table.price
        for place, price in prices.items():
            for key, amount in price.given(without=("above", "web_search")).items() if price else ():
                if amount is not None and 0 < amount < _LEAST:
                    where = self._merged.where((*place, key))
                    yield f"{where}: {amount} USD per million tokens; was a price per token meant?"

    def _fault(self, place: Place, text: str) -> None:
        self.faults.append((self._merged.where(place), text))
