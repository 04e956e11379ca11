"""The thread that brings the rows of a journal to PostgreSQL, once each.

A row leaves the journal after PostgreSQL has it. If the process dies in between, the row is sent again, and
PostgreSQL leaves the one it has as it is. No call waits for any of this.

Knows when to ship and what to do after an error; `schema` has the statements.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias

from psycopg import DataError, IntegrityError, OperationalError, errors

from ccroute.accounting.stores.base import log
from ccroute.accounting.stores.postgres import schema
from ccroute.accounting.stores.postgres.database import Connection, Database, reason
from ccroute.accounting.stores.sqlite import files
from ccroute.accounting.stores.sqlite.ledger import WAIT
from ccroute.accounting.stores.sqlite.tables import SHIP
from ccroute.errors import ConfigError
from ccroute.types.locks import lock_tries

LINGER: Final = 1.0
"""Seconds after a row in which others may join it."""
BATCH: Final = 1000
"""Rows that are sent at once, and removed from the journal at once: a call may wait some ms for that."""
IDLE: Final = 30.0
"""Seconds without a row after which the connection is closed."""
LONGEST_PAUSE: Final = 60.0
"""Seconds between two tries, at most, while PostgreSQL is down."""
CLOSE: Final = 5.0
"""Seconds that `close` waits at most."""

_BUSY: Final = 0.02
"""Seconds between two looks, in a thread that has to end, whether another process still ships."""
_OLDEST: Final = "SELECT * FROM attempts ORDER BY started_ns LIMIT ?"
_REMOVE: Final = "DELETE FROM attempts WHERE started_ns = ? AND id = ?"
_Row: TypeAlias = tuple[Any, ...]


class _Found(Enum):
    ALL = "nothing is left in the journal"
    MORE = "something may be left"
    BUSY = "another process ships from this journal"


class Shipper:
    """Ships what is in `journal` to `database`, from the first `notify` until `close`."""

    def __init__(self, journal: Path, database: Database) -> None:
        self.process = os.getpid()
        self._journal = journal
        self._database = database
        digest = hashlib.sha256(f"{platform.node()}:{journal}".encode()).digest()
        self._number = int.from_bytes(digest[:8], signed=True)  # the journal's, for an advisory lock
        self._starting = threading.Lock()
        self._tries = lock_tries(self._starting)
        self._thread: threading.Thread | None = None
        self._wakes = queue.SimpleQueue[None]()  # its `put` never waits, so a finaliser may call it
        self._notified = False  # the thread knows that there may be rows to ship
        self._closing = False
        self._until = float("inf")  # when the last try ends
        self._connection: Connection | None = None
        self._refused = set[tuple[int, str]]()
        self._most = BATCH  # rows in a batch: fewer after failures, because time or size may be limited
        self._failures = 0  # since the last success
        self._outage: type[BaseException] | None = None  # the kind of error that was logged last

    def notify(self, *, start: bool = True) -> None:
        """Tell the thread that there are rows in the journal. `start`: start the thread if there is none
        yet."""
        if self._notified or self._closing:
            return
        if self._thread is None and start:
            self._start()
        if self._thread is not None:
            self._notified = True
            self._wakes.put(None)

    def stop(self) -> None:
        """Let the thread ship what is in the journal, and then end. Does not wait for that."""
        self._until = time.monotonic() + CLOSE
        self._closing = True
        self._wakes.put(None)

    def close(self) -> None:
        """Ship what can be shipped within `CLOSE` seconds, and end. The rest stays in the journal."""
        if self._closing:
            return
        self.stop()
        if self._thread is not None:
            self._thread.join(CLOSE)
            if self._notified or self._thread.is_alive():
                log.warning(
                    "ledger: rows for %s wait in %s until the next start", self._database, self._journal
                )

    def after_fork(self) -> Shipper:
        """A new shipper for a forked child. The parent's connection is abandoned, and nothing is sent over
        it."""
        if self._connection is not None and not self._connection.closed:
            with open(os.devnull, "rb") as nothing:
                os.dup2(nothing.fileno(), self._connection.fileno())
            # Never freed: at the fork, a thread of the parent may have been using it.
            _left.append(self._connection)
        return Shipper(self._journal, self._database)

    def _start(self) -> None:
        for _ in self._tries():
            try:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="ccroute-ledger", daemon=True)
                    with contextlib.suppress(RuntimeError):  # the program ends
                        thread.start()
                        self._thread = thread
            finally:
                self._starting.release()
            return

    def _run(self) -> None:
        try:
            while not self._closing:
                self._wait()
                if self._notified:
                    self._ship()
            if self._notified and not self._failures:  # the rows that came while it shipped
                self._ship()
        finally:
            self._disconnect()

    def _wait(self) -> None:
        """Wait for a row, and then for others that can be sent with it. After a failure, wait until the next
        try."""
        if not self._notified:
            try:
                self._wakes.get(timeout=IDLE)
            except queue.Empty:
                self._disconnect()
                self._wakes.get()
        pause = min(LINGER * 2 ** min(self._failures, 10), LONGEST_PAUSE)
        if not self._closing:
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=pause * random.uniform(0.5, 1) if self._failures else pause)

    def _ship(self) -> None:
        """Ship all that is in the journal. Errors are only logged."""
        self._notified, reused = False, self._connection is not None
        try:
            try:
                self._ship_all()
            except OperationalError:
                if not reused:
                    raise
                self._disconnect()  # the server may have been restarted since
                self._ship_all()
        except Exception as error:
            self._failed(error)
        else:
            if self._outage is not None:
                log.info("ledger: %s has all rows again", self._database)
            self._outage = None

    def _failed(self, error: Exception) -> None:
        self._notified = True
        self._disconnect()
        self._failures += 1
        kind = OperationalError if isinstance(error, OperationalError) else type(error)
        # If rows were refused, smaller batches do not help: others after them may be accepted.
        self._most = max(1, self._most // 2) if kind is OperationalError else BATCH
        if kind is not self._outage:
            self._outage = kind
            why = error if isinstance(error, ConfigError) else reason(error)
            log.error("ledger: rows for %s wait in %s: %s", self._database, self._journal, why)

    def _ship_all(self) -> None:
        while True:
            try:
                found = self._ship_batch(_insert)
            except (DataError, IntegrityError):
                found = self._ship_batch(self._insert_each)
            if found is _Found.ALL:
                return
            self._notified = time.monotonic() > self._until or (found is _Found.BUSY and not self._closing)
            if self._notified:
                return
            if found is _Found.BUSY:
                time.sleep(_BUSY)

    def _ship_batch(self, insert: Callable[[Connection, list[_Row]], list[_Row]]) -> _Found:
        connection = self._connected()
        with connection.transaction():
            [(is_free, *_)] = connection.execute(schema.LOCK, [self._number])
            if not is_free:
                return _Found.BUSY
            rows = self._oldest()
            stored = insert(connection, rows) if rows else []
        self._remove(stored)
        is_all = len(rows) < self._most
        self._failures, self._most = 0, min(2 * self._most, BATCH)
        return _Found.ALL if is_all else _Found.MORE

    def _insert_each(self, connection: Connection, rows: list[_Row]) -> list[_Row]:
        """Insert rows one by one, and return those that could be. If none could, raises the last one's error:
        then the table is at fault, and not a row."""
        stored, refused, failed = list[_Row](), list[_Row](), None
        for row in rows:
            try:
                with connection.transaction():
                    connection.execute(schema.INSERT, [schema.as_json([schema.cleaned(row)])])
                stored.append(row)
            except (DataError, IntegrityError) as error:
                refused.append(row)
                failed = error
        if failed is not None:
            if not stored:
                raise failed
            self._refused.update(map(_key, refused))
            why = reason(failed)
            log.error("ledger: %d rows stay in %s: %s", len(refused), self._journal, why)
        return stored

    def _oldest(self) -> list[_Row]:
        with self._opened() as journal:
            found = journal.execute(_OLDEST, [self._most + len(self._refused)]).fetchall()
        return [row for row in found if _key(row) not in self._refused] if self._refused else found

    def _remove(self, rows: Sequence[_Row]) -> None:
        if rows:
            with self._opened() as journal:
                journal.execute("BEGIN IMMEDIATE")
                journal.executemany(SHIP, map(_key, rows))
                journal.executemany(_REMOVE, map(_key, rows))
                journal.execute("COMMIT")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The journal. It is open only for a moment, because it may not be while the process forks."""
        with files.reads, contextlib.closing(files.open_for_writing(self._journal, WAIT)) as journal:
            yield journal

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
            try:
                schema.prepare(self._connection)
            except errors.InsufficientPrivilege as error:
                raise ConfigError(
                    f"the role may not make or change the table ({reason(error)}); let its owner run this:\n"
                    f"{schema.script(self._connection)}"
                ) from error
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_left: list[Connection] = []


def _key(row: _Row) -> tuple[int, str]:
    _, id, *_, started_ns = row
    return started_ns, id


def _insert(connection: Connection, rows: list[_Row]) -> list[_Row]:
    connection.execute(schema.INSERT, [schema.as_json(rows)])
    return rows
