"""What servers say when they fail, and what it becomes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.support import WIRES, as_json

from ccroute import errors
from ccroute.errors import BackendError, ContextWindowExceededError, QuotaExhaustedError, RequestError
from ccroute.wire import anthropic, ollama, openai
from ccroute.wire.errors.typed import LONGEST_WAIT, retry_after

HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
NOW = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "InvalidRequestError"),
        (401, "AuthenticationError"),
        (402, "QuotaExhaustedError"),
        (403, "PermissionDeniedError"),
        (404, "ModelNotFoundError"),
        (408, "BackendTimeoutError"),
        (409, "OverloadedError"),
        (413, "InvalidRequestError"),
        (418, "BackendError"),
        (422, "InvalidRequestError"),
        (424, "ServerError"),
        (425, "OverloadedError"),
        (429, "RateLimitError"),
        (500, "ServerError"),
        (502, "ServerError"),
        (503, "OverloadedError"),
        (504, "ServerError"),
        (529, "OverloadedError"),
        (302, "BackendError"),
    ],
)
def test_every_status_has_its_error(wire: str, status: int, kind: str) -> None:
    for body in (b"", HTML, b'{"error":{"message":"words"}}', b"\xff\x00"):
        error = WIRES[wire].error(status, {}, body)
        assert type(error) is getattr(errors, kind), body
        assert error.status == status
        assert "<" not in str(error)


def test_a_redirect_says_what_to_do() -> None:
    assert "fix base_url" in str(openai.error(301, {"location": "https://evil"}, b""))


def test_the_facts_of_an_answer_are_kept() -> None:
    headers = {"x-request-id": "req_1", "retry-after": "7", "x-should-retry": "false"}
    error = openai.error(500, headers, b'{"error":{"message":"words"}}')
    assert (error.request_id, error.retry_after, error.should_retry) == ("req_1", 7.0, False)
    assert error.body == '{"error":{"message":"words"}}'
    assert openai.error(500, {"x-should-retry": "True"}, b"").should_retry is True
    assert openai.error(500, {"x-should-retry": "maybe"}, b"").should_retry is None
    assert openai.error(500, {}, b"").body is None
    assert anthropic.error(500, {"request-id": "req_2"}, b"").request_id == "req_2"
    assert anthropic.error(500, {}, b'{"type":"error","error":{},"request_id":"req_3"}').request_id == "req_3"


def test_a_message_holds_a_line_of_300_characters() -> None:
    body = as_json({"error": {"message": "\n  first " + "x" * 5000 + "\nTraceback (most recent call last)"}})
    error = openai.error(500, {}, body)
    assert "Traceback" not in error.detail
    assert error.detail.endswith("x")
    assert len(error.detail) < 400


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"words","type":"x","param":null,"code":null}}', "words"),
        (b'{"error":{"message":"words","type":"None","param":"None","code":"400"}}', "words"),
        (b'{"error":"words"}', "words"),
        (b'{"error":"words","error_type":"validation"}', "words"),
        (b'{"object":"error","message":"words","code":400}', "words"),
        (b'{"type":"error","error":{"type":"invalid_request_error","message":"words"}}', "words"),
        (b'{"detail":"words"}', "words"),
        (b'{"detail":[{"loc":["body"],"msg":"words"}]}', "words"),
        (b'"words"', "words"),
        (b"words", "words"),
        (HTML, ""),
        (b'{"error":{"message":"<html>"}}', ""),
        (b'{"error":{"message":7}}', ""),
        (b'{"detail":[7]}', ""),
        (b"[]", ""),
        (b"7", ""),
    ],
)
def test_a_servers_words_are_found_in_any_shape_and_follow_ours(body: bytes, words: str) -> None:
    detail = openai.error(400, {}, body).detail
    assert detail == "the server refused the request as invalid" + (f": {words}" if words else "")


@pytest.mark.parametrize(
    "code",
    [
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    ],
)
def test_a_429_that_waiting_never_clears_is_a_quota(code: str) -> None:
    for place in ("code", "type"):
        assert type(openai.error(429, {}, as_json({"error": {place: code}}))) is QuotaExhaustedError
    assert type(openai.error(429, {}, b'{"error":{"code":"rate_limit_exceeded"}}')) is errors.RateLimitError


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"type": "billing_error", "message": "x"}),
        (403, {"type": "permission_error", "details": {"error_code": "enforced_spend_limit_reached"}}),
        (
            400,
            {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API"},
        ),
    ],
)
def test_anthropics_billing_faults_are_a_quota(status: int, error: dict[str, Any]) -> None:
    assert (
        type(anthropic.error(status, {}, as_json({"type": "error", "error": error}))) is QuotaExhaustedError
    )


@pytest.mark.parametrize(
    ("status", "body", "limit", "prompt"),
    [
        (400, {"error": {"code": "context_length_exceeded", "message": "too long"}}, None, None),
        (
            400,
            {
                "error": {
                    "code": 400,
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 30022,
                    "n_ctx": 1024,
                }
            },
            1024,
            30022,
        ),
        (
            400,
            {"error": "maximum context length is 4097 tokens. However, you requested 5000 tokens"},
            4097,
            5000,
        ),
        (400, {"error": {"message": "prompt is too long: 201000 tokens > 200000 maximum"}}, 200_000, 201_000),
        (
            400,
            {
                "error": {
                    "message": "input length and `max_tokens` exceed context limit: 198000 + 8000 > 200000"
                }
            },
            200_000,
            198_000,
        ),
        (
            422,
            {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens"},
            4096,
            5000,
        ),
        (422, {"error": "`inputs` must have less than 4095 tokens. Given: 5000"}, 4095, 5000),
        (
            500,
            {"error": {"message": "request (30022 tokens) exceeds the available context size (1024 tokens)"}},
            1024,
            30022,
        ),
        (400, {"error": "the input length exceeds the context length"}, None, None),
        (
            400,
            {"error": "The input token count (900) exceeds the maximum number of tokens allowed (500)"},
            500,
            900,
        ),
    ],
)
def test_a_context_overflow_is_known_by_code_type_or_text(
    status: int, body: dict[str, Any], limit: int | None, prompt: int | None
) -> None:
    for wire in WIRES.values():
        error = wire.error(status, {}, as_json(body))
        assert isinstance(error, ContextWindowExceededError)
        assert (error.limit, error.estimated) == (limit, prompt)


def test_code_and_type_are_read_before_text() -> None:
    body = {"error": {"code": "insufficient_quota", "message": "maximum context length is 5"}}
    assert type(openai.error(429, {}, as_json(body))) is QuotaExhaustedError
    rate = {"error": {"type": "tokens", "message": "Request too large: maximum context length is 5 per min"}}
    assert type(openai.error(429, {}, as_json(rate))) is errors.RateLimitError


@pytest.mark.parametrize(
    "error",
    [
        {"code": "content_policy_violation"},
        {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"},
    ],
)
def test_content_policy_is_its_own_error(error: dict[str, Any]) -> None:
    assert type(openai.error(400, {}, as_json({"error": error}))) is errors.ContentPolicyError


def test_a_code_for_a_missing_model_counts_whatever_the_status() -> None:
    assert type(openai.error(403, {}, b'{"error":{"code":"model_not_found"}}')) is errors.ModelNotFoundError


@pytest.mark.parametrize(
    "message", ["model 'qwen3:32b' not found", 'model "qwen3:32b" not found, try pulling it first']
)
def test_ollamas_missing_model_says_what_to_run(message: str) -> None:
    error = ollama.error(404, {}, as_json({"error": message}))
    assert "run `ollama pull qwen3:32b`" in str(error)


def test_ollamas_bare_404_is_a_wrong_path() -> None:
    assert "base_url" in str(ollama.error(404, {}, b"404 page not found"))


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e35"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": str(LONGEST_WAIT)}, LONGEST_WAIT),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": NOW}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": NOW}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2099 07:27:00 GMT", "date": NOW}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000", "date": NOW}, None),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:30 GMT", "date": NOW}, None),
    ],
)
def test_retry_after_is_a_sane_delay_or_nothing(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after(headers) == wait


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "detail", "n_ctx", "details"]), inner
        )
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(WIRES)),
    st.integers(300, 599),
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "date", "x-should-retry"]), st.text(max_size=40)
    ),
    st.binary(max_size=60) | JSONS.map(as_json),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_server_answers_the_error_is_typed(
    wire: str, status: int, headers: dict[str, str], body: bytes
) -> None:
    error = WIRES[wire].error(status, headers, body)
    assert isinstance(error, BackendError | RequestError)
    assert error.status == status
    assert error.detail
