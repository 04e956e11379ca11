"""The two ledgers that ccroute has, for the tests that both must pass."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ccroute.accounting import BaseLedger, MemoryLedger, SqliteLedger


@pytest.fixture(params=["memory", "sqlite"])
def new_ledger(request: pytest.FixtureRequest) -> Iterator[Callable[[], BaseLedger]]:
    """Makes a new, empty ledger each time; Hypothesis asks for many."""
    with tempfile.TemporaryDirectory() as folder:
        made: list[BaseLedger] = []

        def new() -> BaseLedger:
            path = Path(folder, f"{len(made)}.db")
            made.append(MemoryLedger() if request.param == "memory" else SqliteLedger(path))
            return made[-1]

        yield new
        for ledger in made:
            ledger.close()
