"""Rows and sums: what PostgreSQL has and what is still in the journal, each row once."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
from datetime import timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.accounting.postgres.conftest import Place
from tests.accounting.postgres.test_shipping import locked
from tests.accounting.support import DAY, START, row
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

from ccroute import Model, OpenAIBackend, Price, Report, Router
from ccroute.accounting import LedgerRow, MemoryLedger, PostgresLedger
from ccroute.accounting.stores.postgres import shipping
from ccroute.accounting.stores.postgres.ledger import read_sums
from ccroute.accounting.stores.postgres.shipping import Shipper
from ccroute.accounting.tally import USUAL_TIERS
from ccroute.cli import main
from ccroute.errors import ConfigError
from ccroute.types import FailureClass, Usage

NAMES = st.none() | st.sampled_from(["py", "", "it's", 'a"b', "üß", "\\u0000"])
MONEY = st.none() | st.decimals(0, 10**6, places=6) | st.decimals(0, 1, places=15)
ROWS = st.builds(
    row,
    started=st.integers(0, 5 * 86_400_000_000).map(lambda after: START + timedelta(microseconds=after)),
    agent=NAMES,
    group=NAMES,
    session=NAMES,
    requested_model=NAMES,
    alias=st.sampled_from(["fast", ""]),
    outcome=st.sampled_from(["ok", "failed", "cancelled", "interrupted"]),
    failure=st.none() | st.sampled_from(FailureClass),
    status=st.none() | st.integers(100, 599),
    usage=st.builds(
        Usage,
        input=st.integers(0, 3000) | st.integers(0, 10**12),
        cache_read=st.just(0) | st.integers(0, 10**9),
        cache_write_5m=st.just(0) | st.integers(0, 10**9),
        cache_write_1h=st.just(0) | st.integers(0, 10**9),
        output=st.integers(0, 2) | st.integers(0, 10**9),
        reasoning=st.integers(0, 2),
        estimated=st.booleans(),
    ),
    cost=MONEY,
    overridden=st.booleans(),
    fallback=st.booleans(),
    duration=st.floats(0, 1e4),
    first_content=st.none() | st.floats(0, 100),
    final=st.booleans(),
    cached=st.booleans(),
    latency=st.none() | st.floats(0, 1e4),
    override_saved=MONEY.map(lambda saved: None if saved is None else -saved),
    metadata=st.dictionaries(st.sampled_from("abü"), st.integers() | st.text("x'\"\\ü"), max_size=2),
    price_source=NAMES,
    queue=st.floats(0, 10),
    load=st.none() | st.floats(0, 10),
    version=NAMES,
)
GROUPS: list[Any] = ["agent", "group", "alias", "model", "backend", "day", "session"]
PLACES = ["shipped", "shipped and in the journal", "in the journal"]


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread ships; `_ship` does."""
    monkeypatch.setattr(Shipper, "_start", lambda shipper: None)


def repr_of(line: Any) -> str:
    """A report's line as text: amounts without the zeros at their end."""
    return repr({k: v.normalize() if isinstance(v, Decimal) else v for k, v in line.items()})


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), ROWS), max_size=10),
    st.lists(st.sampled_from(GROUPS), max_size=2, unique=True).map(tuple),
)
@pytest.mark.usefixtures("by_hand")
def test_rows_and_reports_are_those_of_memory_wherever_a_row_is(
    place: Place, recorded: list[tuple[str, LedgerRow]], by: Any
) -> None:
    place.execute("DROP TABLE IF EXISTS ccroute_attempts, ccroute_migrations")
    place.journal.unlink(missing_ok=True)
    ledger, memory = PostgresLedger(place.url, place.journal), MemoryLedger()
    shipper = ledger._shipper
    for where in PLACES:
        for each in (each for at, each in recorded if at == where):
            ledger.record(each)
            memory.record(each)
        if where != "in the journal":
            shipper._remove = shipper._remove if where == "shipped" else lambda rows: None  # type: ignore[method-assign]
            shipper._ship()
            assert not shipper._failures
    ledger.close()
    shipper._disconnect()
    assert ledger.rows() == sorted(memory.rows(), key=attrgetter("started", "id"))
    since, price = START + DAY / 2, Price(15, 75, cache_read="1.5", above={1000: Price(30, 150)})
    for bound in (None, since):
        expected = Report(memory.tallies(bound, by=by), by, baseline=price)
        for sums in (
            ledger.tallies(bound, by=by),
            read_sums(address(place), bound, None, by, tiers=USUAL_TIERS),
        ):
            found = Report(sums, by, baseline=price)
            assert found.total == expected.total
            assert sorted(map(repr_of, found)) == sorted(map(repr_of, expected))


def address(place: Place) -> str:
    return f"{place.url}&journal={place.journal}"


@pytest.mark.parametrize(
    "costs",
    [
        ["0.1", "0.2"],
        ["0.000000000001", "12345678.9"],
        ["0.0000000000001", "1", "0.0000000000002", "-3"],
        ["9000000", "9000000", "9000000.000000000001"],  # more than SQLite's whole numbers hold
        ["99999999999", "0.5"],
    ],
)
def test_amounts_are_exact_in_rows_and_sums(place: Place, costs: list[str]) -> None:
    amounts = list(map(Decimal, costs))
    ledger = place.ledger()
    for amount in amounts:
        ledger.record(row(cost=amount, overridden=True, override_saved=-amount))
    ledger.close()
    assert place.execute("SELECT sum(cost) FROM ccroute_attempts") == [(sum(amounts),)]
    assert sorted(each.cost for each in ledger.rows() if each.cost is not None) == sorted(amounts)
    report = Report.from_ledger(address(place), ())
    assert report.total["cost"] == sum(amounts)
    assert report.total["override_saved"] == -sum(amounts)


def test_an_amount_comes_back_without_needless_zeros(place: Place) -> None:
    ledger = place.ledger()
    for amount in ("0.50", "100", "0"):
        ledger.record(row(cost=Decimal(amount)))
    ledger.close()
    assert [str(each.cost) for each in ledger.rows()] == ["0.5", "100", "0"]
    assert place.execute("SELECT cost::text FROM ccroute_attempts ORDER BY id") == [
        ("0.5",),
        ("100",),
        ("0",),
    ]


def test_a_report_counts_each_row_once_while_rows_are_shipped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "BATCH", 5)
    monkeypatch.setattr(shipping, "LINGER", 0)
    ledger, stop, recorded = place.ledger(), threading.Event(), 0

    def write() -> None:
        nonlocal recorded
        while not stop.wait(0.0005):
            ledger.record(row())
            recorded += 1

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(30):
        before = recorded
        attempts = Report(ledger.tallies(by=()), ()).total["attempts"]
        assert before <= attempts <= recorded + 1
    stop.set()
    writer.join()
    assert len(ledger.rows()) == len({each.id for each in ledger.rows()}) == recorded


def test_rows_that_wait_for_the_journal_count_too(place: Place) -> None:
    ledger = place.ledger()
    ledger.record(row(id="a"))
    with locked(place.journal):
        with pytest.raises(sqlite3.OperationalError):
            ledger.record(row(id="b"))
        assert sorted(each.id for each in ledger.rows()) == ["a", "b"]
        assert Report(ledger.tallies(by=()), ()).total["attempts"] == 2
        assert ledger.tallies(START + DAY) == {}


# -- Routers and the command line


def test_a_router_reports_what_all_of_them_wrote(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server:
        backend = OpenAIBackend("main", base_url=server.url, models={"m": Model(price=Price(1, 1))})
        for number in range(2):
            url = f"{place.url}&journal={place.folder}/{number}.db"
            with Router([backend], default_model="main/m", ledger=url) as router:
                reply = router.complete("hi", session="s")
                assert router.rows()[-1].cost == reply.cost
                assert router.report(by="session")[0]["requests"] == number + 1
            assert router.report(by=()).total["requests"] == number + 1
    assert reply.cost
    assert Report.from_ledger(place.url, "model").total["cost"] == 2 * reply.cost
    assert main(["report", place.url, "--by", "model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["requests"] == 2


def test_a_ledger_without_a_table_is_empty(place: Place) -> None:
    assert list(Report.from_ledger(address(place))) == []
    assert (place.ledger().rows(), place.ledger().tallies()) == ([], {})
    assert place.execute("SELECT to_regclass('ccroute_attempts')") == [(None,)]
    assert list(place.folder.iterdir()) == []


def test_a_report_needs_no_home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = place.ledger()
    ledger.record(row())
    ledger.close()
    for home in ("/dev/null", "relative"):
        monkeypatch.setenv("HOME", home)
        assert Report.from_ledger(place.url, ()).total["attempts"] == 1


@pytest.mark.parametrize("stopped", [True, False])
def test_what_cannot_be_read_is_said(place: Place, stopped: bool) -> None:
    ledger = place.ledger()
    ledger.record(row())
    ledger.close()
    with contextlib.ExitStack() as stack:
        if stopped:
            stack.enter_context(place.server.stopped())
            why = f"^ledger: {re.escape(str(ledger._database))} cannot be read: connection .* failed: "
        else:
            place.execute("ALTER TABLE ccroute_attempts RENAME COLUMN cost TO price")
            why = '^ledger: .* cannot be read: column "cost.*" does not exist$'
        for ask in (ledger.rows, ledger.tallies, lambda: Report.from_ledger(place.url)):
            with pytest.raises(ConfigError, match=why):
                ask()
        assert main(["report", place.url]) == 2
