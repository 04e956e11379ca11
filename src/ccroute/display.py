"""How results and errors look in a notebook: a small piece of HTML, every value escaped.

Knows text; must not know results or errors.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

LONGEST_NAME = 100
"""Characters of a name in a message."""
_LONGEST = 200
"""Characters that are shown of a text other than the answer."""
_LEAST = 16
"""Characters that a text's column in a terminal has at least, if the text is so long."""
_GAP = 2
"""Spaces between two columns."""
_DIM = '<div style="opacity: 0.7; font-size: 90%">'
_NAME = "padding: 0.2em 0.6em; text-align: left"
_NUMBER = "padding: 0.2em 0.6em; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums"
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


def html_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Container[int] = (),
    total: Sequence[str] | None = None,
    *,
    notes: Iterable[str] = (),
) -> str:
    """The table of `aligned` for a notebook, and lines below it. It has no colours, so it fits any theme."""

    def line(cells: Sequence[str], tag: str, more: str = "") -> str:
        styles = (f"{_NUMBER if i in numbers else _NAME}{more}" for i in range(len(cells)))
        shown = zip(styles, map(_escaped, cells), strict=True)
        return "".join(
            ["<tr>", *(f'<{tag} style="{style}">{cell}</{tag}>' for style, cell in shown), "</tr>"]
        )

    head = line(heads, "th", "; border-bottom: 1px solid")
    body = "".join(line(row, "td") for row in rows)
    foot = f"<tfoot>{line(total, 'th', '; border-top: 1px solid')}</tfoot>" if total else ""
    below = "".join(f"{_DIM}{_escaped(note)}</div>" for note in notes)
    return (
        f'<div style="overflow-x: auto"><table style="border-collapse: collapse"><thead>{head}</thead>'
        f"<tbody>{body}</tbody>{foot}</table></div>{below}"
    )


def aligned(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Container[int] = (),
    total: Sequence[str] | None = None,
) -> list[str]:
    """A table as lines with aligned columns. `numbers` are the columns that are aligned to the right."""
    texts = [heads, *rows, *([total] if total else [])]
    widths = _widths(texts)
    form = "  ".join(f"{{:{'>' if i in numbers else '<'}{width}}}" for i, width in enumerate(widths))
    header, *lines = (form.format(*row).rstrip() for row in texts)
    rule = "  ".join("-" * width for width in widths)
    return [header, rule, *lines[:-1], rule, lines[-1]] if total else [header, rule, *lines]


class RichTable:
    """The same for a terminal, by rich. Long texts are folded, numbers are not. Where a terminal has no room
    for that, it is plain lines, which the terminal folds."""

    def __init__(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[str]],
        numbers: Container[int] = (),
        total: Sequence[str] | None = None,
    ) -> None:
        self._heads, self._rows, self._numbers, self._total = heads, list(rows), numbers, total

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        widths = _widths([self._heads, *self._rows, *([self._total] if self._total else [])])
        least = (width if i in self._numbers else min(width, _LEAST) for i, width in enumerate(widths))
        if sum(least) + _GAP * (len(widths) - 1) <= options.max_width:
            yield self._table()
        else:
            yield Text("\n".join(aligned(self._heads, self._rows, self._numbers, self._total)))

    def _table(self) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        found = Table(
            box=box.SIMPLE_HEAD,  # its divider is a space, and the padding another one
            header_style="bold",
            show_edge=False,
            pad_edge=False,
            padding=(0, _GAP - 1, 0, 0),
        )
        for i, name in enumerate(self._heads):
            is_number = i in self._numbers
            found.add_column(
                name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
            )
        for row in self._rows:
            found.add_row(*map(Text, row))
        if self._total:
            found.add_section()
            found.add_row(*map(Text, self._total), style="bold")
        return found


def _widths(rows: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


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
