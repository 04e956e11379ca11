"""The ledger in PostgreSQL.

Knows the journal and reports; `shipping` has the thread, `database` the connections.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from ccroute.accounting.ledger import span
from ccroute.accounting.row import Key, LedgerRow
from ccroute.accounting.stores.base import ALL
from ccroute.accounting.stores.opening import checked_path, split_journal
from ccroute.accounting.stores.sqlite import files
from ccroute.accounting.stores.sqlite.columns import ids
from ccroute.accounting.stores.sqlite.ledger import SqliteLedger
from ccroute.accounting.stores.sqlite.sums import sums
from ccroute.accounting.tally import USUAL_TIERS, Lengths, Tally, joined, tallied

if TYPE_CHECKING:
    from ccroute.accounting.stores.postgres.database import Database
    from ccroute.accounting.stores.sqlite.files import Snapshot


class PostgresLedger(SqliteLedger):
    """One row per attempt, in the table `ccroute_attempts` of a PostgreSQL database.

    A row is in the journal, an SQLite file, when its call returns, and survives the end of the process. A
    thread moves it to PostgreSQL about a second later. If PostgreSQL is down, rows wait in the journal; no
    call waits. Threads, processes and ledgers may share a journal.

    dsn:     the database, as a URL or as libpq's `key=value` text. libpq fills in what it leaves
             out: PGHOST, PGPASSWORD, password file, service file.
    journal: the journal's path, on a local disk that lasts; also as the URL's parameter `journal`. None: in
             the user's own folder for state.

    Connects only after the first row. Raises `ConfigError` if `dsn` is no address, if psycopg is missing, and
    for the journal as `SqliteLedger` does.
    """

    def __init__(self, dsn: str, journal: str | os.PathLike[str] | None = None) -> None:
        from ccroute.accounting.stores.postgres.database import Database, make_folder
        from ccroute.accounting.stores.postgres.shipping import Shipper

        address, named = split_journal(dsn)
        self._database = Database(address)
        given = journal if journal is not None else named
        path = _journal(given, self._database)
        if given is None:
            make_folder(path)
        self._shipper = Shipper(path, self._database)
        super().__init__(path)

    def __repr__(self) -> str:
        return f"PostgresLedger({str(self._database)!r}, journal={str(self._path)!r})"

    def __del__(self) -> None:
        if hasattr(self, "_shipper"):
            super().close()
            self._shipper.stop()  # a finaliser does not wait

    def record(self, row: LedgerRow) -> None:
        """Record one row. When this returns, the row is in the journal."""
        super().record(row)
        self._shipper.notify()

    def defer(self, row: LedgerRow) -> None:
        """Record one row without waiting."""
        super().defer(row)
        self._shipper.notify(start=False)

    def close(self) -> None:
        """Ship what can be shipped within some seconds, and close the journal, which keeps the rest."""
        super().close()
        self._shipper.close()

    def after_fork(self) -> None:
        """In a forked child: replace the lock, and the thread, which runs only in the parent."""
        super().after_fork()
        if self._shipper.process != os.getpid():
            self._shipper = self._shipper.after_fork()

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        """The rows started in [since, until), oldest first: those in the journal and those in PostgreSQL.

        Raises `ConfigError` if PostgreSQL cannot be read.
        """
        from ccroute.accounting.stores.postgres import schema

        held = super().rows(since, until)  # first, so that a row that is shipped in between is not missed
        known = {row.id for row in held}
        with self._database.reading() as connection:
            stored = schema.rows(connection, *span(since, until))
        return sorted(
            [*held, *(row for row in stored if row.id not in known)], key=attrgetter("started", "id")
        )

    def tallies(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        by: Sequence[str] = ALL,
        *,
        tiers: Sequence[Lengths] = USUAL_TIERS,
    ) -> dict[Key, Tally]:
        """Sums over the rows started in [since, until), in the journal and in PostgreSQL, each row once.

        Raises `ConfigError` if PostgreSQL cannot be read.
        """
        with self._snapshot() as (snapshot, waiting):
            held = _Held(snapshot, waiting, *span(since, until), by, tiers)
        return held.with_those_in(self._database)


class _Held:
    """Sums over the rows that PostgreSQL may not have yet. They are read before PostgreSQL, so that a row
    that is shipped in between is not missed."""

    def __init__(
        self,
        snapshot: Snapshot | None,
        waiting: Iterable[LedgerRow],
        start: datetime,
        end: datetime,
        by: Sequence[str],
        tiers: Sequence[Lengths],
    ) -> None:
        self._what = start, end, by, tiers
        rows = [row for row in waiting if start <= row.started < end]
        self._sums, self._ids = tallied(rows, by, tiers), [row.id for row in rows]
        if snapshot is not None:
            self._sums = joined(self._sums, sums(snapshot, start, end, by, tiers))
            self._ids += ids(snapshot.first, start, end)

    def with_those_in(self, database: Database) -> dict[Key, Tally]:
        """The sums over all rows."""
        from ccroute.accounting.stores.postgres import schema

        with database.reading() as connection:
            return joined(self._sums, schema.sums(connection, *self._what, self._ids))


def read_sums(
    dsn: str, since: datetime | None, until: datetime | None, by: Sequence[str], *, tiers: Sequence[Lengths]
) -> dict[Key, Tally]:
    """The sums of a ledger that this program does not write: of the journal, where there is one, and of
    PostgreSQL. Raises `ConfigError` if either cannot be read."""
    from ccroute.accounting.stores.postgres.database import Database

    address, named = split_journal(dsn)
    database = Database(address)
    path = _journal(named, database)
    with files.open_for_reading(path) if path.exists() else contextlib.nullcontext() as snapshot:
        held = _Held(snapshot, (), *span(since, until), by, tiers)
    return held.with_those_in(database)


def _journal(given: str | os.PathLike[str] | None, database: Database) -> Path:
    return database.usual_journal() if given is None else Path(checked_path(given)).absolute()
