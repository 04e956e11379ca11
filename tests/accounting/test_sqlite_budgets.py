"""Budgets in the file of the SQLite ledger: exact, and shared by all who have it open."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from tests.accounting.support import DAY, START, held_by_a_thread, interrupt_at, row
from tests.accounting.test_sqlite import full_disk, ids, locked, old_file, opened

import shared_budgets
from ccroute.accounting import MemoryLedger, SqliteLedger
from ccroute.accounting.budgets import Account, BudgetStore, Claim, Scope
from ccroute.accounting.stores.sqlite import accounts, budgets, processes
from ccroute.accounting.stores.sqlite.processes import has_ended, this_process
from ccroute.types import Usage
from ccroute.types.clock import BEGINNING, END

HOUR = timedelta(hours=1)
LATER = START + timedelta(minutes=10)
ROUTER = Scope("router")
NOTHING = Decimal(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


def claim(scope: Scope = ROUTER, usd: Any = 10, tokens: int | None = None, **window: Any) -> Claim:
    """A budget of 10 USD for this day."""
    since, until = window.get("since", START), window.get("until", START + DAY)
    return Claim(scope, since, until, None if usd is None else Decimal(usd), tokens)


def reserve(store: BudgetStore, attempt: str, usd: Any = 1, *claims: Claim, tokens: int = 100) -> bool:
    """Whether so much was reserved; of a budget of 10 USD, if no other is named."""
    return store.reserve(attempt, claims or [claim()], Decimal(usd), tokens, LATER) is None


def money(store: BudgetStore, asked: Claim | None = None) -> tuple[Decimal, Decimal]:
    """What is spent and reserved, in USD."""
    [found] = store.accounts([asked or claim()])
    return found.spent_usd, found.reserved_usd


def tables_of(path: Path) -> set[str]:
    """The names of all that the file has: tables, indexes, triggers."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


# -- The same as in memory


class BudgetsMachine(RuleBasedStateMachine):
    """Two ledgers that share a file, and one in memory: they always agree."""

    attempts = Bundle("attempts")
    agents = st.sampled_from([None, "py", "js"])
    sessions = st.sampled_from([None, "", "a"])
    amounts = st.integers(0, 2_000_000).map(lambda micros: Decimal(micros).scaleb(-6))

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.shared = [SqliteLedger(Path(self.folder.name, "usage.db")) for _ in range(2)]
        self.memory = MemoryLedger()
        self.now = START
        self.numbers = itertools.count()

    def teardown(self) -> None:
        for ledger in self.shared:
            ledger.close()
        self.folder.cleanup()

    def claims(self, facts: dict[str, Any]) -> list[Claim]:
        """Of all scopes to which an attempt belongs, with windows and limits of several kinds."""
        agent, session = facts["agent"], facts["session"]
        hour, day = self.now.replace(minute=0), self.now.replace(hour=0, minute=0)
        found = [
            Claim(ROUTER, day, day + DAY, Decimal(9), None),
            Claim(Scope("backend", facts["backend"]), BEGINNING, END, Decimal(20), 9000),
        ]
        if agent is not None:
            found.append(Claim(Scope("agent", agent), hour, hour + HOUR, Decimal("1.5"), None))
            found.append(Claim(Scope("group", "devs"), hour, hour + HOUR, None, 4000))
        if session is not None:
            found.append(Claim(Scope("session", session), BEGINNING, END, Decimal("2.5"), None))
            found.append(Claim(Scope("router", "", session), BEGINNING, END, Decimal(3), 5000))
        if session is not None and agent is not None:
            found.append(Claim(Scope("agent", agent, session), day, day + DAY, Decimal(1), None))
        return found

    @rule(
        target=attempts,
        number=st.integers(0, 1),
        agent=agents,
        session=sessions,
        backend=st.sampled_from(["paid", "local"]),
        usd=amounts,
        tokens=st.integers(0, 2000),
    )
    def reserve(
        self, number: int, agent: str | None, session: str | None, backend: str, usd: Decimal, tokens: int
    ) -> tuple[str, int, dict[str, Any]]:
        facts = {"agent": agent, "group": agent and "devs", "session": session, "backend": backend}
        attempt, claims = f"i{next(self.numbers)}", self.claims(facts)
        answers = [
            ledger.budget_store().reserve(attempt, claims, usd, tokens, LATER)
            for ledger in (self.shared[number], self.memory)
        ]
        assert answers[0] == answers[1]
        return attempt, number, facts

    @rule(attempt=attempts, usd=amounts, tokens=st.integers(0, 2000))
    def settle(self, attempt: tuple[str, int, Any], usd: Decimal, tokens: int) -> None:
        id, number, _ = attempt
        for ledger in (self.shared[number], self.memory):
            ledger.budget_store().settle(id, usd, tokens)

    @rule(attempt=consumes(attempts), usd=st.none() | amounts, tokens=st.integers(0, 2000))
    def record(self, attempt: tuple[str, int, dict[str, Any]], usd: Decimal | None, tokens: int) -> None:
        id, number, facts = attempt
        one = row(id=id, started=self.now, cost=usd, usage=Usage(input=tokens), **facts)
        for ledger in (self.shared[number], self.memory):
            ledger.record(one)
            ledger.budget_store().count(one)

    @rule(minutes=st.integers(1, 600))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def forget(self) -> None:
        """All accounts, as after a long time."""
        self.shared[0].transaction(lambda cursor: accounts.forget(cursor, 2**63 - 1, 0))

    @invariant()
    def all_agree(self) -> None:
        for agent, session in itertools.product(["py", "js"], ["", "a"]):
            claims = self.claims({"agent": agent, "session": session, "backend": "paid"})
            expected = self.memory.budget_store().accounts(claims)
            for ledger in self.shared:
                assert ledger.budget_store().accounts(claims) == expected


TestBudgets = BudgetsMachine.TestCase
TestBudgets.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


# -- Accounts


def test_an_account_begins_with_the_rows_and_goes_on_with_them(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row(cost=Decimal(2), started=START - DAY))
        ledger.record(row(cost=Decimal(3)))
        ledger.record(row(cost=None))
        store = ledger.budget_store()
        assert money(store) == (3, 0)
        assert reserve(store, "a")
        assert money(store) == (3, 1)
        ledger.record(row(id="a", cost=Decimal("0.5")))
        assert money(store) == (Decimal("3.5"), 0)
        ledger.record(row(id="a", cost=Decimal("0.5")))
        assert money(store) == (Decimal("3.5"), 0)
        assert store.accounts([claim(usd=None, tokens=1)])[0].spent_tokens == 3 * 1100
    with opened(path) as again:
        assert [str(usd) for usd in money(again.budget_store())] == ["3.5", "0"], "no zeros at the end"
        assert not reserve(again.budget_store(), "b", "6.6")
        assert reserve(again.budget_store(), "b", "6.5")


def test_rows_of_ledgers_without_budgets_count(path: Path) -> None:
    with opened(path) as ledger, opened(path) as other:
        other.record(row())
        assert reserve(ledger.budget_store(), "a")
        other.record(row())
        assert money(ledger.budget_store()) == (2, 1)
        assert other.budgets is None


def test_a_file_without_accounts_has_no_trigger_for_rows(path: Path) -> None:
    with opened(path) as ledger:
        ledger.record(row())
        assert money(ledger.budget_store()) == (1, 0)
        assert {"attempt_counted", "attempts_by_session"} & tables_of(path) == set()
        reserve(ledger.budget_store(), "a")
        assert {"attempt_counted", "attempts_by_session"} & tables_of(path) == {"attempt_counted"}
        reserve(ledger.budget_store(), "b", 1, claim(Scope("session", "s")))
        assert "attempts_by_session" in tables_of(path)


def test_looking_at_budgets_makes_no_file(path: Path) -> None:
    with opened(path) as ledger:
        assert ledger.budget_store().accounts([claim()]) == [Account(NOTHING, 0, NOTHING, 0)]
        assert not path.exists()


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_has_accounts(path: Path, version: int) -> None:
    old_file(path, version, ["a", "b"])
    with opened(path) as ledger:
        assert money(ledger.budget_store()) == (2, 0)
        assert reserve(ledger.budget_store(), "c", 8)
        assert money(ledger.budget_store()) == (2, 8)


def test_a_call_at_midnight_oversteps_neither_day(path: Path) -> None:
    today, tomorrow = claim(), claim(since=START + DAY, until=START + 2 * DAY)
    with opened(path) as ledger:
        store = ledger.budget_store()
        assert reserve(store, "a", 7, today)
        assert not reserve(store, "b", 4, tomorrow)
        assert reserve(store, "b", 3, tomorrow)
        ledger.record(row(id="a", cost=Decimal(7), started=START + DAY - HOUR))
        ledger.record(row(id="b", cost=Decimal(2), started=START + DAY))
        assert money(store, tomorrow) == (2, 0)
        assert money(store, claim(until=START + DAY)) == (9, 0)


@pytest.mark.parametrize(
    ("costs", "more"),
    [
        (["0.1", "0.2", "0.000000000001"], "0"),
        (["0.0000000000001", "3"], "2e-12"),  # finer than a column's whole number
        (["9000000", "9000000", "0.5"], "1e-8"),  # more than SQLite's whole numbers hold
        (["12345678.9"], "1e-7"),
    ],
)
def test_an_account_is_never_less_than_its_rows(path: Path, costs: list[str], more: str) -> None:
    total, huge = sum(map(Decimal, costs)), claim(usd="1e9")
    with opened(path) as ledger, opened(path) as other:
        assert reserve(ledger.budget_store(), "a", 1, huge)
        for cost in costs:
            ledger.record(row(cost=Decimal(cost)))
        spent, _ = money(ledger.budget_store(), huge)
        assert total <= spent <= total + Decimal(more)
        ledger.transaction(lambda cursor: accounts.forget(cursor, 2**63 - 1, 0))
        assert money(other.budget_store(), huge) == (spent, 1)


@pytest.mark.parametrize(
    ("usd", "fit"), [("9.9999999999999", True), ("10", True), ("10.0000000000001", False)]
)
def test_a_reservation_is_never_rounded_down(path: Path, usd: str, fit: bool) -> None:
    with opened(path) as ledger:
        assert reserve(ledger.budget_store(), "a", usd) == fit
        assert not reserve(ledger.budget_store(), "b", "0.0000000000001") or not fit


def test_amounts_that_no_column_holds_are_still_compared(path: Path) -> None:
    with opened(path) as ledger:
        store = ledger.budget_store()
        assert not reserve(store, "a", "1e30", claim(usd="1e20"))
        assert reserve(store, "b", "9.9e19", claim(usd="1e20"))
        assert not reserve(store, "c", "2e18", claim(usd="1e20"))


def test_idle_accounts_are_forgotten_and_nothing_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "TIDY", 0)
    with opened(path) as ledger:
        store = ledger.budget_store()
        for number in range(50):
            own = claim(Scope("session", f"s{number}"), since=BEGINNING, until=END)
            assert reserve(store, f"i{number}", 1, own)
            ledger.record(row(id=f"i{number}", session=f"s{number}"))
        with contextlib.closing(sqlite3.connect(path)) as connection:  # LATER is long ago
            assert connection.execute("SELECT count(*) FROM accounts").fetchone() <= (1,)
        assert money(store, claim(Scope("session", "s0"), since=BEGINNING)) == (1, 0)


def test_budgets_that_nobody_has_any_more_cost_rows_nothing(path: Path) -> None:
    with opened(path) as ledger:
        assert reserve(ledger.budget_store(), "a")
        ledger.record(row(id="a"))
        assert reserve(ledger.budget_store(), "b")
    with opened(path) as ledger:  # LATER is long ago
        ledger.record(row())
        assert "attempt_counted" in tables_of(path), "something is reserved"
        ledger.record(row(id="b"))
    with opened(path) as ledger:
        ledger.record(row())
        assert "attempt_counted" not in tables_of(path)
        assert money(ledger.budget_store()) == (4, 0)


# -- Processes


HOLD = """
import sys, time
from decimal import Decimal
from tests.accounting.support import DAY, START
from ccroute.accounting import SqliteLedger
from ccroute.accounting.budgets import Claim, Scope
store = SqliteLedger(sys.argv[1]).budget_store()
today = Claim(Scope("router"), START, START + DAY, Decimal(10), None)
assert store.reserve("theirs", [today], Decimal(9), 100, START) is None
print("reserved", flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_reserved_is_free_at_once(path: Path) -> None:
    with opened(path) as ledger:
        store = ledger.budget_store()
        child = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"reserved\n"
        assert money(store) == (0, 9)
        assert not reserve(store, "mine", 2), "it expired long ago, but its process is there"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie
        assert reserve(ledger._new_budget_store(), "mine", 2)
        assert money(store) == (0, 2)
        child.communicate()


def test_explain_sees_what_a_killed_process_left(path: Path) -> None:
    with opened(path) as ledger:
        ran = subprocess.run([sys.executable, "-c", HOLD.replace("time.sleep(60)", ""), path])
        assert ran.returncode == 0
        assert money(ledger.budget_store()) == (0, 0)


@pytest.mark.parametrize(("after", "left"), [(timedelta(days=-1), 0), (timedelta(days=10_000), 9)])
def test_of_a_process_elsewhere_only_the_time_is_known(
    path: Path, after: timedelta, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as ledger:
        monkeypatch.setattr(budgets, "this_process", lambda: "0badf00d 1 1")
        assert ledger.budget_store().reserve("theirs", [claim()], Decimal(9), 1, START + after) is None
        monkeypatch.undo()
        assert money(ledger.budget_store()) == (0, left)
        assert reserve(ledger.budget_store(), "mine", 9) == (not left)


def test_a_process_is_known_by_more_than_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    place, pid, started = this_process().split(" ")
    assert has_ended(this_process()) is False
    assert has_ended(f"{place} {pid} {int(started) - 1}") is True
    assert has_ended(f"{place} {os.getppid()} 1") is True
    assert has_ended(f"{place} {2**22 + 1} {started}") is True
    assert has_ended(f"0badf00d {pid} {started}") is None
    monkeypatch.setattr(processes, "_state", lambda pid: ("", ""))  # hidden, as with hidepid=2
    assert has_ended(f"{place} {os.getppid()} 1") is None

    def not_permitted(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_permitted)
    assert has_ended(f"{place} 1 1") is None
    monkeypatch.setattr(processes, "open", not_permitted, raising=False)  # as elsewhere than on Linux
    assert processes._place() == ""
    assert has_ended(f" {os.getppid()} 1") is None


def test_a_child_leaves_its_parents_reservations(path: Path) -> None:
    with opened(path) as ledger:
        store = ledger.budget_store()
        assert reserve(store, "parent's", 3)
        store.settle("parent's", Decimal(2), 100)
        child = os.fork()
        if child == 0:
            store.settle("parent's", NOTHING, 0)
            fine = reserve(store, "child's", 4) and money(store) == (0, 6) and not reserve(store, "x", 5)
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert money(store) == (0, 2)
        store.settle("parent's", NOTHING, 0)
        assert money(store) == (0, 0)


def test_many_processes_never_overspend_and_nearly_use_it_up() -> None:
    command = [sys.executable, "-W", "error", shared_budgets.__file__, "--rounds", "2", "--processes", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert json.loads(done.stdout)["rounds"] == 2


# -- What cannot be written now


@pytest.mark.parametrize("trouble", [locked, full_disk])
def test_a_file_that_cannot_be_written_refuses(path: Path, trouble: Any) -> None:
    with opened(path) as ledger:
        store = ledger.budget_store()
        assert reserve(store, "a")
        with trouble(path):
            with pytest.raises(sqlite3.OperationalError):
                reserve(store, "b")
            with pytest.raises(sqlite3.OperationalError):
                ledger.record(row(id="a"))
            store.settle("a", NOTHING, 0)
            assert money(store) == (0, 1), "its row is not written"
        assert reserve(store, "b", 9)
        assert money(store) == (1, 9)
        assert ids(path) == ["a"]
        store.settle("b", NOTHING, 0)
        assert money(store) == (1, 0)


def test_settling_never_waits(path: Path) -> None:
    with opened(path) as ledger:
        store = ledger.budget_store()
        for attempt in ("a", "b", "c"):
            assert reserve(store, attempt)
        with held_by_a_thread(ledger._lock):
            store.settle("a", NOTHING, 0)
        assert money(store) == (0, 3)
        with locked(path):
            store.settle("b", Decimal("0.5"), 1)
        ledger.record(row(id="other"))
        assert money(store) == (1, Decimal("1.5"))
        store.settle("unknown", NOTHING, 0)
        store.settle("c", NOTHING, 0)
        assert money(store) == (1, Decimal("0.5"))


def test_a_finaliser_in_the_middle_of_a_reservation_settles_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as ledger:
        store = ledger.budget_store()
        assert reserve(store, "a", 9)
        account = accounts.read_account

        def finaliser(*arguments: Any) -> Account:
            store.settle("a", NOTHING, 0)
            return account(*arguments)

        monkeypatch.setattr(accounts, "read_account", finaliser)
        assert not reserve(store, "b", 2)
        monkeypatch.undo()
        assert reserve(store, "b", 2)
        assert money(store) == (0, 2)


def test_an_interrupt_at_any_instruction_leaves_nothing_reserved(path: Path) -> None:
    gc.collect()  # no finaliser of another test's ledger shall be interrupted
    with opened(path) as ledger:
        store, root = ledger.budget_store(), str(Path(accounts.__file__).parents[1])
        assert reserve(store, "first", 0)
        k, interrupted = 0, [True]
        while interrupted:
            k, fit = k + 1, False
            one = claim(Scope("agent", "py")) if k % 2 else claim(Scope("agent", f"a{k}"))
            with interrupt_at(k, root) as interrupted:
                fit = reserve(store, f"i{k}", 1, one)
            if interrupted:
                store.settle(f"i{k}", NOTHING, 0)  # as the attempt does that was interrupted
            assert money(store) == (0, int(fit))
            assert ledger._lock.acquire(blocking=False)
            ledger._lock.release()
    assert k > 10


def test_a_removed_file_begins_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.accounting.stores.sqlite.ledger.LOOK", 0)
    with opened(path) as ledger:
        store = ledger.budget_store()
        assert reserve(store, "a", 9)
        for name in os.listdir(path.parent):
            (path.parent / name).unlink()
        assert reserve(store, "b", 8)
        ledger.record(row(id="a", cost=Decimal(2)))
        store.settle("a", NOTHING, 0)
        assert money(store) == (2, 8)


def test_threads_share_a_ledgers_budgets(path: Path) -> None:
    with opened(path) as ledger:
        store, granted = ledger.budget_store(), []

        def spend(thread: int) -> None:
            for number in range(10):
                attempt = f"{thread}-{number}"
                if reserve(store, attempt, "0.7"):
                    granted.append(attempt)
                    ledger.record(row(id=attempt, cost=Decimal("0.7")))

        threads: list[threading.Thread] = [threading.Thread(target=spend, args=[i]) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(granted) == 14
        assert money(store) == (Decimal("9.8"), 0)
