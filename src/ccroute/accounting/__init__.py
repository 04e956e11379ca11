"""Token estimates, prices, the ledger and its reports. Money is exact decimals, never floats.

Knows usage and prices; must not know requests' contents beyond their length, nor backends.
"""

from typing import TYPE_CHECKING

from ccroute.accounting.ledger import Ledger, RowLedger
from ccroute.accounting.prices import PriceBook, cost
from ccroute.accounting.row import Key, LedgerRow
from ccroute.accounting.stores.base import BaseLedger
from ccroute.accounting.stores.memory import MemoryLedger
from ccroute.accounting.stores.opening import open_ledger
from ccroute.accounting.tally import Tally, tallied
from ccroute.lazy import loader

if TYPE_CHECKING:
    from ccroute.accounting.report import Report
    from ccroute.accounting.stores.postgres.ledger import PostgresLedger
    from ccroute.accounting.stores.sqlite.ledger import SqliteLedger

__all__ = [
    "BaseLedger",
    "Key",
    "Ledger",
    "LedgerRow",
    "MemoryLedger",
    "PostgresLedger",
    "PriceBook",
    "Report",
    "RowLedger",
    "SqliteLedger",
    "Tally",
    "cost",
    "open_ledger",
    "tallied",
]

__getattr__ = loader(
    __name__,
    {
        "PostgresLedger": "ccroute.accounting.stores.postgres.ledger",
        "Report": "ccroute.accounting.report",
        "SqliteLedger": "ccroute.accounting.stores.sqlite.ledger",
    },
)
