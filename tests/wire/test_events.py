"""The parsers, against what the HTML standard says and what servers do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.support import cut

from ccroute.errors import ProtocolError
from ccroute.wire import events
from ccroute.wire.events import NDJSONParser, SSEParser, read_event

BOM = b"\xef\xbb\xbf"


def sse(*pieces: bytes) -> list[tuple[str, bytes]]:
    parser = SSEParser()
    blocks = [block for piece in pieces for block in parser.feed(piece)] + parser.end()
    return [event for block in blocks if (event := read_event(block))]


def ndjson(*pieces: bytes) -> list[bytes]:
    parser = NDJSONParser()
    return [line for piece in pieces for line in parser.feed(piece) if line.strip()] + parser.end()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'data: {"a":1}\n\n', [("message", b'{"a":1}')]),
        (b"data:x\n\n", [("message", b"x")]),
        (b"data:  x\n\n", [("message", b" x")]),
        (b"data: a\ndata: b\n\n", [("message", b"a\nb")]),
        (b"data\n\n", [("message", b"")]),
        (b"event: ping\ndata: {}\n\n", [("ping", b"{}")]),
        (b"event:\ndata: {}\n\n", [("message", b"{}")]),
        (b": a comment\n\ndata: x\n\n", [("message", b"x")]),
        (b": a comment\ndata: x\n\n", [("message", b"x")]),
        (b"id: 7\nretry: 9\nunknown: x\ndata: x\n\n", [("message", b"x")]),
        (b"event: lonely\n\ndata: x\n\n", [("message", b"x")]),
        (BOM + b"data: x\n\n", [("message", b"x")]),
        (b"data: x\n\n" + BOM + b"data: y\n\n", [("message", b"x")]),
        (b"\n\n\ndata: x\n\n\n\n\ndata: y\n\n\n", [("message", b"x"), ("message", b"y")]),
        (b'error: {"code":500}\n\ndata: [DONE]\n\n', [("error", b'{"code":500}'), ("message", b"[DONE]")]),
        ("data: 世界\u2028🚀\n\n".encode(), [("message", "世界\u2028🚀".encode())]),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_events_are_as_the_standard_says_whatever_the_line_end(
    stream: bytes, expected: list[tuple[str, bytes]], end: bytes
) -> None:
    assert sse(stream.replace(b"\n", end)) == expected


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"data: [DONE]", [("message", b"[DONE]")]),
        (b"data: [DONE]\r", [("message", b"[DONE]")]),
        (b'data: {"a":1}\n', [("message", b'{"a":1}')]),
        (b'event: error\ndata: {"a":1}', [("error", b'{"a":1}')]),
        (b'data: {"a":', []),
        (b"data: 12", []),
        (b"data: [DON", []),
        (b": comment", []),
        (b"\n", []),
        (BOM[:2], []),
        (b'{"error":"x"}', [("body", b'{"error":"x"}')]),
        (b'{"error":', []),
        (b"<html>", [("body", b"<html>")]),
    ],
)
def test_a_last_event_without_blank_line_must_be_whole(
    rest: bytes, expected: list[tuple[str, bytes]]
) -> None:
    assert sse(rest) == expected
    assert sse(b"data: x\n\n", rest) == [("message", b"x"), *expected]


def test_two_line_ends_of_one_crlf_split_over_reads_end_one_line() -> None:
    assert sse(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [("message", b"a\nb")]
    assert sse(b"data: a\r", b"", b"\n", b"\r\n") == [("message", b"a")]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'\n \t\n{"a":1}\n\n', [b'{"a":1}']),
        (b'{"a":1}', [b'{"a":1}']),
        (b'{"a":1}\n{"b":', [b'{"a":1}']),
        (BOM + b'{"a":1}\n', [b'{"a":1}']),
        (b"<html>", [b"<html>"]),
        (b"", []),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_lines_are_cut_at_any_line_end(stream: bytes, expected: list[bytes], end: bytes) -> None:
    assert ndjson(stream.replace(b"\n", end)) == expected


PIECES = st.lists(
    st.sampled_from(
        [
            b"data: ",
            b"data:",
            b"event: error",
            b"error: ",
            b": c",
            b"[DONE]",
            b'{"a":"x"}',
            "é世🚀\u2028".encode(),
            BOM,
            b"\n",
            b"\n\n",
            b"\r",
            b"\r\n",
            b"\r\n\r\n",
            b"\xff",
            b"<",
        ]
    ),
    max_size=12,
).map(b"".join)
PLACES = st.lists(st.integers(0, 200), max_size=8)


@given(PIECES, PLACES)
@settings(max_examples=200, deadline=None)
def test_every_rechunking_of_the_same_bytes_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    whole = sse(stream)
    assert sse(*cut(stream, places)) == whole
    assert sse(*(stream[i : i + 1] for i in range(len(stream)))) == whole


@given(PIECES, PLACES)
@settings(max_examples=200, deadline=None)
def test_every_rechunking_of_the_same_bytes_gives_the_same_lines(stream: bytes, places: list[int]) -> None:
    whole = ndjson(stream)
    assert ndjson(*cut(stream, places)) == whole
    assert ndjson(*(stream[i : i + 1] for i in range(len(stream)))) == whole


@pytest.mark.parametrize("parser", [SSEParser, NDJSONParser])
@pytest.mark.parametrize("read", [1 << 16, 1 << 26], ids=["in many reads", "in one read"])
def test_a_line_of_50_mb_is_refused_at_the_cap_and_not_held(
    parser: type[SSEParser | NDJSONParser], read: int
) -> None:
    reader = parser()
    line = b"data: " + b"x" * (50 << 20) + b"\n\n"
    pieces = iter([line[start : start + read] for start in range(0, len(line), read)])
    with pytest.raises(ProtocolError, match="16 MB"):
        list(map(reader.feed, pieces))
    unread = sum(map(len, pieces))
    assert len(line) - unread <= max(len(line[:read]), events.MAX_EVENT + 2 * read)
    assert not reader.pending


def test_an_event_just_under_the_cap_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT", 100)
    event = b"data: " + b"x" * 94 + b"\n\n"
    assert len(sse(event)) == len(sse(event[:50], event[50:])) == len(sse(event * 3)) - 2 == 1
    for pieces in (
        [event[:8] + event[6:]],
        [event[:50], event[50:60] + event[50:]],
        [event + event[:8] + event[6:]],
    ):
        with pytest.raises(ProtocolError):
            sse(*pieces)


def test_an_event_of_many_lines_beyond_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT", 100)
    with pytest.raises(ProtocolError):
        sse(*[b"data: xxxx\n"] * 20)


def test_a_byte_at_a_time_is_linear_work() -> None:
    parser = SSEParser()
    event = b"data: " + b"x" * 200_000 + b"\n\n"
    seen = [found for i in range(len(event)) for found in parser.feed(event[i : i + 1])]
    assert seen == [event[:-2]]
