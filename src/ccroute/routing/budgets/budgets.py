"""Who may spend, and who waits for whom, for threads, tasks and finalisers at once.

Knows the lock and the order of those that wait; must not know what is sent, nor sleep: a flow sleeps, and is
woken. What is spent and reserved is in the store.
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
from ccroute.routing.budgets.worst_case import InTheWay, judge, strictest
from ccroute.types.clock import END, Clock
from ccroute.types.locks import Inbox

LOOK: Final = 0.05
"""Seconds after which the first in a queue looks again at budgets that other processes change."""
LOOK_AT_ALL: Final = 1.0
"""Seconds after which anyone who waits looks at all queues: the first in one may be in a loop that hangs."""
_MOST_TRIES: Final = 3
Decide: TypeAlias = Callable[[Reservation, Sequence[Claim]], InTheWay | None]


class Budgets:
    """The waits of one router for its budgets.

    Those that wait for others in flight are served in the order of arrival: nobody passes them who needs of
    the same scope. Those that wait for the next window are passed: others may still fit into this one.
    """

    def __init__(self, store: BudgetStore, clock: Clock) -> None:
        self.store = store
        self._clock = clock
        self._queues: dict[Scope, list[tuple[int, Reservation]]] = {}
        self._later: dict[int, Reservation] = {}  # by their tickets
        self._begins = END  # when the first window begins that one of them waits for
        self._arrivals = 0
        self._looked = 0.0
        self._inbox = Inbox(self._apply)

    def ask(self, reservation: Reservation, now: datetime) -> None:
        """Ask for the first time, `now` (UTC): it is granted, or something is `in_the_way`."""
        with self._inbox.lock:
            if self._inbox:
                self._inbox.read()
            self._decide(reservation, now)
            if reservation.in_the_way is not None:
                self._arrivals += 1
                reservation.ticket = self._arrivals
                self._put(reservation)
        if self._inbox:
            self._inbox.drain()

    def wait(self, reservation: Reservation) -> float:
        """Seconds after which to look again; 0: it is granted, or refused by what is `in_the_way`.

        Asked again after a sleep of so many seconds, which may end sooner.
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
        """It waits no longer, and nothing is reserved for it: nothing was sent. Never waits."""
        self._inbox.append((reservation, None))
        self._inbox.drain()

    def spend(self, reservation: Reservation, row: LedgerRow) -> None:
        """The attempt is over before its call is; what its row does not say is free. Never waits."""
        self.store.settle(reservation.attempt, row.cost or NOTHING, row.usage.total_tokens)
        if self._queues:
            self._wake(row)

    def count(self, row: LedgerRow) -> None:
        """The row was given to the ledger. Never waits."""
        self.store.count(row)
        if self._queues:
            self._wake(row)

    def foresee(self, reservation: Reservation) -> None:
        """Put down what would be in its way now. Reserves nothing."""
        self._decide(reservation, self._clock.now(), self._look)

    def waiting(self) -> list[str]:
        """For each one that waits, the name of the budget that it waits for."""
        with self._inbox.lock:
            self._inbox.read()
            queued = (each for queue in self._queues.values() for _, each in queue if each.queue is not None)
            ways = [each.in_the_way for each in {*queued, *self._later.values()}]
        self._inbox.drain()
        return [way.need.name for way in ways if way is not None]

    def after_fork(self) -> None:
        """In a forked child: the lock may belong to a thread that is not here, and who waits is the
        parent's."""
        self._inbox.renew()
        self._inbox.clear()
        self._queues.clear()
        self._later.clear()

    def _wake(self, row: LedgerRow) -> None:
        """Let those look again who wait for what the row has made free."""
        self._inbox.append((None, row))
        self._inbox.drain()

    def _apply(self, left: Reservation | None, row: LedgerRow | None) -> None:
        """Let one go, and wake the first of those who may go on because of that, or of a row. Only with the
        lock."""
        if left is not None:
            left.queue = None
            self._later.pop(left.ticket, None)
            self.store.settle(left.attempt, NOTHING, 0)  # an interrupt may have come before it was granted
        for scope in list(self._queues):
            if row is not None and not covers(scope, row):
                continue
            while (first := self._first(scope)) is not None and not first.wake():
                first.queue = None  # its loop has ended

    def _look(self, reservation: Reservation, claims: Sequence[Claim]) -> InTheWay | None:
        """None: it would be granted. Raises the store's error."""
        found = judge(reservation.worst, reservation.needs, claims, self.store.standings(claims))
        if isinstance(found, InTheWay):
            return found
        reservation.output, reservation.shortened_by = found
        return None

    # All of the following only with the lock.

    def _decide(self, reservation: Reservation, now: datetime, decide: Decide | None = None) -> None:
        """Grant it, or put down what is in its way."""
        needs = reservation.needs
        claims = needs.claims(now)
        try:
            reservation.in_the_way = (decide or self._reserve)(reservation, claims)
        except Exception as error:  # the ledger's
            i = strictest(needs, range(len(needs)))
            until = claims[i].until
            reservation.in_the_way = InTheWay(needs[i], claims[i], None, "unknown", until, error)

    def _reserve(self, reservation: Reservation, claims: Sequence[Claim]) -> InTheWay | None:
        """None: it is granted. Raises the store's error."""
        worst, needs, store = reservation.worst, reservation.needs, self.store
        behind = self._behind(reservation) if self._queues else None
        if behind is not None or worst.price is None:
            standings = store.standings(claims)
            found = judge(worst, needs, claims, standings)
            if isinstance(found, InTheWay) and found.because != "in flight":
                return found
            if behind is not None:
                claim = claims[behind]
                return InTheWay(needs[behind], claim, standings[behind], "in flight", claim.until)
        output, shortened_by, standing = worst.output, None, None
        for _ in range(_MOST_TRIES):
            usd, tokens = worst.usd(output), worst.tokens(output)
            lacking = store.reserve(reservation.attempt, claims, usd, tokens, reservation.expires)
            if lacking is None:
                reservation.output, reservation.shortened_by, reservation.granted = output, shortened_by, True
                return None
            found = judge(worst, needs, claims, lacking)
            if isinstance(found, InTheWay):
                return found
            (output, shortened_by), standing = found, lacking[0]
        return InTheWay(needs[0], claims[0], standing, "in flight", claims[0].until)  # of other processes

    def _behind(self, reservation: Reservation) -> int | None:
        """The place of the first need that others wait for, who came before; None: it is nobody's turn
        sooner."""
        worst, ticket = reservation.worst, reservation.ticket
        for i, need in enumerate(reservation.needs):
            first = self._first(need.scope)
            if first is not None and (not ticket or first.ticket < ticket):
                budget = need.budget
                if budget.tokens is not None or (budget.usd is not None and worst.usd(worst.output)):
                    return i
        return None

    def _put(self, reservation: Reservation) -> None:
        """Into the queue where it waits for what is in its way; out of all where it does not wait."""
        way = reservation.in_the_way
        reservation.queue = None
        if way is not None and way.because == "in flight":
            scope = reservation.queue = way.need.scope
            heapq.heappush(self._queues.setdefault(scope, []), (reservation.ticket, reservation))
        elif way is not None and way.may_wait:
            reservation.queue = "next window"
            self._later[reservation.ticket] = reservation
            self._begins = min(self._begins, way.until)

    def _first(self, scope: Scope) -> Reservation | None:
        """The first one that waits for others of this scope. Those that have left are forgotten."""
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
        """Let those go on for whom there is room, in their order."""
        changed, now = False, self._clock.now()
        while (first := self._first(scope)) is not None:
            self._decide(first, now)
            way = first.in_the_way
            if way is not None and way.because == "in flight" and way.need.scope == scope:
                break
            heapq.heappop(self._queues[scope])
            self._go_on(first)
            changed = True
        if changed and first is not None and self.store.shared:
            first.wake()  # from now on it is the one that looks

    def _begin_windows(self) -> None:
        """Let those go on who waited for a window that has begun, in their order."""
        now = self._clock.now()
        if now < self._begins:
            return
        waiting, self._begins = sorted(self._later.items()), END
        for ticket, first in waiting:
            way = first.in_the_way
            if way is not None and now < way.until:
                self._begins = min(self._begins, way.until)
            elif self._later.pop(ticket, None) is not None:
                self._decide(first, now)
                self._go_on(first)

    def _go_on(self, reservation: Reservation) -> None:
        """Wake it, for its case is another one now."""
        self._put(reservation)
        if not reservation.wake():
            self._apply(reservation, None)

    def _seconds(self, reservation: Reservation) -> float:
        queue = reservation.queue
        if isinstance(queue, Scope):
            is_first = self.store.shared and self._first(queue) is reservation
            return LOOK if is_first else LOOK_AT_ALL
        if queue is None or reservation.in_the_way is None:
            return 0.0
        return max((reservation.in_the_way.until - self._clock.now()).total_seconds(), 0.001)
