"""`router.health()`: what the backends' own lists say, and which models of the tables they lack."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest
from tests.conftest import Caller
from tests.flow.support import FakeClock, HandDriver, PlainBackend, ScriptedReply, paid
from tests.support.loops import on_all_loops
from tests.support.ollama import NEVER, FakeOllama
from tests.support.ollama import Model as Installed
from tests.support.ollama_real import RealOllama
from tests.support.scripted import ScriptedServer, Set, Wait, answer, refused_port

from ccroute import (
    Agent,
    AnthropicBackend,
    Backend,
    Model,
    OllamaBackend,
    OpenAIBackend,
    Router,
    Timeout,
    errors,
)
from ccroute.flow.listings import PATIENCE, check
from ccroute.routing import Fallback
from ccroute.types import BackendHealth, LoadedModel
from tiny_llama import TinyLlama


def health(caller: Caller, router: Router) -> dict[str, BackendHealth]:
    found: dict[str, BackendHealth] = router.health() if caller.mode == "sync" else caller.run(router.ahealth)
    return found


def listing(*models: Any) -> Any:
    """The list of a server that speaks OpenAI's API."""
    return answer(json={"object": "list", "data": [m if isinstance(m, dict) else {"id": m} for m in models]})


# -- What a server lists


@on_all_loops
def test_ollama_tells_its_models_and_what_is_in_memory(caller: Caller) -> None:
    with FakeOllama([Installed("qwen:7b", size=4_000), "llama3.2"]) as ollama:
        ollama.loaded = {"qwen:7b": 8192}
        backend = OllamaBackend("mini", ollama.url)
        with Router(
            [backend], {"small": "mini/llama3.2", "big": ["mini/qwen:7b", "mini/qwen:32b"]}
        ) as router:
            found = health(caller, router)["mini"]
    assert found.ok
    assert found.models == ("qwen:7b", "llama3.2:latest")
    assert found.missing == ("qwen:32b",)
    expires = datetime.fromisoformat(NEVER)
    assert found.loaded == (LoadedModel(name="qwen:7b", size=4_000, context_window=8192, expires=expires),)
    assert found.address == ollama.url
    assert found.latency is not None
    assert 0 < found.latency < 5
    assert (found.error, found.detail) == (None, "")
    assert {(request.method, request.target) for request in ollama.requests} == {
        ("GET", "/api/tags"),
        ("GET", "/api/ps"),
    }


def test_a_server_without_a_list_of_loaded_models_is_well(caller: Caller) -> None:
    tags = answer(json={"models": [{"name": "m:latest"}]})
    with ScriptedServer([tags, answer(404, body="404 page not found")]) as server:
        with Router([OllamaBackend("copy", server.url)]) as router:
            found = health(caller, router)["copy"]
    assert (found.ok, found.models, found.loaded) == (True, ("m:latest",), None)


@pytest.mark.parametrize(
    ("preset", "models", "loaded"),
    [
        ("vllm", [{"id": "qwen", "max_model_len": 32_768}], [("qwen", None, 32_768)]),
        (
            "llamacpp",
            [{"id": "../qwen.gguf", "meta": {"n_ctx": 8192, "size": 77}}],
            [("../qwen.gguf", 77, 8192)],
        ),
        (  # its router: https://github.com/ggml-org/llama.cpp/tree/master/tools/server#get-models-list-available-models
            "llamacpp",
            [
                {"id": "a", "status": {"value": "loaded", "args": ["llama-server"]}},
                {"id": "b", "status": {"value": "unloaded"}},
                {"id": "c", "status": {"value": "loading"}},
                {"id": "d", "status": {"value": "sleeping"}},
            ],
            [("a", None, None)],
        ),
        ("litellm", ["a"], None),
        ("openai", ["a"], None),
    ],
)
def test_servers_of_one_model_tell_what_they_hold(preset: Any, models: Any, loaded: Any) -> None:
    with ScriptedServer([listing(*models)]) as server:
        with Router([OpenAIBackend("it", base_url=server.url, preset=preset)]) as router:
            found = router.health()["it"]
        assert len(server.requests) == 1, "its list is read once"
    told = found.loaded and [(each.name, each.size, each.context_window) for each in found.loaded]
    assert told == loaded


# -- What it lacks


@pytest.mark.parametrize(
    ("backend", "listed", "missing"),
    [
        (OllamaBackend("it"), ["a:latest", "b:7b"], ["c"]),
        (OllamaBackend("it", models={"gpt-oss:120b-cloud": Model()}), ["a:latest", "b:7b", "c:latest"], []),
        (OpenAIBackend("it", base_url="http://it.test"), ["a", "b:7b"], ["c"]),
        (OpenAIBackend("it", base_url="http://it.test"), ["a:latest", "b:7b", "c:latest"], []),
        (OpenAIBackend("it", preset="llamacpp"), ["../model.gguf"], []),
        (OpenAIBackend("it", preset="llamacpp"), ["a", "c"], ["b:7b"]),
        (OpenAIBackend("it", preset="tgi"), ["some/model"], []),
        (OpenAIBackend("it", preset="vllm"), ["some/model"], ["a", "b:7b", "c"]),
        (OpenAIBackend("it", preset="openrouter"), ["a", "b"], ["c"]),
        (OpenAIBackend("it", base_url="https://x.openai.azure.com"), ["gpt-4o"], []),
        (AnthropicBackend("it"), ["a-20250514", "b:7b"], ["c"]),
    ],
)
def test_what_a_server_lacks_is_told_as_it_names_models(
    backend: Backend, listed: list[str], missing: list[str]
) -> None:
    used = ["a", "b:7b", "c", *backend.models]
    assert [model for model in used if backend.serves(model, listed) is False] == missing


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-opus-4-20250514", True),
        ("claude-opus-4-0", True),
        ("claude-opus-4", True),
        ("claude-3-5-sonnet-latest", True),
        ("claude-sonnet-4-5", True),
        ("claude-opus-4-1", False),
        ("claude-opus", False),
    ],
)
def test_anthropics_names_without_a_date_are_known(model: str, known: bool) -> None:
    listed = ["claude-opus-4-20250514", "claude-3-5-sonnet-20241022", "claude-sonnet-4-5-20250929"]
    assert AnthropicBackend().serves(model, listed) is known


def test_every_name_that_the_tables_use_is_looked_for() -> None:
    names = ("alias", "pattern", "agent", "agents-fallback", "own", "fallback", "default", "described")
    with ScriptedServer([listing("there")]) as server:
        backend = OpenAIBackend("it", base_url=server.url, models={"described": Model()})
        with Router(
            [backend],
            {"a": ["it/alias", "it/there"], "b-*": "it/pattern", "c-*": "it/*", "d-*": "a"},
            {"py": Agent("it/agent", fallback=["it/agents-fallback", Fallback("it/own", ["rate_limit"])])},
            fallbacks={"*": ["it/fallback"]},
            default_model="it/default",
        ) as router:
            found = router.health()["it"]
    assert set(found.missing) == {*names}


# -- Faults


def test_a_server_that_is_away_is_told_and_the_others_are_asked(caller: Caller) -> None:
    url = f"http://127.0.0.1:{refused_port()}"
    with ScriptedServer([listing("m")]) as server:
        backends = [OllamaBackend("gone", url), OpenAIBackend("here", base_url=server.url)]
        with Router([*backends, PlainBackend("own")], {"m": ["gone/m", "here/m"]}) as router:
            found = health(caller, router)
            assert router.stats().deployments == {}, "no breaker hears of it"
    gone = found["gone"]
    assert (gone.ok, gone.error, gone.address, gone.latency) == (False, "ConnectionFailedError", url, None)
    assert gone.detail.startswith(f"cannot connect to {url}")
    assert (gone.models, gone.missing, gone.loaded) == ((), (), None)
    assert found["here"].ok is True
    assert (found["own"].ok, found["own"].detail) == (None, "this kind of backend has no list of models")


KEY = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize(
    ("reply", "error", "detail"),
    [
        (
            answer(401, json={"error": {"message": f"Incorrect API key provided: {KEY}"}}),
            "AuthenticationError",
            "check api_key",
        ),
        (
            answer(404, body="404 page not found"),
            "BackendError",
            "answers 404 at {url}/v1/models: check base_url",
        ),
        (answer(503, json={"error": {"message": "Loading model"}}), "OverloadedError", "Loading model"),
        (answer(body="<html>"), "ProtocolError", ""),
        (answer(json={"object": "list"}), "ProtocolError", "holds no data"),
        (answer(json={"echo": KEY}), "ProtocolError", "holds no data"),
    ],
)
def test_an_answer_that_is_no_list_is_told(caller: Caller, reply: Any, error: str, detail: str) -> None:
    with ScriptedServer([reply]) as server:
        with Router([OpenAIBackend("it", base_url=server.url, api_key=KEY)]) as router:
            found = health(caller, router)["it"]
    assert (found.ok, found.error) == (False, error)
    assert detail.format(url=server.url) in found.detail
    assert KEY not in found.model_dump_json()


def test_a_missing_key_is_told_and_nothing_is_sent(caller: Caller) -> None:
    with Router([AnthropicBackend()]) as router:
        found = health(caller, router)["anthropic"]
    assert (found.ok, found.error) == (False, "AuthenticationError")
    assert "ANTHROPIC_API_KEY" in found.detail


def test_a_silent_server_is_given_up() -> None:
    """By hand: the clock is set."""

    class Check:
        clock = FakeClock()
        flow = check(paid(), ["m"], Timeout(connect=3), clock)

    silent = HandDriver([ScriptedReply(pieces=[b"["], ends=False)])
    silent.run(Check())  # type: ignore[arg-type]
    found: Any = silent.given
    assert (found.ok, found.error) == (False, "BackendTimeoutError")
    assert Check.clock.elapsed == PATIENCE


@pytest.mark.parametrize("caller", ["async", "trio"], indirect=True)
def test_all_backends_are_asked_at_the_same_time(caller: Caller) -> None:
    """The first answers only when the second was asked."""
    second = threading.Event()
    with (
        ScriptedServer([[Wait(second), *listing("a")]]) as slow,
        ScriptedServer([[Set(second), *listing("b")]]) as quick,
    ):
        backends = [OpenAIBackend("slow", base_url=slow.url), OpenAIBackend("quick", base_url=quick.url)]
        with Router(backends) as router:
            found = health(caller, router)
    assert {name: each.models for name, each in found.items()} == {"slow": ("a",), "quick": ("b",)}


def test_a_closed_router_asks_nobody(caller: Caller) -> None:
    router = Router([OllamaBackend()])
    router.close()
    with pytest.raises(errors.RouterClosedError):
        health(caller, router)


def test_health_is_json() -> None:
    with FakeOllama(["m"]) as ollama:
        ollama.loaded = {"m:latest": 4096}
        with Router([OllamaBackend("mini", ollama.url)]) as router:
            found = router.health()["mini"]
    assert BackendHealth.model_validate_json(found.model_dump_json()) == found


# -- Real servers


@pytest.mark.llama
def test_a_real_llama_cpp_server_is_well(llama_server: TinyLlama, caller: Caller) -> None:
    backend = OpenAIBackend(
        "llama", base_url=llama_server.url, api_key=llama_server.api_key, preset="llamacpp"
    )
    with Router([backend], {"any": "llama/any-name"}) as router:
        found = health(caller, router)["llama"]
        assert caller.complete(router, "hi", model="any", max_tokens=2).text, "it answers to any name"
    assert (found.ok, found.missing) == (True, ())
    assert found.loaded is not None
    [model] = found.loaded
    assert (model.name, model.context_window) == (llama_server.model, 32_768)
    assert model.size is not None
    assert model.size > 100_000


@pytest.mark.ollama
def test_a_real_ollama_is_well(ollama_server: RealOllama, caller: Caller) -> None:
    with Router([OllamaBackend("real", ollama_server.url)], {"a": ["real/say-hello", "real/nope"]}) as router:
        caller.complete(router, "hi", model="real/say-hello")
        found = health(caller, router)["real"]
    assert (found.ok, found.missing) == (True, ("nope",))
    assert "say-hello:latest" in found.models
    [hello] = [model for model in found.loaded or () if model.name == "say-hello:latest"]
    assert hello.size
    assert hello.context_window
    assert hello.expires is not None
