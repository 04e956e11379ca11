"""What it cost: token estimates, prices, the ledger and its reports. Exact decimals, never floats.

Knows usage and prices; must not know requests' contents beyond their length, nor backends.
"""

from ccroute.accounting.ledger import Ledger, LedgerRow, MemoryLedger, RowLedger
from ccroute.accounting.prices import PriceBook, cost
from ccroute.accounting.report import Report

__all__ = ["Ledger", "LedgerRow", "MemoryLedger", "PriceBook", "Report", "RowLedger", "cost"]
