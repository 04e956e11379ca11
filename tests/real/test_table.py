"""docs/providers.md lists what is tested here, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "providers.md"


def complaints() -> list[tuple[str, str]]:
    """The link and the name of each report's test, from the decorators of this folder's tests."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in node.decorator_list:
                    match mark:
                        case ast.Call(ast.Name("complaint"), [ast.Constant(str(link)), ast.Constant(str())]):
                            found.append((link, node.name))
    return found


def test_the_page_lists_exactly_the_reports_that_are_tested() -> None:
    tested = {link for link, _ in complaints()}
    listed = set(re.findall(r"https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\d+", PAGE.read_text()))
    assert listed - tested == set(), "in the table, but no test has this link"
    assert tested - listed == set(), "tested, but not in the table"


def test_at_least_the_given_reports_and_sixty_more_are_tested() -> None:
    assert len({link for link, _ in complaints()}) >= 100
