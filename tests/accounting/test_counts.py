"""What calls came to since their router began."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.accounting.support import ROWS, naive_report, row

from ccroute.accounting import LedgerRow, counts
from ccroute.accounting.counts import Count, Counts

COLUMNS = ("requests", "attempts", "failures", "wait", "loads", "load_seconds")


@given(st.lists(ROWS, max_size=12))
def test_counts_are_the_columns_of_a_report(rows: list[LedgerRow]) -> None:
    counted = Counts(0.0)
    for each in rows:
        counted.append((each,))
    found = counted.by_deployment()
    for line in naive_report(rows, ("backend", "deployment"), None):
        count = found.pop((line["backend"], line["deployment"]))
        assert {name: getattr(count, name) for name in COLUMNS} == pytest.approx(
            {name: line[name] for name in COLUMNS}, abs=1e-4
        )
    assert not found


def test_what_is_found_does_not_change_later() -> None:
    counted = Counts(0.0)
    counted.append((row(),))
    before = counted.by_deployment()
    counted.append((row(queue=2.0),))
    assert before == {("paid", "paid/m"): Count(requests=1, attempts=1)}
    assert counted.by_deployment() == {("paid", "paid/m"): Count(requests=2, attempts=2, wait=2.0)}


def test_beyond_the_most_names_the_backend_is_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_NAMES", 2)
    counted = Counts(0.0)
    for name in ("paid/a", "paid/b", "paid/c", "paid/a", "paid/d"):
        counted.append((row(deployment=name),))
    found = {deployment: count.attempts for (_, deployment), count in counted.by_deployment().items()}
    assert found == {"paid/a": 2, "paid/b": 1, "": 2}


def test_a_forked_child_begins_anew_also_while_its_parent_counts() -> None:
    counted = Counts(0.0)
    counted.append((row(),))
    assert counted.by_deployment()
    counted.append((row(),))
    counted.lock.acquire()  # by a thread that the child does not have
    counted.restart(7.0)
    assert (counted.by_deployment(), counted.since) == ({}, 7.0)


def test_counts_that_nobody_holds_are_gone_at_once() -> None:
    gc.disable()
    try:
        counted = Counts(0.0)
        alive = weakref.ref(counted)
        del counted
        assert alive() is None
    finally:
        gc.enable()
