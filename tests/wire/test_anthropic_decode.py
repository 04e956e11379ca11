"""Anthropic's answers, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.wire.support import as_json, asked, fixture, named, run

from ccroute.errors import (
    AuthenticationError,
    BackendTimeoutError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)
from ccroute.types import Chunk, Completion, Function, Model, ToolCall, Usage
from ccroute.wire.anthropic import Decoder, decode, encode

THINKING = {"type": "thinking", "thinking": "Let me see.", "signature": "EqQB"}
CLAUDE = Model(thinking="budget")
USER = {"role": "user", "content": "hi"}
REDACTED = {"type": "redacted_thinking", "data": "Emw="}
START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "c", "usage": {"input_tokens": 9, "output_tokens": 1}},
}
STOP = {"type": "message_stop"}


def answer(*content: Any, stop: Any = "end_turn", usage: Any = None) -> bytes:
    return as_json({"type": "message", "id": "m", "content": content, "stop_reason": stop, "usage": usage})


def block(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": fields}


def piece(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def end(reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def texts(*pieces: str) -> list[dict[str, Any]]:
    return [START, block(0, type="text", text=""), *(piece(0, "text_delta", text=text) for text in pieces)]


def test_a_whole_answer_is_read_with_all_it_holds() -> None:
    completion = decode(fixture("anthropic_whole.json"))
    assert (completion.id, completion.model) == ("msg_1", "claude-opus-4-20250514")
    assert completion.text == "I look it up."
    assert completion.thinking == "Let me see."
    assert completion.message.thinking_blocks == (THINKING, REDACTED)
    assert completion.tool_calls == (
        ToolCall(id="toolu_1", function=Function(name="weather", arguments='{"city":"Köln"}'), index=0),
        ToolCall(id="toolu_2", function=Function(name="time", arguments="{}"), index=1),
    )
    assert (completion.finish_reason, completion.raw_finish_reason) == ("tool_calls", "tool_use")
    assert completion.usage == Usage(
        input=25, cache_read=100, cache_write_5m=10, cache_write_1h=20, output=89, reasoning=12
    )
    assert completion.usage.prompt_tokens == 155


def test_a_stream_is_read_with_all_it_holds() -> None:
    chunks, completion = run(Decoder(), fixture("anthropic_thinking_tools.sse"))
    assert chunks == [
        Chunk(thinking="Let me "),
        Chunk(thinking="see."),
        Chunk(signature="EqQB"),
        Chunk(block=REDACTED),
        Chunk(text="I look "),
        Chunk(text="it up."),
        Chunk(tool_calls=(ToolCall(id="toolu_1", function=Function(name="weather"), index=0),)),
        Chunk(tool_calls=(ToolCall(function=Function(arguments='{"city": '), index=0),)),
        Chunk(tool_calls=(ToolCall(function=Function(arguments='"Köln"}'), index=0),)),
        Chunk(tool_calls=(ToolCall(id="toolu_2", function=Function(name="time"), index=1),)),
    ]
    assert (completion.id, completion.model) == ("msg_1", "claude-opus-4")
    assert (completion.text, completion.thinking) == ("I look it up.", "Let me see.")
    assert completion.message.thinking_blocks == (THINKING, REDACTED)
    assert [call.function.arguments for call in completion.tool_calls] == ['{"city": "Köln"}', "{}"]
    assert (completion.finish_reason, completion.raw_finish_reason) == ("tool_calls", "tool_use")


def test_usage_of_message_delta_is_cumulative_and_replaces() -> None:
    assert run(Decoder(), fixture("anthropic_thinking_tools.sse"))[1].usage == Usage(
        input=25, cache_read=100, cache_write_5m=10, cache_write_1h=20, output=89, reasoning=12
    )


def test_real_llama_cpp_answers_are_read() -> None:
    chunks, completion = run(Decoder(), fixture("anthropic_llamacpp.sse"))
    assert "".join(chunk.text for chunk in chunks) == completion.text
    assert completion.finish_reason == "length"
    # This build sometimes leaves `message_start` out, and with it the prompt's tokens.
    assert completion.usage == Usage(output=6, estimated=True)
    assert decode(fixture("anthropic_llamacpp.json")).usage == Usage(input=1, cache_read=23, output=6)


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    calls = [
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    ]
    streamed = run(Decoder(), fixture("anthropic_thinking_tools.sse"))[1]
    said = {"type": "text", "text": "I look it up."}
    assert sent_back(streamed) == [THINKING, REDACTED, said, *calls]
    whole = json.loads(fixture("anthropic_whole.json"))["content"]
    assert sent_back(decode(fixture("anthropic_whole.json"))) == whole
    without = [block for block in whole if block["type"] != "server_tool_use"]
    assert sent_back(decode(fixture("anthropic_whole.json")), Model()) == without, (
        "only Claude knows that block"
    )


def sent_back(completion: Completion, facts: Model = CLAUDE) -> Any:
    body = encode(asked(completion.message.to_dict(), USER), "claude", stream=False, facts=facts)
    return body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "stop"),  # no call came
        ("refusal", "content_filter"),
        ("pause_turn", "other"),
        ("brand_new", "other"),
        (None, "other"),
    ],
)
def test_stop_reasons_are_canonical_and_the_raw_word_is_kept(raw: str | None, reason: str) -> None:
    whole = decode(answer({"type": "text", "text": "x"}, stop=raw))
    streamed = run(Decoder(), named(*texts("x"), end(raw), STOP))[1]
    assert whole.finish_reason == streamed.finish_reason == reason
    assert whole.raw_finish_reason == streamed.raw_finish_reason == raw


def test_a_schemas_forced_tool_is_undone_in_the_answer() -> None:
    whole = decode(
        answer({"type": "tool_use", "id": "t", "name": "ccroute_answer", "input": {"a": 1}}, stop="tool_use")
    )
    assert (whole.text, whole.tool_calls, whole.finish_reason) == ('{"a":1}', (), "stop")
    frames = [START, block(0, type="tool_use", id="t", name="ccroute_answer", input={})]
    frames += [piece(0, "input_json_delta", partial_json=text) for text in ("", '{"a"', ":1}")]
    chunks, streamed = run(Decoder(), named(*frames, end("tool_use"), STOP))
    assert chunks == [Chunk(text='{"a"'), Chunk(text=":1}")]
    assert (streamed.text, streamed.tool_calls, streamed.finish_reason) == ('{"a":1}', (), "stop")


def test_a_schemas_tool_beside_another_leaves_the_other_a_tool_call() -> None:
    uses: list[dict[str, Any]] = [
        {"type": "tool_use", "id": name, "name": name, "input": {}} for name in ("ccroute_answer", "f")
    ]
    whole = decode(answer(*uses, stop="tool_use"))
    assert (whole.finish_reason, [call.id for call in whole.tool_calls]) == ("tool_calls", ["f"])


def test_input_that_comes_whole_at_the_start_is_taken() -> None:
    frames = [START, block(0, type="tool_use", id="", name="f", input={"a": 1}), end("tool_use"), STOP]
    chunks, completion = run(Decoder(), named(*frames))
    assert len(chunks) == 2
    assert [(call.id, call.function.arguments) for call in completion.tool_calls] == [("call_0", '{"a":1}')]


def test_invalid_tool_json_is_kept_raw() -> None:
    frames = [
        START,
        block(0, type="tool_use", id="t", name="f"),
        piece(0, "input_json_delta", partial_json='{"a'),
    ]
    assert run(Decoder(), named(*frames, end("tool_use"), STOP))[1].tool_calls[0].function.arguments == '{"a'


def test_text_and_thinking_in_a_blocks_start_are_taken() -> None:
    frames = [START, block(0, type="thinking", thinking="hm", signature="s"), block(1, type="text", text="x")]
    chunks, completion = run(Decoder(), named(*frames, end(), STOP))
    assert chunks == [Chunk(thinking="hm"), Chunk(text="x")]
    assert completion.message.thinking_blocks == ({"type": "thinking", "thinking": "hm", "signature": "s"},)


def test_pings_unknown_events_blocks_and_deltas_are_ignored() -> None:
    odd: list[dict[str, Any]] = [
        {"type": "ping"},
        {"type": "brand_new", "x": 1},
        block(7, type="server_tool_use", id="s", name="web_search", input={"q": 1}),
        piece(7, "input_json_delta", partial_json="{}"),
        piece(0, "citations_delta", citation={}),
        piece(9, "thinking_delta", thinking="hm"),
        {"type": "content_block_stop", "index": 0},
    ]
    stream = named(*texts("x"), *odd) + b"event: odd\ndata: tick\n\ndata\n\n" + named(end(), STOP)
    completion = run(Decoder(), stream)[1]
    assert (completion.text, completion.tool_calls, completion.message.thinking_blocks) == ("x", (), ())


def test_events_without_names_are_read_by_their_type() -> None:
    stream = b"".join(b"data: " + as_json(frame) + b"\n\n" for frame in [*texts("x"), end(), STOP])
    assert run(Decoder(), stream)[1].text == "x"


def test_message_stop_is_the_only_success() -> None:
    decoder = Decoder()
    decoder.feed(named(*texts("x"), end()))
    assert not decoder.done
    with pytest.raises(ProtocolError, match="without message_stop"):
        decoder.finish()
    decoder = Decoder()
    decoder.feed(named(*texts("x"), end(), STOP))
    assert decoder.done
    assert decoder.feed(named(*texts("y"))) == []
    assert decoder.finish().text == "x"


def test_the_first_stop_wins_and_content_after_it_is_ignored() -> None:
    late = [
        piece(0, "text_delta", text="late"),
        block(1, type="text", text="late"),
        end("max_tokens", output_tokens=7),
    ]
    completion = run(Decoder(), named(*texts("x"), end(output_tokens=5), *late, STOP))[1]
    assert (completion.text, completion.finish_reason) == ("x", "stop")
    assert completion.usage == Usage(input=9, output=7)


def test_output_without_a_message_delta_is_estimated() -> None:
    stream = named(*texts("Hello", " world, it is"), end(), STOP)
    assert run(Decoder(), stream)[1].usage == Usage(input=9, output=5, estimated=True)


def test_a_partial_answer_estimates_only_its_output() -> None:
    decoder = Decoder()
    decoder.feed(named(*texts("Hello", " world")))
    partial = decoder.partial()
    assert (partial.text, partial.finish_reason) == ("Hello world", None)
    assert partial.usage == Usage(input=9, output=2, estimated=True)


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -1, 12.0, "12", None])
def test_nonsense_usage_is_unknown_and_estimated(nonsense: Any) -> None:
    usage = {
        "input_tokens": nonsense,
        "output_tokens": nonsense,
        "cache_read_input_tokens": nonsense,
        "cache_creation": {"ephemeral_1h_input_tokens": nonsense},
    }
    completion = decode(answer({"type": "text", "text": "x" * 8}, usage=usage))
    assert completion.usage == Usage(output=2, estimated=True)


@pytest.mark.parametrize(
    ("usage_fields", "expected"),
    [
        ({"cache_creation_input_tokens": 30}, (30, 0)),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}}, (10, 20)),
        ({"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 20}}, (0, 5)),
    ],
)
def test_cache_writes_are_split_by_their_lifetime(
    usage_fields: dict[str, Any], expected: tuple[int, int]
) -> None:
    usage = decode(
        answer({"type": "text", "text": "x"}, usage={"input_tokens": 0, "output_tokens": 1, **usage_fields})
    ).usage
    assert (usage.cache_write_5m, usage.cache_write_1h) == expected
    assert not usage.estimated


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("invalid_request_error", InvalidRequestError),
        ("authentication_error", AuthenticationError),
        ("billing_error", QuotaExhaustedError),
        ("permission_error", PermissionDeniedError),
        ("not_found_error", ModelNotFoundError),
        ("request_too_large", InvalidRequestError),
        ("rate_limit_error", RateLimitError),
        ("timeout_error", BackendTimeoutError),
        ("api_error", ServerError),
        ("overloaded_error", OverloadedError),
        ("brand_new_error", ServerError),
    ],
)
def test_an_error_under_http_200_is_classified_by_its_type(kind: str, error: type[Exception]) -> None:
    frame = {"type": "error", "error": {"type": kind, "message": "words"}}
    for stream in (named(START, frame), b"data: " + as_json(frame) + b"\n\n"):
        with pytest.raises(error, match="words"):
            Decoder().feed(stream)
    with pytest.raises(error, match="words"):
        decode(as_json(frame))


def test_overloaded_after_content_waits_for_the_end() -> None:
    decoder = Decoder()
    frame = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert decoder.feed(named(*texts("x"), frame, STOP)) == [Chunk(text="x")]
    assert decoder.done
    with pytest.raises(OverloadedError):
        decoder.finish()
    assert decoder.partial().text == "x"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"<html>",
        b'{"content":3}',
        b'{"content":[3]}',
        b'{"content":[{"type":"text","text":3}]}',
        b'{"content":' * 100_000,
    ],
)
def test_what_is_no_answer_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(body)


@pytest.mark.parametrize(
    "frame",
    [
        block(0),
        {"type": "content_block_start"},
        {"type": "content_block_start", "index": "0", "content_block": {}},
        {"type": "content_block_delta", "index": 0, "delta": 3},
        {"type": "content_block_delta", "delta": {}},
        piece(0, "text_delta", text=3),
    ],
)
def test_frames_of_a_wrong_shape_are_no_crash(frame: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        run(Decoder(), named(START, frame))


@pytest.mark.parametrize("body", [fixture("anthropic_whole.json"), b"<html>", b'{"nothing":1}'])
def test_a_body_that_is_no_stream_is_a_protocol_error(body: bytes) -> None:
    decoder = Decoder()
    decoder.feed(body)
    with pytest.raises(ProtocolError):
        decoder.finish()
