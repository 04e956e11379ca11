"""Answers from bytes alone: where one ends, and what is refused, in whatever pieces it comes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute.http.answer import MAX_HEAD, MAX_HEADERS, TOO_LONG, AnswerReader
from ccroute.http.message import CUT_OFF, NOT_HTTP, SWITCHES

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
HI = OK + b"content-length: 2\r\n\r\nhi"
END = b""


class Read(NamedTuple):
    """What became of the bytes."""

    status: int | None
    headers: dict[str, str] | None
    body: bytes
    complete: bool
    reusable: bool
    fault: tuple[str, str] | None


def read(*pieces: bytes, reader: AnswerReader | None = None) -> Read:
    reader = reader or AnswerReader()
    body = b""
    for piece in pieces:
        reader.feed(piece)
        body += reader.take()
    head, fault = reader.head, reader.fault
    return Read(
        head and head.status,
        head and dict(head.headers),
        body,
        reader.complete,
        reader.reusable,
        fault and (fault.kind, fault.detail),
    )


def bytewise(data: bytes) -> Iterable[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def refused(*pieces: bytes, why: str = NOT_HTTP) -> None:
    assert read(*pieces)[2:] == (b"", False, False, ("protocol", why))


# -- where an answer ends ------------------------------------------------------------------------------------

ENDS: dict[str, tuple[bytes, bytes, bool]] = {
    "length": (HI, b"hi", True),
    "length 0": (OK + b"content-length: 0\r\n\r\n", b"", True),
    "chunks": (CHUNKED + b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", b"hi", True),
    "chunk sizes with zeros, in any case": (
        CHUNKED + b"000A\r\n0123456789\r\n00\r\n\r\n",
        b"0123456789",
        True,
    ),
    "chunk extension": (CHUNKED + b"2;a=b\r\nhi\r\n0;c\r\n\r\n", b"hi", True),
    "no chunk": (CHUNKED + b"0\r\n\r\n", b"", True),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nx: y\r\nz: 1\r\n\r\n", b"hi", True),
    "Chunked": (OK + b"Transfer-Encoding: Chunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b"", True),
    "connection: close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi", b"hi", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"hi", False),
    "HTTP/1.0 kept": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi",
        b"hi",
        True,
    ),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi", b"hi", True),
    "a length in a trailer": (CHUNKED + b"2\r\nhi\r\n0\r\ncontent-length: 3\r\n\r\n", b"hi", False),
}


@pytest.mark.parametrize(("data", "body", "reusable"), ENDS.values(), ids=ENDS)
def test_an_answer_ends_where_its_head_says(data: bytes, body: bytes, reusable: bool) -> None:
    for pieces in ([data], bytewise(data)):
        found = read(*pieces)
        assert found[2:] == (body, True, reusable, None)
    if b"content-length: 3" not in data:  # all its bytes are needed
        assert not read(data[:-1]).complete
        assert read(data[:-1], END).fault == ("broken", CUT_OFF)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_without_a_length_ends_with_its_connection(version: bytes) -> None:
    data = b"HTTP/" + version + b" 200 OK\r\nconnection: keep-alive\r\n\r\nhi"
    assert read(data) == (200, {"connection": "keep-alive"}, b"hi", False, False, None)
    assert read(data, END) == (200, {"connection": "keep-alive"}, b"hi", True, False, None)


@pytest.mark.parametrize("part", [b"", b"\r\n", b"HTTP/1.1 2", OK, b"HTTP/1.1 100 Continue\r\n\r\n", HI[:-1]])
def test_a_connection_that_ends_before_its_answer_is_broken(part: bytes) -> None:
    assert read(*[part] * bool(part), END)[3:] == (False, False, ("broken", CUT_OFF))


def test_names_of_headers_are_lower_case_and_values_are_bare() -> None:
    head = OK + b"X-Request-ID: \t req 1\t \r\nx-word: gr\xfc\xdf\r\nempty:\r\nx-two: a\r\nX-Two: b\r\n\r\n"
    assert read(head).headers == {"x-request-id": "req 1", "x-word": "gr\xfc\xdf", "empty": "", "x-two": "b"}


def test_a_body_is_given_out_once_as_it_comes() -> None:
    reader = AnswerReader()
    reader.feed(CHUNKED + b"2\r\nhi\r\n1\r\n!\r\n")
    assert reader.take() == b"hi!"
    assert reader.take() == b""
    reader.feed(b"1\r\n?\r\n")
    assert reader.take() == b"?"


# -- one connection, many answers ----------------------------------------------------------------------------


def test_one_connection_carries_answers_of_every_kind() -> None:
    reader = AnswerReader()
    for _ in range(3):
        for data, body, reusable in ENDS.values():
            if reusable:
                reader.begin()
                assert read(data, reader=reader)[2:] == (body, True, True, None)
    reader.begin()
    assert (reader.started, reader.head, reader.complete, reader.reusable) == (False, None, False, False)


def test_an_answer_after_an_error_or_interim_answers_is_its_own() -> None:
    reader = AnswerReader()
    error = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 1\r\n\r\n!"
    assert read(error, reader=reader)[:3] == (503, {"retry-after": "1", "content-length": "1"}, b"!")
    reader.begin()
    assert read(HI, reader=reader)[:3] == (200, {"content-length": "2"}, b"hi")


def test_a_first_byte_starts_an_answer() -> None:
    reader = AnswerReader()
    reader.feed(b"H")
    assert reader.started
    reader.feed(CHUNKED[1:] + b"x" * 100_000)  # no chunk: a fault after more than a head's bytes
    assert reader.fault is not None
    assert reader.started
    untouched = AnswerReader()
    untouched.feed(END)
    assert not untouched.started


SURPLUS = {
    "a byte": b"x",
    "an answer": HI,
    "half an answer": HI[:20],
    "zero": b"\0",
    "a line": b"\r\nx",
    "much": b"x" * 300_000,
}


@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
@pytest.mark.parametrize("answer", [HI, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n"])
def test_surplus_bytes_end_the_connections_use_and_change_no_answer(answer: bytes, surplus: bytes) -> None:
    alone = read(answer)
    assert alone.reusable
    for pieces in ([answer + surplus], [answer, surplus], [answer, *bytewise(surplus[:50])]):
        assert read(*pieces) == alone._replace(reusable=False)


def test_the_end_of_the_connection_after_an_answer_is_no_fault() -> None:
    assert read(HI, END) == read(HI)._replace(reusable=False)


def test_a_blank_line_before_an_answer_is_skipped() -> None:
    reader = AnswerReader()
    assert read(HI + b"\r\n", reader=reader) == read(HI)
    reader.begin()
    assert read(b"\r\n" + HI, reader=reader) == read(HI)


# -- interim answers -----------------------------------------------------------------------------------------

INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\nx-a: b\r\ncontent-length: 2\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 199 Any\r\n\r\n",
]


@pytest.mark.parametrize("times", [1, 100])
def test_interim_answers_leave_no_trace(times: int) -> None:
    data = b"".join(INTERIM) * times + HI
    assert read(data) == read(*bytewise(data)) == read(HI)


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Hints\r\nlink: </x>\r\n\r\n", b"\r\n"])
def test_endless_interim_answers_are_refused(interim: bytes) -> None:
    times = MAX_HEAD // len(interim) + 1
    refused(interim * times, why=TOO_LONG)
    refused(*[interim] * times, why=TOO_LONG)


def test_an_interim_answer_with_a_body_is_refused() -> None:
    refused(b"HTTP/1.1 199 Any\r\ncontent-length: 2\r\n\r\nhi" + HI)


@pytest.mark.parametrize(
    "headers", [b"", b"upgrade: h2c\r\nconnection: upgrade\r\n", b"content-length: 2\r\n"]
)
def test_a_switch_of_protocols_is_refused(headers: bytes) -> None:
    data = b"HTTP/1.1 101 Switching Protocols\r\n" + headers + b"\r\n" + HI
    refused(data, why=SWITCHES)
    refused(*bytewise(data), why=SWITCHES)


# -- what is refused -----------------------------------------------------------------------------------------

REFUSED = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "HTTP/2": b"\0\0\x12\x04\0\0\0\0\0",
    "HTTP/3.1": b"HTTP/3.1 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\ncontent-length: 2\r\n\r\nhi",
    "status 099": b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nhi",
    "bare LF after the status": b"HTTP/1.1 200 OK\ncontent-length: 2\r\n\r\nhi",
    "bare LF after a header": OK + b"x: y\ncontent-length: 2\r\n\r\nhi",
    "bare LF at the end of the head": OK + b"content-length: 2\r\n\nhi",
    "bare CR": OK + b"x: y\rz: 1\r\ncontent-length: 2\r\n\r\nhi",
    "zero byte in a header": OK + b"x: \0\r\ncontent-length: 2\r\n\r\nhi",
    "folded header": OK + b"x: y\r\n z\r\ncontent-length: 2\r\n\r\nhi",
    "space before the colon": OK + b"content-length : 2\r\n\r\nhi",
    "no name": OK + b": y\r\ncontent-length: 2\r\n\r\nhi",
    "no colon": OK + b"content-length\r\n\r\nhi",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi",
    "two equal lengths": OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nhi",
    "a list of lengths": OK + b"content-length: 2, 2\r\n\r\nhi",
    "no length": OK + b"content-length:\r\n\r\nhi",
    "signed length": OK + b"content-length: +2\r\n\r\nhi",
    "negative length": OK + b"content-length: -2\r\n\r\nhi",
    "hexadecimal length": OK + b"content-length: 0x2\r\n\r\nhi",
    "endless length": OK + b"content-length: 99999999999999999999999\r\n\r\nhi",
    "length, then chunks": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks, then length": OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    "unknown coding": OK + b"transfer-encoding: gzip\r\n\r\nhi",
    "unknown coding before chunks": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "unknown coding in a header of its own": OK
    + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no coding": OK + b"transfer-encoding:\r\n\r\nhi",
    "identity": OK + b"transfer-encoding: identity\r\n\r\nhi",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_a_head_that_can_be_read_in_two_ways_is_refused(data: bytes) -> None:
    refused(data)
    refused(data, END)
    refused(*bytewise(data), END)
    refused(data, HI)


BAD_CHUNKS = {
    "no number": b"xyz\r\nhi\r\n",
    "negative": b"-2\r\nhi\r\n",
    "too large a number": b"fffffffffffffffff\r\nhi\r\n",
    "no size": b"\r\nhi\r\n",
    "bare LF after the size": b"2\nhi\r\n",
    "shorter than it says": b"3\r\nhi\r\n",
    "longer than it says": b"1\r\nhi\r\n",
    "bare LF after the chunk": b"2\r\nhi\n0\r\n\r\n",
    "bare LF at the end": b"0\r\n\n",
    "space before the colon of a trailer": b"0\r\nx : y\r\n\r\n",
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_a_wrong_chunk_is_a_fault_after_the_head(chunks: bytes) -> None:
    whole = read(CHUNKED + b"1\r\n!\r\n" + chunks + b"z" * 9)
    assert whole.status == 200
    assert whole.body[:1] == b"!"
    assert (whole.complete, whole.reusable, whole.fault) == (False, False, ("protocol", NOT_HTTP))
    assert read(*bytewise(CHUNKED + b"1\r\n!\r\n" + chunks + b"z" * 9)) == whole


# -- limits --------------------------------------------------------------------------------------------------


def head_of(size: int) -> bytes:
    """A whole head of exactly so many bytes."""
    rest = size - len(OK) - len(b"x: \r\ncontent-length: 0\r\n\r\n")
    return OK + b"x: " + b"y" * rest + b"\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("piece", [1 << 20, 10_000, 7])
def test_a_head_has_at_most_64_kib(piece: int) -> None:
    def cut(data: bytes) -> list[bytes]:
        return [data[i : i + piece] for i in range(0, len(data), piece)]

    assert read(*cut(head_of(MAX_HEAD))).complete
    refused(*cut(head_of(MAX_HEAD + 1)), why=TOO_LONG)
    refused(*cut(INTERIM[0] + head_of(MAX_HEAD)), why=TOO_LONG)
    refused(*cut(OK + b"x: " + b"y" * 300_000), why=TOO_LONG)
    refused(*cut(OK + b"y" * 300_000), why=TOO_LONG)
    refused(*cut(b"HTTP/1.1 200 " + b"y" * 300_000), why=TOO_LONG)
    refused(*cut(b"SSH" + b"y" * 300_000))


@pytest.mark.parametrize("start", [OK, INTERIM[0][:-2]], ids=["answer", "interim answer"])
def test_a_head_has_at_most_200_headers(start: bytes) -> None:
    def data(count: int) -> bytes:
        return start + b"x: y\r\n" * count + b"\r\n"

    assert read(data(MAX_HEADERS)).fault is None
    refused(data(MAX_HEADERS + 1), HI, why=TOO_LONG)
    refused(*bytewise(data(MAX_HEADERS + 1) + HI), why=TOO_LONG)


def test_the_limits_hold_for_each_answer_anew() -> None:
    reader = AnswerReader()
    flood = OK + b"x: y\r\n" * (MAX_HEADERS - 1) + b"content-length: 0\r\n\r\n"
    for data in (head_of(MAX_HEAD), flood, flood, head_of(MAX_HEAD)):
        reader.begin()
        assert read(data, reader=reader)[3:] == (True, True, None)


def test_trailers_have_the_limits_of_a_head() -> None:
    start = CHUNKED + b"2\r\nhi\r\n0\r\n"
    few, many = (start + b"x: y\r\n" * count + b"\r\n" for count in (MAX_HEADERS, MAX_HEADERS + 1))
    long = start + b"x: " + b"y" * 1_000
    endless = [b"y" * 1_000] * 70
    assert read(few)[2:] == (b"hi", True, True, None)
    assert read(*bytewise(few))[2:] == (b"hi", True, True, None)
    for pieces in ([many], bytewise(many), [long, *endless]):
        assert read(*pieces)[2:] == (b"hi", False, False, ("protocol", TOO_LONG))


def test_a_body_has_no_limit_here() -> None:
    piece = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    assert len(read(CHUNKED, *[piece] * 50, b"0\r\n\r\n").body) == 500_000
    assert len(read(CHUNKED + piece * 50 + b"0\r\n\r\n").body) == 500_000


# -- pieces --------------------------------------------------------------------------------------------------

bodies = st.binary(max_size=40)
names = st.sampled_from([b"x-a", b"X-B", b"Date", b"connection"])
values = st.sampled_from([b"", b"y", b" a b ", b"close", b"keep-alive", b"\xff"])
headers = st.lists(st.tuples(names, values).map(b": ".join), max_size=4).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)
starts = st.sampled_from(
    [
        OK,
        OK,
        OK,
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 204 No\r\n",
        b"HTTP/1.1 503 Busy\r\n",
        b"HTTP/1.1 099 X\r\n",
    ]
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


with_length = st.builds(
    lambda start, fields, body: start + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body,
    starts,
    headers,
    bodies,
)
with_chunks = st.builds(
    lambda start, fields, chunks, trailers: (
        (
            start
            + fields
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(map(chunk, chunks))
            + b"0\r\n"
            + trailers
        )
        + b"\r\n"
    ),
    starts,
    headers,
    st.lists(st.binary(min_size=1, max_size=20), max_size=5),
    headers,
)
without_length = st.builds(
    lambda start, fields, body: start + fields + b"\r\n" + body, starts, headers, bodies
)
faulty = st.builds(
    lambda data, place, word: data[: place % len(data)] + word + data[place % len(data) :],
    with_length | with_chunks,
    st.integers(0, 1000),
    st.sampled_from([b"\n", b"\0", b" ", b"\r\n", b"0\r\n\r\n", b"x", b"Content-Length: 1\r\n"]),
)
flooded = st.builds(
    lambda data, place: data[:place] + b"y" * MAX_HEAD + data[place:], with_length, st.integers(0, 20)
)
interims = st.lists(st.sampled_from(INTERIM), max_size=3).map(b"".join)
surplus = st.sampled_from([b"", b"", b"x", b"\r\nx", HI, END])
answers = st.builds(
    lambda interim, answer, more: interim + answer + more,
    interims,
    with_length | with_chunks | without_length | faulty | flooded,
    surplus,
)


def read_pieces(pieces: Iterable[bytes], *, blank: bool) -> Read:
    """`blank`: a blank line follows the answer. It is skipped if it comes in one piece with the answer."""
    found = read(*pieces)
    return found._replace(reusable=False) if blank else found


@given(answers, st.lists(st.integers(0, 100_000), max_size=8), st.booleans())
def test_any_answer_in_any_pieces_reads_the_same(data: bytes, cuts: list[int], ends: bool) -> None:
    end = [END] * ends
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    pieces = [data[start:stop] for start, stop in itertools.pairwise(places)]
    blank = data[-1:] in (b"\r", b"\n") and read(data[:-1]).complete
    whole = read_pieces([data, *end], blank=blank)
    assert read_pieces([*pieces, *end], blank=blank) == whole
    assert len(data) > 1_000 or read_pieces([*bytewise(data), *end], blank=blank) == whole
    assert whole.fault is None or not (whole.complete or whole.reusable)
    assert whole.complete or not whole.reusable
