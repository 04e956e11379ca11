"""A valid configuration with one wrong value, key or name loads, or is a `ConfigError` that names a place."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        },
    },
    "groups": {"leads": {"local_only": False, "agents": ["qa", "architect"]}},
    "fallbacks": {"sonnet": ["opus"], "*": ["light"]},
    "retry": {"attempts": 2, "base": 0.1, "max": 1},
    "timeout": {"total": 600, "idle": None},
    "prices": {"gemini-2.5-pro": {"input": 1.25, "output": 10}},
}


def fixture(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / name).read_text("utf-8"))


VALID = {
    "native": (NATIVE, {}),
    "groups": (fixture("orchestra-config-groups.json"), {"aliases": {"sonnet": "ollama/qwen:7b"}}),
    "tdd": (fixture("orchestra-config-tdd.json"), {}),
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
