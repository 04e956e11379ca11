"""What a stream gives of its answer before its end: while it runs, and after it was left, cut or broken."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.support.openai_like import chat_sse
from tests.support.scripted import Hang, ScriptedServer, stream

from ccroute import Completion, OpenAIBackend, Price, RetryPolicy, Router, errors

WHOLE = chat_sse(["Hello", " there", "."])


def router_to(server: ScriptedServer) -> Router:
    return Router(
        [OpenAIBackend("main", base_url=server.url)],
        default_model="main/m",
        prices={"m": Price(1_000_000, 1_000_000)},  # a dollar a token
        retry=RetryPolicy(attempts=1),
    )


def check(partial: Completion[Any], text: str) -> None:
    assert partial.text == text
    assert partial.usage.estimated
    assert partial.usage.output > 0
    assert partial.cost == Decimal(partial.usage.total_tokens)
    assert partial.route.deployment == "main/m"
    assert partial.finish_reason is None


def test_a_running_and_a_left_stream_have_what_came() -> None:
    with ScriptedServer([stream([*WHOLE[:2], Hang()])]) as server, router_to(server) as router:
        with router.stream("hi") as streamed:
            assert next(streamed).text == "Hello"
            check(streamed.partial, "Hello")
            assert streamed.partial.route.attempts == ()
            assert repr(streamed) == "<Stream - → main/m: running>"
            with pytest.raises(RuntimeError, match=r"chunks first; stream\.partial has the answer"):
                _ = streamed.completion
        check(streamed.partial, "Hello")
        assert streamed.partial is streamed.partial
        assert [each.outcome for each in streamed.partial.route.attempts] == ["cancelled"]
        assert router.report().total["cost"] == streamed.partial.cost
        assert "stopped before its end" in repr(streamed)
        with pytest.raises(RuntimeError, match=r"it stopped before its end; stream\.partial has the answer"):
            _ = streamed.completion


async def test_an_async_stream_has_it_too() -> None:
    with ScriptedServer([stream([*WHOLE[:3], Hang()])]) as server:
        async with router_to(server) as router, router.astream("hi") as streamed:
            assert [(await anext(streamed)).text for _ in range(2)] == ["Hello", " there"]
            check(streamed.partial, "Hello there")
        check(streamed.partial, "Hello there")


def test_a_broken_stream_has_what_its_error_has() -> None:
    with ScriptedServer([stream(WHOLE[:2])]) as server, router_to(server) as router:
        streamed = router.stream("hi")
        with pytest.raises(errors.StreamInterruptedError) as caught:
            list(streamed)
    check(streamed.partial, "Hello")
    assert caught.value.partial is not None
    assert (caught.value.partial.text, caught.value.partial.cost) == ("Hello", streamed.partial.cost)


def test_an_ended_stream_has_the_whole_answer() -> None:
    with ScriptedServer([stream(WHOLE)]) as server, router_to(server) as router:
        streamed = router.stream("hi")
        assert repr(streamed) == "<Stream: nothing received yet>"
        list(streamed)
        assert streamed.partial is streamed.completion
        assert repr(streamed) == "<Stream - → main/m: ended>"


def test_before_anything_was_asked_nothing_came() -> None:
    with ScriptedServer([]) as server, router_to(server) as router, router.stream("hi") as streamed:
        assert streamed.partial.text == ""
        assert streamed.partial.usage.estimated
