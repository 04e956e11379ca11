"""Whole answers of OpenAI-compatible servers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.support import as_json, fixture

from ccroute.errors import ProtocolError
from ccroute.types import Completion, Usage
from ccroute.wire.openai import decode


def answer(usage: Any = None, finish: Any = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return as_json({"id": "c", "created": 5, "model": "m", "choices": [choice], "usage": usage})


def usage_of(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


def test_a_whole_answer_is_read_with_all_it_holds() -> None:
    completion = decode(fixture("openai_whole.json"))
    assert (completion.id, completion.created, completion.model) == (
        "chatcmpl-1",
        1730000000,
        "gpt-4o-2024-08-06",
    )
    assert completion.text == "It is 7 °C in Köln."
    assert completion.thinking == "Let me see."
    assert [(call.id, call.function.name, call.function.arguments) for call in completion.tool_calls] == [
        ("call_a", "weather", '{"city": "Köln"}'),
        ("call_1", "time", "{}"),
    ]
    assert (completion.finish_reason, completion.raw_finish_reason) == ("tool_calls", "tool_calls")
    assert completion.usage == Usage(input=30, cache_read=60, cache_write_5m=10, output=40, reasoning=16)
    assert completion.raw["timings"] == {"cache_n": 0}


def test_a_real_llama_cpp_answer_is_read() -> None:
    completion = decode(fixture("openai_llamacpp.json"))
    assert completion.usage == Usage(input=1, cache_read=23, output=6)
    assert completion.finish_reason == "length"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "stop"),  # there is no call
        ("function_call", "stop"),
        ("content_filter", "content_filter"),
        ("stop_sequence", "stop"),
        ("eos_token", "stop"),
        ("abort", "other"),
        ("repetition", "other"),
        ("brand_new", "other"),
        (None, "stop"),  # a whole answer is complete
        (7, "stop"),
    ],
)
def test_finish_reasons_are_canonical_and_the_raw_word_is_kept(raw: Any, reason: str) -> None:
    completion = decode(answer(finish=raw, content="x"))
    assert completion.finish_reason == reason
    assert completion.raw_finish_reason == (raw if isinstance(raw, str) else None)


def test_stop_with_tool_calls_is_tool_calls() -> None:
    completion = decode(
        answer(content=None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}])
    )
    assert (completion.finish_reason, completion.raw_finish_reason) == ("tool_calls", "stop")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_is_found_under_both_its_names(field: str) -> None:
    assert decode(answer(content="x", **{field: "hm"})).thinking == "hm"


def test_content_may_be_null_a_text_or_parts() -> None:
    assert decode(answer(content=None)).message.content is None
    assert decode(answer(content=[{"type": "text", "text": "a"}, {"type": "x"}, 3])).text == "a"


def test_a_refusal_is_the_text_and_the_finish_reason() -> None:
    completion = decode(answer(content=None, refusal="I will not."))
    assert (completion.text, completion.finish_reason, completion.raw_finish_reason) == (
        "I will not.",
        "content_filter",
        "stop",
    )


def test_an_old_function_call_is_a_tool_call() -> None:
    completion = decode(answer(finish="function_call", function_call={"name": "f", "arguments": '{"a":1}'}))
    assert [(call.id, call.function.name) for call in completion.tool_calls] == [("call_0", "f")]


def test_invalid_tool_json_is_kept_raw() -> None:
    completion = decode(answer(tool_calls=[{"id": "c", "function": {"name": "f", "arguments": '{"a": '}}]))
    assert completion.tool_calls[0].function.arguments == '{"a": '


def test_tool_calls_get_ids_where_they_are_missing_or_double() -> None:
    entries = [{"id": "0", "function": {"name": name, "arguments": {"a": 1}}} for name in "fg"]
    completion = decode(answer(tool_calls=[*entries, {"function": None}]))
    assert [call.id for call in completion.tool_calls] == ["0", "call_1", "call_2"]
    assert completion.tool_calls[0].function.arguments == '{"a":1}'


def test_several_choices_are_all_there() -> None:
    choices = [
        {"index": i, "message": {"content": text}, "finish_reason": "stop"} for i, text in enumerate("ab")
    ]
    completion = decode(as_json({"choices": choices}))
    assert [choice.message.content for choice in completion.choices] == ["a", "b"]


def test_logprobs_are_kept() -> None:
    choice = {"message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": [{"token": "x"}]}}
    assert decode(as_json({"choices": [choice]})).choices[0].logprobs == {"content": [{"token": "x"}]}


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -1, 12.0, "12", True, None, 10**30, [1]])
def test_nonsense_usage_is_unknown_and_estimated(nonsense: Any) -> None:
    usage = decode(answer(usage_of(nonsense, nonsense), content="x" * 41)).usage
    assert usage == Usage(output=11, estimated=True)


@pytest.mark.parametrize("usage", [None, {}, [], "x", usage_of(0, 0)])
def test_usage_that_is_absent_is_estimated_and_flagged(usage: Any) -> None:
    assert decode(answer(usage, content="four")).usage == Usage(output=1, estimated=True)


def test_the_part_of_usage_that_is_known_is_kept() -> None:
    assert decode(answer(usage_of(10, None), content="four")).usage == Usage(
        input=10, output=1, estimated=True
    )
    assert decode(answer(usage_of(None, 5), content="four")).usage == Usage(output=5, estimated=True)


def test_an_empty_answer_may_have_used_no_output() -> None:
    assert decode(answer(usage_of(10, 0), content="")).usage == Usage(input=10)


def test_more_cached_than_prompted_is_clamped() -> None:
    details = {"cached_tokens": 500, "cache_write_tokens": 500}
    assert decode(answer(usage_of(10, 5, prompt_tokens_details=details), content="x")).usage == Usage(
        cache_read=10, output=5
    )
    details = {"cached_tokens": -5, "cache_write_tokens": 7}
    assert decode(answer(usage_of(10, 5, prompt_tokens_details=details), content="x")).usage == Usage(
        input=3, cache_write_5m=7, output=5
    )


def test_more_thought_than_said_is_clamped() -> None:
    details = {"reasoning_tokens": 50}
    assert (
        decode(answer(usage_of(10, 5, completion_tokens_details=details), content="x")).usage.reasoning == 5
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b"<html><body>Sign in</body></html>",
        b"not json",
        b'{"choices":[',
        b'{"choices":[]}',
        b'{"choices":{}}',
        b'{"choices":[3]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"message":"x"}]}',
        b'{"choices":[{"message":{"content":7}}]}',
        b'{"choices":[{"message":{"tool_calls":7}}]}',
        b'{"choices":[{"message":{"tool_calls":[7]}}]}',
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'\xff{"choices":[]}',
    ],
)
def test_what_is_no_answer_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(body)


def test_a_login_page_is_named_as_such() -> None:
    with pytest.raises(ProtocolError, match=r"web page.*base_url"):
        decode(b"\n<!DOCTYPE html><html>")


def test_invalid_utf8_is_replaced_in_text() -> None:
    body = answer(content="ab").replace(b"ab", b"a\xffb")
    assert decode(body).text == "a�b"


def test_half_a_surrogate_pair_is_replaced_in_text() -> None:
    body = answer(content="X").replace(b"X", rb"\ud83d \ud83d\ude80 \\ud83d \u00e9")
    assert decode(body).text == "� 🚀 \\ud83d é"


def test_fields_nothing_depends_on_may_be_anything() -> None:
    choice = {"message": {"content": "x", "reasoning": 3}, "finish_reason": "stop"}
    completion = decode(as_json({"id": 3, "created": "x", "model": None, "choices": [choice], "usage": 3}))
    assert isinstance(completion, Completion)
    assert (completion.id, completion.created, completion.model) == ("", 0, "")
