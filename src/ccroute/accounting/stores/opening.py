"""From what a router is given to a ledger."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote, unquote

from ccroute.accounting.ledger import Ledger
from ccroute.accounting.row import Key
from ccroute.accounting.stores.base import BaseLedger
from ccroute.accounting.stores.memory import MemoryLedger
from ccroute.accounting.tally import Lengths, Tally
from ccroute.errors import ConfigError

_JOURNAL: Final = re.compile(r"([?&])journal=([^&]*)(&|$)")


def open_ledger(given: object) -> tuple[BaseLedger, bool]:
    """The ledger for `ledger=`, and whether it was made here, so that its router closes it.

    Raises `ConfigError` for another object, and for a path or an address where no ledger can be.
    """
    if given is None:
        return MemoryLedger(), True
    if isinstance(given, str) and is_postgresql(given):
        from ccroute.accounting.stores.postgres.ledger import PostgresLedger

        return PostgresLedger(given), True
    if isinstance(given, str | os.PathLike):
        from ccroute.accounting.stores.sqlite.ledger import SqliteLedger  # imports sqlite3

        return SqliteLedger(checked_path(given)), True
    if isinstance(given, BaseLedger):
        return given, False
    if isinstance(given, Ledger):
        from ccroute.accounting.stores.custom import CustomLedger  # loaded at its first use

        return CustomLedger(given), False
    lacks = [f"{name}()" for name in ("record", "tallies") if not hasattr(given, name)]
    raise ConfigError(
        "ledger= takes a path, a postgresql:// address, an object with record() and tallies(), or None for "
        f"memory, not {type(given).__name__}" + (f", which has no {lacks[0]}" if len(lacks) == 1 else "")
    )


def read_sums(
    given: str | os.PathLike[str],
    since: datetime | None,
    until: datetime | None,
    *,
    by: Sequence[str],
    tiers: Sequence[Lengths],
) -> dict[Key, Tally]:
    """The sums of a ledger that this program does not write. Raises `ConfigError` if it cannot be read."""
    if is_postgresql(given):
        from ccroute.accounting.stores.postgres import ledger

        return ledger.read_sums(os.fspath(given), since, until, by, tiers=tiers)
    from ccroute.accounting.stores.sqlite import ledger as sqlite

    return sqlite.read_sums(checked_path(given), since, until, by, tiers=tiers)


def is_postgresql(given: str | os.PathLike[str]) -> bool:
    """Whether it is the address of a PostgreSQL database, and no path."""
    return os.fspath(given).startswith(("postgresql://", "postgres://"))


def split_journal(address: str) -> tuple[str, str | None]:
    """The address of a PostgreSQL database, and its parameter `journal`, which libpq does not know."""
    found = _JOURNAL.search(address)
    if found is None:
        return address, None
    before, journal, after = found.groups()
    return address[: found.start()] + (before if after else "") + address[found.end() :], unquote(journal)


def with_path(given: str, change: Callable[[str], str]) -> str:
    """The same ledger, where `change` gives the path of its file: of its journal, if it is an address."""
    if not is_postgresql(given):
        return given if "://" in given or not given.strip() else change(given)
    address, journal = split_journal(given)
    if journal is None:
        return given
    return f"{address}{'&' if '?' in address else '?'}journal={quote(change(journal), '/${}')}"


def checked_path(given: str | os.PathLike[str]) -> str:
    """The path as text. Raises `ConfigError` for what is an address or no path of a file."""
    path = os.fspath(given)
    scheme, is_address, _ = path.partition("://")
    if is_address:  # the rest may have a password
        raise ConfigError(
            f"ledger: ccroute knows no {scheme}:// ledger; give the path of an SQLite file, such as "
            '"usage.db", or a postgresql:// address'
        )
    if not path.strip():
        raise ConfigError('ledger: give the path of a file, such as "usage.db"')
    if path == ":memory:":
        raise ConfigError("ledger: leave it out, and rows are kept in memory")
    return path
