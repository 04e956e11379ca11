"""Ledger rows with only what a test cares about, Hypothesis's rows, and interrupts."""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import FrameType
from typing import Any

from hypothesis import strategies as st

from ccroute.accounting import LedgerRow, cost
from ccroute.types import FailureClass, Price, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
_numbers = itertools.count()


EXACT_COSTS = [
    ["0.1", "0.2"],
    ["0.000000000001", "12345678.9"],
    ["0.0000000000001", "1", "0.0000000000002", "-3"],
    ["9000000", "9000000", "9000000.000000000001"],  # more than SQLite's whole numbers hold
    ["99999999999", "0.5"],
]
"""Amounts in USD that a ledger has to keep and to sum up exactly."""


@contextlib.contextmanager
def interrupt_at(k: int, root: str) -> Iterator[list[bool]]:
    """Interrupt the block at the `k`-th call or return in files below `root`. The list is empty if it ended
    before."""
    interrupted, seen = list[bool](), itertools.count(1)

    def interrupt(frame: FrameType, *_: object) -> None:
        if frame.f_code.co_filename.startswith(root) and next(seen) == k:
            sys.setprofile(None)
            interrupted.append(True)
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        sys.setprofile(interrupt)
        try:
            yield interrupted
        finally:
            sys.setprofile(None)


@contextlib.contextmanager
def held_by_a_thread(lock: Any) -> Iterator[None]:
    """Another thread has the lock while the block runs."""
    holds, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holds.set()
            let_go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(10)
    yield
    let_go.set()
    thread.join()


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
    queue=st.just(0.0) | st.floats(0, 100),
    load=st.none() | st.floats(0, 0.1) | st.floats(0, 100),
)

NAMES = st.none() | st.sampled_from(["py", "", "it's", 'a"b', "ü\x00ß"])
COUNTS = st.integers(0, 10**9)
MONEY = st.none() | st.decimals(0, 10**6, places=6) | st.decimals(0, 1, places=15)
ROWS = st.builds(
    row,
    started=st.integers(0, 5 * 86_400_000_000).map(lambda after: START + timedelta(microseconds=after)),
    agent=NAMES,
    group=NAMES,
    session=NAMES,
    requested_model=NAMES,
    alias=st.sampled_from(["fast", ""]),
    outcome=st.sampled_from(["ok", "failed", "cancelled", "interrupted"]),
    failure=st.none() | st.sampled_from(FailureClass),
    status=st.none() | st.integers(100, 599),
    usage=st.builds(
        Usage,
        input=st.integers(0, 3000) | COUNTS,
        cache_read=st.just(0) | COUNTS,
        cache_write_5m=st.just(0) | COUNTS,
        cache_write_1h=st.just(0) | COUNTS,
        output=st.integers(0, 2) | COUNTS,
        reasoning=st.integers(0, 2),
        estimated=st.booleans(),
    ),
    cost=MONEY,
    overridden=st.booleans(),
    fallback=st.booleans(),
    duration=st.floats(0, 1e4),
    first_content=st.none() | st.floats(0, 100),
    final=st.booleans(),
    cached=st.booleans(),
    latency=st.none() | st.floats(0, 1e4),
    override_saved=MONEY.map(lambda saved: None if saved is None else -saved),
    queue=st.just(0.0) | st.floats(0, 1e4),
    load=st.none() | st.sampled_from([0.0, 0.03, 0.05]) | st.floats(0, 1e4),
    metadata=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=2),
)
"""Rows with everything that a ledger has to keep."""


def naive_report(
    rows: Iterable[LedgerRow], by: Sequence[str], baseline: Price | None
) -> list[dict[str, Any]]:
    """What a report of these rows says, added up row by row; in no order."""
    groups = defaultdict[tuple[str | None, ...], list[LedgerRow]](list)
    if not by:
        groups[()] = []
    for each in rows:
        key = {**each._asdict(), "day": each.started.strftime("%Y-%m-%d")}
        groups[tuple(key[name] for name in by)].append(each)
    return [dict(zip(by, key, strict=True)) | _naive_sums(each, baseline) for key, each in groups.items()]


def _naive_sums(rows: list[LedgerRow], baseline: Price | None) -> dict[str, Any]:
    final, priced = [each for each in rows if each.final], [each for each in rows if each.cost is not None]
    is_known = len(priced) == len(rows) or any(each.usage.total_tokens for each in priced)
    spent = sum((each.cost for each in priced if each.cost is not None), Decimal(0)) if is_known else None
    baseline_cost = saved = percent = None
    if baseline is not None and spent is not None:
        baseline_cost = sum((cost(each.usage, baseline) or Decimal(0) for each in priced), Decimal(0))
        saved = baseline_cost - spent
        percent = round(100 * saved / baseline_cost, 1) if baseline_cost else None
    saved_by_overrides = [each.override_saved for each in final if each.override_saved is not None]
    overrides = sum(each.overridden for each in final)
    latencies = [each.latency for each in rows if each.latency is not None and each.outcome == "ok"]
    answered = sorted(_microseconds(latency) / 1e6 for latency in latencies)
    loads = [each.load for each in rows if each.load is not None and each.load >= 0.05]
    return {
        "requests": len(final),
        "attempts": len(rows),
        "failures": sum(each.outcome in ("failed", "interrupted") for each in rows),
        **{
            name: sum(getattr(each.usage, name) for each in rows)
            for name in ("input", "cache_read", "cache_write", "output")
        },
        "cost": spent,
        "unknown_cost_requests": sum(each.cost is None for each in final),
        "baseline_cost": baseline_cost,
        "saved": saved,
        "saved_percent": percent,
        "cache_hits": sum(each.cached for each in final),
        "overrides": overrides,
        "override_saved": sum(saved_by_overrides, Decimal(0))
        if saved_by_overrides or not overrides
        else None,
        **{
            f"p{percent}": answered[math.ceil(len(answered) * percent / 100) - 1] if answered else None
            for percent in (50, 95)
        },
        "wait": sum(_microseconds(each.queue) for each in rows) / 1e6,
        "loads": len(loads),
        "load_seconds": sum(map(_microseconds, loads)) / 1e6,
    }


def _microseconds(seconds: float) -> int:
    return math.floor(seconds * 1e6 + 0.5)
