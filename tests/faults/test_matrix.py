"""The matrix itself: every row has its tests, and a name of its own."""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from pathlib import Path

from tests.faults.harness import FaultHarness, Late
from tests.faults.parallel import ParallelHarness

ROWS = {*range(1, 63), *range(67, 75)}
"""63 to 66 come with the cache."""


def rows_with_tests() -> dict[int, set[str]]:
    """The names of each row, from the decorators of this folder's tests: whichever of them run now."""
    found = defaultdict[int, set[str]](set)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for mark in node.decorator_list:
                    match mark:
                        case ast.Call(ast.Name("row"), [ast.Constant(int(number)), ast.Constant(str(fault))]):
                            found[number].add(fault)
    return found


def test_every_row_of_the_matrix_has_a_test() -> None:
    assert rows_with_tests().keys() == ROWS


def test_a_row_goes_by_one_name_and_no_two_by_the_same() -> None:
    names = rows_with_tests()
    assert {number: faults for number, faults in names.items() if len(faults) != 1} == {}
    assert len(set.union(*names.values())) == len(names)


RUNS = {kind: itertools.count(1) for kind in (FaultHarness, ParallelHarness)}


def test_a_late_check_of_one_call_runs_again(harness: FaultHarness) -> None:
    late_twice(harness)


def test_a_late_check_of_many_calls_runs_again(parallel: ParallelHarness) -> None:
    late_twice(parallel)


def late_twice(harness: FaultHarness | ParallelHarness) -> None:
    if next(RUNS[type(harness)]) % 3:
        raise Late
