"""Any change of a valid file loads, or is a `ConfigError` that names a place: never another exception."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.config.conftest import FIXTURES
from tests.config.shapes import ENV

from ccroute.backends import OllamaBackend
from ccroute.config import load
from ccroute.errors import ConfigError

GATEWAY = {
    "agents": [
        {
            "name": "A B",
            "type": "t",
            "model": "opus-4.1",
            "fallback": [{"model": "sonnet", "triggers": "cost"}],
        }
    ],
    "llmGateway": {
        "enabled": True,
        "providers": {
            "cloud": {
                "enabled": True,
                "providerType": "anthropic",
                "baseUrl": "https://api.anthropic.com",
                "apiKeyRef": "env:ANTHROPIC_API_KEY",
                "apiVersion": "2023-06-01",
                "defaultModel": "sonnet",
                "modelAliases": {"opus": "claude-opus-4-1", "sonnet": "claude-sonnet-4-5"},
                "maxRetries": 3,
                "timeoutSecs": 60,
            },
            "local": {"enabled": False, "providerType": "ollama", "defaultModel": "q"},
        },
        "routing": {
            "defaultProvider": "cloud",
            "agentRules": {"A B": "cloud", "t": "local"},
            "modelTierRules": {"opus": "cloud"},
            "fallbackChain": ["cloud", "local"],
        },
    },
    "agent_model_overrides": {"t": "sonnet"},
    "enable_agent_override": True,
    "routing": {
        "agent_rules": {"x": "opus"},
        "workload_rules": {},
        "default_model": "opus",
        "offline_model": "ollama/q",
    },
    "fallback_providers": ["opus", {"provider": "cloud", "model": "x"}],
    "cost_settings": {"max_hourly_spend": 1},
    "performance_settings": {"request_timeout": 1, "max_retries": 1, "requests_per_minute": 1},
}
DOCUMENTS = [
    json.loads((FIXTURES / f"orchestra-config-{name}.json").read_text("utf-8"))
    for name in ("tdd", "groups", "lists")
] + [GATEWAY]
ALIASES = dict.fromkeys(["opus-4.1", "sonnet-4.5", "sonnet"], "spare/q")
VALUES = st.sampled_from(
    [None, True, False, 0, -1, 1.5, "", "x", "${NOPE}", "env:ANTHROPIC_API_KEY", "http://["]
) | st.sampled_from(
    [[], {}, [[]], [None], ["x"], {"model": "x"}, {"": {}}, [{"name": "x", "model": "y"}], {"x": {"x": None}}]
)


def places(value, place=()):
    """Every place of a document but its top."""
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield (*place, key)
        yield from places(inner, (*place, key))


PLACES = [(i, place) for i, document in enumerate(DOCUMENTS) for place in places(document)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_document_loads_as_it_is(document):
    assert load(document, ENV, {"aliases": ALIASES, "backends": [OllamaBackend("spare")]})["agents"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(["remove", "change", "misspell"]), VALUES)
def test_any_change_of_a_document_loads_or_is_a_config_error(place, what, value):
    document = copy.deepcopy(DOCUMENTS[place[0]])
    *path, last = place[1]
    holder = document
    for step in path:
        holder = holder[step]
    if what == "change" or isinstance(last, int):
        holder[last] = value
    else:
        kept = holder.pop(last)
        if what == "misspell":
            holder[f"{last[:-1]}{last[-1:]}s"] = kept
    try:
        load(document, ENV, {"aliases": ALIASES, "backends": [OllamaBackend("spare")]})
    except ConfigError as error:
        assert all(": " in fault for fault in error.faults)
