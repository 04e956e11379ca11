"""Rows 32 to 41: answers that are well formed and still not what they should be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.faults.harness import PROMPT, FaultHarness, effort, row, whole_and_streamed
from tests.faults.servers import (
    ANTHROPIC,
    HEALTHY,
    OLLAMA,
    OPENAI,
    SO_FAR,
    Wire,
    backend,
    each_wire,
)
from tests.support import anthropic_like, ollama
from tests.support.anthropic_like import event
from tests.support.openai_like import DONE, chat, chat_sse, error, sse, tool_call, usage
from tests.support.openai_like import chunk as delta
from tests.support.scripted import Reply, answer

from ccroute import Usage
from ccroute.accounting.tokens import estimate
from ccroute.errors import InvalidRequestError, ProtocolError, ServerError
from ccroute.types import Request

GUESS = estimate(Request(messages=({"role": "user", "content": PROMPT},)))
"""Tokens of the prompt, where the server does not tell."""
STOPPED = event("content_block_stop", index=0)
EVIL = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "evil"})


def anthropic_end(stop: str, output: int = 7) -> bytes:
    return event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": output})


def ollama_end(reason: str, **more: Any) -> bytes:
    last = {"done": True, "done_reason": reason, "prompt_eval_count": 11, "eval_count": 7}
    return ollama.line(ollama.opening("m", content="") | last | more)


# -- how it ends ---------------------------------------------------------------------------------------------


@row(32, "duplicate finish")
@pytest.mark.parametrize(
    ("wire", "pieces"),
    [
        (OPENAI, [delta({}, finish="length"), delta({}, finish="stop"), sse({"usage": usage(11, 7)}), DONE]),
        (ANTHROPIC, [STOPPED, anthropic_end("max_tokens"), anthropic_end("end_turn"), event("message_stop")]),
        (OLLAMA, [ollama_end("length"), ollama_end("stop", eval_count=99)]),
    ],
    ids=["openai", "anthropic", "ollama"],
)
def test_the_first_finish_wins(harness: FaultHarness, wire: Wire, pieces: Sequence[bytes]) -> None:
    call = harness.answers(harness.faulty(wire.stream(*wire.begun, *pieces), wire=wire), SO_FAR, stream=True)
    assert call.answer.finish_reason == call.chunks[-1].finish_reason == "length"
    assert call.answer.usage == Usage(input=11, output=7)


@row(33, "content after finish")
@pytest.mark.parametrize(
    ("wire", "pieces"),
    [
        (OPENAI, [delta({}, finish="stop"), delta({"content": "evil"}), DONE]),
        (OPENAI, [delta({}, finish="stop"), DONE, delta({"content": "evil"})]),
        (OPENAI, [delta({}, finish="stop"), delta({"reasoning_content": "evil"}), DONE]),
        (OPENAI, [delta({}, finish="stop"), delta({"tool_calls": [tool_call("evil", "{}")]}), DONE]),
        (ANTHROPIC, [STOPPED, anthropic_end("end_turn"), EVIL, event("message_stop")]),
        (ANTHROPIC, [STOPPED, anthropic_end("end_turn"), event("message_stop"), EVIL]),
        (
            ANTHROPIC,
            [STOPPED, anthropic_end("end_turn"), *anthropic_like.text_block(["evil"]), event("message_stop")],
        ),
        (OLLAMA, [ollama_end("stop"), OLLAMA.begun[0]]),
        (OLLAMA, [ollama_end("stop") + OLLAMA.begun[0]]),
    ],
)
def test_what_follows_the_finish_is_no_content(
    harness: FaultHarness, wire: Wire, pieces: Sequence[bytes]
) -> None:
    call = harness.answers(harness.faulty(wire.stream(*wire.begun, *pieces), wire=wire), SO_FAR, stream=True)
    assert call.answer.finish_reason == "stop"
    assert (call.answer.thinking, call.answer.tool_calls) == (None, ())


UNKNOWN = {
    "an event's name": (OPENAI, b"event: telemetry\ndata: not json\n\n"),
    "a frame": (OPENAI, sse({"object": "telemetry", "load": 0.5})),
    "a frame without choices": (OPENAI, sse({"choices": [], "obfuscation": "x"})),
    "a field": (OPENAI, delta({"mood": "good"}, timings={"predicted_n": 7})),
    "anthropic's event": (ANTHROPIC, event("telemetry", load=0.5)),
    "anthropic's event without JSON": (ANTHROPIC, b"event: telemetry\ndata: not json\n\n"),
    "anthropic's delta": (
        ANTHROPIC,
        event("content_block_delta", index=0, delta={"type": "mood_delta", "mood": "good"}),
    ),
    "anthropic's block": (
        ANTHROPIC,
        b"".join(anthropic_like.block_sse(1, {"type": "mood"}, [{"type": "mood_delta", "mood": "good"}])),
    ),
    "ollama's line": (OLLAMA, ollama.line({"status": "loading"})),
    "ollama's field": (OLLAMA, ollama.line(ollama.opening("m", content="", mood="good") | {"done": False})),
}


@row(34, "unknown event or finish")
@pytest.mark.parametrize(("wire", "unknown"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_ignored(harness: FaultHarness, wire: Wire, unknown: bytes) -> None:
    pieces = [piece for known in wire.events for piece in (known, unknown)]
    call = harness.answers(harness.faulty(wire.stream(*pieces), wire=wire), stream=True)
    assert call.answer.finish_reason == "stop"
    assert not call.answer.usage.estimated


FINISHES: dict[str, tuple[Wire, str, Any, Sequence[bytes]]] = {
    "openai": (OPENAI, "abort", chat(finish="abort"), chat_sse(finish="abort")),
    "anthropic": (
        ANTHROPIC,
        "pause_turn",
        anthropic_like.message(stop="pause_turn"),
        anthropic_like.message_sse(stop="pause_turn"),
    ),
    "ollama": (
        OLLAMA,
        "unload",
        dict(OLLAMA.whole) | {"done_reason": "unload"},
        [*OLLAMA.events[:-1], ollama_end("unload")],
    ),
}


@row(34, "unknown event or finish")
@whole_and_streamed
@pytest.mark.parametrize(("wire", "word", "body", "pieces"), FINISHES.values(), ids=FINISHES)
def test_an_unknown_finish_is_other_and_its_word_is_kept(
    harness: FaultHarness, wire: Wire, word: str, body: Any, pieces: Sequence[bytes], stream: bool
) -> None:
    reply = wire.stream(*pieces) if stream else answer(json=body)
    call = harness.answers(harness.faulty(reply, wire=wire), stream=stream)
    assert (call.answer.finish_reason, call.answer.raw_finish_reason) == ("other", word)


# -- tools ---------------------------------------------------------------------------------------------------


def part(arguments: str, *, name: str | None = None, id: str | None = None, **more: int) -> dict[str, Any]:
    """One entry of a tool delta, without an index unless it is given one."""
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    return ({} if id is None else {"id": id}) | more | {"function": function}


DELTAS: dict[str, list[list[dict[str, Any]]]] = {
    "ids, one after the other": [
        [part('{"x"', name="f", id="a")],
        [part(":1}", id="a")],
        [part('{"y"', name="g", id="b")],
        [part(":2}", id="b")],
    ],
    "ids, in turns": [
        [part('{"x"', name="f", id="a")],
        [part('{"y"', name="g", id="b")],
        [part(":1}", id="a")],
        [part(":2}", id="b")],
    ],
    "ids only at first": [
        [part('{"x"', name="f", id="a")],
        [part(":1}")],
        [part('{"y"', name="g", id="b")],
        [part(":2}")],
    ],
    "places": [[part('{"x"', name="f"), part('{"y"', name="g")], [part(":1}"), part(":2}")]],
    "whole, no ids": [[part('{"x":1}', name="f")], [part('{"y":2}', name="g")]],
    "always 0, ids": [
        [part('{"x"', name="f", id="a", index=0)],
        [part(":1}", index=0)],
        [part('{"y"', name="g", id="b", index=0)],
        [part(":2}", index=0)],
    ],
    "always 0, no ids": [[part('{"x":1}', name="f", index=0)], [part('{"y":2}', name="g", index=0)]],
}


@row(35, "tool delta without index")
@pytest.mark.parametrize("deltas", DELTAS.values(), ids=DELTAS)
def test_tool_calls_are_put_together_by_id_and_then_by_position(
    harness: FaultHarness, deltas: list[list[dict[str, Any]]]
) -> None:
    pieces = chat_sse([{"tool_calls": entries} for entries in deltas], finish="tool_calls")
    call = harness.answers(harness.faulty(OPENAI.stream(*pieces)), "", stream=True)
    calls = call.answer.tool_calls
    assert [(each.function.name, each.function.arguments) for each in calls] == [
        ("f", '{"x":1}'),
        ("g", '{"y":2}'),
    ]
    assert len({each.id for each in calls}) == 2
    grown = {0: "", 1: ""}
    for each in (each for piece in call.chunks for each in piece.tool_calls):
        grown[each.index] += each.function.name + each.function.arguments
    assert grown == {0: 'f{"x":1}', 1: 'g{"y":2}'}


def named_in_every_piece(pieces: int) -> bytes:
    entries = [part('{"text": "', name="f"), *[part("x" * 200, name="f")] * pieces]
    return b"".join(delta({"tool_calls": [entry]}) for entry in entries)


@row(35, "tool delta without index")
def test_a_tool_call_named_in_every_piece_is_one_call(harness: FaultHarness) -> None:
    whole = named_in_every_piece(20) + delta({}, finish="tool_calls") + DONE
    [call] = harness.answers(harness.faulty(OPENAI.stream(whole)), "", stream=True).answer.tool_calls
    assert call.function.arguments == '{"text": "' + "x" * 4000
    reader = backend("main", "http://localhost")
    few, many = (named_in_every_piece(pieces) for pieces in (100, 400))
    assert effort(lambda: reader.decoder(200, {}).feed(many)) < 8 * effort(
        lambda: reader.decoder(200, {}).feed(few)
    )


RAW = ['{"path": "/tmp', "not json", '"a text"', "[1, 2]", "{'x': 1}", '{"x": NaN', "\\"]


@row(36, "invalid tool JSON")
@whole_and_streamed
@pytest.mark.parametrize("raw", RAW)
def test_invalid_arguments_are_kept_and_can_be_sent_back(
    harness: FaultHarness, raw: str, stream: bool
) -> None:
    pieces = chat_sse([{"tool_calls": [part(raw, id="call_1", name="f")]}])
    body = chat(None, tool_calls=[tool_call("f", raw)], finish="tool_calls")
    faulty = harness.faulty(OPENAI.stream(*pieces) if stream else answer(json=body))
    assert_kept(harness, faulty, raw, stream=stream)


@row(36, "invalid tool JSON")
@pytest.mark.parametrize("raw", RAW[:3])
def test_invalid_arguments_from_anthropic_are_kept(harness: FaultHarness, raw: str) -> None:
    pieces = anthropic_like.message_sse(blocks=[anthropic_like.tool_block("f", raw)], stop="tool_use")
    assert_kept(harness, harness.faulty(ANTHROPIC.stream(*pieces), wire=ANTHROPIC), raw, stream=True)


@row(36, "invalid tool JSON")
@whole_and_streamed
@pytest.mark.parametrize("raw", RAW[:3])
def test_invalid_arguments_from_ollama_are_kept(harness: FaultHarness, raw: str, stream: bool) -> None:
    calls = [{"function": {"name": "f", "arguments": raw}}]
    lines = ollama.chat_lines(ollama.ScriptedReply((), tool_calls=calls), "m")
    reply = OLLAMA.stream(*map(ollama.line, lines)) if stream else answer(json=ollama.merged(lines))
    assert_kept(harness, harness.faulty(reply, wire=OLLAMA), raw, stream=stream)


def assert_kept(harness: FaultHarness, faulty: Any, raw: str, *, stream: bool) -> None:
    message = harness.answers(faulty, "", stream=stream).answer.message
    assert message.tool_calls is not None
    assert [call.function.arguments for call in message.tool_calls] == [raw]
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "that was no JSON"}
    for wire in (OPENAI, ANTHROPIC, OLLAMA):
        subject = harness.router(harness.faulty(wire=wire))
        call = harness.ask(subject, messages=[{"role": "user", "content": PROMPT}, message, result])
        assert call.text == HEALTHY


# -- usage ---------------------------------------------------------------------------------------------------

NONSENSE = [
    float("nan"),
    float("inf"),
    float("-inf"),
    -5,
    7.5,
    1e30,
    10**18,
    "7",
    True,
    None,
    [7],
    {"tokens": 7},
]
NAMES = {
    OPENAI.backend: ("prompt_tokens", "completion_tokens"),
    ANTHROPIC.backend: ("input_tokens", "output_tokens"),
    OLLAMA.backend: ("prompt_eval_count", "eval_count"),
}


def reply_with_usage(wire: Wire, usage_sent: Mapping[str, Any] | None, *, stream: bool) -> Reply:
    """A good answer whose usage is this, or (None) that tells none."""
    if wire is OPENAI:
        body, pieces = chat(usage=usage_sent), chat_sse(usage=usage_sent)
    elif wire is ANTHROPIC:
        body = anthropic_like.message() | {"usage": usage_sent}
        opening = anthropic_like.message([], stop=None) | {
            "usage": usage_sent and {**usage_sent, "output_tokens": 1}
        }
        end = event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage_sent)
        pieces = [event("message_start", message=opening), *ANTHROPIC.events[1:-2], end, ANTHROPIC.events[-1]]
    else:
        body = {key: value for key, value in OLLAMA.whole.items() if not key.endswith("eval_count")}
        body |= usage_sent or {}
        last = ollama.opening("m", content="") | {"done": True, "done_reason": "stop"} | (usage_sent or {})
        pieces = [*OLLAMA.events[:-1], ollama.line(last)]
    return wire.stream(*pieces) if stream else answer(json=body)


@row(37, "NaN, Infinity, negative, float usage")
@each_wire
@whole_and_streamed
def test_nonsense_usage_is_estimated_and_costs_something(
    harness: FaultHarness, wire: Wire, stream: bool
) -> None:
    prompt, output = NAMES[wire.backend]
    usages = [
        usage
        for usage_sent in NONSENSE
        for usage in (
            {prompt: usage_sent, output: usage_sent},
            {prompt: 11, output: usage_sent},
            {prompt: usage_sent, output: 7},
        )
    ]
    faulty = harness.faulty(*(reply_with_usage(wire, each, stream=stream) for each in usages), wire=wire)
    calls = harness.asks(harness.router(faulty), len(usages), stream=stream)
    found = [call.answer.usage for call in calls]
    assert all(each.estimated for each in found)
    prompts = [(each.input, each.prompt_tokens) for each in found]
    assert prompts == [(GUESS, GUESS), (11, 11), (GUESS, GUESS)] * len(NONSENSE)
    outputs = [each.output for each in found]
    assert {*outputs[0::3], *outputs[1::3]} in ({3}, {4})
    assert {*outputs[2::3]} == {7}


@row(37, "NaN, Infinity, negative, float usage")
def test_details_of_usage_that_are_nonsense_take_nothing_off(harness: FaultHarness) -> None:
    details = [
        {
            "prompt_tokens_details": {"cached_tokens": usage_sent, "cache_write_tokens": usage_sent},
            "completion_tokens_details": {"reasoning_tokens": usage_sent},
        }
        for usage_sent in NONSENSE
    ]
    cached = [
        {
            "cache_read_input_tokens": usage_sent,
            "cache_creation_input_tokens": usage_sent,
            "cache_creation": {
                "ephemeral_5m_input_tokens": usage_sent,
                "ephemeral_1h_input_tokens": usage_sent,
            },
        }
        for usage_sent in NONSENSE
    ]
    for wire, plain, added in (
        (OPENAI, usage(11, 7), details),
        (ANTHROPIC, anthropic_like.usage(11, 7), cached),
    ):
        faulty = harness.faulty(
            *(reply_with_usage(wire, plain | each, stream=False) for each in added), wire=wire
        )
        calls = harness.asks(harness.router(faulty), len(added))
        assert [call.answer.usage for call in calls] == [Usage(input=11, output=7)] * len(added)


@row(38, "usage absent")
@each_wire
@whole_and_streamed
def test_missing_usage_is_estimated_and_says_so(harness: FaultHarness, wire: Wire, stream: bool) -> None:
    faulty = harness.faulty(reply_with_usage(wire, None, stream=stream), wire=wire)
    used = harness.answers(faulty, stream=stream).answer.usage
    assert used.estimated
    assert used.input == GUESS
    assert 3 <= used.output <= 4  # "Hello there." in three pieces, or twelve characters


@row(39, "cached > prompt")
@whole_and_streamed
@pytest.mark.parametrize(
    ("wire", "usage_sent", "expected"),
    [
        (OPENAI, usage(10, 5, cached=50), Usage(cache_read=10, output=5)),
        (
            OPENAI,
            usage(10, 5) | {"prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 50}},
            Usage(cache_read=6, cache_write_5m=4, output=5),
        ),
        (OPENAI, usage(10, 5, reasoning=50), Usage(input=10, output=5, reasoning=5)),
        (
            ANTHROPIC,
            anthropic_like.usage(10, 5, write_5m=4)
            | {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 50}},
            Usage(input=10, cache_write_1h=4, output=5),
        ),
    ],
    ids=["read", "written", "reasoning", "anthropic"],
)
def test_a_part_is_never_more_than_the_whole(
    harness: FaultHarness, wire: Wire, usage_sent: Mapping[str, Any], expected: Usage, stream: bool
) -> None:
    faulty = harness.faulty(reply_with_usage(wire, usage_sent, stream=stream), wire=wire)
    assert harness.answers(faulty, stream=stream).answer.usage == expected


@row(40, "cumulative usage repeated")
@pytest.mark.parametrize("times", [1, 3])
def test_repeated_usage_counts_once(harness: FaultHarness, times: int) -> None:
    growing = [delta({"content": "x"}, usage=usage(11, n, cached=4, reasoning=2)) for n in range(1, 7)]
    last = [delta(None, usage=usage(11, 7, cached=4, reasoning=2))] * times
    pieces = [*growing, delta({}, finish="stop", usage=usage(11, 6)), *last, DONE]
    call = harness.answers(harness.faulty(OPENAI.stream(*pieces)), "xxxxxx", stream=True)
    assert call.answer.usage == Usage(input=7, cache_read=4, output=7, reasoning=2)


@row(40, "cumulative usage repeated")
@pytest.mark.parametrize("outputs", [(7,), (3, 7), (7, 7, 7)], ids=str)
def test_anthropics_usage_replaces_earlier_usage(harness: FaultHarness, outputs: Sequence[int]) -> None:
    usage_sent = [anthropic_like.usage(11, output, read=4) for output in outputs]
    opening = anthropic_like.message([], usage=usage_sent[0] | {"output_tokens": 1}, stop=None)
    ends = [event("message_delta", delta={"stop_reason": "end_turn"}, usage=each) for each in usage_sent]
    pieces = [event("message_start", message=opening), *ANTHROPIC.events[1:-2], *ends, event("message_stop")]
    call = harness.answers(harness.faulty(ANTHROPIC.stream(*pieces), wire=ANTHROPIC), stream=True)
    assert call.answer.usage == Usage(input=11, cache_read=4, output=7)


# -- nested --------------------------------------------------------------------------------------------------

DEEP = 100_000
NESTS = {
    "lists": b"[" * DEEP + b"]" * DEEP,
    "objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "both": b'{"a":[' * (DEEP // 2) + b"]}" * (DEEP // 2),
}


def nested(body: bytes, nest: bytes) -> bytes:
    """A JSON object with one more field in front, which is the nest."""
    return body.replace(b"{", b'{"nest":' + nest + b",", 1)


each_nest = pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)


@row(41, "JSON nested 100,000 deep")
@each_nest
@pytest.mark.parametrize("open_ended", [False, True], ids=["whole", "open"])
def test_deeply_nested_json_is_no_answer(harness: FaultHarness, nest: bytes, open_ended: bool) -> None:
    body = nest[: len(nest) // 2] if open_ended else nest
    harness.fails(harness.faulty(answer(body=body)), ProtocolError, "ambiguous")
    frame = b"data: " + body + b"\n\n"
    harness.fails(harness.faulty(OPENAI.stream(frame)), ProtocolError, "ambiguous", stream=True)
    harness.cuts(harness.faulty(OPENAI.stream(*OPENAI.begun, frame)), SO_FAR, ProtocolError)


@row(41, "JSON nested 100,000 deep")
@each_wire
def test_deep_nesting_inside_an_answer_is_a_fault(harness: FaultHarness, wire: Wire) -> None:
    for body in (json.dumps(wire.whole).encode(), b'{"message": {"content": "x"}}'):
        faulty = harness.faulty(answer(body=nested(body, NESTS["both"])), wire=wire)
        harness.fails(faulty, ProtocolError, "ambiguous")
    broken = nested(wire.begun[-1], NESTS["both"])
    faulty = harness.faulty(wire.stream(*wire.opening, broken), wire=wire)
    harness.fails(faulty, ProtocolError, "ambiguous", stream=True)
    harness.cuts(harness.faulty(wire.stream(*wire.begun, broken), wire=wire), SO_FAR, ProtocolError)


@row(41, "JSON nested 100,000 deep")
@each_wire
@pytest.mark.parametrize(
    ("status", "kind", "failure"),
    [(500, ServerError, "ambiguous"), (400, InvalidRequestError, "invalid_request")],
)
def test_deep_nesting_in_an_error_says_nothing(
    harness: FaultHarness, wire: Wire, status: int, kind: Any, failure: str
) -> None:
    body = nested(json.dumps(error("no")).encode(), NESTS["both"])
    harness.fails(harness.faulty(answer(status, body=body), wire=wire), kind, failure)


@row(41, "JSON nested 100,000 deep")
@whole_and_streamed
@each_nest
def test_deeply_nested_arguments_are_kept(harness: FaultHarness, nest: bytes, stream: bool) -> None:
    raw = nest.decode()
    half = len(raw) // 2
    entries = [part(raw[:half], id="call_1", name="f")], [part(raw[half:])]
    pieces = chat_sse([{"tool_calls": each} for each in entries])
    body = chat(None, tool_calls=[tool_call("f", raw)])
    faulty = harness.faulty(OPENAI.stream(*pieces) if stream else answer(json=body))
    assert_kept(harness, faulty, raw, stream=stream)
