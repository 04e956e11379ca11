"""What a real Ollama loads for which model, and how its memory is freed."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.ollama.test_swaps import LOADED
from tests.support.ollama_real import RealOllama

from ccroute import Model, OllamaBackend, Router
from ccroute.backends import HttpRequest


def told(server: RealOllama, request: HttpRequest | None) -> bytes:
    """The server's answer to a backend's request."""
    assert request is not None
    answer: Any = server.ask(request.path, json.loads(request.body) if request.body else None)
    return json.dumps(answer).encode()


@pytest.mark.parametrize("window", [None, 256])
def test_names_of_one_file_and_window_share_a_runner(ollama_server: RealOllama, window: int | None) -> None:
    names = ("tiny-a", "tiny-a-tools", "tiny-b")
    models = {"tiny-a-tools": Model(context_window=window)}
    backend = OllamaBackend("local", ollama_server.url, models=models)
    for name in names:
        backend.read_details(told(ollama_server, backend.runner_details(name)), name)
    shared = window is None
    assert (backend.runner("tiny-a") == backend.runner("tiny-a-tools")) is shared
    assert backend.runner("tiny-b") == "tiny-b"
    with Router([backend]) as router:
        router.complete("hi", model="local/tiny-a", max_tokens=1)
        reply = router.complete("hi", model="local/tiny-a-tools", max_tokens=1)
    [loaded] = backend.read_loaded(told(ollama_server, backend.loaded()))
    assert (reply.raw["load_duration"] < LOADED) is shared
    assert backend.runner(loaded.name) == backend.runner("tiny-a-tools")


@pytest.mark.parametrize(("used", "unloaded"), [("say-hello", "say-hello"), ("tiny-a-tools", "tiny-a")])
def test_an_unloaded_model_leaves_memory_and_answers_the_next_call(
    ollama_server: RealOllama, used: str, unloaded: str
) -> None:
    """Any name of its file unloads it."""
    backend = OllamaBackend("local", ollama_server.url)
    with Router([backend]) as router:
        router.complete("hi", model=f"local/{used}", max_tokens=1)
        assert json.loads(told(ollama_server, backend.unload(unloaded)))["done_reason"] == "unload"
        assert ollama_server.is_empty()
        assert router.complete("hi", model=f"local/{used}", max_tokens=1).usage.output == 1


def test_a_configured_keep_alive_does_not_hang_a_switch_that_waits(ollama_server: RealOllama) -> None:
    """https://github.com/ollama/ollama/issues/17408: a call that prolongs the loaded model's stay, while
    another client waits for its memory, would keep that one waiting for ever."""
    backend = OllamaBackend("local", ollama_server.url, keep_alive="5m", max_concurrency=2)
    other = {"model": "say-hello", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    with Router([backend], {"long": "local/say-cycle", "short": "local/say-hello"}, timeout=60) as router:
        with ThreadPoolExecutor(2) as pool, router.stream("hi", model="long", max_tokens=150) as stream:
            next(stream)
            switch = pool.submit(ollama_server.ask, "/api/chat", other)
            until = time.monotonic() + 10
            while datetime.fromisoformat(_expiry(ollama_server, "say-cycle:latest")) > datetime.now(UTC):
                assert time.monotonic() < until, "the switch does not wait"
            again = pool.submit(router.complete, "hi", model="long", max_tokens=1)
            assert len(list(stream)) > 50
            assert again.result().text
            assert switch.result()["load_duration"] > LOADED


def _expiry(server: RealOllama, name: str) -> str:
    """When the server means to unload a model: now, if another one waits for its memory."""
    found: str = server.loaded()[name]["expires_at"]
    return found
