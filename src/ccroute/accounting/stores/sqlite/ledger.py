"""The ledger in an SQLite file, which several processes may share.

Knows when to write, wait and close; `files` opens the file, and `columns` makes rows of its table.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar

from ccroute.accounting.budgets import BudgetStore
from ccroute.accounting.ledger import span
from ccroute.accounting.row import Key, LedgerRow
from ccroute.accounting.stores.base import ALL, BaseLedger
from ccroute.accounting.stores.sqlite import accounts, columns, files
from ccroute.accounting.stores.sqlite.budgets import SqliteBudgets, tidy
from ccroute.accounting.stores.sqlite.sums import sums
from ccroute.accounting.tally import USUAL_TIERS, Lengths, Tally, joined, tallied
from ccroute.errors import ConfigError

T = TypeVar("T")
WAIT: Final = 0.25
"""Seconds that a call waits at most for another process that writes."""
LOOK: Final = 1.0
"""Seconds after which a writer looks again whether the file was removed."""
_LATER: Final = (sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError)
"""Errors of the file. With any other error, the row itself cannot be stored."""
_PASSING: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
"""Kinds of errors after which the same connection may work again."""


class SqliteLedger(BaseLedger):
    """One row per attempt, in the file at `path`, which is made with the first row.

    A row is in the file when its call returns, and survives the end of the process, also by `kill -9`. (If
    the whole machine crashes, the last ones may be lost.) No row is stored twice. Threads, processes and
    ledgers may share a file; it has to be on a local disk.

    Raises `ConfigError` if the file is no ledger or of a newer version, and if there is no such folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._cursor: sqlite3.Cursor | None = None  # that writes
        self._changes = deque[tuple[str, tuple[object, ...]]]()  # see `change`
        self._closed = False
        self._patient = True  # whether writers wait; False after one has waited in vain
        self._wait = WAIT  # seconds that the cursor waits
        self._identity: tuple[int, int] | None = None  # of the file that the cursor has open
        self._looked = 0.0  # when the identity was compared last
        self._path = Path(path).absolute()  # the process may change its folder
        super().__init__()
        if self._path.exists():
            with files.open_for_reading(self._path):
                pass
        elif not self._path.parent.is_dir():
            raise ConfigError(f"ledger: there is no folder {self._path.parent}")
        _ledgers.add(self)

    def __repr__(self) -> str:
        return f"SqliteLedger({str(self._path)!r})"

    def __del__(self) -> None:
        if self in _ledgers:  # else it was not made
            self.close()

    def after_fork(self) -> None:
        """Replace the lock in a forked child. The rows that wait are the parent's."""
        super().after_fork()
        self._queue.clear()
        self._taken.clear()
        self._changes.clear()

    def close(self) -> None:
        """Store the rows that wait, and close the file. A later row is still stored."""
        self._closed = True
        super().close()
        with self._unchanged():
            self.disconnect()

    def disconnect(self) -> None:
        """Close the file until the next row. The caller has the lock."""
        if self._cursor is not None:
            self._cursor.connection.close()
            self._cursor = None

    def _new_budget_store(self) -> BudgetStore:
        return SqliteBudgets(self)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        """The rows started in [since, until), oldest first."""
        start, end = span(since, until)
        with self._snapshot() as (snapshot, waiting):
            stored = [] if snapshot is None else columns.rows(snapshot.first, start, end)
        rows = [*stored, *(row for row in waiting if start <= row.started < end)]
        return sorted(rows, key=attrgetter("started", "id"))

    def tallies(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        by: Sequence[str] = ALL,
        *,
        tiers: Sequence[Lengths] = USUAL_TIERS,
    ) -> dict[Key, Tally]:
        """Sums over the rows started in [since, until), per value of `by`; other parts of keys are empty."""
        start, end = span(since, until)
        with self._snapshot() as (snapshot, waiting):
            found = {} if snapshot is None else sums(snapshot, start, end, by, tiers)
        return joined(found, tallied((row for row in waiting if start <= row.started < end), by, tiers))

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[tuple[files.Snapshot | None, list[LedgerRow]]]:
        """The file as it is now, None if it is empty, and the rows that are not in it yet."""
        with contextlib.suppress(Exception):  # rows that cannot be stored now are in `waiting`
            self.flush()
        with contextlib.ExitStack() as stack:
            snapshot = None
            stack.enter_context(files.reads)
            with self._unchanged():
                waiting = self._waiting()
                if self._path.exists():
                    snapshot = stack.enter_context(files.open_for_reading(self._path))
            yield snapshot, waiting

    def write(self, statement: Callable[[sqlite3.Cursor], T]) -> T:
        """Call `statement`, which executes one statement, after the waiting rows are stored. Returns its
        result.

        Raises the file's error; then nothing is changed.
        """
        if self._queue or self._taken:
            self.flush()
        return self._use(statement, writes=True)

    def transaction(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        """The same for several statements. Either all of them take effect, or none."""
        return self.write(partial(_in_transaction, "BEGIN IMMEDIATE", work))

    def read(self, work: Callable[[sqlite3.Cursor], T]) -> T | None:
        """Call `work`, which reads the file as it is at one moment. None if there is no file. Raises the
        file's error."""
        with contextlib.suppress(Exception):
            self.flush()
        reads = partial(_in_transaction, "BEGIN", work)
        return self._use(reads, writes=False) if self._path.exists() else None

    def change(self, statement: str, *parameters: object) -> None:
        """Execute a statement without waiting, because a finaliser may call this. If the file cannot be
        written now, the statement is executed with the next row."""
        self._changes.append((statement, parameters))
        for _ in self._tries():
            try:
                if not self._busy:
                    with self._unchanged(), contextlib.suppress(sqlite3.Error, OSError, ConfigError):
                        self._keep([], wait=False)
            finally:
                self._lock.release()
            return

    def _keep(self, rows: list[LedgerRow], *, wait: bool) -> None:
        try:
            cursor = self._ready(wait)
            if self._changes:
                self._apply_changes(cursor)
            try:
                if len(rows) == 1:
                    columns.insert(cursor, columns.values(rows[0]))
                elif rows:
                    _in_transaction("BEGIN IMMEDIATE", partial(_insert, map(columns.values, rows)), cursor)
                rows.clear()
            except Exception as error:
                if type(error) in _LATER:
                    raise
                _insert_each(cursor, rows)
            self._patient = True
        except sqlite3.Error as error:
            self._failed(error)
            raise
        finally:
            if self._closed:
                self.disconnect()

    def _use(self, work: Callable[[sqlite3.Cursor], T], *, writes: bool) -> T:
        # Not `_unchanged()`: after an interrupt in its last step, a settlement would find the ledger busy.
        with self._lock:
            before, self._busy = self._busy, True
            try:
                cursor = self._ready(wait=True)
                if writes and self._changes:
                    self._apply_changes(cursor)
                found = work(cursor)
                self._patient = True
                return found
            except sqlite3.Error as error:
                self._failed(error)
                raise
            finally:
                self._busy = before
                if self._closed:
                    self.disconnect()

    def _failed(self, error: sqlite3.Error) -> None:
        if type(error) in _LATER:
            self._patient = False
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING:
                self.disconnect()

    def _ready(self, wait: bool) -> sqlite3.Cursor:
        """The cursor that writes. `wait`: whether its statements may wait for other processes."""
        now, cursor = time.monotonic(), self._cursor
        seconds = (files.WAIT if self._closed else WAIT) if wait and self._patient else 0
        if cursor is not None and now - self._looked > LOOK:
            self._looked = now
            if self._identity != _identity(self._path):
                self.disconnect()
                cursor = None
        if cursor is None:
            connection = files.open_for_writing(self._path, seconds)
            cursor = self._cursor = connection.cursor()
            self._wait, self._identity, self._looked = seconds, _identity(self._path), now
            if accounts.has_trigger(cursor):  # perhaps only for budgets that no router has any more
                with contextlib.suppress(sqlite3.Error):
                    _in_transaction("BEGIN IMMEDIATE", tidy, cursor)
        elif self._wait != seconds:
            cursor.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
            self._wait = seconds
        if cursor.connection.in_transaction:  # left open by an interrupt
            cursor.execute("ROLLBACK")
        return cursor

    def _apply_changes(self, cursor: sqlite3.Cursor) -> None:
        while self._changes:
            cursor.execute(*self._changes[0])
            self._changes.popleft()


def _identity(path: Path) -> tuple[int, int] | None:
    """The identity of the file at `path`; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def read_sums(
    path: str, since: datetime | None, until: datetime | None, by: Sequence[str], *, tiers: Sequence[Lengths]
) -> dict[Key, Tally]:
    """As `SqliteLedger.tallies`, of a file that this program does not write. Raises `ConfigError` if it
    cannot be read."""
    start, end = span(since, until)
    with files.open_for_reading(Path(path).absolute()) as snapshot:
        return {} if snapshot is None else sums(snapshot, start, end, by, tiers)


def _in_transaction(begin: str, work: Callable[[sqlite3.Cursor], T], cursor: sqlite3.Cursor) -> T:
    """Call `work` in a transaction, and return its result."""
    try:
        cursor.execute(begin)
        found = work(cursor)
        cursor.execute("COMMIT")
        return found
    except BaseException:
        if cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")
        raise


def _insert(stored: Iterable[tuple[Any, ...]], cursor: sqlite3.Cursor) -> None:
    for each in stored:
        columns.insert(cursor, each)


def _insert_each(cursor: sqlite3.Cursor, rows: list[LedgerRow]) -> None:
    """Insert rows one by one. Those that cannot be stored are dropped; raises the last one's error."""
    failed: Exception | None = None
    while rows:
        try:
            columns.insert(cursor, columns.storable(rows[0]))
        except Exception as error:
            if type(error) in _LATER:
                raise
            failed = error
        rows.pop(0)
    if failed is not None:
        raise failed


_ledgers: weakref.WeakSet[SqliteLedger] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for ledger in list(_ledgers):
        ledger.close()


# SQLite's locks do not survive a fork, not even those of another connection to the same file
# (https://sqlite.org/howtocorrupt.html, 2.6). So every file is closed while the process forks, and each
# process opens it again.
_forking: list[SqliteLedger] = []


def _before_fork() -> None:
    files.reads.acquire()
    _forking[:] = _ledgers
    for ledger in _forking:
        ledger._lock.acquire()
        ledger.disconnect()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop()._lock.release()
    files.reads.release()


def _after_fork_in_child() -> None:
    files.reads = threading.RLock()
    while _forking:
        _forking.pop().after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
