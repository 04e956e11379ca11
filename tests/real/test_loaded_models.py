"""Reports of servers that load models on demand: what they have loaded, and what makes them hang."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.ollama import FakeOllama
from tests.support.ollama import Model as Installed
from tests.support.scripted import Request, ScriptedServer, answer

from ccroute import Model, OllamaBackend, OpenAIBackend, Router
from ccroute.types import BackendHealth

complaint = pytest.mark.complaint


def health(caller: Caller, router: Router, name: str) -> BackendHealth:
    found: BackendHealth = (router.health() if caller.mode == "sync" else caller.run(router.ahealth))[name]
    return found


@complaint(
    "https://github.com/ollama/ollama/issues/17408",
    "a switch waits, the loaded model is called with keep_alive: nothing is loaded any more",
)
def test_a_configured_keep_alive_is_not_sent_with_several_models(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeOllama(["coder", "reviewer"]) as server:
        backend = OllamaBackend("mini", server.url, keep_alive="30m")
        with Router([backend], {"write": "mini/coder", "review": "mini/reviewer"}) as router:
            for model in ("write", "review", "write"):
                caller.complete(router, "hi", model=model)
    assert [chat.get("keep_alive") for chat in server.chats] == [None] * 3
    assert [record.getMessage() for record in caplog.records if "OLLAMA_KEEP_ALIVE" in record.getMessage()]


@complaint(
    "https://github.com/ollama/ollama/pull/14407", "another num_ctx for a busy model: the server is stuck"
)
@pytest.mark.parametrize(("window", "shared"), [(None, True), (2048, False)])
def test_two_windows_of_one_file_are_two_models(window: int | None, shared: bool, caller: Caller) -> None:
    with FakeOllama([Installed("coder", file="weights"), Installed("coder-tools", file="weights")]) as server:
        models = {"coder-tools": Model(context_window=window)}
        backend = OllamaBackend("mini", server.url, models=models)
        with Router([backend]) as router:
            router.discover() if caller.mode == "sync" else caller.run(router.adiscover)
    assert (backend.runner("coder") == backend.runner("coder-tools")) is shared


@complaint("https://github.com/letta-ai/letta-code/issues/3493", "models that load on demand are not offered")
@complaint("https://github.com/earendil-works/pi/pull/8535", "models that load on demand are not offered")
def test_a_model_that_is_not_loaded_is_served_all_the_same(caller: Caller) -> None:
    states = {"a": "loaded", "b": "unloaded", "c": "sleeping"}
    listed: list[dict[str, Any]] = [{"id": id, "status": {"value": state}} for id, state in states.items()]
    with ScriptedServer([answer(json={"data": listed})]) as server:
        backend = OpenAIBackend("box", base_url=server.url, preset="llamacpp", memory_gb=24)
        with Router([backend], {"big": ["box/b", "box/c"]}) as router:
            found = health(caller, router, "box")
    assert (found.models, found.missing) == (("a", "b", "c"), ())
    assert [model.name for model in found.loaded or ()] == ["a"]


@complaint("https://github.com/mostlygeek/llama-swap/issues/471", "only /running tells what is loaded")
def test_llama_swap_is_asked_what_is_running(caller: Caller) -> None:
    def says(request: Request) -> Any:
        running = [{"model": "gptoss-120B-med", "state": "ready"}, {"model": "qwen", "state": "starting"}]
        models = [{"id": "gptoss-120B-med"}, {"id": "qwen"}]
        return answer(json={"running": running} if request.target == "/running" else {"data": models})

    with ScriptedServer(says) as server:
        with Router([OpenAIBackend("box", base_url=server.url, preset="llamaswap")]) as router:
            found = health(caller, router, "box")
    assert found.models == ("gptoss-120B-med", "qwen")
    assert [model.name for model in found.loaded or ()] == ["gptoss-120B-med"]
