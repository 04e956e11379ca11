"""Rows on their way from the journal to PostgreSQL: each arrives, and once."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.accounting.postgres.conftest import Place
from tests.accounting.support import DAY, START, row

from ccroute.accounting import PostgresLedger
from ccroute.accounting.stores.postgres import shipping

THREAD = "ccroute-ledger"


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def until(true: Callable[[], Any]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def journaled(path: Path) -> list[str]:
    """The ids in the journal, as another program finds them."""
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [id for (id,) in connection.execute("SELECT id FROM attempts ORDER BY id")]


# -- The usual way


def test_a_row_is_in_postgresql_soon_and_then_no_longer_in_the_journal(place: Place) -> None:
    ledger = place.ledger()
    ledger.record(row(id="a", cost=Decimal("0.000000000001"), metadata={"team": ["é", 1.5]}))
    until(lambda: not journaled(place.journal))
    assert place.execute("SELECT id, cost, started::text, metadata->'team' FROM ccroute_attempts") == [
        ("a", Decimal("0.000000000001"), "2026-01-01 00:00:00+00", ["é", 1.5])
    ]
    ledger.record(row(id="b"))
    until(lambda: not journaled(place.journal))
    assert place.ids() == ["a", "b"]


def test_nothing_is_connected_or_started_before_the_first_row(place: Place) -> None:
    before = threads()
    with place.server.stopped():
        ledger = place.ledger()
        ledger.flush()
        ledger.close()
    assert threads() == before
    assert os.listdir(place.folder) == []


def test_a_row_is_in_the_journal_when_record_returns(place: Place) -> None:
    with place.server.stopped():
        ledger = place.ledger()
        for number in range(3):
            ledger.record(row(id=str(number)))
            assert journaled(place.journal) == list(map(str, range(number + 1)))
    until(lambda: not journaled(place.journal))
    assert place.ids() == ["0", "1", "2"]


def test_what_close_could_not_ship_is_shipped_at_the_next_start(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with place.server.stopped():
        ledger = place.ledger()
        ledger.record(row(id="a"))
        ledger.close()
        ledger.record(row(id="late"))
        assert journaled(place.journal) == ["a", "late"]
    assert f"wait in {place.journal} until the next start" in caplog.text
    later = place.ledger()
    later.record(row(id="b"))
    later.close()
    assert place.ids() == ["a", "b", "late"]
    assert journaled(place.journal) == []


def test_close_ships_all_that_was_recorded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "LINGER", 60)
    monkeypatch.setattr(shipping, "BATCH", 3)
    ledger = place.ledger()
    for number in range(10):
        ledger.record(row(id=str(number)))
    ledger.close()
    assert place.ids() == list(map(str, range(10)))
    assert threads() == []


def test_close_waits_no_longer_than_it_may(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "CLOSE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        ledger = place.ledger(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/")
        ledger.record(row(id="a"))
        began = time.monotonic()
        ledger.close()
        assert 0.09 < time.monotonic() - began < 2
        assert journaled(place.journal) == ["a"]
    until(lambda: not threads())


def test_an_idle_connection_is_closed_and_made_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "IDLE", 0.05)
    ledger = place.ledger()
    sessions = "SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend'"
    for id in "ab":
        ledger.record(row(id=id))
        until(lambda: not journaled(place.journal))
        until(lambda: place.execute(sessions) == [(0,)])
    assert place.ids() == ["a", "b"]


def test_a_forgotten_ledger_ends_its_thread_and_nobody_waits(place: Place) -> None:
    ledger = PostgresLedger(place.url, place.journal)
    ledger.record(row(id="a"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del ledger
        gc.collect()
        until(lambda: not threads())
    assert place.ids() == ["a"]
    assert os.listdir(place.folder) == ["journal.db"]


def test_a_row_from_a_finaliser_starts_no_thread_and_goes_with_the_next(place: Place) -> None:
    ledger = place.ledger()
    ledger.defer(row(id="a"))
    assert (journaled(place.journal), threads()) == (["a"], [])
    ledger.record(row(id="b"))
    until(lambda: not journaled(place.journal))
    ledger.defer(row(id="c"))
    until(lambda: not journaled(place.journal))
    assert place.ids() == ["a", "b", "c"]


# -- PostgreSQL is down


def test_an_outage_is_logged_once_and_its_end(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ccroute")
    ledger = place.ledger()
    shipper = ledger._shipper
    with place.server.stopped(signal.SIGKILL):
        ledger.record(row(id="a"))
        until(lambda: shipper._failures > 3)
        assert len(caplog.records) == 1
        assert f"wait in {place.journal}: connection" in caplog.text
    until(lambda: len(caplog.records) == 2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert caplog.records[1].message.endswith("has all rows again")


def test_a_server_that_was_restarted_meanwhile_is_no_outage(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = place.ledger()
    ledger.record(row(id="a"))
    until(lambda: not journaled(place.journal))
    with place.server.stopped():
        pass
    ledger.record(row(id="b"))
    until(lambda: not journaled(place.journal))
    assert place.ids() == ["a", "b"]
    assert caplog.records == []


def test_each_row_arrives_once_while_the_server_is_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "BATCH", 20)
    ledger, stop, written = place.ledger(), threading.Event(), itertools.count()

    def write() -> None:
        while not stop.wait(0.0005):
            ledger.record(row(id=f"{next(written):06}"))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for each in writers:
        each.start()
    for how in (signal.SIGKILL, signal.SIGINT, signal.SIGQUIT):
        shipped = len(place.ids_if_any())
        until(lambda: len(place.ids_if_any()) > shipped)  # noqa: B023 - called at once
        with place.server.stopped(how):
            more = next(written) + 20
            until(lambda: next(written) > more)  # noqa: B023 - called at once
    stop.set()
    for each in writers:
        each.join()
    recorded = sorted({each.id for each in ledger.rows()})
    ledger.close()
    assert place.ids() == recorded
    assert len(recorded) > 60
    assert journaled(place.journal) == []


# -- Processes


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A program of its own, where warnings are errors."""
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", code]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=60)


KILLED = """
import os, signal, sys, time
from tests.accounting.support import DAY, START, row
from ccroute.accounting import PostgresLedger
from ccroute.accounting.stores.postgres import shipping

shipping.LINGER = 0.01
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "before the commit":
    shipping._insert = kill
else:
    shipping.Shipper._remove = kill
ledger = PostgresLedger(sys.argv[1], sys.argv[2])
for number in range(50):
    ledger.record(row(id=f"{number:02}"))
time.sleep(60)
"""


@pytest.mark.parametrize("when", ["before the commit", "between commit and removal"])
def test_a_process_killed_while_it_ships_leaves_each_row_once(place: Place, when: str) -> None:
    done = run(KILLED, place.url, place.journal, when)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert len(journaled(place.journal)) == 50
    assert len(place.ids_if_any()) == (0 if when == "before the commit" else 50)
    ledger = place.ledger()
    assert len(ledger.rows()) == 50
    ledger.record(row(id="99"))
    ledger.close()
    assert place.ids() == [*(f"{number:02}" for number in range(50)), "99"]
    assert journaled(place.journal) == []


FORKS = """
import os, sys, time
from tests.accounting.support import DAY, START, row
from ccroute.accounting import PostgresLedger
from ccroute.accounting.stores.postgres import shipping

def session():
    return shipper._connection.info.backend_pid if shipper._connection else None

shipping.LINGER = 0.01
ledger = PostgresLedger(sys.argv[1], sys.argv[2])
ledger.record(row(id="parent"))
shipper = ledger._shipper
while shipper._notified or not session():
    time.sleep(0.01)
before, child = session(), os.fork()
if child == 0:
    assert ledger._shipper is not shipper
    ledger.record(row(id="child"))
    if sys.argv[3] == "closed":
        ledger.close()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
ledger.record(row(id="parent, later"))
ledger.close()
assert before is not None and not shipper._failures
"""


@pytest.mark.parametrize("child", ["closed", "left open"])
def test_parent_and_child_have_a_thread_and_a_connection_each(place: Place, child: str) -> None:
    done = run(FORKS, place.url, place.journal, child)
    assert (done.returncode, done.stderr) == (0, "")
    assert place.ids() == ["child", "parent", "parent, later"]


ORPHAN = """
import os, sys, time
from tests.accounting.support import DAY, START, row
from ccroute.accounting import PostgresLedger
from ccroute.accounting.stores.postgres import shipping

shipping.LINGER = 0.01
ledger = PostgresLedger(sys.argv[1], sys.argv[2])
ledger.record(row(id="parent"))
while ledger._shipper._notified or not ledger._shipper._connection:
    time.sleep(0.01)
if os.fork() == 0:
    print("here", flush=True)
    time.sleep(60)
os.wait()
"""


def test_a_child_does_not_keep_a_killed_parents_session(place: Place) -> None:
    command = [sys.executable, "-c", ORPHAN, place.url, str(place.journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"here\n"
        sessions = "SELECT count(*) - 1 FROM pg_stat_activity WHERE application_name = 'ccroute'"
        assert place.execute(sessions) == [(0,)]
        parent.kill()
        until(lambda: place.execute(sessions) == [(-1,)])
        os.killpg(parent.pid, signal.SIGKILL)


def test_processes_that_share_a_journal_ship_each_row_once(place: Place) -> None:
    code = """
import sys
from tests.accounting.support import DAY, START, row
from ccroute.accounting import PostgresLedger
from ccroute.accounting.stores.postgres import shipping

shipping.LINGER, shipping.BATCH = 0.002, 10
ledger = PostgresLedger(sys.argv[1], sys.argv[2])
for number in range(100):
    ledger.record(row(id=f"{sys.argv[3]}{number:03}"))
ledger.close()
"""
    command = [sys.executable, "-W", "error", "-c", code, place.url, str(place.journal)]
    programs = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in "abc"]
    assert [each.communicate(timeout=60)[1] for each in programs] == [b""] * 3
    last = place.ledger()  # each may have left what another one was shipping
    last.record(row(id="last"))
    last.close()
    assert place.ids() == [*(f"{name}{number:03}" for name in "abc" for number in range(100)), "last"]
    assert journaled(place.journal) == []


@contextlib.contextmanager
def shipping_elsewhere(place: Place, ledger: PostgresLedger) -> Iterator[None]:
    """Another process ships from this journal, and takes its time."""
    with contextlib.closing(psycopg.connect(place.url)) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [ledger._shipper._number])
        yield


def test_while_another_process_ships_from_the_journal_a_thread_waits(place: Place) -> None:
    ledger = place.ledger()
    with shipping_elsewhere(place, ledger):
        ledger.record(row(id="a"))
        until(lambda: ledger._shipper._connection is not None)
        closing = threading.Thread(target=ledger.close)
        closing.start()
        until(lambda: ledger._shipper._closing)
        assert journaled(place.journal) == ["a"]
    closing.join()
    assert (place.ids(), journaled(place.journal)) == (["a"], [])


def test_a_close_that_waits_for_another_process_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = place.ledger()
    with shipping_elsewhere(place, ledger):
        ledger.record(row(id="a"))
        until(lambda: ledger._shipper._connection is not None)
        monkeypatch.setattr(shipping, "CLOSE", 0.05)
        ledger.close()
    assert journaled(place.journal) == ["a"]
    assert "until the next start" in caplog.text


# -- What the database does not take


def test_what_postgresql_cannot_hold_is_replaced(place: Place) -> None:
    ledger = place.ledger()
    ledger.record(row(id="a", session="nul \0", metadata={"k\0": ["\ud800", float("nan")], "n": {"b": "\0"}}))
    ledger.record(row(id="b", duration=float("inf")))
    ledger.close()
    assert place.execute("SELECT id, session, metadata, duration FROM ccroute_attempts ORDER BY id") == [
        ("a", "nul \ufffd", {"k\ufffd": ["?", "nan"], "n": {"b": "\ufffd"}}, 1.0),
        ("b", "s", {}, float("inf")),
    ]


def test_a_row_that_the_table_refuses_stays_and_stops_no_other(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = place.ledger()
    ledger.record(row(id="a"))
    until(lambda: not journaled(place.journal))
    place.execute("ALTER TABLE ccroute_attempts ADD CHECK (agent <> 'bad')")
    for id in "bcd":
        ledger.record(row(id=id, agent="bad" if id == "c" else "good"))
    until(lambda: journaled(place.journal) == ["c"])
    ledger.record(row(id="e"))
    ledger.close()
    assert place.ids() == ["a", "b", "d", "e"]
    [record] = caplog.records
    assert record.message == (
        f'ledger: 1 rows stay in {place.journal}: new row for relation "ccroute_attempts" violates check '
        'constraint "ccroute_attempts_agent_check"'
    )
    assert [each.id for each in ledger.rows()] == list("abcde")
    place.execute("ALTER TABLE ccroute_attempts DROP CONSTRAINT ccroute_attempts_agent_check")
    later = place.ledger()
    later.record(row(id="f"))
    later.close()
    assert place.ids() == list("abcdef")


def test_a_refused_row_stops_no_other_after_a_long_outage_either(place: Place) -> None:
    ledger = place.ledger()
    ledger.record(row(id="a"))
    until(lambda: not journaled(place.journal))
    place.execute("ALTER TABLE ccroute_attempts ADD CHECK (agent <> 'bad')")
    with place.server.stopped():
        for number in range(5):
            ledger.record(
                row(id=f"{number}", started=START + number * DAY, agent="py" if number > 2 else "bad")
            )
        until(lambda: ledger._shipper._most == 1)
    until(lambda: place.ids() == ["3", "4", "a"])
    ledger.close()
    assert journaled(place.journal) == ["0", "1", "2"]


def test_a_table_that_refuses_every_row_is_an_outage(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    ledger = place.ledger()
    ledger.record(row(id="a"))
    until(lambda: not journaled(place.journal))
    place.execute("ALTER TABLE ccroute_attempts ADD CONSTRAINT closed CHECK (false) NOT VALID")
    ledger.record(row(id="b"))
    until(lambda: ledger._shipper._failures > 2)
    assert len(caplog.records) == 1
    place.execute("ALTER TABLE ccroute_attempts DROP CONSTRAINT closed")
    until(lambda: not journaled(place.journal))
    assert place.ids() == ["a", "b"]


def test_a_table_that_is_locked_for_long_is_an_outage(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    url = f"{place.url}%20-clock_timeout%3D10ms"
    ledger = place.ledger(url)
    ledger.record(row(id="a"))
    until(lambda: not journaled(place.journal))
    with contextlib.closing(psycopg.connect(place.url)) as other:
        other.execute("LOCK TABLE ccroute_attempts")
        ledger.record(row(id="b"))
        until(lambda: ledger._shipper._failures > 2)
    until(lambda: not journaled(place.journal))
    assert place.ids() == ["a", "b"]
    assert caplog.text.count("canceling statement due to lock timeout") == 1


def test_a_batch_that_is_too_much_at_once_is_sent_in_parts(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "LINGER", 0.1)
    monkeypatch.setattr(shipping, "BATCH", 8)
    insert, sizes = shipping._insert, list[int]()

    def limited(connection: Any, rows: list[Any]) -> Any:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise psycopg.OperationalError("too much")
        return insert(connection, rows)

    monkeypatch.setattr(shipping, "_insert", limited)
    ledger = place.ledger()
    for number in range(9):
        ledger.record(row(id=str(number)))
    until(lambda: not journaled(place.journal))
    assert place.ids() == list(map(str, range(9)))
    assert sizes[:3] == [8, 4, 2]


def test_a_role_that_may_make_no_table_is_told_what_to_run(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    role = f'clerk "{place.schema}"'
    quoted = role.replace('"', '""')
    place.execute(f'CREATE ROLE "{quoted}" LOGIN; GRANT USAGE ON SCHEMA {place.schema} TO "{quoted}"')
    ledger = place.ledger(place.server.url(place.schema, role))
    ledger.record(row(id="a"))
    until(lambda: ledger._shipper._failures > 2)
    [record] = caplog.records
    said, _, script = record.message.partition("run this:\n")
    assert "may not make or change the table (permission denied for schema" in said
    place.execute(script)
    until(lambda: not journaled(place.journal))
    assert place.ids() == ["a"]
    assert [each.id for each in ledger.rows()] == ["a"]


def test_many_who_start_at_once_make_one_table(place: Place) -> None:
    def start(number: int) -> None:
        ledger = PostgresLedger(place.url, place.folder / f"{number}.db")
        ledger.record(row(id=str(number)))
        ledger.close()

    starting = [threading.Thread(target=start, args=[number]) for number in range(5)]
    for each in starting:
        each.start()
    for each in starting:
        each.join()
    assert place.ids() == list("01234")
    assert place.execute("SELECT version FROM ccroute_migrations") == [(1,)]


def test_the_table_has_the_columns_of_the_journal(place: Place) -> None:
    ledger = place.ledger()
    ledger.record(row())
    ledger.close()
    with contextlib.closing(sqlite3.connect(place.journal)) as connection:
        found = connection.execute("SELECT name FROM pragma_table_info('attempts') WHERE NOT pk")
        journal = {name for (name,) in found}
    table = "SELECT column_name FROM information_schema.columns WHERE table_name = 'ccroute_attempts'"
    assert {name for (name,) in place.execute(f"{table} AND table_schema = '{place.schema}'")} == journal


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes and writes."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_journal_that_is_locked_delays_only_the_removal(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shipping, "WAIT", 0.01)
    monkeypatch.setattr(shipping, "LINGER", 0.1)
    ledger = place.ledger()
    ledger.record(row(id="a"))
    with locked(place.journal):
        until(lambda: ledger._shipper._failures > 1)
        assert place.ids() == ["a"]
        assert [each.id for each in ledger.rows()] == ["a"]
    until(lambda: not journaled(place.journal))
    assert [record.message for record in caplog.records] == [
        f"ledger: rows for {ledger._database} wait in {place.journal}: database is locked"
    ]


def test_a_journal_that_somebody_removed_is_made_again(place: Place) -> None:
    ledger = place.ledger()
    with place.server.stopped():
        ledger.record(row(id="a"))
        ledger.disconnect()
        for name in os.listdir(place.folder):
            (place.folder / name).unlink()
    ledger.record(row(id="b"))
    ledger.close()
    assert place.ids() == ["b"]
