"""Answers as Anthropic's clients get them, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.serve.support import FakeAsyncStream, answer, call, dumped, frames
from tests.support import anthropic_like as like

from ccroute.serve import anthropic
from ccroute.types import Chunk, ModelInfo, Usage
from ccroute.wire.anthropic import Decoder

LAST = Chunk(finish_reason="stop", usage=Usage(input=11, output=7))
MODES = pytest.mark.parametrize("mode", ["sync", "async"])
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "s"}


def outline(events: list[Any]) -> list[Any]:
    """What happens to blocks, in short: (index, kind of start, or the delta's text, or 'stop')."""
    found: list[Any] = []
    for event in events:
        if event["type"] == "content_block_start":
            found.append((event["index"], event["content_block"]["type"]))
        elif event["type"] == "content_block_delta":
            [kind] = event["delta"].keys() - {"type"}
            found.append((event["index"], event["delta"][kind]))
        elif event["type"] == "content_block_stop":
            found.append((event["index"], "stop"))
    return found


def test_a_whole_answer_has_anthropics_shape() -> None:
    usage = Usage(input=5, cache_read=4, cache_write_5m=2, cache_write_1h=1, output=7, reasoning=3)
    assert anthropic.dump_completion(answer(usage=usage)) == {
        "id": "msg_x1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello there."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 4,
            "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 1},
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 3},
        },
    }


def test_thinking_keeps_its_blocks_and_anothers_has_no_signature() -> None:
    redacted = {"type": "redacted_thinking", "data": "x"}
    signed = answer("a", thinking="hm", thinking_blocks=(SIGNED, redacted), id="msg_7")
    body = anthropic.dump_completion(signed)
    assert (body["id"], body["content"]) == ("msg_7", [SIGNED, redacted, {"type": "text", "text": "a"}])
    assert anthropic.dump_completion(answer("", thinking="hm"))["content"] == [{**SIGNED, "signature": ""}]


def test_calls_become_tool_use_with_unique_ids() -> None:
    calls = (
        call("f", '{"a":1}', id="call_0"),
        call("g", "{}", id="functions.g:1", index=1),
        call("h", "broken", id="toolu_9", index=2),
    )
    body = anthropic.dump_completion(answer(None, finish="tool_calls", tool_calls=calls))
    assert body["stop_reason"] == "tool_use"
    assert body["content"] == [
        {"type": "tool_use", "id": "toolu_x1_0", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_functions_g_1", "name": "g", "input": {}},
        {"type": "tool_use", "id": "toolu_9", "name": "h", "input": {"arguments": "broken"}},
    ]


@pytest.mark.parametrize(
    ("finish", "raw", "word"),
    [
        ("stop", "stop", "end_turn"),
        ("stop", "end_turn", "end_turn"),
        ("stop", "tool_use", "end_turn"),  # the forced tool of a schema, undone
        ("length", "length", "max_tokens"),
        ("length", "model_context_window_exceeded", "model_context_window_exceeded"),
        ("tool_calls", None, "tool_use"),
        ("content_filter", "content_filter", "refusal"),
        ("other", "pause_turn", "pause_turn"),
        ("other", "abort", "end_turn"),
        (None, None, "end_turn"),
    ],
)
def test_the_stop_reason_is_the_providers_own_where_it_is_anthropics(
    finish: Any, raw: str | None, word: str
) -> None:
    body = anthropic.dump_completion(answer(finish=finish, raw_finish_reason=raw))
    assert (body["stop_reason"], body["stop_sequence"]) == (word, None)


def test_the_stop_sequence_that_a_provider_named_is_passed_on() -> None:
    more = {"raw_finish_reason": "stop_sequence", "raw": {"stop_sequence": "END"}}
    body = anthropic.dump_completion(answer(**more))
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "END")


@MODES
def test_a_stream_is_a_message_of_blocks(mode: str) -> None:
    chunks = [
        Chunk(thinking="h"),
        Chunk(thinking="m"),
        Chunk(signature="s"),
        Chunk(thinking="again"),
        Chunk(signature="s2"),
        Chunk(text="Hel"),
        Chunk(text="lo"),
        Chunk(tool_calls=(call("f", "", id="toolu_1"),)),
        Chunk(tool_calls=(call("", '{"a":'),)),
        Chunk(tool_calls=(call("", "1}"),)),
        LAST,
    ]
    stream = FakeAsyncStream(
        chunks, answer(finish="tool_calls", usage=Usage(input=3, cache_read=2, output=7))
    )
    pieces = dumped("anthropic", stream, mode)
    assert len(pieces) == len(chunks)
    assert pieces[0].startswith(b"event: message_start\ndata: {")
    events = frames(pieces)
    assert events[0]["message"] == {
        "id": "msg_x1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": anthropic.dump_completion(answer(usage=Usage()))["usage"],
    }
    assert outline(events) == [
        (0, "thinking"),
        (0, "h"),
        (0, "m"),
        (0, "s"),
        (0, "stop"),
        (1, "thinking"),
        (1, "again"),
        (1, "s2"),
        (1, "stop"),
        (2, "text"),
        (2, "Hel"),
        (2, "lo"),
        (2, "stop"),
        (3, "tool_use"),
        (3, '{"a":'),
        (3, "1}"),
        (3, "stop"),
    ]
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert (events[-2]["usage"]["input_tokens"], events[-2]["usage"]["cache_read_input_tokens"]) == (3, 2)
    assert events[-1] == {"type": "message_stop"}
    assert stream.closed == 1


@pytest.mark.parametrize("early", [False, True], ids=["cited-at-the-end", "cited-first"])
def test_citations_are_streamed_with_their_text_block(early: bool) -> None:
    cited = [{"type": "char_location", "cited_text": text, "document_index": 0} for text in ("x", "y")]
    marks = [{"type": "citations_delta", "citation": each} for each in cited]
    text = [{"type": "text_delta", "text": "the grass is"}, {"type": "text_delta", "text": " green"}]
    plain = {"type": "text", "text": ""}
    came = [
        like.text_block(["According ", "to it, "]),
        like.block_sse(1, {**plain, "citations": []}, [*marks, *text] if early else [*text, *marks]),
        like.text_block([" and "], index=2),
        like.block_sse(3, {"type": "text", "text": "wet", "citations": cited[:1]}, []),
        like.text_block(["."], index=4),
    ]
    decoder = Decoder()
    chunks = [chunk for piece in like.message_sse(blocks=came) for chunk in decoder.feed(piece)]
    answered = decoder.finish()

    made = frames(dumped("anthropic", FakeAsyncStream([*chunks, LAST], answered)))

    assert outline(made) == [
        *[(0, "text"), (0, "According "), (0, "to it, "), (0, "stop")],
        *[(1, "text"), (1, "the grass is"), (1, " green"), (1, cited[0]), (1, cited[1]), (1, "stop")],
        *[(2, "text"), (2, " and "), (2, "stop"), (3, "text"), (3, "wet"), (3, cited[0]), (3, "stop")],
        *[(4, "text"), (4, "."), (4, "stop")],
    ]
    assert answered.text == "According to it, the grass is green and wet."
    assert anthropic.dump_completion(answered)["content"] == [
        {"type": "text", "text": "According to it, "},
        {"type": "text", "text": "the grass is green", "citations": cited},
        {"type": "text", "text": " and "},
        {"type": "text", "text": "wet", "citations": cited[:1]},
        {"type": "text", "text": "."},
    ]


def test_a_signature_without_a_thought_is_a_thinking_block() -> None:
    events = frames(dumped("anthropic", FakeAsyncStream([Chunk(signature="s"), Chunk(text="a"), LAST])))
    assert outline(events)[:3] == [(0, "thinking"), (0, "s"), (0, "stop")]


def test_calls_one_after_the_other_are_streamed_as_they_come() -> None:
    first = [
        Chunk(tool_calls=(call("f", "{}", id="a"),)),
        Chunk(tool_calls=(call("g", "{", id="b", index=1),)),
    ]
    made = FakeAsyncStream([*first, Chunk(tool_calls=(call("", "}", index=1),)), LAST])
    pieces = dumped("anthropic", made)
    assert outline(frames(pieces[:2])) == [(0, "tool_use"), (0, "{}"), (0, "stop"), (1, "tool_use"), (1, "{")]


def test_calls_in_turn_are_written_one_after_the_other() -> None:
    deltas = [
        (call("f", "", id="a"),),
        (call("g", "", id="b", index=1),),
        (call("", '{"x":'), call("", '{"y":', index=1)),
        (call("", "1}"),),
        (call("", "2}", index=1),),
        (call("", " ", index=0),),  # a block that is over takes no more
    ]
    events = frames(
        dumped("anthropic", FakeAsyncStream([*(Chunk(tool_calls=each) for each in deltas), LAST]))
    )
    assert outline(events) == [
        (0, "tool_use"),
        (0, '{"x":'),
        (0, "1}"),
        (0, "stop"),
        (1, "tool_use"),
        (1, '{"y":'),
        (1, "2}"),
        (1, "stop"),
    ]


def test_what_follows_an_incomplete_call_waits_for_the_end() -> None:
    pieces = dumped(
        "anthropic", FakeAsyncStream([Chunk(tool_calls=(call("f", "{", id="a"),)), Chunk(text="and"), LAST])
    )
    assert outline(frames(pieces[:1])) == [(0, "tool_use"), (0, "{")]
    assert outline(frames(pieces)) == [
        (0, "tool_use"),
        (0, "{"),
        (0, "stop"),
        (1, "text"),
        (1, "and"),
        (1, "stop"),
    ]


def test_a_call_begins_when_its_name_is_known() -> None:
    deltas = [Chunk(tool_calls=(call("", "{}", id="a"),)), Chunk(tool_calls=(call("late"),)), LAST]
    events = frames(dumped("anthropic", FakeAsyncStream(deltas)))
    assert [event["content_block"]["name"] for event in events if "content_block" in event] == ["late"]
    assert outline(events) == [(0, "tool_use"), (0, "{}"), (0, "stop")]


def test_an_empty_answer_is_a_message_without_blocks() -> None:
    events = frames(dumped("anthropic", FakeAsyncStream([LAST])))
    assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]


def test_models_are_listed_without_patterns() -> None:
    models = [
        ModelInfo(id="sonnet", kind="alias", context_window=200_000),
        ModelInfo(id="claude-*", kind="pattern"),
        ModelInfo(id="haiku", kind="alias"),
    ]
    body = anthropic.dump_models(models)
    assert [model["id"] for model in body["data"]] == ["sonnet", "haiku"]
    assert (body["first_id"], body["last_id"], body["has_more"]) == ("sonnet", "haiku", False)
    assert body["data"][0]["max_input_tokens"] == 200_000
    assert anthropic.dump_models([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_a_count_of_tokens_has_its_own_body() -> None:
    assert anthropic.dump_count_tokens(7) == {"input_tokens": 7}
