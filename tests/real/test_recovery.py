"""A server that is back serves again within seconds, and one that says it will be is waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.ollama_real import missing, serve_ollama
from tests.support.openai_like import chat, chat_sse, error
from tests.support.scripted import Hang, Reset, ScriptedServer, answer, refused_port, stream

from ccroute import Agent, Backend, OllamaBackend, OpenAIBackend, RetryPolicy, Router, Timeout, errors
from ccroute.types import Completion

complaint = pytest.mark.complaint
LOADING = "https://github.com/mostlygeek/llama-swap/issues/146"
BUSY = "https://github.com/ollama/ollama/issues/4159"
AWAY = 1.0  # seconds
BACK_WITHIN = 3.0  # seconds

Ask = Callable[[], Completion]


def says(text: str) -> Any:
    return answer(json=chat(text))


def home_first(*backends: Backend) -> Router:
    """The first backend serves, the others are its fallbacks."""
    first, *others = (f"{backend.name}/m" for backend in backends)
    return Router(backends, agents={"py": Agent(first, fallback=others)})


def away(ask: Ask, seconds: float = AWAY) -> None:
    """Calls go on while the server is gone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(errors.BackendError):
            ask()
        time.sleep(0.02)


def served_again(ask: Ask, backend: str) -> float:
    """Seconds until `backend` answers; a call is made every 20 ms."""
    began = time.monotonic()
    while time.monotonic() - began < 30:
        with contextlib.suppress(errors.BackendError):
            if ask().route.backend == backend:
                return time.monotonic() - began
        time.sleep(0.02)
    raise AssertionError("it never served again")


@pytest.mark.parametrize("fallback", [False, True], ids=["alone", "with a fallback"])
@pytest.mark.parametrize("end", ["refused", "broken first"])
def test_a_server_down_for_a_second_serves_again_within_three(fallback: bool, end: str) -> None:
    with ScriptedServer([says("other")], repeat=True) as other:
        script = [says("main"), *[[Reset()]] * 10] if end == "broken first" else [says("main")]
        with ScriptedServer(script, repeat=True) as main:
            port = main.port
            backends: list[Backend] = [OpenAIBackend("main", base_url=main.url)]
            backends += [OpenAIBackend("other", base_url=other.url)] if fallback else []
            router = home_first(*backends)

            def ask() -> Completion:
                return router.complete("hello", agent="py")

            assert ask().text == "main"
            if end == "broken first":
                away(ask, 0.3)
        away(ask)
        with ScriptedServer([says("main")], repeat=True, port=port), router:
            assert served_again(ask, "main") < BACK_WITHIN
            assert ask().text == "main"


def test_early_probes_do_not_keep_a_server_off_for_minutes() -> None:
    with ScriptedServer([says("main")], repeat=True) as main:
        port, router = main.port, home_first(OpenAIBackend("main", base_url=main.url))

        def ask() -> Completion:
            return router.complete("hello", agent="py")

        assert ask().text == "main"
    for _ in range(200):
        with pytest.raises(errors.ConnectionFailedError):
            ask()
    with ScriptedServer([says("main")], repeat=True, port=port), router:
        assert served_again(ask, "main") < 1.0


@pytest.mark.ollama
def test_a_restarted_ollama_serves_again_within_three_seconds() -> None:
    if reason := missing():
        pytest.skip(reason)
    port = refused_port()
    with ScriptedServer([says("other")], repeat=True) as other:
        home = OllamaBackend("home", f"http://127.0.0.1:{port}")
        backends = [home, OpenAIBackend("other", base_url=other.url)]
        with Router(backends, agents={"py": Agent("home/say-hello", fallback=["other/m"])}) as router:

            def ask() -> Completion:
                return router.complete("hello", agent="py", max_tokens=4)

            with serve_ollama(port):
                assert ask().route.backend == "home"
            away(ask)
            with serve_ollama(port):
                assert served_again(ask, "home") < BACK_WITHIN


# -- Loading, and a full queue

WORDS = {
    "llama.cpp": error("Loading model", type="unavailable_error", code=503),
    "ollama": {"error": "server busy, please try again.  maximum pending requests exceeded"},
    "hugging face": {"error": "Model x/y is currently loading", "estimated_time": 0.2},
    "a list": [{"error": "Model x/y is currently loading", "estimated_time": 0.2}],
}


@complaint(
    "https://github.com/mostlygeek/llama-swap/issues/146",
    "llama.cpp says 503 Loading model on the only host: waited for",
)
def test_a_loading_server_is_awaited_if_it_is_the_last_candidate(caller: Caller) -> None:
    with ScriptedServer([*(answer(503, json=WORDS[each]) for each in WORDS), says("loaded")]) as server:
        policy = RetryPolicy(attempts=2)  # what only has to load uses up none of them
        with Router([OpenAIBackend("home", base_url=server.url)], retry=policy) as router:
            reply = caller.complete(router, "hello", model="home/m")
    assert reply.text == "loaded"
    assert [attempt.status for attempt in reply.route.attempts] == [503] * len(WORDS) + [200]


@complaint(
    "https://github.com/mostlygeek/llama-swap/issues/146",
    "llama.cpp says 503 Loading model on the only host: waited for",
)
def test_a_stream_waits_for_a_server_that_is_loading_too(caller: Caller) -> None:
    loading = answer(503, json=WORDS["llama.cpp"])
    with ScriptedServer([loading, loading, stream(chat_sse(["loaded"]))]) as server:
        with Router([OpenAIBackend("home", base_url=server.url)]) as router:
            heard = caller.stream(router, "hello", model="home/m")
    assert (heard.error, heard.text) == (None, "loaded")


@complaint(
    "https://github.com/ollama/ollama/issues/4159",
    "Ollama's queue is full: the next deployment is asked, else it is waited for",
)
def test_a_busy_server_is_not_awaited_while_others_are_left() -> None:
    busy = answer(503, json=WORDS["ollama"])
    with ScriptedServer([busy], repeat=True) as full, ScriptedServer([says("other")], repeat=True) as other:
        with home_first(
            OpenAIBackend("main", base_url=full.url), OpenAIBackend("other", base_url=other.url)
        ) as router:
            began = time.monotonic()
            assert [router.complete("hello", agent="py").text for _ in range(8)] == ["other"] * 8
            assert time.monotonic() - began < 1.0


def test_a_server_that_loads_for_ever_is_given_up_at_the_deadline() -> None:
    with ScriptedServer([answer(503, json=WORDS["llama.cpp"])], repeat=True) as server:
        with Router([OpenAIBackend("home", base_url=server.url)]) as router:
            began = time.monotonic()
            with pytest.raises(errors.OverloadedError) as raised:
                router.complete("hello", model="home/m", timeout=1.0)
            assert time.monotonic() - began < 1.1
            assert 2 <= len(raised.value.attempts) <= 6, "it is asked now and then only"


# -- A try of its own length


def test_a_try_that_takes_too_long_leaves_time_for_the_fallback(caller: Caller) -> None:
    with (
        ScriptedServer([[Hang()]], repeat=True) as hangs,
        ScriptedServer([says("other")], repeat=True) as other,
    ):
        backends = [OpenAIBackend("main", base_url=hangs.url), OpenAIBackend("other", base_url=other.url)]
        with home_first(*backends) as router:
            reply = caller.complete(router, "hello", agent="py", timeout=Timeout(total=5, attempt=0.2))
            assert (reply.text, reply.route.fallback) == ("other", True)
            (first, _) = reply.route.attempts
            assert (first.error, 0.2 <= first.duration < 0.5) == ("BackendTimeoutError", True)
            with pytest.raises(errors.DeadlineExceededError):
                caller.complete(router, "hello", agent="py", timeout=0.2)
