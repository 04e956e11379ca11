"""The base of all ledgers: a queue, and one thread at a time that writes what waits in it."""

from __future__ import annotations

import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from ccroute.accounting.row import Key, LedgerRow
from ccroute.accounting.tally import USUAL_TIERS, Lengths, Tally
from ccroute.types.locks import lock_tries, lock_turn

if TYPE_CHECKING:
    from ccroute.accounting.budgets import BudgetStore

MOST_WAITING: Final = 10_000
"""The most rows that wait while they cannot be written. Then the oldest are dropped."""
ALL: Final = Key._fields
log = logging.getLogger("ccroute")


class BaseLedger(ABC):
    """A ledger with a queue, where each row waits until it is written.

    So no row is lost while a disk is full or a file is locked: it is written with the next one. And a
    finaliser can record at any moment. If it interrupts a write of its own thread, its row waits until that
    write continues, which then also writes this row.
    """

    budgets: BudgetStore | None = None
    """The store of budgets; None until a router with budgets has asked for it."""

    def __init__(self) -> None:
        self._queue = deque[LedgerRow]()
        self._taken: list[LedgerRow] = []  # from the queue, to be written by the thread with the lock
        self._kept = 0  # how many rows stay in the queue
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock in a forked child: a thread that the child does not have may hold it."""
        self._lock = threading.RLock()
        self._tries, self._turn = lock_tries(self._lock), lock_turn(self._lock)
        self._busy = (
            False  # the lock's holder is in the middle of a change, so a finaliser must change nothing
        )
        if self.budgets is not None:
            self.budgets.after_fork()

    def record(self, row: LedgerRow) -> None:
        """Record one row. When this returns, the row is stored.

        Raises the store's error; then the row waits, and is stored with a later one.
        """
        self._queue.append(row)
        self._store(wait=True)

    def defer(self, row: LedgerRow) -> None:
        """Record one row without waiting, as a finaliser must. If another thread stores rows just now, it
        stores this one too, or the next row takes it along."""
        self._queue.append(row)
        self._store(wait=False)

    def flush(self) -> None:
        """Store the rows that wait. Raises the store's error."""
        self._store(wait=True)

    def close(self) -> None:
        """Store the rows that wait, and close what is open. A later row is still stored."""
        self.settle()

    def settle(self) -> None:
        """Store the rows that wait. An error is only logged."""
        try:
            self.flush()
        except Exception as error:
            waiting = len(self._queue) + len(self._taken)
            log.error("ledger: %d rows could not be stored: %s", waiting, error)

    def budget_store(self) -> BudgetStore:
        """The store of budgets, one for all routers that share this ledger. From now on, each call counts its
        rows in it.

        By default it is in memory, and first reads the ledger. A ledger whose database has the accounts
        overrides `_new_budget_store`.
        """
        with self._lock:
            if self.budgets is None:
                self.budgets = self._new_budget_store()
            return self.budgets

    def _new_budget_store(self) -> BudgetStore:
        from ccroute.accounting.stores.memory_budgets import MemoryBudgets  # loaded at its first use

        return MemoryBudgets(self)

    @abstractmethod
    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        """The rows started in [since, until), oldest first."""

    @abstractmethod
    def tallies(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        by: Sequence[str] = ALL,
        *,
        tiers: Sequence[Lengths] = USUAL_TIERS,
    ) -> Mapping[Key, Tally]:
        """Sums over the rows started in [since, until), per `Key`.

        Only those parts of a key that `by` names need to be set. Tokens of known price are summed up
        separately for each range of prompt lengths in `tiers`, or in `USUAL_TIERS` if the rows are gone.
        """

    @abstractmethod
    def _keep(self, rows: list[LedgerRow], *, wait: bool) -> None:
        """Store the rows and empty the list. After an error, the rows that are left in it are passed
        again."""

    def _store(self, *, wait: bool) -> None:
        queue, taken = self._queue, self._taken
        for _ in self._turn() if wait else self._tries():
            try:
                if self._busy:  # this is a finaliser in the middle of a write, which will write its row
                    return
                try:
                    self._busy = True
                    while (more := len(queue) - self._kept) > 0 or taken:
                        # One call, so an interrupt loses no row in the middle of it.
                        taken.extend(islice(iter(queue.popleft, None), max(0, more)))
                        self._keep(taken, wait=wait)
                finally:
                    self._busy = False
                    del taken[:-MOST_WAITING]
            finally:
                self._lock.release()
            return

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Hold the lock, so that nothing is stored meanwhile, not even by a finaliser."""
        with self._lock:
            before, self._busy = self._busy, True
            try:
                yield
            finally:
                self._busy = before

    def _waiting(self) -> list[LedgerRow]:
        """The rows that are not stored. The caller has the lock."""
        return [*self._taken, *self._queued()]

    def _queued(self) -> list[LedgerRow]:
        while True:
            try:
                return list(self._queue)
            except RuntimeError:  # another thread recorded meanwhile
                continue
