"""What sets the three backends and the presets apart: paths, credentials, defaults."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccroute import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend
from ccroute.backends import HttpRequest
from ccroute.errors import AuthenticationError, ConfigError, ModelNotFoundError
from ccroute.types import Model, Request

HI = Request(messages=({"role": "user", "content": "hi"},))
SELF_HOSTED = {"llamacpp", "vllm", "tgi", "localai"}


def body(http: HttpRequest) -> Any:
    return json.loads(http.body)


def preset(name: Any, **options: Any) -> OpenAIBackend:
    return OpenAIBackend("b", preset=name, **options)


@pytest.mark.parametrize(
    ("backend", "path", "answer"),
    [
        (OpenAIBackend(), "/chat/completions", b'{"choices": [{"message": {"content": "yes"}}]}'),
        (AnthropicBackend(), "/v1/messages", b'{"content": [{"type": "text", "text": "yes"}]}'),
        (OllamaBackend(), "/api/chat", b'{"message": {"content": "yes"}, "done": true}'),
    ],
)
def test_each_backend_speaks_its_wire(backend: Backend, path: str, answer: bytes) -> None:
    http = backend.encode(HI, "m", False)
    assert (http.method, http.path) == ("POST", path)
    assert body(http)["model"] == "m"
    assert body(backend.encode(HI, "m", True))["stream"] is True
    assert backend.decode(200, {}, answer).text == "yes"
    assert backend.decoder(200, {}).feed(b"") == []
    lost = backend.classify(404, {}, b'{"error": {"code": "model_not_found", "message": "no such model"}}')
    assert type(lost) is ModelNotFoundError
    assert lost.status == 404


def test_each_wire_names_what_it_cannot_carry() -> None:
    assert set(OpenAIBackend().refusals(Request(top_k=3), "m")) == {"top_k"}
    assert "seed" in AnthropicBackend().refusals(Request(seed=3), "m")
    assert set(OllamaBackend().refusals(Request(user="me"), "m")) == {"user"}


def test_anthropic_gets_the_models_longest_answer() -> None:
    backend = AnthropicBackend(models={"m": Model(max_output=123)})
    assert body(backend.encode(HI, "m", False))["max_tokens"] == 123


def test_ollama_always_gets_num_ctx_and_keep_alive() -> None:
    backend = OllamaBackend(models={"m": Model(context_window=8192)}, keep_alive="5m")
    sent = body(backend.encode(HI, "m", False))
    assert (sent["options"]["num_ctx"], sent["keep_alive"]) == (8192, "5m")


def test_ollama_serves_one_call_at_a_time_by_default() -> None:
    assert OllamaBackend().max_concurrency == 1
    assert OllamaBackend(max_concurrency=4).max_concurrency == 4
    assert OpenAIBackend().max_concurrency is None


@pytest.mark.parametrize(("name", "local"), [("vllm", True), ("litellm", False)])
def test_what_a_preset_runs_itself_is_local_and_free(name: str, local: bool) -> None:
    backend = preset(name)
    assert backend.is_free("m") is backend.is_local("m") is backend.local is local


@pytest.mark.parametrize("name", ["openai", "deepseek", "openrouter"])
def test_a_paid_presets_missing_key_is_advised_on(name: str) -> None:
    with pytest.raises(AuthenticationError, match=f"set {name.upper()}_API_KEY"):
        preset(name).auth_headers(HttpRequest("/x"))[0]
    assert preset(name, base_url="https://proxy.test").missing_key() is None


@pytest.mark.parametrize("name", sorted(SELF_HOSTED | {"litellm"}))
def test_a_server_of_ones_own_needs_no_key(name: str) -> None:
    assert preset(name).missing_key() is None


def test_azure_has_its_own_path_header_and_version() -> None:
    azure = preset("azure", base_url="https://me.openai.azure.com", api_key="k", api_version="2024-10-21")
    http = azure.encode(HI, "gpt 4o/x", False)
    assert azure.target(http) == "/openai/deployments/gpt%204o%2Fx/chat/completions?api-version=2024-10-21"
    assert (b"api-key", b"k") in azure.auth_headers(http)[0]
    assert azure.key_headers("k") == {"api-key": "k"}
    assert azure.missing_key() is None


def test_azure_without_an_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="it has no default address; give base_url="):
        preset("azure")


def test_the_error_of_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match='unknown preset "olama", known are azure, dashscope, deepseek'):
        preset("olama")
