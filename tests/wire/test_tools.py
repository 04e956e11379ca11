"""Whether a growing tool call is whole is known without reading it again, and as if it had been."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ccroute.wire.reading import is_whole
from ccroute.wire.tools import Call

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\\\{}[]\u00e9', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a}", max_size=2), inner, max_size=3),
    max_leaves=8,
)
PIECES = st.lists(st.text('a"\\\\{}[]:,1 ', max_size=4), max_size=10)


def whole_after(pieces: list[str]) -> list[bool]:
    call, seen = Call(0), []
    for piece in pieces:
        call.grown(piece)
        seen.append(call.is_whole)
    return seen


@given(st.dictionaries(st.text("k", max_size=2), VALUES, max_size=3), st.data())
def test_an_object_in_pieces_is_whole_with_its_last_brace(
    value: dict[str, object], data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    last = max(i for i, piece in enumerate(pieces) if piece)
    assert whole_after(pieces) == [i >= last for i in range(len(pieces))]


@given(PIECES)
def test_any_pieces_are_whole_where_a_parser_says_so(pieces: list[str]) -> None:
    assert whole_after(pieces) == [is_whole("".join(pieces[: i + 1]).encode()) for i in range(len(pieces))]
