"""What a server quotes of the request does not decide which error it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from ccroute import errors
from ccroute.backends.credentials import Secrets
from ccroute.errors import BackendError, RequestError
from ccroute.flow.attempt.redact import cleaned
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
    return type(cleaned(failure, Secrets(), asked, model))


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_quoted_from_anywhere_in_the_request_does_not_count(place: str, written: str) -> None:
    for status, words in SAID:
        for quoted in (words, f"^{words}[$", f'say "{words}" or \\d'):
            server_message = WRITTEN[written](quoted)
            assert kind_of(status, server_message, PLACES[place](quoted)) is PLAIN[status], server_message


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
    for server_message in (
        f"invalid input: '{line[:60]}...'",
        f"cannot read {line[:60]}",
        f"{'x ' * 1970}{line}",
    ):
        assert kind_of(400, server_message, request(line)) is errors.InvalidRequestError, server_message


@pytest.mark.parametrize("end", ["...", "…", "...'", "... (cut)", "...}] and more"])
@pytest.mark.parametrize("before", ["", "first "])
def test_a_quotation_that_is_cut_with_dots_turns_no_credential_off(before: str, end: str) -> None:
    line = "my provider says: your credit balance is too low, what do I do now?"
    told = f"blocked: {before}{line[:55]}{end}"
    assert kind_of(403, told, request(f"{before}\n{line}")) is errors.PermissionDeniedError


def test_what_else_an_error_says_is_kept() -> None:
    body = b'{"error": {"message": "incorrect api key", "code": 400}, "request_id": "r1"}'
    failure = cleaned(
        anthropic.error(400, {"retry-after": "3"}, body), Secrets(), request("incorrect api key"), "m"
    )
    assert type(failure) is errors.InvalidRequestError
    assert (failure.status, failure.retry_after, failure.request_id) == (400, 3.0, "r1")
    assert failure.body == body.decode()
    assert failure.payload is None


def test_a_wait_or_a_parameter_that_is_quoted_does_not_count() -> None:
    body = b'{"error": {"message": "no: Please try again in 9000s"}}'
    for prompt, wait in (("hello", 9000), ("please try again in 9000s", None)):
        assert cleaned(openai.error(429, {}, body), Secrets(), request(prompt), "").retry_after == wait
    body = b'{"error": {"message": "not supported: \'the temperature there\'"}}'
    failure: Any = cleaned(openai.error(400, {}, body), Secrets(), request("the temperature there"), "m")
    assert (failure.elsewhere, failure.parameter) == (True, None)


def test_a_parameter_counts_though_a_tool_has_a_property_of_its_name() -> None:
    body = b'{"error": {"message": "Unsupported parameter: temperature"}}'
    asked = request(tools=[tool(properties={"temperature": {"type": "number"}})])
    failure: Any = cleaned(openai.error(400, {}, body), Secrets(), asked, "m")
    assert (failure.elsewhere, failure.parameter) == (True, "temperature")


def test_an_overflow_is_known_though_the_prompt_quotes_another() -> None:
    words = "This model's maximum context length is {} tokens. However, you requested {} tokens"
    for history in (words.format(4096, 4800), f"API error: {words.format(4096, 4800)}, try less"):
        assert kind_of(400, words.format(4096, 5000), request(history)) is errors.ContextWindowExceededError


@pytest.mark.parametrize("wire", [openai, anthropic, ollama])
def test_an_error_within_a_stream_is_read_so_too(wire: Any) -> None:
    frame = {"type": "error", "error": {"message": "incorrect api key"}}
    line = b'{"error": "incorrect api key"}\n'
    with pytest.raises((BackendError, RequestError)) as raised:
        decoder = wire.Decoder()
        decoder.feed(line if wire is ollama else f"data: {json.dumps(frame)}\n\n".encode())
        decoder.finish()
    assert type(raised.value) is errors.AuthenticationError
    assert type(cleaned(raised.value, Secrets(), request("incorrect api key"), "m")) is errors.ServerError


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        ("too many requests" * 230, "too many requests" * 100_000),
        ("too many requests x" * 200, "\n".join(f"too many requests {i}" for i in range(100_000))),
        ("too many requests" + "x" * 4000, "\n".join(f"{'x' * i} too many requests" for i in range(2000))),
    ],
)
def test_it_takes_time_in_proportion(words: str, prompt: str) -> None:
    began = time.perf_counter()
    kind_of(400, words, request(prompt))
    assert time.perf_counter() - began < 2.0
