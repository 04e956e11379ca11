"""Opens SQLite files: makes them, checks what they are, and keeps them closed while the process forks.

Knows files and forks; must not know rows.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ccroute.accounting.stores.sqlite.tables import APPLICATION, MIGRATIONS, OLD
from ccroute.errors import ConfigError

WAIT: Final = 5.0
"""Seconds that a reader waits at most for another process."""
_PAUSE: Final = 0.005
_WHAT: Final = '; a ledger is the SQLite file that a router wrote with ledger="usage.db"'

reads = threading.RLock()
"""Held while a file is read: SQLite's files may not be open while the process forks."""


class Snapshot(NamedTuple):
    """Two connections that see the same rows, for a report that reads them in two threads."""

    first: sqlite3.Connection
    second: sqlite3.Connection


def open_for_writing(path: Path, wait: float) -> sqlite3.Connection:
    """The ledger at `path`, which is made if it is missing; only its owner can read it then.

    Waits up to `wait` seconds for other processes. Raises `ConfigError` for a file that is no ledger, and
    `sqlite3.Error` or `OSError` if it cannot be opened.
    """
    # Exclusively: closing an existing file would release the locks that SQLite has on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = _connect(path, wait)
    try:
        if _version(connection, path) < len(MIGRATIONS):
            _migrate(connection, path, wait)
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def open_for_reading(path: Path) -> Iterator[Snapshot | None]:
    """The ledger at `path`, as it is now, twice; None if the file is empty.

    Raises `ConfigError` if there is no ledger, or if it cannot be read.
    """
    with reads:
        try:
            if not path.exists():
                raise ConfigError(f"ledger: there is no file {path}")
            with contextlib.ExitStack() as stack:
                both = [stack.enter_context(contextlib.closing(_connect_to_read(path))) for _ in range(2)]
                yield Snapshot(*both) if all(_begin_to_read(each, path) for each in both) else None
        except sqlite3.Error as error:
            what = _WHAT if "not a database" in str(error) else ""
            raise ConfigError(f"ledger: {path} cannot be read: {error}{what}") from error


def _connect(path: Path, wait: float, mode: str = "mode=rw") -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?{mode}", wait, isolation_level=None, check_same_thread=False, uri=True
    )


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that may write, because only then it removes its own files beside the ledger."""
    connection = _connect(path, WAIT)
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        connection = _connect(path, WAIT, "immutable=1")  # a copy in a read-only folder
    return connection


def _begin_to_read(connection: sqlite3.Connection, path: Path) -> bool:
    """Begin a snapshot of the file; False if it is empty. An older table looks as this version's."""
    connection.execute("BEGIN")
    version = _version(connection, path)  # the first read begins the snapshot
    if 0 < version <= len(OLD):
        connection.execute(f"CREATE TEMP VIEW attempts AS {OLD[version - 1]} FROM main.attempts")
    connection.execute("PRAGMA query_only = ON")
    return version > 0


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the ledger's table, 0 if there is none yet. Raises `ConfigError` for any other file."""
    # In one statement: meanwhile another process may make the table.
    application, version, tables = connection.execute(
        "SELECT (SELECT * FROM pragma_application_id), (SELECT * FROM pragma_user_version), "
        "(SELECT count(*) FROM sqlite_master)"
    ).fetchone()
    if application != APPLICATION and (application or version or tables):
        raise ConfigError(f"ledger: {path} is another program's database")
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"ledger: {path} is of a newer version of ccroute (its table has version {version}, this ccroute "
            f"knows {len(MIGRATIONS)}): update ccroute"
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path, wait: float) -> None:
    """Bring the table to this version, or make it. Another process may do so at the same time."""
    until = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:  # locked; here SQLite does not wait by itself
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)
    connection.create_function("next_ns", 1, _Numbers().next_ns)
    connection.execute("BEGIN IMMEDIATE")
    for statements in MIGRATIONS[_version(connection, path) :]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")


class _Numbers:
    """See `tables.MIGRATIONS`."""

    def __init__(self) -> None:
        self._last = 0

    def next_ns(self, microseconds: int) -> int:
        self._last = max(microseconds * 1000, self._last + 1)
        return self._last
