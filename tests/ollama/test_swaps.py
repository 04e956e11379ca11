"""Several models in one memory of a real Ollama, and what it says of them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import Caller
from tests.support.ollama_real import RealOllama

from ccroute import Completion, Model, OllamaBackend, Router

MODELS = ("say-hello", "tiny-a")
LOADED = 30_000_000
"""Nanoseconds: less only finds the model in memory."""


@pytest.mark.parametrize("places", [1, None])
def test_models_that_take_turns_in_memory_all_answer(ollama_server: RealOllama, places: int | None) -> None:
    with Router([OllamaBackend("local", ollama_server.url, max_concurrency=places)]) as router:

        def ask(i: int) -> Completion:
            return router.complete("hi", model=f"local/{MODELS[i % len(MODELS)]}", max_tokens=5)

        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(ask, range(4)))
    assert [reply.model for reply in replies] == [*MODELS, *MODELS]
    assert all(len(reply.route.attempts) == 1 for reply in replies)
    assert sum(reply.raw["load_duration"] > LOADED for reply in replies) >= len(MODELS) - 1


async def test_tasks_take_turns_too(ollama_server: RealOllama) -> None:
    with Router([OllamaBackend("local", ollama_server.url)]) as router:
        asked = [router.acomplete("hi", model=f"local/{name}", max_tokens=2) for name in (*MODELS, *MODELS)]
        replies = await asyncio.gather(*asked)
        await router.aclose()
    assert [reply.model for reply in replies] == [*MODELS, *MODELS]


def test_a_described_window_is_the_one_that_is_loaded(ollama_server: RealOllama) -> None:
    windows = {"say-hello": Model(context_window=256), "tiny-b": Model(context_window=100_000)}
    with Router([OllamaBackend("local", ollama_server.url, models=windows)]) as router:
        first = router.complete("hi", model="local/say-hello")
        again = router.complete("hi", model="local/say-hello", max_tokens=2, temperature=0.5)
        assert ollama_server.loaded()["say-hello:latest"]["context_length"] == 256
        router.complete("hi", model="local/tiny-b", max_tokens=1)
        assert ollama_server.loaded()["tiny-b:latest"]["context_length"] == 4096  # no more than was trained
    assert first.raw["load_duration"] > LOADED > again.raw["load_duration"]


def test_discovered_windows_are_those_that_calls_get(ollama_server: RealOllama, caller: Caller) -> None:
    """All these models were trained for 4,096 tokens; their Modelfiles ask for 512 or 1,024."""
    windows = {"say-hello:latest": Model(context_window=256), "tiny-b": Model(context_window=100_000)}
    chat = {"messages": [{"role": "user", "content": "hi"}], "stream": False}
    ollama_server.ask("/api/chat", chat | {"model": "tiny-a", "options": {"num_ctx": 64, "num_predict": 1}})
    with Router([OllamaBackend("local", ollama_server.url, models=windows)]) as router:
        found = router.discover() if caller.mode == "sync" else asyncio.run(router.adiscover())
        by_name = {model.id: model.context_window for model in found}
        for name in ("say-hello", "tiny-a", "tiny-b", "say-tool"):
            router.complete("hi", model=f"local/{name}", max_tokens=1)
            [loaded] = ollama_server.loaded().values()
            assert loaded["context_length"] == by_name[f"local/{name}"]
    assert by_name["local/say-hello"] == 256
    assert not any(name.endswith(":latest") for name in by_name)
