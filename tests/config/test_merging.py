"""Agents and groups of several sources are merged key by key; `local_only` is not lost on the way."""

import pytest

from ccroute.config import load, read
from ccroute.routing import Agent, Fallback

MODELS = {"aliases": {name: f"ollama/{name}" for name in ("a", "b", "c")}}


def agents(*sources):
    return load([MODELS, *sources], {})["agents"]


def test_a_later_agent_keeps_what_it_does_not_say():
    full = {
        "model": "a",
        "fallback": ["b"],
        "group": "g",
        "local_only": True,
        "params": {"seed": 1},
        "rpm": 3,
    }
    first = {"agents": {"x": full}, "groups": {"g": {}}}
    expected = Agent("c", fallback=["b"], group="g", local_only=True, params={"seed": 1}, rpm=3)
    assert agents(first, {"agents": {"x": "c"}}) == {"x": expected}
    assert agents(first, {"x": {"model": "c"}})["x"] == expected
    assert agents(first, {"agents": {"x": {"model": "c", "group": None}}})["x"] == expected
    assert agents({"agents": {"x": "c"}}, first)["x"].model == "a"


def test_a_later_group_keeps_what_it_does_not_say():
    first = {"groups": {"g": {"model": "a", "local_only": True, "agents": ["x"]}}}
    options = load([MODELS, first, {"groups": {"g": {"model": "b", "agents": ["y"]}}}], {})
    assert options["groups"] == {"g": Agent("b", local_only=True)}
    assert options["agents"] == {"y": Agent(group="g"), "x": Agent(group="g")}


def test_only_what_is_replaced_is_listed():
    first = {"agents": {"x": {"model": "a", "rpm": 1}, "y": "a"}, "groups": {"g": {"model": "a", "rpm": 5}}}
    later = {"agents": {"x": {"model": "b", "rpm": 1}}, "groups": {"g": {"model": "c"}}}
    assert set(read([MODELS, first, later], {}).ignored) == {
        ("source 2: agents.x.model", "source 3: agents.x.model comes later and wins"),
        ("source 2: groups.g.model", "source 3: groups.g.model comes later and wins"),
    }


@pytest.mark.parametrize("name", ["Python Expert", "python_expert", "PYTHON-EXPERT"])
def test_an_agent_is_known_by_its_slug_and_keeps_the_earlier_name(name):
    first, later = {"agents": {"python-expert": {"model": "a", "rpm": 1}}}, {"agents": {name: "b"}}
    assert agents(first, later) == {"python-expert": Agent("b", rpm=1)}
    assert agents(later, first) == {name: Agent("a", rpm=1)}


def test_an_agent_is_known_by_its_second_name():
    lists = {"someAgents": [{"name": "Python Expert", "type": "py-dev", "model": "a"}]}
    found = agents(lists, {"agents": {"Py Dev": {"rpm": 5}}, "groups": {"g": {"agents": ["py_dev"]}}})
    assert found == {"python-expert": Agent("a", rpm=5, group="g", other_names=["py-dev"])}


def test_a_second_name_of_two_files_agents_is_nobodys():
    lists = [{"someAgents": [{"name": name, "type": "dev", "model": "a"}]} for name in ("One", "Two")]
    loaded = read([MODELS, *lists], {})
    assert {name: each.other_names for name, each in loaded.options["agents"].items()} == {
        "one": (),
        "two": (),
    }
    reason = '"dev" is a name of another agent as well'
    assert set(loaded.ignored) == {(f"source {i}: someAgents[0].type", reason) for i in (2, 3)}


def test_an_earlier_agent_keeps_a_name_that_a_later_one_has_second():
    lists = {"someAgents": [{"name": "Two", "type": "one", "model": "b"}]}
    assert agents({"agents": {"one": "a"}}, lists) == {"two": Agent("b"), "one": Agent("a")}


def test_an_agents_fault_has_the_place_of_the_file_it_is_in(faults):
    lists = {"someAgents": [{"name": "Python Expert", "model": "lost", "fallback": {"model": "a"}}]}
    native = {"agents": {"Python Expert": {"fallback": ["b", "gone"]}}}
    assert faults([MODELS, lists, native]) == (
        'source 2: someAgents[0].model (python-expert): unknown alias "lost"',
        (
            'source 3: agents.Python Expert.fallback[1]: unknown alias "gone"; give each a target, as in '
            'aliases={"lost": "backend/model", "gone": "backend/model"}'
        ),
    )


def test_backends_and_aliases_are_replaced_as_a_whole():
    first = {"backends": {"x": {"kind": "ollama", "memory_gb": 1}}, "aliases": {"n": ["x/1", "x/2"]}}
    options = load([first, {"backends": {"x": {"kind": "vllm"}}, "aliases": {"n": "x/3"}}], {})
    assert options["backends"][0].memory_gb is None
    assert options["aliases"].resolve("n").deployments == ("x/3",)


def test_a_fallback_with_triggers_is_merged_like_any_other():
    first = {"x": {"model": "a", "fallback": {"model": "b", "triggers": ["cost"]}}}
    assert agents(first, {"agents": {"x": "c"}})["x"].fallback == (Fallback("b", ["budget"]),)
    assert agents(first, {"agents": {"x": {"fallback": []}}})["x"].fallback == ()


# local_only.

PRIVATE = {"agents": {"hr": {"model": "a", "local_only": True}}}


@pytest.mark.parametrize(
    "later",
    [
        {"agents": {"hr": "b"}},
        {"agents": {"HR": {"model": "b"}}},
        {"hr": {"model": "b", "role": "x"}},
        {"someAgents": [{"name": "HR", "model": "b"}]},
        {"agent_model_overrides": {"hr": "b"}},
        {"groups": {"g": {"model": "b", "agents": ["hr"]}}},
    ],
)
def test_a_later_source_does_not_end_local_only(later):
    for sources in ([PRIVATE, later], [later, PRIVATE]):
        assert [agent.local_only for agent in agents(*sources).values()] == [True]


@pytest.mark.parametrize(
    "later", [{"agents": {"hr": {"local_only": False}}}, {"hr": {"model": "a", "localOnly": False}}]
)
def test_only_an_explicit_false_ends_local_only_and_is_listed(later):
    loaded = read([MODELS, PRIVATE, later], {})
    assert not loaded.options["agents"]["hr"].local_only
    assert [place for place, _ in loaded.ignored] == ["source 2: agents.hr.local_only"]
    assert agents(later, PRIVATE)["hr"].local_only


def test_local_only_of_a_group_ends_only_explicitly():
    private = {"groups": {"g": {"local_only": True, "agents": ["hr"], "model": "a"}}}
    assert load([MODELS, private, {"groups": {"g": {"model": "b"}}}], {})["groups"]["g"].local_only
    assert load([MODELS, private, {"g": {"x": {"model": "b"}}}], {})["groups"]["g"].local_only
    loaded = read([MODELS, private, {"groups": {"g": {"local_only": False}}}], {})
    assert not loaded.options["groups"]["g"].local_only
    assert loaded.ignored == (
        ("source 2: groups.g.local_only", "source 3: groups.g.local_only comes later and wins"),
    )


def test_another_group_does_not_end_local_only():
    private = {"groups": {"g": {"local_only": True, "agents": ["hr"], "model": "a"}}}
    moved = {"groups": {"h": {"model": "b", "agents": ["hr"]}}}
    assert agents(private, moved)["hr"] == Agent(group="h", local_only=True)
    freed = {"agents": {"hr": {"group": "h", "local_only": False}}, "groups": {"h": {"model": "b"}}}
    assert agents(private, freed)["hr"] == Agent(group="h")
    assert agents({"groups": {"g": {"agents": ["hr"], "model": "a"}}}, moved)["hr"] == Agent(group="h")
