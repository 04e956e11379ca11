"""The OpenAI and the Anthropic backend against a llama.cpp server that nobody here wrote."""

from __future__ import annotations

import asyncio

import pytest
from tests.conftest import Caller
from tests.support.llama import server_connections

from ccroute import AnthropicBackend, Backend, OpenAIBackend, Price, RetryPolicy, Router, errors
from tiny_llama import TinyLlama

pytestmark = pytest.mark.llama
WIRES = ["openai", "anthropic"]


def router_to(server: TinyLlama, wire: str, *, key: str | None = None) -> Router:
    """A router whose one model is served by llama.cpp, over the wire of that name."""
    kind = {"openai": OpenAIBackend, "anthropic": AnthropicBackend}[wire]
    backend: Backend = kind("llama", base_url=server.url, api_key=server.api_key if key is None else key)
    prices = {"llama/tiny": Price(1, 2)}
    return Router([backend], default_model="llama/tiny", prices=prices, retry=RetryPolicy(attempts=1))


@pytest.mark.parametrize("wire", WIRES)
def test_a_real_server_answers_with_text_usage_and_a_reason(
    llama_server: TinyLlama, wire: str, caller: Caller
) -> None:
    with router_to(llama_server, wire) as router:
        messages = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": f"hello from {caller.mode}"},
        ]
        reply = caller.complete(router, messages=messages, max_tokens=6, temperature=0, seed=None)
    assert reply.text
    assert reply.model == llama_server.model
    assert reply.finish_reason in {"stop", "length"}
    assert 0 < reply.usage.output <= 6
    assert reply.usage.prompt_tokens > 5
    assert not reply.usage.estimated
    assert reply.cost is not None
    assert reply.cost > 0


@pytest.mark.parametrize("wire", WIRES)
def test_a_real_stream_says_the_same_as_the_whole_answer(
    llama_server: TinyLlama, wire: str, caller: Caller
) -> None:
    with router_to(llama_server, wire) as router:
        whole = caller.complete(router, "say it", max_tokens=12, temperature=0, extra={"seed": 7})
        heard = caller.stream(router, "say it", max_tokens=12, temperature=0, extra={"seed": 7})
    assert heard.error is None
    assert heard.text == heard.completion.text == whole.text
    assert heard.completion.usage.output == whole.usage.output
    assert heard.completion.finish_reason == whole.finish_reason
    assert len(heard.chunks) > 2


@pytest.mark.parametrize("wire", WIRES)
def test_a_wrong_key_is_an_authentication_error_without_the_key(
    llama_server: TinyLlama, wire: str, caller: Caller
) -> None:
    with (
        router_to(llama_server, wire, key="sk-wrong-canary") as router,
        pytest.raises(errors.AuthenticationError) as caught,
    ):
        caller.complete(router, "hi")
    assert caught.value.status == 401
    assert caught.value.attempts[0].failure == "credential"
    assert "sk-wrong-canary" not in f"{caught.value} {caught.value!r} {caught.value.body}"


@pytest.mark.parametrize("wire", WIRES)
def test_a_prompt_beyond_the_window_is_a_context_error(
    llama_server: TinyLlama, wire: str, caller: Caller
) -> None:
    with router_to(llama_server, wire) as router, pytest.raises(errors.ContextWindowExceededError) as caught:
        caller.complete(router, "canary " * 20_000, timeout=30)
    assert caught.value.attempts[0].failure == "context_length"
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_cancelled_stream_stops_the_real_server(llama_server: TinyLlama, wire: str) -> None:
    async with router_to(llama_server, wire) as router:
        started = router.astream("go on", max_tokens=20_000, extra={"ignore_eos": True})
        await anext(started)
        assert await asyncio.to_thread(llama_server.wait_busy_slots, 1)

        async def read_on() -> None:
            async for _ in started:
                pass

        task = asyncio.create_task(read_on())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(llama_server.wait_busy_slots, 0, 1.0)


@pytest.mark.parametrize("wire", WIRES)
def test_an_abandoned_stream_stops_the_real_server(llama_server: TinyLlama, wire: str) -> None:
    with router_to(llama_server, wire) as router:
        for _ in router.stream("go on", max_tokens=20_000, extra={"ignore_eos": True}):
            assert llama_server.wait_busy_slots(1)
            break
        assert llama_server.wait_busy_slots(0, 1.0)


def test_a_real_connection_is_used_again(llama_server: TinyLlama, caller: Caller) -> None:
    with router_to(llama_server, "openai") as router:
        for _ in range(3):
            caller.complete(router, "hi", max_tokens=1)
        assert server_connections(llama_server) <= 1


@pytest.mark.parametrize("wire", WIRES)
def test_a_tool_loop_goes_on_after_broken_arguments(
    llama_tools_server: TinyLlama, wire: str, caller: Caller
) -> None:
    function = {"name": "look", "arguments": '{"topic": "retr'}
    call = {"id": "call_1", "type": "function", "function": function}
    messages = [
        {"role": "user", "content": "How often do we retry?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "the arguments of look are not valid JSON"},
    ]
    with router_to(llama_tools_server, wire) as router:
        reply = caller.complete(router, messages=messages, max_tokens=4)
    assert reply.finish_reason in {"stop", "length"}
