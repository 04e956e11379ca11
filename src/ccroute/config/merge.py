"""Merges several sources. If two define a name, the later one wins: agents and groups key by key, backends,
aliases and all others as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ccroute.config.additions import Additions, routed
from ccroute.config.budgets import GivenBudget, by_scope, given_budgets
from ccroute.config.native.settings import NOT_YET, AgentTable, Defaults, Settings, Table
from ccroute.config.reading.source import Place, Source
from ccroute.routing.names import slug

T = TypeVar("T", bound=Defaults)
Origin = tuple[Source, Place]


@dataclass(slots=True)
class Merged:
    """The settings of all sources, and the source that each part of them is from.

    `left_out` are the places whose values had a fault and are not in the settings. `implied` are backends
    that no source defines, but that an agent's address may need. `absent` are names that lead nowhere, each
    with the reason. `mentioned` are agents that sources only name. `alternatives` are the models to use where
    an agent's own has no target.
    """

    settings: Settings
    left_out: frozenset[Place] = frozenset()
    implied: frozenset[str] = frozenset()
    absent: Mapping[str, str] = field(default_factory=dict)
    mentioned: tuple[str, ...] = ()
    alternatives: Mapping[str, list[str]] = field(default_factory=dict)
    _origins: Mapping[Place, Origin] = field(default_factory=dict)

    @property
    def sources(self) -> Iterable[Source]:
        """Every source that a part of the settings is from."""
        return dict.fromkeys(source for source, _ in self._origins.values())

    def source(self, place: Place) -> Source | None:
        """The source of what is at `place`: a section's name, and a name and a key in it."""
        return found[0] if (found := self.origin(place)) else None

    def where(self, place: Place) -> str:
        """A place as messages write it, with its source."""
        source, place = self.origin(place) or (Source(""), place)
        return source.where(place)

    def ignore(self, place: Place, reason: str) -> None:
        """Note in its source that the value at `place`, which a source gave, is not used."""
        source, at = self._origins[place]
        source.ignore(source.origin(at), reason)

    def given_at(self, place: Place) -> Place:
        """The place in its source, in the native shape as well."""
        found = self.origin(place)
        return place if found is None else found[1]

    def origin(self, place: Place) -> Origin | None:
        """The source of what is at `place`, and the place in it, in the native shape as well."""
        for length in (3, 2, 1):
            if (found := self._origins.get(place[:length])) is not None:
                return found[0], (*found[1], *place[length:])
        return None


def merge(read: Iterable[tuple[Source, Settings, Additions]]) -> Merged:
    """One set of settings. What a later source replaces is noted as ignored in the earlier one."""
    merge = _Merge()
    for each in read:
        merge.add(*each)
    return merge.done()


class _Merge:
    """Adds one source after another."""

    def __init__(self) -> None:
        self._sections: dict[str, Any] = {"agents": {}, "groups": {}}
        self._origins: dict[Place, Origin] = {}
        self._left_out: set[Place] = set()
        self._implied: set[str] = set()
        self._absent: dict[str, str] = {}
        self._meant: set[str] = set()
        self._defined: set[str] = set()
        self._left: dict[str, set[str]] = {}
        self._alternatives: dict[str, tuple[Source, str, list[str]]] = {}
        self._every_agent: dict[str, Any] = {}
        self._claims: Counter[str] = Counter()
        self._budgets: list[GivenBudget] = []

    def add(self, source: Source, settings: Settings, additions: Additions) -> None:
        self._left_out.update(source.left_out)
        self._implied |= additions.implied
        self._absent |= additions.absent
        self._meant |= settings.backends.keys() - additions.implied
        self._budgets += given_budgets(settings, source)
        for section, value in settings.given(without=("agents", "budgets", "groups")).items():
            if isinstance(value, dict):
                self._replace(section, value, source, additions.implied)
            else:
                before: Any = self._sections.get(section)
                both = isinstance(value, Table) and isinstance(before, Table)
                self._sections[section] = before.model_copy(update=value.given()) if both else value
                self._put((section,), source, (section,))
        groups = [(name, table, ("groups", name)) for name, table in settings.groups.items()]
        agents = [(name, table, ("agents", name)) for name, table in settings.agents.items()]
        self._combine("groups", groups, source)
        self._combine("agents", [*agents, *_members(settings, source)], source)
        find = _finder(self._agents)
        self._defined.update(map(find, settings.agents))
        for name, models in additions.alternatives.items():
            self._alternatives[find(name)] = source, name, models
        for name, choose in additions.routed.items():
            self._route(find(name), choose, source, routed(name))
        self._every_agent |= additions.every_agent

    def done(self) -> Merged:
        self._claims.update(map(slug, self._agents))
        self._claims.update(slug(other) for table in self._agents.values() for other in table.other_names)
        for name, table in self._agents.items():
            if updates := dict(self._updates(name, table)):
                self._agents[name] = table.model_copy(update=updates)
        for scope, budget in by_scope(self._budgets, _finder(self._agents)):
            self._put(("budgets", scope), budget.source, budget.at)
            self._sections.setdefault("budgets", {})[scope] = budget.table
        return Merged(
            Settings.model_construct(**self._sections),
            frozenset(self._left_out),
            frozenset(self._implied - self._meant),
            self._absent,
            tuple(name for name in self._agents if name not in self._defined),
            {
                name: models
                for name, (source, own, models) in self._alternatives.items()
                if self._origins.get(("agents", name, "model")) == (source, ("agents", own, "model"))
            },
            self._origins,
        )

    @property
    def _agents(self) -> dict[str, AgentTable]:
        agents: dict[str, AgentTable] = self._sections["agents"]
        return agents

    def _put(self, place: Place, source: Source, at: Place, *, silent: bool = False) -> None:
        """Note where the value at `place` comes from, and in the earlier source that it is not used."""
        earlier, before = self._origins.get(place, (source, at))
        if not silent and place in self._origins:
            origin = earlier.origin(before)
            # The place of an alias need not contain its name.
            name = f'for "{place[1]}", ' if place[0] == "aliases" and origin[-1] != place[1] else ""
            earlier.ignore(origin, f"{name}{source.where(at)} comes later and wins")
        self._origins[place] = source, at

    def _replace(self, section: str, value: Mapping[str, Any], source: Source, implied: Set[str]) -> None:
        """The later source's entries come first: patterns of aliases are tried in order."""
        earlier = self._sections.get(section, {})
        mute = implied if section == "backends" else ()
        new = {
            name: entry
            for name, entry in value.items()
            if name not in earlier or (name not in mute and not _is_empty(entry))
        }
        self._sections[section] = new | {name: entry for name, entry in earlier.items() if name not in new}
        if section in NOT_YET:  # its warning is about the whole section
            self._origins[(section,)] = source, (section,)
        for name in new:
            self._put((section, name), source, (section, name))

    def _combine(self, section: str, entries: Sequence[tuple[str, T, Place]], source: Source) -> None:
        """Merge tables key by key. An agent is known by its slug and by its other names as well."""
        earlier: dict[str, T] = self._sections[section]
        find = _finder(self._agents) if section == "agents" else str
        new: dict[str, T] = {}
        for name, table, at in entries:
            known = find(name)
            before = new.get(known, earlier.get(known))
            was, given = before.given() if before else {}, table.given(without=("agents", "budget"))
            self._origins.setdefault((section, known), (source, at))
            for key, value in [*given.items()]:
                if value is None:
                    del given[key]
                    continue
                if key == "other_names":
                    given[key] = list(dict.fromkeys([*was.pop(key, ()), *value]))
                if key == "group" and key in was:
                    self._left.setdefault(known, set()).add(was[key])
                silent = was.get(key, value) == value
                self._put((section, known, key), source, at if len(at) > 2 else (*at, key), silent=silent)
            made = type(table).model_construct(_fields_set=set()) if before is None else before
            new[known] = made.model_copy(update=given)
        self._sections[section] = new | {name: table for name, table in earlier.items() if name not in new}

    def _route(
        self, name: str, choose: Callable[[str | None], str | None], source: Source, at: Place
    ) -> None:
        """Let a rule choose an agent's model from the one that it has so far."""
        table = self._agents.get(name) or AgentTable()
        self._origins.setdefault(("agents", name), (source, at))
        model = choose(self._inherited(table, "model"))
        if model is None:
            source.warn(source.origin(at), "has no effect: neither the agent nor the provider has a model")
        else:
            place: Place = ("agents", name, "model")
            known = self._origins.get(place)
            silent = known is None or known[0] is source or table.model == model
            self._put(place, source, at, silent=silent)
            table = table.model_copy(update={"model": model})
        self._agents[name] = table

    def _inherited(self, table: AgentTable, key: str) -> Any:
        """The agent's value, or else its group's; None if neither has one."""
        group = self._sections["groups"].get(table.group)
        tables = [each for each in (table, group) if each is not None and key in each.model_fields_set]
        return getattr(tables[0], key) if tables else None

    def _updates(self, name: str, table: AgentTable) -> Iterator[tuple[str, Any]]:
        """What an agent gets when all sources are known."""
        for key, value in self._every_agent.items():
            if self._inherited(table, key) is None:
                yield key, value
        if "local_only" not in table.model_fields_set:
            groups = map(self._sections["groups"].get, self._left.get(name, ()))
            if any(group is not None and group.local_only for group in groups):
                yield "local_only", True  # a later source cannot end it by naming another group
        if table.other_names:
            yield "other_names", [other for other in table.other_names if self._is_free(name, other)]

    def _is_free(self, name: str, other: str) -> bool:
        """Whether only this agent has that other name, and no agent is called so."""
        if self._claims[slug(other)] == 1:
            return True
        source, at = self._origins["agents", name, "other_names"]
        source.ignore(source.origin(at), f'"{other}" is a name of another agent as well')
        return False


def _members(settings: Settings, source: Source) -> Iterator[tuple[str, AgentTable, Place]]:
    """The members in the lists of groups, each as an agent of the group. One in two groups is a fault."""
    names = {slug(name): name for name in reversed(settings.agents)}
    groups = {name: table.group for name, table in settings.agents.items() if table.group is not None}
    for group, table in settings.groups.items():
        for i, member in enumerate(table.agents):
            place: Place = ("groups", group, "agents", i)
            name = member if member in settings.agents else names.setdefault(slug(member), member)
            if groups.setdefault(name, group) != group:
                text = f'"{member}" is already in group "{groups[name]}"'
                source.faults.append((source.where(place), text))
            yield name, AgentTable(group=group), place


def _finder(agents: Mapping[str, AgentTable]) -> Callable[[str], str]:
    """The known agent that a name means, by exact name, by slug or by another name of it; else the name."""
    names = {slug(name): name for name in reversed([*agents])}
    others = [(slug(other), name) for name, table in agents.items() for other in table.other_names]
    claims = Counter(other for other, _ in others)
    names = {other: name for other, name in others if claims[other] == 1} | names
    return lambda name: name if name in agents else names.get(slug(name), name)


def _is_empty(entry: object) -> bool:
    """Whether `entry` is an empty table. It replaces no earlier entry."""
    return isinstance(entry, Table) and not entry.model_fields_set
