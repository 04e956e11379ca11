"""Requests as Ollama gets them: every row of the table in the design."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.support import asked

from ccroute.backends.known_models import known
from ccroute.errors import InvalidRequestError
from ccroute.types import Model
from ccroute.wire.ollama import encode, refusals

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


def body_of(*messages: dict[str, Any], **options: Any) -> dict[str, Any]:
    return encode(asked(*messages, **options), "qwen3", stream=False)


def test_stream_is_always_set_and_truncation_is_off() -> None:
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


def test_the_context_window_is_always_the_same_and_never_guessed() -> None:
    for request in (asked(), asked(max_tokens=5), asked({"role": "user", "content": "x" * 99_999})):
        body = encode(request, "m", stream=False, known=Model(context_window=8192))
        assert body["options"]["num_ctx"] == 8192
    assert "options" not in encode(asked(), "m", stream=False)


@pytest.mark.parametrize("keep_alive", ["5m", 0, -1])
def test_keep_alive_is_at_the_top(keep_alive: str | int) -> None:
    assert encode(asked(), "m", stream=False, keep_alive=keep_alive)["keep_alive"] == keep_alive


def test_json_and_schemas_become_format() -> None:
    assert body_of(response_format={"type": "json_object"})["format"] == "json"
    assert body_of(response_format=FORMAT)["format"] == SCHEMA
    assert "format" not in body_of(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("effort", "switch", "levels", "gpt_oss"),
    [
        ("none", False, False, "low"),  # it cannot be kept from thinking
        ("minimal", True, "low", "low"),
        ("medium", True, "medium", "medium"),
        ("max", True, "max", "high"),
    ],
)
def test_effort_becomes_think(effort: str, switch: bool, levels: bool | str, gpt_oss: str) -> None:
    request = asked(reasoning_effort=effort)
    assert encode(request, "m", stream=False)["think"] is switch
    assert encode(request, "m", stream=False, known=Model(thinking="levels"))["think"] == levels
    assert encode(request, "m", stream=False, known=known("ollama", "gpt-oss:20b"))["think"] == gpt_oss
    assert "think" not in body_of()


@pytest.mark.parametrize(
    "model",
    ["llama3.2:3b", "qwen2.5-coder:32b-instruct", "gemma3:27b", "mistral-small", "phi4", "hf.co/x/phi4"],
)
def test_models_that_do_not_think_are_known(model: str) -> None:
    assert known("ollama", model).thinking == "none"
    assert refusals(asked(reasoning_effort="high"), known("ollama", model)) == {
        "reasoning_effort": "the model does not think"
    }
    assert refusals(asked(reasoning_effort="none"), known("ollama", model)) == {}


@pytest.mark.parametrize(
    "model", ["qwen3:8b", "deepseek-r1:14b", "phi4-reasoning", "mine", "llama3-thinking"]
)
def test_other_models_may_think(model: str) -> None:
    assert known("ollama", model).thinking is None


def test_what_a_model_is_known_to_refuse_is_refused() -> None:
    model = Model(refuses=("temperature", "top_k"))
    assert refusals(asked(temperature=0.0), model) == {"temperature": "the model refuses it"}


def test_system_messages_become_one_at_the_beginning() -> None:
    one, late = {"role": "system", "content": "1"}, {"role": "system", "content": "3"}
    two = {"role": "developer", "content": "2"}
    user = {"role": "user", "content": "hi"}
    empty = {"role": "system", "content": ""}
    first = {"role": "system", "content": "1\n\n2\n\n3"}
    assert body_of(one, user)["messages"] == [one, user]
    assert body_of(one, two, user, late)["messages"] == [first, user]
    assert body_of(user, late)["messages"] == [late, user]
    assert body_of(user, empty)["messages"] == [user]
    assert body_of(user)["messages"] == [user]


def test_a_schema_with_tools_is_refused_as_format_prevents_calls() -> None:
    for form in (FORMAT, {"type": "json_object"}):
        assert list(refusals(asked(tools=[TOOL], response_format=form))) == ["response_format"]
        assert refusals(asked(tools=[TOOL], response_format=form, tool_choice="none")) == {}
        assert refusals(asked(tools=[TOOL], response_format=form), hosted=True) == {}
    assert refusals(asked(tools=[TOOL], response_format={"type": "text"})) == {}


def test_tools_are_sent_unless_none_may_be_chosen() -> None:
    cached = {**TOOL, "cache_control": {"type": "ephemeral"}}
    assert body_of(tools=[cached])["tools"] == [TOOL]
    assert body_of(tools=[{"function": TOOL["function"]}])["tools"] == [TOOL]
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
    body = encode(
        asked(extra={"options": {"num_gpu": 1}, "raw": True}),
        "m",
        stream=False,
        known=Model(context_window=8),
    )
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
        ({"parallel_tool_calls": False, "tools": [TOOL]}, ["parallel_tool_calls"]),
        ({"parallel_tool_calls": False}, []),
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
def test_what_cannot_be_carried_is_an_error_that_names_its_place(message: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidRequestError, match=place) as caught:
        body_of({"role": "user", "content": "hi"}, message)
    assert "secret" not in str(caught.value)
