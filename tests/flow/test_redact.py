"""Keys and prompts are taken out of what a server said, wherever it said them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute.errors import InvalidRequestError, ServerError
from ccroute.flow.redact import clean
from ccroute.types import Request

PROMPT = "Tell my boss Alice I am ill"


def cleaned(text: str, *contents: Any, secrets: Sequence[str] = ()) -> str:
    """What is left of `text` in an error's detail; its body must say the same."""
    messages = tuple({"role": "user", "content": content} for content in contents or ("unrelated",))
    error = ServerError(text, status=500, body=text)
    clean(error, secrets, Request(messages=messages))
    assert error.detail == error.body
    assert error.args == (error.detail,)
    return error.detail


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key my-own-secret is wrong", "key [key] is wrong"),
        ("key sk-proj-abcDEF123_456 is wrong", "key [key] is wrong"),
        ("key gsk_0123456789 or hf_abcdefghij", "key [key] or [key]"),
        ("Authorization: Bearer abc.def", "Authorization: [key]"),
        ("token eyJhbGciOiJIUzI1NiJ9.e30.abcdef is old", "token [key] is old"),
        ("see https://user:pass@proxy.test/v1", "see https://proxy.test/v1"),
        ("see http://token@h.test", "see http://h.test"),
        ("task-list and ask me@home.test", "task-list and ask me@home.test"),
    ],
)
def test_keys_and_what_looks_like_one_are_removed(text: str, left: str) -> None:
    assert cleaned(text, secrets=["my-own-secret"]) == left


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (f"cannot parse '{PROMPT}'!", PROMPT),
        (f"cannot parse {PROMPT}", f"first\n  {PROMPT}  \nlast"),
        (f"cannot parse {PROMPT}", [{"type": "text", "text": PROMPT}, {"type": "image_url"}]),
        (f"cannot parse {PROMPT}", ({"type": "text", "text": PROMPT},)),
        (json.dumps({"input": f'{PROMPT} "ä" \\'}), f'{PROMPT} "ä" \\'),
        (json.dumps({"input": f'{PROMPT} "ä"\nx'}, ensure_ascii=False), f'{PROMPT} "ä"\nx'),
        (f"cannot parse: {PROMPT}"[:-5], PROMPT),
        (f"cannot parse: {PROMPT}"[:-5] + "\ufffd", PROMPT),
    ],
)
def test_a_prompts_lines_are_removed_whole_quoted_and_cut_off(text: str, content: Any) -> None:
    left = cleaned(text, content)
    assert "[prompt]" in left
    assert not [word for word in ("boss", "Alice", "Tell") if word in left]


def test_a_long_word_of_the_prompt_is_removed_wherever_it_stands() -> None:
    text = "no route to unmistakable-confidentiality here"
    assert cleaned(text, "of unmistakable-confidentiality sings") == "no route to [prompt] here"


def test_short_lines_and_words_of_the_prompt_are_left() -> None:
    assert cleaned("the model is busy", "model\nbusy", None, 7) == "the model is busy"


def test_an_error_that_says_nothing_stays_as_it_is() -> None:
    error = InvalidRequestError("")
    clean(error, ["secret"], Request())
    assert (error.detail, error.body) == ("", None)


@given(st.from_regex(r"[a-z0-9]{8,20}", fullmatch=True), st.text(), st.text())
def test_a_secret_is_never_left_over(secret: str, before: str, after: str) -> None:
    assert secret not in cleaned(f"{before}{secret}{after}", secrets=[secret])
