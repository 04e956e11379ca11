"""What bounds an attempt: the retry budget that all calls share, and the queue of its host."""

from __future__ import annotations

import pytest
from tests.flow.support import FULL, HandDriver, Queue, Shared, answers, fails, local, paid

from ccroute import Agent, RetryPolicy, Timeout
from ccroute.errors import (
    OverloadedError,
    QueueTimeoutError,
)
from ccroute.flow.call import MIN_ATTEMPT
from ccroute.flow.effects import Effect, Enter, Send, Sleep

BUSY = fails(503)
BROKE = fails(502)
ANSWER = answers("well")


# -- The retry budget across calls


def test_a_hundred_failing_calls_make_about_ten_extra_attempts() -> None:
    shared = Shared(on=False)
    hands = []
    for _ in range(100):
        driver = HandDriver([BUSY])
        driver.fail(shared.call(retry=RetryPolicy(attempts=3, per_deployment=3, base=0, max=0)))
        hands.append(driver)
    extra = sum(len(driver.sends) - 1 for driver in hands)
    assert 10 <= extra <= 10 + 0.1 * 100
    assert [len(driver.sends) for driver in hands[:5]] == [3, 3, 3, 3, 3]
    assert all(len(driver.sends) <= 2 for driver in hands[6:])


def test_an_ambiguous_failure_costs_two_tokens() -> None:
    shared = Shared(on=False)
    hands = []
    for _ in range(8):
        driver = HandDriver([BROKE])
        driver.fail(shared.call(retry=RetryPolicy(base=0, max=0)))
        hands.append(len(driver.sends))
    assert hands == [2, 2, 2, 2, 2, 1, 1, 1]


def test_time_fills_the_budget_again() -> None:
    shared = Shared(on=False)
    for _ in range(9):
        shared.misses(BUSY, retry=RetryPolicy(attempts=3, per_deployment=3, base=0, max=0))
    shared.after(65)
    driver = HandDriver([BUSY])
    driver.fail(shared.call(retry=RetryPolicy(attempts=3, per_deployment=3, base=0, max=0)))
    assert len(driver.sends) == 3


def test_an_empty_retry_budget_does_not_prevent_a_fallback() -> None:
    shared = Shared(paid(), local(), on=False)
    for _ in range(30):
        shared.misses(BUSY, aliases={"any": ["paid/m"]}, model="any", retry=RetryPolicy(base=0, max=0))
    for _ in range(30):
        assert shared.gets(BUSY, ANSWER, retry=RetryPolicy(base=0, max=0)).asked == ["paid", "home"]


def test_another_deployment_of_the_same_backend_is_paid_for_too() -> None:
    shared = Shared(on=False, aliases={"any": ["paid/1", "paid/2"]}, model="any")
    sent = []
    for _ in range(14):
        driver = HandDriver([BUSY])
        driver.fail(shared.call(retry=RetryPolicy(attempts=2, per_deployment=1)))
        sent.append(len(driver.sends))
    assert sent[:10] == [2] * 10
    assert 1 in sent[10:]


TWICE = RetryPolicy(attempts=2, per_deployment=2, base=1.0, max=1.0)


def spent(shared: Shared) -> float:
    """How many tokens of the retry budget are gone."""
    paid = shared.deployment().backend.identity
    return next(left for left in range(11) if shared.retry_budget.allows(paid, 10 - left))


def test_a_retry_that_is_made_costs_a_token() -> None:
    shared = Shared(on=False)
    shared.misses(BUSY, retry=TWICE)
    assert spent(shared) == 1


def test_a_retry_that_finds_a_full_queue_costs_no_token() -> None:
    shared = Shared(on=False)
    driver = HandDriver([BUSY], hosts=[Queue(), FULL])
    raised = driver.fail(shared.call(retry=TWICE, limited=True))
    assert isinstance(raised, QueueTimeoutError)
    assert (len(driver.sends), spent(shared)) == (1, 0)
    assert (driver.slept, raised.attempts[1].duration) == ([0.5], 0), "the sleep is no time of the attempt"


def test_a_retry_that_there_is_no_time_for_costs_no_token() -> None:
    shared = Shared(on=False)
    driver = HandDriver([fails(503, retry_after="60")])
    assert isinstance(driver.fail(shared.call(retry=TWICE, timeout=5.0)), OverloadedError)
    assert (len(driver.sends), spent(shared)) == (1, 0)


def test_a_retry_that_is_turned_away_costs_no_token() -> None:
    shared = Shared()

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Sleep):  # other calls open the breaker
            for _ in range(5):
                shared.misses(BUSY)

    driver = HandDriver([BUSY], before=meanwhile)
    driver.fail(shared.call(retry=TWICE))
    assert (len(driver.sends), spent(shared)) == (1, 0)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_a_retry_that_is_stopped_while_it_sleeps_costs_no_token(stop: type[BaseException]) -> None:
    shared = Shared(on=False)

    def before(k: int, effect: Effect) -> None:
        if isinstance(effect, Sleep):
            raise stop

    driver = HandDriver([BUSY], before)
    with pytest.raises(stop):
        driver.run(shared.call(retry=TWICE))
    assert (len(driver.sends), spent(shared)) == (1, 0)


def test_a_retry_that_is_stopped_while_it_sends_costs_a_token() -> None:
    shared = Shared(on=False)

    def before(k: int, effect: Effect) -> None:
        if isinstance(effect, Send) and shared.clock.elapsed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HandDriver([BUSY], before).run(shared.call(retry=TWICE))
    assert spent(shared) == 1


# -- A busy host


def test_a_full_queue_costs_nothing_and_is_no_sign_of_bad_health() -> None:
    shared = Shared(paid(), local())
    for _ in range(9):
        driver = shared.gets(ANSWER, hosts=[FULL])
        assert driver.asked == ["home"]
        missed, _ = driver.completion.route.attempts
        assert (missed.deployment, missed.failure, missed.error) == (
            "paid/m",
            "not_sent",
            "QueueTimeoutError",
        )
        assert (missed.cost, missed.status) == (0, None)
    assert shared.events == []
    assert not shared.is_off()


@pytest.mark.parametrize("allowed", ["availability", "rate_limit"])
def test_a_full_queue_is_a_matter_of_availability(allowed: str) -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"], triggers=[allowed])}  # type: ignore[list-item]
    shared = Shared(paid(), local(), aliases={}, agents=agents, agent="py")
    if allowed == "availability":
        assert shared.gets(ANSWER, hosts=[FULL]).asked == ["home"]
    else:
        raised = shared.misses(ANSWER, hosts=[FULL])
        assert isinstance(raised, QueueTimeoutError)
        assert str(raised) == "paid/m: its queue is full"


def test_a_probe_is_leased_only_once_its_place_is_there() -> None:
    shared = Shared()
    for _ in range(5):
        shared.misses(BUSY)
    shared.after(30)
    others: list[str] = []

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Enter):
            others.extend(shared.gets(ANSWER).asked)

    assert HandDriver([ANSWER], before=meanwhile).run(shared.call(limited=True)).asked == ["paid"]
    assert others == ["paid"], "who waits in a queue keeps nobody from probing"


def test_a_wait_in_the_queue_until_the_deadline_is_a_queue_timeout() -> None:
    for others in ((), (local(),)):
        shared = Shared(paid(), *others)
        driver = HandDriver([ANSWER], hosts=[Queue(seconds=99.0)])
        raised = driver.fail(shared.call(timeout=10.0, retry=RetryPolicy(), limited=True))
        assert isinstance(raised, QueueTimeoutError)
        assert (driver.kinds, driver.slept, len(raised.attempts)) == (["Enter", "Wait", "Leave"], [], 1)
        assert shared.clock.elapsed == pytest.approx(10 - MIN_ATTEMPT), "an attempt could have begun yet"


def test_a_host_without_a_limit_is_not_asked_for_a_slot() -> None:
    assert Shared().gets(ANSWER).kinds == ["Send", "Read"]
    assert HandDriver([ANSWER]).run(Shared().call(limited=True)).kinds == ["Enter", "Send", "Read"]


def test_a_call_asks_for_a_slot_with_its_deployment_and_priority() -> None:
    driver = HandDriver([ANSWER]).run(Shared().call(limited=True, priority=7))
    (entered,) = [effect for effect in driver.effects if isinstance(effect, Enter)]
    assert ([each.name for each in entered.options], entered.priority) == (["paid/m"], 7)


def test_time_in_the_queue_is_no_time_of_the_attempt() -> None:
    shared = Shared(limits=Timeout(total=60, attempt=10))
    driver = shared.gets(answers("slow"), hosts=[Queue(seconds=30.0)])
    (attempt,) = driver.completion.route.attempts
    assert (attempt.duration, driver.completion.latency, driver.sends[0].until) == (0, 30, 1040)
