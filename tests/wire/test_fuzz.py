"""Whatever a server sends ends in a completion or a typed error: seeded mutations of recorded answers.

`benchmarks/fuzz.py` makes the cases, and runs on for as long as one likes.
"""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter

import pytest
from benchmarks.fuzz import CORPUS, WIRES, Case, cases, outcomes
from tests.wire.support import FIXTURES

CASES = 2_000
FEW = 100


def some(wire: str, count: int) -> list[Case]:
    return list(itertools.islice(cases(wire), count))


def test_every_recorded_answer_of_a_wire_is_mutated() -> None:
    assert WIRES.keys() == CORPUS.keys()
    assert sum(map(len, CORPUS.values())) == len(list(FIXTURES.iterdir()))


@pytest.mark.parametrize("wire", WIRES)
def test_every_mutated_answer_ends_in_a_completion_or_a_typed_error(wire: str) -> None:
    found = Counter[str]()
    for case in some(wire, CASES):
        try:
            found.update(outcomes(case))
        except Exception as error:
            error.add_note(f"seed {case.seed!r}, pieces {case.pieces!r}")
            raise
    for read_as in ("stream", "answer"):  # the mutations are neither too wild nor too tame
        assert min(found[f"{read_as} Completion"], found[f"{read_as} ProtocolError"]) > CASES // 20


@pytest.mark.parametrize("wire", WIRES)
def test_the_same_seeds_give_the_same_outcomes(wire: str) -> None:
    again = some(wire, FEW)
    assert again == some(wire, FEW)
    assert [outcomes(case) for case in again] == [outcomes(case) for case in again]


@pytest.mark.parametrize("wire", WIRES)
def test_reading_a_mutated_answer_takes_memory_in_proportion_to_it(wire: str) -> None:
    tracemalloc.start()
    for case in some(wire, FEW):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        outcomes(case)
        assert tracemalloc.get_traced_memory()[1] - before < 100_000 + 50 * len(case.data), case.seed
    tracemalloc.stop()
