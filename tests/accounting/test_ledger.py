"""Both ledgers: their rows and sums. The one in memory forgets rows but no sum. Ids sort by time."""

from __future__ import annotations

import importlib
import re
import sys
import threading
import uuid
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, ItemsView, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.accounting.support import DAY, START, row, rows

from ccroute import OpenAIBackend, Router
from ccroute.accounting import BaseLedger, LedgerRow, MemoryLedger, SqliteLedger
from ccroute.accounting.ledger import attempt_id, uuid7
from ccroute.accounting.row import Key, keys_of
from ccroute.accounting.tally import LATENCIES, USUAL_TIERS, Lengths, Tally, TokenCounts, merged, tiers_of
from ccroute.types import Usage

NewLedger = Callable[[], BaseLedger]
SUMS = [name for name in Tally.__slots__ if name not in {"latencies", "rounded"}]
STARTED = attrgetter("started")


def sums(tally: Tally) -> dict[str, Any]:
    """The sums that a tally holds, and how many latencies."""
    count = len(tally.latencies) + sum(tally.rounded.values())
    return {name: getattr(tally, name) for name in SUMS} | {"latencies": count}


def total(tallies: Mapping[Key, Tally]) -> Tally:
    return merged(list(tallies.values()))


def tallied(recorded: list[LedgerRow]) -> dict[Key, Tally]:
    added = defaultdict[Key, Tally](Tally)
    for each in recorded:
        added[each.key()].add(each)
    return added


def without_sessions(tallies: Mapping[Key, Tally]) -> dict[Key, list[Tally]]:
    found = defaultdict[Key, list[Tally]](list)
    for key, tally in tallies.items():
        found[key._replace(session=None)].append(tally)
    return found


# -- Tallies


@given(st.lists(rows, max_size=30), st.integers(1, 4))
def test_merging_tallies_is_adding_all_their_rows(recorded: list[LedgerRow], parts: int) -> None:
    each = [total(tallied(recorded[i::parts])) for i in range(parts)]
    whole = total(tallied(recorded))
    assert sums(merged(each)) == sums(whole)
    assert merged(each).percentiles(50, 95) == whole.percentiles(50, 95)
    for half in each[::2]:
        half.condense()
    assert sums(merged(each)) == sums(whole)


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
        ({"usage": Usage(input=9, estimated=True)}, {"estimated": 1, "estimated_cost": 1}),
        ({"usage": Usage(estimated=True), "cost": None}, {"estimated": 1, "estimated_cost": 0}),
    ],
)
def test_a_row_counts_for_what_it_is(facts: dict[str, Any], counted: dict[str, Any]) -> None:
    tally = total(tallied([row(**facts)]))
    assert {name: getattr(tally, name) for name in counted} == counted


def test_tokens_of_unknown_price_are_not_among_the_known() -> None:
    tally = total(tallied([row(), row(cost=None)]))
    assert tally.usage.input == 2000
    one = TokenCounts(input=1000, output=100)
    assert tally.tokens == {USUAL_TIERS[0]: one, None: one}
    assert (one.total_tokens, tally.usage.total_tokens) == (1100, 2200)


def test_known_tokens_are_kept_by_prompt_length() -> None:
    at_1000 = tiers_of([1000])
    assert at_1000 == (Lengths(0, 1000), Lengths(1001, sys.maxsize))
    prompts = [
        Usage(input=1000),
        Usage(input=1, cache_read=1000),
        Usage(cache_write_1h=2000),
        Usage(output=5),
        Usage(reasoning=10**30, output=10**30, input=10**30),
    ]
    tally = Tally()
    for usage in prompts:
        tally.add(row(usage=usage), at_1000)
    assert tally.tokens == {
        at_1000[0]: TokenCounts(input=1000, output=5),
        at_1000[1]: TokenCounts(10**30 + 1, 1000, 0, 2000, 10**30, 10**30),
    }


def test_the_usual_tiers_are_where_known_prices_change() -> None:
    providers = importlib.import_module("genai_prices.data").providers
    limits = set(map(int, re.findall(r"Tier\(start=(\d+)", repr(providers))))
    assert len(limits) > 5
    assert limits <= {each.longest for each in USUAL_TIERS}


def test_only_answers_have_a_latency() -> None:
    tally = total(tallied([row(latency=2.0), row(outcome="failed", latency=9.0), row(latency=None)]))
    assert list(tally.latencies) == [2_000_000]


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
    assert tally.percentiles(50, 95) == [p50, p95]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.integers(0, 50))
def test_condensed_latencies_are_right_to_one_percent(latencies: list[int], condensed: int) -> None:
    exact, close = Tally(latencies=array("q", latencies)), Tally(latencies=array("q", latencies[:condensed]))
    close.condense()
    close.latencies.extend(latencies[condensed:])
    assert close.percentiles(50, 95) == pytest.approx(exact.percentiles(50, 95), rel=0.0101, abs=2e-6)


@pytest.mark.parametrize("spread", [1, 10, 10**7])
@pytest.mark.parametrize("order", ["mixed", "sorted", "mostly the same"])
def test_percentiles_of_many_latencies_are_exact(spread: int, order: str) -> None:
    chance = Random(spread)
    latencies = [chance.randrange(spread) for _ in range(30_000)]
    if order == "sorted":
        latencies.sort()
    if order == "mostly the same":
        latencies[5::7] = [5] * len(latencies[5::7])
        latencies[1000:25_000] = [spread // 2] * 24_000
    expected = [sorted(latencies)[number - 1] / 1e6 for number in (300, 15_000, 28_500, 30_000)]
    assert Tally(latencies=array("q", latencies)).percentiles(1, 50, 95, 100) == expected


def test_a_tally_keeps_a_bounded_number_of_latencies() -> None:
    tally = Tally(latencies=array("q", [1_000_000]) * LATENCIES)
    tally.add(row(latency=2.0))
    assert (len(tally.latencies), sorted(tally.rounded.values())) == (0, [1, LATENCIES])
    assert tally.percentiles(95) == [pytest.approx(1, rel=0.01)]


# -- Ledgers


@given(st.lists(rows, max_size=40), st.integers(0, 10))
def test_sums_are_those_of_all_rows_however_few_are_kept(recorded: list[LedgerRow], limit: int) -> None:
    ledger = MemoryLedger(limit)
    for each in recorded:
        ledger.record(each)
    kept = ledger.rows()
    older = max(0, len(recorded) - limit)
    assert kept == sorted(recorded[older:], key=STARTED), "the oldest first"
    found = ledger.tallies()
    expected = tallied([each._replace(session=None) for each in recorded[:older]] + recorded[older:])
    assert {key: sums(tally) for key, tally in found.items()} == {k: sums(t) for k, t in expected.items()}
    for close, exact in zip(*(total(each).percentiles(50, 95) for each in (found, expected)), strict=True):
        is_exact = older == 0 or exact is None
        assert close == (exact if is_exact else pytest.approx(exact, rel=0.0101, abs=2e-6))


def test_sessions_without_end_leave_no_sum_each() -> None:
    ledger = MemoryLedger(10)
    for number in range(1000):
        ledger.record(row(session=f"session-{number}", metadata={"kept": "with its row"}))
    found = ledger.tallies()
    assert len(found) == 11
    assert found[row(session=None).key()].requests == 990


def test_the_number_of_old_sums_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.accounting.stores.memory.MOST_SUMS", 30)
    ledger, recorded = MemoryLedger(0), []
    for number in range(900):
        one = row(started=START + number * DAY, agent=f"agent-{number % 2}", latency=number + 1.0)
        recorded.append(one)
        ledger.record(one)
    found = ledger.tallies()
    assert sums(total(found)) == sums(total(tallied(recorded)))
    assert total(found).percentiles(95) == [pytest.approx(855, rel=0.01)]
    lengths = Counter(len(key.day) for key in found)
    assert lengths == {len("2026-01-01"): 30, len("2026-01"): 30, len("2026"): 4}, "the latest are the finest"
    by_agent = ledger.tallies(by=["agent"])
    assert {key.agent: tally.requests for key, tally in by_agent.items()} == {"agent-0": 450, "agent-1": 450}
    assert total(ledger.tallies(None, START + 365 * DAY)).requests == 365
    assert ledger.tallies(by=["day"])[keys_of(["day"])(["2026"])].requests == 365
    assert total(ledger.tallies(START + 5 * DAY, START + 6 * DAY)).requests == 365, "a part of its year"
    assert not ledger.tallies(START - DAY, START)


def test_names_without_end_are_summed_up_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.accounting.stores.memory.MOST_SUMS", 5)
    ledger = MemoryLedger(0)
    for number in range(100):
        ledger.record(row(agent=f"agent-{number}"))
    found = ledger.tallies()
    assert len(found) == 16
    assert total(found).requests == 100
    assert found[keys_of(["day"])(["2026"])].requests == 85


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

    class Late(OrderedDict[Key, Tally]):
        def items(self) -> ItemsView[Key, Tally]:  # type: ignore[override]
            ledger.record(row())  # as `__del__` would, in this very thread
            return super().items()

    for _ in range(3):
        ledger.record(row())
    ledger._older[0] = Late(ledger._older[0])
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
