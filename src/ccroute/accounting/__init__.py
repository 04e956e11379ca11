"""Token estimates, prices, the ledger and its reports. Money is exact decimals, never floats.

Knows usage and prices; must not know requests' contents beyond their length, nor backends.
"""

from typing import TYPE_CHECKING

from ccroute.accounting.ledger import Ledger, MemoryLedger, RowLedger
from ccroute.accounting.prices import PriceBook, cost
from ccroute.accounting.tally import LedgerRow
from ccroute.lazy import loader

if TYPE_CHECKING:
    from ccroute.accounting.report import Report

__all__ = ["Ledger", "LedgerRow", "MemoryLedger", "PriceBook", "Report", "RowLedger", "cost"]

__getattr__ = loader(__name__, {"Report": "ccroute.accounting.report"})
