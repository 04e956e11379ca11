"""Which budgets an attempt needs, and the faults of `budgets=`."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import pytest
from tests.flow.support import NOON

from ccroute import Agent, Budget
from ccroute.accounting.budgets import Scope
from ccroute.errors import ConfigError
from ccroute.routing.budgets.table import BudgetTable, Need, Needs
from ccroute.routing.tables.agents import AgentTable

AGENTS = AgentTable(
    {"Python Expert": Agent("m", group="coders"), "tester": "m", "group:odd": "m"},
    {"coders": Agent(), "idle": Agent()},
)
ONE = Budget(1)


def table(**budgets: Budget) -> BudgetTable:
    return BudgetTable(
        {name.replace("_", ":"): each for name, each in budgets.items()}, AGENTS, ["main", "spare"]
    )


def names(table: BudgetTable, **of: Any) -> list[str]:
    who: dict[str, Any] = {"agent": "Python Expert", "group": "coders", "backend": "main", "session": None}
    return [need.name for need in table.needs(**who | of)]


def faults(budgets: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        BudgetTable(budgets, AGENTS, ["main", "spare"])
    return caught.value.faults


# -- Names


def test_an_attempt_needs_the_budgets_of_all_that_it_belongs_to() -> None:
    made = table(router=ONE, agent_tester=ONE, group_coders=ONE, backend_main=ONE, backend_spare=ONE)
    assert names(made) == ["router", "group:coders", "backend:main"]
    assert names(made, agent="tester", group=None, backend="spare") == [
        "router",
        "agent:tester",
        "backend:spare",
    ]
    assert names(made, agent=None, group=None, backend="other") == ["router"]


@pytest.mark.parametrize(
    "key", ["Python Expert", "python-expert", "agent:Python Expert", "agent:python-expert"]
)
def test_an_agent_is_named_as_in_a_call(key: str) -> None:
    assert names(BudgetTable({key: ONE}, AGENTS, [])) == ["agent:Python Expert"]


def test_an_agent_whose_name_looks_like_a_key_is_found() -> None:
    made = BudgetTable({"agent:group:odd": ONE}, AGENTS, [])
    assert names(made, agent="group:odd", group=None) == ["agent:group:odd"]
    assert names(BudgetTable({"group:odd": ONE}, AGENTS, []), agent="group:odd") == ["agent:group:odd"]


def test_every_wrong_name_and_value_is_a_fault_with_a_proposal() -> None:
    assert faults(
        {
            "testr": ONE,
            "agent:python-exprt": ONE,
            "group:coder": ONE,
            "backend:sparr": ONE,
            "agents:tester": ONE,
            "coders": ONE,
            "spare": ONE,
            "session:": ONE,
            "tester": 5,
            7: ONE,
        }
    ) == (
        'budgets.testr: unknown agent "testr", did you mean "tester"?',
        'budgets.agent:python-exprt: unknown agent "python-exprt", did you mean "Python Expert"?',
        'budgets.group:coder: unknown group "coder", did you mean "coders"?',
        'budgets.backend:sparr: unknown backend "sparr", did you mean "spare"?',
        'budgets.agents:tester: unknown agent "agents:tester", did you mean "tester"?',
        'budgets.coders: unknown agent "coders"; the budget of the group is "group:coders"',
        'budgets.spare: unknown agent "spare"; the budget of the backend is "backend:spare"',
        'budgets.session:: unknown agent "session:", did you mean "session"?',
        "budgets.tester: give a Budget such as Budget(5), not int",
        "budgets: a budget is named by a str, not 7",
    )


def test_a_name_like_no_other_is_told_which_names_there_are() -> None:
    [fault] = faults({"xyzzy": ONE})
    assert fault.endswith(
        'unknown agent "xyzzy": the names are "router", "agent:…", "group:…", "backend:…", '
        '"session" and "session:…"'
    )


def test_one_agent_has_one_budget() -> None:
    assert faults({"tester": ONE, "agent:Tester": ONE}) == (
        "budgets.agent:Tester: agent:tester has another budget already",
    )


def test_budgets_are_a_mapping() -> None:
    assert faults([ONE]) == ("budgets: give a mapping of names to budgets, not list",)


# -- Sessions


def test_each_session_has_its_own_budget() -> None:
    made = table(session=ONE)
    assert [need.scope for need in made.needs(None, None, "main", "s1")] == [Scope("session", "s1")]
    assert names(made, session="s2") == ["session:s2"]
    assert names(made) == [], "a call without a session is held to none"


def test_a_named_session_has_its_own_in_place_of_the_common_one() -> None:
    made = table(session=ONE, session_s1=Budget(2))
    assert [need.budget.usd for need in made.needs(None, None, "main", "s1")] == [2]
    assert [need.budget.usd for need in made.needs(None, None, "main", "s2")] == [1]


def test_a_budget_per_session_counts_the_sessions_of_its_owner_apart() -> None:
    made = table(agent_tester=Budget(1, per="session"))
    [need] = made.needs("tester", None, "main", "s1")
    assert (need.name, need.scope) == ("agent:tester", Scope("agent", "tester", "s1"))
    assert names(made, agent="tester") == []


def test_what_is_remembered_of_sessions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.routing.budgets.table._MOST_KNOWN", 10)
    made = table(session=ONE)
    for number in range(25):
        assert names(made, session=str(number)) == [f"session:{number}"]
    assert len(made._known) <= 10


# -- Windows


def test_claims_are_those_of_the_window_that_a_moment_is_in() -> None:
    needs = table(router=Budget(5, per="hour"), backend_main=Budget(tokens=7, per="total")).needs(
        None, None, "main", None
    )
    hour, always = needs.claims(NOON)
    assert (hour.since, hour.until, hour.usd, hour.tokens) == (NOON, NOON + timedelta(hours=1), 5, None)
    assert (always.usd, always.tokens) == (None, 7)
    assert needs.claims(NOON + timedelta(minutes=59)) is needs.claims(NOON)
    later, still = needs.claims(NOON + timedelta(hours=1))
    assert (later.since, still) == (NOON + timedelta(hours=1), always)
    assert needs.claims(NOON)[0] == hour, "a clock that was set back"


def test_threads_at_the_end_of_a_window_do_not_mix_its_claims_up() -> None:
    later = NOON + timedelta(hours=1)
    for line in range(1, 10):
        needs = Needs([Need("router", Budget(1, per="hour"), Scope("router"))])
        lines = iter(range(1, 100))

        def trace(
            frame: Any, event: str, _: object, at: int = line, lines: Any = lines, it: Any = needs
        ) -> Any:
            if event == "line" and frame.f_code is Needs.claims.__code__ and next(lines) == at:
                it.claims(NOON)  # of another thread
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            needs.claims(later)
        finally:
            sys.settrace(before)
        assert [claim.since for claim in needs.claims(later)] == [later]
