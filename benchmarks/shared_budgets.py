"""Processes share the budgets of one usage.db, and one of them is killed: is a cent too much spent, or lost?

Each round forks processes, whose threads ask a router that answers from memory, until its budgets refuse
every call. At a random moment one process gets SIGKILL. In the end no more may be spent than the budgets
allow, and at least 95 % of it; nothing may be reserved any more, each account must be what its rows say, and
each call that returned must be in the file. A process that comes later is refused, too.

    python benchmarks/shared_budgets.py [--rounds 200] [--processes 8] [--threads 4] [--calls 300]
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
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import server
from canned import answered_from_memory
from ccroute import Agent, Budget, Model, OpenAIBackend, Price, Router
from ccroute.errors import BudgetExceededError

MOST, PROMPT = 40, "word " * 40
"""Tokens of the longest answer; a prompt of fewer tokens than estimated."""
PRICE = Price(3, 15)
USAGES = [{"prompt_tokens": 20, "completion_tokens": tokens} for tokens in (40, 3, 17, 1, 29)]
ANSWERS = [(200, (server.compact(server.openai_chat() | {"usage": usage}),)) for usage in USAGES]
A_CALL = Decimal(20 * 3 + 40 * 15).scaleb(-6)
"""USD of the dearest call."""
USED = Decimal("0.95")
SHARE = Decimal("0.6")
"""What of the whole budget the agent `bounded` may spend."""


def router(path: Path, whole: Decimal) -> Router:
    backend = OpenAIBackend("main", base_url="http://127.0.0.1", models={"m": Model(price=PRICE)})
    made = Router(
        [backend],
        agents={"bounded": Agent("main/m"), "free": Agent("main/m")},
        budgets={"router": Budget(whole, per="total"), "bounded": Budget(whole * SHARE, per="month")},
        ledger=path,
    )
    return answered_from_memory(made, *ANSWERS)


def work(path: Path, whole: Decimal, process: int, threads: int, told: int) -> None:
    """Make calls until all are refused; each that has returned is a line."""
    made = router(path, whole)

    def ask(thread: int) -> None:
        for agent in ("bounded", "free") if thread % 2 else ("free",):
            number = 0
            with contextlib.suppress(BudgetExceededError):
                while True:
                    name = f"{process}/{thread}/{agent}/{number}"
                    made.complete(PROMPT, agent=agent, max_tokens=MOST, session=name)
                    os.write(told, f"{name}\n".encode())
                    number += 1

    asking = [threading.Thread(target=ask, args=[thread]) for thread in range(threads)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    made.close()


def forked(path: Path, whole: Decimal, process: int, threads: int, told: int) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(path, whole, process, threads, told)
            code = 0
        finally:
            os._exit(code)
    return child


def run(path: Path, options: argparse.Namespace, chance: random.Random) -> dict[str, Any]:
    """One round, and what is wrong after it."""
    whole = A_CALL * options.calls
    hears, tells = os.pipe()
    children = [forked(path, whole, process, options.threads, tells) for process in range(options.processes)]
    os.close(tells)
    victim, calls, text = children.pop(), chance.randrange(options.calls), b""
    with open(hears, "rb", buffering=0) as pipe:
        while more := pipe.read(65536):
            text += more
            if victim and text.count(b"\n") > calls:
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                victim = 0
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in [*children, *([victim] if victim else [])])
    returned = set(text.decode().splitlines())
    with router(path, whole) as later:
        refused = 0
        for agent in ("bounded", "free"):
            try:
                later.complete(PROMPT, agent=agent, max_tokens=MOST)
            except BudgetExceededError:
                refused += 1
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT session, agent, cost FROM attempts").fetchall()
        accounts = dict(connection.execute("SELECT kind, usd FROM accounts").fetchall())
        (reserved,) = connection.execute("SELECT count(*) FROM reservations").fetchone()
        (totals,) = connection.execute(
            "SELECT sum(reserved_usd) + sum(reserved_tokens) FROM accounts"
        ).fetchone()
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    spent = {
        "router": sum(cost for _, _, cost in rows),
        "agent": sum(cost for _, agent, cost in rows if agent == "bounded"),
    }
    used = Decimal(spent["router"]).scaleb(-12) / whole
    limits = {"router": whole.scaleb(12), "agent": (whole * SHARE).scaleb(12)}
    return {
        "used": used,
        "calls": len(returned),
        "over": sum(spent[kind] > limits[kind] for kind in limits),
        "less than 95 % used": used < USED,
        "lost": len(returned - {session for session, _, _ in rows}),
        "still reserved": reserved + bool(totals),
        "accounts that differ from the rows": accounts != spent,
        "not refused later": 2 - refused,
        "failed processes": failed,
        "broken files": integrity != "ok",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument(
        "--calls", type=int, default=300, help="the dearest ones that the budget has room for"
    )
    options = parser.parse_args()
    chance, began, rounds = random.Random(7), time.perf_counter(), list[dict[str, Any]]()
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(run(Path(folder, "usage.db"), options, chance))
    wrong = {name: sum(int(each[name]) for each in rounds) for name in list(rounds[0])[2:]}
    result = {
        "rounds": options.rounds,
        "calls": sum(int(each["calls"]) for each in rounds),
        "least used": float(min(Decimal(str(each["used"])) for each in rounds)),
        "seconds": round(time.perf_counter() - began, 1),
        **wrong,
    }
    print(json.dumps(result))
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
