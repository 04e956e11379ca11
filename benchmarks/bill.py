"""100,000 calls to a provider that keeps its own bill: does the ledger say the same, to the picodollar?

Several processes share one ledger in SQLite. Their calls are whole and streamed, sync and async, on three
wires, to hosts that fail in every way; some are cancelled, left, dropped, or run out of time. Then each row
of the ledger is compared with its line of the bill (`provider.py`):

- Where the client was told what it used, the row is not an estimate, and its tokens and cost are the bill's.
- Where it was told what the prompt used, those tokens are the bill's, and the row is an estimate.
- Where it was told nothing, the row is an estimate. These are listed apart, with both sums.

Every line has its row, every row that was sent its line; the callers saw what the rows cost, and so says the
report. The exit code is 1 if anything differs.

    python benchmarks/bill.py [--calls 100000] [--processes 2] [--threads 16] [--tasks 120] [--seed bill]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import provider
import server
from ccroute import (
    Agent,
    AnthropicBackend,
    AsyncStream,
    OllamaBackend,
    OpenAIBackend,
    Price,
    Report,
    RetryPolicy,
    Router,
    Stream,
    Timeout,
)
from ccroute.accounting import LedgerRow, SqliteLedger
from ccroute.errors import CcrouteError, StreamInterruptedError
from ccroute.types import Usage
from provider import Ask, Line, Told, drawn
from usages import LONG, Tokens

SILENCE = 0.6
"""Seconds that the router waits for content."""
LEAVES = (0.02, 0.2)
"""Seconds after which impatient callers leave."""
OUT_OF_TIME = 0.4
"""Seconds that a call may take whose caller has little time."""
PICO = Decimal("1e-12")
MOST_UNREAD = 0.05
"""The share of told lines that clients may leave unread: those that leave at any moment."""
MOST_LOST = 0.001
"""The share of requests that may never come: their clients leave as they send."""

AGENTS = {
    "worker": Agent("any", fallback=["deep"]),
    "reviewer": Agent("deep", fallback=["any", "small"]),
    "gateway": Agent("azure/m", fallback=["vllm/m"]),
    "local": Agent("small", fallback=["openai/m"]),
}


def price(host: str) -> Price:
    """The provider's price list, in USD per million tokens."""
    short, long = ([Decimal(each).scaleb(-6) for each in tier] for tier in provider.PRICES[host])
    return tier(short, {LONG: tier(long)} if short != long else None)


def tier(prices: Sequence[Decimal], above: dict[int, Price] | None = None) -> Price:
    input, read, write, write_1h, output, _ = prices
    return Price(input, output, cache_read=read, cache_write=write, cache_write_1h=write_1h, above=above)


def router(addresses: dict[str, str], ledger: Path) -> Router:
    slots: dict[str, Any] = {"max_concurrency": 100}
    return Router(
        [
            OpenAIBackend("openai", base_url=addresses["openai"], api_key="key"),
            OpenAIBackend("azure", base_url=addresses["azure"], preset="azure", api_key="key"),
            OpenAIBackend("vllm", base_url=addresses["vllm"], preset="vllm"),
            AnthropicBackend("claude", base_url=addresses["claude"], api_key="key"),
            OllamaBackend("ollama", addresses["ollama"], **slots),
        ],
        {"any": ["openai/m", "vllm/m"], "deep": "claude/m", "small": "ollama/m"},
        AGENTS,
        prices={f"{host}/m": price(host) for host in provider.HOSTS},
        ledger=ledger,
        retry=RetryPolicy(base=0.002, max=0.01),
        timeout=Timeout(total=30, connect=5, first=SILENCE, idle=SILENCE, attempt=SILENCE),
        health="off",
    )


# -- the callers ---------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What the callers of one process saw: how calls ended, and what each cost as far as they know."""

    ended: Counter[str] = field(default_factory=Counter)
    costs: dict[int, Decimal | None] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, ask: Ask, how: str, cost: Decimal | None) -> None:
        self.ended[how] += 1
        self.costs[ask.number] = cost

    def failed(self, ask: Ask, error: CcrouteError) -> None:
        cost = sum((attempt.cost or Decimal(0) for attempt in error.attempts), Decimal(0))
        if isinstance(error, StreamInterruptedError) and (
            error.partial is None or error.partial.cost != cost
        ):
            self.broken.append(f"{ask}: {error.partial!r} costs not {cost}")
        self.add(ask, type(error).__name__, cost)


class Callers:
    """Threads, and tasks on a loop, that share the calls of one process."""

    def __init__(self, made: Router, numbers: range, seed: str) -> None:
        self.router, self.seed, self.seen = made, seed, Seen()
        self._numbers = itertools.takewhile(numbers.__contains__, itertools.count(numbers.start))
        self._lock = threading.Lock()

    def asks(self) -> Iterator[Ask]:
        while True:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            yield drawn(self.seed, number)

    def options(self, ask: Ask) -> dict[str, Any]:
        given = {
            "prompt": ask.prompt,
            "agent": ask.agent,
            "max_tokens": 500,
            "metadata": {"call": ask.number},
        }
        if ask.fate == "timeout":
            given["timeout"] = Timeout(total=OUT_OF_TIME)
        return given

    async def tasks(self, count: int, threads: int) -> None:
        self.loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            running = [self.loop.run_in_executor(pool, self.thread) for _ in range(threads)]
            await asyncio.gather(*running, *(self.task() for _ in range(count)))

    def thread(self) -> None:
        for ask in self.asks():
            try:
                self.call(ask)
            except CcrouteError as error:
                self.seen.failed(ask, error)
            except Exception as error:
                self.seen.broken.append(f"{ask}: {error!r}")

    async def task(self) -> None:
        for ask in self.asks():
            try:
                await self.acall(ask)
            except CcrouteError as error:
                self.seen.failed(ask, error)
            except Exception as error:
                self.seen.broken.append(f"{ask}: {error!r}")

    # A function of its own per way to call, so that an iterator that it drops is gone when it returns.

    def call(self, ask: Ask) -> None:
        if not ask.streamed:
            if ask.fate == "cancel":  # nobody can cancel it from outside
                ask = ask._replace(fate="timeout")
            reply = self.router.complete(**self.options(ask))
            return self.seen.add(ask, "answered", reply.cost)
        stream = self.router.stream(**self.options(ask))
        over = threading.Event()
        if ask.fate == "cancel" and not ask.pieces:
            self.close_later(stream, over)
        for heard, _ in enumerate(stream, 1):
            if ask.fate in {"close", "drop"}:
                return self.left(ask, stream)
            if ask.fate == "cancel" and heard == ask.pieces:
                self.close_later(stream, over)
        if ask.fate == "cancel":
            over.wait(1)
        return self.ended(ask, stream)

    def close_later(self, stream: Stream, over: threading.Event) -> None:
        def close() -> None:
            stream.close()
            over.set()

        self.loop.call_soon_threadsafe(self.loop.call_later, LEAVES[0], close)

    async def acall(self, ask: Ask) -> None:
        patience = LEAVES[ask.number % 2] if ask.fate == "cancel" else None
        try:
            async with asyncio.timeout(None if ask.streamed and ask.pieces else patience) as limit:
                if not ask.streamed:
                    reply = await self.router.acomplete(**self.options(ask))
                    return self.seen.add(ask, "answered", reply.cost)
                return await self.astream(ask, limit, patience)
        except TimeoutError:
            self.seen.ended["cancelled"] += 1

    async def astream(self, ask: Ask, limit: asyncio.Timeout, patience: float | None) -> None:
        stream, heard = self.router.astream(**self.options(ask)), 0
        async for _ in stream:
            heard += 1
            if ask.fate == "close":
                await stream.aclose()
            if ask.fate in {"close", "drop"}:
                return self.left(ask, stream)
            if patience is not None and heard == ask.pieces:
                limit.reschedule(asyncio.get_running_loop().time() + patience)
        return self.ended(ask, stream)

    def left(self, ask: Ask, stream: Stream | AsyncStream) -> None:
        """After the first content."""
        if ask.fate == "close" and isinstance(stream, Stream):
            stream.close()
        if ask.fate == "close":
            self.seen.add(ask, "closed", stream.partial.cost)
        else:
            self.seen.ended["dropped"] += 1

    def ended(self, ask: Ask, stream: Stream | AsyncStream) -> None:
        """At the end, or when it was closed from outside."""
        try:
            self.seen.add(ask, "answered", stream.completion.cost)
        except RuntimeError:
            self.seen.add(ask, "cancelled", stream.partial.cost)


def work(
    addresses: dict[str, str], ledger: Path, numbers: range, seed: str, tasks: int, threads: int
) -> Seen:
    """All calls of one process."""
    server.allow_files(4096)
    logging.getLogger("ccroute").setLevel(logging.CRITICAL)
    with router(addresses, ledger) as made:
        callers = Callers(made, numbers, seed)
        asyncio.run(callers.tasks(tasks, threads))
    return callers.seen


# -- the comparison ------------------------------------------------------------------------------------------


@dataclass
class Sums:
    """Rows of the ledger and lines of the bill, in USD."""

    rows: int = 0
    ledger: Decimal = Decimal(0)
    bill: Decimal = Decimal(0)

    def add(self, row: LedgerRow, line: Line) -> None:
        self.rows += 1
        self.ledger += row.cost or 0
        self.bill += line.cost * PICO

    @property
    def difference(self) -> Decimal:
        return self.ledger - self.bill


@dataclass
class Comparison:
    """Sums by what the client was told. "all" has the rows that are no estimates."""

    sums: defaultdict[Told, Sums] = field(default_factory=lambda: defaultdict(Sums))
    acts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def compare(self, ask: Ask, rows: Sequence[LedgerRow], lines: Sequence[Line]) -> None:
        """One call."""
        sent = [row for row in rows if row.status is not None or row.usage.total_tokens]
        if len(sent) < len(lines):
            lines = [line for line in lines if not line.resent]
        for host in {*(row.backend for row in sent), *(line.host for line in lines)}:
            here, there = [row for row in sent if row.backend == host], [x for x in lines if x.host == host]
            lost = len(here) - len(there)  # sent by a client that left before the host had read it
            there += [Line(ask.number, host, "lost", None, "nothing", Tokens(), 0, False)] * lost
            if lost >= 0:
                self._compare_host(ask, here, there)
            else:
                self.wrong.append(f"{len(here)} rows and {len(there)} lines: {rows}, {lines}")

    def _compare_host(self, ask: Ask, rows: Sequence[LedgerRow], lines: Sequence[Line]) -> None:
        """The requests of a call at one host. A client that gave up may have been faster than its request, so
        any order of the bill will do."""
        orders = [
            [judged(ask, row, line) for row, line in zip(rows, order, strict=True)]
            for order in itertools.permutations(lines)
        ]
        best = min(orders, key=lambda found: sum(each.fault is not None for each in found))
        for told, fault, row, line in best:
            self.sums[told].add(row, line)
            self.acts[line.act.partition(",")[0]] += 1
            if fault is not None:
                self.wrong.append(f"{fault}: {row.usage!r} cost {row.cost}, {row.outcome}; {line}")


class Judged(NamedTuple):
    """A row and its line. `told`: what the row shows that the client was told."""

    told: Told
    fault: str | None
    row: LedgerRow
    line: Line


def judged(ask: Ask, row: LedgerRow, line: Line) -> Judged:
    """What differs between a row and its line."""
    usage, is_estimate = row.usage, row.usage.estimated
    fault, told = None, line.told if is_estimate else "all"
    if row.cost is None or (row.status != line.status and row.status is not None):
        fault = "it has no cost, or another status"
    elif is_estimate and told == "all":
        fault = "an estimate, though the client was told"
    elif is_estimate and told == "prompt" and tokens(usage)[:4] != line.said[:4]:
        fault = "another prompt"
    elif not is_estimate and line.told not in {"all", "unread"}:
        fault = "no estimate, though the client was not told"
    elif not is_estimate and row.cost != line.cost * PICO:
        fault = "another cost"
    elif not is_estimate and tokens(usage) != line.said:
        fault = "other tokens"
    # It may have left before it heard anything, at any moment or at the end of its patience.
    early = row.status is None or row.outcome == "cancelled" or ask.fate == "timeout"
    if fault is not None and is_estimate and row.first_content is None and early:
        fault, told = None, "unread"
    return Judged(told, fault, row, line)


def tokens(usage: Usage) -> Tokens:
    return Tokens(*(getattr(usage, name) for name in Tokens._fields))


def compared(seed: str, ledger: Path, bill: Path, seen: Sequence[Seen]) -> Comparison:
    """The ledger, the bill and what the callers saw, call by call. The ids of a call's rows count its
    attempts, and the bill is in the order of its requests."""
    found, rows, lines = (
        Comparison(),
        defaultdict[int, list[LedgerRow]](list),
        defaultdict[int, list[Line]](list),
    )
    with contextlib.closing(SqliteLedger(ledger)) as opened:
        for row in sorted(opened.rows(), key=lambda row: row.id):
            rows[int(str(row.metadata["call"]))].append(row)
    for text in bill.read_text().splitlines():
        call, host, act, status, told, said, cost, resent = json.loads(text)
        lines[call].append(Line(call, host, act, status, told, Tokens(*said), cost, resent))
    for number in sorted({*rows, *lines}):
        found.compare(drawn(seed, number), rows[number], lines[number])
    for number, cost in ((number, cost) for each in seen for number, cost in each.costs.items()):
        spent = sum((row.cost or Decimal(0) for row in rows[number]), Decimal(0))
        if cost is None or cost != spent:
            found.wrong.append(f"call {number}: the caller saw {cost}, its rows cost {spent}")
    whole = Report.from_ledger(ledger, by=()).total["cost"]
    spent = sum((row.cost or Decimal(0) for each in rows.values() for row in each), Decimal(0))
    if whole != spent:
        found.wrong.append(f"the report says {whole}, the rows {spent}")
    return found


def tell(found: Comparison, ended: Counter[str]) -> None:
    print(f"calls: {', '.join(f'{how} {count}' for how, count in ended.most_common())}")
    print(f"requests: {', '.join(f'{act} {count}' for act, count in sorted(found.acts.items()))}")
    print(f"{'':28}{'rows':>8}{'ledger, USD':>24}{'bill, USD':>24}")
    names: dict[Told, str] = {
        "prompt": "estimated, prompt told",
        "nothing": "estimated, nothing told",
        "unread": "estimated, left unread",
        "all": "told",
    }
    for told, name in names.items():
        sums = found.sums[told]
        print(f"{name:28}{sums.rows:8}{sums.ledger:24f}{sums.bill:24f}")
    print(f"difference: {found.sums['all'].difference:f}")
    for wrong in found.wrong[:20]:
        print(f"WRONG {wrong}")
    print(f"{len(found.wrong)} rows or calls differ", flush=True)


def run(calls: int, processes: int, threads: int, tasks: int, seed: str) -> bool:
    """Make the calls, compare, and print. Whether all is right."""
    with tempfile.TemporaryDirectory() as folder:
        ledger, bill = Path(folder, "usage.db"), Path(folder, "bill.jsonl")
        with server.process(provider.__file__, seed, str(bill)) as host:
            assert host.stdin
            assert host.stdout
            addresses = json.loads(host.stdout.readline())
            share = -(-calls // processes)
            ranges = [range(start, min(start + share, calls)) for start in range(0, calls, share)]
            began = time.perf_counter()
            given = [(addresses, ledger, numbers, seed, tasks, threads) for numbers in ranges]
            if processes == 1:
                seen = [work(*given[0])]
            else:
                spawned = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(processes, mp_context=spawned) as pool:
                    seen = list(pool.map(work, *zip(*given, strict=True)))
            took = time.perf_counter() - began
            host.stdin.close()
            left = int(host.stdout.readline())
        found = compared(seed, ledger, bill, seen)
    ended = sum((each.ended for each in seen), Counter[str]())
    found.wrong += [fault for each in seen for fault in each.broken]
    if ended.total() != calls or left:
        found.wrong.append(f"{ended.total()} of {calls} calls ended, {left} connections are open")
    if found.acts["lost"] > max(5, MOST_LOST * calls):
        found.wrong.append(f"{found.acts['lost']} requests never came")
    if found.sums["unread"].rows > MOST_UNREAD * found.sums["all"].rows:
        found.wrong.append(f"{found.apart['unread'].rows} lines were told and not read")
    tell(found, ended)
    print(f"{calls} calls in {took:.0f} s, {calls / took:.0f} a second")
    return not found.wrong and found.sums["all"].difference == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="the ledger against a provider's bill")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=120)
    parser.add_argument("--seed", default="bill")
    return 0 if run(**vars(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
