"""How much CPU a call costs through ccroute and its peers, next to bare httpx and to the goals.

Rounds are interleaved (A B C, A B C, …), so a machine that changes its speed changes it for all. A ratio is
the median of the ratios within each round. CPU is user + system time of this process, all threads; the
server has its own process. A regression shows in its ratio; nothing here fails.

    python benchmarks/compare.py [--quick] [--cases chat-1,stream-100] [--peers httpx,ccroute] [--rounds 7]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import server
from contenders import CONTENDERS, Contender, installed

RESULTS = Path(__file__).parent / "results"
BASE = "httpx"
WARM = 6  # requests per caller before the first round: until its pool settles, httpx costs 5× as much


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load."""

    kind: Literal["chat", "stream", "sync"]
    at_once: int
    requests: int  # per run
    goal: float  # ccroute's CPU, as a ratio to bare httpx's

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.at_once}"


CASES = [
    Case("chat", 1, 400, 0.60),
    Case("chat", 100, 1500, 0.16),
    Case("chat", 400, 2400, 0.16),
    Case("stream", 1, 200, 0.85),
    Case("stream", 100, 600, 0.45),
    Case("sync", 1, 400, 0.65),
    Case("sync", 32, 1500, 0.60),
]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender; CPU and wall in µs per request, latencies in ms."""

    cpu: float
    wall: float
    p50: float
    p99: float


# -- measuring -----------------------------------------------------------------------------------------------


class Stopwatch:
    """Measures the block it wraps, and collects the latencies of its requests."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.latencies: list[float] = []

    def __enter__(self) -> Stopwatch:
        gc.collect()  # the same start for all; collection stays on, as in real use
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu = (time.process_time() - self.cpu) / self.requests * 1e6
        self.wall = (time.perf_counter() - self.wall) / self.requests * 1e6

    def run(self) -> Run:
        cuts = statistics.quantiles(self.latencies, n=100)
        return Run(self.cpu, self.wall, cuts[49] * 1e3, cuts[98] * 1e3)


async def run_async(call: Callable[[], Awaitable[int]], at_once: int, requests: int) -> Run:
    tickets = iter(range(requests))

    async def worker() -> None:
        for _ in tickets:
            start = time.perf_counter()
            check(await call())
            watch.latencies.append(time.perf_counter() - start)

    with Stopwatch(requests) as watch:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    return watch.run()


def run_sync(call: Callable[[], int], at_once: int, requests: int) -> Run:
    tickets = itertools.count()  # one `next` is atomic, unlike a range iterator's end under threads

    def worker() -> None:
        while next(tickets) < requests:
            start = time.perf_counter()
            check(call())
            watch.latencies.append(time.perf_counter() - start)

    with ThreadPoolExecutor(at_once) as pool, Stopwatch(requests) as watch:
        for done in [pool.submit(worker) for _ in range(at_once)]:
            done.result()
    return watch.run()


def check(length: int) -> None:
    assert length == len(server.TEXT), "an answer is not whole"


async def run_once(case: Case, contender: Contender, requests: int) -> Run:
    if case.kind == "sync":
        return run_sync(contender.complete, case.at_once, requests)
    return await run_async(
        contender.chat if case.kind == "chat" else contender.stream, case.at_once, requests
    )


async def warmed(case: Case, contender: Contender) -> Contender:
    """The contender with open connections and finished imports; closed if it cannot do this case."""
    try:
        await run_once(case, contender, WARM * case.at_once)
    except BaseException:
        await contender.aclose()
        raise
    return contender


async def measure(case: Case, url: str, names: Sequence[str], rounds: int) -> dict[str, list[Run]]:
    """The runs of one case, in rounds, of every contender that can take part."""
    contenders: dict[str, Contender] = {}
    for name in names:
        try:
            contenders[name] = await warmed(case, CONTENDERS[name](url))
        except* Exception as failed:
            exc = failed.exceptions[0]
            print(f"{name} takes no part in {case.name}: {type(exc).__name__}: {exc}")
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    try:
        for _, (name, contender) in itertools.product(range(rounds), contenders.items()):
            runs[name].append(await run_once(case, contender, case.requests))
    finally:
        for contender in contenders.values():
            await contender.aclose()
    return runs


# -- reporting -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: medians over the rounds."""

    case: str
    contender: str
    cpu: float
    ratio: float | None
    goal: float | None
    wall: float
    p50: float
    p99: float


def rows(case: Case, runs: dict[str, list[Run]]) -> list[Row]:
    def row(name: str, own: list[Run]) -> Row:
        ratios = [run.cpu / base.cpu for run, base in zip(own, runs.get(BASE, []), strict=False)]
        middle = {
            key: statistics.median(getattr(run, key) for run in own) for key in ("cpu", "wall", "p50", "p99")
        }
        ratio = statistics.median(ratios) if ratios else None
        return Row(
            case.name, name, ratio=ratio, goal=case.goal if name.startswith("ccroute") else None, **middle
        )

    return [row(name, own) for name, own in runs.items()]


HEADINGS = ("case", "contender", "CPU µs", "to httpx", "goal", "wall µs", "p50 ms", "p99 ms")


def cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    goal = ""
    if row.goal is not None and row.ratio is not None:
        goal = f"≤ {row.goal:.2f} {'✓' if row.ratio <= row.goal else '✗'}"
    figures = (f"{row.wall:.0f}", f"{row.p50:.2f}", f"{row.p99:.2f}")
    return (row.case, row.contender, f"{row.cpu:.0f}", ratio, goal, *figures)


def print_lines(lines: Sequence[Sequence[str]]) -> None:
    widths = (11, 15, 7, 9, 9, 8, 8, 8)
    for line in lines:
        padded = [
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        print(" ".join(padded).rstrip(), flush=True)


def about() -> dict[str, Any]:
    """What the figures depend on, besides the code."""
    versions = {}
    for name in ("ccroute", "httpx", "httpcore", "h11", "pydantic", "openai", "litellm"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": versions,
    }


def save(found: Sequence[Row], options: argparse.Namespace) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"compare-{time.strftime('%Y%m%d-%H%M%S')}.json"
    report = about() | {
        "quick": options.quick,
        "rounds": options.rounds,
        "rows": [asdict(row) for row in found],
    }
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return path


def plot(found: Sequence[Row], path: Path) -> Path | None:
    """Bars of CPU per request, where matplotlib is installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        return None
    cases = list(dict.fromkeys(row.case for row in found))
    columns = min(4, len(cases))
    figure, axes = pyplot.subplots(math.ceil(len(cases) / columns), columns, squeeze=False, figsize=(12, 6))
    for axis, case in zip(axes.flat, cases, strict=False):
        bars = [row for row in found if row.case == case]
        axis.bar([row.contender for row in bars], [row.cpu for row in bars])
        axis.set_title(f"{case}: CPU µs per request")
        axis.tick_params(axis="x", rotation=45)
    figure.tight_layout()
    picture = path.with_suffix(".png")
    figure.savefig(picture)
    return picture


# -- the command ---------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    here = installed()
    parser = argparse.ArgumentParser(description="CPU per call, next to bare httpx")
    parser.add_argument("--quick", action="store_true", help="under 20 s: few requests, 3 rounds, no peers")
    parser.add_argument(
        "--cases", help=f"default, all (quick: not chat-400): {','.join(c.name for c in CASES)}"
    )
    parser.add_argument("--peers", help=f"default, what is installed: {','.join(here)}")
    parser.add_argument("--rounds", type=int, default=None, help="default: 7, quick 3")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    usual = here[:2] if options.quick else here
    options.names = options.peers.split(",") if options.peers else usual
    every = [case.name for case in CASES if not (options.quick and case.at_once > 100)]
    wanted = options.cases.split(",") if options.cases else every
    options.chosen = [case for case in CASES if case.name in wanted]
    if unknown := {*wanted} - {case.name for case in CASES}:
        parser.error(f"unknown cases: {', '.join(sorted(unknown))}")
    if unknown := {*options.names} - {*here}:
        parser.error(f"not installed: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    options = arguments()
    found: list[Row] = []
    print_lines([HEADINGS])
    with server.running() as url:
        for case in options.chosen:
            scaled = Case(case.kind, case.at_once, max(case.requests // 8, case.at_once), case.goal)
            runs = asyncio.run(measure(scaled if options.quick else case, url, options.names, options.rounds))
            fresh = rows(case, runs)
            print_lines([cells(row) for row in fresh])
            found += fresh
    path = save(found, options)
    print(f"\n{json.dumps(about(), ensure_ascii=False)}\nsaved to {path}")
    if picture := plot(found, path):
        print(f"plotted to {picture}")


if __name__ == "__main__":
    main()
