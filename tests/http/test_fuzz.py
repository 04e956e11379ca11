"""Whatever a server sends, an exchange ends the same in any pieces, and no answer is part of another one.

`benchmarks/fuzz.py` makes the cases, and runs on for as long as one likes.
"""

from __future__ import annotations

import itertools
from collections import Counter

from benchmarks.fuzz import http_cases, http_outcomes

CASES = 3_000


def test_any_bytes_in_any_pieces_end_alike_and_in_one_answer() -> None:
    found = Counter[str]()
    for case in itertools.islice(http_cases(), CASES):
        try:
            found.update(http_outcomes(case))
        except Exception as error:
            error.add_note(f"seed {case.seed!r}, pieces {case.pieces!r}")
            raise
    # The mutations are neither too wild nor too tame.
    assert min(found["body complete"], found["head protocol"]) > CASES // 10
    assert min(found["body protocol"], found["body complete, kept"]) > CASES // 40
    assert found["body complete, kept, sent again"] > 0


def test_the_same_seeds_give_the_same_http_cases() -> None:
    few = [*itertools.islice(http_cases(), 50)]
    assert few == [*itertools.islice(http_cases(), 50)]
    assert len({case.data for case in few}) > 40
