"""A valid configuration with one wrong value, key or name loads, or is a `ConfigError` that names a place."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.shapes import ANTHROPIC

from ccroute import Router
from ccroute.errors import ConfigError

FIXTURES = Path(__file__).parent / "fixtures"
ENV = {"ANTHROPIC_API_KEY": "sk-ant", "CCPROXY_TOKEN": "token"}
NATIVE = {
    "default_model": "sonnet",
    "baseline": "opus",
    "strategy": "least-busy",
    "drop_params": True,
    "max_queue": 5,
    "backends": {
        "local": {
            "kind": "ollama",
            "base_url": "http://localhost:11434",
            "timeout": {"total": 60, "connect": 1},
            "headers": {"x-team": "blue"},
            "keep_alive": "5m",
            "models": {
                "qwen:7b": {"context_window": 8192, "price": "free", "weight": 2, "memory_gb": 5},
                "qwen:32b": {
                    "price": {"input": 1, "output": 2, "above": {"1000": {"input": 2, "output": 3}}}
                },
            },
        },
        "anthropic": {"kind": "anthropic", "api_key": "${ANTHROPIC_API_KEY}", "max_concurrency": 4},
        "off": {"kind": "openai", "enabled": False},
    },
    "aliases": {
        "opus": "anthropic/claude-opus-4-20250514",
        "sonnet": ["local/qwen:7b", "local/qwen:32b"],
        "light": {"local/qwen:7b": 3, "local/qwen:32b": 1},
        "steady": {"targets": ["sonnet", "opus"], "strategy": "ordered"},
        "claude-*": "anthropic/claude-*",
        "re:gpt-(\\d)": "local/qwen:\\1b",
    },
    "agents": {
        "python-expert": "sonnet",
        "architect": {
            "model": "opus",
            "fallback": ["steady"],
            "triggers": ["rate_limit"],
            "params": {"temperature": 0.2, "stop": ["END"], "extra": {"a": [1]}},
            "group": "leads",
            "budget": {"usd": 0.1, "tokens": 5000, "per": "hour", "then": "queue"},
        },
    },
    "groups": {"leads": {"local_only": False, "agents": ["qa", "architect"], "budget": {"usd": 5}}},
    "budgets": {
        "router": {"usd": "5.0", "tz": "Europe/Berlin"},
        "backend:local": {"tokens": 5},
        "qa": {"usd": 1},
    },
    "fallbacks": {"sonnet": ["opus"], "*": ["light"]},
    "retry": {"attempts": 2, "base": 0.1, "max": 1},
    "timeout": {"total": 600, "idle": None},
    "prices": {"gemini-2.5-pro": {"input": 1.25, "output": 10}},
}
LITELLM = {
    "model_list": [
        {
            "model_name": "opus",
            "litellm_params": {
                "model": "anthropic/claude-opus-4-20250514",
                "api_key": "os.environ/ANTHROPIC_API_KEY",
                "max_tokens": 8192,
                "order": 1,
                "timeout": 30,
                "thinking": {"type": "enabled", "budget_tokens": 1024},
                "input_cost_per_token": "1e-6",
                "output_cost_per_token": 5e-6,
                "input_cost_per_token_above_200k_tokens": 2e-6,
                "max_budget": 5,
                "budget_duration": "1d",
            },
            "model_info": {"id": "first", "mode": "chat", "max_input_tokens": 200000, "max_tokens": 9},
        },
        {
            "model_name": "opus",
            "litellm_params": {"model": "azure/o", "litellm_credential_name": "eu", "order": 2, "rpm": 5},
            "model_info": {"base_model": "azure/gpt-5"},
        },
        {
            "model_name": "opus",
            "litellm_params": {
                "model": "ollama/q",
                "order": 2,
                "keep_alive": "5m",
                "extra_body": {"num_ctx": 5},
                "additional_drop_params": ["seed"],
                "extra_headers": {"x-team": "blue"},
                "tiered_pricing": [
                    {"range": [0, 5], "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
                ],
            },
        },
        {"model_name": "claude-*", "litellm_params": {"model": "openai/*", "organization": ["a", "b"]}},
    ],
    "credential_list": [
        {
            "credential_name": "eu",
            "credential_values": {"api_base": "https://r.openai.azure.com", "api_key": "k"},
        }
    ],
    "environment_variables": {"MINE": "x"},
    "router_settings": {
        "routing_strategy": "simple-shuffle",
        "num_retries": 1,
        "timeout": 60,
        "model_group_alias": {"gpt-4": "opus", "hidden": {"model": "opus", "hidden": True}},
        "fallbacks": [{"opus": ["claude-x", {"model": "gpt-4"}]}, {"first": ["gpt-4"]}],
        "context_window_fallbacks": [{"opus": ["claude-y"]}],
        "default_litellm_params": {"temperature": 1},
        "provider_budget_config": {"openai": {"budget_limit": 10, "time_period": "1h"}},
    },
    "litellm_settings": {
        "drop_params": True,
        "default_fallbacks": ["opus"],
        "max_budget": 100,
        "budget_duration": "30d",
        "timezone": "Asia/Tokyo",
    },
    "general_settings": {"completion_model": "opus", "max_parallel_requests": 5},
}

GATEWAY = {
    "agents": [
        {
            "name": "A B",
            "type": "t",
            "model": "opus-4.1",
            "fallback": [{"model": "sonnet", "triggers": "cost"}],
            "budget": {"usd": 5, "per": "hour"},
        },
        {"name": "C", "type": "u", "model": "opus", "daily_budget": 3, "costLimit": 1},
    ],
    "llmGateway": {
        "enabled": True,
        "providers": {
            "cloud": ANTHROPIC,
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


def fixture(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / name).read_text("utf-8"))


VALID = {
    "native": (NATIVE, {}),
    "groups": (fixture("orchestra-config-groups.json"), {"aliases": {"sonnet": "ollama/qwen:7b"}}),
    "litellm": (LITELLM, {}),
    "tdd": (fixture("orchestra-config-tdd.json"), {}),
    "lists": (
        fixture("orchestra-config-lists.json"),
        {"aliases": {"opus-4.1": "ollama/big", "sonnet-4.5": "ollama/middle"}},
    ),
    "gateway": (GATEWAY, {}),
}
VALUES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, -1, 10**30, 0.5, float("nan"), "", " ", "${", "env:", "a/b/c", "re:("]
    ),
    st.sampled_from(
        [[], {}, [[]], [None], {"": None}, {"model": 1}, {"url": "http://["}, ["a", 1], {"a": {"b": {}}}]
    ),
    st.sampled_from(
        ["${UNSET_VARIABLE}", "http://user:pw@host:99999", "x" * 300, "\x00", "né", "local/", "/x", "*"]
    ),
)


def containers(value: Any) -> list[Any]:
    """Every table and list that is not empty."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict | list) and value else []
    return found + [each for one in inner for each in containers(one)]


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    holder = draw(st.sampled_from(containers(document)))
    key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    how = draw(st.sampled_from(["remove", "replace", "rename"]))
    if how == "remove":
        del holder[key]
    elif how == "replace" or isinstance(holder, list):
        holder[key] = draw(VALUES)
    else:
        cut = draw(st.integers(0, len(key)))
        holder[f"{key[:cut]}{draw(st.sampled_from(['x', '-', ' ', '.', 'é', '*']))}{key[cut + 1 :]}"] = (
            holder.pop(key)
        )
    return document


@pytest.mark.parametrize("name", VALID)
def test_the_original_loads(name):
    document, options = VALID[name]
    Router.from_config(document, env=ENV, **options).close()


@pytest.mark.parametrize("name", VALID)
@given(data=st.data())
def test_any_mutation_loads_or_names_its_place(name, data):
    document, options = VALID[name]
    changed = data.draw(mutated(document))
    try:
        Router.from_config(changed, env=ENV, **options).close()
    except ConfigError as error:
        for fault in error.faults:
            places, colon, text = fault.partition(": ")
            assert colon, fault
            assert text, fault
            tops = {re.split(r"[.\[]", place)[0] for place in places.split(", ")}
            assert "source" in tops or any(
                str(key).startswith(tuple(tops)) for key in [*document, *changed]
            ), fault
