"""Secrets, and what a server repeats of the request, are taken out of an error."""

from __future__ import annotations

import base64
import gc
import html
import json
import pickle
import textwrap
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute import OpenAIBackend
from ccroute.backends.credentials import Secrets
from ccroute.errors import BackendError, InvalidRequestError, ProtocolError, ServerError
from ccroute.flow.attempt.redact import cleaned, request_id
from ccroute.types import Request
from ccroute.wire import openai

PROMPT = "Tell my boss Alice and her boss that I am ill today"
KEY = "0f3A9c77e1B2d4588ac6"
OURS = "the server failed: try again, or look at its log"


def asking(content: Any) -> Request:
    return Request(messages=({"role": "user", "content": content},))


def shown(words: str, request: Request | None = None, *secrets: str, **more: Any) -> Any:
    """The error of a server that says `words`, as a call raises it."""
    body = json.dumps({"error": {"message": words}, **more}).encode()
    return cleaned(openai.error(500, {}, body), Secrets(secrets), request or asking("unrelated"), "m")


def test_what_the_server_says_of_the_failure_is_shown() -> None:
    error = shown("the disk is full\nTraceback", asking(PROMPT), KEY, request_id="req_1")
    assert error.detail == f"{OURS}: the disk is full"
    assert error.args == (error.detail,)
    assert error.request_id == "req_1"
    assert error.payload is None


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        KEY.upper(),
        json.dumps(f'{KEY}/"+'),
        quote(f'{KEY}/"+', safe=""),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
    ],
)
def test_a_secret_is_removed_in_its_usual_encodings(written: str) -> None:
    error = shown(f"key <{written}> is wrong", None, KEY, f'{KEY}/"+')
    for text in (error.detail, error.body):
        assert "[key]" in text
        assert KEY[:12].casefold() not in text.casefold()
        assert written[:12] not in text


ODD = 'pw/+with&odd"signs==0123456789'


@pytest.mark.parametrize(
    "written",
    [
        quote(ODD),
        quote_plus(ODD),
        quote(quote(ODD, safe=""), safe=""),
        html.escape(ODD),
        json.dumps(ODD)[1:-1].replace("/", "\\/"),
        json.dumps(ODD)[1:-1].replace("+", "\\u002B"),
        json.dumps(json.dumps(ODD)[1:-1])[1:-1],
        "".join(f"%{byte:02X}" for byte in ODD.encode()),
    ],
)
def test_a_secret_of_odd_characters_is_removed_however_escaped(written: str) -> None:
    error = cleaned(ServerError(f"it said {written}", status=500), Secrets([ODD]), Request(), "m")
    assert str(error) == "it said [key] (HTTP 500)"


@pytest.mark.parametrize("user", ["", "u:", "ab:", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("key", [KEY, "k~~~???>>>ÿÿÿ++"])
def test_a_secret_is_removed_from_basic_credentials(
    user: str, encode: Callable[[bytes], bytes], key: str
) -> None:
    error = shown(f"Basic {encode(f'{user}{key}:'.encode()).decode()}", None, key)
    assert "[key]" in error.detail
    assert len(error.detail) < len(OURS) + 27


@given(st.from_regex(r"[a-z0-9]{8,20}", fullmatch=True), st.text(), st.text())
def test_a_secret_is_never_left_over(secret: str, before: str, after: str) -> None:
    error = ServerError("no", body=f"{before}{secret}{after}")
    assert secret not in cleaned(error, Secrets((secret,)), Request(), "m").body.replace("[key]", "")  # type: ignore[union-attr]


@pytest.mark.parametrize("size", range(1, 21))
def test_no_limit_cuts_a_secret_in_two(size: int) -> None:
    body = "." * (2048 - size) + KEY * 200
    error = cleaned(ServerError("no", body=body), Secrets((KEY,)), Request(), "m")
    assert error.body is not None
    assert KEY[:1] not in error.body
    assert len(error.body) <= 2048
    assert "0f" not in shown("." * (300 - size) + KEY * 200, None, KEY).detail


def test_a_key_given_as_a_header_is_removed_without_its_scheme_too() -> None:
    assert shown(f"wrong: {KEY}!", None, f"Bearer {KEY}").detail == f"{OURS}: wrong: [key]!"


def test_a_placeholder_of_under_eight_characters_is_no_secret() -> None:
    assert shown("the prompt exceeds none", None, "", "x", "none").detail.endswith("the prompt exceeds none")


@pytest.mark.parametrize(
    "quoted",
    [
        PROMPT,
        PROMPT[:32],
        PROMPT[5:37],
        PROMPT[-32:],
        PROMPT.upper(),
        PROMPT.replace(" ", ""),
        "\\n".join(textwrap.wrap(PROMPT, 10)),
        PROMPT.replace(" ", "   "),
        json.dumps(json.dumps(PROMPT)),
        "".join(f"\\u{ord(char):04x}" for char in PROMPT),
    ],
)
@pytest.mark.parametrize("after", ["", "...", "' is not valid"])
def test_words_that_repeat_the_prompt_are_not_shown(quoted: str, after: str) -> None:
    error = shown(f"cannot parse '{quoted}{after}", asking(PROMPT), KEY)
    assert error.detail == OURS
    assert "cannot parse" in error.body, "the caller may see what came"


@pytest.mark.parametrize(
    "prompt", ['He said "no" to\t<Zoë & Özil> \\o/', "请把这封信翻译成英文并且寄给我在柏林的朋友谢谢你"]
)
@pytest.mark.parametrize("write", [json.dumps, repr, lambda text: json.dumps(text, ensure_ascii=False)])
def test_escapes_do_not_hide_a_prompt(prompt: str, write: Callable[[str], str]) -> None:
    assert shown(f"cannot parse {write(prompt)}", asking(prompt)).detail == OURS


@pytest.mark.parametrize("before", ["", "ca b" * 20_000])
@given(prompt=st.text(alphabet="abc d\nü", min_size=24, max_size=90), data=st.data())
def test_any_24_characters_in_a_row_are_found(before: str, prompt: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(prompt) - 24))
    part = prompt[start : start + data.draw(st.integers(24, 90))]
    dense = "".join(part.split())
    if len(dense) >= 24:
        asked = asking(f"{before}{prompt}")
        assert shown(f"<<{part.replace(chr(10), ' ')}>>"[1:], asked).detail == OURS


@pytest.mark.parametrize(
    "prompt", ["Which server has room?", PROMPT[:20], "the disk is full" + " x" * 50_000]
)
def test_shorter_phrases_of_the_prompt_may_be_in_the_words(prompt: str) -> None:
    assert shown("the disk is full of Tell my boss Alice", asking(prompt)).detail != OURS


def test_our_own_words_are_shown_whatever_the_prompt_says() -> None:
    asked = asking(f"Why does it say: {OURS}? And: the server's answer is not valid JSON")
    assert shown("no", asked).detail == f"{OURS}: no"
    error = ProtocolError("the server's answer is not valid JSON", body="x")
    assert cleaned(error, Secrets(), asked, "m").detail == "the server's answer is not valid JSON"


def test_a_message_of_the_users_own_backend_may_be_the_servers() -> None:
    error = ServerError(f"it said {PROMPT}", status=500)
    assert cleaned(error, Secrets(), asking(PROMPT), "m").detail == OURS
    half = ServerError(f"it said \ud800 {PROMPT}", status=500)
    assert cleaned(half, Secrets(), asking(PROMPT * 1000), "m").detail == OURS
    own = cleaned(BackendError(f"it said {KEY}", status=418), Secrets((KEY,)), asking(PROMPT), "m")
    assert own.detail == "it said [key]"


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
        {"messages": ({"role": "user", "content": [{"type": "text", "text": PROMPT}]},)},
        {"messages": ({"role": "tool", "tool_call_id": "c", "content": ({"text": PROMPT},)},)},
        {"messages": ({"role": "assistant", "tool_calls": [{"function": {"arguments": PROMPT}}]},)},
    ],
)
def test_every_string_of_a_request_is_its_prompt(asked: dict[str, Any]) -> None:
    assert shown(f"cannot parse '{PROMPT}'", Request(**asked)).detail == OURS


def test_an_argument_that_holds_itself_is_read_once() -> None:
    endless: dict[str, Any] = {"text": PROMPT}
    endless["more"] = endless
    assert shown(f"cannot parse '{PROMPT}'", Request(extra={"x": endless})).detail == OURS


@pytest.mark.parametrize("echo", [KEY, f"id-{KEY}", "two words", "x" * 129, "a%20b", ""])
def test_a_request_id_looks_like_one_and_holds_no_secret(echo: str) -> None:
    assert request_id(echo, Secrets((KEY,))) is None
    assert request_id("req_01-AB.c:d", Secrets((KEY,))) == "req_01-AB.c:d"
    assert shown("no", None, KEY, request_id=echo).request_id is None
    assert (
        shown(
            "no", asking("a-very-long-name-of-a-project"), request_id="a-very-long-name-of-a-project"
        ).request_id
        is None
    )


def test_the_body_is_nowhere_but_in_its_attribute() -> None:
    error = shown(f"cannot parse '{PROMPT}'", asking(PROMPT))
    assert PROMPT in error.body
    assert PROMPT not in f"{error}{error!r}{error.args}{error._repr_html_()}{[*error.__rich_repr__()]}"
    loaded = pickle.loads(pickle.dumps(error))
    assert (type(loaded), str(loaded), loaded.body) == (ServerError, str(error), None)


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
    cleaned(error, Secrets((KEY,)), Request(), "m")
    assert error.__context__ is None


def test_an_error_that_says_nothing_stays_as_it_is() -> None:
    error = cleaned(InvalidRequestError(""), Secrets(("a-secret",)), Request(), "m")
    assert (error.detail, error.body) == ("", None)


@pytest.mark.parametrize(
    "lines", [[f"{n:x}" for n in range(300_000)], ["abcd"] * 400_000, ["ab", "cde"] * 300_000]
)
def test_a_prompt_of_two_megabytes_is_compared_at_once(lines: list[str]) -> None:
    request = asking("\n".join(lines))
    words = json.dumps("\n".join(lines[5000:5600]))[:2048]
    took = []
    for _ in range(5):
        began = time.perf_counter()
        error = shown(words, request, KEY)
        took.append(time.perf_counter() - began)
        assert error.detail == OURS
    assert min(took) < 0.5  # about 0.02 on an idle machine; minutes, if it were not linear


def test_no_secret_outlives_its_backend() -> None:
    key = f"made-up-{len(KEY)}-outlives"
    backend = OpenAIBackend(base_url="http://server.test/v1", api_key=key)
    assert cleaned(ServerError("no", body=key), backend.secrets(), Request(), "m").body == "[key]"
    del backend
    gc.collect()
    assert not any(type(each) is Secrets and key in each for each in gc.get_objects())
