"""Messages requests as clients send them, in canonical form and back."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from pydantic_core import to_json

from ccroute.errors import InvalidRequestError
from ccroute.serve.anthropic import parse_count_tokens, parse_request
from ccroute.types import Model
from ccroute.types.arguments.checked import build_request
from ccroute.wire.anthropic import answer_form, encode
from ccroute.wire.openai import encode as openai_encode

USER = {"role": "user", "content": "hi"}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "c2VjcmV0"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def ask(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 64_000, "messages": list(messages) or [USER], **fields}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def messages_of(*messages: Any, **fields: Any) -> list[Any]:
    return list(parse_request(ask(*messages, **fields)).kwargs["messages"])


def round_trip(body: dict[str, Any], facts: Model | None = None) -> dict[str, Any]:
    parsed = parse_request(json.dumps(body).encode())
    request = build_request(None, parsed.kwargs)
    facts = facts or Model()
    form = answer_form(request, facts, sure=True)
    return encode(request, body["model"], stream=parsed.stream, facts=facts, form=form)


def test_a_plain_request_is_its_model_limit_and_messages() -> None:
    parsed = parse_request(ask(stream=True))
    assert parsed.kwargs == {"model": "m", "max_tokens": 64_000, "messages": [USER]}
    assert (parsed.stream, parsed.include_usage, parsed.ignored) == (True, True, ())


def test_the_system_prompt_comes_first_with_its_cache_control() -> None:
    assert messages_of(system="be brief")[0] == {"role": "system", "content": "be brief"}
    blocks = [text("a"), text("b", **CACHED)]
    assert messages_of(system=blocks)[0] == {"role": "system", "content": blocks}
    assert messages_of(USER, {"role": "system", "content": "now"})[1] == {"role": "system", "content": "now"}


def test_tool_results_become_tool_messages_before_what_else_is_said() -> None:
    found = messages_of(
        {
            "role": "user",
            "content": [
                text("and?"),
                {"type": "tool_result", "tool_use_id": "t1", "content": "one", "is_error": True, **CACHED},
                {"type": "tool_result", "tool_use_id": "t2"},
                {"type": "tool_result", "tool_use_id": "t3", "content": [text("a"), text("b")]},
            ],
        }
    )
    assert found == [
        {"role": "tool", "tool_call_id": "t1", "content": "one", "is_error": True, **CACHED},
        {"role": "tool", "tool_call_id": "t2", "content": ""},
        {"role": "tool", "tool_call_id": "t3", "content": [text("a"), text("b")]},
        {"role": "user", "content": "and?"},
    ]


def test_calls_have_json_arguments_and_thinking_its_signature() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Köln"}}
    [message] = messages_of({"role": "assistant", "content": [SIGNED, REDACTED, use]})
    assert message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"city":"Köln"}'}}
        ],
        "thinking": "hm",
        "thinking_blocks": [SIGNED, REDACTED],
    }


def test_unsigned_thinking_is_kept_as_text_only() -> None:
    unsigned = {"type": "thinking", "thinking": "hm", "signature": ""}
    [message] = messages_of({"role": "assistant", "content": [unsigned, text("a")]})
    assert message == {"role": "assistant", "content": "a", "thinking": "hm"}


def test_thinking_between_answers_stays_at_its_place() -> None:
    blocks = [SIGNED, text("a"), {**SIGNED, "signature": "dHdv"}, text("b")]
    body = ask(USER, {"role": "assistant", "content": blocks}, USER)
    assert round_trip(body)["messages"][1]["content"] == blocks


def test_a_turn_that_says_nothing_is_an_empty_message() -> None:
    assert messages_of({"role": "user", "content": []}) == [{"role": "user", "content": ""}]
    assert messages_of(USER, {"role": "assistant", "content": []})[1] == {"role": "assistant", "content": ""}


def test_images_become_data_urls_or_urls() -> None:
    data = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
    url = {"type": "url", "url": "https://x/y.png"}
    [message] = messages_of(
        {
            "role": "user",
            "content": [{"type": "image", "source": data, **CACHED}, {"type": "image", "source": url}],
        }
    )
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}, **CACHED},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
    ]


def test_parameters_get_their_canonical_names() -> None:
    asked = {"temperature": 0.5, "top_p": 1, "top_k": 5}
    parsed = parse_request(ask(stop_sequences=["x"], metadata={"user_id": "u"}, **asked))
    assert parsed.kwargs == {
        "model": "m",
        "max_tokens": 64_000,
        "messages": [USER],
        "stop": ["x"],
        "user": "u",
        **asked,
    }
    assert parse_request(ask(stop_sequences=[])).kwargs.keys() == {"model", "max_tokens", "messages"}


def test_fields_without_a_canonical_form_are_left_out_and_listed() -> None:
    parsed = parse_request(ask(diagnostics={}, workspace_hint="a", inference_geo=None))
    assert parsed.ignored == ("diagnostics", "workspace_hint")
    assert parsed.kwargs.keys() == {"model", "max_tokens", "messages"}


def test_tools_become_functions_and_anthropics_own_stay() -> None:
    own = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    tool = {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True, **CACHED}
    parsed = parse_request(ask(tools=[tool, {"type": "custom", "name": "g"}, own]))
    function = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
    assert parsed.kwargs["tools"] == [
        {"type": "function", "function": function, **CACHED},
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}},
        own,
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto"}),
    ],
)
def test_tool_choices_have_openais_words(asked: dict[str, Any], expected: dict[str, Any]) -> None:
    kwargs = parse_request(ask(tool_choice=asked)).kwargs
    assert {name: kwargs[name] for name in kwargs.keys() - {"model", "max_tokens", "messages"}} == expected


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "minimal"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 60_000}}, "max"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 60_000}, "output_config": {"effort": "low"}},
            "low",
        ),
        ({"thinking": {"type": "adaptive"}}, "high"),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "xhigh"}},
            "max",
        ),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "none"),
        ({"output_config": {"effort": "medium"}}, "medium"),
        ({"output_config": {}}, None),
    ],
)
def test_thinking_becomes_an_effort(fields: dict[str, Any], effort: str | None) -> None:
    assert parse_request(ask(**fields)).kwargs.get("reasoning_effort") == effort


BUDGET, ADAPTIVE = Model(thinking="budget"), Model(thinking="adaptive", efforts=("low", "high", "max"))


@pytest.mark.parametrize("budget", [1024, 2000, 5000, 10_000, 63_999])
@pytest.mark.parametrize("facts", [BUDGET, Model()], ids=["claude", "another server"])
def test_a_budget_of_thoughts_reaches_an_anthropic_as_it_came(budget: int, facts: Model) -> None:
    thinking = {"type": "enabled", "budget_tokens": budget, "display": "omitted"}
    assert round_trip(ask(thinking=thinking), facts)["thinking"] == thinking


def test_a_budget_that_anthropic_would_refuse_is_made_to_fit() -> None:
    def sent(budget: int, **asked: Any) -> Any:
        body = round_trip(ask(thinking={"type": "enabled", "budget_tokens": budget}, **asked), BUDGET)
        return body["thinking"]["budget_tokens"], body["max_tokens"]

    assert sent(8000, max_tokens=4000) == (2000, 4000)
    assert sent(10, max_tokens=4000) == (1024, 4000)
    assert sent(5000, max_tokens=None) == (5000, 4096 + 5000)


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "adaptive"}},
        {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}},
        {"output_config": {"effort": "low"}},
    ],
)
def test_an_adaptive_model_gets_its_clients_own_effort(fields: dict[str, Any]) -> None:
    body = round_trip(ask(**fields), ADAPTIVE)
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == fields


def test_words_that_a_model_does_not_take_are_said_in_its_own() -> None:
    budget = {"type": "enabled", "budget_tokens": 10_000}
    body = round_trip(ask(thinking=budget), ADAPTIVE)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "high"}
    body = round_trip(ask(thinking={"type": "adaptive"}, output_config={"effort": "xhigh"}), ADAPTIVE)
    assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "max"})
    assert round_trip(ask(thinking={"type": "adaptive"}), BUDGET)["thinking"]["budget_tokens"] == 16_384


def test_an_effort_of_anthropics_is_a_plain_one_to_others() -> None:
    parsed = parse_request(ask(thinking={"type": "enabled", "budget_tokens": 10_000}))
    request = build_request(None, copy.deepcopy(parsed.kwargs))
    assert to_json(openai_encode(request, "m", stream=False)["reasoning_effort"]) == b'"high"'
    again = encode(request, "m", stream=False, facts=BUDGET)
    assert again["thinking"]["budget_tokens"] == 10_000


MARKS: dict[str, Any] = {
    "eager_input_streaming": True,
    "defer_loading": False,
    "input_examples": [{"a": 1}],
    "allowed_callers": ["direct"],
}


def test_tool_fields_reach_anthropic_and_unknown_ones_are_listed() -> None:
    tool = {"name": "f", "input_schema": SCHEMA, **MARKS}
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    parsed = parse_request(ask(tools=[search, {**tool, "shape": "round"}]))
    assert parsed.ignored == ("tools[1].shape",)
    request = build_request(None, parsed.kwargs)
    assert encode(request, "m", stream=False)["tools"] == [search, tool]


def test_an_output_format_becomes_a_response_format() -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    parsed = parse_request(ask(output_config={"format": form}))
    assert parsed.kwargs["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    closed = {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}}
    assert round_trip(ask(output_config={"format": form}))["output_config"] == {"format": closed}


def test_counting_tokens_takes_the_same_prompt() -> None:
    body = {"model": "m", "system": "s", "messages": [USER], "tools": [{"name": "f"}]}
    kwargs = parse_count_tokens(json.dumps(body).encode()).kwargs
    assert kwargs.keys() == {"model", "messages", "tools"}


def test_openai_gets_no_fields_of_anthropics() -> None:
    body = ask(
        {"role": "assistant", "content": [SIGNED, text("a", **CACHED)]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": True, **CACHED}],
        },
        system=[text("s", **CACHED)],
        tools=[{"name": "f", **CACHED}],
    )
    sent = json.dumps(openai_encode(build_request(None, parse_request(body).kwargs), "m", stream=False))
    assert not any(word in sent for word in ("cache_control", "thinking", "is_error", "signature"))


def block(**asked: Any) -> Any:
    return {"role": "user", "content": [asked]}


def result(**asked: Any) -> Any:
    return block(type="tool_result", tool_use_id="t", content=[asked])


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "messages is missing"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["secret"]}, "messages[0] must be an object"),
        (ask({"role": "secret", "content": ""}), "messages[0].role must be user, assistant or system"),
        (ask({"content": "secret"}), "messages[0].role is missing"),
        (ask({"role": "user"}), "messages[0].content is missing"),
        (ask({"role": "user", "content": {"a": "secret"}}), "messages[0].content must be a list"),
        (ask({"role": "user", "content": ["secret"]}), "messages[0].content[0] must be an object"),
        (ask(block(type={"a": "secret"})), "messages[0].content[0].type must be a string"),
        (ask(block(type="text")), "messages[0].content[0].text is missing"),
        (ask(block(type="text", text=["secret"])), "messages[0].content[0].text must be a string"),
        (
            ask(block(type="document", source={"data": "secret"})),
            "messages[0].content[0].type is not supported: a block of type 'document'",
        ),
        (ask(result(type="tool_reference", tool_name="secret")), "a block of type 'tool_reference'"),
        (ask(block(type="my secret")), "a block without a proper type"),
        (
            ask(block(type="text", text="secret", cache_control=1)),
            "content[0].cache_control must be an object",
        ),
        (ask(block(type="image")), "messages[0].content[0].source.type is missing"),
        (ask(block(type="image", source={"type": "file", "file_id": "secret"})), "source.type must be"),
        (ask(block(type="image", source={"type": "url", "url": ["secret"]})), "source.url must be a string"),
        (
            ask(block(type="image", source={"type": "base64", "data": "secret"})),
            "source.media_type is missing",
        ),
        (ask(block(type="tool_result", content="secret")), "content[0].tool_use_id is missing"),
        (
            ask(block(type="tool_result", tool_use_id="t", content=[{"type": "document"}])),
            "messages[0].content[0].content[0].type",
        ),
        (ask({"role": "assistant", "content": [{"type": "tool_use", "id": "t"}]}), "name is missing"),
        (ask({"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}), "id is missing"),
        (
            ask({"role": "assistant", "content": [{"type": "tool_use", "input": "secret"}]}),
            "input must be an object",
        ),
        (ask({"role": "assistant", "content": [{"type": "thinking"}]}), "content[0].thinking is missing"),
        (
            ask({"role": "assistant", "content": [{"type": "redacted_thinking"}]}),
            "content[0].data is missing",
        ),
        (ask(system=5), "system must be a list"),
        (ask(max_tokens="secret"), "max_tokens must be a whole number"),
        (ask(temperature=float("inf")), "temperature must be a number"),
        (ask(stop_sequences="secret"), "stop_sequences must be a list"),
        (ask(metadata={"user_id": {"a": "secret"}}), "metadata.user_id must be a string"),
        (ask(tools=[{"description": "secret"}]), "tools[0].name is missing"),
        (ask(tools=[{"name": "f", "input_schema": "secret"}]), "tools[0].input_schema must be an object"),
        (ask(tool_choice={"type": "secret"}), "tool_choice.type must be"),
        (ask(tool_choice={"type": "tool"}), "tool_choice.name is missing"),
        (ask(thinking={"type": "secret"}), "thinking.type must be"),
        (ask(thinking={"type": "enabled"}), "thinking.budget_tokens is missing"),
        (ask(output_config={"effort": "secret"}), "output_config.effort must be"),
        (ask(output_config={"format": {"type": "secret"}}), "output_config.format.type must be"),
        (ask(output_config={"format": {"type": "json_schema"}}), "output_config.format.schema is missing"),
        (ask(stream=1), "stream must be true or false"),
    ],
)
def test_a_fault_names_its_place_and_quotes_nothing(body: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(body)
    assert place in str(caught.value)
    assert "secret" not in str(caught.value)
