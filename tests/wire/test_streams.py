"""What holds for the streams of every wire."""

from __future__ import annotations

import contextlib
import itertools
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.support import STREAMS, WHOLES, WIRES, as_json, cut, fixture, run

from ccroute.errors import CcrouteError, ProtocolError
from ccroute.types import Chunk, Completion
from ccroute.wire.decoding import BaseDecoder

WIRE = st.sampled_from(sorted(WIRES))
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
BOM = b"\xef\xbb\xbf"


def decoder(wire: str) -> BaseDecoder:
    made: BaseDecoder = WIRES[wire].Decoder()
    return made


def outcome(wire: str, *pieces: bytes) -> tuple[list[Chunk], Completion | str]:
    """The chunks, and the whole answer or the error's class and words."""
    reader, chunks = decoder(wire), []
    try:
        for piece in pieces:
            chunks += reader.feed(piece)
    except CcrouteError:
        pass  # `finish` raises it again
    try:
        return chunks, reader.finish()
    except CcrouteError as error:
        assert isinstance(reader.partial(), Completion)
        return chunks, f"{type(error).__name__}: {error}"


@given(WIRE, ENDS, st.booleans(), st.lists(st.integers(0, 1 << 20), max_size=12))
@settings(max_examples=150, deadline=None)
def test_any_split_of_the_same_bytes_gives_the_same_answer(
    wire: str, end: bytes, bom: bool, places: list[int]
) -> None:
    stream = fixture(STREAMS[wire])
    expected = run(decoder(wire), stream)
    stream = BOM * bom + stream.replace(b"\n", end)
    assert run(decoder(wire), *cut(stream, places)) == expected


@pytest.mark.parametrize("wire", WIRES)
def test_a_byte_at_a_time_gives_the_same_chunks_and_answer(wire: str) -> None:
    stream = fixture(STREAMS[wire])
    pieces = [stream[i : i + 1] for i in range(len(stream))]
    assert run(decoder(wire), *pieces) == run(decoder(wire), stream)


@pytest.mark.parametrize("wire", WIRES)
def test_the_chunks_together_are_the_answer(wire: str) -> None:
    chunks, completion = run(decoder(wire), fixture(STREAMS[wire]))
    assert "".join(chunk.text for chunk in chunks) == completion.text
    assert "".join(chunk.thinking for chunk in chunks) == (completion.thinking or "")
    assert all(chunk.finish_reason is None and chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_cut_anywhere_is_never_a_shorter_answer(wire: str) -> None:
    stream = fixture(STREAMS[wire])
    whole = decoder(wire)
    whole.feed(stream)
    expected = whole.finish()
    for end in range(0, len(stream), 7):
        reader = decoder(wire)
        reader.feed(stream[:end])
        try:
            completion = reader.finish()
        except ProtocolError:
            partial = reader.partial()
            assert expected.text.startswith(partial.text)
            # The fixture of Anthropic's wire goes on counting after it gave a stop reason.
            assert partial.usage.estimated or partial.usage.output <= expected.usage.output
        else:
            assert completion.message == expected.message


@given(WIRE, st.data())
@settings(max_examples=200, deadline=None)
def test_mutated_streams_end_in_an_answer_or_a_typed_error(wire: str, data: st.DataObject) -> None:
    stream = bytearray(fixture(STREAMS[wire]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(stream)))
        gone = data.draw(st.sampled_from([0, 1, 1, 2, 30]))
        put = data.draw(st.binary(max_size=2) | st.sampled_from(MUTATIONS))
        stream[place : place + gone] = put
    mutated = bytes(stream)
    chunks, result = outcome(wire, mutated)
    again, same = outcome(wire, *cut(mutated, data.draw(st.lists(st.integers(0, 1 << 20), max_size=5))))
    assert same == result
    # An error cuts off what shares its read, so chunks may differ only by what was never delivered.
    assert again == chunks or isinstance(result, str)


MUTATIONS = [
    b"null",
    b"{}",
    b"[]",
    b'""',
    b"-1",
    b"NaN",
    b"1e999",
    b"\n\n",
    b"\r",
    b"\xff",
    b"\\ud83d",
    b'"error":{"type":"overloaded_error"},',
    b"error: x\n\n",
    b"data: [DONE]\n\n",
    b"[" * 300,
    b"9" * 5000,
]


@given(WIRE, st.data())
@settings(max_examples=150, deadline=None)
def test_mutated_answers_end_in_an_answer_or_a_typed_error(wire: str, data: st.DataObject) -> None:
    body = bytearray(fixture(WHOLES[wire]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body)))
        gone = data.draw(st.sampled_from([0, 1, 1, 2, 30]))
        body[place : place + gone] = data.draw(st.binary(max_size=2) | st.sampled_from(MUTATIONS))
    try:
        completion = WIRES[wire].decode(bytes(body))
    except CcrouteError:
        return
    usage = completion.usage
    assert min(usage.input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning) >= 0


VALUES: st.SearchStrategy[object] = st.sampled_from(
    [None, True, 0, -1, 1.5, float("nan"), 10**12, "", "x", [], [None], [{}], {}, {"type": "text"}]
)


@given(WIRE, st.data())
@settings(max_examples=150, deadline=None)
def test_any_field_of_any_shape_ends_in_an_answer_or_a_typed_error(wire: str, data: st.DataObject) -> None:
    frame = json.loads(fixture(WHOLES[wire]))
    place = frame
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(VALUES)
    with contextlib.suppress(ProtocolError):
        assert isinstance(WIRES[wire].decode(as_json(frame)), Completion)


@pytest.mark.parametrize("wire", WIRES)
def test_an_empty_stream_is_a_protocol_error(wire: str) -> None:
    reader = decoder(wire)
    assert reader.feed(b"") == []
    with pytest.raises(ProtocolError):
        reader.finish()
    assert reader.partial().usage.input == 0


@pytest.mark.parametrize("wire", WIRES)
def test_a_50_mb_line_is_refused_with_memory_bounded(wire: str) -> None:
    pieces = itertools.repeat(b"data: " + b"x" * (1 << 16), 50 * 16)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="16 MB"):
        run(decoder(wire), *pieces)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
