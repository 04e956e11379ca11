"""How results and errors look in a notebook: a small piece of HTML, every value escaped.

Knows text; must not know results or errors.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

LONGEST_NAME = 100
"""Characters of a name in a message."""
_LONGEST = 200
"""Characters that are shown of a text other than the answer."""
_DIM = '<div style="opacity: 0.7; font-size: 90%">'
_TEXT = '<div style="white-space: pre-wrap">'


def card(
    title: str,
    facts: Iterable[tuple[str, object]] = (),
    *,
    text: str = "",
    thoughts: str = "",
    table: str = "",
) -> str:
    """A title, `thoughts` and `text` as they are, and a line of facts without those that are None or ""."""
    shown = [f"{_escaped(name)}: {_escaped(value)}" for name, value in facts if value not in (None, "")]
    parts = [
        f"<b>{_escaped(title)}</b>" if title else "",
        f'{_TEXT}<i style="opacity: 0.6">{_escaped(cut(thoughts))}</i></div>' if thoughts else "",
        f"{_TEXT}{_escaped(text)}</div>" if text else "",
        f"{_DIM}{' · '.join(shown)}</div>" if shown else "",
    ]
    return f"<div>{''.join(parts)}{table}</div>"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain table, or "" if there are no rows."""
    body = [f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in rows]
    head = "".join(f"<th>{_escaped(name)}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join(body)}</table>" if body else ""


def aligned(rows: Sequence[Sequence[str]], numbers: Container[int] = ()) -> list[str]:
    """The rows as lines with aligned columns. The first row is the header, and a rule follows it. `numbers`
    are the columns that are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{'>' if i in numbers else '<'}{width}}}" for i, width in enumerate(widths))
    header, *lines = (form.format(*row).rstrip() for row in rows)
    return [header, "  ".join("-" * width for width in widths), *lines]


def rich_table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Container[int] = ()) -> Table:
    """The same for a terminal, by rich."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for i, name in enumerate(heads):
        found.add_column(name, justify="right" if i in numbers else "left", overflow="fold")
    for row in rows:
        found.add_row(*map(Text, row))
    return found


def printable(text: str) -> str:
    """The text without what would control a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def escaped(text: str) -> str:
    """The text on one line, with what would control a terminal written as `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, longest: int = _LONGEST) -> str:
    """The start of a long text."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def shortened(name: object) -> str:
    """A name from a user or a server, short enough for a message."""
    return cut(str(name), LONGEST_NAME)


def usd(amount: Decimal | None) -> str:
    """An amount of money in USD, or "unknown"."""
    return "unknown" if amount is None else f"${amount:f}"


def rounded_usd(amount: Decimal) -> str:
    """`$0.0225`: at least cents, at most six digits, so that a cheap call is not shown as free."""
    digits = f"{amount:.6f}".rstrip("0")
    whole, _, cents = digits.partition(".")
    return f"${whole}.{cents.ljust(2, '0')}".replace("$-", "-$")


def _escaped(value: object) -> str:
    from html import escape  # only where something is shown

    return "" if value is None else escape(str(value))
