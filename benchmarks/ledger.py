"""What the ledger on disk costs: a row beside one in memory, and reports of a million rows.

python benchmarks/ledger.py [--rows 1000000] [--file usage.db]     the file is made if it is missing
python benchmarks/ledger.py --postgres [--rows 1000000]            the same of a PostgreSQL server of its own
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import server
from canned import answered_from_memory
from ccroute import Agent, Budget, Model, OpenAIBackend, Price, Report, Router
from ccroute.accounting import LedgerRow, MemoryLedger, PostgresLedger, SqliteLedger
from ccroute.accounting.ledger import uuid7
from ccroute.accounting.stores.postgres import shipping
from ccroute.accounting.stores.sqlite import columns, files
from ccroute.types import Usage
from postgres_server import PostgresServer

ANSWER = (200, (server.compact(server.openai_chat()),))
START = datetime(2026, 1, 1, tzinfo=UTC)
AGENTS, MODELS = 119, 8
CALLS, ROUNDS = 2000, 9
GOAL_ADDED, GOAL_REPORT = 40, 2  # µs, seconds
BASELINE = Price(15, 75, above={200_000: Price(30, "112.5")})


def calls(router: Router) -> float:
    """µs of CPU that a call takes."""
    began = time.process_time()
    for _ in range(CALLS):
        router.complete("hi", agent="bench", max_tokens=100)
    return (time.process_time() - began) / CALLS * 1e6


def router(ledger: MemoryLedger | SqliteLedger, *budgets: str) -> Router:
    backend = OpenAIBackend("main", base_url="http://127.0.0.1", models={"m": Model(price=Price(3, 15))})
    made = Router(
        [backend],
        agents={"bench": Agent("main/m")},
        budgets=dict.fromkeys(budgets, Budget(1_000_000)),
        ledger=ledger,
    )
    return answered_from_memory(made, ANSWER)


def a_call(on_disk: Callable[[str], SqliteLedger]) -> None:
    """Each kind in turn, so that a busy machine slows all."""
    kinds = [
        router(MemoryLedger(1000)),
        router(on_disk("calls.db")),
        router(on_disk("one.db"), "router"),
        router(on_disk("three.db"), "router", "bench", "backend:main"),
    ]
    took = [[calls(made) for _ in range(1)] for made in kinds]
    for _ in range(ROUNDS):
        for each, made in zip(took, kinds, strict=True):
            each.append(calls(made))
    memory, disk, one, three = (statistics.median(each[1:]) for each in took)
    print(f"a call: {memory:.0f} µs with the ledger in memory")
    print(f"{disk - memory:+.1f} µs on disk (goal: {GOAL_ADDED})")
    print(f"{one - disk:+.0f} µs more with a budget there, {three - disk:+.0f} with three")
    for made in kinds:
        made._state.ledger.close()


def rows(count: int) -> Iterator[LedgerRow]:
    """A year of calls: each fifty have a session, each tenth has no price, each thirtieth fails."""
    chance = random.Random(1)
    for number in range(count):
        started = START + number * timedelta(days=365) / count
        agent, model, ok = chance.randrange(AGENTS), chance.randrange(MODELS), number % 30 > 0
        prompt, output = int(chance.expovariate(1 / 5000)), chance.randrange(700)
        yield LedgerRow(
            uuid7(started),
            uuid7(started),
            started,
            f"agent-{agent}",
            f"group-{agent % 9}",
            f"session-{number // 50}",
            None,
            f"alias-{model}",
            "local",
            f"local/qwen2.5-coder:{model}",
            f"qwen2.5-coder:{model}",
            "ok" if ok else "failed",
            None,
            200 if ok else 503,
            Usage.model_construct(input=prompt, output=output),
            Decimal(prompt * 3 + output * 15).scaleb(-6) if number % 10 else None,
            False,
            False,
            1.5 * chance.random(),
            0.3,
            True,
            False,
            1.5 * chance.random(),
            None,
        )


def write(path: Path, count: int) -> None:
    connection = files.open_for_writing(path, 5)
    connection.execute("BEGIN")
    connection.executemany(columns.INSERT, map(columns.values, rows(count)))
    connection.execute("COMMIT")
    connection.close()


def ship(url: str, journal: Path, count: int) -> None:
    """Bring a journal to PostgreSQL, as after a long outage."""
    shipping.CLOSE = 600
    write(journal, count)
    ledger = PostgresLedger(url, journal)
    began = time.perf_counter()
    ledger.record(next(rows(1)))
    ledger.close()
    took = time.perf_counter() - began
    print(f"{count:,} rows are shipped in {took:.0f} s: {count / took:,.0f} a second")


def reports(path: Path | str, count: int) -> None:
    print(f"reports of {count:,} rows (goal: {GOAL_REPORT} s)")
    year = (None, None)
    december = ("2026-12-01", None)
    for by, span in (
        ((), year),
        (("agent",), year),
        (("model", "backend"), year),
        (("day",), year),
        (("agent", "day"), year),
        (("session",), year),
        (("agent",), december),
    ):
        took = []
        for _ in range(3):
            began = time.perf_counter()
            report = Report.from_ledger(path, by, *span, baseline=BASELINE)
            took.append(time.perf_counter() - began)
        name = ", ".join(by) or "total"
        print(f"{name + (' of December' if span[0] else ''):20}{min(took):6.2f} s{len(report):8,} lines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.postgres:
            server = PostgresServer()
            try:
                a_call(lambda name: PostgresLedger(server.url(), Path(folder, name)))
                server.execute("TRUNCATE ccroute_attempts")
                ship(server.url(), Path(folder, "journal.db"), options.rows)
                reports(server.url(), options.rows)
            finally:
                server.close()
            return
        a_call(lambda name: SqliteLedger(Path(folder, name)))
        path = options.file or Path(folder, "usage.db")
        if not path.exists():
            write(path, options.rows)
        reports(path, options.rows)


if __name__ == "__main__":
    main()
