"""Budgets in the file of the SQLite ledger: exact, and shared by all who have it open."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from tests.accounting.support import DAY, START, row
from tests.accounting.test_sqlite import full_disk, locked, old_file, opened, run

from ccroute.accounting import BaseLedger, LedgerRow, MemoryLedger, SqliteLedger
from ccroute.accounting.budgets import BudgetStore, Claim, Scope, Standing, covers
from ccroute.accounting.stores import accounts, processes, sqlite, sqlite_budgets, tables
from ccroute.accounting.stores.processes import has_ended, this_process
from ccroute.types import Usage
from ccroute.types.clock import BEGINNING, END

HOUR = timedelta(hours=1)
NOTHING = Decimal(0)
LATER = START + timedelta(minutes=10)
ROUTER = Scope("router")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


def claim(
    scope: Scope = ROUTER,
    usd: Decimal | str | int | None = 10,
    tokens: int | None = None,
    since: Any = START,
    until: Any = START + DAY,
) -> Claim:
    return Claim(scope, since, until, None if usd is None else Decimal(usd), tokens)


def standing(store: BudgetStore, *asked: Claim) -> list[tuple[Decimal, int, Decimal, int]]:
    return [tuple(each) for each in store.standings(asked or [claim()])]
