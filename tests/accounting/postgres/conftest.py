"""A real PostgreSQL server for the tests in this folder, and a schema of its own for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ccroute.accounting import PostgresLedger
from ccroute.accounting.stores.postgres import shipping
from postgres_server import PostgresServer

_names = itertools.count()


@dataclass
class Place:
    """A schema of its own in a database, and ledgers there, which are closed at the end."""

    server: PostgresServer
    folder: Path
    schema: str = field(default_factory=lambda: f"test_{next(_names)}")
    opened: list[PostgresLedger] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url(self.schema)

    @property
    def journal(self) -> Path:
        return self.folder / "journal.db"

    def ledger(self, url: str | None = None) -> PostgresLedger:
        self.opened.append(PostgresLedger(url or self.url, self.journal))
        return self.opened[-1]

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        return self.server.execute(statement, self.schema)

    def ids(self) -> list[str]:
        """The ids in the table, as another program finds them."""
        return [id for (id,) in self.execute("SELECT id FROM ccroute_attempts ORDER BY id")]

    def ids_if_any(self) -> list[str]:
        """The same; none where there is no table yet."""
        return self.ids() if self.execute("SELECT to_regclass('ccroute_attempts')") != [(None,)] else []


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def place(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(shipping, "LINGER", 0.01)
    monkeypatch.setattr(shipping, "LONGEST_PAUSE", 0.05)
    place = Place(server, tmp_path)
    place.execute(f"CREATE SCHEMA {place.schema}")
    yield place
    for ledger in place.opened:
        ledger.close()
