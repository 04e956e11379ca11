"""Rows 68 to 74: heads without measure, ambiguous framing, and servers that do not listen."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

import pytest
from tests.faults.harness import PROMPT, THRICE, FaultHarness, in_time, on_time, row, whole_and_streamed
from tests.faults.servers import HEALTHY, OPENAI, SO_FAR, FaultyServer
from tests.faults.test_bodies import MB, long, memory
from tests.support.openai_like import error
from tests.support.scripted import Close, Reset, Send, Set, Step, Wait, answer, chunk, head
from tests.support.steps import Link

from ccroute import Timeout
from ccroute.errors import ConnectionFailedError, ProtocolError

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = json.dumps(OPENAI.whole).encode()
EVENTS = b"".join(OPENAI.events)


def body_of(stream: bool) -> bytes:
    return EVENTS if stream else WHOLE


# -- heads without measure -----------------------------------------------------------------------------------

FLOODS = {
    "201 headers": b"x: y\r\n" * 200,
    "64 KiB of headers": (b"x: " + b"y" * 1000 + b"\r\n") * 66,
    "64 KiB of one header": b"x: " + b"y" * 65536 + b"\r\n",
    "64 KiB of a name": b"x" * 65536 + b": y\r\n",
}


@row(68, "header flood")
@whole_and_streamed
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_too_many_headers_are_no_answer(harness: FaultHarness, flood: bytes, stream: bool) -> None:
    body = body_of(stream)
    length = b"content-length: %d\r\n\r\n" % len(body)
    faulty = harness.faulty([Send(OK + flood + length + body)])
    harness.is_retried(faulty, ProtocolError, "ambiguous", stream=stream)


@row(68, "header flood")
@pytest.mark.parametrize("unit", [b"x: y\r\n", b"x: " + b"y" * 1000 + b"\r\n"], ids=["short", "long"])
def test_endless_headers_are_not_read_to_their_end(harness: FaultHarness, unit: bytes) -> None:
    faulty = harness.faulty([Send(long(OK, unit)), Close()])
    with memory(16 * MB):
        in_time(harness.fails(faulty, ProtocolError, "ambiguous").took, 2)


@row(68, "header flood")
@whole_and_streamed
def test_endless_trailers_are_not_read_to_their_end(harness: FaultHarness, stream: bool) -> None:
    start = head(200, {"transfer-encoding": "chunked"}) + chunk(body_of(stream)) + b"0\r\n"
    faulty = harness.faulty([Send(long(start, b"x: y\r\n")), Close()])
    with memory(16 * MB):
        call = harness.ask(harness.router(faulty), stream=stream)
    in_time(call.took, 2)
    if stream:  # it was over with its last event
        assert call.text == HEALTHY
    else:
        assert type(call.error) is ProtocolError


@row(71, "100 interim answers")
@whole_and_streamed
@pytest.mark.parametrize("together", [True, False], ids=["in one write", "each by itself"])
def test_a_hundred_interim_answers_are_ignored(harness: FaultHarness, together: bool, stream: bool) -> None:
    interim = [b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"] * 100
    [*first, last] = [b"".join(interim)] if together else interim
    good = head(200, {"content-length": str(len(body_of(stream)))}) + body_of(stream)
    faulty = harness.faulty([*map(Send, first), Send(last + good)])
    calls = harness.asks(harness.router(faulty), 2, stream=stream)
    assert [call.text for call in calls] == [HEALTHY] * 2
    assert faulty.connections == 1


@row(71, "100 interim answers")
def test_endless_interim_answers_are_not_read_to_their_end(harness: FaultHarness) -> None:
    faulty = harness.faulty([Send(long(b"", b"HTTP/1.1 100 Continue\r\n\r\n")), Close()])
    with memory(16 * MB):
        in_time(harness.fails(faulty, ProtocolError, "ambiguous").took, 2)


# -- framing that can be read in two ways --------------------------------------------------------------------

LENGTH = b"content-length: %d\r\n" % len(WHOLE)
CHUNKED = b"transfer-encoding: chunked\r\n"
BARE = {
    "after the status": b"HTTP/1.1 200 OK\n" + LENGTH + b"\r\n" + WHOLE,
    "after a header": OK + LENGTH[:-2] + b"\n\r\n" + WHOLE,
    "at the end of the head": OK + LENGTH + b"\n" + WHOLE,
    "everywhere": (OK + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + WHOLE,
    "in a chunk": OK + CHUNKED + b"\r\n" + chunk(WHOLE).replace(b"\r\n", b"\n") + chunk(b""),
    "after the last chunk": OK + CHUNKED + b"\r\n" + chunk(WHOLE) + b"0\n\n",
}


@row(72, "bare LF")
@pytest.mark.parametrize("data", BARE.values(), ids=BARE)
def test_a_bare_line_feed_is_no_end_of_a_line(harness: FaultHarness, data: bytes) -> None:
    harness.is_retried(harness.faulty([Send(data)]), ProtocolError, "ambiguous")


BOTH = {
    "length first": OK + LENGTH + CHUNKED + b"\r\n" + chunk(WHOLE) + chunk(b""),
    "coding first": OK + CHUNKED + LENGTH + b"\r\n" + chunk(WHOLE) + chunk(b""),
    "the length is right": OK + LENGTH + CHUNKED + b"\r\n" + WHOLE,
    "another coding": OK + LENGTH + b"transfer-encoding: identity\r\n\r\n" + WHOLE,
}


@row(73, "Content-Length with Transfer-Encoding")
@pytest.mark.parametrize("data", BOTH.values(), ids=BOTH)
def test_an_answer_framed_in_two_ways_is_no_answer(harness: FaultHarness, data: bytes) -> None:
    harness.is_retried(harness.faulty([Send(data)]), ProtocolError, "ambiguous")


@row(69, "body without length, ended by close or by reset")
@whole_and_streamed
@pytest.mark.parametrize("headers", [{}, {"connection": "close"}, {"connection": "keep-alive"}], ids=str)
def test_a_body_without_length_ends_with_its_connection(
    harness: FaultHarness, headers: dict[str, str], stream: bool
) -> None:
    faulty = harness.faulty([Send(head(200, headers)), Send(body_of(stream)), Close()])
    calls = harness.asks(harness.router(faulty), 2, stream=stream)
    assert [call.text for call in calls] == [HEALTHY] * 2
    assert faulty.connections == 2


@row(69, "body without length, ended by close or by reset")
def test_a_body_without_length_that_is_reset_is_ambiguous(harness: FaultHarness) -> None:
    faulty = harness.faulty([Send(head(200) + WHOLE), Reset()])
    harness.is_retried(faulty, ConnectionFailedError, "ambiguous")


@row(69, "body without length, ended by close or by reset")
def test_a_stream_without_length_that_is_reset_is_cut(harness: FaultHarness) -> None:
    begun = Send(head(200) + b"".join(OPENAI.begun))
    faulty = harness.faulty([begun, Wait(harness.first_chunk), Reset()])
    harness.cuts(faulty, SO_FAR, ConnectionFailedError)


# -- servers that do not listen ------------------------------------------------------------------------------

LARGE = PROMPT + "x" * (5 * MB)
"""A prompt that no system takes from ccroute before the server reads it."""


@dataclass(frozen=True)
class Read:
    """Read `size` bytes of the request every 10 ms, none if 0, until the caller has its answer."""

    answered: threading.Semaphore
    size: int = 0

    def play(self, link: Link) -> None:
        while not (self.answered.acquire(timeout=0.01) or link.stopping.is_set()):
            if self.size:
                link.buffer += link.sock.recv(self.size)


def deaf(harness: FaultHarness, *steps: Step) -> FaultyServer:
    """A server that plays these steps before it reads a request."""

    def cure(faulty: FaultyServer) -> None:
        faulty._on_connect = ()

    return harness.faulty(on_connect=steps, cure=cure)


@dataclass(frozen=True)
class ReadHead:
    """Read the request's head, and with it a part of the body."""

    def play(self, link: Link) -> None:
        while b"\r\n\r\n" not in link.buffer:
            link.read()


ways = pytest.mark.parametrize(
    ("reads_head", "stays_open"),
    [(False, True), (True, True), (False, False), (True, False)],
    ids=["stays open", "stays open after the head", "closes", "closes after the head"],
)


@row(70, "answer before the request is sent")
@whole_and_streamed
@ways
def test_an_answer_before_the_prompt_was_read_counts(
    harness: FaultHarness, reads_head: bool, stays_open: bool, stream: bool
) -> None:
    answered = threading.Semaphore(0)
    good = [*OPENAI.stream(*OPENAI.events)] if stream else answer(body=WHOLE)
    faulty = deaf(harness, *[ReadHead()] * reads_head, *good, *[Read(answered)] * stays_open, Close())
    calls = harness.asks(harness.router(faulty), 2, stream=stream, prompt=LARGE, then=answered.release)
    assert [call.text for call in calls] == [HEALTHY] * 2
    assert [call.tried for call in calls] == [[("main/m", None, None)]] * 2
    assert faulty.connections == 2  # the first one is not kept


@row(70, "answer before the request is sent")
@ways
def test_a_refusal_before_the_prompt_was_read_is_what_it_says(
    harness: FaultHarness, reads_head: bool, stays_open: bool
) -> None:
    answered = threading.Semaphore(0)
    refusal = answer(413, json=error("too large"))
    faulty = deaf(harness, *[ReadHead()] * reads_head, *refusal, *[Read(answered)] * stays_open, Close())
    calls = harness.asks(harness.router(faulty), 2, prompt=LARGE, then=answered.release)
    assert [call.tried for call in calls] == [[("main/m", "invalid_request", "InvalidRequestError")]] * 2
    assert faulty.connections == 2


@row(70, "answer before the request is sent")
@whole_and_streamed
def test_a_hang_up_before_the_prompt_was_read_is_ambiguous(harness: FaultHarness, stream: bool) -> None:
    [call] = harness.asks(harness.router(deaf(harness, Close())), 1, stream=stream, prompt=LARGE)
    assert call.tried == [("main/m", "ambiguous", "ConnectionFailedError")]


SLOWLY = pytest.mark.parametrize("size", [0, 1000], ids=["not at all", "slowly"])
LIMIT = 0.3


@row(74, "request read too slowly")
@SLOWLY
@whole_and_streamed
def test_a_server_that_does_not_read_ends_at_the_deadline(
    harness: FaultHarness, size: int, stream: bool
) -> None:
    answered = threading.Semaphore(0)
    faulty = deaf(harness, Read(answered, size))
    subject = harness.router(faulty)
    [call] = harness.asks(subject, 1, stream=stream, prompt=LARGE, then=answered.release, timeout=LIMIT)
    assert call.tried == [("main/m", "ambiguous", "DeadlineExceededError")]
    on_time(call, LIMIT)


@row(74, "request read too slowly")
@SLOWLY
@whole_and_streamed
def test_a_server_that_does_not_read_ends_at_the_first_timeout(
    harness: FaultHarness, size: int, stream: bool
) -> None:
    answered = threading.Semaphore(0)
    faulty = deaf(harness, Read(answered, size))
    subject = harness.router(faulty, harness.faulty(), retry=THRICE, limits=Timeout(total=5, first=LIMIT))
    [call] = harness.asks(subject, 1, stream=stream, prompt=LARGE, then=answered.release)
    assert call.text == HEALTHY
    assert call.tried == [("main/m", "ambiguous", "BackendTimeoutError"), ("other/m", None, None)]
    on_time(call, LIMIT)


@row(74, "request read too slowly")
def test_a_prompt_that_is_read_late_arrives_whole(harness: FaultHarness) -> None:
    connected, listens = threading.Event(), threading.Semaphore(0)
    faulty = deaf(harness, Set(connected), Read(listens))

    def listen() -> None:
        assert connected.wait(5)
        listens.release()

    listener = threading.Thread(target=listen)
    listener.start()
    call = harness.ask(harness.router(faulty), prompt=LARGE)
    listener.join()
    assert call.text == HEALTHY
    assert faulty.requests[0].json["messages"][-1]["content"] == LARGE
