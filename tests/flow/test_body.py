"""A body is read as it was meant, to its end, and within bounds."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute.errors import ProtocolError
from ccroute.flow.attempt.exchange import PIECE, Body
from ccroute.http.message import Reply


def packed_by(encoding: str) -> Body:
    return Body(Reply(200, {"content-encoding": encoding}))


def read(body: Body, data: bytes, size: int = 7) -> bytes:
    """All of `data`, fed in pieces of `size` bytes."""
    plain = b"".join(piece for i in range(0, len(data), size) for piece in body.feed(data[i : i + size]))
    body.end()
    return plain


@pytest.mark.parametrize("encoding", ["", " Identity "])
def test_a_plain_body_is_itself(encoding: str) -> None:
    assert read(packed_by(encoding), b"hello") == b"hello"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP "])
@given(data=st.binary(max_size=200), size=st.integers(1, 50))
def test_a_gzip_body_is_unpacked_however_it_is_cut(encoding: str, data: bytes, size: int) -> None:
    assert read(packed_by(encoding), gzip.compress(data), size) == data


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "identity, gzip"])
def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str) -> None:
    with pytest.raises(ProtocolError, match="encoding"):
        packed_by(encoding)


@given(st.integers(0, len(gzip.compress(b"hello" * 9)) - 1))
def test_a_truncated_gzip_is_refused_at_its_end(cut: int) -> None:
    with pytest.raises(ProtocolError, match="cut off"):
        read(packed_by("gzip"), gzip.compress(b"hello" * 9)[:cut])


def test_a_body_that_is_no_gzip_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not valid gzip"):
        read(packed_by("gzip"), b"<html>not gzip at all")


def test_a_gzip_with_a_wrong_checksum_is_refused() -> None:
    packed = bytearray(gzip.compress(b"hello"))
    packed[-8] ^= 1
    with pytest.raises(ProtocolError, match="not valid gzip"):
        read(packed_by("gzip"), bytes(packed))


def test_what_comes_after_the_end_of_a_gzip_is_refused() -> None:
    packed = gzip.compress(b"hello")
    with pytest.raises(ProtocolError, match="goes on after its end"):
        read(packed_by("gzip"), packed + b"junk", len(packed) + 4)
    with pytest.raises(ProtocolError, match="goes on after its end"):
        read(packed_by("gzip"), packed + packed, len(packed))


def test_a_gzip_bomb_is_unpacked_only_as_far_as_it_is_read() -> None:
    packer = zlib.compressobj(wbits=31)
    megabyte = bytes(2**20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(200)) + packer.flush()
    tracemalloc.start()
    try:
        pieces = packed_by("gzip").feed(bomb)
        assert sum(len(next(pieces)) for _ in range(10)) <= 10 * PIECE
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_body_of_any_length_is_unpacked_whole() -> None:
    data = bytes(5 * PIECE) + b"end"
    assert read(packed_by("gzip"), gzip.compress(data), 10**6) == data
