"""Reading only the text of frames that are alike in everything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.support import delta, run, sse

from ccroute.wire.openai import Decoder
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


@given(st.lists(st.text(max_size=6), max_size=8), st.booleans())
def test_a_stream_of_like_frames_is_read_as_if_each_were_parsed(texts: list[str], ascii: bool) -> None:
    frames = [json.dumps(delta(content=text), ensure_ascii=ascii) for text in texts]
    stream = "".join(f"data: {frame}\n\n" for frame in frames).encode("utf-8", "replace")
    chunks, completion = run(Decoder(), stream, sse(delta("stop")))
    expected = [
        json.loads(frame.encode("utf-8", "replace"))["choices"][0]["delta"]["content"] for frame in frames
    ]
    expected = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in expected]
    assert [chunk.text for chunk in chunks] == [text for text in expected if text]
    assert completion.text == "".join(expected)
