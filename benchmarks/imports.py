"""What importing a client costs, next to importing httpx and pydantic, which ccroute needs: time and memory.

`import ccroute` alone loads very little, because each name is loaded at its first use. The row "a Router
made" is the cost for a program that uses it. Every import runs in a new interpreter. They take turns, after
one unmeasured run each that fills the bytecode cache. Time is the import's own, without the interpreter's
start; memory is the peak RSS after it, and after a first call in another interpreter.

    python benchmarks/imports.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import server
from peers import CONTENDERS, OWN, installed

RATIO_GOAL, MEMORY_GOAL = 1.2, 35.0
"""Of a Router: time, to httpx + pydantic; MB after a first call."""
BASE, ROUTER = "httpx + pydantic", "ccroute, a Router made"
ROUNDS, QUICK = 9, 3
# A machine that writes no bytecode would measure the compiler.
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ENV["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # LiteLLM would ask the net for prices

# On Linux, getrusage tells the parent's peak if that is higher.
PROBE = """
import json, resource, sys, time
start = time.perf_counter()
{statement}
spent = time.perf_counter() - start
if sys.platform == "linux":
    [peak] = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")]
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([spent * 1e3, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)]))
"""
FIRST_CALL = """
import asyncio, sys
sys.path.insert(0, {here!r})
from {made.__module__} import {made.__name__} as Made
async def call():
    made = Made({made.wires[0]!r}, {url!r})
    await made.acomplete()
    await made.aclose()
asyncio.run(call())
"""


@dataclass(frozen=True, slots=True)
class Import:
    """What to import, and whose first call shows the memory."""

    what: str
    statement: str
    contender: str | None = None


IMPORTS = [
    Import(BASE, "import httpx, pydantic", "httpx"),
    Import("ccroute", "import ccroute"),
    Import(ROUTER, "import ccroute; ccroute.Router([])", "ccroute"),
    Import("aiohttp", "import aiohttp", "aiohttp"),
    Import("openai", "import openai", "openai"),
    Import("anthropic", "import anthropic", "anthropic"),
    Import("pydantic-ai", "import pydantic_ai.direct, pydantic_ai.models.openai", "pydantic-ai"),
    Import("litellm, a Router made", "import litellm; litellm.Router([])", "litellm"),
]


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one import, in milliseconds and MB."""

    ms: float
    rss: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: medians. Memory in MB."""

    what: str
    ms: float
    ratio: float
    ratio_goal: float | None
    rss: float
    first_call: float | None
    memory_goal: float | None


def probe(statement: str) -> Cost:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=ENV,
    )
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def after_first_call(contender: str | None, url: str) -> float | None:
    """MB."""
    if contender is None:
        return None
    here, made = str(Path(__file__).parent), CONTENDERS[contender]
    return probe(FIRST_CALL.format(here=here, made=made, url=url)).rss


def measure(rounds: int, *, peers: bool) -> list[Row]:
    here = installed() if peers else OWN
    imports = [each for each in IMPORTS if each.contender is None or each.contender in here]
    for each in imports:
        probe(each.statement)
    found: dict[str, list[Cost]] = {each.what: [] for each in imports}
    for _ in range(rounds):
        for each in imports:
            found[each.what].append(probe(each.statement))
    with server.running(0) as urls:
        return [
            Row(
                each.what,
                ms=statistics.median(cost.ms for cost in found[each.what]),
                ratio=statistics.median(
                    mine.ms / its.ms for mine, its in zip(found[each.what], found[BASE], strict=True)
                ),
                ratio_goal=RATIO_GOAL if each.what == ROUTER else None,
                rss=statistics.median(cost.rss for cost in found[each.what]),
                first_call=after_first_call(each.contender, urls[0]),
                memory_goal=MEMORY_GOAL if each.what == ROUTER else None,
            )
            for each in imports
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description="what importing a client costs")
    parser.add_argument("--quick", action="store_true", help="a few rounds, no peers")
    parser.add_argument("--json", action="store_true", help="JSON, and the table on stderr")
    options = parser.parse_args()
    rows = measure(QUICK if options.quick else ROUNDS, peers=not options.quick)
    if options.json:
        json.dump([asdict(row) for row in rows], sys.stdout)
    out = sys.stderr if options.json else sys.stdout
    print(f"{'':24}{'ms':>8}{'ratio':>8}{'RSS MB':>8}{'after a first call':>20}", file=out)
    for row in rows:
        first = "" if row.first_call is None else f"{row.first_call:.1f}"
        print(f"{row.what:24}{row.ms:8.1f}{row.ratio:8.2f}{row.rss:8.1f}{first:>20}", file=out)
    print(f"goals, a Router made: ratio ≤ {RATIO_GOAL}, ≤ {MEMORY_GOAL:.0f} MB after a first call", file=out)


if __name__ == "__main__":
    main()
