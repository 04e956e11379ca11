"""From what a router is given to a ledger."""

from __future__ import annotations

import os

from ccroute.accounting.ledger import Ledger
from ccroute.accounting.stores.base import BaseLedger
from ccroute.accounting.stores.memory import MemoryLedger
from ccroute.errors import ConfigError


def open_ledger(given: object) -> tuple[BaseLedger, bool]:
    """The ledger for `ledger=`, and whether it was made here, so that its router closes it.

    Raises `ConfigError` for another object, and for a path where no ledger can be.
    """
    if given is None:
        return MemoryLedger(), True
    if isinstance(given, str | os.PathLike):
        from ccroute.accounting.stores.sqlite import SqliteLedger  # imports sqlite3

        return SqliteLedger(checked_path(given)), True
    if isinstance(given, BaseLedger):
        return given, False
    if isinstance(given, Ledger):
        from ccroute.accounting.stores.own import OwnLedger  # loaded at its first use

        return OwnLedger(given), False
    raise ConfigError(
        "ledger= takes a path, an object with record() and tallies(), or None for memory, not "
        f"{type(given).__name__}"
    )


def checked_path(given: str | os.PathLike[str]) -> str:
    """The path as text. Raises `ConfigError` for what is an address or no path of a file."""
    path = os.fspath(given)
    scheme, is_address, _ = path.partition("://")
    if is_address:  # the rest may have a password
        raise ConfigError(
            f"ledger: this version of ccroute knows no {scheme}:// ledger; give the path of an SQLite file, "
            'such as "usage.db"'
        )
    if not path.strip():
        raise ConfigError('ledger: give the path of a file, such as "usage.db"')
    if path == ":memory:":
        raise ConfigError("ledger: leave it out, and rows are kept in memory")
    return path
