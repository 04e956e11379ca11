"""What a server quotes of the request says nothing of the failure, however it is quoted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from ccroute import errors
from ccroute.errors import BackendError, RequestError
from ccroute.flow.echoes import in_own_words, without_quotes
from ccroute.types import Request
from ccroute.wire import anthropic, ollama, openai

WORDINGS = {
    400: ("incorrect api key", "credit balance is too low", "too many requests", "insufficient balance"),
    500: ("server busy", "Loading model", "maximum context length is 5 tokens"),
}
SAID = [(status, words) for status, all_words in WORDINGS.items() for words in all_words]
PLAIN = {400: errors.InvalidRequestError, 500: errors.ServerError}


def request(content: str = "unrelated", **asked: Any) -> Request:
    return Request(messages=({"role": "user", "content": content},), **asked)


def tool(name: str = "look_up", description: str = "", **schema: Any) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": {"type": "object", **schema}}
    return {"type": "function", "function": function}


def schema(pattern: str) -> dict[str, Any]:
    properties = {"kind": {"type": "string", "pattern": pattern}}
    return {
        "type": "json_schema",
        "json_schema": {"name": "A", "schema": {"type": "object", "properties": properties}},
    }


PLACES: dict[str, Callable[[str], Request]] = {
    "prompt": lambda words: request(words),
    "one line of a prompt": lambda words: request(f"first\n  {words}  \nlast"),
    "part": lambda words: Request(
        messages=({"role": "user", "content": [{"type": "text", "text": words}]},),
    ),
    "pattern": lambda words: request(response_format=schema(words)),
    "response_format.type": lambda words: request(response_format={"type": words}),
    "tool's name": lambda words: request(tools=[tool(words)]),
    "tool's description": lambda words: request(tools=[tool(description=words)]),
    "property": lambda words: request(tools=[tool(properties={words: {"type": "string"}})]),
    "enum": lambda words: request(tools=[tool(properties={"a": {"enum": [words]}})]),
    "tool_choice": lambda words: request(tool_choice=words),
    "stop": lambda words: request(stop=[words]),
    "user": lambda words: request(user=words),
    "extra": lambda words: request(extra={"grammar": words}),
}
WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": lambda words: words,
    "quoted": lambda words: f"'{words}' is nothing that can be served",
    "at the end": lambda words: f"invalid value: {words}",
    "as JSON in JSON": lambda words: f"cannot read {json.dumps(json.dumps({'a': words}))}",
    "on two lines": lambda words: words.replace(" ", "\n"),
}


def kind_of(status: int, message: str, asked: Request, model: str = "m") -> type[Exception]:
    failure = openai.error(status, {}, json.dumps({"error": {"message": message}}).encode())
    return type(in_own_words(failure, asked, model))


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_quoted_from_anywhere_in_the_request_does_not_count(place: str, written: str) -> None:
    for status, words in SAID:
        for quoted in (words, f"^{words}[$", f'say "{words}" or \\d'):
            told = WRITTEN[written](quoted)
            assert kind_of(status, told, PLACES[place](quoted)) is PLAIN[status], told


def test_the_models_name_is_a_part_of_the_request() -> None:
    assert kind_of(400, "incorrect api key", request(), "incorrect api key") is errors.InvalidRequestError


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "Incorrect API key provided: x", errors.AuthenticationError),
        (400, "Your credit balance is too low to access the API.", errors.QuotaExhaustedError),
        (
            400,
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
            errors.ContextWindowExceededError,
        ),
        (503, "Loading model", errors.OverloadedError),
    ],
)
def test_a_request_that_only_shares_a_phrase_hides_nothing(status: int, message: str, kind: Any) -> None:
    prompt = (
        "Why does it say: This model's maximum context length is 8192 tokens. However, your messages?\n"
        "Or: your credit balance is too low, said the bank. Loading model weights takes long.\n"
        "Incorrect API key provided: sk-0000"
    )
    assert kind_of(status, message, request(prompt, tools=[tool("incorrect")])) is kind


def test_the_start_of_a_line_counts_where_the_quotation_is_cut_off() -> None:
    line = "my customer writes: the maximum context length is 5 tokens, which is not enough"
    for told in (f"invalid input: '{line[:60]}...'", f"cannot read {line[:60]}", f"{'x ' * 1970}{line}"):
        assert kind_of(400, told, request(line)) is errors.InvalidRequestError, told


def test_an_error_that_nothing_was_taken_from_stays_itself_and_forgets_the_words() -> None:
    failure = openai.error(400, {}, b'{"error": {"message": "Incorrect API key provided"}}')
    assert failure.read_again is not None
    assert in_own_words(failure, request(), "m") is failure
    assert failure.read_again is None
    plain = openai.error(400, {}, b'{"error": {"message": "no"}}')
    assert plain.read_again is None, "no wording decided anything"
    assert in_own_words(plain, request(), "m") is plain


def test_what_else_an_error_says_is_kept() -> None:
    body = b'{"error": {"message": "incorrect api key", "code": 400}, "request_id": "r1"}'
    failure = in_own_words(
        anthropic.error(400, {"retry-after": "3"}, body), request("incorrect api key"), "m"
    )
    assert type(failure) is errors.InvalidRequestError
    assert (failure.status, failure.retry_after, failure.request_id) == (400, 3.0, "r1")
    assert failure.body == body.decode()
    assert failure.read_again is None


def test_a_wait_or_a_parameter_that_is_quoted_does_not_count() -> None:
    told = b'{"error": {"message": "no: please try again in 9000s"}}'
    assert openai.error(429, {}, told).retry_after == 9000
    assert (
        in_own_words(openai.error(429, {}, told), request("please try again in 9000s"), "").retry_after
        is None
    )
    told = b'{"error": {"message": "not supported: \'the temperature there\'"}}'
    failure: Any = in_own_words(openai.error(400, {}, told), request("the temperature there"), "m")
    assert (failure.elsewhere, failure.parameter) == (True, None)


@pytest.mark.parametrize("wire", [openai, anthropic, ollama])
def test_an_error_within_a_stream_is_read_so_too(wire: Any) -> None:
    frame = {"type": "error", "error": {"message": "incorrect api key"}}
    line = b'{"error": "incorrect api key"}\n'
    with pytest.raises((BackendError, RequestError)) as raised:
        decoder = wire.Decoder()
        decoder.feed(line if wire is ollama else f"data: {json.dumps(frame)}\n\n".encode())
        decoder.finish()
    assert type(raised.value) is errors.AuthenticationError
    assert type(in_own_words(raised.value, request("incorrect api key"), "m")) is errors.ServerError


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        ("x" * 4000, "x" * 2_000_000),
        ("x" * 4000, "\n".join("x" * (8 + i % 3000) + str(i) for i in range(1000))),
        ("ab cdefghij" * 360, "\n".join(f"abcdefghij{i}" for i in range(100_000))),
        ("%25" * 1300, "%25" * 500_000),
    ],
)
def test_it_takes_time_in_proportion(words: str, prompt: str) -> None:
    began = time.perf_counter()
    without_quotes(words, request(prompt))
    assert time.perf_counter() - began < 2.0
