"""Rows and sums: what PostgreSQL has and what is still in the journal, each row once."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.accounting.postgres.conftest import Place
from tests.accounting.postgres.test_shipping import locked
from tests.accounting.support import DAY, EXACT_COSTS, ROWS, START, naive_report, row
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

from ccroute import Model, OpenAIBackend, Price, Report, Router
from ccroute.accounting import LedgerRow, PostgresLedger
from ccroute.accounting.stores.postgres import shipping
from ccroute.accounting.stores.postgres.ledger import read_sums
from ccroute.accounting.stores.postgres.shipping import Shipper
from ccroute.cli import main
from ccroute.errors import ConfigError


def without_nul(row: LedgerRow) -> LedgerRow:
    """What PostgreSQL can hold as it is."""
    texts = {k: v.replace("\0", "\\u0000") for k, v in row._asdict().items() if isinstance(v, str)}
    return row._replace(
        **texts, metadata=json.loads(json.dumps(row.metadata).replace("\\u0000", "\\\\u0000"))
    )


GROUPS: list[Any] = ["agent", "group", "alias", "model", "backend", "day", "session"]
PLACES = ["shipped", "shipped and in the journal", "in the journal"]


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread ships; `_ship` does."""
    monkeypatch.setattr(Shipper, "_start", lambda shipper: None)


@settings(
    max_examples=25,
    phases=[Phase.generate],  # smaller examples would take minutes: each asks a server
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), ROWS.map(without_nul)), max_size=10),
    st.lists(st.sampled_from(GROUPS), max_size=2, unique=True).map(tuple),
)
@pytest.mark.usefixtures("by_hand")
def test_rows_and_reports_are_those_of_memory_wherever_a_row_is(
    place: Place, recorded: list[tuple[str, LedgerRow]], by: Any
) -> None:
    place.execute("DROP TABLE IF EXISTS ccroute_attempts, ccroute_migrations")
    place.journal.unlink(missing_ok=True)
    ledger = PostgresLedger(place.url, place.journal)
    shipper = ledger._shipper
    for where in PLACES:
        for each in (each for at, each in recorded if at == where):
            ledger.record(each)
        if where != "in the journal":
            shipper._remove = shipper._remove if where == "shipped" else lambda rows: None  # type: ignore[method-assign]  # a fake for this test
            shipper._ship()
            assert not shipper._failures
    ledger.close()
    shipper._disconnect()
    assert ledger.rows() == sorted((each for _, each in recorded), key=attrgetter("started", "id"))
    since, price = START + DAY / 2, Price(15, 75, cache_read="1.5", above={1000: Price(30, 150)})
    for bound in (None, since):
        counted = [each for _, each in recorded if bound is None or each.started >= bound]
        expected, [total] = naive_report(counted, by, price), naive_report(counted, (), price)
        for read in (ledger.tallies, partial(read_sums, address(place))):
            found = Report.of(read, by, bound, None, price)
            assert found.total == total
            assert len(found) == len(expected)
            assert all(line in found for line in expected)


def address(place: Place) -> str:
    return f"{place.url}&journal={place.journal}"


@pytest.mark.parametrize("costs", EXACT_COSTS)
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
