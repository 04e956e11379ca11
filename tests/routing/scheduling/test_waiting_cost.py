"""The price of waiting: whether a call waits or pays, and what that costs in the end next to an oracle."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute import Price
from ccroute.http.origin import Origin
from ccroute.routing.scheduling import Grant, HostLimits, Hosts, LoadedFirst, Place
from ccroute.routing.scheduling import waiting_cost as module
from ccroute.routing.scheduling.waiting_cost import (
    UNCHECKED,
    UNTRIED,
    WaitingCost,
    Waits,
    break_even,
    expected_usd,
    is_too_long,
    usd_of,
    waiting_cost,
)

SECONDS = st.floats(0, 1e5)
TIMES = st.floats(0.001, 1e5)


def test_no_price_and_no_limit_are_nothing_to_decide() -> None:
    assert waiting_cost(None, None) is None
    assert waiting_cost(Decimal(0), None) is None
    assert waiting_cost(None, 0) == WaitingCost(longest=0)
    assert waiting_cost(Decimal(2), 30) == WaitingCost(Decimal(2), 30)


def test_a_wait_costs_its_share_of_an_hour() -> None:
    assert usd_of(95, 20) == pytest.approx(0.528, abs=0.001)
    assert usd_of(60, 0) == 0
    assert break_even(20, 0.02, 0) == pytest.approx(3.6)
    assert break_even(20, 0.02, 4) == pytest.approx(7.6)
    assert break_even(0, 0.02, 4) == math.inf


def test_an_expected_cost_is_that_of_the_prompts_tier() -> None:
    price = Price(2, 8, above={1000: Price(4, 16)})
    assert expected_usd(price, 1000, 500) == pytest.approx(0.006)
    assert expected_usd(price, 1001, 500) == pytest.approx(0.012004)


@given(waited=SECONDS, left=SECONDS, even=st.floats(-10, 1e5) | st.just(math.inf), trusted=st.booleans())
def test_nobody_pays_for_a_short_wait_and_everybody_after_the_break_even(
    waited: float, left: float, even: float, trusted: bool
) -> None:
    pays = is_too_long(waited, left, even, trusted=trusted)
    if waited >= even:
        assert pays
    else:
        assert pays == (trusted and left >= even)


@given(wait=TIMES, predicted=TIMES, even=TIMES)
def test_a_wait_that_was_predicted_too_short_costs_at_most_twice_the_better_choice(
    wait: float, predicted: float, even: float
) -> None:
    """Whoever waits at all has paid by the break-even, whatever the predictions say later."""
    pays_at_once = is_too_long(0.0, predicted, even, trusted=True)
    if not pays_at_once:
        assert is_too_long(even, 0.0, even, trusted=True)
        spent = wait if wait <= even else 2 * even
        assert spent <= 2 * min(wait, even)


@given(wait=TIMES, even=TIMES, left=st.floats(0, 1e6))
def test_without_trust_no_prediction_makes_a_call_pay_more_than_twice(
    wait: float, even: float, left: float
) -> None:
    assert not is_too_long(even * 0.999, left, even, trusted=False)
    assert is_too_long(even, left, even, trusted=False)


# -- What is measured


def test_predictions_are_trusted_until_most_of_them_are_wrong() -> None:
    waits = Waits()
    assert waits.trusts("mini")
    for _ in range(3):
        waits.waited("mini", predicted=100, seconds=1, break_even=20)
    assert waits.trusts("mini")
    waits.waited("mini", predicted=100, seconds=1, break_even=20)
    assert not waits.trusts("mini")
    assert waits.trusts("other")
    for _ in range(3):
        waits.waited("mini", predicted=10, seconds=9, break_even=20)
    assert waits.trusts("mini")


def test_errors_far_below_the_break_even_do_not_matter() -> None:
    waits = Waits()
    for _ in range(50):
        waits.waited("mini", predicted=0.3, seconds=0.01, break_even=20)
        waits.waited("mini", predicted=0.0, seconds=0.0, break_even=0)
        waits.waited("mini", predicted=0.3, seconds=0.01, break_even=math.inf)
    assert waits.trusts("mini")


def test_after_many_calls_that_paid_at_once_one_looks_whether_that_was_right() -> None:
    waits = Waits()
    for most in (UNTRIED, UNCHECKED, UNCHECKED):
        for _ in range(most):
            assert waits.trusts("mini")
            waits.paid_at_once("mini")
        assert not waits.trusts("mini")
        waits.waited("mini", predicted=100, seconds=99, break_even=20)
    assert waits.trusts("mini")


def test_an_agents_answers_and_a_deployments_seconds_are_means_of_the_last_ones() -> None:
    waits = Waits()
    assert waits.usual_output("qa") is None
    assert waits.slower("mini", "paid") == 0
    for _ in range(60):
        waits.answered("qa", "mini", 100, 5.0)
        waits.answered("qa", "mini", 300, 15.0)
    assert waits.usual_output("qa") == pytest.approx(210, abs=20)
    assert waits.slower("mini", "paid") == 0, "it is not measured"
    waits.answered("py", "paid", 1000, 30.0)
    assert waits.slower("mini", "paid") == pytest.approx(19, abs=2)
    assert waits.slower("paid", "mini") == 0
    assert (waits.usual_output("py"), waits.usual_output(None)) == (1000, None)


def test_only_so_many_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KNOWN", 3)
    waits = Waits()
    for name in "abcd":
        waits.answered(name, "mini", 7, 1.0)
    waits.answered("d", "mini", 7, 1.0)
    assert [waits.usual_output(name) for name in "abcd"] == [None, None, None, 7]


# -- The sum of money and waiting, in virtual time

Wait = Callable[[random.Random], float]
Predict = Callable[[float], float]
"""After so many seconds, the seconds that are left."""

WAITS: dict[str, Wait] = {
    "short": lambda draw: draw.expovariate(1 / 5),
    "middling": lambda draw: draw.expovariate(1 / 30),
    "long": lambda draw: draw.expovariate(1 / 200),
    "heavy tail": lambda draw: 2 * draw.paretovariate(1.1),
    "idle or busy": lambda draw: draw.choice([1, 100]) * draw.random(),
}


def off(sigma: float) -> Callable[[random.Random, float], Predict]:
    """Predictions that are wrong by a random factor of this spread."""

    def made(draw: random.Random, wait: float) -> Predict:
        factor = math.exp(draw.gauss(0, sigma))
        return lambda waited: (wait - waited) * factor

    return made


def unrelated(draw: random.Random, wait: float) -> Predict:
    guess = draw.expovariate(1 / 30)
    return lambda waited: max(guess - waited, 0.0)


GOOD = {"exact": off(0), "within 10 %": off(0.1), "within 15 %": off(0.15)}
WRONG: dict[str, Callable[[random.Random, float], Predict]] = {
    "by a factor of e": off(1),
    "by a factor of e²": off(2),
    "ten times too long": lambda draw, wait: lambda waited: 10 * (wait - waited),
    "a hundred times too long": lambda draw, wait: lambda waited: 100 * (wait - waited),
    "a tenth": lambda draw, wait: lambda waited: (wait - waited) / 10,
    "always none": lambda draw, wait: lambda waited: 0.0,
    "always for ever": lambda draw, wait: lambda waited: 1e9,
    "unrelated": unrelated,
    "another one each time": lambda draw, wait: lambda waited: draw.expovariate(1 / 30),
    "long for short waits": lambda draw, wait: lambda waited: 400 / max(wait - waited, 0.1),
}


def against_oracle(wait_of: Wait, prediction: Callable[[random.Random, float], Predict]) -> float:
    """What many calls cost in money and waiting, as a share of what an oracle pays that knows every wait.
    Both in seconds of waiting: the other candidate costs its break-even."""
    draw, waits, spent, least = random.Random(7), Waits(), 0.0, 0.0
    for _ in range(1500):
        wait, even = wait_of(draw), 20 * math.exp(draw.gauss(0, 0.7))
        left_after = prediction(draw, wait)
        predicted, waited, pays = left_after(0.0), 0.0, False
        while waited < wait:
            trusted = waits.trusts("mini")
            if pays := is_too_long(waited, left_after(waited), even, trusted=trusted):
                break
            waited = min(waited + even / 8, even if waited < even else math.inf, wait)
        if not waited:
            waits.paid_at_once("mini")
        elif not pays or waited > predicted:
            waits.waited("mini", predicted, waited, even)
        spent += waited + (even if pays else 0.0)
        least += min(wait, even)
    return spent / least


@pytest.mark.parametrize("predictions", GOOD)
@pytest.mark.parametrize("wait", WAITS)
def test_with_good_predictions_the_sum_is_within_five_percent_of_an_oracles(
    wait: str, predictions: str
) -> None:
    assert against_oracle(WAITS[wait], GOOD[predictions]) <= 1.05


@pytest.mark.parametrize("predictions", WRONG)
@pytest.mark.parametrize("wait", WAITS)
def test_with_wrong_predictions_the_sum_is_at_most_twice_an_oracles(wait: str, predictions: str) -> None:
    assert against_oracle(WAITS[wait], WRONG[predictions]) <= 2.0


# -- Many calls that come to one host, and make each other wait


class Crowd:
    """A host that serves one call at a time, and calls that come to it at random, in virtual time. A call
    that does not wait pays as much as `even` seconds of waiting cost.

    work:   seconds of work that come in each second.
    varied: how much the calls' times differ.
    oracle: each call knows how long those before it take, and so how long it would wait.
    """

    def __init__(self, even: float, work: float, *, oracle: bool = False, varied: float = 0.2) -> None:
        self.even, self.oracle = even, oracle
        self.origin, draw = Origin("http", "mini.test", 80), random.Random(3)
        self.place = Place(self.origin, "")
        self.hosts, self.waits = Hosts(LoadedFirst()), Waits()
        self.hosts.configure({self.origin: HostLimits(1)})
        came, self.spent = 0.0, 0.0
        self.came, self.service, self.predicted = dict[int, float](), dict[int, float](), dict[int, float]()
        self.waiting, self.running, self.grant = list[int](), dict[int, float](), list[Grant]()
        self.next: list[tuple[float, int, str, int]] = []
        for call in range(1, 600):
            came += draw.expovariate(work / 10)
            self.service[call] = 10 * math.exp(draw.gauss(0, varied))
            self.at(came, "comes", call)

    def at(self, instant: float, what: str, call: int) -> None:
        heapq.heappush(self.next, (instant, len(self.came), what, call))

    def mean_cost(self) -> float:
        """What a call costs in money and waiting, in seconds of waiting."""
        while self.next:
            now, _, what, call = heapq.heappop(self.next)
            getattr(self, what)(call, now)
        return self.spent / len(self.came)

    def comes(self, call: int, now: float) -> None:
        self.came[call] = now
        self.waits.came(self.origin, "mini", 1.0, now)
        left = self.hosts.predicted(self.place, 0, now)
        if self.oracle:
            left = self.known(self.waiting, now)
        if self.pays(0.0, left, now):
            self.spent += self.even
            self.waits.paid_at_once("mini")
            return
        self.predicted[call] = left
        if (grant := self.hosts.enter(call, [self.place], 0, now)) is not None:
            self.begins(grant, now)
            return
        self.waiting.append(call)
        self.grants(now)
        self.at(now + 2, "decides", call)

    def decides(self, call: int, now: float) -> None:
        if call not in self.waiting:
            return
        waited = now - self.came[call]
        left = self.hosts.left(call, now)
        if self.oracle:
            left = self.known(self.waiting[: self.waiting.index(call)], now)
        if not self.oracle and self.pays(waited, left, now):
            self.waiting.remove(call)
            self.hosts.leave(call, now)
            self.spent += waited + self.even
            if waited > self.predicted[call]:
                self.waits.waited("mini", self.predicted[call], waited, self.even)
        else:
            self.at(now + 2, "decides", call)

    def ends(self, call: int, now: float) -> None:
        (grant,) = [each for each in self.grant if each.call == call]
        self.grant.remove(grant)
        self.hosts.measured(grant, None, self.service[call], now)
        self.waits.answered(None, "mini", 100, self.service[call])
        self.hosts.leave(call, now)
        del self.running[call]
        self.grants(now)

    def grants(self, now: float) -> None:
        for grant in self.hosts.grants(now):
            self.waiting.remove(grant.call)  # type: ignore[arg-type]
            self.begins(grant, now)

    def begins(self, grant: Grant, now: float) -> None:
        call: Any = grant.call
        self.grant.append(grant)
        self.running[call] = now
        self.spent += now - self.came[call]
        self.waits.waited("mini", self.predicted[call], now - self.came[call], self.even)
        self.at(now + self.service[call], "ends", call)

    def known(self, before: list[int], now: float) -> float:
        running = sum(since + self.service[each] - now for each, since in self.running.items())
        return running + sum(self.service[each] for each in before)

    def pays(self, waited: float, left: float, now: float) -> bool:
        price = 1.0 + (0.0 if self.oracle else self.waits.behind(self.origin, 1, now))
        trusted = self.oracle or self.waits.trusts("mini")
        return bool(waited or left) and is_too_long(waited, left, self.even / price, trusted=trusted)


@pytest.mark.parametrize(("even", "work"), [(20.0, 0.6), (60.0, 0.3), (60.0, 0.6), (200.0, 0.6)])
def test_at_a_host_with_time_to_spare_calls_cost_as_little_as_if_each_knew_its_wait(
    even: float, work: float
) -> None:
    assert Crowd(even, work).mean_cost() <= 1.05 * Crowd(even, work, oracle=True).mean_cost()


@pytest.mark.parametrize(("even", "work"), [(20.0, 1.5), (60.0, 1.0), (100.0, 1.5)])
def test_at_a_busy_host_calls_that_count_those_behind_cost_much_less_than_that(
    even: float, work: float
) -> None:
    assert Crowd(even, work).mean_cost() <= 0.8 * Crowd(even, work, oracle=True).mean_cost()
