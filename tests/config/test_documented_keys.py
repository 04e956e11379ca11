"""docs/configuration.md lists every key there is, and no other."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from ccroute.config.native.settings import (
    NOT_YET,
    AgentTable,
    BackendTable,
    BudgetTable,
    ModelTable,
    PriceTable,
    Settings,
)
from ccroute.types import RetryPolicy, Timeout

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")


def rows(heading):
    """The cells of the first table after a text."""
    table = PAGE.partition(heading)[2].partition("| --- ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[1:]]


def keys(cell):
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("### All keys", set(Settings.keys()) - set(NOT_YET)),
        ("\n`backends.<name>`", BackendTable.keys()),
        ("\n`backends.<name>.models.<model>`", ModelTable.keys()),
        ("\n`agents.<name>`", AgentTable.keys()),
    ],
)
def test_each_key_of_a_table_is_documented_once(heading, known):
    assert sorted(key for row in rows(heading) for key in keys(row[0])) == sorted(known)


@pytest.mark.parametrize(("table", "made"), [("retry", RetryPolicy()), ("timeout", Timeout())])
def test_retry_and_timeout_are_documented_with_their_defaults(table, made):
    found = {key: row[3] for row in rows("`groups.<name>` takes") if table in row[0] for key in keys(row[1])}
    assert found.keys() == asdict(made).keys() - {"wait"}  # a function, which no file can hold
    for name in ("first", "attempt"):
        found.pop(name, None)  # its default is in words
    assert {key: float(default) for key, default in found.items()} == {
        key: getattr(made, key) for key in found
    }


@pytest.mark.parametrize(("name", "table"), [("prices", PriceTable), ("budgets", BudgetTable)])
def test_the_keys_of_a_price_and_of_a_budget_are_documented(name, table):
    found = [key for row in rows("`groups.<name>` takes") if name in row[0] for key in keys(row[1])]
    assert found == table.keys()


def test_what_is_not_enforced_is_documented():
    sentence = re.search(r"^`cache`.*?but\s+not", PAGE, re.MULTILINE | re.DOTALL)
    assert keys(sentence[0]) == [*NOT_YET]
