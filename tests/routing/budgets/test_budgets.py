"""Who may spend and who waits, on a clock that is set: no loop, no network."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.accounting.support import row
from tests.flow.support import NOON
from tests.routing.budgets.support import Bed, Money

from ccroute import Budget
from ccroute.accounting import MemoryLedger
from ccroute.accounting.budgets import Account, Claim
from ccroute.accounting.stores.memory_budgets import MemoryBudgets
from ccroute.routing.budgets.budgets import LOOK, LOOK_AT_ALL
from ccroute.routing.budgets.reservation import Reservation
from ccroute.types.clock import END

TEN = Budget(10, per="total")


class Shared(MemoryBudgets):
    """A store that other processes change too; each of `changes` is one of theirs, before a reservation."""

    shared = True

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self.changes: list[Any] = []

    def reserve(
        self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int, expires: datetime
    ) -> list[Account] | None:
        if self.changes:
            self.changes.pop(0)(claims)
        return super().reserve(attempt, claims, usd, tokens, expires)


# -- Reserved and settled


def test_what_is_reserved_counts_until_it_is_settled() -> None:
    money = Money({"a": TEN})
    first = money.gets(6)
    assert money.spent() == (0, 6)
    money.ends(first, 2)
    assert money.spent() == (2, 0)
    money.gets(8)


def test_what_does_not_fit_beside_what_is_spent_is_refused() -> None:
    money = Money({"a": TEN})
    money.ends(money.gets(10), 8)
    way = money.misses(3)
    assert (way.reason, way.need.name, way.account and way.account.spent_usd) == ("spent", "agent:a", 8)
    assert money.spent() == (8, 0)
    money.gets(2)


def test_nothing_is_reserved_if_one_of_several_budgets_has_no_room() -> None:
    money = Money({"router": Budget(100), "group:g": TEN})
    money.ends(money.gets(9, "b"), 9, agent="b")
    assert money.misses(2, "a").need.name == "group:g"
    assert money.spent("a", 0) == (9, 0)
    assert money.gets(2, "c").granted, "it is in no group"


def test_what_was_not_sent_is_free_at_once() -> None:
    money = Money({"a": TEN})
    money.gets(10).settle(None)
    assert money.spent() == (0, 0)
    money.gets(10)


def test_a_failed_attempt_keeps_what_its_row_will_say() -> None:
    money = Money({"a": TEN})
    first = money.gets(10)
    written = money.row(first, 4)
    first.spend(written)
    assert money.spent() == (0, 4)
    money.gets(6)
    money.ledger.record(written)
    money.budgets.count(written)
    assert money.spent() == (4, 6)


def test_more_than_was_reserved_counts_as_it_was() -> None:
    money = Money({"a": TEN})
    money.ends(money.gets(5), 12)
    assert money.spent() == (12, 0)
    assert money.misses(1).reason == "spent"


def test_a_free_attempt_passes_a_spent_budget_and_its_queue() -> None:
    money = Money({"a": TEN})
    first = money.gets(10)
    money.waits(1)
    assert money.gets(500, free=True).granted
    money.ends(first, 10)
    assert money.gets(500, free=True).granted


# -- Waiting


def test_who_may_fit_when_others_have_ended_waits_for_them() -> None:
    money = Money({"a": TEN})
    first = money.gets(8)
    second, bed = money.waits(5)
    assert second.blocked is not None
    assert second.blocked.reason == "in flight"
    assert money.budgets.waiting() == ["agent:a"]
    money.ends(first, 3)
    assert bed.woken == 1
    assert money.budgets.wait(second) == 0
    assert second.granted
    assert money.budgets.waiting() == []


def test_who_waits_is_refused_once_it_cannot_fit_any_more() -> None:
    money = Money({"a": TEN})
    first = money.gets(8)
    second, bed = money.waits(5)
    money.ends(first, 8)
    assert bed.woken == 1
    assert money.budgets.wait(second) == 0
    assert not second.granted
    assert second.blocked is not None
    assert second.blocked.reason == "spent"


def test_those_that_wait_are_served_in_the_order_of_arrival() -> None:
    money = Money({"a": TEN})
    first = money.gets(10)
    waiting = [money.waits(usd) for usd in (6, 1, 3)]
    assert money.asks(1).queue is not None, "one that would fit does not pass"
    money.ends(first, 0)
    assert [bed.woken for _, bed in waiting] == [1, 0, 0], "the first one looks"
    assert money.budgets.wait(waiting[0][0]) == 0
    assert [each.granted for each, _ in waiting] == [True] * 3
    assert [bed.woken for _, bed in waiting] == [2, 1, 1], "and lets the others go"


def test_nobody_passes_one_that_waits_for_the_same_scope() -> None:
    money = Money({"a": TEN})
    money.gets(9)
    money.waits(5)
    late, _ = money.waits(1)
    assert late.blocked is not None
    assert late.blocked.reason == "in flight"


def test_a_wait_for_one_agent_holds_up_no_other() -> None:
    money = Money({"router": Budget(100), "a": TEN})
    money.gets(10)
    money.waits(5)
    money.gets(50, "b")


def test_one_behind_others_that_can_never_fit_is_refused_at_once() -> None:
    money = Money({"a": TEN})
    money.gets(9)
    money.waits(5)
    assert money.misses(11).reason == "spent"


def test_one_that_moves_to_another_queue_keeps_its_place_in_time() -> None:
    money = Money({"router": Budget(20, per="total"), "a": TEN})
    own, other = money.gets(10, "a"), money.gets(8, "c")
    first, bed = money.waits(10, "a")
    assert first.blocked is not None
    assert first.blocked.need.name == "router"
    later, later_bed = money.waits(10, "c")
    money.ends(other, 0, agent="c")  # the router has room for the first now; its own budget has none
    assert bed.woken == 1
    assert money.budgets.wait(first) > 0
    assert first.queue is not None
    assert later.granted, "nothing that it needs is waited for"
    money.ends(own, 0)
    assert money.budgets.wait(first) == 0
    assert first.granted
    assert later_bed.woken == 1


def test_who_leaves_lets_the_next_one_go_on() -> None:
    money = Money({"a": TEN})
    money.gets(5)
    first, _ = money.waits(8)
    second, bed = money.waits(2)
    first.settle(None)
    assert bed.woken == 1
    assert money.budgets.wait(second) == 0
    assert second.granted
    assert money.spent() == (0, 7)


def test_one_that_was_granted_and_leaves_gives_it_back() -> None:
    money = Money({"a": TEN})
    first = money.gets(10)
    second, _ = money.waits(6)
    third, bed = money.waits(6)
    money.ends(first, 0)
    assert money.budgets.wait(second) == 0
    second.settle(None)
    assert bed.woken == 1
    assert money.budgets.wait(third) == 0
    assert money.spent() == (0, 6)


def test_a_call_whose_loop_has_ended_holds_up_nobody() -> None:
    money = Money({"a": TEN})
    first = money.gets(10)
    gone, _ = money.waits(10, there=False)
    second, bed = money.waits(4)
    money.ends(first, 0)
    assert (gone.queue, bed.woken) == (None, 1)
    assert money.budgets.wait(second) == 0
    assert money.spent() == (0, 4)


def test_a_grant_for_a_call_that_is_gone_is_taken_back() -> None:
    money = Money({"a": TEN})
    first = money.gets(10)
    head, _ = money.waits(1)
    money.waits(4, there=False)
    third, _ = money.waits(5)
    money.ends(first, 0)
    assert money.budgets.wait(head) == 0
    assert money.budgets.wait(third) == 0
    assert money.spent() == (0, 6)


def test_others_go_on_though_the_first_one_hangs() -> None:
    money = Money({"a": TEN})
    first = money.gets(10)
    hangs, _ = money.waits(2)
    second, _ = money.waits(2)
    money.ends(first, 0)
    assert money.budgets.wait(second) == LOOK_AT_ALL
    assert money.after(LOOK_AT_ALL).budgets.wait(second) == 0
    assert second.granted
    assert hangs.granted, "its turn came, too: it need not be there for that"


def test_a_wait_that_was_over_before_the_sleep_is_no_sleep() -> None:
    money = Money({"a": TEN})
    first, second = money.gets(10), money.asks(5)
    assert money.budgets.wait(second) > 0
    money.ends(first, 0)
    assert not second.sleeps(Bed())


# -- Windows


def test_a_new_window_begins_with_nothing_spent() -> None:
    money = Money({"a": Budget(10, per="hour")})
    money.ends(money.gets(10), 10)
    assert money.misses(1).until == NOON + timedelta(hours=1)
    money.after(3600).gets(10)


def test_what_is_in_flight_over_midnight_counts_in_both_windows() -> None:
    money = Money({"a": Budget(10, per="hour")})
    begun = money.after(3599).clock.now()
    first, late = money.gets(6), money.gets(4)
    second, _ = money.after(2).waits(5)
    money.ends(first, 6, started=begun)
    assert money.budgets.wait(second) == 0
    assert money.spent() == (0, 9), "the row belongs to the old window"
    money.ends(late, 4)
    assert money.spent() == (4, 5), "one whose sending was put off belongs to the new one"


def test_who_queues_waits_for_the_next_window_and_is_passed() -> None:
    money = Money({"a": Budget(10, per="hour", then="queue")})
    money.ends(money.gets(8), 8)
    late, bed = money.waits(5)
    assert money.budgets.wait(late) == 3600
    assert money.budgets.waiting() == ["agent:a"]
    assert money.gets(2).granted, "others may still fit"
    assert money.after(3599.5).budgets.wait(late) == 0.5
    assert money.after(0.5).budgets.wait(late) == 0
    assert late.granted
    assert bed.woken == 1


def test_all_that_queue_for_a_window_go_in_their_order() -> None:
    money = Money({"a": Budget(10, per="hour", then="queue")})
    money.ends(money.gets(10), 10)
    first, second, third = (money.waits(6)[0] for _ in range(3))
    third.settle(None)
    assert money.after(3600).budgets.wait(second) == LOOK_AT_ALL
    assert first.granted
    money.ends(first, 0)
    assert money.budgets.wait(second) == 0


def test_a_window_that_ends_too_late_is_still_seen_to_end() -> None:
    money = Money({"a": Budget(10, per="month", then="queue")})
    money.ends(money.gets(10), 10)
    late, _ = money.waits(1)
    assert money.budgets.wait(late) == timedelta(days=29.5).total_seconds()


def test_what_costs_more_than_the_whole_limit_waits_for_no_window() -> None:
    money = Money({"a": Budget(10, per="hour", then="queue")})
    assert money.misses(11).is_final
    money.ends(money.gets(9), 9)
    assert money.misses(11).is_final
    shorter, _ = money.waits(11, may_shorten=True)
    assert money.after(3600).budgets.wait(shorter) == 0
    assert (shorter.granted, shorter.output) == (True, 10)


def test_a_window_without_end_is_not_waited_for() -> None:
    money = Money({"a": Budget(10, per="total", then="queue")})
    money.ends(money.gets(9), 9)
    assert money.misses(2).is_final


# -- Shortened answers


def test_an_answer_is_shortened_to_what_is_left() -> None:
    money = Money({"router": Budget(100), "a": TEN})
    money.ends(money.gets(3), 3)
    asked = money.gets(50, may_shorten=True)
    assert (asked.output, asked.shortened_by and asked.shortened_by.name) == (7, "agent:a")
    assert money.spent("a", 1) == (3, 7)


def test_one_that_may_be_shortened_waits_rather_than_be_cut_for_others() -> None:
    money = Money({"a": TEN})
    first = money.gets(9)
    second, _ = money.waits(10, may_shorten=True)
    money.ends(first, 1)
    assert money.budgets.wait(second) == 0
    assert second.output == 9


@pytest.mark.parametrize(("usd", "reason"), [(6, None), (10, "in flight"), (11, "spent")])
def test_to_foresee_reserves_nothing(usd: int, reason: str | None) -> None:
    money = Money({"a": TEN})
    money.gets(4)
    asked = Reservation(money.budgets, money.table.needs("a", "g", "main", None), "", money.worst(usd), END)
    money.budgets.foresee(asked)
    way = asked.blocked
    assert (None if way is None else way.reason) == reason
    assert asked.output == (0 if reason else usd)
    assert money.spent() == (0, 4)


# -- Sessions


def test_each_session_spends_its_own_budget() -> None:
    money = Money({"session": TEN})
    money.gets(10, session="one")
    money.waits(1, session="one")
    money.gets(10, session="two")
    assert money.account(session="two").reserved_usd == 10


# -- Stores that others change, or that fail


def test_the_first_in_a_queue_looks_often_at_what_other_processes_change() -> None:
    ledger = MemoryLedger()
    store = Shared(ledger)
    money = Money({"a": TEN}, ledger=ledger, store=store)
    others = money.gets(10)
    first, second = money.waits(4)[0], money.waits(4)
    assert (money.budgets.wait(first), money.budgets.wait(second[0])) == (LOOK, LOOK_AT_ALL)
    store.settle(others.attempt, Decimal(5), 0)  # by another process, so nobody is woken
    assert money.budgets.wait(first) == 0
    assert second[1].woken == 1, "from now on it is the one that looks"
    assert money.budgets.wait(second[0]) == LOOK


def test_what_others_take_meanwhile_is_seen_before_it_is_spent() -> None:
    ledger = MemoryLedger()
    store = Shared(ledger)
    money = Money({"a": TEN}, ledger=ledger, store=store)

    def take(claims: Sequence[Claim]) -> None:
        store.count(row(agent="a", cost=Decimal(2)))

    store.changes = [lambda _: None, take, take]  # each reservation comes too late
    asked = money.asks(50, may_shorten=True)
    assert not asked.granted
    assert asked.blocked is not None
    assert asked.blocked.reason == "in flight"
    assert money.budgets.wait(asked) == 0
    assert asked.output == 6


def test_without_a_store_nothing_is_allowed_and_the_error_is_kept() -> None:
    money = Money({"router": Budget(5, then="fallback"), "a": TEN})

    def fails(*_: object) -> Any:
        raise OSError("disk full")

    money.budgets.store.reserve = fails  # type: ignore[method-assign]  # a fake for this test
    way = money.misses(1)
    assert (way.reason, way.need.name, repr(way.error)) == ("unknown", "agent:a", "OSError('disk full')")


# -- Threads, finalisers, forks


def test_settling_in_the_middle_of_the_lock_never_waits() -> None:
    money = Money({"a": TEN})
    first, second = money.gets(4), money.gets(4)
    third, bed = money.waits(8)
    with money.budgets._inbox.lock:  # a finaliser in the middle of ask()
        money.ends(first, 0)
        second.settle(None)
        assert bed.woken == 0
    money.budgets.waiting()
    assert bed.woken > 0
    assert money.budgets.wait(third) == 0


def test_one_that_leaves_in_the_middle_of_anothers_question_is_let_go() -> None:
    money = Money({"a": TEN})
    first = money.gets(4)
    reserve = money.budgets.store.reserve

    def interrupted(*given: Any) -> Any:
        first.settle(None)  # by a finaliser
        return reserve(*given)

    money.budgets.store.reserve = interrupted  # type: ignore[method-assign]  # a fake for this test
    money.gets(5)
    assert money.spent() == (0, 5)


def test_a_reservation_collected_in_the_middle_of_the_lock_is_free() -> None:
    money = Money({"a": TEN})
    held: list[Any] = [money.gets(10)]

    def flow() -> Any:
        try:
            yield
        finally:
            held[0].settle(None)

    begun: list[Any] = [flow()]
    next(begun[0])
    begun.append(begun)  # only the collector can end it
    with money.budgets._inbox.lock:
        del begun
        gc.collect()
    assert money.gets(10).granted


def test_a_forked_child_waits_for_no_lock_and_counts_for_itself() -> None:
    money = Money({"a": TEN})
    money.ends(money.gets(5), 5)
    money.gets(5)
    money.waits(5)
    store = money.store
    assert isinstance(store, MemoryBudgets)
    money.budgets._inbox.lock.acquire()
    store._inbox.lock.acquire()
    money.budgets.after_fork()
    money.ledger.after_fork()
    assert money.budgets.waiting() == []
    assert money.spent() == (5, 0), "what was spent is spent; who runs, runs in the parent"


def test_thirty_two_threads_never_spend_a_cent_too_much() -> None:
    money, over = Money({"router": Budget(50, per="total"), "a": Budget(40, per="total")}), list[int]()
    barrier = threading.Barrier(32)

    def spend(number: int) -> None:
        barrier.wait()
        for usd in (3, 1, 2):
            asked, bed = money.asks(usd, "a" if number % 2 else "b"), threading.Event()

            class Thread(Bed):
                def wake(self, bed: threading.Event = bed) -> bool:
                    bed.set()
                    return True

            while (seconds := money.budgets.wait(asked)) and asked.sleeps(Thread()):
                bed.wait(seconds)
                bed.clear()
            if asked.granted:
                over.extend(sum(money.spent("a", place)) - limit for place, limit in ((0, 50), (1, 40)))
                money.ends(asked, 1, agent="a" if number % 2 else "b")

    threads = [threading.Thread(target=spend, args=[number]) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(over) <= 0
    assert money.spent("a", 0) == (50, 0)


@pytest.mark.parametrize("number", [20_000])
def test_thousands_that_wait_cost_no_more_each(number: int) -> None:
    money = Money({"a": TEN})
    first = money.gets(10)
    waiting = [money.asks(1) for _ in range(number)]
    money.ends(first, 0)
    assert money.budgets.wait(waiting[0]) == 0
    assert [each.granted for each in waiting[:11]] == [True] * 10 + [False]
    assert len(money.budgets.waiting()) == number - 10


def test_calls_that_do_not_wait_for_the_window_are_forgotten() -> None:
    money = Money({"a": Budget(10, per="month", then="queue")})
    money.ends(money.gets(9), 9)
    for _ in range(100):
        asked = money.asks(5)
        assert money.budgets.wait(asked) > 3600
        asked.settle(None)
        left = weakref.ref(asked)
        del asked
    gc.collect()
    assert left() is None


def test_for_each_window_they_go_on_in_their_order() -> None:
    money = Money({"a": Budget(10, per="hour", then="queue"), "c": Budget(10, then="queue")})
    money.ends(money.gets(10), 10)
    money.ends(money.gets(10, "c"), 10, agent="c")
    tomorrow, _ = money.waits(6, "c")
    first, _ = money.waits(6)
    second, _ = money.waits(6)
    assert money.after(3600).budgets.wait(second) > 0
    assert (first.granted, second.granted, tomorrow.granted) == (True, False, False)
    money.ends(first, 4)
    assert money.budgets.wait(second) == 0
    money.after(12 * 3600).budgets.wait(tomorrow)
    assert tomorrow.granted
