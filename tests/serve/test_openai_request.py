"""Chat completion requests as clients send them, in canonical form and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute.errors import InvalidRequestError
from ccroute.serve.openai import parse_request
from ccroute.types.arguments.checked import build_request
from ccroute.wire.openai import Dialect, encode

USER = {"role": "user", "content": "hi"}
WHOLE = Dialect(max_tokens="max_completion_tokens", top_k=True, developer_role=True)


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def fault_of(body: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(body)
    return str(caught.value)


def test_a_plain_request_is_its_model_and_messages() -> None:
    parsed = parse_request(json.dumps(ask()).encode())
    assert parsed.kwargs == {"model": "m", "messages": [USER]}
    assert (parsed.stream, parsed.include_usage, parsed.ignored) == (False, False, ())
    assert parse_request(ask()) == parsed


def test_the_model_may_be_left_to_the_agent_or_the_router() -> None:
    assert parse_request({"messages": [USER]}).kwargs == {"messages": [USER]}


def test_stream_options_are_read_and_not_passed_on() -> None:
    parsed = parse_request(ask(stream=True, stream_options={"include_usage": True}, n=1))
    assert (parsed.stream, parsed.include_usage) == (True, True)
    assert parsed.kwargs == {"model": "m", "messages": [USER]}


def test_every_parameter_has_its_keyword_and_the_rest_is_extra() -> None:
    asked = {
        "max_completion_tokens": 9,
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": -1,
        "frequency_penalty": 1,
        "presence_penalty": -1,
        "logit_bias": {"5": 1},
        "logprobs": True,
        "top_logprobs": 2,
        "stop": ["a", "b"],
        "seed": 3,
        "user": "u",
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {}}],
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
        "reasoning_effort": "xhigh",
        "metadata": {"ticket": "7"},
        "min_p": 0.1,
        "store": None,
    }
    kwargs = dict(parse_request(ask(**asked)).kwargs)
    assert kwargs.pop("max_tokens") == 9
    assert kwargs.pop("reasoning_effort") == "max"
    assert kwargs.pop("extra") == {"min_p": 0.1}
    same = {name: asked[name] for name in asked if name in kwargs}
    assert kwargs == {"model": "m", "messages": [USER]} | same
    assert same.keys() == asked.keys() - {
        "max_completion_tokens",
        "max_tokens",
        "reasoning_effort",
        "min_p",
        "store",
    }


def test_what_a_model_thought_comes_back_in_canonical_form() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    said = {"role": "assistant", "content": "a", "refusal": None}
    [message] = parse_request(
        ask(messages=[{**said, "reasoning_content": "hm", "thinking_blocks": blocks}])
    ).kwargs["messages"]
    assert message == {**said, "thinking": "hm", "thinking_blocks": blocks}
    [message] = parse_request(ask(messages=[{**said, "reasoning": "hm"}])).kwargs["messages"]
    assert message == {**said, "thinking": "hm"}


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"messages": None}, "messages is missing"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "secret"}, "messages must be a list"),
        ({"messages": ["secret"]}, "messages[0] must be an object"),
        ({"messages": [{"role": "secret", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [USER, {"role": "tool", "tool_call_id": 5, "content": ""}]},
            "messages[1].tool_call_id",
        ),
        ({"model": 5}, "model must be a string"),
        ({"temperature": "secret"}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"logprobs": 1}, "logprobs must be true or false"),
        ({"stop": ["a", 5]}, "stop must be a list of strings"),
        ({"stop": 5}, "stop must be a list"),
        ({"logit_bias": {"5": "secret"}}, "logit_bias"),
        ({"logit_bias": ["secret"]}, "logit_bias must be an object"),
        ({"reasoning_effort": "secret"}, "reasoning_effort must be one of"),
        ({"tools": {"secret": 1}}, "tools must be a list"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name is missing"),
        ({"tools": [{"type": "function", "function": "secret"}]}, "tools[0].function must be an object"),
        ({"tool_choice": 5}, "tool_choice must be an object"),
        ({"tool_choice": {"function": "secret"}}, "tool_choice.function must be an object"),
        ({"response_format": "secret"}, "response_format must be an object"),
        ({"metadata": []}, "metadata must be an object"),
        ({"stream": "yes"}, "stream must be true or false"),
        ({"stream_options": {"include_usage": "secret"}}, "stream_options.include_usage"),
        ({"n": 2}, "n must be 1"),
        ({"n": "2"}, "n must be a whole number"),
    ],
)
def test_a_fault_names_its_place_and_quotes_nothing(fields: dict[str, Any], place: str) -> None:
    fault = fault_of(ask(**fields))
    assert place in fault
    assert "secret" not in fault


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"tool_calls": "secret"}, "tool_calls must be a list"),
        ({"tool_calls": [{"id": 5}]}, "tool_calls[0].id"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": "secret"}}}]}, "function.arguments"),
        ({"tool_calls": [{"function": {}}]}, "tool_calls[0].function.name is missing"),
        ({"thinking_blocks": ["secret"]}, "thinking_blocks[0] must be an object"),
        ({"provider_fields": "secret"}, "provider_fields must be an object"),
        (
            {"tool_calls": [{"provider_fields": ["secret"]}]},
            "tool_calls[0].provider_fields must be an object",
        ),
        ({"reasoning_content": {"a": "secret"}}, "reasoning_content must be a string"),
    ],
)
def test_a_fault_in_what_the_assistant_said_is_named_too(message: dict[str, Any], place: str) -> None:
    fault = fault_of(ask(messages=[USER, {"role": "assistant", "content": "a", **message}]))
    assert f"messages[1].{place}" in fault.replace(
        "[1].tool_calls[0].function.arguments", "[1].function.arguments"
    )
    assert "secret" not in fault


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"secret": ',
        b"[]",
        b'"secret"',
        b"5",
        b'{"messages": NaN}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 5000,
    ],
)
def test_what_is_no_json_object_is_an_invalid_request(body: bytes) -> None:
    assert "secret" not in fault_of(body)


def test_a_custom_tools_call_is_its_servers_own() -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert parse_request(ask(messages=messages)).kwargs["messages"] == messages


# -- there and back ------------------------------------------------------------------------------------------

WORDS = st.text(max_size=12)
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
OBJECTS = st.dictionaries(NAMES, st.one_of(WORDS, st.integers(), st.booleans()), min_size=1, max_size=3)
TEXT_PARTS = st.builds(lambda text: {"type": "text", "text": text}, WORDS)
IMAGE_PARTS = st.builds(
    lambda url: {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    st.sampled_from(["https://x/y.png", "data:image/png;base64,iVBORw0="]),
)
CONTENT = st.one_of(WORDS, st.lists(st.one_of(TEXT_PARTS, IMAGE_PARTS), min_size=1, max_size=3))
CALLS = st.builds(
    lambda id, name, arguments: {
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    },
    NAMES,
    NAMES,
    OBJECTS,
)
MESSAGES = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "developer", "user", "assistant"]),
        CONTENT,
    ),
    st.builds(
        lambda calls: {"role": "assistant", "content": None, "tool_calls": calls},
        st.lists(CALLS, min_size=1, max_size=3),
    ),
    st.builds(lambda id, text: {"role": "tool", "tool_call_id": id, "content": text}, NAMES, WORDS),
)
TOOLS = st.builds(
    lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}},
    NAMES,
    OBJECTS,
)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "max_completion_tokens": st.integers(1, 9),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 50),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(NAMES, st.integers(-9, 9), min_size=1),
        "logprobs": st.booleans(),
        "top_logprobs": st.integers(0, 20),
        "stop": st.one_of(NAMES, st.lists(NAMES, min_size=1)),
        "seed": st.integers(),
        "user": NAMES,
        "tools": st.lists(TOOLS, min_size=1, max_size=2, unique_by=lambda tool: tool["function"]["name"]),
        "tool_choice": st.sampled_from(["auto", {"type": "function", "function": {"name": "f"}}]),
        "response_format": st.just({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]),
        "min_p": st.floats(0, 1),
        "chat_template_kwargs": OBJECTS,
        "stream": st.just(True),
    },
)


@given(st.lists(MESSAGES, min_size=1, max_size=5), PARAMETERS)
def test_a_request_survives_the_round_trip(messages: list[dict[str, Any]], asked: dict[str, Any]) -> None:
    body = {"model": "m", "messages": messages, **asked}
    parsed = parse_request(json.dumps(body).encode())
    again = encode(build_request(None, parsed.kwargs), "m", stream=parsed.stream, dialect=WHOLE)
    if parsed.stream:
        assert again.pop("stream_options") == {"include_usage": True}
    if "tools" not in asked and body.get("tool_choice") == "auto":
        del body["tool_choice"]  # refused by OpenAI where there are no tools, and means nothing there
    assert again == body
