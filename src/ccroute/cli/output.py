"""What the commands print: tables, JSON and errors. Colours only on a terminal, if rich is installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ccroute.display import RichTable, aligned, printable

if TYPE_CHECKING:
    from rich.console import Console

    from ccroute import Report, RoutePlan


class Output:
    """Results go to standard output, everything for people beside them to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty()
        self._console = _console() if self.is_terminal else None
        for stream in (sys.stdout, sys.stderr):
            # An old terminal cannot show every character. That is no reason to fail.
            if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
                reconfigure(errors="replace")

    def json(self, value: Any) -> None:
        print(json.dumps(value, indent=2, ensure_ascii=False, default=str))

    def text(self, text: str) -> None:
        print(printable(text))

    def table(
        self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Container[int] = ()
    ) -> None:
        """A table with a title. Nothing without rows."""
        if not rows:
            return
        cells = [[printable(cell) for cell in row] for row in rows]
        if self._console is not None:
            self._console.print(f"{title}:", RichTable(heads, cells, numbers), "", sep="\n")
        else:
            print("\n".join([f"{title}:", *aligned(heads, cells, numbers), ""]))

    def result(self, result: Report | RoutePlan) -> None:
        """What is printed as a table."""
        if self._console is not None:
            self._console.print(result)
        else:
            self.text(str(result))

    def lines(self, title: str, lines: Sequence[str]) -> None:
        """A title and lines below it. Nothing without lines."""
        if lines:
            print("\n".join([f"{title}:", *(f"  {printable(line)}" for line in lines), ""]))

    def note(self, *lines: str) -> None:
        """Lines beside the result."""
        for line in lines:
            print(printable(line), file=sys.stderr)

    def fail(self, kind: str, faults: Sequence[str], hint: str) -> None:
        """An error, each fault on its line, and what to do."""
        self.note(*faults, *filter(None, [hint]))
        if self.as_json:
            self.json({"error": {"type": kind, "faults": list(faults)}})


def _console() -> Console | None:
    """What writes tables with colours; None without rich."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=sys.stdout, highlight=False)


def read_text(stream: TextIO) -> str:
    """All of standard input. Raises `ConfigError` if it is no text."""
    if stream.isatty():
        print("reading the prompt; Ctrl-D ends it", file=sys.stderr)
    try:
        return stream.read()
    except UnicodeDecodeError:
        from ccroute.errors import ConfigError

        raise ConfigError("standard input is not UTF-8 text") from None
