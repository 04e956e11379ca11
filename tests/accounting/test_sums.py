"""Every ledger, and every grouping: the report is what adding up the rows one by one gives."""

from __future__ import annotations

import importlib
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.accounting.support import DAY, ROWS, START, naive_report, row

from ccroute import Price, Report, Usage
from ccroute.accounting import BaseLedger, Key, LedgerRow, MemoryLedger, SqliteLedger, Tally
from ccroute.accounting.stores.opening import open_ledger
from ccroute.accounting.stores.sqlite import sums
from ccroute.accounting.tally import tallied

GROUPS: list[Any] = ["agent", "group", "alias", "model", "backend", "day", "session"]
MICROSECOND = timedelta(microseconds=1)
PRICE = Price(15, 75, cache_read="1.5", cache_write="18.75")
TIERED = Price(3, 15, above={1000: Price(6, "22.5", cache_write_1h=9), 131_072: Price(12, 45)})


class OwnLedger:
    """A user's ledger."""

    def __init__(self) -> None:
        self.kept: list[LedgerRow] = []

    def record(self, row: LedgerRow) -> None:
        self.kept.append(row)

    def tallies(self, since: datetime | None = None, until: datetime | None = None) -> Mapping[Key, Tally]:
        return tallied(
            row
            for row in self.kept
            if (since is None or row.started >= since) and (until is None or row.started < until)
        )


@contextmanager
def ledgers() -> Iterator[list[BaseLedger]]:
    """Each kind of ledger. One has its rows still waiting, because its file is locked."""
    with tempfile.TemporaryDirectory() as folder:
        disk, waiting = (SqliteLedger(Path(folder, name)) for name in ("usage.db", "waiting.db"))
        waiting.record = waiting._queue.append  # type: ignore[method-assign]  # a fake for this test
        waiting.flush = lambda: None  # type: ignore[method-assign]  # a fake for this test
        found = [MemoryLedger(), disk, waiting, open_ledger(OwnLedger())[0]]
        yield found
        for ledger in found[:2]:
            ledger.close()
        waiting._queue.clear()


def bounds() -> st.SearchStrategy[datetime | None]:
    """Often just where a row starts, or a moment before or after."""
    edges = st.sampled_from([START, START + DAY, START + 2 * DAY])
    return st.none() | st.tuples(edges, st.sampled_from([-MICROSECOND, 0 * DAY, MICROSECOND])).map(sum_of)


def sum_of(parts: tuple[datetime, timedelta]) -> datetime:
    return parts[0] + parts[1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        ROWS | st.builds(row, started=bounds().filter(bool), cost=st.none() | st.just(Decimal(2))),
        max_size=12,
    ),
    st.lists(st.sampled_from(GROUPS), max_size=3, unique=True),
    bounds(),
    bounds(),
    st.sampled_from([None, PRICE, TIERED]),
    st.integers(1, 5),
)
def test_a_report_is_the_sum_of_its_rows(
    recorded: list[LedgerRow],
    by: Sequence[Any],
    since: datetime | None,
    until: datetime | None,
    baseline: Price | None,
    at_once: int,
) -> None:
    counted = [
        each
        for each in recorded
        if (since is None or each.started >= since) and (until is None or each.started < until)
    ]
    expected, [total] = naive_report(counted, by, baseline), naive_report(counted, (), baseline)
    with ledgers() as each_kind, patch.object(sums, "AT_ONCE", at_once):
        for ledger in each_kind:
            for one in recorded:
                ledger.record(one)
            made = Report.of(ledger.tallies, by, since, until, baseline)
            if type(ledger).__name__ == "CustomLedger" and baseline is TIERED:
                continue  # it does not know at which lengths to divide
            assert len(made) == len(expected)
            for line in expected:
                assert line in made, ledger
            assert made.total == total
            order = [(line.get("day"), -(line["cost"] or 0)) for line in made]
            assert order == sorted(order), "day by day, the most expensive first"


def test_an_sqlite_that_has_no_filters_sums_up_the_same(tmp_path: Path) -> None:
    """As that of RHEL 8, which is 3.26: `FILTER` came with 3.30."""
    ledger = SqliteLedger(tmp_path / "usage.db")
    for each in (
        row(queue=1.5, load=45.0, override_saved=Decimal(2), latency=0.5),
        row(queue=0.25, load=0.01, usage=Usage(input=7, estimated=True), cost=None),
        row(outcome="failed", final=False, latency=3.0, usage=Usage(output=7, estimated=True)),
        row(agent="js", cost=Decimal("1e-15"), latency=None),
        row(agent="rs", cost=None, usage=Usage(input=5)),
    ):
        ledger.record(each)
    usual = ledger.tallies(by=["agent"])
    try:
        with patch.object(sqlite3, "sqlite_version_info", (3, 26, 0)):
            importlib.reload(sums)
        assert "FILTER" not in f"{sums._SUMS}{sums._QUICKLY}{sums._EXACTLY}{sums._LATENCIES}"
        assert ledger.tallies(by=["agent"]) == usual
    finally:
        importlib.reload(sums)
    assert "FILTER" in f"{sums._SUMS}"
    ledger.close()


@given(
    st.lists(ROWS, max_size=12),
    st.lists(st.sampled_from([name for name in GROUPS if name != "session"]), max_size=3, unique=True),
    st.integers(0, 5),
)
def test_old_rows_in_memory_count_as_the_others(
    recorded: list[LedgerRow], by: Sequence[Any], limit: int
) -> None:
    ledger = MemoryLedger(limit)
    for each in recorded:
        ledger.record(each)
    made = Report.of(ledger.tallies, by, None, None, PRICE)
    exact = [name for name in made.total if name not in {"p50", "p95"}]
    expected = [{name: line[name] for name in [*by, *exact]} for line in naive_report(recorded, by, PRICE)]
    assert len(made) == len(expected)
    assert all({name: line[name] for name in [*by, *exact]} in expected for line in made)
