"""A PostgreSQL ledger in a storm: is every row there, once?

Processes write rows through `PostgresLedger` and share a journal. Each tells what it has recorded. Meanwhile
one of them is killed with SIGKILL and replaced, again and again, or the server is stopped or killed, and
started. At the end a last process ships what is left. Then the table must have each row that was told, as it
was, and none besides; the report must count them.

    python benchmarks/postgres_storm.py [--rounds 40] [--writers 3] [--seed 7]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from ccroute import Report
from ccroute.accounting import PostgresLedger
from ccroute.accounting.stores.postgres import shipping
from ledger import rows
from postgres_server import PostgresServer

LONGEST = 0.4
"""Seconds between two strokes, and of an outage, at most."""


def write(url: str, journal: str) -> None:
    """Record rows until killed; each that has been recorded is a line."""
    shipping.LINGER, shipping.BATCH, shipping.LONGEST_PAUSE = 0.02, 100, 0.2
    ledger = PostgresLedger(url, journal)
    for number, row in enumerate(rows(10**6)):
        ledger.record(row)
        told = {"id": row.id, "cost": str(row.cost or 0), "output": row.usage.output}
        os.write(sys.stdout.fileno(), f"{json.dumps(told)}\n".encode())
        if number % 10 == 0:
            time.sleep(0.01)


class Writer:
    """A process that writes, and what it told."""

    def __init__(self, url: str, journal: Path) -> None:
        command = [sys.executable, __file__, "--write", url, str(journal)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.told: list[dict[str, Any]] = []
        self._hears = threading.Thread(target=self._hear)
        self._hears.start()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        self.told.extend(map(json.loads, self.process.stdout))

    def kill(self) -> list[dict[str, Any]]:
        self.process.kill()
        self._hears.join()
        self.process.wait()
        return self.told


def storm(
    server: PostgresServer, journal: Path, rounds: int, count: int, chance: random.Random
) -> list[dict[str, Any]]:
    """What the writers told."""
    writers, told = [Writer(server.url(), journal) for _ in range(count)], list[dict[str, Any]]()
    for _ in range(rounds):
        time.sleep(LONGEST * chance.random())
        if chance.random() < 0.5:
            with server.stopped(chance.choice([signal.SIGKILL, signal.SIGINT, signal.SIGQUIT])):
                time.sleep(LONGEST * chance.random())
        else:
            told += writers.pop(chance.randrange(count)).kill()
            writers.append(Writer(server.url(), journal))
    for writer in writers:
        told += writer.kill()
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--writers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(*options.write)
    server = PostgresServer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder, "journal.db")
            told = storm(server, journal, options.rounds, options.writers, random.Random(options.seed))
            last = PostgresLedger(server.url(), journal)
            last.record(next(rows(1)))
            left = len(last.rows())
            last.close()
            reported = Report.from_ledger(server.url(), ()).total["attempts"]
        found = {
            id: (cost, output)
            for id, cost, output in server.execute(
                "SELECT id, coalesce(cost, 0), output FROM ccroute_attempts"
            )
        }
    finally:
        server.close()
    missing = sum(each["id"] not in found for each in told)
    wrong = sum(
        found[each["id"]] != (Decimal(each["cost"]), each["output"]) for each in told if each["id"] in found
    )
    result = {
        "rounds": options.rounds,
        "rows that were told": len(told),
        "of these missing": missing,
        "of these changed": wrong,
        "rows in the table": len(found),
        "rows in table and journal before the end": left,
        "attempts in the report": reported,
    }
    print(json.dumps(result))
    # A writer that is killed may have recorded one more row than it told.
    most = len(told) + options.rounds + options.writers + 1
    sound = len(told) < len(found) == left == reported <= most
    return 0 if sound and not missing and not wrong and told else 1


if __name__ == "__main__":
    sys.exit(main())
