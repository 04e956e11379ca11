"""Tools with a real Ollama: one call, two, after text, in broken JSON, and the next turn."""

from __future__ import annotations

import json

import pytest
from tests.conftest import Caller
from tests.ollama.conftest import FORMAT, SCHEMA, TOOL
from tests.support.ollama_real import RealOllama

from ccroute import Completion, OllamaBackend, Router, errors

OSLO = ("get_weather", {"city": "Oslo"})
ROME = ("get_weather", {"city": "Rome", "days": 3})


def calls(completion: Completion) -> list[tuple[str, object]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in completion.tool_calls]


def both(caller: Caller, router: Router, model: str, **options: object) -> list[Completion]:
    whole = caller.complete(router, "hi", model=model, tools=[TOOL], **options)
    heard = caller.stream(router, "hi", model=model, tools=[TOOL], **options)
    assert heard.error is None
    return [whole, heard.completion]


@pytest.mark.parametrize(
    ("model", "text", "expected"),
    [
        ("say-tool", "", [OSLO]),
        ("say-tool2", "", [OSLO, ROME]),
        ("say-tooltext", "Let me look. ", [OSLO]),
    ],
)
def test_calls_are_the_same_whole_and_streamed(
    router: Router, caller: Caller, model: str, text: str, expected: list[tuple[str, object]]
) -> None:
    for completion in both(caller, router, f"local/{model}"):
        assert (completion.text, calls(completion)) == (text, expected)
        assert (completion.finish_reason, completion.raw_finish_reason) == ("tool_calls", "stop")
        assert len({call.id for call in completion.tool_calls}) == len(expected)


def test_a_call_in_broken_json_is_no_call(router: Router, caller: Caller) -> None:
    """The server swallows it: the tokens are counted, and nothing of them comes."""
    for completion in both(caller, router, "local/say-badtool"):
        assert (completion.text, completion.tool_calls) == ("", ())
        assert (completion.finish_reason, completion.usage.output) == ("stop", 4)


def test_a_call_at_the_limit_ends_with_length(router: Router, caller: Caller) -> None:
    for completion in both(caller, router, "local/say-tool", max_tokens=2):
        assert (calls(completion), completion.finish_reason) == ([OSLO], "length")


def test_a_conversation_goes_on_with_the_results(router: Router) -> None:
    first = router.complete("hi", model="local/say-tool2", tools=[TOOL])
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"{i} °C"}
        for i, call in enumerate(first.tool_calls)
    ]
    messages = [{"role": "user", "content": "hi"}, first.message, *results]
    second = router.complete(messages=messages, model="local/say-tool2", tools=[TOOL])
    assert second.usage.input > first.usage.input
    assert router.complete(messages=messages, model="local/say-hello").text.startswith("Hello")


def test_tools_at_a_model_without_them_are_the_callers_mistake(router: Router, caller: Caller) -> None:
    with pytest.raises(errors.InvalidRequestError, match="does not support tools"):
        caller.complete(router, "hi", model="local/say-hello", tools=[TOOL])
    assert isinstance(
        caller.stream(router, "hi", model="local/say-hello", tools=[TOOL]).error, errors.InvalidRequestError
    )
    unused = {"tools": [TOOL], "tool_choice": "none"}
    assert caller.complete(router, "hi", model="local/say-hello", **unused).text.startswith("Hello")


def test_another_kind_of_tool_is_refused_before_it_is_sent(router: Router) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"tools\[0\]"):
        router.complete("hi", model="local/say-tool", tools=[{"type": "computer", "name": "x"}])


def test_the_model_sees_what_the_server_cannot_read_of_a_schema(
    ollama_server: RealOllama,
) -> None:
    """The server shows the prompt it would have given to the model."""
    parameters = {
        "type": ["object", "null"],
        "properties": {"finding": {"$ref": "#/$defs/F"}, "any": True, "kind": {"const": "bug"}},
        "$defs": {"F": SCHEMA},
    }
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}}
    with Router([OllamaBackend("local", ollama_server.url)]) as router:
        with pytest.raises(errors.ProtocolError) as caught:
            router.complete("hi", model="local/say-tool", tools=[tool], extra={"_debug_render_only": True})
    shown = (caught.value.body or "").replace("\\", "")
    assert '"severity":{"enum":["low","high"]}' in shown.replace(" ", "")
    assert '"kind":{"enum":["bug"]}' in shown.replace(" ", "")


def test_a_schema_with_tools_is_refused_as_the_model_could_call_none(ollama_server: RealOllama) -> None:
    asked = {"model": "say-tool", "tools": [TOOL], "format": SCHEMA, "stream": False}
    said = ollama_server.ask("/api/chat", asked | {"messages": [{"role": "user", "content": "hi"}]})
    assert "tool_calls" not in said["message"]  # the reason
    options = {"model": "local/say-tool", "tools": [TOOL], "response_format": FORMAT}
    with Router([OllamaBackend("local", ollama_server.url)]) as router:
        with pytest.raises(
            errors.InvalidRequestError, match=r"response_format .*keeps the model from calling"
        ):
            router.complete("hi", **options)
    with Router([OllamaBackend("local", ollama_server.url)], drop_params=True) as router:
        reply = router.complete("hi", **options)
    assert calls(reply) == [OSLO]
    assert any("response_format dropped" in reason for reason in reply.route.reasons)
