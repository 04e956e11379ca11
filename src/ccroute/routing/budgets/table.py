"""Which budgets an attempt needs, by its agent, group, backend and session.

Knows names and windows; must not know what is spent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from ccroute.accounting.budgets import Claim, Kind, Scope
from ccroute.errors import ConfigError
from ccroute.routing.names import did_you_mean
from ccroute.routing.tables.agents import AgentTable
from ccroute.types.budget import Budget, Window

_NAMES: Final = '"router", "agent:…", "group:…", "backend:…", "session" and "session:…"'


class Need(NamedTuple):
    """A budget that an attempt needs. `name` is that of errors and statistics: "agent:coder"."""

    name: str
    budget: Budget
    scope: Scope

    def __str__(self) -> str:
        return f"budget {self.name} ({self.budget})"

    @property
    def is_of_sessions(self) -> bool:
        """Whether each session has its own, and this one has none yet."""
        return self.scope.session is None and (
            self.budget.per == "session" if self.scope.kind != "session" else not self.scope.name
        )


class BudgetTable:
    """The budgets of a router: of "router", "agent:x" (or just "x"), "group:x", "backend:x", "session" (each
    session on its own) and "session:x" (that session, in place of "session").

    Raises `ConfigError` with every fault: values that are no budgets, agents, groups and backends that do not
    exist.
    """

    def __init__(self, given: object, agents: AgentTable, backends: Collection[str]) -> None:
        if not isinstance(given, Mapping):
            raise ConfigError(f"budgets: give a mapping of names to budgets, not {type(given).__name__}")
        faults: list[str] = []
        self._known: dict[tuple[Kind, str | None], Need] = {}
        self._windows: dict[Budget, Window] = {}
        for key, budget in given.items():
            if not isinstance(budget, Budget):
                faults.append(f"budgets.{key}: give a Budget such as Budget(5), not {type(budget).__name__}")
            scope = _scope(key, agents, backends, faults)
            if scope is not None:
                name = f"{scope.kind}:{scope.name}" if scope.name else scope.kind
                if (scope.kind, scope.name) in self._known:
                    faults.append(f"budgets.{key}: {name} has another budget already")
                self._known[scope.kind, scope.name] = Need(name, budget, scope)
        if faults:
            raise ConfigError(*faults)

    def __iter__(self) -> Iterator[Need]:
        return iter(self._known.values())

    def __bool__(self) -> bool:
        return bool(self._known)

    def needs(self, agent: str | None, group: str | None, backend: str, session: str | None) -> list[Need]:
        """The budgets of an attempt."""
        known, found = self._known, list[Need]()
        keys: tuple[tuple[Kind, str | None], ...] = (
            ("router", ""),
            ("agent", agent),
            ("group", group),
            ("backend", backend),
        )
        for key in keys:
            need = known.get(key)
            if need is None:
                continue
            if need.budget.per != "session":
                found.append(need)
            elif session is not None:
                found.append(need._replace(scope=need.scope._replace(session=session)))
        if session is not None:
            need = known.get(("session", session)) or known.get(("session", ""))
            if need is not None:
                found.append(Need(f"session:{session}", need.budget, Scope("session", session)))
        return found

    def claim(self, need: Need, now: datetime) -> Claim:
        """What a store has to know of a budget in the window that `now` (UTC) is in."""
        budget = need.budget
        window = self._windows.get(budget)
        if window is None or not window.since <= now < window.until:
            window = self._windows[budget] = budget.window(now)
        return Claim(need.scope, window.since, window.until, budget.usd, budget.tokens)


def _scope(key: object, agents: AgentTable, backends: Collection[str], faults: list[str]) -> Scope | None:
    """Whose spending the budget of this key bounds; None where that is a fault."""
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
    if name and kind in known:
        faults.append(f'budgets.{key}: unknown {kind} "{name}"{did_you_mean(name, known[kind])}')
    else:
        close = did_you_mean(key, [*known["agent"], "router", "session"])
        faults.append(f'budgets.{key}: unknown agent "{key}"{close or f": the names are {_NAMES}"}')
    return None
