"""Draws `residency.py`'s figures as an SVG: a line for each workload, a dot for each order, a panel for the
makespan (a ratio to the least possible one) and one for the mean wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from plot import line, text

COLOURS = {  # as in plot.py
    "first come, first served": "#0072b2",
    "Ollama's own": "#56b4e9",
    "ccroute": "#d55e00",
    "ccroute, complete_many": "#e69f00",
    "by hand, grouped by model": "#009e73",
    "offline, waits no longer": "#cc79a7",
    "offline": "#999999",
}
LEFT, TOP, WIDTH, STEP, GAP = 330, 60, 300, 20, 50
"""Pixels: of the workloads' names, of title and legend, of a panel, of one workload, between the panels."""
RATIOS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
WAITS = (1, 3, 10, 30, 100, 300, 1000, 3000)


class Row(Protocol):
    @property
    def case(self) -> str: ...
    @property
    def order(self) -> str: ...
    @property
    def ratio(self) -> float: ...
    @property
    def mean(self) -> float: ...


def plot(tables: Mapping[str, Sequence[Row]]) -> str:
    """`tables`: title → rows."""
    parts, y = ['<rect width="100%" height="100%" fill="#ffffff"/>'], float(TOP)
    parts.append(text(LEFT, 48, "makespan, as a ratio"))
    parts.append(text(LEFT + WIDTH + GAP, 48, "mean wait, seconds"))
    x = 14.0
    for order, colour in COLOURS.items():
        parts += [_dot(x, 20, colour), text(x + 9, 24, order)]
        x += 30 + 6.3 * len(order)
    for title, rows in tables.items():
        y += STEP
        parts.append(text(14, y + 4, f'<tspan font-weight="bold">{title}</tspan>'))
        begin = y + STEP / 2
        for case in dict.fromkeys(row.case for row in rows):
            y += STEP
            parts.append(text(LEFT - 14, y + 4, case, "end"))
            for row in reversed([row for row in rows if row.case == case]):
                colour = COLOURS[row.order]
                parts.append(_dot(_x(row.ratio, RATIOS), y, colour))
                if row.mean == row.mean:
                    parts.append(_dot(WIDTH + GAP + _x(row.mean, WAITS), y, colour))
        for ticks, left in ((RATIOS, 0), (WAITS, WIDTH + GAP)):
            for tick in ticks:
                parts.insert(1, line(left + _x(tick, ticks), begin, y + STEP / 2, "#dddddd"))
                parts.append(text(left + _x(tick, ticks), y + STEP + 4, f"{tick:g}", "middle"))
        y += 2 * STEP
    size = f'width="{LEFT + 2 * WIDTH + GAP + 40}" height="{y + 10:.0f}"'
    style = 'font-family="sans-serif" font-size="12"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', *parts, "</svg>\n"])


def _x(value: float, ticks: Sequence[float]) -> float:
    """On a logarithmic axis; what is beyond it stands at its end."""
    share = math.log(max(value, 1e-9) / ticks[0]) / math.log(ticks[-1] / ticks[0])
    return LEFT + WIDTH * min(max(share, 0.0), 1.0)


def _dot(x: float, y: float, colour: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if colour == COLOURS["ccroute"] else 4}" fill="{colour}"/>'
    )
