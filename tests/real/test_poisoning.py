"""One caller's mistakes harm nobody else, though servers answer them with 500 or die of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.ollama_real import RealOllama
from tests.support.openai_like import chat, error
from tests.support.scripted import Request, ScriptedServer, Wait, answer

from ccroute import OllamaBackend, OpenAIBackend, RetryPolicy, Router, errors
from ccroute.observe import BreakerOpened, Event
from tiny_llama import TinyLlama

complaint = pytest.mark.complaint

GOOD = tuple(f"good-{i}" for i in range(20))
CALLS = 3  # of each good agent
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

# What a caller gets wrong: the first six are seen before anything is sent, the others by the server alone.
TOOL: dict[str, Any] = {"name": "look_up", "parameters": {"type": "object", "properties": {}}}
MISTAKES: dict[str, Mapping[str, Any]] = {
    "a tool without type": {"tools": [{"function": TOOL}]},
    "a tool without name": {"tools": [{"type": "function", "function": {"parameters": {}}}]},
    "a tool that is no dict": {"tools": ["look_up"]},
    "a type that does not exist": {"schema": {"type": "strng"}},
    "a reference to nothing": {"schema": {"$ref": "#/$defs/Nothing"}},
    "an image without its data": {"image": "data:image/png,xyz"},
    "an image": {"image": PIXEL},
    "broken arguments of a call": {"call": '{"city": "Par'},
    "a pattern that does not end": {
        "schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a$"}}}
    },
    "a pattern that reads like a refused key": {
        "schema": {
            "type": "object",
            "properties": {"a": {"type": "string", "pattern": "^incorrect api key[$"}},
        }
    },
    "a string of at least 3000": {
        "schema": {
            "type": "object",
            "properties": {"a": {"type": "string", "minLength": 3000}},
            "required": ["a"],
        }
    },
}


def asked(mistake: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The arguments of a call with this mistake; no two calls are the same."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"call {number}"}]
    options: dict[str, Any] = {"messages": messages, "max_tokens": 4}
    if "image" in mistake:
        image = {"type": "image_url", "image_url": {"url": mistake["image"]}}
        messages.append({"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]})
    if "call" in mistake:
        function = {"name": "look_up", "arguments": mistake["call"]}
        call = {"id": "call_1", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": "rain"})
    if "schema" in mistake:
        form = {"name": "Answer", "schema": mistake["schema"]}
        options["response_format"] = {"type": "json_schema", "json_schema": form}
    if "tools" in mistake:
        options["tools"] = mistake["tools"]
    return options


def poisoned(router: Router, calls: int = 100) -> tuple[list[Exception], list[Exception]]:
    """One agent makes `calls` malformed calls while twenty make good ones: what failed of both."""
    bad: list[Exception] = []
    begun = threading.Event()

    def harm() -> None:
        mistakes = [*MISTAKES.values()]
        for number in range(calls):
            try:
                router.complete(**asked(mistakes[number % len(mistakes)], number), agent="bad")
            except Exception as failure:
                bad.append(failure)
            if number == len(mistakes):
                begun.set()  # the first of each come before any good call is answered

    def work(agent: str) -> Iterator[Exception]:
        begun.wait(60)
        for number in range(CALLS):
            try:
                assert router.complete(f"hello {number} of {agent}", agent=agent, max_tokens=4).choices
            except Exception as failure:
                yield failure

    with ThreadPoolExecutor(len(GOOD) + 1) as pool:
        harming = pool.submit(harm)
        failed = [
            failure for failures in pool.map(lambda agent: [*work(agent)], GOOD) for failure in failures
        ]
        harming.result()
    return bad, failed


def agents(model: str) -> dict[str, str]:
    return dict.fromkeys(("bad", *GOOD), model)


@pytest.mark.llama
@complaint(
    "https://github.com/ggml-org/llama.cpp/issues/15377",
    "llama.cpp answers 500 to one agent's images and tools; others go on",
)
def test_on_a_real_llama_cpp_no_good_call_fails(llama_server: TinyLlama) -> None:
    backend = OpenAIBackend("llama", base_url=llama_server.url, api_key=llama_server.api_key)
    with Router([backend], agents=agents("llama/tiny")) as router:
        bad, failed = poisoned(router)
    assert failed == []
    assert len(bad) >= 90, "most of the malformed calls are refused"
    assert {type(failure) for failure in bad} == {errors.InvalidRequestError}


@pytest.mark.ollama
@complaint(
    "https://github.com/ollama/ollama/issues/14093", "one agent's schema kills Ollama's runner; others go on"
)
def test_on_a_real_ollama_no_good_call_fails(ollama_server: RealOllama) -> None:
    backend = OllamaBackend("ollama", ollama_server.url)
    with Router([backend], agents=agents("ollama/say-hello")) as router:
        bad, failed = poisoned(router)
    assert failed == []
    assert len(bad) >= 70
    kinds = {type(failure) for failure in bad}
    assert kinds <= {errors.InvalidRequestError, errors.ServerError, errors.ConnectionFailedError}


QUOTED = ("Incorrect API key provided", "your credit balance is too low", "too many requests", "server busy")


@pytest.mark.parametrize("status", [400, 422, 500, 503])
@pytest.mark.parametrize("words", QUOTED)
def test_what_a_server_quotes_of_one_request_turns_nobody_away(words: str, status: int) -> None:
    def reply(request: Request) -> Any:
        if words.encode() in request.body:
            return answer(status, json=error(words))
        return answer(json=chat("well"))

    with ScriptedServer(reply) as server:
        backend = OpenAIBackend("home", base_url=server.url, api_key="a-key-of-the-home")
        with Router([backend], agents=agents("home/m"), retry=RetryPolicy(attempts=1)) as router:
            tool = {"type": "function", "function": {"name": "f", "description": words}}
            with pytest.raises((errors.InvalidRequestError, errors.ServerError, errors.OverloadedError)):
                router.complete("hello", agent="bad", tools=[tool])
            for agent in GOOD:
                assert router.complete("hello", agent=agent).text == "well"


# -- The rule that needs no wording


def boom(request: Request) -> bytes | None:
    """An error that tells nothing, for what a bad caller asks."""
    return json.dumps(error("boom", type="server_error")).encode() if b"malformed" in request.body else None


def fragile(slow: float = 0.0) -> Callable[[Request], Any]:
    def reply(request: Request) -> Any:
        wrong = boom(request)
        if wrong is not None:
            return answer(500, body=wrong)
        return (
            [Wait(slow), *answer(200, body=json.dumps(chat("well")))]
            if slow
            else answer(200, body=json.dumps(chat("well")))
        )

    return reply


ONCE = RetryPolicy(attempts=1)


def complete_badly(router: Router, number: int, **who: Any) -> None:
    with pytest.raises(errors.BackendError):
        router.complete(f"malformed {number}", **who)


@pytest.mark.parametrize("first", [0, 1, 5, 50])
def test_a_caller_that_fails_often_is_the_only_one_turned_away(first: int) -> None:
    with ScriptedServer(fragile()) as server:
        backend = OpenAIBackend("home", base_url=server.url)
        with Router([backend], agents=agents("home/m"), retry=ONCE) as router:
            for number in range(100):
                complete_badly(router, number, agent="bad")
                if number >= first:
                    assert router.complete("hello", agent=GOOD[number % 20]).text == "well"


def test_a_failing_caller_does_not_break_answers_in_flight() -> None:
    with ScriptedServer(fragile(slow=0.2)) as server:
        backend = OpenAIBackend("home", base_url=server.url)
        with Router([backend], agents=agents("home/m"), retry=ONCE) as router, ThreadPoolExecutor(20) as pool:
            first = [pool.submit(router.complete, "hello", agent=agent) for agent in GOOD[:10]]
            for number in range(20):
                complete_badly(router, number, agent="bad")
            then = [pool.submit(router.complete, "hello", agent=agent) for agent in GOOD[10:]]
            assert [reply.result().text for reply in (*first, *then)] == ["well"] * 20


def test_without_names_the_same_mistake_is_one_callers() -> None:
    tools = [{"type": "function", "function": {"name": "malformed"}}]
    with ScriptedServer(fragile()) as server:
        backend = OpenAIBackend("home", base_url=server.url)
        with Router([backend], default_model="home/m", retry=ONCE) as router:
            for number in range(20):
                with pytest.raises(errors.BackendError):
                    router.complete(f"number {number}", tools=tools)
                assert router.complete(f"hello {number}").text == "well"


@pytest.mark.parametrize("callers", [1, 2, 5])
def test_a_server_that_fails_for_all_is_off_after_five_failures(callers: int) -> None:
    emitted: list[Event] = []
    with ScriptedServer([answer(500, body=json.dumps(error("boom")))], repeat=True) as server:
        backend = OpenAIBackend("home", base_url=server.url)
        with Router([backend], agents=agents("home/m"), retry=ONCE, on_event=emitted.append) as router:
            for number in range(5):
                with pytest.raises(errors.ServerError):
                    router.complete("hello", agent=GOOD[number % callers])
    (opened,) = (event for event in emitted if isinstance(event, BreakerOpened))
    assert opened.reason == "5 failures in a row"


def test_a_call_turned_away_sees_no_error_text_of_other_callers() -> None:
    begun = threading.Event()

    def reply(request: Request) -> Any:
        if b"probe" in request.body:
            begun.set()
            return [Wait(0.5), *answer(200, body=json.dumps(chat("well")))]
        return answer(503, body=json.dumps(error("the secret of somebody else")))

    with ScriptedServer(reply) as server, ThreadPoolExecutor(1) as pool:
        backend = OpenAIBackend("home", base_url=server.url)
        with Router([backend], default_model="home/m", retry=ONCE) as router:
            for number in range(5):
                with pytest.raises(errors.OverloadedError):
                    router.complete(f"hello {number}")
            probe = pool.submit(router.complete, "probe")
            assert begun.wait(5)
            with pytest.raises(errors.OverloadedError) as turned:
                router.complete("hello")
            assert probe.result().text == "well"
    raised = turned.value
    assert str(raised).startswith("home/m: not asked: it failed in other calls and gets none for ")
    assert "last: OverloadedError, HTTP 503" in str(raised)
    assert "secret" not in str(raised)
    assert (raised.body, raised.sent, raised.attempts) == (None, False, ())
    assert raised.retry_after is not None
