"""An answer in the form of a schema, over Anthropic's wire: asked for as the server can, and looked at."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support import anthropic_like as like
from tests.support.scripted import ScriptedServer, answer, stream

from ccroute import AnthropicBackend, Model, Price, RetryPolicy, Router, errors
from ccroute.serve.anthropic import dump_error, error_headers
from ccroute.types import Request
from tiny_llama import TinyLlama

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["a"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
URL = "http://messages.test"


def form(model: str, url: str | None = None, *, described: Model | None = None, **options: Any) -> str:
    """Where a body holds the schema."""
    models = {} if described is None else {model: described}
    backend = AnthropicBackend("b", api_key="a-test-key", base_url=url, models=models)
    request = Request(messages=({"role": "user", "content": "hi"},), response_format=FORMAT, **options)
    assert backend.refusals(request, model) == {}
    body = json.loads(backend.encode(request, model, False).body)
    return (
        "format"
        if "output_config" in body and "format" in body["output_config"]
        else body["tool_choice"]["type"]
    )


def test_the_form_depends_on_the_model_and_on_who_serves_it() -> None:
    assert form("claude-sonnet-4-5") == form("claude-opus-5-5") == form("some-new-name") == "format"
    assert form("claude-sonnet-4-20250514") == "tool"
    assert form("qwen3", URL) == form("claude-sonnet-4-5", URL) == "tool", "it may be anybody under that name"
    assert form("qwen3", URL, described=Model(schema="format")) == "format"
    assert form("claude-sonnet-4-5", described=Model(schema="tool")) == "tool"


def test_where_no_tool_can_be_forced_it_is_the_format_everywhere() -> None:
    assert form("claude-opus-5-5", URL) == "format"
    assert form("claude-opus-4-6", URL, reasoning_effort="high") == "format"


def test_a_model_that_knows_no_schema_refuses_one_by_name() -> None:
    backend = AnthropicBackend("b", base_url=URL, models={"m": Model(schema="none")})
    assert list(backend.refusals(Request(response_format=FORMAT), "m")) == ["response_format"]


def test_an_answer_without_regard_to_the_schema_is_an_error(caller: Caller) -> None:
    with ScriptedServer([answer(json=like.message("Well, nine.")), stream(like.message_sse())]) as server:
        with Router([AnthropicBackend("b", base_url=server.url)]) as router:
            with pytest.raises(
                errors.InvalidRequestError, match="without regard to response_format"
            ) as caught:
                caller.complete(router, "how many?", model="b/m", response_format=FORMAT)
            assert dump_error(caught.value)[0] == 502, "a client of ours may ask for it"
            assert error_headers(caught.value) == {"x-should-retry": "false"}
            heard = caller.stream(router, "how many?", model="b/m", response_format=FORMAT)
            assert isinstance(heard.error, errors.StreamInterruptedError), "its text was delivered"


def test_answers_that_need_no_form_pass(caller: Caller) -> None:
    cut = like.message('{"a": ', stop="max_tokens")
    refusal = like.message("No.", stop="refusal")
    calls = like.message([like.tool_use("look", {})], stop="tool_use")
    good = like.message([like.tool_use("ccroute_answer", {"a": 3})], stop="tool_use")
    text = like.message("Well, nine.")
    replies = [cut, refusal, calls, good, text, text]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    with ScriptedServer([answer(json=reply) for reply in replies]) as server:
        with Router([AnthropicBackend("b", base_url=server.url)], drop_params=True) as router:
            reasons = []
            for _ in range(4):
                reply = caller.complete(router, "hi", model="b/m", response_format=FORMAT, tools=tools)
                reasons.append(reply.finish_reason)
            assert reasons == ["length", "content_filter", "tool_calls", "stop"]
            assert json.loads(reply.text) == {"a": 3}
            assert caller.complete(router, "hi", model="b/m").text == "Well, nine."
            dropped = caller.complete(router, "hi", model="b/m", response_format={"type": "json_object"})
            assert dropped.text == "Well, nine.", "nobody was asked to hold to anything"


def test_text_before_the_schemas_tool_is_no_part_of_the_answer(caller: Caller) -> None:
    call = like.tool_use("ccroute_answer", {"a": 3})
    body = like.message(
        [{"type": "text", "text": "Sure: "}, call, {"type": "text", "text": "!"}], stop="tool_use"
    )
    blocks = [
        like.text_block(["Su", "re: "]),
        like.tool_block("ccroute_answer", ['{"a"', ": 3}"], index=1),
        like.text_block(["!", "!"], index=2),
    ]
    came = stream(like.message_sse(blocks=blocks, stop="tool_use"))
    with ScriptedServer([answer(json=body), came]) as server:
        with Router([AnthropicBackend("b", base_url=server.url)]) as router:
            whole = caller.complete(router, "how many?", model="b/m", response_format=FORMAT)
            assert (whole.text, whole.finish_reason) == ('{"a":3}', "stop")
            heard = caller.stream(router, "how many?", model="b/m", response_format=FORMAT)
    assert heard.error is None
    assert heard.completion is not None
    assert (heard.completion.text, heard.completion.finish_reason) == ('{"a": 3}', "stop")
    assert "".join(chunk.text for chunk in heard.chunks) == 'Sure: {"a": 3}', "what was emitted stays"
    assert [chunk.block for chunk in heard.chunks if chunk.block] == [{"type": "text", "text": "Sure: "}]


@pytest.mark.llama
def test_llama_cpp_is_held_to_a_schema_by_a_forced_tool(
    llama_tools_server: TinyLlama, caller: Caller
) -> None:
    backend = AnthropicBackend("llama", base_url=llama_tools_server.url, api_key=llama_tools_server.api_key)
    with Router([backend]) as router:
        reply = router.complete("hi", model="llama/tiny", response_format=FORMAT, max_tokens=200)
    assert 1 <= json.loads(reply.text)["a"] <= 9


@pytest.mark.llama
def test_llama_cpp_ignores_an_output_config_and_that_is_an_error(
    llama_server: TinyLlama, caller: Caller
) -> None:
    backend = AnthropicBackend(
        "llama",
        base_url=llama_server.url,
        api_key=llama_server.api_key,
        models={"tiny": Model(schema="format")},
    )
    with Router([backend], retry=RetryPolicy(attempts=1)) as router:
        stop: dict[str, Any] = {
            "stop": ["and", "the", "a", "e"],
            "max_tokens": 400,
        }  # so that it ends by itself
        with pytest.raises(errors.InvalidRequestError, match="without regard to response_format"):
            router.complete("hi", model="llama/tiny", response_format=FORMAT, temperature=0, **stop)


def test_an_answer_that_is_refused_for_its_form_is_paid_for(caller: Caller) -> None:
    prices = {"b/m": Price(2, 10)}
    with ScriptedServer([answer(json=like.message("Well, nine.", usage=like.usage(1000, 100)))]) as server:
        with Router([AnthropicBackend("b", base_url=server.url)], prices=prices) as router:
            with pytest.raises(errors.InvalidRequestError) as caught:
                caller.complete(router, "hi", model="b/m", response_format=FORMAT)
            [attempt] = caught.value.attempts
            assert (attempt.usage.input, attempt.usage.output) == (1000, 100)
            assert attempt.cost == router.report(by=()).total["cost"] == Decimal("0.003")
