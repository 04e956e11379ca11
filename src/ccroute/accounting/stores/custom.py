"""A ledger of the user's own, which has only `record` and `tallies`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from ccroute.accounting.ledger import Ledger, RowLedger
from ccroute.accounting.row import Key, LedgerRow
from ccroute.accounting.stores.base import ALL, MOST_WAITING, BaseLedger, log
from ccroute.accounting.tally import USUAL_TIERS, Lengths, Tally
from ccroute.errors import ConfigError


class OwnLedger(BaseLedger):
    """Gives rows to a ledger of the user's own. Those of finalisers come with the next row or report, because
    that ledger may wait for locks."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._queue = deque(maxlen=MOST_WAITING)

    def record(self, row: LedgerRow) -> None:
        """Give the ledger one row. Threads do so at the same time."""
        self._ledger.record(row)
        if self._queue:
            self.flush()

    def defer(self, row: LedgerRow) -> None:
        """Let one row wait."""
        self._queue.append(row)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        """The ledger's own. Raises `ConfigError` if it keeps none."""
        if not isinstance(self._ledger, RowLedger):
            raise ConfigError(
                f"ledger: {type(self._ledger).__name__} has no rows(since, until), so it keeps sums "
                "only: give it that method, which returns its rows, oldest first"
            )
        self.flush()
        return list(self._ledger.rows(since, until))

    def tallies(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        by: Sequence[str] = ALL,
        *,
        tiers: Sequence[Lengths] = USUAL_TIERS,
    ) -> Mapping[Key, Tally]:
        """The ledger's own, of everything."""
        self.flush()
        return self._ledger.tallies(since, until)

    def _keep(self, rows: list[LedgerRow], *, wait: bool) -> None:
        while rows:
            row = rows.pop(0)
            try:
                self._ledger.record(row)
            except Exception as error:  # the reader of a report cannot help it
                log.error("the ledger could not record call %s, which was abandoned: %s", row.call, error)
