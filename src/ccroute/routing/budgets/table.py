"""Which budgets an attempt needs, by its agent, group, backend and session.

Knows names and windows; must not know what is spent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Final

from ccroute.accounting.budgets import Claim, Kind, Scope
from ccroute.errors import ConfigError
from ccroute.routing.names import did_you_mean
from ccroute.routing.tables.agents import AgentTable
from ccroute.types.budget import Budget
from ccroute.types.clock import END

_NAMES: Final = '"router", "agent:…", "group:…", "backend:…", "session" and "session:…"'
_MOST_KNOWN: Final = 10_000
"""Combinations of agent, group, backend and session whose budgets are cached, at most."""


class Need:
    """A budget that an attempt needs. Errors and statistics show its `name`, such as "agent:coder"."""

    def __init__(self, name: str, budget: Budget, scope: Scope) -> None:
        self.name = name
        self.budget = budget
        self.scope = scope

    def __str__(self) -> str:
        return f"budget {self.name} ({self.budget})"

    @property
    def is_of_sessions(self) -> bool:
        """Whether this stands for one budget per session: only `of(session)` has an account."""
        if self.scope.kind == "session":
            return not self.scope.name
        return self.budget.per == "session" and self.scope.session is None

    def of(self, session: str) -> Need:
        """The budget of one session."""
        if self.scope.kind == "session":
            return Need(f"session:{session}", self.budget, Scope("session", session))
        return Need(self.name, self.budget, self.scope._replace(session=session))

    def claim(self, now: datetime) -> Claim:
        """The claim for the window that `now` (UTC) is in."""
        budget = self.budget
        return Claim(self.scope, *budget.window(now), budget.usd, budget.tokens)


class Needs(tuple[Need, ...]):
    """The budgets that an attempt needs."""

    _latest: tuple[datetime, datetime, tuple[Claim, ...]] = END, END, ()

    def claims(self, now: datetime) -> tuple[Claim, ...]:
        """The claims for the windows that `now` (UTC) is in."""
        since, until, found = self._latest
        if not since <= now < until:
            found = tuple(need.claim(now) for need in self)
            since = max(claim.since for claim in found)
            # In one assignment: threads at the end of a window may be in different windows.
            self._latest = since, min(claim.until for claim in found), found
        return found


class BudgetTable:
    """The budgets of a router. The keys are "router", "agent:x" (or just "x"), "group:x", "backend:x",
    "session" (one budget for each session) and "session:x" (for that session, instead of "session").

    Raises `ConfigError` with every fault: values that are no budgets, and agents, groups and backends that do
    not exist.
    """

    def __init__(self, given: object, agents: AgentTable, backends: Collection[str]) -> None:
        if not isinstance(given, Mapping):
            raise ConfigError(f"budgets: give a mapping of names to budgets, not {type(given).__name__}")
        faults: list[str] = []
        self._by_scope: dict[tuple[Kind, str | None], Need] = {}
        for key, budget in given.items():
            if not isinstance(budget, Budget):
                faults.append(f"budgets.{key}: give a Budget such as Budget(5), not {type(budget).__name__}")
            scope = _scope(key, agents, backends, faults)
            if scope is not None:
                name = f"{scope.kind}:{scope.name}" if scope.name else scope.kind
                if (scope.kind, scope.name) in self._by_scope:
                    faults.append(f"budgets.{key}: {name} has another budget already")
                self._by_scope[scope.kind, scope.name] = Need(name, budget, scope)
        if faults:
            raise ConfigError(*faults)
        self._known: dict[tuple[str | None, ...], Needs] = {}

    def __iter__(self) -> Iterator[Need]:
        return iter(self._by_scope.values())

    def needs(self, agent: str | None, group: str | None, backend: str, session: str | None) -> Needs:
        """The budgets of an attempt."""
        found = self._known.get((agent, group, backend, session))
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = Needs(self._needs(agent, group, backend, session))
            self._known[agent, group, backend, session] = found
        return found

    def _needs(
        self, agent: str | None, group: str | None, backend: str, session: str | None
    ) -> Iterator[Need]:
        own = "" if ("session", session) not in self._by_scope else session
        keys: tuple[tuple[Kind, str | None], ...] = (
            ("router", ""),
            ("agent", agent),
            ("group", group),
            ("backend", backend),
            ("session", own),
        )
        for key in keys:
            need = self._by_scope.get(key)
            if need is not None and not need.is_of_sessions:
                yield need
            elif need is not None and session is not None:
                yield need.of(session)


def _scope(key: object, agents: AgentTable, backends: Collection[str], faults: list[str]) -> Scope | None:
    """The scope of a key; None, and a fault, if there is no such agent, group or backend."""
    if not isinstance(key, str):
        faults.append(f"budgets: a budget is named by a str, not {key!r}")
        return None
    if key in ("router", "session"):
        return Scope("router" if key == "router" else "session")
    kind, _, name = key.partition(":")
    if kind == "session" and name:
        return Scope("session", name)
    if kind == "group" and name in agents.groups:
        return Scope("group", name)
    if kind == "backend" and name in backends:
        return Scope("backend", name)
    agent = agents.find(name if kind == "agent" else key)
    if agent is not None:
        return Scope("agent", agent[0])
    known = {"agent": [each for each, _ in agents.items()], "group": agents.groups, "backend": backends}
    if not name or kind not in known:
        kind, name = "agent", key
    faults.append(f"budgets.{key}: {unknown_holder(kind, name, key, known)}")
    return None


def unknown_holder(kind: str, name: str, key: str, known: Mapping[str, Collection[str]]) -> str:
    """The fault of a budget whose agent, group or backend (`kind`) does not exist. `known`: all names by
    kind.

    key: the budget's key as the user wrote it: "coder" and "agent:coder" are both the agent "coder".
    """
    text = f'unknown {kind} "{name}"'
    if key.startswith(f"{kind}:"):
        return text + did_you_mean(name, known[kind])
    if other := next((each for each in known if name in known[each]), None):
        return f'{text}; the budget of the {other} is "{other}:{name}"'
    scopes = ["router", "session", *(f"{each}:{one}" for each in known for one in known[each])]
    meant = did_you_mean(name, known["agent"]) or did_you_mean(key, scopes)
    return text + (meant or f": the names are {_NAMES}")
