"""The phrases of the table are found in a server's text, fast."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccroute.wire.errors.phrases import any_of, find_phrase, fixed_text
from ccroute.wire.errors.wordings import WORDINGS, Wording


@pytest.mark.parametrize("wording", WORDINGS, ids=lambda wording: wording.pattern[:40])
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_whatever_a_pattern_matches_is_found_by_its_fixed_text(wording: Wording, data: st.DataObject) -> None:
    pattern = re.sub("<(limit|prompt)>", "[0-9]{1,9}", wording.pattern)
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    assert fixed_text(wording.pattern) in text
    assert find_phrase(text, (*wording.meaning.anywhere, *wording.meaning.start)[0], None)


def test_the_fixed_text_of_a_pattern_says_something() -> None:
    assert min(len(fixed_text(wording.pattern).encode()) for wording in WORDINGS) > 5


@pytest.mark.parametrize(
    ("pattern", "fixed"),
    [
        ("exceeds? the", "exceed"),
        (r"at \[\d+, <limit>\] of that", "] of that"),
        (r"a(?:long (?:group|set) is|[skipped]+)b{3}.?cd", "cd"),
        (r"\bnot(?<!\wnot) (?:ever )?", "not"),
        ("maximum context length", "maximum cont"),
    ],
)
def test_only_text_that_must_be_there_is_fixed(pattern: str, fixed: str) -> None:
    assert fixed_text(pattern) == fixed


@given(st.lists(st.text(min_size=1, max_size=3), min_size=1), st.text())
@settings(deadline=None)
def test_any_of_several_texts_is_found(texts: list[str], text: str) -> None:
    found = any_of(texts)
    assert found(text) == any(each in text for each in texts)
    assert found(f"{text}{texts[-1]}{text}")
