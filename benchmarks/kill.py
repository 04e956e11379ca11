"""Kills a process at any moment of its calls, again and again: is every call that had returned in the ledger?

Each round forks a process, whose threads ask a router that answers from memory and writes `usage.db`. Each
tells when a call has returned. At a random moment comes SIGKILL. Then the file must open clean, and must have
each of those calls, none of them twice.

    python benchmarks/kill.py [--rounds 200] [--threads 4]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import server
from canned import answered_from_memory
from ccroute import OpenAIBackend, Report, Router

ANSWER = (200, (server.compact(server.openai_chat()),))
MOST_CALLS = 300
"""So many calls return at most before a process is killed."""


def work(path: Path, round: int, threads: int, told: int) -> None:
    """Make calls until killed; each that has returned is a line."""
    backend = OpenAIBackend("main", base_url="http://127.0.0.1")
    router = answered_from_memory(Router([backend], default_model="main/m", ledger=path), ANSWER)

    def ask(thread: int) -> None:
        number = 0
        while True:
            name = f"{round}/{thread}/{number}"
            router.complete("hi", session=name)
            os.write(told, f"{name}\n".encode())
            number += 1

    for thread in range(threads - 1):
        threading.Thread(target=ask, args=[thread], daemon=True).start()
    ask(threads - 1)


def killed(path: Path, round: int, threads: int, chance: random.Random) -> list[str]:
    """The calls that had returned when the process of this round was killed."""
    hears, tells = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hears)
        work(path, round, threads, tells)
    os.close(tells)
    calls, text = chance.randrange(MOST_CALLS), b""
    while text.count(b"\n") <= calls:
        text += os.read(hears, 65536)
    os.kill(child, signal.SIGKILL)
    while more := os.read(hears, 65536):
        text += more
    os.close(hears)
    os.waitpid(child, 0)
    return text.decode().splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    chance, returned = random.Random(7), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "usage.db")
        for round in range(options.rounds):
            returned += killed(path, round, options.threads, chance)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
            stored = Counter(name for (name,) in connection.execute("SELECT session FROM attempts"))
        reported = Report.from_ledger(path, ()).total["requests"]
    result = {
        "rounds": options.rounds,
        "calls that returned": len(returned),
        "of these lost": len(set(returned) - stored.keys()),
        "twice": sum(count > 1 for count in stored.values()),
        "integrity": integrity,
    }
    print(json.dumps(result))
    sound = integrity == "ok" and reported == stored.total()
    return 0 if sound and not result["of these lost"] and not result["twice"] and returned else 1


if __name__ == "__main__":
    sys.exit(main())
