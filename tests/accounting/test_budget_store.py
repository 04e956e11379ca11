"""What is spent and reserved: what every ledger's store of budgets promises, and the one in memory alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from tests.accounting.support import START, row

from ccroute.accounting import BaseLedger, LedgerRow, MemoryLedger, open_ledger
from ccroute.accounting.budgets import Account, BudgetStore, Claim, Kind, Scope, covers
from ccroute.accounting.row import Key
from ccroute.accounting.stores.memory_budgets import MemoryBudgets
from ccroute.accounting.tally import Tally
from ccroute.types import Usage
from ccroute.types.clock import BEGINNING, END

NewLedger = Callable[[], BaseLedger]
LATER = START + timedelta(hours=1)


def claim(
    kind: Kind = "agent",
    name: str = "py",
    session: str | None = None,
    *,
    since: datetime = START,
    until: datetime = END,
    usd: Any = 10,
    tokens: int | None = None,
) -> Claim:
    return Claim(Scope(kind, name, session), since, until, None if usd is None else Decimal(usd), tokens)


ROUTER = claim("router", "")


def write(ledger: BaseLedger, **facts: Any) -> LedgerRow:
    """Record a row of one dollar and 1,100 tokens, as a call does."""
    written = row(**facts)
    ledger.record(written)
    ledger.budget_store().count(written)
    return written


def reserve(store: BudgetStore, attempt: str, *claims: Claim, usd: Any = 4, tokens: int = 1) -> bool:
    return store.reserve(attempt, claims or (claim(),), Decimal(usd), tokens, END) is None


def stands(store: BudgetStore, *claims: Claim) -> list[tuple[Decimal, int, Decimal, int]]:
    return [tuple(account) for account in store.accounts(claims or (claim(),))]


# -- What is spent


def test_an_account_begins_with_what_the_ledger_says(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    for number in range(3):
        ledger.record(row(agent=("py", "py", "js")[number]))
    assert stands(ledger.budget_store()) == [(2, 2200, 0, 0)]


def test_rows_count_in_each_account_that_they_belong_to(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    kinds: list[tuple[Kind, str]] = [
        ("agent", "py"),
        ("group", "devs"),
        ("backend", "paid"),
        ("session", "s"),
    ]
    claims = [ROUTER, *(claim(kind, name) for kind, name in kinds)]
    claims += [claim("router", "", "s"), *(claim(kind, name, "s") for kind, name in kinds[:3])]
    claims += [claim(kind, "other") for kind, _ in kinds]
    claims += [claim("router", "", "other"), claim("agent", "py", "other")]
    store = ledger.budget_store()
    for _ in range(2):
        write(ledger)
        spent = [account.spent_usd for account in store.accounts(claims)]
        assert set(spent[:9]) == {1 + _}
        assert set(spent[9:]) == {0}
    write(ledger, agent=None, group=None, session=None, backend="free")
    assert [account.spent_usd for account in store.accounts(claims)] == [3, *[2] * 8, *[0] * 6]


def test_only_rows_from_the_beginning_of_a_window_count(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    store = ledger.budget_store()
    day, hour, always = claim(), claim(since=LATER), claim(since=BEGINNING)
    write(ledger, started=START - timedelta(seconds=1))
    assert stands(store, day, hour, always) == [(0, 0, 0, 0), (0, 0, 0, 0), (1, 1100, 0, 0)]
    write(ledger, started=LATER - timedelta(microseconds=1))
    write(ledger, started=LATER)
    assert [each[0] for each in stands(store, day, hour, always)] == [2, 1, 3]


def test_unknown_costs_count_for_their_tokens(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    store = ledger.budget_store()
    for _ in range(2):  # in the ledger's sums, and as a row
        assert stands(store)[0][0] == 0
        write(ledger, cost=None)
        store = ledger.budget_store()
    assert stands(store) == [(0, 2200, 0, 0)]


def test_tokens_of_a_cache_count_as_all_others(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    used = Usage(input=1, cache_read=20, cache_write_5m=300, cache_write_1h=4000, output=50_000, reasoning=9)
    ledger.record(row(usage=used))
    store = ledger.budget_store()
    assert stands(store) == [(1, 54_321, 0, 0)]
    write(ledger, usage=used)
    assert stands(store) == [(2, 108_642, 0, 0)]


def test_money_is_exact(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    store = ledger.budget_store()
    limit = claim(usd="0.3")
    for number in range(3):
        assert reserve(store, f"r{number}", limit, usd="0.1")
        write(ledger, id=f"r{number}", cost=Decimal("0.1"))
    assert not reserve(store, "r4", limit, usd="0.000000000001")
    assert stands(store, limit)[0][0] == Decimal("0.3")


def test_a_row_that_a_finaliser_deferred_counts(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    store = ledger.budget_store()
    assert reserve(store, "r")
    deferred = row(id="r")
    ledger.defer(deferred)
    store.count(deferred)
    ledger.flush()
    assert stands(store) == [(1, 1100, 0, 0)]


# -- What is reserved


def test_a_reservation_takes_all_of_its_budgets_or_none(new_ledger: NewLedger) -> None:
    store = new_ledger().budget_store()
    small = claim("group", "devs", usd=5)
    assert reserve(store, "one", claim(), small)
    lacking = store.reserve("two", (claim(), small), Decimal(4), 1, END)
    assert lacking == [Account(Decimal(0), 0, Decimal(4), 1)] * 2
    assert stands(store, claim(), small) == [(0, 0, 4, 1)] * 2
    assert reserve(store, "three")


@pytest.mark.parametrize(
    ("usd", "tokens", "fits"), [(6, 60, True), (7, 60, False), (6, 61, False), (0, 60, True)]
)
def test_a_reservation_fits_up_to_the_limit(new_ledger: NewLedger, usd: int, tokens: int, fits: bool) -> None:
    ledger = new_ledger()
    limit = claim(tokens=1200)
    store = ledger.budget_store()
    assert reserve(store, "first", limit, usd=3, tokens=40)
    write(ledger)
    assert reserve(store, "second", limit, usd=usd, tokens=tokens) is fits


def test_what_costs_nothing_fits_a_budget_that_is_overspent(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    write(ledger, cost=Decimal(50))
    store = ledger.budget_store()
    assert reserve(store, "free", usd=0, tokens=5)
    assert not reserve(store, "paid", usd="0.01")
    assert not reserve(store, "tokens", claim(tokens=1104), usd=0, tokens=0)


@pytest.mark.parametrize("usd", ["0", "0.25", "100"])
def test_an_amount_is_written_as_people_write_it(new_ledger: NewLedger, usd: str) -> None:
    ledger = new_ledger()
    write(ledger, cost=Decimal(usd))
    (account,) = ledger.budget_store().accounts([claim()])
    assert (str(account.spent_usd), str(account.reserved_usd)) == (usd, "0")


def test_a_reservation_ends_when_its_row_is_counted(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    store = ledger.budget_store()
    assert reserve(store, "r", claim(), ROUTER, usd=9)
    write(ledger, id="r")
    assert stands(store, claim(), ROUTER) == [(1, 1100, 0, 0)] * 2


def test_settling_leaves_what_the_row_will_say(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    store = ledger.budget_store()
    assert reserve(store, "r", usd=9, tokens=90)
    store.settle("r", Decimal(1), 1100)
    assert stands(store) == [(0, 0, 1, 1100)]
    write(ledger, id="r")
    assert stands(store) == [(1, 1100, 0, 0)]


def test_an_attempt_that_was_settled_with_nothing_may_reserve_again(new_ledger: NewLedger) -> None:
    store = new_ledger().budget_store()
    for _ in range(3):
        assert reserve(store, "r", usd=9)
        store.settle("r", Decimal(0), 0)
    assert stands(store) == [(0, 0, 0, 0)]
    assert reserve(store, "r", usd=10)


def test_to_settle_an_unknown_attempt_changes_nothing(new_ledger: NewLedger) -> None:
    store = new_ledger().budget_store()
    store.settle("unknown", Decimal(0), 0)
    store.settle("unknown", Decimal(5), 5)
    assert stands(store) == [(0, 0, 0, 0)]


def test_a_reservation_counts_in_each_window(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    store = ledger.budget_store()
    assert reserve(store, "r", claim(until=LATER))
    assert stands(store, claim(since=LATER)) == [(0, 0, 4, 1)]
    write(ledger, id="r", started=LATER - timedelta(seconds=1))
    assert stands(store, claim(since=LATER)) == [(0, 0, 0, 0)]


def test_one_ledger_has_one_store(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    assert ledger.budgets is None
    assert ledger.budget_store() is ledger.budget_store() is ledger.budgets


# -- In memory


@pytest.fixture
def store() -> MemoryBudgets:
    found = MemoryLedger().budget_store()
    assert isinstance(found, MemoryBudgets)
    return found


def test_a_row_that_is_just_being_written_counts_once(store: MemoryBudgets) -> None:
    assert reserve(store, "r")
    written = row(id="r", started=LATER)
    store._ledger.record(written)
    write(store._ledger, agent="js", started=LATER)
    assert stands(store, claim(since=LATER)) == [(0, 0, 4, 1)], "it is still reserved"
    store.count(written)
    assert stands(store, claim(), claim(since=LATER)) == [(1, 1100, 0, 0)] * 2


def test_windows_that_are_over_are_forgotten(store: MemoryBudgets) -> None:
    for hour in range(30):
        since = START + timedelta(hours=hour)
        stands(store, claim(since=since, until=since + timedelta(hours=1)), claim(since=BEGINNING))
    assert len(store._windows) == 2


def test_the_ledger_is_read_once_for_all_budgets_of_a_window(store: MemoryBudgets) -> None:
    asked, sums = list[object](), store._ledger.tallies
    write(store._ledger)
    store._ledger.tallies = lambda *given, **more: asked.append(given) or sums(*given, **more)  # type: ignore[method-assign, func-returns-value]  # a fake for this test
    claims = [claim(kind, name) for kind, name in (("router", ""), ("agent", "py"), ("group", "devs"))]
    assert [spent for spent, *_ in stands(store, *claims)] == [1, 1, 1]
    assert len(asked) == 1


def test_a_session_without_rows_is_not_looked_up_in_the_ledger(store: MemoryBudgets) -> None:
    stands(store, claim("session", "first", since=BEGINNING))
    asked: list[object] = []
    store._ledger.tallies = lambda *_, **__: asked.append(1) or {}  # type: ignore[method-assign, func-returns-value]  # a fake for this test
    stands(store, claim("session", "second", since=BEGINNING))
    assert asked == []


def test_the_session_that_was_asked_for_longest_ago_is_forgotten(
    store: MemoryBudgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccroute.accounting.stores.memory_budgets.MOST_SESSIONS", 3)
    for name in ("a", "b", "c", "a", "d"):
        write(store._ledger, session=name)
        stands(store, claim("session", name))
    [window] = store._windows.values()
    assert {scope.name for scope in window.spent} == {"c", "a", "d"}
    assert stands(store, claim("session", "a"))[0][0] == 2


def test_rows_that_nobody_asks_about_are_not_kept(store: MemoryBudgets) -> None:
    stands(store)
    for _ in range(1000):
        write(store._ledger)
    assert len(store._inbox) < 64
    assert stands(store)[0][0] == 1000


def test_a_ledger_of_ones_own_that_keeps_sums_only_is_enough() -> None:
    class Sums:
        def __init__(self) -> None:
            self.sums: dict[Key, Tally] = {}

        def record(self, row: LedgerRow) -> None:
            self.sums.setdefault(row.key(), Tally()).add(row)

        def tallies(
            self, since: datetime | None = None, until: datetime | None = None
        ) -> Mapping[Key, Tally]:
            return self.sums

    ledger, _ = open_ledger(Sums())
    write(ledger)
    store = ledger.budget_store()
    assert reserve(store, "r")
    assert stands(store, claim(since=LATER)) == [(1, 1100, 4, 1)]
    write(ledger, id="r", started=LATER)
    assert stands(store, claim(since=LATER)) == [(2, 2200, 0, 0)]


def test_the_sums_of_a_ledger_that_fails_are_an_error_and_nothing_is_reserved(store: MemoryBudgets) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise OSError("no database")

    store._ledger.tallies = fails  # type: ignore[method-assign]  # a fake for this test
    with pytest.raises(OSError, match="no database"):
        reserve(store, "r")
    assert store._reservations == {}
    assert not store._inbox.lock.locked()


def test_what_comes_in_the_middle_of_a_reservation_is_applied_after_it(store: MemoryBudgets) -> None:
    sums = store._ledger.tallies

    def slow(*given: Any, **options: Any) -> Any:
        store.settle("first", Decimal(0), 0)  # by a finaliser
        return sums(*given, **options)

    assert reserve(store, "first", ROUTER)
    store._ledger.tallies = slow  # type: ignore[method-assign]  # a fake for this test
    assert reserve(store, "second")
    assert store._reservations.keys() == {"second"}


def test_which_rows_a_scope_covers() -> None:
    mine = row()
    scopes = [Scope("router"), Scope("agent", "py"), Scope("backend", "paid", "s"), Scope("session", "s")]
    assert all(covers(scope, mine) for scope in scopes)
    others = [
        Scope("agent", "js"),
        Scope("agent", "py", "t"),
        Scope("router", "", "t"),
        Scope("session", "t"),
    ]
    assert not any(covers(scope, mine) for scope in others)


# -- Any numbers


def test_money_stays_exact_where_a_program_rounds_decimals(new_ledger: NewLedger) -> None:
    store = new_ledger().budget_store()
    with localcontext(Context(prec=2)):
        assert reserve(store, "large", usd="9.99")
        assert reserve(store, "small", usd="0.0099")
        assert not reserve(store, "beyond", usd="0.0002")
        assert stands(store) == [(0, 0, Decimal("9.9999"), 2)]
        store.settle("large", Decimal("9.98"), 1)
        store.settle("small", Decimal(0), 0)
        assert stands(store) == [(0, 0, Decimal("9.98"), 1)]


def test_numbers_of_tokens_beyond_any_column_are_no_error(new_ledger: NewLedger) -> None:
    store = new_ledger().budget_store()
    assert reserve(store, "free", usd=0, tokens=10**30)
    store.settle("free", Decimal(0), 0)
    assert reserve(store, "usual", claim(tokens=10**30))
    assert not reserve(store, "beyond", claim(tokens=100), tokens=10**30)
    assert stands(store) == [(0, 0, 4, 1)]
