"""Each preset is a row of facts: where it is, what its bodies hold, where its key goes, if it is home."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from ccroute import OpenAIBackend
from ccroute.backends import HttpRequest
from ccroute.backends.presets import PRESETS
from ccroute.types import Request

HI = ({"role": "user", "content": "hi"},)
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}


class Facts(NamedTuple):
    """What a user may rely on; `url` is where a chat of model `m` goes."""

    url: str
    limit: str = "max_tokens"
    local: bool = False
    refuses: frozenset[str] = frozenset()


AZURE = "https://me.openai.azure.com"
FACTS = {
    "openai": Facts(
        "https://api.openai.com/v1/chat/completions",
        limit="max_completion_tokens",
        refuses=frozenset({"top_k"}),
    ),
    "azure": Facts(
        f"{AZURE}/openai/deployments/m/chat/completions?api-version=2024-10-21",
        limit="max_completion_tokens",
        refuses=frozenset({"top_k"}),
    ),
    "dashscope": Facts("https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"),
    "deepseek": Facts(
        "https://api.deepseek.com/v1/chat/completions",
        refuses=frozenset({"top_k", "response_format"}),
    ),
    "litellm": Facts("http://localhost:4000/v1/chat/completions"),
    "llamacpp": Facts("http://localhost:8080/v1/chat/completions", local=True),
    "llamaswap": Facts("http://localhost:8080/v1/chat/completions"),
    "localai": Facts("http://localhost:8080/v1/chat/completions", local=True),
    "mistral": Facts("https://api.mistral.ai/v1/chat/completions", refuses=frozenset({"top_k"})),
    "moonshot": Facts("https://api.moonshot.ai/v1/chat/completions", refuses=frozenset({"top_k"})),
    "openrouter": Facts("https://openrouter.ai/api/v1/chat/completions"),
    "tgi": Facts("http://localhost:8080/v1/chat/completions", local=True),
    "vllm": Facts("http://localhost:8000/v1/chat/completions", local=True),
}
every_preset = pytest.mark.parametrize("name", FACTS)


def made(name: Any, **options: Any) -> OpenAIBackend:
    if name == "azure":
        options = {"base_url": AZURE, "api_version": "2024-10-21"} | options
    return OpenAIBackend("b", preset=name, **options)


def sent(backend: OpenAIBackend, **options: Any) -> HttpRequest:
    return backend.encode(Request(messages=HI, **options), "m", False)


def test_there_are_facts_of_every_preset() -> None:
    assert FACTS.keys() == PRESETS.keys()


@every_preset
def test_a_preset_speaks_to_its_servers_usual_address_and_path(name: str) -> None:
    backend = made(name)
    assert str(backend.origin) + backend.target(sent(backend)) == FACTS[name].url


@every_preset
def test_a_preset_calls_the_limit_what_its_server_calls_it(name: str) -> None:
    body = json.loads(sent(made(name), max_tokens=7).body)
    assert {key: value for key, value in body.items() if key.startswith("max_")} == {FACTS[name].limit: 7}


@every_preset
def test_a_preset_refuses_what_its_server_does_not_know(name: str) -> None:
    request = Request(messages=HI, top_k=3, response_format=SCHEMA, seed=1)
    assert made(name).refusals(request, "m").keys() == FACTS[name].refuses


@pytest.mark.parametrize("name", ["openai", "azure"])
def test_a_preset_sends_the_key_in_one_header_only(name: str) -> None:
    headers = made(name, api_key="secret-key").auth_headers(HttpRequest("/x"))[0]
    holding = [header for header in headers if b"secret-key" in header[1]]
    bearer = (b"authorization", b"Bearer secret-key")
    assert holding == [(b"api-key", b"secret-key") if name == "azure" else bearer]


@every_preset
def test_a_preset_is_local_only_if_it_runs_models_privately(name: str) -> None:
    at = {
        url: made(name, base_url=url).local
        for url in (
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://10.1.2.3",
            "http://box.lan",
            "https://8.8.8.8",
        )
    }
    home = FACTS[name].local
    assert list(at.values()) == [home, home, home, False, False]
    assert made(name, local=not home).local is not home


def test_azure_without_a_version_is_its_v1_api() -> None:
    azure = made("azure", base_url=f"{AZURE}/gateway/", api_version=None)
    assert azure.target(sent(azure)) == "/gateway/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("base_url", "version", "chat", "models"),
    [
        (AZURE, None, "/openai/v1/chat/completions", "/openai/v1/models"),
        (f"{AZURE}/openai/v1/", None, "/openai/v1/chat/completions", "/openai/v1/models"),
        (
            f"{AZURE}/openai/v1",
            "preview",
            "/openai/v1/chat/completions?api-version=preview",
            "/openai/v1/models?api-version=preview",
        ),
        (
            AZURE,
            "2024-10-21",
            "/openai/deployments/m/chat/completions?api-version=2024-10-21",
            "/openai/models?api-version=2024-10-21",
        ),
        (
            f"{AZURE}/openai/deployments/gpt",
            "2024-10-21",
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
            "/openai/deployments/gpt/models?api-version=2024-10-21",
        ),
    ],
)
def test_azure_is_asked_where_its_version_of_the_api_is(
    base_url: str, version: str | None, chat: str, models: str
) -> None:
    azure = made("azure", base_url=base_url, api_version=version)
    listing = azure.listing()
    assert listing is not None
    assert (azure.target(sent(azure)), azure.target(listing)) == (chat, models)


@pytest.mark.parametrize(
    ("version", "limit", "usage"),
    [
        (None, "max_completion_tokens", True),
        ("preview", "max_completion_tokens", True),
        ("2024-09-01-preview", "max_completion_tokens", True),
        ("2024-08-01-preview", "max_tokens", False),
        ("2023-05-15", "max_tokens", False),
    ],
)
def test_azures_old_versions_get_the_fields_that_they_know(
    version: str | None, limit: str, usage: bool
) -> None:
    azure = made("azure", api_version=version)
    body = json.loads(azure.encode(Request(messages=HI, max_tokens=7), "m", True).body)
    assert body[limit] == 7
    assert ("stream_options" in body) is usage


@pytest.mark.parametrize(
    ("address", "preset"),
    [
        ("https://me.openai.azure.com/openai/v1", "azure"),
        ("https://api.deepseek.com/v1", "deepseek"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.moonshot.cn/v1", "moonshot"),
        ("https://api.deepseek.com.example.com/v1", "openai"),
    ],
)
def test_a_providers_official_address_is_enough(address: str, preset: str) -> None:
    assert OpenAIBackend("b", base_url=address).preset == preset


def test_a_version_is_quoted() -> None:
    azure = made("azure", api_version="2024 preview&x=1")
    assert azure.target(sent(azure)).endswith("?api-version=2024%20preview%26x%3D1")


def test_openais_own_ways_are_only_for_its_own_address() -> None:
    elsewhere = made("openai", base_url="https://models.example.com")
    assert "max_tokens" in json.loads(sent(elsewhere, max_tokens=7).body)
