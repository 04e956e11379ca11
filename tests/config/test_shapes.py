"""Another tool's file is recognised: the fault says what it is and what to do, without its secrets."""

import json
import tomllib
from collections.abc import Mapping
from textwrap import dedent
from typing import Any

import pytest

from ccroute import Router
from ccroute.config import load
from ccroute.config.reading.other_tools import looks_like, looks_like_text
from ccroute.errors import ConfigError

SECRET = "sk-0123456789-canary"

FILES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "opencode": (
        "an opencode file",
        {
            "$schema": "https://opencode.ai/config.json",
            "model": "local/qwen",
            "provider": {
                "local": {
                    "npm": "@ai-sdk/openai-compatible",
                    "options": {"baseURL": "http://localhost:8000/v1", "apiKey": SECRET},
                    "models": {"qwen": {"name": "Qwen"}},
                }
            },
            "agent": {"build": {"model": "local/qwen"}},
        },
    ),
    "claude-code-router": (
        "a claude-code-router file",
        {
            "LOG": True,
            "Providers": [
                {
                    "name": "deepseek",
                    "api_base_url": "https://api.deepseek.com/chat/completions",
                    "api_key": SECRET,
                    "models": ["deepseek-chat"],
                }
            ],
            "Router": {"default": "deepseek,deepseek-chat"},
        },
    ),
    "Continue": (
        "a Continue file",
        {
            "models": [{"title": "Q", "provider": "ollama", "model": "qwen", "apiKey": SECRET}],
            "tabAutocompleteModel": {"title": "T", "provider": "ollama", "model": "starcoder2:3b"},
        },
    ),
    "aider": ("an aider file", {"model": "gpt-4o", "weak-model": "gpt-4o-mini", "openai-api-key": SECRET}),
    "compose": (
        "a Docker Compose file",
        {"services": {"ollama": {"image": "ollama/ollama", "environment": {"KEY": SECRET}}}, "volumes": {}},
    ),
    "claude": ("a Claude Code settings file", {"env": {"ANTHROPIC_AUTH_TOKEN": SECRET}, "permissions": {}}),
    "mcp": ("a list of MCP servers", {"mcpServers": {"x": {"command": "npx", "env": {"KEY": SECRET}}}}),
    "request": (
        "the body of a request",
        {"model": "gpt-4o", "messages": [{"role": "user", "content": SECRET}]},
    ),
    "client": (
        "the settings of one client",
        {"apiKey": SECRET, "baseURL": "http://localhost:8000/v1", "model": "qwen"},
    ),
    "environment": (
        "a file of environment variables",
        {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://localhost:8000/v1"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_known_tools_file_is_named_with_what_to_do(write, faults, name):
    says, content = FILES[name]
    for found in (faults(content), faults(write("x.json", json.dumps(content)))):
        (fault,) = found
        assert f": looks like {says}, which is not read: " in fault
        assert fault.endswith(". See docs/configuration.md")
        assert SECRET not in fault


def test_a_known_tools_file_among_several_sources_is_named(faults):
    native = {"default_model": "ollama/x"}
    (fault,) = faults([native, FILES["aider"][1]])
    assert fault.startswith("source 2: looks like an aider file")


LITELLM = """
general_settings:
  master_key: sk-0123456789-canary
model_list:
  # Two deployments of one name.
  - model_name: gpt-4
    litellm_params:
      model: azure/gpt-4-eu
      api_base: https://eu.test
      api_key: sk-0123456789-canary
  - litellm_params:
      model: "azure/gpt-4-us"
    model_name: "gpt-4"
  - model_name: 'sonnet'   # a comment
    litellm_params: {temperature: 1}
  - model_name: chat
    litellm_params:
      model: ollama_chat/qwen2.5-coder:32b
  - model_name: own
    litellm_params:
      model: gpt-4o
  - model_name: far
    litellm_params:
      model: somewhere/else/model
"""
ROWS = [
    {"model_name": "gpt-4", "litellm_params": {"model": "azure/gpt-4-eu", "api_key": SECRET}},
    {"model_name": "gpt-4", "litellm_params": {"model": "azure/gpt-4-us"}},
    {"model_name": "sonnet", "litellm_params": {"temperature": 1}},
    {"model_name": "broken", "litellm_params": None},
    "nonsense",
    {"model_name": "chat", "litellm_params": {"model": "ollama_chat/qwen2.5-coder:32b"}},
    {"model_name": "own", "litellm_params": {"model": "gpt-4o"}},
    {"model_name": "far", "litellm_params": {"model": "somewhere/else/model"}},
]


@pytest.mark.parametrize("given", ["yaml", "json", "mapping"])
def test_a_litellm_file_gives_its_models_in_the_native_shape(write, faults, given):
    content = {"model_list": ROWS, "litellm_settings": {"drop_params": True}}
    source = {
        "yaml": lambda: write("config.yaml", LITELLM),
        "json": lambda: write("config.json", json.dumps(content)),
        "mapping": lambda: content,
    }[given]()
    (fault,) = faults(source)
    first, _, shown = fault.partition(":\n")
    assert "looks like a LiteLLM configuration, which this version does not read." in first
    assert "Coming from LiteLLM" in first
    assert SECRET not in fault
    native = tomllib.loads(dedent(shown))
    assert native["aliases"] == {
        "gpt-4": ["azure/gpt-4-eu", "azure/gpt-4-us"],
        "chat": "ollama/qwen2.5-coder:32b",
        "own": "openai/gpt-4o",
        "far": "somewhere/else/model",
    }
    assert list(native["backends"]) == ["azure", "ollama", "openai", "somewhere"]
    assert native["backends"]["somewhere"]["kind"] == "openai"


def test_what_is_shown_of_a_litellm_file_can_be_loaded(write, faults):
    rows = [{"model_name": f"m{i}", "litellm_params": {"model": f"ollama/qwen:{i}b"}} for i in range(9)]
    (fault,) = faults({"model_list": rows})
    native = write("native.toml", dedent(fault.partition(":\n")[2]))
    assert [*load(native, {})["aliases"]] == ["m0", "m1", "m2", "m3", "m4"]
    assert fault.endswith("# and 4 more")


@pytest.mark.parametrize(
    "content",
    [{"model_list": []}, {"model_list": 3}, {"litellm_settings": {}}, {"router_settings": {"timeout": 3}}],
)
def test_a_litellm_file_without_models_is_one_too(faults, content):
    (fault,) = faults(content)
    assert '"gpt-4" = "openai/gpt-4"' in fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services:\n  ollama:\n    image: ollama/ollama\n", "looks like a Docker Compose file"),
        ("weak-model: gpt-4o-mini\nedit-format: diff\n", "looks like an aider file"),
        (
            "name: x\nmodels:\n  - name: Q\n    provider: ollama\n    model: qwen\n",
            "looks like a Continue file",
        ),
        ("# mine\nexport OPENAI_API_KEY=sk-0123\nPORT=80\n", "looks like a file of environment variables"),
        ("agents:\n  x:\n    model: opus\n", "looks like YAML, which is not read: write it as TOML or JSON"),
        ("- name: gpt-4\n  edit_format: diff\n", "looks like YAML, which is not read"),
        ('"key": "value"\n', "looks like YAML, which is not read"),
        ("[1, 2]", 'holds a JSON value that is no table; a file is one table, such as {"backends": {…}}'),
        ('"ccroute"', "holds a JSON value that is no table"),
    ],
)
def test_a_text_of_another_syntax_is_a_fault_that_names_it(write, faults, text, says):
    (fault,) = faults(write("x.conf", text))
    assert fault.startswith(f"x.conf: {says}")


@pytest.mark.parametrize("text", ["[backends.x\nkind = 3", "# Title\n\nSome words.\n\n- one\n", "<xml/>"])
def test_broken_toml_and_prose_are_no_yaml(text):
    assert looks_like_text(text) is None


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"backends": {"x": {}}, "models": [{"provider": "x", "model": "y"}]},
        {"agents": {"x": {"model": "y"}}, "services": {"x": {"image": "y"}}},
        {"services": {"build": {"model": "opus", "role": "builder"}}},
        {"models": {"fast": {"model": "opus", "provider": "anthropic"}}},
        {"provider": {"planner": {"model": "opus"}}},
        {"retry": {"attempts": 2}},
        {3: {"x": 1}},
    ],
)
def test_a_native_or_orchestra_file_is_not_another_tools(content):
    assert looks_like(content) is None


@pytest.mark.parametrize(
    "text", ['{"backends": {"x": {"api_key": "sk-0123"}}}', " [backends.x]\napi_key = 'sk-0123'"]
)
def test_a_text_in_place_of_a_path_is_a_fault_without_the_text(text):
    with pytest.raises(ConfigError) as caught:
        Router.from_config(text)
    assert (
        str(caught.value)
        == "source: is no path, but a file's text: give the path, or the mapping that it holds"
    )
    with pytest.raises(ConfigError, match=r"^source 2: is no path") as caught:
        Router.from_config([{"default_model": "ollama/x"}, text])
    assert "sk-0123" not in str(caught.value)
