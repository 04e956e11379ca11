"""Streams of OpenAI-compatible servers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.support import as_json, delta, fixture, run, sse

from ccroute.errors import InvalidRequestError, OverloadedError, ProtocolError, ServerError
from ccroute.types import Chunk, Function, ToolCall, Usage
from ccroute.wire.openai import Decoder

USAGE = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}


def calls(*deltas: Any) -> list[tuple[str, str, str]]:
    """The calls that some deltas of `tool_calls` make."""
    stream = sse(*(delta(tool_calls=entries) for entries in deltas), delta("tool_calls"))
    chunks, completion = run(Decoder(), stream)
    grown: dict[int, list[str]] = {}
    for chunk in chunks:
        for call in chunk.tool_calls:
            whole = grown.setdefault(call.index, ["", "", ""])
            for place, piece in enumerate((call.id, call.function.name, call.function.arguments)):
                whole[place] += piece
    made = [(call.id, call.function.name, call.function.arguments) for call in completion.tool_calls]
    assert [(id, name, arguments or "{}") for id, name, arguments in grown.values()] == made
    assert [call.index for call in completion.tool_calls] == list(range(len(made)))
    return made


def call(name: str | None = None, arguments: Any = None, **fields: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **fields}


def test_a_real_llama_cpp_stream_is_read() -> None:
    chunks, completion = run(Decoder(), fixture("openai_llamacpp.sse"))
    assert [chunk.text for chunk in chunks] == ["D", "�\\", "}", "�"]
    assert completion.text == "D�\\}�"
    assert completion.id.startswith("chatcmpl-")
    assert (completion.model, completion.created) == ("tiny.gguf", 1795236097)
    assert completion.finish_reason == "length"
    assert completion.usage == Usage(input=24, output=6)


def test_parallel_tool_calls_are_assembled_and_streamed() -> None:
    chunks, completion = run(Decoder(), fixture("openai_tools.sse"))
    assert [chunk.tool_calls[0] for chunk in chunks] == [
        ToolCall(id="call_a", function=Function(name="weather"), index=0),
        ToolCall(function=Function(arguments='{"city":'), index=0),
        ToolCall(function=Function(arguments='"Köln"}'), index=0),
        ToolCall(id="call_b", function=Function(name="time", arguments="{}"), index=1),
    ]
    assert [(c.id, c.function.name, c.function.arguments) for c in completion.tool_calls] == [
        ("call_a", "weather", '{"city":"Köln"}'),
        ("call_b", "time", "{}"),
    ]
    assert completion.message.content is None
    assert completion.finish_reason == "tool_calls"
    assert completion.usage == Usage(input=16, cache_read=64, output=31, reasoning=8)


def test_no_chunk_for_a_role_alone_nor_for_the_finish() -> None:
    chunks, _ = run(
        Decoder(), sse(delta(role="assistant", content=""), delta(content=""), delta("stop"), "[DONE]")
    )
    assert chunks == []


def test_thinking_comes_under_both_its_names() -> None:
    stream = sse(delta(reasoning_content="a"), delta(reasoning="b"), delta(content="c"), delta("stop"))
    chunks, completion = run(Decoder(), stream)
    assert chunks == [Chunk(thinking="a"), Chunk(thinking="b"), Chunk(text="c")]
    assert (completion.thinking, completion.text) == ("ab", "c")


def test_a_refusal_is_text_and_ends_as_content_filter() -> None:
    _, completion = run(Decoder(), sse(delta(refusal="No."), delta("stop")))
    assert (completion.text, completion.finish_reason) == ("No.", "content_filter")


def test_finish_without_done_is_success() -> None:
    assert run(Decoder(), sse(delta(content="x"), delta("stop")))[1].text == "x"


def test_a_last_event_without_its_blank_line_is_success() -> None:
    decoder = Decoder()
    run(decoder, sse(delta(content="x"), delta("stop"), "[DONE]").rstrip())
    assert decoder.done
    assert run(Decoder(), sse(delta(content="x"), delta("stop")).rstrip())[1].finish_reason == "stop"


@pytest.mark.parametrize(
    "stream", [b"", sse("[DONE]"), sse(delta(content="x"), "[DONE]"), sse(delta(content="x")), sse(USAGE)]
)
def test_done_or_the_end_without_finish_is_no_success(stream: bytes) -> None:
    decoder = Decoder()
    decoder.feed(stream)
    with pytest.raises(ProtocolError, match="without a finish reason"):
        decoder.finish()


def test_done_turns_true_at_the_end_only() -> None:
    decoder = Decoder()
    decoder.feed(sse(delta(content="x"), delta("stop"), USAGE))
    assert not decoder.done
    decoder.feed(sse("[DONE]"))
    assert decoder.done
    assert decoder.feed(sse(delta(content="late"))) == []
    assert decoder.finish().text == "x"


def test_the_first_finish_wins_and_content_after_it_is_ignored() -> None:
    stream = sse(
        delta(content="a"),
        delta("length"),
        delta(content="b"),
        delta("stop", content="c"),
        USAGE,
        "[DONE]",
    )
    chunks, completion = run(Decoder(), stream)
    assert chunks == [Chunk(text="a")]
    assert (completion.text, completion.finish_reason) == ("a", "length")
    assert completion.usage == Usage(input=10, output=2)


def test_an_empty_finish_reason_is_none() -> None:
    stream = sse(delta("", content="a"), delta("", content="b"), delta("stop"))
    assert run(Decoder(), stream)[1].text == "ab"


def test_usage_on_every_frame_is_replaced_by_the_last() -> None:
    frames = [
        {**delta(content="x"), "usage": {"prompt_tokens": 10, "completion_tokens": n}} for n in (1, 2, 3)
    ]
    assert run(Decoder(), sse(*frames, delta("stop")))[1].usage == Usage(input=10, output=3)


def test_usage_that_never_comes_is_estimated_a_delta_at_a_time() -> None:
    stream = sse(
        delta(content="Hello"), delta(content=" world, it is"), delta(reasoning="hm"), delta("stop"), "[DONE]"
    )
    assert run(Decoder(), stream)[1].usage == Usage(output=1 + 4 + 1, estimated=True)


def test_usage_of_zeros_on_every_frame_is_not_believed() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    stream = sse({**delta(content="x"), "usage": zeros}, {**delta("stop"), "usage": zeros})
    assert run(Decoder(), stream)[1].usage == Usage(output=1, estimated=True)


def test_a_partial_answer_holds_what_came_with_estimated_usage() -> None:
    decoder = Decoder()
    decoder.feed(
        sse(delta(content="Hello"), delta(content=" world"), delta(tool_calls=[call("f", "{", id="a")]))
    )
    partial = decoder.partial()
    assert partial.text == "Hello world"
    assert partial.tool_calls[0].function.arguments == "{"
    assert partial.finish_reason is None
    assert partial.usage == Usage(output=4, estimated=True)


FINAL = {"prompt_tokens": 10, "completion_tokens": 25}


@pytest.mark.parametrize(
    ("frames", "is_final"),
    [
        ([delta(content="x"), delta("stop"), {"choices": [], "usage": FINAL}], True),
        ([delta(content="x"), {**delta("stop"), "usage": FINAL}], True),  # Mistral
        ([delta(content="x"), {"choices": [{"delta": {}, "finish_reason": "stop", "usage": FINAL}]}], True),
        ([delta("stop", content="x"), {"choices": [], "usage": FINAL}], True),
        ([{**delta("stop", content="x"), "usage": FINAL}], False),  # some send a finish with each frame
        ([{**delta(content="x"), "usage": FINAL}], False),  # vLLM
        ([{"choices": [], "usage": FINAL}, delta(content="x")], False),
        ([{**delta("stop", reasoning="hm"), "usage": FINAL}, delta(content="x")], False),
    ],
)
def test_usage_that_came_with_the_end_is_the_whole_answers(frames: list[Any], is_final: bool) -> None:
    decoder = Decoder()
    decoder.feed(sse(*frames))
    assert decoder.partial().usage == Usage(input=10, output=25, estimated=not is_final)


def test_an_error_frame_then_done_is_no_success() -> None:
    error = {"error": {"message": "boom", "type": "InternalServerError", "code": 500}}
    decoder = Decoder()
    assert decoder.feed(sse(delta(content="x"), error, "[DONE]")) == [Chunk(text="x")]
    assert decoder.done
    with pytest.raises(ServerError, match="boom"):
        decoder.finish()
    assert decoder.partial().text == "x"


def test_an_error_frame_before_content_is_raised_at_once() -> None:
    decoder = Decoder()
    with pytest.raises(OverloadedError):
        decoder.feed(sse(delta(role="assistant"), {"error": {"message": "busy", "code": 503}}))
    with pytest.raises(OverloadedError):
        decoder.finish()
    assert decoder.feed(sse(delta(content="x"))) == []


def test_an_error_after_the_finish_is_an_error_still() -> None:
    decoder = Decoder()
    decoder.feed(sse(delta(content="x"), delta("stop"), {"error": "overloaded", "error_type": "overloaded"}))
    with pytest.raises(OverloadedError):
        decoder.finish()


@pytest.mark.parametrize(
    "stream",
    [
        b'error: {"code":500,"message":"boom","type":"server_error"}\n\ndata: [DONE]\n\n',
        b"error: boom\n\n",
        b'event: error\ndata: {"error":{"message":"boom"}}\n\n',
        sse({"error": "boom", "error_type": "generation"}),
        sse({"object": "error", "message": "boom", "type": "InternalServerError", "code": None}),
    ],
)
def test_errors_come_in_many_forms(stream: bytes) -> None:
    with pytest.raises(ServerError, match="boom"):
        Decoder().feed(stream)


def test_a_null_error_beside_choices_is_none() -> None:
    assert run(Decoder(), sse({**delta(content="x"), "error": None}, delta("stop")))[1].text == "x"


def test_an_error_body_that_is_no_stream_is_classified() -> None:
    decoder = Decoder()
    assert decoder.feed(b'{"error":{"message":"bad","type":"invalid_request_error"}}') == []
    with pytest.raises(InvalidRequestError, match="bad"):
        decoder.finish()


@pytest.mark.parametrize("body", [fixture("openai_whole.json"), b"<html>\n\n</html>", b"<html>"])
def test_a_body_that_is_no_stream_is_a_protocol_error(body: bytes) -> None:
    decoder = Decoder()
    decoder.feed(body)
    with pytest.raises(ProtocolError):
        decoder.finish()


def test_unknown_events_and_fields_are_ignored() -> None:
    odd = b'event: heartbeat\ndata: tick\n\nevent: note\ndata: {"a":1}\n\ndata\n\n: comment\n\n'
    stream = sse({**delta(content="a"), "obfuscation": "xyz", "timings": {}}) + odd + sse(delta("stop"))
    assert run(Decoder(), stream)[1].text == "a"


def test_only_the_first_answer_of_several_is_streamed() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}]}
    assert run(Decoder(), sse(delta(content="x"), other, delta("stop")))[1].text == "x"


def test_logprobs_are_gathered() -> None:
    frames = [delta(content=token) for token in "ab"]
    for frame in frames:
        frame["choices"][0]["logprobs"] = {"content": [{"token": frame["choices"][0]["delta"]["content"]}]}
    logprobs = run(Decoder(), sse(*frames, delta("stop")))[1].choices[0].logprobs
    assert logprobs == {"content": [{"token": "a"}, {"token": "b"}]}


@pytest.mark.parametrize(
    "frame", ["[1]", "3", "{", '{"choices":{"a":1}}', '{"choices":[3]}', '{"choices":[{"delta":3}]}']
)
def test_frames_of_a_wrong_shape_are_a_protocol_error(frame: str) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(sse(frame))


def test_a_delta_or_choice_that_says_nothing_is_passed_over() -> None:
    stream = sse({"choices": [{"delta": None}]}, {"choices": None}, {"usage": None}, delta("stop"))
    assert run(Decoder(), stream)[0] == []


def test_invalid_utf8_is_replaced_only_in_text() -> None:
    stream = sse(delta(content="ab"), delta(content="cd"), delta("stop"))
    chunks, completion = run(Decoder(), stream.replace(b"ab", b"a\xffb").replace(b"cd", b"c\xffd"))
    assert [chunk.text for chunk in chunks] == ["a�b", "c�d"]
    assert completion.text == "a�bc�d"
    with pytest.raises(ProtocolError):
        Decoder().feed(stream.replace(b"{", b"\xff{", 1))


def test_nesting_100_000_deep_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(b"data: " + b'{"choices":[' * 100_000 + b"\n\n")


# Tool deltas, as servers really number them.


def test_deltas_with_index_as_openai_sends_them() -> None:
    first, second = call("f", "", id="a", index=0), call("g", "", id="b", index=1)
    assert calls(
        [first], [second], [call(arguments="{}", index=0)], [call(arguments='{"x":1}', index=1)]
    ) == [
        ("a", "f", "{}"),
        ("b", "g", '{"x":1}'),
    ]


def test_deltas_whose_index_is_always_0_are_kept_apart_by_id() -> None:
    assert calls(
        [call("f", '{"a":', id="a", index=0)],
        [call(arguments="1}", index=0)],
        [call("g", "{}", id="b", index=0)],
    ) == [
        ("a", "f", '{"a":1}'),
        ("b", "g", "{}"),
    ]


def test_deltas_without_index_are_assembled_by_id() -> None:
    assert calls(
        [call("f", "", id="a")],
        [call("g", "", id="b")],
        [call(arguments="{}", id="a")],
        [call(arguments='{"x":1}', id="b")],
    ) == [("a", "f", "{}"), ("b", "g", '{"x":1}')]


def test_deltas_without_index_and_id_go_on_with_the_latest_call() -> None:
    assert calls(
        [call("f", '{"a"', id="a")], [call(arguments=":1}")], [call("g", "{", id="b")], [call(arguments="}")]
    ) == [
        ("a", "f", '{"a":1}'),
        ("b", "g", "{}"),
    ]


def test_deltas_without_index_and_id_are_assembled_by_position() -> None:
    assert calls([call("f"), call("g")], [call(arguments='{"a":1}'), call(arguments='{"b":2}')]) == [
        ("call_0", "f", '{"a":1}'),
        ("call_1", "g", '{"b":2}'),
    ]


def test_a_repeated_name_begins_a_call_once_the_last_is_whole() -> None:
    pieces = [call("f", '{"a":', index=0), call("f", "1}", index=0), call("f", '{"a":2}', index=0)]
    assert calls(*([piece] for piece in pieces)) == [("call_0", "f", '{"a":1}'), ("call_1", "f", '{"a":2}')]


def test_a_delta_may_be_the_call_itself_and_its_arguments_an_object() -> None:
    assert calls(call("f", {"a": 1}, index=0, id="")) == [("call_0", "f", '{"a":1}')]


def test_a_name_may_come_late() -> None:
    assert calls([call(arguments="", id="a", index=0)], [call("f", "{}", index=0)]) == [("a", "f", "{}")]


def test_an_old_function_call_is_streamed_as_a_tool_call() -> None:
    stream = sse(
        delta(function_call={"name": "f", "arguments": ""}),
        delta(function_call={"arguments": "{}"}),
        delta("function_call"),
    )
    completion = run(Decoder(), stream)[1]
    assert [(c.function.name, c.function.arguments) for c in completion.tool_calls] == [("f", "{}")]
    assert completion.finish_reason == "tool_calls"


def test_invalid_tool_json_is_kept_raw() -> None:
    assert calls([call("f", '{"a": oops', id="a", index=0)]) == [("a", "f", '{"a": oops')]


@pytest.mark.parametrize("entries", [3, [3], "x"])
def test_tool_calls_that_are_no_objects_are_a_protocol_error(entries: Any) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(b"data: " + as_json(delta(tool_calls=entries)) + b"\n\n")


def kept(*deltas: dict[str, Any]) -> Any:
    """The provider's fields of a stream's message."""
    stream = sse(*(delta(**each) for each in deltas), delta(content="x"), delta("stop"))
    return run(Decoder(provider="host"), stream)[1].message.provider_fields.get("host")


def test_a_providers_fields_are_put_together_from_their_pieces() -> None:
    assert kept({"a": {"b": {"c": 1}, "text": "x"}}, {"a": {"b": {"d": 2}, "text": "y"}}) == {
        "a": {"b": {"c": 1, "d": 2}, "text": "xy"}
    }
    assert kept({"opaque": "x"}, {"opaque": "y"}, {"opaque": ""}) == {"opaque": "y"}
    assert kept({"list": ["x"]}, {"list": ["y", 1]}) == {"list": ["x", "y", 1]}
    assert kept({"list": "x"}, {"list": ["y"]}) == {"list": ["y"]}
    assert kept({"text": "x"}, {"text": "y"}, {"text": "z"}) == {"text": "xyz"}
    assert kept({"text": "x"}, {"text": "y"}, {"text": ["z"]}) == {"text": ["z"]}
    assert kept({"none": None, "empty": [], "no": ""}) is None


def test_entries_of_a_list_grow_by_index_and_kind() -> None:
    def entry(text: str, **more: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "text": text, **more}

    assert kept({"r": [entry("a", index=0), entry("b", index=1)]}, {"r": [entry("c", index=0)]}) == {
        "r": [entry("ac", index=0), entry("b", index=1)]
    }
    assert kept({"r": [entry("a")]}, {"r": [entry("b")]}) == {"r": [entry("ab")]}
    assert kept({"r": [entry("a", id="1")]}, {"r": [entry("b", id="2")]}, {"r": [entry("c", id="1")]}) == {
        "r": [entry("a", id="1"), entry("b", id="2"), entry("c", id="1")]
    }
    secret = {"type": "reasoning.encrypted", "data": "AA", "index": 0}
    other = {**secret, "data": "BB"}
    assert kept(
        {"r": [entry("a", index=0), secret]}, {"r": [secret, other]}, {"r": ["odd", entry("b", index=0)]}
    ) == {"r": [entry("ab", index=0), secret, other, "odd"]}


def test_thoughts_of_an_answer_without_calls_are_not_kept_twice() -> None:
    assert kept({"reasoning": "hm"}) is None
    stream = sse(delta(reasoning="hm", extra="y"), delta("stop"))
    assert run(Decoder(), stream)[1].message.provider_fields == {}  # from nobody in particular
