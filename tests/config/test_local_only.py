"""`local_only` in an orchestra file holds in every spelling, or is a fault that says why not."""

import pytest
from tests.config.shapes import AGENT, endpoint

from ccroute.config import load

SPELLINGS = ["local_only", "localOnly", "localonly", "local-only", "LocalOnly", "LOCAL_ONLY", "Local-Only"]


def private(source, **overrides):
    return {name for name, agent in load(source, {}, overrides)["agents"].items() if agent.local_only}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_local_only_holds_in_every_spelling_at_every_level(spelling):
    flat = endpoint("http://e.example.com", models={"ollama/q": "q"})
    assert private({"hr": AGENT | {spelling: True}, "dev": AGENT}) == {"hr"}
    assert private({"private": {spelling: True, "hr": AGENT, "pay": AGENT}, "g": {"dev": AGENT}}) == {
        "hr",
        "pay",
    }
    assert private({spelling: True, "hr": AGENT, "g": {"dev": AGENT}}) == {"hr", "dev"}
    assert private(flat | {"agents": {"hr": AGENT | {spelling: True}, "dev": AGENT}}) == {"hr"}
    assert private(flat | {"agents": {"g": {spelling: True, "hr": AGENT}, "dev": AGENT}}) == {"hr"}
    assert private(flat | {"agents": {"hr": AGENT}, spelling: True}) == {"hr"}


def test_local_only_of_a_group_holds_for_the_groups_in_it():
    source = {
        "private": {
            "local_only": True,
            "hr": AGENT | {"local_only": False},
            "inner": {"pay": AGENT, "localOnly": False},
        }
    }
    assert private(source) == {"hr", "pay"}
    options = load(
        [source, {"groups": {"private": {"model": "ollama/q"}}, "agents": {"new": {"group": "inner"}}}], {}
    )
    assert options["agents"]["hr"].local_only
    assert options["groups"]["inner"].local_only


def test_local_only_comes_from_the_environment_as_well():
    assert private({"g": {"local_only": "${PRIVATE:-true}", "hr": AGENT}}) == {"hr"}
    assert private({"g": {"local_only": "${PRIVATE:-off}", "hr": AGENT}}) == set()


@pytest.mark.parametrize("value", ["maybe", None, 2, [], {"hr": AGENT}, ""])
def test_a_local_only_that_is_no_boolean_is_a_fault(faults, value):
    text = "should be true or false"
    assert faults({"hr": AGENT | {"localonly": value}}) == (f"hr.localonly: {text}",)
    assert faults({"g": {"Local-Only": value, "hr": AGENT}}) == (f"g.Local-Only: {text}",)
    assert faults({"agents": {"hr": AGENT | {"type": "t"}}, "localOnly": value}) == (f"localOnly: {text}",)


def test_a_local_only_that_is_misspelled_or_in_vain_is_a_fault(faults):
    text = 'unknown key, did you mean "local_only"?'
    in_vain = "is local_only, but has no model, and no agents in it"
    assert faults(
        {
            "local_onyl": True,
            "hr": AGENT | {"locl_only": True},
            "g": {"localOnyl": True, "pay": AGENT, "planned": {"local_only": True}},
            "later": {"localOnly": True, "modle": "ollama/q"},
        }
    ) == (
        f"local_onyl: {text}",
        f"hr.locl_only: {text}",
        f"g.localOnyl: {text}",
        f"g.planned: {in_vain}",
        'later.modle: unknown key, did you mean "model"?',
    )
    misplaced = endpoint("http://e.example.com", local_only=True)
    misplaced["llm_routing"]["localOnly"] = True
    text = "belongs to an agent or to a group of agents"
    assert faults(misplaced) == (
        f"llm_routing.localOnly: {text}",
        f"llm_routing.endpoints.e.local_only: {text}",
    )
