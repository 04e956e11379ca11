"""What `import ccroute` costs next to importing httpx and pydantic, which it needs: time and memory.

Every import happens in a fresh interpreter; the two take turns, after one unmeasured run each that fills the
bytecode cache. Time is the import's own, without the interpreter's start; memory is the peak RSS after it.

    python benchmarks/imports.py [N]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass

GOAL_RATIO, GOAL_RSS = 1.3, 45
IMPORTS = {"httpx + pydantic": "import httpx, pydantic", "ccroute": "import ccroute"}
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
    """Of one import: milliseconds and MB."""

    ms: float
    rss: float


def probe(statement: str) -> Cost:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)], capture_output=True, text=True, check=True
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
    for name, costs in found.items():
        middle = median(costs)
        print(f"{name:17} {middle.ms:6.1f} ms {middle.rss:6.1f} MB")
    base, own = found.values()
    ratio = statistics.median(mine.ms / its.ms for mine, its in zip(own, base, strict=True))
    rss = median(own).rss
    print(f"ratio {ratio:.2f} (goal ≤ {GOAL_RATIO}), RSS {rss:.0f} MB (goal ≤ {GOAL_RSS})")


if __name__ == "__main__":
    main()
