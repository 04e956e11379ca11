"""Shows what `compare.py` measured: lines on the terminal, Markdown tables and a plot in README.md."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import CONTENDERS, installed, versions
from plot import plot

HERE = Path(__file__).parent
README, RESULTS = HERE / "README.md", HERE / "results"
FULL, PARTIAL, PLOT = (RESULTS / name for name in ("compare.json", "partial.json", "compare.svg"))
BEGIN, END = "<!-- last table: begin -->\n", "<!-- last table: end -->\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: medians over the rounds. CPU and wall in µs per request, latencies in ms."""

    case: str
    contender: str
    cpu: float
    ratio: float | None  # to tuned httpx
    goal: float | None
    wall: float
    p50: float
    p99: float


def about() -> dict[str, Any]:
    """What the figures depend on, besides the code."""
    here = installed()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{os.cpu_count()} cores ({processor()}), {platform.system()} {platform.machine()}",
        "versions": versions("pydantic", "httpcore", "httptools", "httpx2"),
        "absent": [name for name in CONTENDERS if name not in here],
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def save(result: dict[str, Any], *, full: bool) -> Path:
    """Only a full result is kept in git."""
    path = FULL if full else PARTIAL
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return path


def verdict(value: float | None, goal: float | None, digits: int = 2) -> str:
    """The goal, and whether `value` reaches it."""
    return "" if goal is None or value is None else f"≤ {goal:.{digits}f} {'✓' if value <= goal else '✗'}"


# -- the terminal --------------------------------------------------------------------------------------------

HEADINGS = ("case", "contender", "CPU µs", "ratio", "goal", "wall µs", "p50 ms", "p99 ms")
WIDTHS = (-19, -12, 7, 7, 9, 8, 8, 8)
"""Characters; negative: to the left."""


def padded(cells: Iterable[str]) -> str:
    both = zip(cells, WIDTHS, strict=True)
    return " ".join(cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, width in both).rstrip()


def line(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    figures = (f"{row.wall:.0f}", f"{row.p50:.2f}", f"{row.p99:.2f}")
    return padded((row.case, row.contender, f"{row.cpu:.0f}", ratio, verdict(row.ratio, row.goal), *figures))


def show(line: str) -> None:
    print(line, flush=True)


# -- README.md -----------------------------------------------------------------------------------------------


def write_readme() -> None:
    """Put the last full result between README.md's two marks, and draw its plot."""
    result = json.loads(FULL.read_text())
    rows = [Row(**row) for row in result["rows"]]
    ratios: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row.ratio is not None:
            ratios[row.case][row.contender] = row.ratio
    PLOT.write_text(plot(ratios, {row.case: row.goal for row in rows if row.goal is not None}))
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}{section(result, rows)}{END}{after}")


def circumstances(result: dict[str, Any]) -> str:
    known = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    absent = (
        f" Not installed, so not in the table: {', '.join(result['absent'])}." if result["absent"] else ""
    )
    failed = " ".join(f"{note}." for note in result["notes"])
    return f"{result['date']}, {result['machine']}, {result['python']}; {known}.{absent} {failed}".rstrip()


def section(result: dict[str, Any], rows: Sequence[Row]) -> str:
    every = "\n".join([padded(HEADINGS), *map(line, rows)])
    command = " ".join(["python benchmarks/compare.py", *result["arguments"]])
    return f"""
`{command}`, {result["rounds"]} rounds. {circumstances(result)}

![CPU per request of each client, as a ratio to tuned httpx]({PLOT.relative_to(HERE)})

CPU per request in µs, and its ratio to tuned httpx in the same run:

{cases_table(rows)}
What an import costs (`imports.py`), next to `import httpx, pydantic`:

{imports_table(result["imports"])}
ccroute's own work, without sockets (`micro.py`):

{micro_table(result["micro"])}
<details><summary>All figures, with wall time and latencies</summary>

```text
{every}
```

As JSON: [{FULL.name}]({FULL.relative_to(HERE)})

</details>

"""


def table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in headings[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, rule, *lines))


def cases_table(rows: Sequence[Row]) -> str:
    found = {(row.case, row.contender): row for row in rows}
    here = [name for name in CONTENDERS if any(row.contender == name for row in rows)]

    def cell(case: str, name: str) -> str:
        row = found.get((case, name))
        if row is None:
            return "–"
        cpu = f"{row.cpu:,.0f}"
        ratio = "" if row.ratio is None else f" ({row.ratio:.2f})"
        return f"**{cpu}{ratio}**" if name == "ccroute" else f"{cpu}{ratio}"

    def cells(case: str) -> list[str]:
        own = found.get((case, "ccroute"))
        goal = verdict(own.ratio, own.goal) if own else ""
        return [f"`{case}`", goal, *(cell(case, name) for name in here)]

    return table(["case", "goal", *here], map(cells, dict.fromkeys(row.case for row in rows)))


def imports_table(rows: Sequence[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> list[str]:
        first = "–" if row["first_call"] is None else f"{row['first_call']:.0f}"
        return [
            *(
                row["what"],
                f"{row['ms']:,.0f}",
                f"{row['ratio']:.2f}",
                verdict(row["ratio"], row["ratio_goal"]),
            ),
            *(f"{row['rss']:.0f}", first, verdict(row["first_call"], row["memory_goal"], 0)),
        ]

    return table(("", "ms", "ratio", "goal", "RSS, MB", "after a first call", "goal"), map(cells, rows))


def micro_table(rows: Sequence[dict[str, Any]]) -> str:
    cells = ([row["what"], f"{row['us']:,.1f}", verdict(row["us"], row["goal"], 1)] for row in rows)
    return table(("", "µs", "goal"), cells)
