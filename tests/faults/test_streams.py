"""Rows 8 to 20: streams that break, fall silent or end too early, and errors where an answer should be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.faults.harness import KEY, PROMPT, SHORT, FaultHarness, on_time, row, whole_and_streamed
from tests.faults.servers import ANTHROPIC, OLLAMA, OPENAI, SO_FAR, Wire, each_wire
from tests.support import anthropic_like, ollama
from tests.support.openai_like import DONE, chat_sse, error, sse
from tests.support.openai_like import chunk as delta
from tests.support.scripted import Close, Hang, Reset, Send, Step, Trickle, Wait, answer, chunk, head

from ccroute import Timeout
from ccroute.errors import (
    AuthenticationError,
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    ContentPolicyError,
    ContextWindowExceededError,
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)

IDLE = Timeout(total=5, first=5, idle=SHORT)
SILENT = Timeout(total=5, idle=SHORT)


# -- it breaks or falls silent -------------------------------------------------------------------------------


@row(8, "reset inside a stream")
@each_wire
@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "end"])
def test_a_stream_that_breaks_after_content_is_cut(harness: FaultHarness, wire: Wire, end: Step) -> None:
    faulty = harness.faulty(wire.stream(*wire.begun, Wait(harness.first_chunk), end), wire=wire)
    harness.cuts(faulty, SO_FAR, ConnectionFailedError)


@row(8, "reset inside a stream")
@each_wire
@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "end"])
def test_a_stream_that_breaks_before_content_falls_back_unseen(
    harness: FaultHarness, wire: Wire, end: Step
) -> None:
    faulty = harness.faulty(wire.stream(*wire.opening, end), wire=wire)
    harness.is_retried(faulty, ConnectionFailedError, "ambiguous", stream=True)


@row(9, "silence inside a stream")
@each_wire
def test_a_stream_silent_after_content_is_cut_at_the_idle_timeout(harness: FaultHarness, wire: Wire) -> None:
    faulty = harness.faulty(wire.stream(*wire.begun, Hang()), wire=wire)
    on_time(harness.cuts(faulty, SO_FAR, BackendTimeoutError, limits=IDLE), SHORT)


@row(9, "silence inside a stream")
def test_a_stream_silent_after_content_is_cut_at_the_deadline(harness: FaultHarness) -> None:
    faulty = harness.faulty(OPENAI.stream(*OPENAI.begun, Hang()))
    on_time(harness.cuts(faulty, SO_FAR, DeadlineExceededError, total=0.2), 0.2)


@row(9, "silence inside a stream")
@each_wire
def test_a_stream_silent_before_content_falls_back_unseen(harness: FaultHarness, wire: Wire) -> None:
    faulty = harness.faulty(wire.stream(*wire.opening, Hang()), wire=wire)
    on_time(harness.moves_on(faulty, BackendTimeoutError, "ambiguous", stream=True, limits=SILENT), SHORT)


@row(9, "silence inside a stream")
def test_silent_streams_open_the_breaker(harness: FaultHarness) -> None:
    faulty = harness.faulty(OPENAI.stream(*OPENAI.begun, Hang()))
    harness.opens_breaker(faulty, stream=True, limits=Timeout(total=5, first=5, idle=0.05))


@row(9, "silence inside a stream")
@pytest.mark.parametrize(("idle", "opens"), [(0.04, True), (5, False)], ids=["silent", "impatient"])
def test_a_deadline_counts_where_the_server_was_silent_too_long(
    harness: FaultHarness, idle: float, opens: bool
) -> None:
    faulty = harness.faulty([Send(head(200, {"content-length": "1000"})), Hang()])
    harness.opens_breaker(faulty, opens=opens, timeout=Timeout(total=SHORT, idle=idle))


PINGS = {
    "comments": (OPENAI, b": ping\n\n"),
    "deltas without content": (OPENAI, delta({"content": ""})),
    "ping events": (ANTHROPIC, anthropic_like.event("ping")),
    "empty lines": (OLLAMA, b"\n"),
    "lines without content": (OLLAMA, OLLAMA.opening[0]),
}


@row(10, "endless pings")
@pytest.mark.parametrize(("wire", "ping"), PINGS.values(), ids=PINGS)
def test_pings_do_not_put_off_the_idle_timeout(harness: FaultHarness, wire: Wire, ping: bytes) -> None:
    faulty = harness.faulty(wire.stream(*wire.begun, endless(ping)), wire=wire)
    on_time(harness.cuts(faulty, SO_FAR, BackendTimeoutError, limits=IDLE), SHORT)


@row(10, "endless pings")
def test_pings_are_no_first_content(harness: FaultHarness) -> None:
    faulty = harness.faulty(OPENAI.stream(*OPENAI.opening, endless(b": ping\n\n")))
    on_time(harness.moves_on(faulty, BackendTimeoutError, "ambiguous", stream=True, limits=SILENT), SHORT)


def endless(ping: bytes) -> Step:
    return Trickle(chunk(ping) * 500, 0.01, size=len(chunk(ping)) // 2 + 1)


# -- it ends too early, or does not say so -------------------------------------------------------------------


@row(11, "EOF without finish")
@each_wire
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the end"])
def test_a_stream_that_ends_without_a_finish_is_cut(harness: FaultHarness, wire: Wire, chunked: bool) -> None:
    harness.cuts(harness.faulty(wire.stream(*wire.begun, chunked=chunked), wire=wire), SO_FAR, ProtocolError)


@row(11, "EOF without finish")
@each_wire
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the end"])
def test_a_stream_that_ends_without_content_falls_back_unseen(
    harness: FaultHarness, wire: Wire, chunked: bool
) -> None:
    faulty = harness.faulty(wire.stream(*wire.opening, chunked=chunked), wire=wire)
    harness.is_retried(faulty, ProtocolError, "ambiguous", stream=True)


@row(11, "EOF without finish")
@pytest.mark.parametrize("missing", [1, 2, 3])
def test_anthropics_stream_has_not_ended_before_message_stop(harness: FaultHarness, missing: int) -> None:
    pieces = anthropic_like.message_sse([SO_FAR])[:-missing]
    harness.cuts(harness.faulty(ANTHROPIC.stream(*pieces), wire=ANTHROPIC), SO_FAR, ProtocolError)


@row(12, "finish, no `[DONE]`")
@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": 11, "completion_tokens": 7}, None], ids=["usage", "none"]
)
@pytest.mark.parametrize(
    ("end", "framing"),
    [([], {}), ([], {"chunked": False}), ([Close()], {}), ([Hang()], {})],
    ids=["end", "close", "broken off", "silence"],
)
def test_a_finish_is_success_though_no_done_follows(
    harness: FaultHarness, end: list[Step], framing: dict[str, Any], usage: Any
) -> None:
    faulty = harness.faulty(OPENAI.stream(*chat_sse(usage=usage, done=False), *end, **framing))
    call = harness.answers(faulty, stream=True, limits=Timeout(total=5, idle=0.15))
    assert call.answer.finish_reason == "stop"
    assert call.answer.usage.estimated == (usage is None)


@row(13, "`[DONE]` without finish")
def test_done_without_a_finish_is_no_success(harness: FaultHarness) -> None:
    harness.cuts(harness.faulty(OPENAI.stream(*OPENAI.begun, DONE)), SO_FAR, ProtocolError)
    for pieces in ([*OPENAI.opening, DONE], [DONE]):
        harness.is_retried(harness.faulty(OPENAI.stream(*pieces)), ProtocolError, "ambiguous", stream=True)


# -- an error where an answer should be ----------------------------------------------------------------------

ECHO = f"cannot go on with {KEY}, asked {PROMPT}"
SAID: dict[str, tuple[dict[str, Any], type[CcrouteError], str]] = {
    "vLLM": (error(ECHO, type="InternalServerError", code=500), ServerError, "ambiguous"),
    "TGI": ({"error": ECHO, "error_type": "generation"}, ServerError, "ambiguous"),
    "a bare text": ({"error": ECHO}, ServerError, "ambiguous"),
    "llama.cpp": (error(ECHO, type="unavailable_error", code=503), OverloadedError, "rejected"),
    "rate limit": (error(ECHO, type="requests", code="rate_limit_exceeded"), RateLimitError, "rejected"),
    "quota": (
        error(ECHO, type="insufficient_quota", code="insufficient_quota"),
        QuotaExhaustedError,
        "credential",
    ),
    "key": (error(ECHO, type="authentication_error", code=401), AuthenticationError, "credential"),
    "overflow": (error(ECHO, code="context_length_exceeded"), ContextWindowExceededError, "context_length"),
    "policy": (error(ECHO, code="content_filter"), ContentPolicyError, "invalid_request"),
    "invalid": (error(ECHO, code=400), InvalidRequestError, "invalid_request"),
}
ONE_OF_EACH = ["vLLM", "llama.cpp", "quota", "overflow", "policy"]
each_error = pytest.mark.parametrize(("said", "kind", "failure"), SAID.values(), ids=SAID)
each_class = pytest.mark.parametrize(
    ("said", "kind", "failure"), [SAID[name] for name in ONE_OF_EACH], ids=ONE_OF_EACH
)


@row(14, "error frame, then `[DONE]`")
@each_error
def test_an_error_frame_is_no_success_whatever_follows_it(
    harness: FaultHarness, said: Any, kind: type[CcrouteError], failure: str
) -> None:
    harness.follows(
        harness.faulty(OPENAI.stream(*OPENAI.opening, sse(said), DONE)), kind, failure, stream=True
    )
    harness.cuts(harness.faulty(OPENAI.stream(*OPENAI.begun, sse(said), DONE)), SO_FAR, kind)


@row(15, "SSE field `error:`")
@each_class
def test_an_error_in_a_field_of_that_name_is_one(
    harness: FaultHarness, said: Any, kind: type[CcrouteError], failure: str
) -> None:
    # Also as older llama.cpp servers write it: the error itself, without the frame around it.
    bare = said["error"] if isinstance(said["error"], dict) else said
    for shape in (said, bare):
        field = f"error: {json.dumps(shape)}\n\n".encode()
        harness.follows(
            harness.faulty(OPENAI.stream(*OPENAI.opening, field, DONE)), kind, failure, stream=True
        )
        harness.cuts(harness.faulty(OPENAI.stream(*OPENAI.begun, field, DONE)), SO_FAR, kind)


@row(15, "SSE field `error:`")
def test_an_error_in_a_field_of_that_name_may_be_plain_text(harness: FaultHarness) -> None:
    field = f"error: {ECHO.splitlines()[0]}\n\n".encode()
    harness.is_retried(harness.faulty(OPENAI.stream(field, DONE)), ServerError, "ambiguous", stream=True)
    harness.cuts(harness.faulty(OPENAI.stream(*OPENAI.begun, field, DONE)), SO_FAR, ServerError)


@row(16, "Anthropic overloaded under 200")
@pytest.mark.parametrize(
    ("type", "kind", "failure"),
    [
        ("overloaded_error", OverloadedError, "rejected"),
        ("rate_limit_error", RateLimitError, "rejected"),
        ("api_error", ServerError, "ambiguous"),
        ("timeout_error", BackendTimeoutError, "ambiguous"),
    ],
)
def test_an_error_event_falls_back_before_content_and_cuts_after(
    harness: FaultHarness, type: str, kind: Any, failure: str
) -> None:
    event = anthropic_like.error_event(ECHO, type=type)
    for opening in (ANTHROPIC.opening, ()):
        faulty = harness.faulty(ANTHROPIC.stream(*opening, event), wire=ANTHROPIC)
        harness.is_retried(faulty, kind, failure, stream=True)
    harness.cuts(harness.faulty(ANTHROPIC.stream(*ANTHROPIC.begun, event), wire=ANTHROPIC), SO_FAR, kind)


@row(17, 'Ollama `{"error"}` line')
def test_an_error_line_falls_back_before_content_and_cuts_after(harness: FaultHarness) -> None:
    line = ollama.line({"error": f"llama runner process has terminated: {ECHO}"})
    for opening in (OLLAMA.opening, ()):
        faulty = harness.faulty(OLLAMA.stream(*opening, line), wire=OLLAMA)
        harness.is_retried(faulty, ServerError, "ambiguous", stream=True)
    harness.cuts(harness.faulty(OLLAMA.stream(*OLLAMA.begun, line), wire=OLLAMA), SO_FAR, ServerError)


@row(18, "Ollama 200 `done:false`")
@pytest.mark.parametrize("pieces", [("so ", "far"), ("",)], ids=["content", "none"])
def test_an_answer_that_is_not_done_is_none(harness: FaultHarness, pieces: tuple[str, ...]) -> None:
    lines = ollama.chat_lines(ollama.ScriptedReply(pieces, done=False), "m")
    faulty = harness.faulty(ollama.json_answer(ollama.merged(lines)), wire=OLLAMA)
    harness.is_retried(faulty, ProtocolError, "ambiguous")


@row(19, "200 with an error body")
@each_error
def test_an_error_body_under_200_is_what_it_says(
    harness: FaultHarness, said: Any, kind: type[CcrouteError], failure: str
) -> None:
    harness.follows(harness.faulty(answer(json=said)), kind, failure)


@row(19, "200 with an error body")
@each_class
def test_an_error_body_instead_of_a_stream_is_what_it_says(
    harness: FaultHarness, said: Any, kind: type[CcrouteError], failure: str
) -> None:
    harness.follows(harness.faulty(answer(json=said)), kind, failure, stream=True)


@row(19, "200 with an error body")
@whole_and_streamed
@pytest.mark.parametrize(
    ("wire", "said", "kind", "failure"),
    [
        (ANTHROPIC, anthropic_like.error(ECHO), OverloadedError, "rejected"),
        (ANTHROPIC, anthropic_like.error(ECHO, type="billing_error"), QuotaExhaustedError, "credential"),
        (OLLAMA, {"error": ECHO}, ServerError, "ambiguous"),
    ],
    ids=["anthropic", "anthropic billing", "ollama"],
)
def test_an_error_body_under_200_is_what_it_says_on_every_wire(
    harness: FaultHarness, wire: Wire, said: Any, kind: Any, failure: str, stream: bool
) -> None:
    harness.follows(harness.faulty(answer(json=said), wire=wire), kind, failure, stream=stream)


@row(20, "200, empty body")
@whole_and_streamed
@each_wire
def test_an_empty_answer_is_ambiguous(harness: FaultHarness, wire: Wire, stream: bool) -> None:
    for steps in (
        answer(),
        answer(body=" \r\n\r\n "),
        [Send(head(200, {"transfer-encoding": "chunked"}) + chunk(b""))],
        [Send(head(200, {"connection": "close"})), Close()],
    ):
        harness.moves_on(harness.faulty(steps, wire=wire), ProtocolError, "ambiguous", stream=stream)


@row(20, "200, empty body")
@whole_and_streamed
def test_an_empty_answer_is_asked_for_once_more(harness: FaultHarness, stream: bool) -> None:
    harness.is_retried(harness.faulty(answer()), ProtocolError, "ambiguous", stream=stream)
