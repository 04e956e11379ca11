"""Ollama's answers, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.support import as_json, fixture, lines, run

from ccroute.errors import ContextWindowExceededError, InvalidRequestError, ProtocolError, ServerError
from ccroute.types import Chunk, Function, ToolCall, Usage
from ccroute.wire import anthropic, openai
from ccroute.wire.ollama import Decoder, decode

CALLS = (
    ToolCall(id="call_0", function=Function(name="weather", arguments='{"city":"Köln"}'), index=0),
    ToolCall(id="call_1", function=Function(name="time", arguments="{}"), index=1),
)


def line(content: Any = "", *, done: bool = False, **more: Any) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": content}, "done": done, **more}


def test_a_whole_answer_is_read_with_all_it_holds() -> None:
    completion = decode(fixture("ollama_whole.json"))
    assert (completion.model, completion.created) == ("qwen3", 1730000000)
    assert (completion.text, completion.thinking) == ("It is 7 °C in Köln.", "Let me see.")
    assert completion.tool_calls == CALLS
    assert completion.usage == Usage(input=26, output=29)
    assert completion.raw["load_duration"] == 2154458


def test_a_stream_is_read_with_all_it_holds() -> None:
    chunks, completion = run(Decoder(), fixture("ollama_thinking_tools.ndjson"))
    assert chunks == [
        Chunk(thinking="Let me "),
        Chunk(thinking="see."),
        Chunk(text="Köln "),
        Chunk(text="🚀"),
        Chunk(tool_calls=CALLS),
    ]
    assert (completion.model, completion.created) == ("qwen3", 1730000000)
    assert (completion.text, completion.thinking) == ("Köln 🚀", "Let me see.")
    assert completion.tool_calls == CALLS
    assert completion.usage == Usage(input=26, output=29)


def test_the_cost_of_a_model_swap_is_kept_of_a_stream_too() -> None:
    assert run(Decoder(), fixture("ollama_thinking_tools.ndjson"))[1].raw == {
        "total_duration": 5191566416,
        "load_duration": 2154458,
        "prompt_eval_duration": 383809000,
        "eval_duration": 4799921000,
    }
    assert run(Decoder(), lines(line("x", done=True)))[1].raw is None


def test_tool_calls_that_end_with_stop_are_tool_calls() -> None:
    for completion in (
        decode(fixture("ollama_whole.json")),
        run(Decoder(), fixture("ollama_thinking_tools.ndjson"))[1],
    ):
        assert (completion.finish_reason, completion.raw_finish_reason) == ("tool_calls", "stop")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("load", "other"),
        ("unload", "other"),
        ("new", "other"),
        (None, "stop"),
    ],
)
def test_done_reasons_are_canonical_and_the_raw_word_is_kept(raw: str | None, reason: str) -> None:
    frame = line("x", done=True, done_reason=raw)
    for completion in (decode(as_json(frame)), run(Decoder(), lines(frame))[1]):
        assert (completion.finish_reason, completion.raw_finish_reason) == (reason, raw)


@pytest.mark.parametrize("raw", ["load", "unload"])
def test_an_answer_that_only_loaded_the_model_is_the_callers_mistake(raw: str) -> None:
    frame = line(done=True, done_reason=raw)
    with pytest.raises(InvalidRequestError, match="user's message"):
        decode(as_json(frame))
    with pytest.raises(InvalidRequestError, match="user's message"):
        run(Decoder(), lines(frame))


def test_ids_are_given_over_several_lines_and_own_ones_kept() -> None:
    frames = [line(), line(), line("x", done=True)]
    frames[0]["message"]["tool_calls"] = [{"id": "mine", "function": {"name": "f", "arguments": {}}}]
    frames[1]["message"] |= {
        "tool_calls": [{"function": {"name": "g", "arguments": "{oops"}}],
        "content": "and",
    }
    completion = run(Decoder(), lines(*frames))[1]
    assert [(call.id, call.function.arguments) for call in completion.tool_calls] == [
        ("mine", "{}"),
        ("call_1", "{oops"),
    ]
    assert completion.text == "andx"


def test_an_answer_that_is_not_done_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="done: false"):
        decode(as_json(line("x")))


def test_a_stream_without_done_is_no_success() -> None:
    decoder = Decoder()
    assert decoder.feed(lines(line("Hello"), line(" world"))) == [Chunk(text="Hello"), Chunk(text=" world")]
    assert not decoder.done
    with pytest.raises(ProtocolError, match="without done: true"):
        decoder.finish()
    partial = decoder.partial()
    assert (partial.text, partial.finish_reason) == ("Hello world", None)
    assert partial.usage == Usage(output=2, estimated=True)


def test_nothing_after_done_matters() -> None:
    decoder = Decoder()
    decoder.feed(lines(line("x", done=True, done_reason="stop"), line("late"), {"error": "late"}))
    assert decoder.done
    assert decoder.feed(lines(line("later"))) == []
    assert decoder.finish().text == "x"


def test_a_last_line_without_its_end_counts_if_it_is_whole() -> None:
    assert run(Decoder(), lines(line("x"), line(done=True)).rstrip())[1].text == "x"
    with pytest.raises(ProtocolError):
        run(Decoder(), lines(line("x"), line(done=True)).rstrip()[:-1])


def test_blank_lines_are_skipped() -> None:
    stream = lines(line("x"), line("y"), line(done=True)).replace(b"\n", b"\n \t\n\n")
    assert run(Decoder(), b"\n" + stream)[1].text == "xy"


def test_counts_that_are_left_out_are_estimated_or_zero() -> None:
    def usage(content: str, **counts: Any) -> Usage:
        return decode(as_json(line(content, done=True, **counts))).usage

    assert usage("x", prompt_eval_count=26, eval_count=2) == Usage(input=26, output=2)
    cached = {"prompt_eval_count": 26, "prompt_eval_cached_count": 20, "eval_count": 2}
    assert usage("x", **cached) == Usage(input=6, cache_read=20, output=2)
    assert usage("x", **cached | {"prompt_eval_cached_count": 99}) == Usage(cache_read=26, output=2)
    assert usage("x", eval_count=2) == Usage(output=2, estimated=True)
    assert usage("x" * 12, prompt_eval_count=26) == Usage(input=26, output=3, estimated=True)
    assert usage("", prompt_eval_count=26) == Usage(input=26)
    for nonsense in (float("nan"), float("inf"), -1, 1.5, "3", None):
        assert usage("x" * 12, prompt_eval_count=nonsense, eval_count=nonsense) == Usage(
            output=3, estimated=True
        )


def test_an_error_line_before_content_is_raised_at_once() -> None:
    with pytest.raises(ServerError, match="runner has unexpectedly stopped"):
        Decoder().feed(lines({"error": "model runner has unexpectedly stopped"}))


def test_an_error_line_after_content_waits_for_the_end() -> None:
    decoder = Decoder()
    assert decoder.feed(lines(line("x"), {"error": "boom"}, line("y"))) == [Chunk(text="x")]
    assert decoder.done
    with pytest.raises(ServerError, match="boom"):
        decoder.finish()


def test_an_error_body_under_200_is_classified() -> None:
    body = b'{"error":"the input length exceeds the context length"}'
    with pytest.raises(ContextWindowExceededError):
        decode(body)
    decoder = Decoder()
    decoder.feed(body)
    with pytest.raises(ContextWindowExceededError):
        decoder.finish()


def test_logprobs_are_gathered() -> None:
    entries = [{"token": "x", "logprob": -0.1}]
    frames = [line("x", logprobs=entries), line(done=True)]
    assert run(Decoder(), lines(*frames))[1].choices[0].logprobs == {"content": entries}
    assert decode(as_json(line("x", done=True, logprobs=entries))).choices[0].logprobs == {"content": entries}


@pytest.mark.parametrize("time", ["", "soon", None, 7, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:00"])
def test_a_time_that_is_none_does_no_harm(time: Any) -> None:
    assert isinstance(decode(as_json(line("x", done=True, created_at=time))).created, int)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>",
        b'{"message":3,"done":true}',
        b'{"message":{"content":3},"done":true}',
        b'{"message":{"tool_calls":3},"done":true}',
        b'{"message":' * 100_000,
    ],
)
def test_what_is_no_answer_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(body)
    with pytest.raises(ProtocolError):
        run(Decoder(), body + b"\n")


def test_a_web_page_is_named_as_such() -> None:
    with pytest.raises(ProtocolError, match="web page"):
        run(Decoder(), b"<html>")


def test_an_imitated_answer_without_end_and_usage_was_cut() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "same same"}, "finish_reason": None}
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    with pytest.raises(ProtocolError, match="broke the answer off"):
        openai.decode(as_json({"choices": [choice], "usage": nothing}))
    with pytest.raises(ProtocolError, match="broke the answer off"):
        blocks = [{"type": "text", "text": "same same"}]
        anthropic.decode(as_json({"content": blocks, "usage": {"input_tokens": 0, "output_tokens": 0}}))
    assert openai.decode(as_json({"choices": [choice]})).text == "same same"
    assert openai.decode(as_json({"choices": [choice], "usage": nothing | {"total_tokens": 3}})).text
    ended = choice | {"finish_reason": "stop"}
    assert openai.decode(as_json({"choices": [ended], "usage": nothing})).finish_reason == "stop"


def test_an_imitated_answer_without_content_is_empty() -> None:
    answer = {"content": None, "stop_reason": "end_turn", "usage": {"input_tokens": 176, "output_tokens": 4}}
    assert (anthropic.decode(as_json(answer)).text, anthropic.decode(as_json(answer)).finish_reason) == (
        "",
        "stop",
    )
