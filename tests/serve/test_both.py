"""What holds for both protocols that ccroute serves: errors, ends of streams, and reading one's own bytes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.support import SERVED, FakeAsyncStream, answer, dumped, frames
from tests.wire.support import WIRES, run

from ccroute import errors
from ccroute.types import Chunk, Completion, FinishReason, Function, ToolCall, Usage

BOTH = pytest.mark.parametrize("wire", SERVED)
MODES = pytest.mark.parametrize("mode", ["sync", "async"])
LAST = Chunk(finish_reason="stop", usage=Usage(input=11, output=7))


def too_long() -> errors.ContextWindowExceededError:
    error = errors.ContextWindowExceededError("it does not fit", deployment="a/m", status=400)
    error.estimated, error.limit = 9000, 8192
    return error


ANSWERS: list[tuple[Exception, int, str | None, type[Exception]]] = [
    (errors.InvalidRequestError("x"), 400, None, errors.InvalidRequestError),
    (too_long(), 400, "context_length_exceeded", errors.ContextWindowExceededError),
    (errors.ContentPolicyError("x"), 400, "content_policy_violation", errors.ContentPolicyError),
    (errors.UnknownModelError("x"), 404, "model_not_found", errors.ModelNotFoundError),
    (errors.UnknownAgentError("x"), 404, "agent_not_found", errors.ModelNotFoundError),
    (errors.BudgetExceededError("x"), 402, "budget_exceeded", errors.QuotaExhaustedError),
    (errors.EgressDeniedError("x"), 403, "egress_denied", errors.PermissionDeniedError),
    (errors.DeadlineExceededError("x"), 504, None, errors.ServerError),
    (errors.QueueTimeoutError("x"), 503, None, errors.OverloadedError),
    (errors.RouterClosedError("x"), 503, None, errors.OverloadedError),
    (errors.AuthenticationError("x", status=401), 502, None, errors.ServerError),
    (errors.PermissionDeniedError("x", status=403), 502, None, errors.ServerError),
    (errors.ModelNotFoundError("x", status=404), 404, "model_not_found", errors.ModelNotFoundError),
    (errors.RateLimitError("x", status=429), 429, "rate_limit_exceeded", errors.RateLimitError),
    (errors.QuotaExhaustedError("x", status=429), 429, "insufficient_quota", errors.QuotaExhaustedError),
    (errors.OverloadedError("x", status=503), 503, None, errors.OverloadedError),
    (errors.ServerError("x", status=500), 502, None, errors.ServerError),
    (errors.ConnectionFailedError("x"), 502, None, errors.ServerError),
    (errors.BackendTimeoutError("x"), 504, None, errors.ServerError),
    (errors.ProtocolError("x"), 502, None, errors.ServerError),
    (errors.StreamInterruptedError("x"), 502, None, errors.ServerError),
    (errors.InvalidOutputError("x"), 502, None, errors.ServerError),
    (errors.ConfigError("secret"), 500, None, errors.ServerError),
    (KeyError("secret"), 500, None, errors.ServerError),
]


@BOTH
@pytest.mark.parametrize(
    ("error", "status", "code", "read"), ANSWERS, ids=[type(error).__name__ for error, *_ in ANSWERS]
)
def test_every_error_has_its_status_and_is_read_back_as_its_kind(
    wire: str, error: Exception, status: int, code: str | None, read: type[Exception]
) -> None:
    found, body = SERVED[wire].dump_error(error)
    assert found == (529 if wire == "anthropic" and status == 503 else status)
    detail = body["error"]
    assert (detail["code"] if wire == "openai" else detail.get("details", {}).get("error_code")) == code
    assert "secret" not in detail["message"]
    assert type(WIRES[wire].error(found, {}, json.dumps(body).encode())) is read


def test_both_protocols_know_every_error_there_is() -> None:
    tested = {type(error) for error, *_ in ANSWERS}
    above = {errors.CcrouteError, errors.RequestError, errors.BackendError}
    assert {getattr(errors, name) for name in dir(errors) if not name.startswith("_")} - above <= tested


def test_anthropics_clients_find_their_own_words_for_a_long_prompt() -> None:
    dump = SERVED["anthropic"].dump_error
    assert dump(too_long())[1]["error"]["message"].startswith(
        "prompt is too long: 9000 tokens > 8192 maximum; a/m: it does not fit"
    )
    assert dump(errors.ContextWindowExceededError("no"))[1]["error"]["message"] == "prompt is too long: no"


@BOTH
def test_a_wrappers_own_refusal_has_the_protocols_form(wire: str) -> None:
    body = SERVED[wire].error_body(401, "no key")
    assert (body["error"]["type"], body["error"]["message"]) == ("authentication_error", "no key")


@BOTH
def test_the_headers_say_when_to_come_back_and_whether(wire: str) -> None:
    headers = SERVED[wire].error_headers
    assert headers(errors.RateLimitError("x", retry_after=1.25)) == {
        "retry-after": "2",
        "retry-after-ms": "1250",
    }
    assert headers(errors.QuotaExhaustedError("x")) == {"x-should-retry": "false"}
    assert headers(errors.DeadlineExceededError("x")) == headers(KeyError("x")) == {}


@BOTH
@MODES
def test_an_error_before_the_first_byte_is_the_callers_to_answer(wire: str, mode: str) -> None:
    stream = FakeAsyncStream([errors.RateLimitError("x")])
    with pytest.raises(errors.RateLimitError):
        dumped(wire, stream, mode)
    assert stream.closed == 1


@BOTH
@MODES
def test_an_error_after_the_first_byte_is_the_protocols_own_event(wire: str, mode: str) -> None:
    stream = FakeAsyncStream([Chunk(text="a"), errors.StreamInterruptedError("cut", deployment="b/m")])
    pieces = dumped(wire, stream, mode)
    assert frames(pieces)[-1] == SERVED[wire].dump_error(errors.StreamInterruptedError("b/m: cut"))[1]
    assert pieces[-1].startswith(b"data: " if wire == "openai" else b"event: error\n")
    assert stream.closed == 1


@BOTH
@MODES
def test_a_bug_after_the_first_byte_is_hidden_and_raised(wire: str, mode: str) -> None:
    stream = FakeAsyncStream([Chunk(text="a"), KeyError("secret")])
    pieces: list[bytes] = []

    async def acollect() -> None:
        async for piece in SERVED[wire].adump_stream(stream):
            pieces.append(piece)

    def collect() -> None:
        for piece in SERVED[wire].dump_stream(stream):
            pieces.append(piece)

    with pytest.raises(KeyError):
        collect() if mode == "sync" else asyncio.run(acollect())
    assert b"secret" not in b"".join(pieces)
    assert frames(pieces)[-1]["error"]["message"].startswith("internal error")
    assert stream.closed == 1


@BOTH
@MODES
def test_a_stream_left_early_is_closed(wire: str, mode: str) -> None:
    stream = FakeAsyncStream([Chunk(text="a"), Chunk(text="b"), LAST])
    if mode == "sync":
        pieces = SERVED[wire].dump_stream(stream)
        next(pieces)
        pieces.close()
    else:

        async def leave() -> None:
            pieces = SERVED[wire].adump_stream(stream)
            await anext(pieces)
            await pieces.aclose()

        asyncio.run(leave())
    assert stream.closed == 1


# -- what is served is read back as the same answer ----------------------------------------------------------

WORDS = st.text(max_size=20)
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
ARGUMENTS = st.dictionaries(NAMES, st.one_of(WORDS, st.integers()), max_size=3).map(json.dumps)
TOKENS = st.integers(1, 1000)
REASONS: st.SearchStrategy[FinishReason] = st.sampled_from(["stop", "length", "content_filter"])


@st.composite
def answers(draw: st.DrawFn) -> Completion:
    calls = tuple(
        ToolCall(id=f"toolu_{i}", function=Function(name=draw(NAMES), arguments=draw(ARGUMENTS)), index=i)
        for i in range(draw(st.integers(0, 3)))
    )
    thinking = draw(st.one_of(st.none(), WORDS.filter(bool)))
    output = draw(TOKENS)
    return answer(
        draw(WORDS) or (None if calls else ""),
        finish="tool_calls" if calls else draw(REASONS),
        tool_calls=calls or None,
        thinking=thinking,
        usage=Usage(
            input=draw(TOKENS),
            cache_read=draw(TOKENS),
            cache_write_5m=draw(TOKENS),
            output=output,
            reasoning=draw(st.integers(0, output)),
        ),
    )


def chunks_of(completion: Completion, size: int) -> list[Chunk]:
    """A completion as a stream gives it, in pieces of `size` characters."""

    def cut(text: str) -> list[str]:
        return [text[i : i + size] for i in range(0, len(text), size)]

    chunks = [Chunk(thinking=piece) for piece in cut(completion.thinking or "")]
    chunks += [Chunk(text=piece) for piece in cut(completion.text)]
    for call in completion.tool_calls:
        begun = call.model_copy(update={"function": Function(name=call.function.name)})
        chunks.append(Chunk(tool_calls=(begun,)))
        chunks += [
            Chunk(tool_calls=(ToolCall(function=Function(arguments=piece), index=call.index),))
            for piece in cut(call.function.arguments)
        ]
    return [*chunks, Chunk(finish_reason=completion.finish_reason, usage=completion.usage)]


def gist(completion: Completion) -> dict[str, Any]:
    """What a client cares for; arguments as values, because Anthropic's form re-encodes them."""
    calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in completion.tool_calls]
    facts = completion.model_dump(include={"model", "finish_reason", "usage"})
    return facts | {"text": completion.text, "thinking": completion.thinking, "calls": calls}


@given(st.sampled_from(sorted(SERVED)), answers())
def test_a_whole_answer_is_read_back_as_the_same(wire: str, completion: Completion) -> None:
    body = json.dumps(SERVED[wire].dump_completion(completion)).encode()
    assert gist(WIRES[wire].decode(body)) == gist(completion)


@given(st.sampled_from(sorted(SERVED)), answers(), st.integers(1, 9))
def test_a_stream_is_read_back_as_the_same_answer(wire: str, completion: Completion, size: int) -> None:
    options = {"include_usage": True} if wire == "openai" else {}
    pieces = dumped(wire, FakeAsyncStream(chunks_of(completion, size), completion), **options)
    _, again = run(WIRES[wire].Decoder(), *pieces)
    assert gist(again) == gist(completion)
