"""Rows 21 to 31: bodies that are not what they seem, too large, or cut in odd places."""

from __future__ import annotations

import functools
import json
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from tests.faults.harness import (
    KEY,
    PROMPT,
    FaultHarness,
    effort,
    in_time,
    row,
    whole_and_streamed,
)
from tests.faults.servers import (
    ANTHROPIC,
    HEALTHY,
    OLLAMA,
    OPENAI,
    SO_FAR,
    Wire,
    backend,
    each_wire,
)
from tests.support import anthropic_like, ollama
from tests.support.openai_like import DONE, chat_sse
from tests.support.openai_like import chunk as delta
from tests.support.scripted import Close, Send, Step, Wait, answer, chunk, head

from ccroute.errors import ProtocolError, ServerError

MB = 1024 * 1024
GZIP = {"content-encoding": "gzip"}


def body_of(wire: Wire, text: str = HEALTHY) -> bytes:
    return json.dumps(wire.whole, ensure_ascii=False).replace(HEALTHY, text).encode()


def said(wire: Wire, *pieces: str) -> list[bytes]:
    """A stream that says these pieces and ends well."""
    if wire is OLLAMA:
        return [*map(ollama.line, ollama.chat_lines(ollama.ScriptedReply(pieces), "m"))]
    return (chat_sse if wire is OPENAI else anthropic_like.message_sse)(pieces)


def framed(body: bytes, size: int) -> list[Step]:
    """A 200 whose body comes in chunks of that many bytes: so many readings at least."""
    chunks = b"".join(chunk(body[i : i + size]) for i in range(0, len(body), size))
    return [Send(head(200, {"transfer-encoding": "chunked"}) + chunks + chunk(b""))]


@contextmanager
def memory(limit: int) -> Iterator[None]:
    """No more than so many bytes are held at any moment, without those that are there already."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        assert tracemalloc.get_traced_memory()[1] - before < limit
    finally:
        tracemalloc.stop()


# -- not what was asked for ----------------------------------------------------------------------------------


@row(21, "HTML 502")
@whole_and_streamed
def test_a_gateways_web_page_is_ambiguous_and_cut_and_cleaned(harness: FaultHarness, stream: bool) -> None:
    page = f"<!DOCTYPE html><html><h1>502</h1>{KEY} asked for {PROMPT}" + "<p>sorry</p>" * 10_000
    faulty = harness.faulty(answer(502, body=page, headers={"content-type": "text/html"}))
    error = harness.is_retried(faulty, ServerError, "ambiguous", stream=stream).error
    assert isinstance(error, ServerError)
    assert (error.status, error.backend, error.deployment) == (502, "main", "main/m")
    assert error.body is not None
    assert error.body.startswith("<!DOCTYPE html><html><h1>502</h1>")
    assert len(error.body) <= 2048


@row(22, "wrong content-type, right body")
@each_wire
@whole_and_streamed
def test_what_an_answer_calls_itself_does_not_matter(harness: FaultHarness, wire: Wire, stream: bool) -> None:
    body = b"".join(wire.events) if stream else body_of(wire)
    for content_type in ("text/html", "application/octet-stream", "text/event-stream", ""):
        faulty = harness.faulty(answer(body=body, headers={"content-type": content_type}), wire=wire)
        harness.answers(faulty, stream=stream)


PAGE = answer(
    body=f"<!DOCTYPE html>\n<html>\n\n<form>Please log in, {PROMPT}</form>\n\n</html>\n\n",
    headers={"content-type": "text/html"},
)


@row(23, "HTML 200 (login page)")
@each_wire
@whole_and_streamed
def test_a_login_page_is_no_answer(harness: FaultHarness, wire: Wire, stream: bool) -> None:
    harness.is_retried(harness.faulty(PAGE, wire=wire), ProtocolError, "ambiguous", stream=stream)


@row(23, "HTML 200 (login page)")
@whole_and_streamed
def test_login_pages_open_the_breaker(harness: FaultHarness, stream: bool) -> None:
    harness.opens_breaker(harness.faulty(PAGE), stream=stream)


# -- packed --------------------------------------------------------------------------------------------------


def packed(*pieces: bytes, end: bool = True) -> list[bytes]:
    """Each piece such that it can be unpacked when it is there."""
    gzip = zlib.compressobj(9, wbits=31)
    parts = [gzip.compress(piece) + gzip.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*parts, gzip.flush()] if end else parts


@row(24, "truncated gzip (httpx would accept it)")
@each_wire
@pytest.mark.parametrize("missing", [1, 8, 40])
def test_a_packed_answer_without_its_end_is_ambiguous(
    harness: FaultHarness, wire: Wire, missing: int
) -> None:
    body = b"".join(packed(body_of(wire)))[:-missing]
    harness.is_retried(harness.faulty(answer(body=body, headers=GZIP), wire=wire), ProtocolError, "ambiguous")


@row(24, "truncated gzip (httpx would accept it)")
@each_wire
def test_a_packed_stream_without_its_end_is_cut(harness: FaultHarness, wire: Wire) -> None:
    faulty = harness.faulty(wire.stream(*packed(*wire.begun, end=False), headers=GZIP), wire=wire)
    harness.cuts(faulty, SO_FAR, ProtocolError)
    faulty = harness.faulty(wire.stream(*packed(*wire.opening, end=False), headers=GZIP), wire=wire)
    harness.is_retried(faulty, ProtocolError, "ambiguous", stream=True)


@row(24, "truncated gzip (httpx would accept it)")
@each_wire
@whole_and_streamed
def test_a_packed_answer_with_its_end_is_one(harness: FaultHarness, wire: Wire, stream: bool) -> None:
    pieces = packed(*wire.events) if stream else packed(body_of(wire))
    harness.answers(harness.faulty(wire.stream(*pieces, headers=GZIP), wire=wire), stream=stream)


@functools.cache
def bomb(start: bytes = b"") -> bytes:
    """Some 100 KB that unpack to 100 MB."""
    gzip = zlib.compressobj(1, wbits=31)
    zeros = bytes(4 * MB)
    return b"".join([gzip.compress(start), *(gzip.compress(zeros) for _ in range(25)), gzip.flush()])


@row(25, "gzip bomb")
@pytest.mark.parametrize(
    ("status", "stream", "kind", "limit"),
    [
        (200, False, ProtocolError, 80 * MB),
        (200, True, ProtocolError, 48 * MB),
        (502, False, ServerError, 8 * MB),
    ],
    ids=["whole", "stream", "error"],
)
def test_a_gzip_bomb_is_not_unpacked(
    harness: FaultHarness, status: int, stream: bool, kind: Any, limit: int
) -> None:
    faulty = harness.faulty(answer(status, body=bomb(), headers=GZIP))
    with memory(limit):
        in_time(harness.fails(faulty, kind, "ambiguous", stream=stream).took, 4)


@row(25, "gzip bomb")
def test_a_gzip_bomb_after_content_cuts_the_stream(harness: FaultHarness) -> None:
    faulty = harness.faulty(answer(body=bomb(b"".join(OPENAI.begun) + b"data: "), headers=GZIP))
    with memory(48 * MB):
        harness.cuts(faulty, SO_FAR, ProtocolError)


@row(25, "gzip bomb")
@whole_and_streamed
@pytest.mark.parametrize("encoding", ["gzip, gzip", "deflate", "br"])
def test_what_was_not_asked_for_is_not_unpacked(harness: FaultHarness, encoding: str, stream: bool) -> None:
    faulty = harness.faulty(answer(body=bomb(), headers={"content-encoding": encoding}))
    harness.is_retried(faulty, ProtocolError, "ambiguous", stream=stream)


# -- too large -----------------------------------------------------------------------------------------------

LINES = {
    "data": (OPENAI, b'data: {"id": "', b"x"),
    "comment": (OPENAI, b": ", b"x"),
    "many lines": (OPENAI, b"", b"data: x\n"),
    "anthropic": (ANTHROPIC, b'event: message_start\ndata: {"id": "', b"x"),
    "ollama": (OLLAMA, b'{"model": "', b"x"),
    "blanks": (OLLAMA, b"", b" "),
}


def long(start: bytes, unit: bytes = b"x", size: int = 50 * MB) -> bytes:
    return start + unit * (size // len(unit))


def endless(data: bytes) -> list[Step]:
    """Headers and these bytes as they are: the server needs no memory for them."""
    return [Send(head(200, {"connection": "close"})), Send(data), Close()]


@row(26, "50 MB line")
@pytest.mark.parametrize(("wire", "start", "unit"), LINES.values(), ids=LINES)
def test_a_line_that_is_too_long_is_not_read_to_its_end(
    harness: FaultHarness, wire: Wire, start: bytes, unit: bytes
) -> None:
    faulty = harness.faulty(endless(long(start, unit)), wire=wire)
    with memory(64 * MB):
        in_time(harness.fails(faulty, ProtocolError, "ambiguous", stream=True).took, 2)


@row(26, "50 MB line")
def test_a_line_that_is_too_long_after_content_cuts_the_stream(harness: FaultHarness) -> None:
    faulty = harness.faulty(
        [*endless(b"".join(OPENAI.begun))[:-1], Wait(harness.first_chunk), Send(long(b"data: ")), Close()]
    )
    with memory(64 * MB):
        harness.cuts(faulty, SO_FAR, ProtocolError)


@row(26, "50 MB line")
def test_an_answer_that_is_too_long_is_not_read_to_its_end(harness: FaultHarness) -> None:
    faulty = harness.faulty(endless(long(b'{"id": "', size=70 * MB)))
    with memory(80 * MB):
        in_time(harness.fails(faulty, ProtocolError, "ambiguous").took, 2)


@row(26, "50 MB line")
@whole_and_streamed
def test_a_header_that_is_too_long_is_not_read_to_its_end(harness: FaultHarness, stream: bool) -> None:
    faulty = harness.faulty([Send(long(b"HTTP/1.1 200 OK\r\nx-long: ")), Close()])
    with memory(16 * MB):
        in_time(harness.fails(faulty, ProtocolError, "ambiguous", stream=stream).took, 2)


@row(26, "50 MB line")
@pytest.mark.parametrize(("wire", "start"), [(OPENAI, b'data: {"id": "'), (OLLAMA, b'{"model": "')])
def test_the_time_for_a_long_line_in_small_pieces_is_linear(
    harness: FaultHarness, wire: Wire, start: bytes
) -> None:
    faulty = harness.faulty(framed(long(start, size=17 * MB), 4096), wire=wire)
    in_time(harness.fails(faulty, ProtocolError, "ambiguous", stream=True).took, 4)


@row(26, "50 MB line")
def test_a_long_answer_that_is_no_json_is_ambiguous(harness: FaultHarness) -> None:
    bad = long(b'{"choices": [{"message": {"content": "', b"\\\\", 8 * MB) + b'"}}]'
    harness.fails(harness.faulty(answer(body=bad)), ProtocolError, "ambiguous")


@row(26, "50 MB line")
@pytest.mark.parametrize("unit", [b"x", b"\\\\", b"\\\\ud800"], ids=["letters", "backslashes", "escapes"])
def test_no_json_is_refused_as_fast_as_an_answer_is_read(unit: bytes) -> None:
    # No deadline can end a parser that has begun, and on a loop everybody waits for it.
    good = long(b'{"choices": [{"message": {"content": "', unit, 8 * MB) + b'"}}]}'
    bad = good[:-1]
    reader = backend("main", "http://localhost")

    def refuse() -> None:
        with pytest.raises(ProtocolError):
            reader.decode(200, {}, bad)

    assert effort(refuse) < 0.05 + 5 * effort(lambda: reader.decode(200, {}, good))


# -- cut in odd places ---------------------------------------------------------------------------------------

ODD = "Zoë reads 日本語, 🎈 and é"


@row(27, "UTF-8 split across reads")
@each_wire
@whole_and_streamed
def test_characters_that_are_split_are_put_together(harness: FaultHarness, wire: Wire, stream: bool) -> None:
    body = b"".join(said(wire, *ODD.partition("日"))) if stream else body_of(wire, ODD)
    assert ODD.encode()[-2:] in body
    for size in (1, 2, 3):
        harness.answers(harness.faulty(framed(body, size), wire=wire), ODD, stream=stream)


@row(28, "invalid UTF-8")
@each_wire
@whole_and_streamed
def test_a_byte_that_is_no_utf8_is_replaced_in_a_text(
    harness: FaultHarness, wire: Wire, stream: bool
) -> None:
    body = b"".join(said(wire, "caf#", " au lait")) if stream else body_of(wire, "caf# au lait")
    faulty = harness.faulty(answer(body=body.replace(b"caf#", b"caf\xe9")), wire=wire)
    harness.answers(faulty, "caf\ufffd au lait", stream=stream)


@row(28, "invalid UTF-8")
@each_wire
@whole_and_streamed
def test_a_byte_that_is_no_utf8_is_a_fault_in_the_structure(
    harness: FaultHarness, wire: Wire, stream: bool
) -> None:
    body = wire.events[0] if stream else body_of(wire)
    faulty = harness.faulty(answer(body=body.replace(b"{", b"{\xff", 1)), wire=wire)
    harness.is_retried(faulty, ProtocolError, "ambiguous", stream=stream)


@row(28, "invalid UTF-8")
@each_wire
def test_a_byte_that_is_no_utf8_cuts_a_stream_after_content(harness: FaultHarness, wire: Wire) -> None:
    broken = wire.begun[-1].replace(b"{", b"{\xff", 1)
    harness.cuts(harness.faulty(wire.stream(*wire.begun, broken), wire=wire), SO_FAR, ProtocolError)


def cut_after(data: bytes, mark: bytes) -> list[bytes]:
    return [part + mark for part in data.split(mark)[:-1]]


ENDS: dict[str, tuple[bytes, bytes]] = {
    "LF": (b"\n", b"\n\n"),
    "CR": (b"\r", b"\r\r"),
    "CRLF": (b"\r\n", b"\r\n\r\n"),
    "split CRLF": (b"\r\n", b"\r"),
    "split between": (b"\r\n", b"\r\n"),
    "split LF": (b"\n", b"\n"),
    "split CR": (b"\r", b"\r"),
}


@row(29, "CR, LF, CRLF, split CRLF")
@pytest.mark.parametrize("wire", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
@pytest.mark.parametrize("end", ENDS)
def test_the_ends_of_lines_do_not_matter(harness: FaultHarness, wire: Wire, end: str) -> None:
    line_end, mark = ENDS[end]
    body = b"".join(piece.replace(b',"', b',\ndata: "', 1) for piece in wire.events)
    pieces = cut_after(body.replace(b"\n", line_end), mark)
    if end == "split CRLF":
        pieces.append(b"\n")
    assert_same_events(harness, wire, pieces)


@row(29, "CR, LF, CRLF, split CRLF")
@pytest.mark.parametrize(("end", "mark"), [(b"\r\n", b"\r\n"), (b"\r\n", b"\r")], ids=["CRLF", "split CRLF"])
def test_the_ends_of_ollamas_lines_do_not_matter(harness: FaultHarness, end: bytes, mark: bytes) -> None:
    pieces = cut_after(b"".join(OLLAMA.events).replace(b"\n", end), mark)
    assert_same_events(harness, OLLAMA, pieces)


def assert_same_events(harness: FaultHarness, wire: Wire, pieces: Sequence[bytes]) -> None:
    call = harness.answers(harness.faulty(wire.stream(*pieces), wire=wire), stream=True)
    assert [piece.text for piece in call.chunks] == ["Hello", " there", ".", ""]
    assert not call.answer.usage.estimated


BOM = b"\xef\xbb\xbf"
EVIL = delta({"content": "evil"}).rstrip()
STANDARD = b"".join(
    [
        BOM + b": a comment\n",
        b"id: 1\nretry: 10\nunknown: field\nfield without colon\n",
        b'data:{"choices": [{"index": 0,\n',
        b'data: "delta":\n',
        b": a comment inside\n",
        b'data:  {"content": "Hello"}}]}\n\n',
        b"\n\n\n",
        b"event: nothing\n\n",
        b"data\n\n",
        b"data:\n\n",
        b": " + EVIL + b"\n\n",
        BOM + EVIL + b"\n\n",
        b" " + EVIL + b"\n\n",
        b"DATA" + EVIL[4:] + b"\n\n",
        *chat_sse([" there", "."])[1:],
    ]
)


@row(30, "comments, BOM, multi-line data")
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_are_read_as_the_standard_says(harness: FaultHarness, size: int) -> None:
    assert_same_events(harness, OPENAI, [STANDARD[i : i + size] for i in range(0, len(STANDARD), size)])


@row(30, "comments, BOM, multi-line data")
@each_wire
def test_a_mark_at_the_start_is_no_part_of_the_first_event(harness: FaultHarness, wire: Wire) -> None:
    assert_same_events(harness, wire, [BOM[:1], BOM[1:2], BOM[2:] + wire.events[0], *wire.events[1:]])


def unended(*pieces: bytes) -> bytes:
    return b"".join(pieces).rstrip(b"\n")


UNENDED = {
    "done": (OPENAI, unended(*OPENAI.events)),
    "done, one line end": (OPENAI, unended(*OPENAI.events) + b"\n"),
    "whole JSON": (OPENAI, unended(*chat_sse(done=False))),
    "message_stop": (ANTHROPIC, unended(*ANTHROPIC.events)),
    "done: true": (OLLAMA, unended(*OLLAMA.events)),
}


@row(31, "last event without blank line")
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the end"])
@pytest.mark.parametrize(("wire", "body"), UNENDED.values(), ids=UNENDED)
def test_the_last_event_needs_no_blank_line(
    harness: FaultHarness, wire: Wire, body: bytes, chunked: bool
) -> None:
    call = harness.answers(harness.faulty(wire.stream(body, chunked=chunked), wire=wire), stream=True)
    assert not call.answer.usage.estimated


LAST = {
    "openai": (OPENAI, delta({}, finish="stop")),
    "anthropic": (ANTHROPIC, ANTHROPIC.events[-1]),
    "ollama": (OLLAMA, OLLAMA.events[-1]),
}


@row(31, "last event without blank line")
@pytest.mark.parametrize(("wire", "last"), LAST.values(), ids=LAST)
@pytest.mark.parametrize("missing", [1, 10])
def test_a_last_event_that_was_cut_off_is_none(
    harness: FaultHarness, wire: Wire, last: bytes, missing: int
) -> None:
    faulty = harness.faulty(wire.stream(*wire.begun, unended(last)[:-missing]), wire=wire)
    harness.cuts(faulty, SO_FAR, ProtocolError)


@row(31, "last event without blank line")
def test_a_done_cut_off_after_the_finish_does_not_matter(harness: FaultHarness) -> None:
    harness.answers(harness.faulty(OPENAI.stream(*chat_sse(done=False), DONE[:-5])), stream=True)
