"""Requests as Ollama gets them: every row of the table in the design."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.support import asked

from ccroute.errors import InvalidRequestError
from ccroute.wire.ollama import encode, refusals

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


def body_of(*messages: dict[str, Any], **options: Any) -> dict[str, Any]:
    return encode(asked(*messages, **options), "qwen3", stream=False)


def test_streaming_is_said_either_way_and_nothing_is_truncated_silently() -> None:
    plain = {
        "model": "qwen3",
        "messages": [{"role": "user", "content": "hi"}],
        "truncate": False,
        "shift": False,
    }
    assert encode(asked(), "qwen3", stream=False) == {**plain, "stream": False}
    assert encode(asked(), "qwen3", stream=True) == {**plain, "stream": True}


def test_limits_and_sampling_go_into_options_under_their_names() -> None:
    sampling = {
        "temperature": 0.0,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 0,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.0,
    }
    assert body_of(max_tokens=7, stop="x", **sampling)["options"] == {
        "num_predict": 7,
        "stop": ["x"],
        **sampling,
    }


def test_the_context_window_is_always_sent_the_same_and_never_guessed() -> None:
    for request in (asked(), asked(max_tokens=5), asked({"role": "user", "content": "x" * 99_999})):
        assert encode(request, "m", stream=False, context_window=8192)["options"]["num_ctx"] == 8192
    assert "options" not in encode(asked(), "m", stream=False)


@pytest.mark.parametrize("keep_alive", ["5m", 0, -1])
def test_keep_alive_is_at_the_top(keep_alive: str | int) -> None:
    assert encode(asked(), "m", stream=False, keep_alive=keep_alive)["keep_alive"] == keep_alive


def test_json_and_schemas_become_format() -> None:
    assert body_of(response_format={"type": "json_object"})["format"] == "json"
    assert body_of(response_format=FORMAT)["format"] == SCHEMA
    assert "format" not in body_of(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("effort", "plain", "level"),
    [("none", False, False), ("minimal", True, "low"), ("medium", True, "medium"), ("max", True, "max")],
)
def test_effort_becomes_think(effort: str, plain: bool, level: bool | str) -> None:
    request = asked(reasoning_effort=effort)
    assert encode(request, "m", stream=False)["think"] is plain
    assert encode(request, "m", stream=False, think_levels=True)["think"] == level
    assert "think" not in body_of()


def test_tools_are_sent_unless_none_may_be_chosen() -> None:
    cached = {**TOOL, "cache_control": {"type": "ephemeral"}}
    assert body_of(tools=[cached])["tools"] == [TOOL]
    assert body_of(tools=[TOOL], tool_choice="auto")["tools"] == [TOOL]
    assert "tools" not in body_of(tools=[TOOL], tool_choice="none")
    assert "tool_choice" not in body_of(tools=[TOOL], tool_choice="none")


def test_logprobs_are_at_the_top() -> None:
    body = body_of(logprobs=True, top_logprobs=3)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)


def test_parts_become_text_and_images_in_base64() -> None:
    parts = [
        {"type": "text", "text": "what", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
        {"type": "text", "text": "is this?"},
    ]
    assert body_of({"role": "user", "content": parts})["messages"] == [
        {"role": "user", "content": "what\nis this?", "images": ["iVBORw0="]}
    ]


def test_a_tool_conversation_goes_with_objects_names_and_ids() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}
    ]
    body = body_of(
        {"role": "developer", "content": "s"},
        {
            "role": "assistant",
            "content": None,
            "thinking": "hm",
            "thinking_blocks": [{}],
            "tool_calls": calls,
        },
        {"role": "tool", "tool_call_id": "c1", "content": "7", "is_error": True},
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"function": {"name": "f", "arguments": "oops"}}],
        },
        {"role": "tool", "tool_call_id": "c9", "name": "f", "content": "8"},
        {"role": "function", "name": "f", "content": "9"},
        {"role": "assistant", "content": "9 it is"},
    )
    assert body["messages"] == [
        {"role": "system", "content": "s"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": {"city": "Köln"}}}],
        },
        {"role": "tool", "tool_name": "weather", "tool_call_id": "c1", "content": "7"},
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"function": {"name": "f", "arguments": {"arguments": "oops"}}}],
        },
        {"role": "tool", "tool_name": "f", "tool_call_id": "c9", "content": "8"},
        {"role": "tool", "tool_name": "f", "content": "9"},
        {"role": "assistant", "content": "9 it is"},
    ]


def test_extra_goes_on_top_and_into_options() -> None:
    body = encode(asked(extra={"options": {"num_gpu": 1}, "raw": True}), "m", stream=False, context_window=8)
    assert body["options"] == {"num_ctx": 8, "num_gpu": 1}
    assert body["raw"] is True
    assert body_of(extra={"options": {"num_gpu": 1}})["options"] == {"num_gpu": 1}


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, []),
        ({"tool_choice": "auto", "parallel_tool_calls": True, "logit_bias": {}, "user": ""}, []),
        ({"response_format": FORMAT, "reasoning_effort": "low", "seed": 1, "logprobs": True}, []),
        ({"tool_choice": "required"}, ["tool_choice"]),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, ["tool_choice"]),
        ({"parallel_tool_calls": False}, ["parallel_tool_calls"]),
        ({"logit_bias": {"1": 1}, "user": "u"}, ["logit_bias", "user"]),
        ({"response_format": {"type": "grammar"}}, ["response_format"]),
    ],
)
def test_what_ollama_cannot_carry_is_refused_if_it_was_given(
    options: dict[str, Any], refused: list[str]
) -> None:
    assert sorted(refusals(asked(**options))) == refused


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "https://secret"}]},
            r"content\[0\]",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "x": "secret"}]},
            r"messages\[1\].content\[0\]",
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"function": {}}]},
            r"messages\[1\].tool_calls\[0\]",
        ),
        ({"role": "assistant", "content": None, "tool_calls": ["secret"]}, r"messages\[1\].tool_calls\[0\]"),
    ],
)
def test_what_cannot_be_carried_nor_dropped_is_an_error_that_names_its_place(
    message: dict[str, Any], place: str
) -> None:
    with pytest.raises(InvalidRequestError, match=place) as caught:
        body_of({"role": "user", "content": "hi"}, message)
    assert "secret" not in str(caught.value)
