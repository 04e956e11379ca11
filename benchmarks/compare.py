"""How much CPU a call costs through ccroute and its peers, next to bare httpx and to the goals.

Every contender has its own process (`worker.py`), and the server has one (`server.py`). Rounds are
interleaved (A B C, A B C, …), so a machine that changes its speed changes it for all. A ratio is to tuned
httpx: the median of the ratios within each round. A regression shows in its ratio; nothing here fails.

    python benchmarks/compare.py [--quick] [--cases chat-1,stream-100] [--peers all] [--rounds 7]
    python benchmarks/compare.py --readme     writes the last full result into README.md, measures nothing
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import report
import server
from peers import CONTENDERS, OWN, installed
from report import Row
from worker import Case, Run, Worker, WorkerError, workers

BASE = "httpx-tuned"
LONGEST, LONGEST_QUICK = 1.0, 0.4
"""Seconds that a run may take."""
APART, APART_OF_MANY = 0.001, 0.01
"""Seconds between the chunks that are written one by one. A slower client reads several at once."""

CASES = [
    Case("chat", 1, 400, 0.25),
    Case("chat", 100, 1500, 0.09),
    Case("chat", 400, 2400, 0.07),
    Case("stream", 1, 200, 0.33),
    Case("stream", 100, 600, 0.24),
    Case("chunked", 1, 24, 0.45, pace=APART),
    Case("chunked", 100, 100, pace=APART_OF_MANY),
    Case("sync", 1, 400, 0.35),
    Case("sync", 32, 1500, 0.35),
    Case("sync-stream", 1, 200),
    *(
        case
        for wire in ("anthropic", "ollama")
        for case in (
            Case("chat", 1, 400, 0.25, wire),
            Case("stream", 1, 200, 0.33, wire),
            Case("chunked", 1, 24, 0.45, wire, APART),
        )
    ),
]
LONG = ("chat-400", "chunked-100", "anthropic-chunked-1", "ollama-chunked-1")
SCRIPTS = ("imports", "micro")
"""Further parts of the table: scripts that measure by themselves."""


class Limits(NamedTuple):
    """Of each case; `longest` is the seconds that a run may take: slower contenders make fewer requests."""

    rounds: int
    longest: float


class Measured(NamedTuple):
    """The runs of each contender, and why others have none."""

    runs: dict[str, list[Run]]
    failures: dict[str, str]


def fewer_requests(case: Case) -> Case:
    return replace(case, requests=max(case.requests // 8, case.at_once))


def takes_part(name: str, case: Case) -> bool:
    made = CONTENDERS[name]
    return case.wire in made.wires and (not case.sync or case.at_once <= made.threads)


def measure(case: Case, url: str, at: Mapping[str, Worker], limits: Limits) -> Measured:
    """Have all contenders that can do it do one case, in rounds."""
    requests: dict[str, int] = {}
    failures: dict[str, str] = {}
    for name in (name for name in at if takes_part(name, case)):
        try:
            seconds = at[name].order("open", case, url)
        except WorkerError as error:
            failures[name] = str(error)
        else:
            requests[name] = max(case.at_once, min(case.requests, int(limits.longest / seconds)))
    runs: dict[str, list[Run]] = {name: [] for name in requests}
    for _, name in itertools.product(range(limits.rounds), requests):
        try:
            runs[name].append(at[name].order("run", requests[name]))
        except WorkerError as error:
            failures[name] = str(error)
    for name in requests:
        with contextlib.suppress(WorkerError):
            at[name].order("close")
    return Measured({name: own for name, own in runs.items() if name not in failures}, failures)


def rows(case: Case, runs: Mapping[str, list[Run]]) -> list[Row]:
    def row(name: str, own: list[Run]) -> Row:
        ratios = [run.cpu / base.cpu for run, base in zip(own, runs.get(BASE, []), strict=False)]
        middle = {
            key: statistics.median(getattr(run, key) for run in own) for key in ("cpu", "wall", "p50", "p99")
        }
        ratio = statistics.median(ratios) if ratios else None
        return Row(case.name, name, ratio=ratio, goal=case.goal if name == "ccroute" else None, **middle)

    return [row(name, own) for name, own in runs.items()]


def run_script(name: str, *, quick: bool) -> list[dict[str, Any]]:
    """What a script measured, in a process that has imported nothing else; nothing, if it fails."""
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json"]
    if quick:
        command.append("--quick")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else []


# -- the command ---------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    every = [*(case.name for case in CASES), *SCRIPTS]
    short = [name for name in every if name not in LONG]
    here = [name for name in installed() if name not in OWN]
    parser = argparse.ArgumentParser(description="CPU per call, next to bare httpx")
    parser.add_argument("--quick", action="store_true", help="under a minute: 3 short rounds, no peers")
    parser.add_argument(
        "--cases", help=f"some of: {','.join(every)} (default: all; quick: all but {','.join(LONG)})"
    )
    parser.add_argument(
        "--peers", help=f"all, none, or some of: {','.join(here)} (default: all; quick: none)"
    )
    parser.add_argument("--rounds", type=int, help="default: 5; quick: 3")
    parser.add_argument(
        "--readme", action="store_true", help="only write the last full result into README.md"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.chosen = options.cases.split(",") if options.cases else short if options.quick else every
    peers = options.peers or ("none" if options.quick else "all")
    asked = here if peers == "all" else [] if peers == "none" else peers.split(",")
    options.names = list(dict.fromkeys([*OWN, *asked]))
    if unknown := {*options.chosen} - {*every}:
        parser.error(f"unknown cases: {', '.join(sorted(unknown))}")
    if unknown := {*options.names} - {*OWN, *here}:
        parser.error(f"not installed: {', '.join(sorted(unknown))}")
    options.full = not options.quick and options.chosen == every and {*here} <= {*options.names}
    return options


def main() -> None:
    options = arguments()
    if options.readme:
        report.write_readme()
        return
    cases, limits = [case for case in CASES if case.name in options.chosen], Limits(options.rounds, LONGEST)
    if options.quick:
        cases, limits = [fewer_requests(case) for case in cases], Limits(options.rounds, LONGEST_QUICK)
    found: list[Row] = []
    notes: list[str] = []
    report.show(report.padded(report.HEADINGS))
    with server.running(*{case.pace for case in cases}) as urls, workers(options.names) as at:
        for case in cases:
            measured = measure(case, urls[case.pace], at, limits)
            fresh = rows(case, measured.runs)
            fails = [f"{name} takes no part in {case.name}: {why}" for name, why in measured.failures.items()]
            for line in (*map(report.line, fresh), *fails):
                report.show(line)
            found, notes = found + fresh, notes + fails
    others = {name: run_script(name, quick=options.quick) for name in SCRIPTS if name in options.chosen}
    result = report.about() | {
        "arguments": sys.argv[1:],
        "rounds": options.rounds,
        "rows": [asdict(row) for row in found],
        "notes": notes,
    }
    report.show(report.circumstances(result))
    path = report.save(result | others, full=options.full)
    report.show(f"saved to {path}" + (": --readme puts it into README.md" if options.full else ""))


if __name__ == "__main__":
    main()
