"""Both ledgers: their rows and sums. The one in memory forgets rows but no sum. Ids sort by time."""

from __future__ import annotations

import sys
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, ItemsView, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.accounting.support import DAY, START, row, rows

from ccroute import OpenAIBackend, Router
from ccroute.accounting import BaseLedger, LedgerRow, MemoryLedger, SqliteLedger
from ccroute.accounting.ledger import attempt_id, uuid7
from ccroute.accounting.tally import LATENCIES, Key, Tally
from ccroute.types import Usage

NewLedger = Callable[[], BaseLedger]
SUMS = [name for name in Tally.__slots__ if name != "latencies"]
STARTED = attrgetter("started")


def sums(tally: Tally) -> dict[str, Any]:
    """Everything a tally holds, in a form that can be compared."""
    return {name: getattr(tally, name) for name in SUMS} | {"latencies": sorted(tally.latencies)}


def total(tallies: Mapping[Key, Tally]) -> Tally:
    whole = Tally()
    for tally in tallies.values():
        whole.merge(tally)
    return whole


def tallied(recorded: list[LedgerRow]) -> dict[Key, Tally]:
    added = defaultdict[Key, Tally](Tally)
    for each in recorded:
        added[each.key()].add(each)
    return added


# -- Tallies


@given(st.lists(rows, max_size=30), st.integers(1, 4))
def test_merging_tallies_is_adding_all_their_rows(recorded: list[LedgerRow], parts: int) -> None:
    merged = Tally()
    for i in range(parts):
        merged.merge(total(tallied(recorded[i::parts])))
    assert sums(merged) == sums(total(tallied(recorded)))


@pytest.mark.parametrize(
    ("facts", "counted"),
    [
        ({}, {"requests": 1, "attempts": 1, "failures": 0, "cost": 1}),
        ({"outcome": "failed", "final": False}, {"requests": 0, "attempts": 1, "failures": 1}),
        ({"outcome": "interrupted"}, {"requests": 1, "failures": 1}),
        ({"outcome": "cancelled"}, {"requests": 1, "failures": 0}),
        ({"cost": None}, {"unknown_cost_requests": 1, "cost": 0}),
        ({"cost": None, "final": False}, {"unknown_cost_requests": 0}),
        ({"cached": True}, {"cache_hits": 1}),
        (
            {"overridden": True, "override_saved": Decimal("0.5")},
            {"overrides": 1, "override_saved": Decimal("0.5")},
        ),
        ({"overridden": True}, {"overrides": 1, "override_saved": 0}),
        ({"overridden": True, "final": False}, {"overrides": 0}),
    ],
)
def test_a_row_counts_for_what_it_is(facts: dict[str, Any], counted: dict[str, Any]) -> None:
    tally = total(tallied([row(**facts)]))
    assert {name: getattr(tally, name) for name in counted} == counted


def test_tokens_of_unknown_price_are_not_among_the_known() -> None:
    tally = total(tallied([row(), row(cost=None)]))
    assert tally.usage.input == 2000
    assert tally.known == {0: Usage(input=1000, output=100)}
    assert (tally.priced, tally.unpriced) == (1, 1)


def test_known_tokens_are_kept_by_prompt_length() -> None:
    prompts = [
        Usage(input=1000),
        Usage(input=1, cache_read=1000),
        Usage(cache_write_1h=2000),
        Usage(output=5),
    ]
    tally = total(tallied([row(usage=usage) for usage in prompts]))
    assert tally.known == {-1: prompts[3], 0: prompts[0], 1: prompts[1] + prompts[2]}


def test_only_answers_have_a_latency() -> None:
    tally = total(tallied([row(latency=2.0), row(outcome="failed", latency=9.0), row(latency=None)]))
    assert tally.latencies == [2.0]


@pytest.mark.parametrize(
    ("latencies", "p50", "p95"),
    [
        ([], None, None),
        ([3.0], 3.0, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 2.0, 4.0),
        ([float(i) for i in range(1, 101)], 50.0, 95.0),
    ],
)
def test_a_percentile_is_a_latency_that_so_many_calls_kept(
    latencies: list[float], p50: Any, p95: Any
) -> None:
    tally = total(tallied([row(latency=latency) for latency in latencies]))
    assert (tally.percentile(50), tally.percentile(95)) == (p50, p95)


def test_latencies_are_bounded_and_percentiles_stay_close() -> None:
    tally = total(tallied([row(latency=i / 1000) for i in range(10_000)]))
    assert len(tally.latencies) <= LATENCIES
    assert tally.requests == 10_000
    assert tally.percentile(95) == pytest.approx(9.5, abs=1.5)


# -- Ledgers


@given(st.lists(rows, max_size=40), st.integers(0, 10))
def test_sums_are_those_of_all_rows_however_few_are_kept(recorded: list[LedgerRow], limit: int) -> None:
    ledger = MemoryLedger(limit)
    for each in recorded:
        ledger.record(each)
    kept = ledger.rows()
    assert kept == sorted(recorded[max(0, len(recorded) - limit) :], key=STARTED), "the oldest first"
    found, expected = ledger.tallies(), tallied(recorded)
    assert {key: sums(tally) for key, tally in found.items()} == {k: sums(t) for k, t in expected.items()}


def test_reading_the_sums_changes_nothing() -> None:
    ledger = MemoryLedger(1)
    for _ in range(3):
        ledger.record(row())
    assert [total(ledger.tallies()).requests for _ in range(3)] == [3, 3, 3]


@pytest.mark.parametrize("kind", ["rows", "summed up", "sqlite"])
@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        (None, None, [0, 1, 2, 3]),
        (START + DAY, None, [1, 2, 3]),
        (None, START + 2 * DAY, [0, 1]),
        (START + DAY, START + 2 * DAY, [1]),
        (START + DAY, START + DAY, []),
    ],
)
def test_a_span_holds_its_start_but_not_its_end(
    tmp_path: Path, kind: str, since: datetime | None, until: datetime | None, days: list[int]
) -> None:
    sqlite = kind == "sqlite"
    ledger = SqliteLedger(tmp_path / "usage.db") if sqlite else MemoryLedger(100 if kind == "rows" else 0)
    for day in range(4):
        ledger.record(row(started=START + day * DAY))
    found = ledger.tallies(since, until)
    assert [key.day for key in found] == [(START + day * DAY).date().isoformat() for day in days]
    ledger.close()


@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        (None, None, [0, 1, 2, 3]),
        (START + DAY, None, [1, 2, 3]),
        (None, START + 2 * DAY, [0, 1]),
        (START + DAY, START.replace(tzinfo=None) + 2 * DAY, [1]),
    ],
)
def test_rows_may_be_asked_for_a_span(
    new_ledger: NewLedger, since: datetime | None, until: datetime | None, days: list[int]
) -> None:
    ledger = new_ledger()
    for day in (2, 0, 3, 1):
        ledger.record(row(started=START + day * DAY))
    assert [each.started for each in ledger.rows(since, until)] == [START + day * DAY for day in days]


def test_a_span_may_be_given_in_any_time_zone(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    ledger.record(row(started=START))
    ahead = START.astimezone(timezone(timedelta(hours=9)))
    assert len(ledger.tallies(ahead, ahead + DAY)) == 1
    naive = START.replace(tzinfo=None)
    assert len(ledger.tallies(naive, naive + DAY)) == 1, "without a zone, it is UTC"
    behind = START.astimezone(timezone(-timedelta(hours=9)))
    assert len(ledger.tallies(behind, behind + DAY)) == 1


def test_rows_are_keyed_by_what_reports_group_by() -> None:
    assert row(started=START + DAY / 2).key() == ("py", "devs", "fast", "m", "paid", "2026-01-01", "s")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_nothing_is_lost_when_many_threads_record_and_one_reads(tmp_path: Path, kind: str) -> None:
    ledger: BaseLedger = MemoryLedger(50) if kind == "memory" else SqliteLedger(tmp_path / "usage.db")
    threads, each = 8, 400 if kind == "memory" else 40
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write() -> None:
        for _ in range(each):
            ledger.record(row())

    writers = [threading.Thread(target=write) for _ in range(threads)]
    try:
        for writer in writers:
            writer.start()
        seen = [total(ledger.tallies()).attempts for _ in range(20)]
        for writer in writers:
            writer.join()
    finally:
        sys.setswitchinterval(interval)
    assert seen == sorted(seen)
    whole = total(ledger.tallies())
    assert (whole.attempts, whole.usage.input, whole.cost) == (
        threads * each,
        threads * each * 1000,
        threads * each,
    )
    ledger.close()


def test_a_forked_childs_first_report_waits_for_no_lock() -> None:
    ledger = MemoryLedger()
    with Router([OpenAIBackend("main")], ledger=ledger) as router:
        ledger._lock.acquire()  # by a thread that the child does not have
        router._process = 0
        assert "requests" in str(router.report())


def test_a_row_recorded_by_a_finaliser_during_a_report_is_kept() -> None:
    ledger = MemoryLedger(1)

    class Late(defaultdict[Key, Tally]):
        def items(self) -> ItemsView[Key, Tally]:  # type: ignore[override]
            ledger.record(row())  # as `__del__` would, in this very thread
            return super().items()

    for _ in range(3):
        ledger.record(row())
    ledger._older = Late(Tally, ledger._older)
    assert total(ledger.tallies()).requests == 4
    ledger.record(row())
    assert len(ledger.rows()) == 1


def test_rows_beyond_the_limit_are_summed_up_some_at_a_time() -> None:
    ledger = MemoryLedger(64)
    for number in range(69):
        ledger.record(row(id=str(number)))
        held = [each.id for each in ledger.rows()]
        assert held == [str(n) for n in range(number + 1)][-64:]
        assert total(ledger.tallies()).requests == number + 1
    assert len(ledger._queue) == 64


def test_rows_are_read_again_if_another_thread_recorded() -> None:
    ledger = MemoryLedger()

    class Restless(deque[LedgerRow]):
        def __iter__(self) -> Iterator[LedgerRow]:
            if len(self) < 3:
                self.append(row())
                raise RuntimeError("deque mutated during iteration")
            return super().__iter__()

    ledger._queue = Restless([row()])
    assert len(ledger.rows()) == 3


# -- Ids


@given(st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), min_size=2, max_size=10))
def test_ids_sort_by_time(moments: list[datetime]) -> None:
    moments = sorted({moment.replace(microsecond=0, tzinfo=UTC) for moment in moments})
    ids = [uuid7(moment) for moment in moments]
    assert ids == sorted(ids)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_an_id_is_a_uuid_of_version_7_with_its_millisecond(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    made = uuid.UUID(uuid7(moment))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(moment.timestamp() * 1000)


def test_ids_of_one_moment_differ() -> None:
    assert len({uuid7(START) for _ in range(1000)}) == 1000


def test_an_attempts_id_is_its_calls_with_its_number() -> None:
    call = uuid7(START)
    ids = [attempt_id(call, number) for number in (1, 2, 20)]
    assert [each[-4:] for each in (call, *ids)] == ["0000", "0001", "0002", "0014"]
    assert ids == sorted(ids)
    assert {each[:-4] for each in ids} == {call[:-4]}
    assert all(uuid.UUID(each).version == 7 for each in ids)
