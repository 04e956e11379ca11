"""Another tool's file is recognised: the fault says what it is and what to do, without its secrets."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from ccroute import Router
from ccroute.config.reading.other_tools import looks_like
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
    files = write("x.json", json.dumps(content)), write("x.yaml", yaml.safe_dump(content))
    for found in map(faults, (content, *files)):
        (fault,) = found
        assert f": looks like {says}, which is not read: " in fault
        assert fault.endswith(". See docs/configuration.md")
        assert SECRET not in fault


def test_a_known_tools_file_among_several_sources_is_named(faults):
    native = {"default_model": "ollama/x"}
    (fault,) = faults([native, FILES["aider"][1]])
    assert fault.startswith("source 2: looks like an aider file")


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
        (
            "- name: gpt-4\n  edit_format: diff\n",
            'holds a list; a file is one table, such as {"backends": {…}}',
        ),
        ("[1, 2]", 'holds a list; a file is one table, such as {"backends": {…}}'),
    ],
)
def test_a_text_of_another_kind_is_a_fault_that_names_it(write, faults, text, says):
    (fault,) = faults(write("x.conf", text))
    assert fault.startswith(f"x.conf: {says}")


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
