"""Budgets in native files: whose each is, how several sources merge, and what is wrong with one."""

from decimal import Decimal

import pytest
from tests.config.shapes import ENV

from ccroute import OllamaBackend
from ccroute.config import load, read
from ccroute.types import Budget

TEXT = """
default_model = "opus"

[budgets.router]
usd = 0.1
per = "month"
then = "queue"
tz = "Europe/Berlin"

[budgets]
python-expert = { usd = 1 }
"agent:Go Expert" = { tokens = 1_000_000, per = "hour" }
"group:leads" = { usd = "2.50", per = "total" }
"backend:anthropic" = { usd = "${LIMIT:-7}" }
session = { usd = 0.05, per = "session", then = "fallback" }

[aliases]
opus = "anthropic/claude-opus-4-20250514"

[agents]
python-expert = "opus"
go-expert = "opus"

[agents.architect]
model = "opus"
budget = { usd = 5.00, then = "fallback" }

[groups.leads]
agents = ["architect"]

[groups.coders]
agents = ["python-expert", "go-expert"]
budget = { usd = 3, tokens = 100 }
"""
BUDGETS = {
    "router": Budget("0.1", per="month", then="queue", tz="Europe/Berlin"),
    "agent:python-expert": Budget(1),
    "agent:go-expert": Budget(tokens=1_000_000, per="hour"),
    "group:leads": Budget("2.5", per="total"),
    "backend:anthropic": Budget(7),
    "session": Budget("0.05", per="session", then="fallback"),
    "agent:architect": Budget(5, then="fallback"),
    "group:coders": Budget(3, tokens=100),
}


def budgets(*sources, **overrides):
    return load([*sources], {}, overrides).get("budgets")


def test_budgets_stand_in_their_section_or_with_their_agents(write):
    found = load(write("ccroute.toml", TEXT), ENV)["budgets"]
    assert found == BUDGETS
    assert found["router"].usd == Decimal("0.1")  # as it is written, and no binary fraction of it


def test_a_file_without_budgets_gives_none():
    assert budgets({"agents": {"x": "ollama/q"}}) is None


def test_a_mapping_may_hold_floats_and_strings():
    for usd in (0.1, "0.1", Decimal("0.1")):
        assert budgets({"agents": {"x": "ollama/q"}, "budgets": {"x": {"usd": usd}}}) == {
            "agent:x": Budget("0.1")
        }


AGENT = {"agents": {"x": {"model": "ollama/q"}}}
NAMES = {**AGENT, "groups": {"g": {}}}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"router": {"usd": -1}}, "router.usd: should be greater than or equal to 0"),
        ({"router": {"usd": "5 USD"}}, "router.usd: should be a valid decimal"),
        ({"router": {"usd": True}}, "router.usd: should be a number"),
        ({"router": {"tokens": 0}}, "router.tokens: should be greater than 0"),
        ({"router": {"tokens": 1.5}}, "router.tokens: should be a valid integer"),
        ({"router": {}}, "router: has no limit: give usd, tokens or both"),
        ({"router": {"per": "day"}}, "router: has no limit: give usd, tokens or both"),
        ({"router": 5}, "router: should be a table with usd, tokens or both"),
        (5, ": should be a table"),
        (
            {"router": {"usd": 1, "per": "week"}},
            "router.per: should be 'hour', 'day', 'month', 'session' or 'total'",
        ),
        (
            {"router": {"usd": 1, "then": "wait"}},
            "router.then: should be 'fallback', 'queue' or 'refuse'",
        ),
        (
            {"router": {"usd": 1, "tz": "Europe/Berln"}},
            'router.tz: there is no time zone "Europe/Berln", did you mean "Europe/Berlin"?',
        ),
        ({"router": {"usd": 1, "pre": "day"}}, 'router.pre: unknown key, did you mean "per"?'),
        ({"router": {"usd": "${NOPE}"}}, "router.usd: environment variable NOPE is not set"),
        ({"y": {"usd": 1}}, 'y: unknown agent "y"'),
        ({"rooter": {"usd": 1}}, 'rooter: unknown agent "rooter", did you mean "router"?'),
        ({"agent:X y": {"usd": 1}}, 'agent:X y: unknown agent "X y"'),
        ({"group:gg": {"usd": 1}}, 'group:gg: unknown group "gg", did you mean "g"?'),
        ({"g": {"usd": 1}}, 'g: unknown agent "g"; the budget of the group is "group:g"'),
        (
            {"ollama": {"usd": 1}},
            'ollama: unknown agent "ollama"; the budget of the backend is "backend:ollama"',
        ),
        ({"backend:olama": {"usd": 1}}, 'backend:olama: unknown backend "olama", did you mean "ollama"?'),
        ({"agents:x": {"usd": 1}}, 'agents:x: unknown agent "agents:x", did you mean "agent:x"?'),
    ],
)
def test_a_fault_of_a_budget_has_its_place(faults, given, fault):
    (found,) = faults(NAMES | {"budgets": given})
    assert found.replace("budgets.", "budgets", 1).startswith(f"budgets{fault}")


def test_a_number_is_no_budget_of_an_agent(faults):
    source = {"agents": {"x": {"budget": 5}}, "groups": {"g": {"budget": "5"}}}
    assert faults(source) == (
        "agents.x.budget: should be a table with usd, tokens or both",
        "groups.g.budget: should be a table with usd, tokens or both",
    )


def test_a_fault_of_an_agents_budget_has_its_place(faults):
    source = {"agents": {"x": {"budget": {"usd": -1}}}, "groups": {"g": {"budget": {"usd": 1, "pr": 1}}}}
    assert faults(source) == (
        "agents.x.budget.usd: should be greater than or equal to 0",
        'groups.g.budget.pr: unknown key, did you mean "per"?',
    )


def test_two_budgets_of_one_holder_are_a_fault(faults):
    source = {
        "agents": {"x": {"model": "ollama/q", "budget": {"usd": 1}}},
        "budgets": {"x": {"usd": 2}, "agent:X": {"usd": 3}},
    }
    assert faults(source) == (
        "budgets.agent:X: agent X has another budget at budgets.x",
        "agents.x.budget: agent x has another budget at budgets.x",
    )


def test_a_later_sources_budget_replaces_the_earlier_one_as_a_whole():
    first = AGENT | {"budgets": {"x": {"usd": 1, "per": "hour"}, "router": {"usd": 9}}}
    second = {"agents": {"X": {"budget": {"usd": 2}}}}
    found = read([first, second], {})
    assert found.options["budgets"] == {"agent:x": Budget(2), "router": Budget(9)}
    assert found.ignored == (("source 1: budgets.x", "source 2: agents.X.budget comes later and wins"),)
    other = read([second, first], {})
    assert other.options["budgets"]["agent:X"] == Budget(1, per="hour")


def test_a_budget_may_come_before_its_agent():
    assert budgets({"budgets": {"X": {"usd": 1}}}, AGENT) == {"agent:x": Budget(1)}


def test_a_budget_is_found_by_an_agents_other_name():
    source = {"agents": {"x": {"model": "ollama/q", "other_names": ["Helper"]}}}
    assert budgets(source, {"budgets": {"helper": {"usd": 1}}}) == {"agent:x": Budget(1)}


def test_an_agent_may_be_called_as_a_scope_is():
    source = {
        "agents": {"router": "ollama/q", "agent:x": "ollama/q"},
        "budgets": {"agent:router": {"usd": 1}},
    }
    assert budgets(source) == {"agent:router": Budget(1)}
    assert budgets(source | {"budgets": {"agent:agent:x": {"usd": 1}}}) == {"agent:agent:x": Budget(1)}


def test_the_callers_budgets_replace_all_of_the_files():
    source = {"agents": {"x": {"model": "ollama/q", "budget": {"usd": 1}}}, "budgets": {"nobody": {"usd": 1}}}
    mine = {"router": Budget(5)}
    assert budgets(source, budgets=mine) is mine


def test_budgets_of_agents_that_the_caller_replaces_go_with_them():
    source = {
        "agents": {"x": {"model": "ollama/q", "budget": {"usd": 1}}},
        "groups": {"g": {"budget": {"usd": 1}}},
        "budgets": {"y": {"usd": 2}},
    }
    assert budgets(source, agents={"Y": "ollama/q"}, groups={}) == {"agent:y": Budget(2)}


def test_one_session_may_have_a_budget_of_its_own():
    assert budgets(AGENT | {"budgets": {"session:x": {"usd": 1}}}) == {"session:x": Budget(1)}


def test_a_budget_may_be_of_a_backend_that_the_caller_gives():
    source = {"budgets": {"backend:mine": {"usd": 1}}, "default_model": "mine/x"}
    assert budgets(source, backends=[OllamaBackend("mine")]) == {"backend:mine": Budget(1)}


@pytest.mark.parametrize("name", ["off", "anthropic"])
def test_a_budget_of_a_backend_that_nothing_needs_is_left_out(name):
    source = AGENT | {"backends": {"off": {"kind": "openai", "enabled": False}}}
    found = read(source | {"budgets": {f"backend:{name}": {"usd": 1}}}, {})
    assert found.options["budgets"] == {}
    reason = "no name leads to that backend, or it is disabled"
    assert found.ignored == ((f"budgets.backend:{name}", reason),)


def test_a_budget_of_something_faulty_is_no_other_fault(faults):
    source = {
        "agents": {"x": {"model": 5, "budget": {"usd": 1}}},
        "backends": {"b": {"kind": "none"}},
        "budgets": {"backend:b": {"usd": 1}},
    }
    assert {fault.partition(":")[0] for fault in faults(source)} == {"agents.x.model", "backends.b.kind"}


def test_what_is_written_makes_the_same_budgets(write):
    found = read(write("ccroute.toml", TEXT), ENV)
    text = found.settings.to_toml()
    assert "[budgets" in text
    assert 'usd = "${LIMIT:-7}"' in text
    again = load(write("again.toml", text), ENV)
    assert again["budgets"] == BUDGETS
    assert {name: agent.model for name, agent in again["agents"].items()} == {
        name: agent.model for name, agent in found.options["agents"].items()
    }


def test_variables_of_a_budget_need_not_be_set_to_move_a_file(write):
    given = {"usd": "${LIMIT}", "per": "${PER}", "then": "${THEN}", "tz": "${ZONE}", "tokens": "${TOKENS}"}
    text = read(AGENT | {"budgets": {"x": given}}, {}, keep_unset=True).settings.to_toml()
    env = {"LIMIT": "0.1", "PER": "hour", "THEN": "queue", "ZONE": "Asia/Tokyo", "TOKENS": "5"}
    assert load(write("moved.toml", text), env)["budgets"] == {
        "agent:x": Budget("0.1", tokens=5, per="hour", then="queue", tz="Asia/Tokyo")
    }
