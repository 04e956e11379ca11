"""A sick backend gets a bounded number of extra attempts, however many callers there are."""

from __future__ import annotations

import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.flow.support import FakeClock

from ccroute.routing import RetryBudget
from ccroute.routing.acquired import AttemptOutcome


def fresh() -> tuple[RetryBudget, FakeClock]:
    clock = FakeClock()
    return RetryBudget(clock.monotonic), clock


def drained(backend: str = "a") -> tuple[RetryBudget, FakeClock]:
    budget, clock = fresh()
    assert all(budget.take(backend, 1) for _ in range(10))
    return budget, clock


def available(budget: RetryBudget, backend: str = "a") -> int:
    """How many more attempts at 1 it pays for; they are taken."""
    return next(count for count in range(1000) if not budget.take(backend, 1))


def test_a_backend_begins_with_ten() -> None:
    budget, _ = fresh()
    assert budget.allows("a", 10)
    assert available(budget) == 10
    assert not budget.allows("a", 1)


def test_each_backend_has_its_own() -> None:
    budget, _ = drained()
    assert not budget.take("a", 1)
    assert budget.take("b", 10)


def test_what_cannot_be_paid_takes_nothing() -> None:
    budget, _ = fresh()
    assert budget.take("a", 9)
    assert not budget.take("a", 2)
    assert budget.take("a", 1)


def test_to_look_takes_nothing() -> None:
    budget, _ = fresh()
    assert all(budget.allows("a", 10) for _ in range(20))
    assert available(budget) == 10


def test_an_attempt_at_no_cost_is_always_allowed() -> None:
    budget, _ = drained()
    assert budget.allows("a", 0)
    assert budget.take("a", 0)


def test_ten_first_attempts_pay_for_one_more() -> None:
    budget, _ = drained()
    for _ in range(9):
        budget.first("a")
    assert not budget.allows("a", 1)
    budget.first("a")
    budget.first("a")  # tenths do not add up to ones exactly
    assert available(budget) == 1


@pytest.mark.parametrize(("seconds", "attempts"), [(29.9, 0), (30.1, 1), (299, 9), (301, 10), (1e6, 10)])
def test_thirty_seconds_pay_for_one_more_up_to_ten(seconds: float, attempts: int) -> None:
    budget, clock = drained()
    clock.elapsed += seconds
    assert available(budget) == attempts


def test_a_full_budget_gets_no_fuller() -> None:
    budget, clock = fresh()
    for _ in range(1000):
        budget.first("a")
    clock.elapsed += 1e6
    assert available(budget) == 10
    clock.elapsed += 300
    for _ in range(1000):
        budget.first("a")
    assert available(budget) == 10


def test_only_what_is_not_full_is_remembered() -> None:
    budget, clock = fresh()
    for name in range(100):
        budget.first(f"b{name}")
    budget.take("a", 1)
    assert set(budget.left) == {"a"}
    clock.elapsed += 31
    budget.first("a")
    assert not budget.left


def test_tokens_of_an_attempt_that_was_not_made_come_back() -> None:
    budget, _ = fresh()
    taken = budget.take("a", 8)
    assert taken is not None
    assert not budget.allows("a", 3)
    taken.settle()
    assert budget.allows("a", 10), "to look is enough to count what was given back"
    assert available(budget) == 10


def test_tokens_of_an_attempt_that_was_made_are_spent() -> None:
    budget, _ = fresh()
    taken = budget.take("a", 10)
    assert taken is not None
    taken.settle(AttemptOutcome())
    taken.settle()  # only the first call counts
    assert available(budget) == 0


def test_tokens_come_back_once_and_never_above_ten() -> None:
    budget, clock = fresh()
    taken = budget.take("a", 4)
    assert taken is not None
    clock.elapsed += 1000
    for _ in range(3):
        taken.settle()
    assert available(budget) == 10


def test_tokens_given_back_while_the_lock_is_held_wait_for_the_next() -> None:
    budget, _ = fresh()
    taken = budget.take("a", 10)
    assert taken is not None
    with budget._lock:  # a finaliser in the middle of take()
        taken.settle()
    assert available(budget) == 10


def test_a_forked_child_does_not_wait_for_the_lock() -> None:
    budget, _ = fresh()
    budget._lock.acquire()
    budget.after_fork()
    assert budget.take("a", 1)


def test_a_hundred_threads_get_ten_between_them() -> None:
    budget, _ = fresh()
    start = threading.Barrier(100)
    taken: list[bool] = []

    def caller() -> None:
        start.wait()
        taken.append(budget.take("a", 1) is not None)

    threads = [threading.Thread(target=caller) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (100, 10)


class RetryBudgetMachine(RuleBasedStateMachine):
    """Any history: what was taken is never more than 10, a tenth per first attempt, one per 30 s."""

    @initialize()
    def begin(self) -> None:
        self.budget, self.clock = fresh()
        self.left = {"a": 10.0, "b": 10.0}  # an independent count, brought up to `since`
        self.since = dict.fromkeys(self.left, 0.0)
        self.taken = dict.fromkeys(self.left, 0.0)
        self.firsts = dict.fromkeys(self.left, 0)

    def gain(self, backend: str, more: float = 0.0) -> float:
        passed = self.clock.elapsed - self.since[backend]
        self.since[backend] = self.clock.elapsed
        self.left[backend] = min(10.0, self.left[backend] + passed / 30 + more)
        return self.left[backend]

    @rule(backend=st.sampled_from("ab"), times=st.integers(1, 30))
    def first(self, backend: str, times: int) -> None:
        for _ in range(times):
            self.budget.first(backend)
            self.gain(backend, 0.1)
        self.firsts[backend] += times

    @rule(backend=st.sampled_from("ab"), cost=st.sampled_from([1.0, 2.0]), times=st.integers(1, 12))
    def take(self, backend: str, cost: float, times: int) -> None:
        for _ in range(times):
            left = self.gain(backend)
            allowed = self.budget.allows(backend, cost)
            taken = self.budget.take(backend, cost) is not None
            assert taken is allowed
            if abs(left - cost) > 1e-6:
                assert taken is (left > cost)
            if taken:
                self.left[backend] -= cost
                self.taken[backend] += cost

    @rule(seconds=st.floats(0, 400))
    def passes(self, seconds: float) -> None:
        self.clock.elapsed += seconds

    @invariant()
    def bounded(self) -> None:
        for backend in "ab":
            bound = 10 + 0.1 * self.firsts[backend] + self.clock.elapsed / 30
            assert self.taken[backend] <= bound + 1e-6
            assert not self.budget.take(backend, 10 + 1e-6)


TestRetryBudgetMachine = RetryBudgetMachine.TestCase
