"""Groups in groups give their agents, and a misspelled key is not dropped in silence."""

import pytest
from tests.config.shapes import AGENT, endpoint

from ccroute.config import load, read
from ccroute.routing import Agent


def nested(levels, inner):
    return inner if levels == 0 else {f"g{levels}": nested(levels - 1, inner)}


@pytest.mark.parametrize("levels", range(1, 6))
def test_an_agents_group_is_the_innermost_one(levels):
    source = nested(levels, {"x": AGENT}) | {"agents": 5}
    assert load(source, {})["agents"] == {"x": Agent("ollama/q", group="g1")}
    assert load({"agents": nested(levels, {"x": AGENT})}, {})["agents"]["x"].group == "g1"


def test_agents_in_too_many_groups_are_a_fault_and_not_dropped(faults):
    text = "is a group too deep in others; 5 levels are read"
    assert faults(nested(6, {"x": AGENT})) == (f"g6.g5.g4.g3.g2.g1: {text}",)


def test_a_group_may_hold_agents_and_groups():
    source = {"a": {"x": AGENT, "b": {"y": AGENT, "note": "text"}, "c": {"enabled": False, "z": AGENT}}}
    loaded = read(source, {})
    assert {name: agent.group for name, agent in loaded.options["agents"].items()} == {"x": "a", "y": "b"}
    assert [place for place, _ in loaded.ignored] == ["a.b.note", "a.c"]


def test_what_a_native_agent_passes_on_is_no_agent():
    params = {"extra": {"routing": {"model": "x"}}}
    assert load({"agents": {"x": {"params": params}}}, {})["agents"] == {"x": Agent(params=params)}


@pytest.mark.parametrize("key", ["modle", "Model", "mdoel", "modell", "modelId"])
def test_a_misspelled_model_in_a_group_names_the_right_key(faults, key):
    text = 'unknown key, did you mean "model"?'
    assert faults({"g": {"x": AGENT, "y": {key: "ollama/q", "role": "r"}}}) == (f"g.y.{key}: {text}",)
    assert faults({"g": {"h": {"y": {key: "ollama/q"}}}}) == (f"g.h.y.{key}: {text}",)


def test_what_resembles_an_agent_needs_an_agents_keys(faults):
    loaded = read({"g": {"x": AGENT, "run": {"mode": "parallel"}, "y": {"models": {"a": 1}}}}, {})
    assert [place for place, _ in loaded.ignored] == ["g.run", "g.y"]
    assert faults({"g": {"x": AGENT, "y": {"mode": "ollama/q", "fallbackModel": "ollama/p"}}}) == (
        'g.y.mode: unknown key, did you mean "model"?',
    )


def test_misspelled_keys_are_warnings_and_unknown_ones_ignored(caplog):
    source = endpoint("http://e.example.com", aliases={"m": "m"}, modles={}, api_kye="k", region="eu")
    source["llm_routing"] |= {"endpoint": {}, "strategy": "x"}
    source |= {
        "agents": {
            "a": {
                "model": "m",
                "fallbakModel": "m",
                "baseurl": "http://b",
                "mode": "x",
                "color": "red",
                "type": "t",
            },
            "b": {"modle": "m"},
            "g": {"enabeld": True, "baseUrl": "http://b", "size": 1, "c": {"model": "m"}},
        },
        "pipeline": [],
    }
    loaded = read(source, {})
    assert [message.removeprefix("config: ") for message in caplog.messages] == [
        'llm_routing.endpoint: unknown key, did you mean "endpoints"?',
        'llm_routing.endpoints.e.modles: unknown key, did you mean "models"?',
        'llm_routing.endpoints.e.api_kye: unknown key, did you mean "apiKey"?',
        'agents.a.fallbakModel: unknown key, did you mean "fallbackModel"?',
        'agents.a.baseurl: unknown key, did you mean "baseUrl"?',
        'agents.b.modle: unknown key, did you mean "model"? Without it this is no agent',
        'agents.g.enabeld: unknown key, did you mean "enabled"?',
        "agents.g.baseUrl: is read for an agent, not for a group",
    ]
    assert [place for place, _ in loaded.ignored] == [
        "llm_routing.strategy",
        "llm_routing.endpoints.e.region",
        "pipeline",
        "agents.a.mode",
        "agents.a.color",
        "agents.a.type",
        "agents.g.size",
    ]
    assert loaded.options["agents"].keys() == {"a", "c"}
    caplog.clear()
    load({"agents": {"a": AGENT | {"role": "r"}}, "llm_routin": {}}, {})
    assert caplog.messages == ['config: llm_routin: unknown key, did you mean "llm_routing"?']


def test_an_agents_provider_without_an_address_is_a_warning(caplog):
    entry = {"provider": "openrouter", "model": "ollama/q"}
    load({"team": {"a": entry, "b": entry | {"baseUrl": "https://gateway.example.com/v1"}}}, {})
    assert [record.getMessage() for record in caplog.records] == [
        'config: team.a.provider: is not read: write the model as "provider/model", or give its baseUrl'
    ]
