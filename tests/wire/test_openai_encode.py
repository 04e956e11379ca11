"""Requests as OpenAI-compatible servers get them."""

from __future__ import annotations

import pytest
from tests.wire.support import asked

from ccroute.types import Function, Message, Model, ToolCall
from ccroute.wire.openai import Dialect, encode, refusals

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


def test_the_canonical_form_is_sent_as_it_is() -> None:
    given = {
        "temperature": 0.0,
        "top_p": 0.9,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
        "logit_bias": {"50256": -100.0},
        "logprobs": False,
        "top_logprobs": 2,
        "stop": ["a", "b"],
        "seed": 0,
        "user": "u",
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": SCHEMA,
        "reasoning_effort": "low",
    }
    body = encode(asked(max_tokens=7, tools=[TOOL], **given), "gpt-4o", stream=False)
    assert body == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "tools": [TOOL],
        **given,
    }


def test_what_was_not_given_is_not_sent() -> None:
    body = encode(asked(stop=[], tools=[], logit_bias={}, parallel_tool_calls=False), "m", stream=False)
    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_a_stream_asks_for_usage_unless_the_server_does_not_know_it() -> None:
    assert encode(asked(), "m", stream=True)["stream_options"] == {"include_usage": True}
    body = encode(asked(), "m", stream=True, dialect=Dialect(include_usage=False))
    assert body["stream"] is True
    assert "stream_options" not in body


def test_openai_gets_its_own_name_for_the_limit_and_its_own_roles() -> None:
    request = asked({"role": "developer", "content": "x"}, max_tokens=5)
    dialect = Dialect(max_tokens="max_completion_tokens", developer_role=True)
    body = encode(request, "m", stream=False, dialect=dialect)
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body
    assert body["messages"][0]["role"] == "developer"
    assert encode(request, "m", stream=False)["messages"][0]["role"] == "system"


@pytest.mark.parametrize(("dialect", "word"), [(Dialect(), "xhigh"), (Dialect(top_effort="high"), "high")])
def test_the_highest_effort_is_said_in_the_servers_word(dialect: Dialect, word: str) -> None:
    assert (
        encode(asked(reasoning_effort="max"), "m", stream=False, dialect=dialect)["reasoning_effort"] == word
    )


def test_what_belongs_to_other_wires_is_taken_out() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    request = asked(
        {"role": "system", "content": "s", **cached},
        {"role": "user", "content": [{"type": "text", "text": "t", **cached}]},
        {
            "role": "assistant",
            "content": "a",
            "thinking": "hm",
            "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "x"}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "no", "is_error": True},
        tools=[{**TOOL, **cached}],
    )
    body = encode(request, "m", stream=False)
    assert body["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "t"}]},
        {"role": "assistant", "content": "a"},
        {"role": "tool", "tool_call_id": "c", "content": "no"},
    ]
    assert body["tools"] == [TOOL]
    assert request.messages[0]["cache_control"], "the caller's own messages stay as they are"


def test_an_answer_of_ours_is_a_message_of_theirs() -> None:
    call = ToolCall(id="c", function=Function(name="f", arguments="{}"))
    answer = Message(content=None, tool_calls=(call,), thinking="hm").to_dict()
    assert encode(asked(answer), "m", stream=False)["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
    ]


def test_images_go_as_they_are() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}]
    message = {"role": "user", "content": parts}
    assert encode(asked(message), "m", stream=False)["messages"] == [message]


def test_extra_goes_on_top() -> None:
    extra = {"top_k": 3, "model": "other", "stream_options": {"x": 1}}
    body = encode(asked(extra=extra), "m", stream=True)
    assert (body["top_k"], body["model"]) == (3, "other")
    assert body["stream_options"] == {"include_usage": True, "x": 1}


def test_top_k_is_sent_only_to_servers_that_know_it() -> None:
    request = asked(top_k=5)
    assert list(refusals(request)) == ["top_k"]
    assert refusals(request, Dialect(top_k=True)) == {}
    assert encode(request, "m", stream=False, dialect=Dialect(top_k=True))["top_k"] == 5


def test_where_schemas_are_unknown_plain_json_still_works() -> None:
    dialect = Dialect(json_schema=False)
    assert list(refusals(asked(response_format=SCHEMA), dialect)) == ["response_format"]
    assert refusals(asked(response_format={"type": "json_object"}), dialect) == {}


def test_only_parameters_that_were_given_are_refused() -> None:
    dialect = Dialect(unknown=frozenset({"user", "logit_bias", "seed"}))
    assert list(refusals(asked(user="u", logit_bias={}, seed=0), dialect)) == ["seed", "user"]


GATEWAY = Dialect(cache_control=True)
MARK = {"cache_control": {"type": "ephemeral"}}


def test_a_mark_of_a_message_goes_to_its_last_part() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = asked({"role": "user", "content": parts, **MARK}, {"role": "user", "content": "", **MARK})
    sent = encode(request, "m", stream=False, dialect=GATEWAY)["messages"]
    assert sent[0]["content"] == [parts[0], {**parts[1], **MARK}]
    assert sent[1] == {"role": "user", "content": ""}  # there is nothing to cache


def test_fields_of_a_tool_calls_function_go_back_too() -> None:
    inner = {"provider_specific_fields": {"thought_signature": "x"}}
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    custom = {"type": "custom", "custom": {"name": "g", "input": "x"}}
    kept = {**called, "provider_fields": {"host": {"function": inner}}}
    request = asked({"role": "assistant", "content": "", "tool_calls": [kept, custom]})
    sent = encode(request, "m", stream=False, provider="host")["messages"][0]["tool_calls"]
    assert sent == [{**called, "function": {**called["function"], **inner}}, custom]
    strict = encode(request, "m", stream=False, dialect=Dialect(own_fields=False), provider="host")
    assert strict["messages"][0]["tool_calls"] == [called, custom]


@pytest.mark.parametrize("kept", [None, [], {"host": 3}, {"other": {"a": 1}}])
def test_provider_fields_without_owner_or_shape_are_not_sent(kept: object) -> None:
    request = asked({"role": "assistant", "content": "x", "provider_fields": kept})
    sent = encode(request, "m", stream=False, provider="host")["messages"]
    assert sent == [{"role": "assistant", "content": "x"}]


def test_fields_never_replace_what_the_message_says_itself() -> None:
    fields = {"content": "evil", "reasoning": "hm"}
    request = asked({"role": "assistant", "content": "x", "provider_fields": {"host": fields}})
    sent = encode(request, "m", stream=False, provider="host")["messages"]
    assert sent == [{"role": "assistant", "content": "x", "reasoning": "hm"}]


def test_a_model_that_takes_no_effort_refuses_each() -> None:
    facts = Model(efforts=())
    for effort in ("none", "high"):
        why = refusals(asked(reasoning_effort=effort), model="grok-4", facts=facts)
        assert "grok-4" in why["reasoning_effort"]
    why = refusals(asked(reasoning_effort="low"), facts=Model(refuses=("reasoning_effort",)))
    assert "does not take it;" in why["reasoning_effort"]


def test_images_and_a_user_message_without_text_become_one() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    result = {"role": "tool", "tool_call_id": "c", "content": [picture]}
    sent = encode(asked(result, {"role": "user", "content": [picture]}), "m", stream=False)["messages"]
    assert [part["type"] for part in sent[1]["content"]] == ["text", "image_url", "image_url"]


def test_none_in_extra_takes_a_field_out() -> None:
    extra = {"stream_options": None, "max_tokens": None}
    assert encode(asked(max_tokens=3, extra=extra), "m", stream=True).keys() == {
        "model",
        "messages",
        "stream",
    }


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (' {"a":1.0}\n', ' {"a":1.0}\n'),
        ('{"a": "cut o', '{"arguments":"{\\"a\\": \\"cut o"}'),
        ("[1]", '{"arguments":[1]}'),
        ('"x"', '{"arguments":"x"}'),
        ('{"a": NaN}', '{"a":null}'),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_arguments_are_sent_as_the_text_of_an_object(written: object, sent: str) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": written}}
    body = encode(asked({"role": "assistant", "content": "", "tool_calls": [call]}), "m", stream=False)
    assert body["messages"][0]["tool_calls"][0]["function"]["arguments"] == sent
