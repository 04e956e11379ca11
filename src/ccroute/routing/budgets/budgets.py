"""Reserves what attempts may spend, and keeps the queues of those that wait. For threads, tasks and
finalisers.

Knows the lock and the order of waiting; must not know what is sent, and must not sleep: a flow sleeps, and is
woken. The store has what is spent and reserved.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from ccroute.accounting.budgets import BudgetStore, Claim, Scope, covers
from ccroute.accounting.money import NOTHING
from ccroute.accounting.row import LedgerRow
from ccroute.routing.budgets.reservation import Reservation
from ccroute.routing.budgets.worst_case import Blocked, judge, strictest
from ccroute.types.clock import END, Clock
from ccroute.types.locks import Inbox

LOOK: Final = 0.05
"""Seconds after which the first in a queue looks again, if other processes change the budgets."""
LOOK_AT_ALL: Final = 1.0
"""Seconds after which any waiting attempt looks at all queues: the event loop of the first one may hang."""
_MOST_TRIES: Final = 3
Decide: TypeAlias = Callable[[Reservation, Sequence[Claim]], Blocked | None]


class Budgets:
    """The reservations of one router, and its waiting attempts.

    Attempts that wait for others in flight are served in the order of arrival. A later attempt with a budget
    of the same scope waits behind them. Attempts that wait for the next window hold up no other: a smaller
    one may still fit into this window.
    """

    def __init__(self, store: BudgetStore, clock: Clock) -> None:
        self.store = store
        self._clock = clock
        self._queues: dict[Scope, list[tuple[int, Reservation]]] = {}
        self._later: dict[int, Reservation] = {}  # by their tickets
        self._begins = END  # when the first of the windows begins that they wait for
        self._arrivals = 0
        self._looked = 0.0
        self._inbox = Inbox(self._apply)

    def ask(self, reservation: Reservation, now: datetime) -> None:
        """Ask for the first time, `now` (UTC). Then the reservation is granted, or `blocked` says by what."""
        with self._inbox.lock:
            if self._inbox:
                self._inbox.read()
            self._decide(reservation, now)
            if reservation.blocked is not None:
                self._arrivals += 1
                reservation.ticket = self._arrivals
                self._put(reservation)
        if self._inbox:
            self._inbox.drain()

    def wait(self, reservation: Reservation) -> float:
        """Seconds after which to call this again. 0: the reservation is granted, or refused (`blocked`).

        Called again after a sleep of that time, or earlier if the attempt was woken.
        """
        with self._inbox.lock:
            self._inbox.read()
            reservation.woken = False
            now, queue = self._clock.monotonic(), reservation.queue
            if now - self._looked >= LOOK_AT_ALL:
                self._looked = now
                for scope in list(self._queues):
                    self._advance(scope)
            elif isinstance(queue, Scope) and self._first(queue) is reservation:
                self._advance(queue)
            if self._later:
                self._begin_windows()
            seconds = self._seconds(reservation)
        self._inbox.drain()
        return seconds

    def leave(self, reservation: Reservation) -> None:
        """Stop waiting, and end the reservation: nothing was sent. Never waits."""
        self._inbox.append((reservation, None))
        self._inbox.drain()

    def spend(self, reservation: Reservation, row: LedgerRow) -> None:
        """The attempt has ended, but its call has not: reserve only what its row will have. Never waits."""
        self.store.settle(reservation.attempt, row.cost or NOTHING, row.usage.total_tokens)
        if self._queues:
            self._wake(row)

    def count(self, row: LedgerRow) -> None:
        """Count a row that was given to the ledger. Never waits."""
        self.store.count(row)
        if self._queues:
            self._wake(row)

    def foresee(self, reservation: Reservation) -> None:
        """Set what the reservation would get now: `blocked`, or `output`. Reserves nothing."""
        self._decide(reservation, self._clock.now(), self._look)

    def waiting(self) -> list[str]:
        """The name of the budget that each waiting attempt waits for."""
        with self._inbox.lock:
            self._inbox.read()
            queued = (each for queue in self._queues.values() for _, each in queue if each.queue is not None)
            blocked = [each.blocked for each in {*queued, *self._later.values()}]
        self._inbox.drain()
        return [each.need.name for each in blocked if each is not None]

    def after_fork(self) -> None:
        """In a forked child: replace the lock, which may belong to a thread of the parent, and forget the
        waiting attempts, which are the parent's."""
        self._inbox.renew()
        self._inbox.clear()
        self._queues.clear()
        self._later.clear()

    def _wake(self, row: LedgerRow) -> None:
        """Wake the attempts that wait for what the row has freed."""
        self._inbox.append((None, row))
        self._inbox.drain()

    def _apply(self, left: Reservation | None, row: LedgerRow | None) -> None:
        """Remove an attempt that has left, and wake the first attempt of each queue that it or the row may
        have freed something for. The caller has the lock."""
        if left is not None:
            left.queue = None
            self._later.pop(left.ticket, None)
            self.store.settle(left.attempt, NOTHING, 0)  # reserved by an interrupted `ask`
        for scope in list(self._queues):
            if row is not None and not covers(scope, row):
                continue
            while (first := self._first(scope)) is not None and not first.wake():
                first.queue = None  # its loop has ended

    def _look(self, reservation: Reservation, claims: Sequence[Claim]) -> Blocked | None:
        """What would block the reservation now; None: nothing. Raises the store's error."""
        found = judge(reservation.worst, reservation.needs, claims, self.store.accounts(claims))
        if isinstance(found, Blocked):
            return found
        reservation.output, reservation.shortened_by = found
        return None

    # The callers of all of the following have the lock.

    def _decide(self, reservation: Reservation, now: datetime, decide: Decide | None = None) -> None:
        """Grant the reservation, or set `blocked`."""
        needs = reservation.needs
        claims = needs.claims(now)
        try:
            reservation.blocked = (decide or self._reserve)(reservation, claims)
        except Exception as error:  # the ledger's
            i = strictest(needs, range(len(needs)))
            until = claims[i].until
            reservation.blocked = Blocked(needs[i], claims[i], None, "unknown", until, error)

    def _reserve(self, reservation: Reservation, claims: Sequence[Claim]) -> Blocked | None:
        """Grant the reservation, or return what blocks it. Raises the store's error."""
        worst, needs, store = reservation.worst, reservation.needs, self.store
        behind = self._behind(reservation) if self._queues else None
        if behind is not None or worst.price is None:
            accounts = store.accounts(claims)
            found = judge(worst, needs, claims, accounts)
            if isinstance(found, Blocked) and found.reason != "in flight":
                return found
            if behind is not None:
                claim = claims[behind]
                return Blocked(needs[behind], claim, accounts[behind], "in flight", claim.until)
        output, shortened_by, account = worst.output, None, None
        for _ in range(_MOST_TRIES):
            usd, tokens = worst.usd(output), worst.tokens(output)
            lacking = store.reserve(reservation.attempt, claims, usd, tokens, reservation.expires)
            if lacking is None:
                reservation.output, reservation.shortened_by, reservation.granted = output, shortened_by, True
                return None
            found = judge(worst, needs, claims, lacking)
            if isinstance(found, Blocked):
                return found
            (output, shortened_by), account = found, lacking[0]
        return Blocked(needs[0], claims[0], account, "in flight", claims[0].until)  # of other processes

    def _behind(self, reservation: Reservation) -> int | None:
        """The place of the first need for which an earlier attempt waits; None: no earlier attempt waits."""
        worst, ticket = reservation.worst, reservation.ticket
        for i, need in enumerate(reservation.needs):
            first = self._first(need.scope)
            if first is not None and (not ticket or first.ticket < ticket):
                budget = need.budget
                if budget.tokens is not None or (budget.usd is not None and worst.usd(worst.output)):
                    return i
        return None

    def _put(self, reservation: Reservation) -> None:
        """Put the reservation into the queue of the budget that blocks it, or into none if it does not
        wait."""
        blocked = reservation.blocked
        reservation.queue = None
        if blocked is not None and blocked.reason == "in flight":
            scope = reservation.queue = blocked.need.scope
            heapq.heappush(self._queues.setdefault(scope, []), (reservation.ticket, reservation))
        elif blocked is not None and blocked.may_wait:
            reservation.queue = "next window"
            self._later[reservation.ticket] = reservation
            self._begins = min(self._begins, blocked.until)

    def _first(self, scope: Scope) -> Reservation | None:
        """The first attempt in the queue of this scope. Drops those before it that have left."""
        queue = self._queues.get(scope)
        while queue:
            first = queue[0][1]
            if first.queue == scope:
                return first
            heapq.heappop(queue)
        if queue is not None:
            del self._queues[scope]
        return None

    def _advance(self, scope: Scope) -> None:
        """Let the attempts in a queue go on for which there is room, in order."""
        changed, now = False, self._clock.now()
        while (first := self._first(scope)) is not None:
            self._decide(first, now)
            blocked = first.blocked
            if blocked is not None and blocked.reason == "in flight" and blocked.need.scope == scope:
                break
            heapq.heappop(self._queues[scope])
            self._go_on(first)
            changed = True
        if changed and first is not None and self.store.shared:
            first.wake()  # it is the first one now, so it has to look more often

    def _begin_windows(self) -> None:
        """Let the attempts go on that waited for a window that has begun, in order."""
        now = self._clock.now()
        if now < self._begins:
            return
        waiting, self._begins = sorted(self._later.items()), END
        for ticket, first in waiting:
            blocked = first.blocked
            if blocked is not None and now < blocked.until:
                self._begins = min(self._begins, blocked.until)
            elif self._later.pop(ticket, None) is not None:
                self._decide(first, now)
                self._go_on(first)

    def _go_on(self, reservation: Reservation) -> None:
        """Move the reservation to its new queue or out of all, and wake its attempt."""
        self._put(reservation)
        if not reservation.wake():
            self._apply(reservation, None)

    def _seconds(self, reservation: Reservation) -> float:
        queue = reservation.queue
        if isinstance(queue, Scope):
            is_first = self.store.shared and self._first(queue) is reservation
            return LOOK if is_first else LOOK_AT_ALL
        if queue is None or reservation.blocked is None:
            return 0.0
        return max((reservation.blocked.until - self._clock.now()).total_seconds(), 0.001)
