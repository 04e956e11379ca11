"""Token estimates, prices, the ledger and its reports. Money is exact decimals, never floats.

Knows usage and prices; must not know requests' contents beyond their length, nor backends.
"""

from ccroute.accounting.ledger import Ledger, MemoryLedger, RowLedger
from ccroute.accounting.prices import PriceBook, cost
from ccroute.accounting.report import Report
from ccroute.accounting.tally import LedgerRow

__all__ = ["Ledger", "LedgerRow", "MemoryLedger", "PriceBook", "Report", "RowLedger", "cost"]
