"""What `import ccroute` costs next to importing httpx and pydantic, which it needs: time and memory.

`import ccroute` alone loads very little, because each name is loaded at its first use. The third row is the
cost for a program that makes a router. Every import runs in a new interpreter. They take turns, after one
unmeasured run each that fills the bytecode cache. Time is the import's own, without the interpreter's
start; memory is the peak RSS after it.

    python benchmarks/imports.py [N]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

GOAL_RATIO, GOAL_RSS = 1.3, 45
IMPORTS = {
    "httpx + pydantic": "import httpx, pydantic",
    "ccroute": "import ccroute",
    "all of ccroute": "import ccroute; ccroute.Router([])",
}
# A machine that writes no bytecode would measure the compiler.
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
PROBE = """
import json, resource, sys, time
start = time.perf_counter()
{statement}
spent = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([spent * 1e3, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)]))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one import, in milliseconds and MB."""

    ms: float
    rss: float


def probe(statement: str) -> Cost:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
        env=ENV,
    )
    return Cost(*json.loads(done.stdout))


def median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(cost.ms for cost in costs), statistics.median(cost.rss for cost in costs))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for statement in IMPORTS.values():
        probe(statement)
    found: dict[str, list[Cost]] = {name: [] for name in IMPORTS}
    for _ in range(count):
        for name, statement in IMPORTS.items():
            found[name].append(probe(statement))
    base = found["httpx + pydantic"]
    for name, costs in found.items():
        middle = median(costs)
        ratio = statistics.median(mine.ms / its.ms for mine, its in zip(costs, base, strict=True))
        print(f"{name:17} {middle.ms:6.1f} ms  {ratio:5.2f}  {middle.rss:6.1f} MB")
    print(f"goals for ccroute: a ratio of at most {GOAL_RATIO} and {GOAL_RSS} MB")


if __name__ == "__main__":
    main()
