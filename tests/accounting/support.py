"""Ledger rows with only what a test cares about, and Hypothesis's idea of one."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from ccroute.accounting import LedgerRow
from ccroute.types import Usage

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
_numbers = itertools.count()


def row(**facts: Any) -> LedgerRow:
    """A successful call of agent `py`: 1000 tokens in, 100 out, one dollar, one second. Its id is its own."""
    usual: dict[str, Any] = {
        "id": f"i{next(_numbers)}",
        "call": "c",
        "started": START,
        "agent": "py",
        "group": "devs",
        "session": "s",
        "requested_model": None,
        "alias": "fast",
        "backend": "paid",
        "deployment": "paid/m",
        "model": "m",
        "outcome": "ok",
        "failure": None,
        "status": 200,
        "usage": Usage(input=1000, output=100),
        "cost": Decimal(1),
        "overridden": False,
        "fallback": False,
        "duration": 1.0,
        "first_content": None,
        "final": True,
        "latency": 1.0,
    }
    return LedgerRow(**usual | facts)


rows = st.builds(
    row,
    started=st.integers(0, 5).map(lambda days: START + days * DAY),
    agent=st.sampled_from([None, "py", "js"]),
    outcome=st.sampled_from(["ok", "failed", "cancelled", "interrupted"]),
    usage=st.builds(Usage, input=st.integers(0, 999), output=st.integers(0, 999), estimated=st.booleans()),
    cost=st.none() | st.decimals(0, 10, places=6),
    final=st.booleans(),
    cached=st.booleans(),
    overridden=st.booleans(),
    override_saved=st.none() | st.decimals(-10, 10, places=6),
    latency=st.none() | st.floats(0, 100),
)
