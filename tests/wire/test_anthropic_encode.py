"""Requests as Anthropic gets them: every row of the table in the design, and what the API insists on."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.support import asked

from ccroute.errors import InvalidRequestError
from ccroute.types import Model
from ccroute.wire.anthropic import answer_form, encode, refusals

CACHED = {"cache_control": {"type": "ephemeral"}}
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
CLOSED = {**SCHEMA, "additionalProperties": False}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": SCHEMA, "strict": True},
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


def body_of(*messages: dict[str, Any], facts: Model | None = None, **options: Any) -> dict[str, Any]:
    request, facts = asked(*messages, **options), facts or Model()
    return encode(request, "claude", stream=False, facts=facts, form=answer_form(request, facts, sure=True))


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def use(name: str, arguments: Any, id: str | None = None) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_plain_request_is_one_user_turn_with_a_limit() -> None:
    assert body_of() == {
        "model": "claude",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("hi")]}],
    }
    assert encode(asked(), "claude", stream=True)["stream"] is True


def test_system_messages_at_any_position_become_the_top_level_system() -> None:
    body = body_of(
        {"role": "system", "content": "one"},
        USER,
        {"role": "developer", "content": [text("two", **CACHED), text("")]},
        {"role": "system", "content": " "},
        {"role": "system", "content": "three", **CACHED},
    )
    assert body["system"] == [text("one"), text("two", **CACHED), text("three", **CACHED)]
    assert body["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_user_and_tool_messages_are_merged_with_results_first() -> None:
    body = body_of(
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": None, "tool_calls": [use("f", "{}", "c1"), use("g", "{}", "c2")]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "user", "content": "and?"},
        {"role": "tool", "tool_call_id": "c2", "content": [text("two")], "is_error": True, **CACHED},
    )
    assert body["messages"] == [
        {"role": "user", "content": [text("a"), text("b")]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": [text("two")],
                    "is_error": True,
                    **CACHED,
                },
                text("and?"),
            ],
        },
    ]


def test_turns_that_hold_nothing_vanish_and_their_neighbours_meet() -> None:
    body = body_of(USER, {"role": "assistant", "content": ""}, {"role": "user", "content": "\n"}, USER)
    assert body["messages"] == [{"role": "user", "content": [text("hi"), text("hi")]}]


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        ('{"city": "Köln"}', {"city": "Köln"}),
        ({"city": "Köln"}, {"city": "Köln"}),
        ("", {}),
        (None, {}),
        ("[1]", {"arguments": [1]}),
        ('{"city": ', {"arguments": '{"city": '}),
    ],
)
def test_arguments_become_an_object_whatever_the_model_wrote(arguments: Any, input: dict[str, Any]) -> None:
    body = body_of(USER, {"role": "assistant", "content": None, "tool_calls": [use("f", arguments, "c")]})
    assert body["messages"][1]["content"][0]["input"] == input


def test_tool_ids_are_made_acceptable_and_used_once() -> None:
    turn: list[dict[str, Any]] = [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [use("f", "{}", "functions.f:0"), use("f", "{}")],
        },
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "x"},
        {"role": "tool", "tool_call_id": "call_1", "content": "y"},
    ]
    blocks = [block for turn in body_of(USER, *turn, *turn)["messages"][1:] for block in turn["content"]]
    ids = [block.get("id") or block.get("tool_use_id") for block in blocks]
    assert ids == ["functions_f_0", "call_1"] * 2 + ["functions_f_0_2", "call_1_2"] * 2
    orphan = body_of(USER, {"role": "tool", "tool_call_id": "a.b", "content": "x"})
    assert orphan["messages"][0]["content"][0]["tool_use_id"] == "a_b"


def test_images_go_as_base64_or_url() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}, **CACHED},
        {"type": "image_url", "image_url": "https://x/y.png"},
    ]
    assert body_of({"role": "user", "content": parts})["messages"][0]["content"] == [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="},
            **CACHED,
        },
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
    ]


def test_thinking_blocks_are_replayed_verbatim_and_first() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "Emw="},
    ]
    answer = {"role": "assistant", "content": "a", "thinking": "hm", "thinking_blocks": blocks}
    assert body_of(USER, {**answer, "tool_calls": [use("f", "{}", "c")]})["messages"][1]["content"] == [
        *blocks,
        text("a"),
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
    ]


def test_thinking_of_another_provider_is_not_replayed() -> None:
    answer = {"role": "assistant", "content": "a", "thinking": "hm"}
    assert body_of(USER, answer)["messages"][1]["content"] == [text("a")]


def test_max_tokens_is_the_callers_else_the_deployments_else_4096() -> None:
    assert encode(asked(max_tokens=5), "m", stream=False, facts=Model(max_output=9))["max_tokens"] == 5
    assert encode(asked(), "m", stream=False, facts=Model(max_output=9))["max_tokens"] == 9
    assert encode(asked(), "m", stream=False)["max_tokens"] == 4096


def test_sampling_parameters_stops_and_user() -> None:
    body = body_of(temperature=0.0, top_p=0.5, top_k=3, stop="x", user="u")
    assert {name: body[name] for name in ("temperature", "top_p", "top_k", "stop_sequences", "metadata")} == {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "stop_sequences": ["x"],
        "metadata": {"user_id": "u"},
    }


def test_tools_are_translated_and_foreign_ones_left_alone() -> None:
    bare = {"type": "function", "function": {"name": "now"}}
    own = {"type": "web_search_20250305", "name": "web_search"}
    assert body_of(tools=[{**TOOL, **CACHED}, bare, own])["tools"] == [
        {"name": "weather", "description": "d", "input_schema": CLOSED, "strict": True, **CACHED},
        {"name": "now", "input_schema": {"type": "object"}},
        own,
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
    ],
)
def test_tool_choice_is_translated(choice: Any, expected: dict[str, Any]) -> None:
    assert body_of(tools=[TOOL], tool_choice=choice)["tool_choice"] == expected
    alone = body_of(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)["tool_choice"]
    assert alone == (expected if choice == "none" else {**expected, "disable_parallel_tool_use": True})


def test_parallel_tool_calls_false_needs_tools() -> None:
    body = body_of(tools=[TOOL], parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "tool_choice" not in body_of(parallel_tool_calls=False)
    assert "tool_choice" not in body_of(tools=[TOOL], parallel_tool_calls=True)


def test_a_schema_goes_by_output_config() -> None:
    assert body_of(response_format=FORMAT)["output_config"] == {
        "format": {"type": "json_schema", "schema": CLOSED}
    }
    assert "output_config" not in body_of(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("options", "choice", "names"),
    [
        ({}, {"type": "tool", "name": "ccroute_answer"}, ["ccroute_answer"]),
        ({"tools": [TOOL]}, {"type": "any"}, ["weather", "ccroute_answer"]),
        (
            {"tools": [TOOL], "tool_choice": "none"},
            {"type": "tool", "name": "ccroute_answer"},
            ["ccroute_answer"],
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"type": "tool", "name": "weather"},
            ["weather", "ccroute_answer"],
        ),
    ],
)
def test_a_schema_goes_by_a_forced_tool_where_that_is_all_there_is(
    options: dict[str, Any], choice: dict[str, Any], names: list[str]
) -> None:
    body = body_of(response_format=FORMAT, facts=Model(schema="tool"), **options)
    assert body["tool_choice"] == choice
    assert [tool["name"] for tool in body["tools"]] == names
    assert body["tools"][-1]["input_schema"] == SCHEMA


@pytest.mark.parametrize(
    ("effort", "options", "max_tokens", "budget"),
    [
        ("minimal", {}, 4096 + 1024, 1024),
        ("low", {}, 4096 + 2048, 2048),
        ("high", {}, 4096 + 16_384, 10_240),
        ("max", {"max_tokens": 100_000}, 100_000, 32_000),
        ("medium", {"max_tokens": 8000}, 8000, 4000),
        ("low", {"max_tokens": 1500}, 1500, 1024),
    ],
)
def test_effort_is_a_budget_that_leaves_room_for_the_answer(
    effort: str, options: dict[str, Any], max_tokens: int, budget: int
) -> None:
    body = body_of(reasoning_effort=effort, **options)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert body["max_tokens"] == max_tokens > budget


def test_a_budget_never_takes_max_tokens_beyond_the_deployments() -> None:
    body = encode(asked(reasoning_effort="max"), "m", stream=False, facts=Model(max_output=8192))
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (8192, 4096)


@pytest.mark.parametrize(
    ("effort", "thinking", "config"),
    [
        ("none", None, None),
        ("minimal", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        ("max", {"type": "adaptive", "display": "summarized"}, {"effort": "max"}),
    ],
)
def test_effort_is_said_in_words_where_the_model_takes_them(effort: str, thinking: Any, config: Any) -> None:
    facts = Model(thinking="adaptive")
    body = body_of(reasoning_effort=effort, facts=facts)
    assert body.get("thinking") == thinking
    assert body.get("output_config") == config
    assert "thinking" not in body_of(facts=facts)
    if config:
        both = body_of(reasoning_effort=effort, response_format=FORMAT, facts=facts)["output_config"]
        assert both == {**config, "format": {"type": "json_schema", "schema": CLOSED}}


def test_no_effort_means_no_thinking() -> None:
    assert "thinking" not in body_of(reasoning_effort="none")


def test_extra_goes_on_top() -> None:
    body = body_of(user="u", response_format=FORMAT, extra={"output_config": {"effort": "low"}, "top_k": 1})
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}, "effort": "low"}
    assert body["top_k"] == 1


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, []),
        (
            {
                "temperature": 0.5,
                "top_k": 1,
                "max_tokens": 5,
                "user": "u",
                "stop": "x",
                "tool_choice": "auto",
            },
            [],
        ),
        ({"frequency_penalty": 0.0, "presence_penalty": 0.0, "logprobs": False, "logit_bias": {}}, []),
        ({"frequency_penalty": 0.1, "presence_penalty": 1}, ["frequency_penalty", "presence_penalty"]),
        (
            {"logit_bias": {"1": 1}, "logprobs": True, "top_logprobs": 3},
            ["logit_bias", "logprobs", "top_logprobs"],
        ),
        ({"seed": 0}, ["seed"]),
        ({"response_format": {"type": "json_object"}}, ["response_format"]),
        ({"response_format": FORMAT}, []),
        ({"tool_choice": "perhaps"}, ["tool_choice"]),
        ({"tool_choice": {"type": "allowed_tools"}}, ["tool_choice"]),
        ({"reasoning_effort": "none", "temperature": 0.1}, []),
        ({"reasoning_effort": "low", "temperature": 1, "top_p": 0.95}, []),
        (
            {"reasoning_effort": "low", "temperature": 0.1, "top_k": 3, "top_p": 0.5},
            ["temperature", "top_k", "top_p"],
        ),
        ({"reasoning_effort": "low", "tool_choice": "required"}, ["tool_choice"]),
        ({"reasoning_effort": "low", "max_tokens": 1024, "temperature": 0.1}, ["reasoning_effort"]),
    ],
)
def test_what_anthropic_cannot_carry_is_refused_if_it_was_given(
    options: dict[str, Any], refused: list[str]
) -> None:
    assert sorted(refusals(asked(**options))) == refused


def test_a_forced_schema_tool_excludes_thinking() -> None:
    request = asked(reasoning_effort="low", response_format=FORMAT)
    facts = Model(schema="tool")
    form = answer_form(request, facts, sure=True)
    assert list(refusals(request, facts, form)) == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"role": "function", "name": "f", "content": "secret"}, r"messages\[1\].role"),
        ({"role": "tool", "content": "secret"}, r"messages\[1\].tool_call_id"),
        (
            {"role": "user", "content": [text("x"), {"type": "input_audio", "x": "secret"}]},
            r"messages\[1\].content\[1\]",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            r"messages\[1\].content\[0\]",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:secret"}}]},
            r"content\[0\]",
        ),
        ({"role": "assistant", "content": None, "tool_calls": ["secret"]}, r"messages\[1\].tool_calls\[0\]"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"function": {}}]},
            r"messages\[1\].tool_calls\[0\]",
        ),
    ],
)
def test_what_cannot_be_carried_is_an_error_that_names_its_place(message: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidRequestError, match=place) as caught:
        body_of(USER, message)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("form", [{}, {"json_schema": None}, {"json_schema": {"schema": 3}}])
def test_a_schema_that_is_missing_is_an_error_that_says_so(form: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"response_format.json_schema.schema"):
        body_of(response_format={"type": "json_schema", **form})
