"""A ledger that the user has written: it has only `record` and `tallies`, and perhaps `rows`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from ccroute.accounting.ledger import Ledger, RowLedger
from ccroute.accounting.row import Key, LedgerRow
from ccroute.accounting.stores.base import ALL, MOST_WAITING, BaseLedger, log
from ccroute.accounting.tally import USUAL_TIERS, Lengths, Tally
from ccroute.errors import ConfigError


class CustomLedger(BaseLedger):
    """Gives rows to the user's ledger. A finaliser's row waits for the next row or report, because the user's
    ledger may wait for locks."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._queue = deque(maxlen=MOST_WAITING)

    def record(self, row: LedgerRow) -> None:
        """Give one row to the user's ledger. Several threads may do so at the same time."""
        self._ledger.record(row)
        if self._queue:
            self.flush()

    def defer(self, row: LedgerRow) -> None:
        """Let one row wait."""
        self._queue.append(row)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        """The rows of the user's ledger. Raises `ConfigError` if it has no `rows`."""
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
        """The sums of the user's ledger, by all parts of the key and at the usual tiers."""
        self.flush()
        return self._ledger.tallies(since, until)

    def _keep(self, rows: list[LedgerRow], *, wait: bool) -> None:
        while rows:
            row = rows.pop(0)
            try:
                self._ledger.record(row)
            except Exception as error:  # the caller is a later row or a report, so the error is not its own
                log.error("the ledger could not record call %s, which was abandoned: %s", row.call, error)
