"""A router gives back the rows of its ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal

import pandas
import pytest
from tests.accounting.support import DAY, START, row

from ccroute import OllamaBackend, Router, errors
from ccroute.accounting import Ledger, LedgerRow, MemoryLedger, RowLedger
from ccroute.accounting.row import Key
from ccroute.accounting.tally import Tally
from ccroute.types import Usage


class TotalsLedger:
    """A user's ledger that keeps no rows."""

    def record(self, row: LedgerRow) -> None: ...

    def tallies(self, since: datetime | None = None, until: datetime | None = None) -> Mapping[Key, Tally]:
        return {}


class RowsLedger(TotalsLedger):
    """A user's ledger that reads its rows one by one."""

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[LedgerRow]:
        yield row(id=f"{since} {until}")


def test_rows_are_those_of_the_ledger_oldest_first() -> None:
    ledger = MemoryLedger()
    for day in (1, 0, 2):
        ledger.record(row(started=START + day * DAY))
    with Router([OllamaBackend()], ledger=ledger) as router:
        assert [each.started for each in router.rows()] == [START, START + DAY, START + 2 * DAY]
        assert [each.started for each in router.rows(START + DAY, until=START + 2 * DAY)] == [START + DAY]


def test_pandas_makes_a_table_of_rows() -> None:
    ledger = MemoryLedger()
    ledger.record(row())
    with Router([OllamaBackend()], ledger=ledger) as router:
        table = pandas.DataFrame(router.rows())
    assert (table["agent"][0], table["cost"][0], table["deployment"][0]) == ("py", 1, "paid/m")


def test_a_row_is_flat_json() -> None:
    one = row(
        usage=Usage(input=3, cache_read=2, output=1, estimated=True),
        cost=Decimal("0.0005"),
        metadata={"ticket": "PAY-204"},
    )
    shown = one.to_dict()
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["input"], shown["cache_read"], shown["output"], shown["estimated"]) == (3, 2, 1, True)
    assert (shown["cost"], shown["override_saved"], shown["started"]) == ("0.0005", None, START.isoformat())
    assert shown["metadata"] == {"ticket": "PAY-204"}
    assert shown.keys() == (set(LedgerRow._fields) - {"usage"}) | Usage.model_fields.keys()
    table = pandas.DataFrame([one.to_dict()])
    assert table["input"].sum() == 3


def test_a_report_is_json_too() -> None:
    ledger = MemoryLedger()
    ledger.record(row(cost=Decimal("0.0005")))
    ledger.record(row(agent="other", cost=None, latency=None))
    with Router([OllamaBackend()], ledger=ledger) as router:
        shown = router.report(by=("agent", "day")).to_dict()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["by"] == ["agent", "day"]
    assert [line["cost"] for line in shown["rows"]] == ["0.0005", None]
    assert (shown["total"]["cost"], shown["total"]["baseline_cost"]) == ("0.0005", None)


def test_a_users_ledger_may_have_rows_too() -> None:
    ledger = RowsLedger()
    assert isinstance(ledger, RowLedger)
    with Router([OllamaBackend()], ledger=ledger) as router:
        assert [each.id for each in router.rows(START)] == [f"{START} None"]


def test_a_ledger_without_rows_is_an_error_that_names_the_method() -> None:
    ledger: Ledger = TotalsLedger()
    with Router([OllamaBackend()], ledger=ledger) as router:
        with pytest.raises(errors.ConfigError, match=r"^ledger: TotalsLedger has no rows\(since, until\)"):
            router.rows()
        assert list(router.report()) == []
