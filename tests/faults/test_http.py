"""Rows 42 to 47: HTTP's own oddities, and servers that ask to be left alone."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from tests.faults.harness import (
    KEY,
    PROMPT,
    THRICE,
    FaultHarness,
    in_time,
    row,
    whole_and_streamed,
)
from tests.faults.servers import ANTHROPIC, HEALTHY, OPENAI, SO_FAR, Wire
from tests.support.anthropic_like import error as anthropic_error
from tests.support.openai_like import chat, error
from tests.support.scripted import Close, Send, Set, Step, Wait, answer, chunk, head

from ccroute.errors import (
    BackendError,
    ConnectionFailedError,
    OverloadedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitError,
)

WHOLE = json.dumps(OPENAI.whole).encode()
EVENTS = b"".join(OPENAI.events)


def good(stream: bool) -> list[Step]:
    return [*OPENAI.stream(*OPENAI.events)] if stream else answer(body=WHOLE)


@row(42, "redirect to another host")
@whole_and_streamed
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(harness: FaultHarness, status: int, stream: bool) -> None:
    elsewhere = harness.faulty()
    location = {"location": elsewhere.url + "/v1/chat/completions"}
    harness.follows(
        harness.faulty(answer(status, headers=location)), BackendError, "unavailable", stream=stream
    )
    assert elsewhere.connections == 0


@row(42, "redirect to another host")
def test_a_redirect_to_another_path_is_not_followed_either(harness: FaultHarness) -> None:
    faulty = harness.faulty(answer(307, headers={"location": "/v2/chat/completions"}))
    harness.fails(faulty, BackendError, "unavailable")
    assert [request.target for request in faulty.requests] == ["/v1/chat/completions"]


INTERIM = [
    Send(b"HTTP/1.1 100 Continue\r\n\r\n"),
    Send(b"HTTP/1.1 102 Processing\r\n\r\n"),
    Send(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\nx-request-id: req_0\r\n\r\n"),
]


@row(43, "1xx before the answer")
@whole_and_streamed
@pytest.mark.parametrize("times", [1, 20])
def test_interim_answers_are_ignored(harness: FaultHarness, times: int, stream: bool) -> None:
    call = harness.answers(harness.faulty([*INTERIM * times, *good(stream)]), stream=stream)
    assert call.answer.request_id is None


@row(43, "1xx before the answer")
@whole_and_streamed
def test_a_switch_of_protocols_is_no_answer(harness: FaultHarness, stream: bool) -> None:
    switch = [Send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")]
    harness.is_retried(harness.faulty([*switch, *good(stream)]), ProtocolError, "ambiguous", stream=stream)


@row(44, "chunked trailer")
@whole_and_streamed
def test_a_trailer_is_ignored_and_the_connection_kept(harness: FaultHarness, stream: bool) -> None:
    trailer = b"0\r\nx-checksum: 7\r\n\r\n"
    body = EVENTS if stream else WHOLE
    faulty = harness.faulty([Send(head(200, {"transfer-encoding": "chunked"}) + chunk(body) + trailer)])
    calls = harness.asks(harness.router(faulty), 3, stream=stream)
    assert [call.text for call in calls] == [HEALTHY] * 3
    assert faulty.connections == 1


@row(44, "chunked trailer")
@whole_and_streamed
def test_a_length_in_a_trailer_means_nothing(harness: FaultHarness, stream: bool) -> None:
    trailer = b"0\r\ncontent-length: 3\r\n\r\n"
    body = EVENTS if stream else WHOLE
    faulty = harness.faulty([Send(head(200, {"transfer-encoding": "chunked"}) + chunk(body) + trailer)])
    harness.answers(faulty, stream=stream)


# -- lengths -------------------------------------------------------------------------------------------------

LONGER = {"content-length": str(len(WHOLE) + 10)}
WRONG: dict[str, tuple[list[Step], type[BackendError]]] = {
    "longer": ([Send(head(200, LONGER) + WHOLE), Close()], ConnectionFailedError),
    "shorter": (answer(body=WHOLE, headers={"content-length": str(len(WHOLE) - 10)}), ProtocolError),
    "no number": (answer(body=WHOLE, headers={"content-length": "many"}), ProtocolError),
    "negative": (answer(body=WHOLE, headers={"content-length": "-1"}), ProtocolError),
    "two": (answer(body=WHOLE, headers=[("content-length", "3"), ("content-length", "4")]), ProtocolError),
    "chunk longer": (
        [Send(head(200, {"transfer-encoding": "chunked"}) + b"fff\r\n" + WHOLE + b"\r\n"), Close()],
        ConnectionFailedError,
    ),
    "chunk shorter": (
        [Send(head(200, {"transfer-encoding": "chunked"}) + b"3\r\n" + WHOLE + b"\r\n0\r\n\r\n")],
        ProtocolError,
    ),
    "chunk no number": (
        [Send(head(200, {"transfer-encoding": "chunked"}) + b"xyz\r\n" + WHOLE + b"\r\n0\r\n\r\n")],
        ProtocolError,
    ),
    "chunk negative": (
        [Send(head(200, {"transfer-encoding": "chunked"}) + b"-3\r\n" + WHOLE + b"\r\n0\r\n\r\n")],
        ProtocolError,
    ),
    "no last chunk": (
        [Send(head(200, {"transfer-encoding": "chunked"}) + chunk(WHOLE)), Close()],
        ConnectionFailedError,
    ),
}


@row(45, "wrong Content-Length or chunk; surplus bytes after the answer")
@pytest.mark.parametrize(("steps", "kind"), WRONG.values(), ids=WRONG)
def test_a_length_that_is_wrong_is_ambiguous(harness: FaultHarness, steps: list[Step], kind: Any) -> None:
    harness.is_retried(harness.faulty(steps), kind, "ambiguous")


@row(45, "wrong Content-Length or chunk; surplus bytes after the answer")
@pytest.mark.parametrize(
    ("end", "kind"),
    [(b"fff\r\nx", ConnectionFailedError), (b"xyz\r\nx", ProtocolError), (b"3\r\nabcd\r\n", ProtocolError)],
    ids=["longer", "no number", "shorter"],
)
def test_a_wrong_chunk_in_a_stream_cuts_it(harness: FaultHarness, end: bytes, kind: Any) -> None:
    steps = OPENAI.stream(*OPENAI.begun, Wait(harness.first_chunk), Send(end), Close(), end=False)
    harness.cuts(harness.faulty(steps), SO_FAR, kind)


SURPLUS = {
    "a whole answer": answer(json=chat("evil"))[0].data,  # type: ignore[attr-defined]
    "a blank line": b"\r\n",
    "a byte": b"x",
}


@row(45, "wrong Content-Length or chunk; surplus bytes after the answer")
@whole_and_streamed
@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
def test_surplus_bytes_are_no_answer(harness: FaultHarness, surplus: bytes, stream: bool) -> None:
    [*most, last] = good(stream)
    together = Send(last.data + surplus)  # type: ignore[attr-defined]
    faulty = harness.faulty([*most, together], good(stream))
    calls = harness.asks(harness.router(faulty), 3, stream=stream)
    assert [call.text for call in calls] == [HEALTHY] * 3
    assert all(len(call.attempts) == 1 for call in calls)
    # llhttp skips a blank line before an answer, so it becomes part of none.
    connections = [1, 1, 1] if surplus == b"\r\n" else [1, 2, 2]
    assert [request.connection for request in faulty.requests] == connections


@row(45, "wrong Content-Length or chunk; surplus bytes after the answer")
@whole_and_streamed
@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
def test_surplus_bytes_that_come_later_are_no_answer(
    harness: FaultHarness, surplus: bytes, stream: bool
) -> None:
    answered, sent = threading.Event(), threading.Event()
    faulty = harness.faulty([*good(stream), Wait(answered), Send(surplus), Set(sent)], good(stream))

    def then() -> None:
        answered.set()
        assert sent.wait(5)

    calls = harness.asks(harness.router(faulty), 3, stream=stream, then=then)
    assert [call.text for call in calls] == [HEALTHY] * 3
    assert [request.connection for request in faulty.requests] == [1, 2, 2]


# -- asked to be left alone ----------------------------------------------------------------------------------

NOW = datetime.now(UTC)


def date(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


def refusal(status: int, **headers: str) -> list[Step]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(status, json=error(f"slow down, {KEY}: {PROMPT}"), headers=named)


refusals = pytest.mark.parametrize(("status", "kind"), [(429, RateLimitError), (503, OverloadedError)])


AT_ONCE = 0.4
"""Seconds that a call may take which waits for nothing."""
SOON: dict[str, tuple[dict[str, str], float | None]] = {
    "0": ({"retry_after": "0"}, 0.0),
    "-1": ({"retry_after": "-1"}, None),
    "nan": ({"retry_after": "nan"}, None),
    "inf": ({"retry_after": "inf"}, None),
    "-inf": ({"retry_after": "-inf"}, None),
    "1e35": ({"retry_after": "1e35"}, None),
    "1e400": ({"retry_after": "1e400"}, None),
    "a word": ({"retry_after": "soon"}, None),
    "nothing": ({"retry_after": ""}, None),
    "a date that is past": ({"retry_after": date(-60), "date": date(0)}, 0.0),
    "a date now": ({"retry_after": date(0), "date": date(0)}, 0.0),
    "a date, and no other": ({"retry_after": date(3600)}, None),
    "a date out of sight": ({"retry_after": date(400 * 86400), "date": date(0)}, None),
    "no date": ({"retry_after": "Mon, 99 Jan 99999 99:99:99 GMT", "date": date(0)}, None),
    "0 ms": ({"retry_after_ms": "0"}, 0.0),
    "20 ms": ({"retry_after_ms": "20"}, 0.02),
    "ms first": ({"retry_after_ms": "20", "retry_after": "3600"}, 0.02),
    "nan ms": ({"retry_after_ms": "nan", "retry_after": "0"}, 0.0),
    "-1 ms": ({"retry_after_ms": "-1"}, None),
}


@row(46, "Retry-After 0, −1, nan, inf, 1e35, a date")
@pytest.mark.parametrize(("headers", "wait"), SOON.values(), ids=SOON)
def test_a_retry_after_that_is_nonsense_delays_nothing(
    harness: FaultHarness, headers: dict[str, str], wait: float | None
) -> None:
    call = harness.fails(harness.faulty(refusal(429, **headers)), RateLimitError, "rejected")
    assert isinstance(call.error, RateLimitError)
    assert call.error.retry_after == wait
    faulty = harness.faulty(refusal(503, **headers), answer(json=chat()))
    call = harness.ask(harness.router(faulty, retry=THRICE))
    assert call.text == HEALTHY
    assert [attempt.failure for attempt in call.attempts] == ["rejected", None]
    in_time(call.took, AT_ONCE)


LATER: dict[str, dict[str, str]] = {
    "seconds": {"retry_after": "3600"},
    "a float": {"retry_after": "3600.0"},
    "a date": {"retry_after": date(3600), "date": date(0)},
    "ms": {"retry_after_ms": "3600000"},
}


@row(46, "Retry-After 0, −1, nan, inf, 1e35, a date")
@refusals
@pytest.mark.parametrize("headers", LATER.values(), ids=LATER)
def test_a_retry_after_past_the_deadline_is_not_waited_for(
    harness: FaultHarness, status: int, kind: Any, headers: dict[str, str]
) -> None:
    faulty = harness.faulty(refusal(status, **headers))
    call = harness.is_not_retried(faulty, kind, "rejected", recovers=False)
    assert isinstance(call.error, kind)
    assert call.error.retry_after == 3600
    in_time(call.took, AT_ONCE)
    in_time(harness.moves_on(faulty, kind, "rejected", recovers=False).took, AT_ONCE)


# -- money is out --------------------------------------------------------------------------------------------

BILLING: dict[str, tuple[Wire, Any]] = {
    code: (OPENAI, error(f"{KEY} may not ask {PROMPT}", type=code, code=code))
    for code in (
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
    )
}
SPENT = anthropic_error("out of money", type="rate_limit_error")
SPENT["error"]["details"] = {"error_code": "enforced_spend_limit_reached"}
BILLING["anthropic"] = (ANTHROPIC, SPENT)
each_bill = pytest.mark.parametrize(("wire", "said"), BILLING.values(), ids=BILLING)


@row(47, "429 for billing")
@each_bill
@whole_and_streamed
def test_a_bill_that_is_not_paid_is_not_asked_again(
    harness: FaultHarness, wire: Wire, said: Any, stream: bool
) -> None:
    faulty = harness.faulty(answer(429, json=said, headers={"retry-after": "0"}), wire=wire)
    harness.follows(faulty, QuotaExhaustedError, "credential", stream=stream)
    subject = harness.router(faulty, harness.faulty(), retry=THRICE)
    call = harness.ask(subject, stream=stream, model="main/m", fallback=["main/n", "other/m"])
    assert call.tried == [("main/m", "credential", "QuotaExhaustedError"), ("other/m", None, None)]


@row(47, "429 for billing")
@each_bill
def test_an_unpaid_bill_turns_the_credential_off(harness: FaultHarness, wire: Wire, said: Any) -> None:
    faulty, other = harness.faulty(answer(429, json=said), wire=wire), harness.faulty()
    subject = harness.router(faulty, other, retry=THRICE)
    calls = harness.asks(subject, 3)
    calls.append(harness.ask(subject, model="main/n", fallback=["other/m"]))
    assert [call.text for call in calls] == [HEALTHY] * 4
    assert [call.tried for call in calls[1:]] == [[("other/m", None, None)]] * 3
    assert len(faulty.requests) == 1
