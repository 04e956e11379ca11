"""The ledger in an SQLite file: what it holds is exact, and nothing is lost or there twice."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal, localcontext
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.accounting.support import DAY, EXACT_COSTS, ROWS, START, held_by_a_thread, interrupt_at, row

from ccroute import Price, Report
from ccroute.accounting import LedgerRow, PriceBook, SqliteLedger
from ccroute.accounting.stores import base
from ccroute.accounting.stores.sqlite import columns, files, sums, tables
from ccroute.accounting.stores.sqlite import ledger as sqlite
from ccroute.errors import ConfigError
from ccroute.types import FailureClass, Usage

MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(path)
    try:
        yield ledger
    finally:
        ledger.close()


def ids(path: Path) -> list[str]:
    """The ids in the file, as another program finds them."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [id for (id,) in connection.execute("SELECT id FROM attempts ORDER BY id")]


# -- What it holds


@settings(max_examples=30)  # each has a file
@given(st.lists(ROWS, max_size=10))
def test_a_row_comes_back_as_it_was(recorded: list[LedgerRow]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "usage.db")
        with opened(path) as ledger:
            for each in recorded:
                ledger.record(each)
        with opened(path) as ledger:
            assert ledger.rows() == sorted(recorded, key=attrgetter("started", "id"))


@pytest.mark.parametrize("costs", EXACT_COSTS)
def test_amounts_are_exact_in_rows_and_sums(path: Path, costs: list[str]) -> None:
    amounts = list(map(Decimal, costs))
    with opened(path) as ledger:
        for amount in amounts:
            ledger.record(row(cost=amount, overridden=True, override_saved=-amount))
        assert sorted(each.cost for each in ledger.rows() if each.cost is not None) == sorted(amounts)
        report = Report(ledger.tallies(by=()), ())
    assert report.total["cost"] == sum(amounts)
    assert report.total["override_saved"] == -sum(amounts)


def test_an_interrupted_report_reads_no_further(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, read, parts = threading.Event(), sums._read, []

    def watched(*given: Any) -> Any:
        parts.append(given)
        began.wait(5)
        return read(*given)

    def interrupted(*_: object) -> Any:
        began.set()
        raise KeyboardInterrupt

    with opened(path) as ledger:
        for number in range(50):
            ledger.record(row(started=START + number * DAY))
        monkeypatch.setattr(sums, "_read", watched)
        monkeypatch.setattr(sums, "grouped", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.tallies()
    assert len(parts) < 10


def test_more_tokens_than_a_column_holds_are_an_error(path: Path) -> None:
    with opened(path) as ledger:
        for _ in range(2):
            ledger.record(row(usage=Usage(input=2**62)))
        assert Report(ledger.tallies(until=START), ()).total["input"] == 0
        with pytest.raises(ConfigError, match="integer overflow"):
            ledger.tallies()


def test_an_amount_comes_back_without_needless_zeros(path: Path) -> None:
    with opened(path) as ledger:
        for amount in ("0.50", "100", "0"):
            ledger.record(row(cost=Decimal(amount)))
        assert [str(each.cost) for each in ledger.rows()] == ["0.5", "100", "0"]


def test_a_users_decimal_context_changes_no_amount(path: Path) -> None:
    with localcontext(prec=3), opened(path) as ledger:
        ledger.record(row(cost=Decimal("1.23456789")))
        assert [each.cost for each in ledger.rows()] == [Decimal("1.23456789")]


def test_a_row_is_stored_once_however_often_it_is_recorded(path: Path) -> None:
    one = row()
    with opened(path) as ledger, opened(path) as other:
        for each in (ledger, other, ledger):
            each.record(one)
        assert ledger.rows() == [one]


def test_thousands_of_rows_may_start_in_one_microsecond(path: Path) -> None:
    many = [row(id=f"i{number:04}") for number in range(1500)] + [row(id="next", started=START + MICROSECOND)]
    with opened(path) as ledger:
        for each in [*many, many[-1], many[0], *many[990:1010]]:
            ledger.record(each)
        assert ledger.rows() == many
        assert Report(ledger.tallies(by=()), ()).total["attempts"] == len(many)


def test_a_failure_class_of_another_version_is_a_text(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row(failure="ambiguous"))
        ledger.record(row(failure="of_tomorrow"))
        failures = [each.failure for each in ledger.rows()]
    assert failures == [FailureClass.AMBIGUOUS, "of_tomorrow"]
    assert isinstance(failures[0], FailureClass)


def test_metadata_that_json_lacks_is_stored_as_text(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row(metadata={"where": Path("/tmp"), "n": 1}))
        assert ledger.rows()[0].metadata == {"where": "/tmp", "n": 1}


# -- The file


def test_a_row_is_in_the_file_when_record_returns(path: Path) -> None:
    with opened(path) as ledger:
        for number in range(3):
            ledger.record(row(id=str(number)))
            assert ids(path) == list(map(str, range(number + 1)))


def test_the_file_is_made_with_its_first_row_for_its_owner_only(path: Path) -> None:
    with opened(path) as ledger:
        assert (ledger.rows(), ledger.tallies()) == ([], {})
        assert not path.exists()
        ledger.record(row())
        assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["usage.db"]


def test_a_later_ledger_goes_on_with_the_file(path: Path) -> None:
    for number in range(3):
        with opened(path) as ledger:
            assert len(ledger.rows()) == number
            ledger.record(row())
    with opened(path) as ledger:
        assert ledger.tallies(by=()).popitem()[1].attempts == 3


def test_a_path_stays_where_it_was_if_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with opened(Path("usage.db")) as ledger:
        monkeypatch.chdir("elsewhere")
        ledger.record(row(id="a"))
    assert ids(tmp_path / "usage.db") == ["a"]
    assert repr(ledger) == f"SqliteLedger('{tmp_path}/usage.db')"


def other_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def newer_version(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda path: path.write_text("agents:\n  python: fast\n" * 9),
            "usage.db cannot be read: file is not a database; a ledger is the SQLite file that a router",
        ),
        (other_program, "usage.db is another program's database"),
        (newer_version, r"usage.db is of a newer version .* \(its table has version 99.*update ccroute"),
        (Path.mkdir, "usage.db cannot be read: unable to open database file"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused_and_kept(path: Path, make: Any, says: str) -> None:
    make(path)
    before = path.stat().st_size if path.is_dir() else path.read_bytes()
    for use in (SqliteLedger, Report.from_ledger):
        with pytest.raises(ConfigError, match=f"^ledger: .*{says}"):
            use(path)
    assert before == (path.stat().st_size if path.is_dir() else path.read_bytes())


def test_a_file_that_becomes_another_one_is_refused_at_the_row(path: Path) -> None:
    with opened(path) as ledger:
        other_program(path)
        with pytest.raises(ConfigError, match="another program's database"):
            ledger.record(row(id="a"))
        path.unlink()
        ledger.record(row(id="b"))
        assert ids(path) == ["a", "b"]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^ledger: there is no folder .*/missing$"):
        SqliteLedger(tmp_path / "missing" / "usage.db")


def test_an_empty_file_is_an_empty_ledger(path: Path) -> None:
    path.touch()
    assert list(Report.from_ledger(path)) == []
    with opened(path) as ledger:
        assert ledger.rows() == []
        ledger.record(row())
        assert len(ledger.rows()) == 1


def old_file(path: Path, version: int, ids: list[str]) -> None:
    """A file as an older ccroute has left it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in itertools.chain.from_iterable(tables.MIGRATIONS[:version]):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {tables.APPLICATION}")
        connection.execute(f"PRAGMA user_version = {version}")
        for id in ids:
            values = columns.values(row(id=id, version="0.4"))[: (31, 35)[version - 1]]
            connection.execute(f"INSERT INTO attempts VALUES ({', '.join('?' * len(values))})", values)
        connection.commit()


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_is_read_as_it_is(path: Path, version: int) -> None:
    old_file(path, version, ["a", "b"])
    before = path.read_bytes()
    with opened(path) as ledger:
        assert [each.id for each in ledger.rows(START, START + MICROSECOND)] == ["a", "b"]
        assert ledger.rows(START + MICROSECOND) == []
        assert Report.from_ledger(path, "day", since=START).total["cost"] == 2
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_is_brought_to_this_version_by_a_row(path: Path, version: int) -> None:
    ids = [f"i{number:04}" for number in range(1200)]
    old_file(path, version, ids)
    with opened(path) as ledger:
        ledger.record(row(id="new", started=START + MICROSECOND))
        stored = ledger.rows()
    assert [each.id for each in stored] == [*ids, "new"]
    assert {each.version for each in stored[:-1]} == {"0.4" if version > 1 else None}
    assert stored[0] == row(id="i0000", version=stored[0].version)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(tables.MIGRATIONS),)


# -- Reports without a router


def test_a_report_reads_a_file_that_others_write(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row(cost=Decimal("0.25")))
        ledger.record(row(agent="js", started=START + DAY))
        report = Report.from_ledger(path, ("agent", "day"), baseline=Price(500, 0))
        assert [(line["agent"], line["day"], line["cost"]) for line in report] == [
            ("py", "2026-01-01", Decimal("0.25")),
            ("js", "2026-01-02", 1),
        ]
        assert report.total["baseline_cost"] == 1
        assert Report.from_ledger(path, since="2026-01-02").total["attempts"] == 1
        assert Report.from_ledger(str(path), until=START + DAY).total["cost"] == Decimal("0.25")
        assert Report.from_ledger(path, (), "2027-01-01").total["attempts"] == 0


def test_a_baselines_name_has_its_price_in_prices(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row())
    prices = {"paid/big": Price(1000, 0), "small": Price(1, 0)}
    for book in (prices, PriceBook(prices)):
        assert Report.from_ledger(path, baseline="paid/big", prices=book).total["saved"] == 0
        assert Report.from_ledger(path, baseline="paid/small", prices=book).total["baseline_cost"] == Decimal(
            "0.001"
        )
    with pytest.raises(
        ConfigError, match=r'^baseline: "opus" has no price: give prices={"opus": Price\(…\)}'
    ):
        Report.from_ledger(path, baseline="opus")


def test_a_report_of_no_file_is_refused_and_makes_none(path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^ledger: there is no file {path}$"):
        Report.from_ledger(path)
    with pytest.raises(ValueError, match=r"^by= is one of agent, .* not \"agents\""):
        Report.from_ledger(path, "agents")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no mysql:// ledger"):
        Report.from_ledger("mysql://host/db")
    assert os.listdir(path.parent) == []


def test_a_report_leaves_nothing_beside_the_file(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row())
    Report.from_ledger(path)
    assert os.listdir(path.parent) == ["usage.db"]


def test_a_file_beside_which_nothing_can_be_made_is_read(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row())
    Path(f"{path}-shm").symlink_to("no/such/folder")  # cannot be made, as where nobody may write
    assert Report.from_ledger(path).total["attempts"] == 1
    Path(f"{path}-wal").write_bytes(bytes(100))
    with pytest.raises(ConfigError, match="cannot be read: unable to open database file"):
        Report.from_ledger(path)


# -- What cannot be written now


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes and writes."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file can grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("trouble", [locked, full_disk])
def test_what_cannot_be_written_waits_and_is_counted(path: Path, trouble: Any) -> None:
    with opened(path) as ledger:
        ledger.record(row(id="a"))
        with trouble(path):
            for id in ("b", "c"):
                with pytest.raises(sqlite3.OperationalError):
                    ledger.record(row(id=id))
            assert [each.id for each in ledger.rows()] == ["a", "b", "c"]
            assert (ledger.rows(START + DAY), ledger.tallies(START + DAY)) == ([], {})
            assert Report(ledger.tallies(by=()), ()).total["attempts"] == 3
            assert ids(path) == ["a"]
        ledger.record(row(id="d"))
        assert ids(path) == ["a", "b", "c", "d"]
        assert len(ledger.rows()) == 4


def test_only_the_first_row_waits_for_a_locked_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAIT", 0.05)
    with opened(path) as ledger:
        ledger.record(row())
        with locked(path):
            began = time.monotonic()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                ledger.record(row())
            assert time.monotonic() - began > 0.04
            assert ledger._wait == 0.05
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                ledger.record(row())
            assert ledger._wait == 0
        ledger.record(row())
        ledger.record(row())
        assert ledger._wait == 0.05
        assert len(ids(path)) == 5


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_file_that_is_locked_when_it_is_made_is_waited_for(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAIT", 0.02)
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection,
        opened(path) as ledger,
    ):
        connection.execute(f"BEGIN {kind}")
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                ledger.record(row())
        connection.execute("ROLLBACK")
        ledger.record(row())
    assert len(ids(path)) == 3


def test_a_file_that_somebody_broke_is_opened_again(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row(id="a"))
        ledger.close()
        ledger.record(row(id="b"))
    whole = path.read_bytes()
    with opened(path) as ledger:
        ledger.record(row(id="c"))
        for name in os.listdir(path.parent):
            (path.parent / name).write_bytes(b"broken" * 10_000)
        for _ in range(2):
            with pytest.raises(sqlite3.DatabaseError):
                ledger.record(row(id="d"))
        for name in os.listdir(path.parent):
            (path.parent / name).unlink()
        path.write_bytes(whole)
        ledger.record(row(id="e"))
        assert ids(path) == ["a", "b", "d", "e"]


def test_so_many_rows_wait_and_no_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_WAITING", 2)
    with opened(path) as ledger:
        ledger.record(row(id="a"))
        with locked(path):
            for id in "bcde":
                with pytest.raises(sqlite3.OperationalError):
                    ledger.record(row(id=id))
        ledger.flush()
    assert ids(path) == ["a", "d", "e"]


def test_rows_that_are_still_waiting_at_the_end_are_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "WAIT", 0.01)
    with opened(path) as ledger:
        ledger.record(row())
        with locked(path):
            with pytest.raises(sqlite3.OperationalError):
                ledger.record(row())
            ledger.close()
        assert [each.message for each in caplog.records] == [
            "ledger: 1 rows could not be stored: database is locked"
        ]
        ledger.close()
        assert len(ids(path)) == 2


@pytest.mark.parametrize("batch", [1, 3])
def test_a_row_that_no_column_can_hold_stops_no_other(path: Path, batch: int) -> None:
    with opened(path) as ledger:
        ledger.record(row(id="a"))
        with locked(path):
            for number in range(batch - 1):
                with pytest.raises(sqlite3.OperationalError):
                    ledger.record(row(id=f"b{number}"))
            with pytest.raises(sqlite3.OperationalError):
                ledger.record(row(id="c", session="half \ud800 a character"))
        with pytest.raises(OverflowError):
            ledger.record(row(usage=Usage(input=10**30)))
        with pytest.raises(sqlite3.IntegrityError):
            ledger.record(row(alias=None))
        assert ids(path) == ["a", *(f"b{number}" for number in range(batch - 1)), "c"]
        assert ledger.rows()[-1].session == "half ? a character"


def test_a_file_that_somebody_removed_is_made_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOOK", 0)
    with opened(path) as ledger:
        ledger.record(row(id="a"))
        for name in os.listdir(path.parent):
            (path.parent / name).unlink()
        assert ledger.rows() == []
        ledger.record(row(id="b"))
        assert ids(path) == ["b"]


def test_a_reader_stops_no_writer(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row())
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM attempts").fetchone() == (1,)
            ledger.record(row())
            assert reader.execute("SELECT count(*) FROM attempts").fetchone() == (1,)


# -- Finalisers, threads, forks, the end


def test_a_row_recorded_in_the_middle_of_a_write_is_written_with_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [row(id="b"), row(id="c")]
    values = columns.values

    def finaliser(each: LedgerRow) -> Any:
        while late:
            (ledger.record if len(late) == 2 else ledger.defer)(late.pop(0))
        return values(each)

    monkeypatch.setattr(columns, "values", finaliser)
    with opened(path) as ledger:
        ledger.record(row(id="a"))
        assert ids(path) == ["a", "b", "c"]


def test_a_row_recorded_in_the_middle_of_a_report_is_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as ledger:
        ledger.record(row(id="a"))
        opening = files.open_for_reading

        def finaliser(path: Path) -> Any:
            ledger.defer(row(id="b"))
            return opening(path)

        monkeypatch.setattr(files, "open_for_reading", finaliser)
        assert [each.id for each in ledger.rows()] == ["a"]
        monkeypatch.undo()
        assert [each.id for each in ledger.rows()] == ["a", "b"]
        assert ids(path) == ["a", "b"]


def test_a_finaliser_waits_neither_for_a_thread_nor_for_a_file(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row(id="a"))
        ledger.defer(row(id="b"))
        assert ids(path) == ["a", "b"]
        with held_by_a_thread(ledger._lock):
            ledger.defer(row(id="c"))
        with locked(path):
            began = time.monotonic()
            with pytest.raises(sqlite3.OperationalError):
                ledger.defer(row(id="d"))
            assert time.monotonic() - began < sqlite.WAIT / 2
        assert ids(path) == ["a", "b"]
    assert ids(path) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("more", [0, 2], ids=["one row, and the file is opened", "several rows"])
def test_an_interrupt_at_any_instruction_loses_no_row(path: Path, more: int) -> None:
    gc.collect()  # no finaliser of another test's ledger shall be interrupted
    ledger, root = SqliteLedger(path), str(Path(base.__file__).parent)
    k, interrupted, expected = 0, [True], set[str]()
    ledger.record(row())
    while interrupted:
        if not more:
            ledger.disconnect()
        k += 1
        ledger._queue.extend(row(id=f"{k}-{number}") for number in range(more))
        one = row(id=str(k))
        with interrupt_at(k, root) as interrupted:
            ledger.record(one)
        expected |= {f"{k}-{number}" for number in range(more)} | {each.id for each in ledger._waiting()}
        if not interrupted:
            expected.add(one.id)
        ledger.flush()
        assert expected <= set(ids(path))
        assert ledger._lock.acquire(blocking=False)
        ledger._lock.release()
    ledger.close()
    assert k > 50


def test_a_closed_ledger_stores_a_late_row_and_stays_closed(path: Path) -> None:
    ledger = SqliteLedger(path)
    ledger.record(row(id="a"))
    ledger.close()
    ledger.close()
    assert os.listdir(path.parent) == ["usage.db"]
    ledger.record(row(id="b"))
    assert os.listdir(path.parent) == ["usage.db"]
    assert [each.id for each in ledger.rows()] == ["a", "b"]


def test_a_forgotten_ledger_is_closed_without_a_warning(path: Path) -> None:
    ledger = SqliteLedger(path)
    ledger.record(row(id="a"))
    with locked(path):
        with pytest.raises(sqlite3.OperationalError):
            ledger.record(row(id="b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del ledger
        gc.collect()
    assert ids(path) == ["a", "b"]
    assert os.listdir(path.parent) == ["usage.db"]


def run(code: str, *arguments: object) -> str:
    """What a program of its own prints; warnings are errors there, too."""
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", code]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_program_that_just_ends_leaves_a_closed_file(path: Path) -> None:
    code = """
import sys
from tests.accounting.support import row
from ccroute.accounting import SqliteLedger
ledger = SqliteLedger(sys.argv[1])
cycle = [ledger]
cycle.append(cycle)
ledger.record(row(id="a"))
"""
    run(code, path)
    assert os.listdir(path.parent) == ["usage.db"]
    assert ids(path) == ["a"]


FORKS = """
import os, sqlite3, sys, threading
from tests.accounting.support import row
from ccroute import Report
from ccroute.accounting import SqliteLedger

path, ended = sys.argv[1], sys.argv[2]
ledger, stop = SqliteLedger(path), threading.Event()

def write(name, count=10**6):
    for number in range(count):
        ledger.record(row(id=f"{name}{number}"))
        if stop.is_set():
            break

def read():
    while not stop.is_set():
        assert Report(ledger.tallies(by=()), ()).total["attempts"]

ledger.record(row(id="first"))
threads = [threading.Thread(target=read, daemon=True)]
threads.append(threading.Thread(target=write, args=["thread"], daemon=True))
for thread in threads:
    thread.start()
fresh, waiting = SqliteLedger(path + ".new"), SqliteLedger(path)
waiting._queue.append(row(id="the parent's"))
children = [os.fork()]
if children[0] != 0:
    children.append(os.fork())
for number in range(100):  # all three make the file
    fresh.record(row(id=f"{os.getpid()} {number}"))
if children[-1] == 0:
    write(f"child{len(children)}-", 50)
    assert not waiting._queue, "the child would write it, too"
    assert len(ledger.rows()) >= 51
    if ended == "closed":
        ledger.close()
        fresh.close()
    (os._exit if ended == "killed" else sys.exit)(0)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
ledger.close()
waiting.close()
with sqlite3.connect(path) as connection:
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
found = [row.id for row in ledger.rows()]
for name, count in (("child1-", 50), ("child2-", 50), ("first", 1), ("the parent's", 1)):
    assert sum(id.startswith(name) for id in found) == count, name
print(len(fresh.rows()))
fresh.close()
"""


@pytest.mark.parametrize("ended", ["closed", "left open", "killed"])
def test_parent_and_children_write_to_one_file(path: Path, ended: str) -> None:
    assert run(FORKS, path, ended) == "300\n"
    assert {each for each in os.listdir(path.parent) if each.endswith("-wal")} == set()
