"""Keys and prompts are taken out of what a server said, wherever it said them."""

from __future__ import annotations

import base64
import html
import json
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute.errors import InvalidRequestError, ServerError
from ccroute.flow.readings import API_WORDS
from ccroute.flow.redact import clean
from ccroute.types import Request

PROMPT = "Tell my boss Alice I am ill"
KEY = "0f3A9c77e1B2d4588ac6"
OURS = "the server has no room now: try again later"


def cleaned(text: str, *contents: Any, secrets: Sequence[str] = (), **asked: Any) -> str:
    """What is left of `text` in an error's detail; its body and request_id must say the same."""
    messages = tuple({"role": "user", "content": content} for content in contents or ("unrelated",))
    error = ServerError(text, status=500, body=text, request_id=text)
    clean(error, secrets, Request(messages=messages, **asked))
    assert error.detail == error.body == error.request_id
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


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        KEY.upper(),
        KEY.lower(),
        " ".join(KEY),
        "\n".join(textwrap.wrap(KEY, 7)),
        "\\n".join(textwrap.wrap(KEY, 7)),
        "".join(f"\\u{ord(char):04x}" for char in KEY),
        "".join(f"\\x{ord(char):02X}" for char in KEY),
        "".join(f"%{ord(char):02X}" for char in KEY),
        "".join(f"%25{ord(char):02X}" for char in KEY),
        "".join(f"&#{ord(char)};" for char in KEY),
        "".join(f"&#X{ord(char):x};" for char in KEY),
        KEY[:14],
        KEY[-12:],
    ],
)
def test_a_key_is_removed_however_it_is_written(written: str) -> None:
    assert cleaned(f"key <{written}> is wrong", secrets=[KEY]) == "key <[key]> is wrong"


@pytest.mark.parametrize("before", ["", "u:", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("key", [KEY, "k~~~???>>>ÿÿÿ++"])
def test_a_key_is_removed_from_base64(before: str, encode: Callable[[bytes], bytes], key: str) -> None:
    code = encode(f"{before}{key}:".encode()).decode()
    left = cleaned(f"Basic {code}", secrets=[key])
    assert "[key]" in left
    assert len(left) < 25


@pytest.mark.parametrize("size", range(5, 20))
@pytest.mark.parametrize("after", ["", "\ufffd"])
def test_the_start_of_a_key_is_removed_where_the_text_was_cut_off(size: int, after: str) -> None:
    assert cleaned(f"wrong: {KEY[:size]}{after}", secrets=[KEY]) == "wrong: [key]"


@pytest.mark.parametrize("cut", ["\\", "\\u", "\\u00", "\\x2", "%", "%2", "&", "&#4", "&am"])
def test_a_key_cut_off_within_an_escape_is_removed_too(cut: str) -> None:
    secret = "ab&cd/efghijklmno"
    assert cleaned(f"wrong: ab%26cd{cut}", secrets=[secret]) == "wrong: [key]"


def test_a_placeholder_of_under_eight_characters_is_no_secret() -> None:
    assert cleaned("wrong: hunter22!", secrets=["hunter22"]) == "wrong: [key]!"
    assert cleaned("the prompt exceeds none", secrets=["", "x", "none", "EMPTY"]) == "the prompt exceeds none"


@pytest.mark.parametrize("field", ["function_call", "reasoning_details", "extra_content"])
def test_the_name_of_a_field_at_fault_is_not_taken_for_the_prompt(field: str) -> None:
    message = {"role": "assistant", "content": "x", field: {"name": "look_up", "arguments": "{}"}}
    error = InvalidRequestError(f"messages.1.{field}: Extra inputs are not permitted")
    clean(error, [], Request(messages=[message]))
    assert error.detail == f"messages.1.{field}: Extra inputs are not permitted"


@pytest.mark.parametrize(
    "quoted",
    [
        PROMPT[:16],
        PROMPT[5:23],
        PROMPT[-16:],
        PROMPT.upper(),
        PROMPT.replace(" ", ""),
        "\n".join(textwrap.wrap(PROMPT, 10)),
        "\\n".join(textwrap.wrap(PROMPT, 10)),
        PROMPT.replace(" ", "   "),
        quote(PROMPT),
        quote_plus(PROMPT),
        quote(quote(PROMPT)),
        PROMPT.replace(" ", "&nbsp;"),
        "".join(f"\\u{ord(char):04x}" for char in PROMPT),
    ],
)
@pytest.mark.parametrize("after", ["", "...", "' is not valid"])
def test_what_a_text_shares_with_the_prompt_is_removed_however_it_is_written(quoted: str, after: str) -> None:
    assert cleaned(f"cannot parse '{quoted}{after}", PROMPT) == f"cannot parse '[prompt]{after}"


@pytest.mark.parametrize(
    "write",
    [
        json.dumps,
        lambda text: json.dumps(json.dumps(text)),
        lambda text: json.dumps(text, ensure_ascii=False),
        repr,
        html.escape,
        quote,
        lambda text: quote(json.dumps(text)),
    ],
)
def test_escapes_of_a_prompt_do_not_hide_it(write: Callable[[str], str]) -> None:
    prompt = 'He said "no" to\t<Zoë & Özil> \\o/ \U0001f600 at 5\nin the "Café" of Ahaus'
    left = cleaned(f"cannot parse {write(prompt)}, sorry", prompt)
    assert not [word for word in ("said", "Zo", "zil", "600", "Caf", "Ahaus") if word in left]
    assert left.startswith("cannot parse")
    assert left.endswith("sorry")


@given(st.text(min_size=16, max_size=60), st.data())
def test_no_sixteen_characters_of_a_prompt_are_left(prompt: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(prompt) - 16))
    quoted = prompt[start : start + data.draw(st.integers(16, 60))]
    dense = "".join(quoted.replace("+", " ").split())
    named = any(word in quoted.casefold() for word in API_WORDS if len(word) >= 12)
    if not named and len(dense) >= 13 and len(quoted.replace("+", " ").strip()) >= 16:
        assert quoted not in cleaned(f"<{quoted}>", prompt)


@pytest.mark.parametrize(
    "asked",
    [
        {"stop": PROMPT},
        {"stop": ["END", PROMPT]},
        {"user": PROMPT},
        {"extra": {"guided": {"regex": [PROMPT]}}},
        {"extra": {"guided": {PROMPT: 1}}},
        {"tools": [{"type": "function", "function": {"name": "f", "description": PROMPT}}]},
        {"tool_choice": {"type": "function", "function": {"name": PROMPT}}},
        {"response_format": {"type": PROMPT}},
        {"messages": ({"role": "tool", "tool_call_id": "c", "content": ({"text": PROMPT},)},)},
        {"messages": ({"role": "assistant", "tool_calls": [{"function": {"arguments": PROMPT}}]},)},
    ],
)
def test_every_string_of_a_request_is_its_prompt(asked: dict[str, Any]) -> None:
    error = InvalidRequestError(f"cannot parse '{PROMPT}'")
    clean(error, [], Request(**asked))
    assert error.detail == "cannot parse '[prompt]'"


def test_an_argument_that_holds_itself_is_read_once() -> None:
    endless: dict[str, Any] = {"text": PROMPT}
    endless["more"] = endless
    assert cleaned(f"cannot parse '{PROMPT}'", extra={"x": endless}) == "cannot parse '[prompt]'"


@pytest.mark.parametrize("line", ["PIN: 4711", "call Zoë", "hunter2"])
def test_a_short_line_is_removed_where_it_is_quoted_whole(line: str) -> None:
    assert cleaned(f'no {{"input":"{line}\\n"}}', f"first\n  {line} \nlast") == 'no {"input":"[prompt]\\n"}'
    assert cleaned(f"no a{line}b", line) == f"no a{line}b"


def test_the_start_of_a_short_line_is_removed_where_the_text_was_cut_off() -> None:
    assert cleaned("cannot parse: PIN: 471", "first\nPIN: 4711") == "cannot parse: [prompt]"


@pytest.mark.parametrize(
    "prompt",
    [
        "server",
        "Which server has room?\nserver\nlater\nagain",
        "Why is there no room on the server? Should I try again?",
        "The server has rooms. " * 50,
    ],
)
def test_our_own_words_stay_though_the_prompt_is_about_the_same(prompt: str) -> None:
    assert cleaned(f"{OURS}: I am full", prompt) == f"{OURS}: I am full"


def test_names_of_parameters_stay() -> None:
    text = "additionalProperties is required in response_format, max_completion_tokens is not"
    schema = {"type": "json_schema", "json_schema": {"additionalProperties": False}}
    prompt = "why: additionalProperties max_completion_tokens!"
    assert cleaned(text, prompt, response_format=schema) == text


def test_what_an_error_came_from_goes() -> None:
    error = None
    try:
        try:
            json.loads(f"{PROMPT} {KEY}")
        except ValueError:
            raise ServerError("no") from None
    except ServerError as caught:
        error = caught
    assert error is not None
    clean(error, [KEY], Request())
    assert error.__context__ is None


@pytest.mark.parametrize("lines", [[f"{n:x}" for n in range(200_000)], ["abcd"] * 200_000])
def test_a_prompt_of_a_megabyte_is_compared_at_once(lines: list[str]) -> None:
    request = Request(messages=({"role": "user", "content": "\n".join(lines)},))
    body = json.dumps("\n".join(lines[5000:5600]))[:2048]
    took = []
    for _ in range(5):
        error = ServerError(f"{OURS}: {body[:300]}", status=500, body=body)
        began = time.perf_counter()
        clean(error, [KEY], request)
        took.append(time.perf_counter() - began)
        assert error.detail == f'{OURS}: "[prompt]\\'
    assert min(took) < 0.2  # about 0.05 on an idle machine; minutes, if it were not linear
