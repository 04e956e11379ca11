"""Thoughts that Ollama leaves in the text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.support import as_json, lines, run

from ccroute.types import Chunk
from ccroute.wire.ollama import Decoder, decode
from ccroute.wire.ollama.tags import ThoughtSplitter, split_thoughts


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("<think>I should greet.</think>Hello there.", "I should greet.", "Hello there."),
        ("\n <think>\nhm\n</think>\n\nHello", "hm\n", "Hello"),
        ("<think></think>Hello", "", "Hello"),
        ("<think>never ends", "never ends", ""),
        ("<think>a </thin", "a </thin", ""),
        ("<think>a</think>", "a", ""),
        ("Hello <think>no</think>", "", "Hello <think>no</think>"),
        ("<thinker>", "", "<thinker>"),
        ("<thi", "", "<thi"),
        (" \n", "", " \n"),
        ("", "", ""),
        ("a</think>b", "", "a</think>b"),
    ],
)
def test_thoughts_at_the_beginning_are_split_from_the_answer(text: str, thoughts: str, answer: str) -> None:
    assert split_thoughts(text) == (thoughts, answer)
    completion = decode(as_json({"message": {"content": text}, "done": True}))
    assert (completion.thinking or "", completion.text) == (thoughts, answer)


_PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "/think>", " ", "\n", "a", "thi", "nk>"]), max_size=8
)


@given(_PIECES.map("".join), st.lists(st.integers(0, 60), max_size=6))
def test_a_cut_anywhere_changes_nothing(text: str, cuts: list[int]) -> None:
    splitter = ThoughtSplitter()
    at = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    parts = [splitter.feed(text[start:end]) for start, end in pairwise(at)] + [splitter.end()]
    assert tuple(map("".join, zip(*parts, strict=True))) == split_thoughts(text)


def test_a_stream_emits_thoughts_as_thinking() -> None:
    frames = [
        {"message": {"role": "assistant", "content": piece}}
        for piece in ("<think>", "I should", "</think>", "Hello", " <b>")
    ]
    chunks, completion = run(Decoder(), lines(*frames, {"message": {"content": ""}, "done": True}))
    assert chunks == [Chunk(thinking="I should"), Chunk(text="Hello"), Chunk(text=" <b>")]
    assert (completion.thinking, completion.text) == ("I should", "Hello <b>")


def test_held_back_text_is_emitted_at_the_end() -> None:
    frames = [
        {"message": {"role": "assistant", "content": "<th"}},
        {"message": {"content": ""}, "done": True},
    ]
    chunks, completion = run(Decoder(), lines(*frames))
    assert chunks == [Chunk(text="<th")]
    assert completion.text == "<th"
