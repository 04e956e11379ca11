"""Who asks: names and slugs, and what a group hands down."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute import Agent
from ccroute.errors import ConfigError, UnknownAgentError
from ccroute.failures import TRIGGERS
from ccroute.routing.names import close_matches, did_you_mean, slug
from ccroute.routing.tables.agents import AgentTable


def found(table: AgentTable, name: str) -> str | None:
    match = table.find(name)
    return None if match is None else match[0]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Python Expert", "python-expert"),
        ("python-expert", "python-expert"),
        ("  python__Expert! ", "python-expert"),
        ("GPT 4.1", "gpt-4-1"),
        ("Überprüfer", "überprüfer"),
        ("代理 一", "代理-一"),
        ("!!!", ""),
    ],
)
def test_a_slug_is_lower_case_letters_and_digits_of_any_script(name: str, short: str) -> None:
    assert slug(name) == short


@given(st.text())
def test_a_slug_is_its_own_slug(name: str) -> None:
    assert slug(slug(name)) == slug(name)


def test_close_matches_are_the_best_three_as_they_are_written() -> None:
    known = ["Sonnet-1", "sonnet-2", "sonnet-3", "sonnet-4", "opus"]
    assert len(close_matches("SONNET-1", known)) == 3
    assert close_matches("SONNET-1", known)[0] == "Sonnet-1"
    assert did_you_mean("opsu", known) == ', did you mean "opus"?'
    assert did_you_mean("zzz", known) == ""


def test_an_agent_is_found_by_name_before_slug() -> None:
    table = AgentTable({"Python Expert": "a", "python-expert": "b", "PYTHON EXPERT": "c"})
    assert found(table, "Python Expert") == "Python Expert"
    assert found(table, "python-expert") == "python-expert"
    assert found(table, "python expert") == "Python Expert"
    assert found(table, "Python_Expert!") == "Python Expert"


@pytest.mark.parametrize("name", ["python", "python-expert-2", "", "---"])
def test_an_agent_that_is_not_there_is_not_found(name: str) -> None:
    assert AgentTable({"Python Expert": "a", "***": "b"}).find(name) is None


def test_agents_in_non_latin_scripts_are_distinct() -> None:
    table = AgentTable({"代理": "a", "助手": "b"})
    assert (found(table, "助手"), found(table, "别人")) == ("助手", None)


def test_a_str_is_an_agents_model() -> None:
    table = AgentTable({"a": "fast", "b": Agent("slow")})
    assert [(name, agent.model) for name, agent in table.items()] == [("a", "fast"), ("b", "slow")]
    assert len(table) == 2


def test_an_agent_has_no_constraints_until_given_some() -> None:
    agent = Agent()
    assert (agent.model, agent.fallback, agent.group, agent.local_only, agent.params) == (
        None,
        (),
        None,
        False,
        {},
    )
    assert agent.triggers == ("token_limit", "rate_limit", "availability", "budget")


def test_one_fallback_or_trigger_need_not_be_a_list() -> None:
    agent = Agent(fallback="other", triggers="budget")  # type: ignore[arg-type]
    assert (agent.fallback, agent.triggers) == (("other",), ("budget",))


def test_an_agent_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Agent().model = "x"  # type: ignore[misc]


GROUP = Agent(
    "shared",
    fallback=["spare"],
    triggers=["budget"],
    local_only=True,
    params={"temperature": 0, "seed": 1},
    rpm=30,
)


def test_a_groups_settings_hold_where_the_agent_has_none() -> None:
    match = AgentTable({"a": Agent(group="g", params={"temperature": 1})}, {"g": GROUP}).find("a")
    assert match is not None
    agent = match[1]
    assert (agent.model, agent.fallback, agent.triggers, agent.group) == (
        "shared",
        ("spare",),
        ("budget",),
        "g",
    )
    assert agent.local_only
    assert agent.params == {"temperature": 1, "seed": 1}
    assert agent.rpm == 30


def test_an_agents_own_settings_win_over_its_groups() -> None:
    own = Agent("mine", fallback=["other"], triggers=["rate_limit"], group="g", rpm=60)
    match = AgentTable({"a": own}, {"g": GROUP}).find("a")
    assert match is not None
    assert (match[1].model, match[1].fallback, match[1].triggers) == ("mine", ("other",), ("rate_limit",))
    assert match[1].local_only, "no agent gets out of its group's local_only"
    assert match[1].rpm == 60


def test_a_group_without_settings_is_just_a_name() -> None:
    match = AgentTable({"a": Agent("x", group="anything")}, {"anything": Agent()}).find("a")
    assert match is not None
    assert match[1].group == "anything"


def test_an_unknown_group_is_a_fault_also_where_there_are_none() -> None:
    for groups in (None, {}):
        with pytest.raises(ConfigError) as caught:
            AgentTable({"a": Agent("x", group="typo")}, groups)
        assert caught.value.faults == (
            'agents.a.group: unknown group "typo"; name it, as in groups={"typo": Agent()}',
        )


WRONG: Any = [
    ({"agents": ["a"]}, "agents: give a mapping of names to agents, not list"),
    ({"agents": "a"}, "agents: give a mapping of names to agents, not str"),
    ({"agents": {7: "m"}}, "agents: a name is a str, not 7"),
    ({"agents": {"a": 7}}, "agents.a: give an Agent or a model's name, not int"),
    ({"agents": {"a": None}}, "agents.a: give an Agent or a model's name, not NoneType"),
    ({"agents": {"a": Agent(7)}}, "agents.a.model: give a model's name, not int"),  # type: ignore[arg-type]
    ({"fallback": 7}, "agents.a.fallback: give a list of models, not int"),
    ({"fallback": {"b": 1}}, "agents.a.fallback: give a list of models, not dict"),
    ({"fallback": ["b", 7]}, "agents.a.fallback: a model is named by a str, not 7"),
    ({"fallback": [["b"]]}, "agents.a.fallback: a model is named by a str, not ['b']"),
    ({"triggers": 7}, "agents.a.triggers: give a list, not int"),
    ({"triggers": [7]}, f'agents.a.triggers: unknown trigger "7", the triggers are {", ".join(TRIGGERS)}'),
    ({"group": ["g"]}, "agents.a.group: give a group's name, not list"),
    ({"local_only": "yes"}, "agents.a.local_only: give True or False, not str"),
    ({"params": ["temperature"]}, "agents.a.params: give a dict of parameters, not list"),
    ({"rpm": "60"}, "agents.a.rpm: give a number of requests such as 60, not str"),
    ({"rpm": True}, "agents.a.rpm: give a number of requests such as 60, not bool"),
    ({"rpm": 0}, "agents.a.rpm: must be positive, not 0"),
    ({"other_names": 5}, "agents.a.other_names: give a list of names, not int"),
    ({"other_names": ["b", 5]}, "agents.a.other_names: an agent is named by a str, not 5"),
    ({"other_names": ["?"]}, "agents.a.other_names: an agent is named by a str, not '?'"),
    ({"params": {7: 1}}, 'agents.a.params: unknown parameter "7"'),
    ({"groups": ["g"]}, "groups: give a mapping of names to agents, not list"),
    ({"groups": {"g": "m"}}, "groups.g: give an Agent, not str"),
    ({"groups": {"g": Agent(fallback=7)}}, "groups.g.fallback: give a list of models, not int"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("given", "fault"), WRONG)
def test_a_value_of_the_wrong_type_is_reported_with_its_place(given: Any, fault: str) -> None:
    tables = {name: given[name] for name in ("agents", "groups") if name in given}
    if not tables:
        tables = {"agents": {"a": Agent("m", **given)}}
    with pytest.raises(ConfigError) as caught:
        AgentTable(**{"agents": {"b": Agent("m", group="g")}, "groups": {"g": Agent()}} | tables)
    assert caught.value.faults == (fault,)


def test_all_faults_of_agents_and_groups_are_reported_at_once() -> None:
    triggers: Any = ["ratelimit"]
    with pytest.raises(ConfigError) as caught:
        AgentTable(
            {"a": Agent(group="devs"), "b": Agent("x", triggers=triggers)},
            {"dev": Agent(params={"temprature": 1})},
        )
    assert caught.value.faults == (
        'groups.dev.params: unknown parameter "temprature", did you mean "temperature"?',
        'agents.a.group: unknown group "devs", did you mean "dev"?',
        f'agents.b.triggers: unknown trigger "ratelimit", the triggers are {", ".join(TRIGGERS)}',
    )


def test_an_unknown_agent_names_close_matches_or_what_to_do() -> None:
    table = AgentTable({"python-expert": "x"})
    close = table.unknown("pyton expert")
    assert isinstance(close, UnknownAgentError)
    assert close.suggestions == ("python-expert",)
    assert 'unknown_agent="default"' in str(table.unknown("zzz"))


def test_an_agent_is_found_by_its_other_names() -> None:
    table = AgentTable({"python-expert": Agent("m", other_names=["py-dev", "Snake"]), "b": "m"})
    for name in ("py-dev", "Py Dev", "snake"):
        found = table.find(name)
        assert found is not None
        assert found[0] == "python-expert"
    assert table.unknown("py-def").suggestions[0] == "py-dev"
    grouped = AgentTable({"a": Agent(group="g", other_names="z")}, {"g": Agent("m")}).find("z")
    assert grouped == ("a", Agent("m", group="g", other_names=["z"]))


def test_another_name_that_is_taken_is_a_fault() -> None:
    agents = {"a": Agent("m", other_names=["B", "x"]), "b": Agent("m", other_names=["X", "b"])}
    with pytest.raises(ConfigError) as caught:
        AgentTable(agents)
    assert caught.value.faults == (
        'agents.a.other_names: "B" is a name of the agent "b"',
        'agents.b.other_names: "X" is a name of the agent "a"',
    )
