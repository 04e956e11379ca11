"""How results and errors look in a notebook: one small piece of HTML, everything in it escaped.

Knows text; must not know what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

_LONGEST: Final = 200
"""Characters that are shown of what is not the answer itself."""
LONGEST_NAME: Final = 100
"""Characters of a name in a message."""


def card(
    title: str,
    facts: Iterable[tuple[str, object]] = (),
    *,
    text: str = "",
    thoughts: str = "",
    table: str = "",
) -> str:
    """A title, `thoughts` and `text` as they were written, and a line of facts; None and "" are left out."""
    from html import escape  # only where something is shown

    shown = " · ".join(
        f"{escape(name)}: {escape(str(value))}" if name else escape(str(value))
        for name, value in facts
        if value is not None and value != ""
    )
    parts = [f"<b>{escape(title)}</b>"] if title else []
    if thoughts:
        parts.append(f'<div style="white-space: pre-wrap; opacity: 0.6"><i>{escape(cut(thoughts))}</i></div>')
    if text:
        parts.append(f'<div style="white-space: pre-wrap">{escape(text)}</div>')
    if shown:
        parts.append(f'<div style="opacity: 0.7; font-size: 90%">{shown}</div>')
    return f"<div>{''.join(parts)}{table}</div>"


def cut(text: str) -> str:
    """The start of a long text."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain table, or nothing where there are no rows."""
    from html import escape

    lines = ["".join(f"<td>{escape(_shown(cell))}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>" if lines else ""


def shortened(name: object) -> str:
    """A name that somebody else chose, as much of it as a message can hold."""
    text = str(name)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def usd(amount: Decimal | None) -> str:
    """An amount of money, or that it is not known."""
    return "unknown" if amount is None else f"${amount:f}"


def _shown(cell: object) -> str:
    return "" if cell is None else str(cell)
