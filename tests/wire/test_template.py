"""Reading only the text of frames that are alike in everything else."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.support import WIRES, cut, delta, lines, named, run, sse

from ccroute.wire.template import Template


def frame(text: object, id: str = "a", **more: object) -> bytes:
    return json.dumps({"id": id, "delta": {"content": text}, "end": None, **more}).encode()


@pytest.fixture
def template() -> Template:
    template = Template(b"content")
    template.learn(frame("hello"), "hello")
    return template


@pytest.mark.parametrize("text", ["x", "", 'quo"te', "\\", "\n", "é🚀", "hello"])
def test_the_text_of_a_like_frame_is_read(template: Template, text: str) -> None:
    assert template.text(frame(text)) == text


@pytest.mark.parametrize(
    "other",
    [
        frame("x", id="b"),
        frame("x", more=1),
        frame(None),
        frame(3),
        frame("x").replace(b'"x"', b'"x", "role": "assistant"'),
        frame("x").replace(b'"x"', b'"x'),
        frame("x").replace(b'"x"', b'"\xff"'),
        frame("x")[:-30],
        b"",
    ],
)
def test_every_other_frame_is_left_to_the_parser(template: Template, other: bytes) -> None:
    assert template.text(other) is None


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (frame("a"), "a"),  # the id is "a" as well: the first "a" is not the content
        (frame("x", more={"content": "x"}), "x"),  # which of the two it is stays unknown
        (frame("é"), "é"),  # written as an escape
    ],
)
def test_nothing_is_learnt_where_the_text_cannot_be_placed(sample: bytes, text: str) -> None:
    template = Template(b"content")
    template.learn(sample, text)
    assert template.text(sample) is None


def test_learning_ends_where_no_two_frames_are_alike() -> None:
    template = Template(b"content")
    for number in range(10):
        template.learn(frame("x", obfuscation=number), "x")
    template.learn(frame("hello"), "hello")
    assert template.text(frame("hello")) is None


@pytest.mark.parametrize("before", [True, False], ids=["before the text", "after it"])
def test_a_field_without_meaning_may_vary(before: bool) -> None:
    def event(text: str, noise: str) -> bytes:
        fields = {"noise": noise, "content": text} if before else {"content": text, "noise": noise}
        return json.dumps({"id": "a", **fields, "end": None}, separators=(",", ":")).encode()

    template = Template(b"content", varying=[b"other", b"noise"])
    template.learn(event("hello", "abc"), "hello")
    for text, noise in itertools.product(["x", "", 'quo"te', "\\", "hello"], ["abc", "", 'a"b', "\n"]):
        assert template.text(event(text, noise)) == text
    same = event("x", "abc")
    for other in (
        same.replace(b'"abc"', b"3"),
        same.replace(b'"abc"', b'"abc","more":"z"'),
        same.replace(b'"x"', b'"x","more":"z"'),
        same.replace(b'"x"', b'"x\\"').replace(b'"abc"', b'",\\"abc"'),
        same.replace(b'"abc"', b'["abc"]'),
        same.replace(b"noise", b"other"),
        same[:8],
    ):
        assert template.text(other) is None


def test_a_frame_of_another_kind_is_learnt_anew() -> None:
    template = Template(b"content", varying=[b"noise"])
    for event in (b'{"noise":"1","content":"x"}', b'{"content":"x","noise":"1"}', b'{"content":"x"}'):
        template.learn(event, "x")
        assert template.text(event.replace(b"x", b"y").replace(b"1", b"2")) == "y"
    template.forget()
    assert template.text(b'{"content":"x"}') is None


@pytest.mark.parametrize("end", [b"\n", b"\n\n"])
def test_an_event_ends_where_it_must(template: Template, end: bytes) -> None:
    unlearnt = Template(b"content")
    for event in (frame("x"), frame("x") + end, b'"x"', b"x", b""):
        assert template.text(event, end) == ("x" if event == frame("x") + end else None)
        assert unlearnt.text(event, end) is None


PARTS = [b'"', b"\\", b",", b":", b"[", b"]", b"{", b"}", b"\n", b" ", b"\xff", b'","', b'"id":', b"1"]


@given(st.text(max_size=3), st.lists(st.tuples(st.integers(0, 99), st.sampled_from(PARTS)), max_size=4))
@settings(max_examples=500, deadline=None)
def test_a_changed_event_is_read_as_json_or_not_at_all(text: str, changes: list[tuple[int, bytes]]) -> None:
    event = frame(text).replace(b": ", b":").replace(b'"end":null', b'"end":"noise"')
    template = Template(b"content", varying=[b"end"])
    template.learn(event, text)
    for place, part in changes:
        event = event[: place % len(event)] + part + event[place % len(event) :]
    found = template.text(event)
    if found is not None:
        read = json.loads(event)
        assert isinstance(read.pop("end"), str)
        assert read == {"id": "a", "delta": {"content": found}}
        assert b"\n" not in event


def openai(text: str, noise: str) -> dict[str, Any]:
    return {**delta(content=text), "obfuscation": noise}


def anthropic(text: str, noise: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def ollama(text: str, noise: str) -> dict[str, Any]:
    return {
        "model": "m",
        "created_at": noise,
        "message": {"role": "assistant", "content": text},
        "done": False,
    }


FRAMES = {"openai": openai, "anthropic": anthropic, "ollama": ollama}
STARTS = {"openai": b"data: ", "anthropic": b"event: content_block_delta\ndata: ", "ollama": b""}
ENDS = {
    "openai": sse(delta("stop")),
    "anthropic": named(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}
    ),
    "ollama": lines({"model": "m", "done": True, "done_reason": "stop"}),
}


@given(
    st.sampled_from(sorted(FRAMES)),
    st.lists(st.tuples(st.text(max_size=6), st.text(max_size=3)), max_size=8),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 1 << 12), max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_a_stream_of_like_frames_is_read_as_if_each_were_parsed(
    wire: str, texts: list[tuple[str, str]], ascii: bool, line_end: bytes, places: list[int]
) -> None:
    frames = [
        json.dumps(FRAMES[wire](*text), ensure_ascii=ascii, separators=(",", ":")).encode("utf-8", "replace")
        for text in [("So", "a"), *texts]
    ]
    end = b"\n" if wire == "ollama" else b"\n\n"
    reads = [(STARTS[wire] + frame + end).replace(b"\n", line_end) for frame in frames]
    reads.append(ENDS[wire].replace(b"\n", line_end))
    path = {"openai": ("choices", 0, "delta", "content"), "anthropic": ("delta", "text")}
    said = [_at(json.loads(frame), path.get(wire, ("message", "content"))) for frame in frames]
    expected = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in said]
    for pieces in (reads, [b"".join(reads)], cut(b"".join(reads), places)):
        chunks, completion = run(WIRES[wire].Decoder(), *pieces)
        assert [chunk.text for chunk in chunks] == [text for text in expected if text]
        assert completion.text == "".join(expected)


def _at(value: Any, path: tuple[str | int, ...]) -> str:
    for key in path:
        value = value[key]
    assert isinstance(value, str)
    return value
