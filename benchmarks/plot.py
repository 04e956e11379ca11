"""Draws `compare.py`'s figures as an SVG: a line for each case, a dot for each client, a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping

COLOURS = {  # a palette that the colour-blind can tell apart (Okabe and Ito)
    "httpx": "#999999",
    "httpx-tuned": "#000000",
    "ccroute": "#d55e00",
    "aiohttp": "#56b4e9",
    "openai": "#009e73",
    "anthropic": "#e69f00",
    "pydantic-ai": "#cc79a7",
    "litellm": "#0072b2",
}
LEFT, TOP, WIDTH, STEP = 150, 60, 640, 22
"""Pixels: of the cases' names, of title and legend, of the axis, of one case."""
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


def plot(ratios: Mapping[str, Mapping[str, float]], goals: Mapping[str, float]) -> str:
    """`ratios`: case → contender → ratio to tuned httpx. `goals`: case → ccroute's."""
    values = [*goals.values(), *(ratio for of_case in ratios.values() for ratio in of_case.values())]
    low = max((tick for tick in TICKS if tick <= min(values)), default=TICKS[0])
    high = min((tick for tick in TICKS if tick >= max(values)), default=TICKS[-1])
    bottom = TOP + STEP * len(ratios)

    def x(ratio: float) -> float:
        return LEFT + WIDTH * math.log(ratio / low) / math.log(high / low)

    parts = ['<rect width="100%" height="100%" fill="#ffffff"/>']
    parts += [text(LEFT, 18, "CPU per request, as a ratio to tuned httpx: less is better"), *legend(ratios)]
    for tick in TICKS:
        if low <= tick <= high:
            parts.append(line(x(tick), TOP, bottom, "#000000" if tick == 1 else "#dddddd"))
            parts.append(text(x(tick), bottom + 18, f"{tick:g}", "middle"))
    for number, (case, of_case) in enumerate(ratios.items()):
        y = TOP + STEP * (number + 0.5)
        parts.append(text(LEFT - 14, y + 4, case, "end"))
        parts += [dot(x(ratio), y, name) for name, ratio in of_case.items() if name != "ccroute"]
        if case in goals:
            parts.append(goal(x(goals[case]), y))
        if "ccroute" in of_case:  # on top of the others
            parts.append(dot(x(of_case["ccroute"]), y, "ccroute"))
    size = f'width="{LEFT + WIDTH + 40}" height="{bottom + 30}"'
    style = 'font-family="sans-serif" font-size="12"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', *parts, "</svg>\n"])


def legend(ratios: Mapping[str, Mapping[str, float]]) -> list[str]:
    here = {name for of_case in ratios.values() for name in of_case}
    parts, x = [], float(LEFT)
    for name in COLOURS:
        if name in here:
            parts += [dot(x, 40, name), text(x + 9, 44, name)]
            x += 22 + 6.5 * len(name)
    return [*parts, goal(x, 40), text(x + 7, 44, "goal")]


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def dot(x: float, y: float, name: str) -> str:
    radius = 6 if name == "ccroute" else 4
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{COLOURS[name]}"/>'


def line(x: float, top: float, bottom: float, colour: str, width: float = 1) -> str:
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def goal(x: float, y: float) -> str:
    return line(x, y - 8, y + 8, COLOURS["ccroute"], 2)
