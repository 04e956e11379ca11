"""Sick deployments are left alone, for as long as the rules say, and proved well by one call at a time."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flow.support import FakeClock, PlainBackend

from ccroute.errors import (
    AuthenticationError,
    CcrouteError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)
from ccroute.observe import BreakerClosed, BreakerOpened, CooledDown, Event, Recovered
from ccroute.routing import Deployment, Health
from ccroute.routing.acquired import HealthReport, Unavailable
from ccroute.routing.breaker import caller_of
from ccroute.routing.health import Admission
from ccroute.types import Model, Request

A, B = PlainBackend("a"), PlainBackend("b")
ONE = Deployment("a/1", A, "1", Model(), None)
TWO = Deployment("a/2", A, "2", Model(), None)
OTHER = Deployment("b/1", B, "1", Model(), None)

ANSWERED = HealthReport(counts=False)
NEUTRAL = HealthReport()
FAILED = HealthReport(counts=True, error=ServerError("bad gateway", status=502))
SLOW_DOWN = HealthReport(error=RateLimitError("slow down", status=429), cool=20.0)
NO_KEY = HealthReport(error=AuthenticationError("who?"), off="credential", seconds=300.0, longest=3600.0)
NO_MONEY = HealthReport(error=QuotaExhaustedError("pay"), off="credential", seconds=900.0)
NO_MODEL = HealthReport(error=ModelNotFoundError("what?"), off="deployment", seconds=300.0)


class Ward:
    """One health on a clock that is set, and all that it told."""

    def __init__(self, *draws: float, on: bool = True) -> None:
        self.clock = FakeClock(draws=list(draws or [0.5]))
        self.events: list[Event] = []
        self.health = Health(self.clock, self.events.append, on=on)

    def admitted(self, deployment: Deployment = ONE, *, early: bool = False) -> Admission:
        admission = self.health.admit(deployment, early=early)
        assert isinstance(admission, Admission), f"refused: {admission}"
        return admission

    def refused(self, deployment: Deployment = ONE, *, early: bool = False) -> Unavailable:
        refusal = self.health.admit(deployment, early=early)
        assert isinstance(refusal, Unavailable), "it was admitted"
        return refusal

    def ends(self, *notes: HealthReport, at: Deployment = ONE, early: bool = False) -> Ward:
        """Attempts one after the other, each ending so."""
        for note in notes:
            self.health.settle(self.admitted(at, early=early), note)
        return self

    def after(self, seconds: float) -> Ward:
        self.clock.elapsed += seconds
        return self

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    @property
    def opened(self) -> list[float]:
        """How long each opening was to last."""
        return [event.seconds for event in self.events if isinstance(event, BreakerOpened)]


def outcomes(text: str) -> list[HealthReport]:
    """`F` failed, `S` answered, `-` neither."""
    return [{"F": FAILED, "S": ANSWERED, "-": NEUTRAL}[letter] for letter in text]


# -- When a breaker opens


@pytest.mark.parametrize(
    "history",
    [
        "FFFFF",
        "SSSSSFFFFF",
        "F-F-F-F-F",
        "SFSFF",
        "FSFSF",
        "SSFFSF",
        "SSSSFFSFF" + "F",
        "S" * 20 + "FS" * 9 + "F",
        "S" * 30 + "FFFF" + "S" + "FFFF" + "S" + "FF",
    ],
)
def test_a_breaker_opens_at_five_in_a_row_or_at_half_of_the_last_twenty(history: str) -> None:
    ward = Ward()
    ward.ends(*outcomes(history[:-1]))
    assert ward.events == [], "one too early"
    ward.ends(*outcomes(history[-1]))
    assert ward.opened == [30.0]
    assert isinstance(ward.refused(), Unavailable)


@pytest.mark.parametrize(
    "history", ["FFFF", "SFSF", "FFFFS", "SSSFFSSF", "S" * 20 + "FS" * 9, "FFFF" + "-" * 20, "S" * 50]
)
def test_a_breaker_stays_closed_below_both(history: str) -> None:
    ward = Ward().ends(*outcomes(history))
    assert ward.health.unavailable(ONE) is None
    assert ward.events == []


@given(st.lists(st.booleans(), max_size=60))
def test_a_closed_breaker_opens_exactly_when_the_rule_says(history: list[bool]) -> None:
    ward = Ward()
    for count, failed in enumerate(history, 1):
        ward.ends(FAILED if failed else ANSWERED)
        last = history[max(0, count - 20) : count]
        in_a_row = count >= 5 and all(history[count - 5 : count])
        half = len(last) >= 5 and sum(last) >= len(last) / 2
        assert bool(ward.opened) is (failed and (in_a_row or half))
        if ward.opened:
            return


def test_each_deployment_has_its_own_breaker() -> None:
    ward = Ward().ends(*[FAILED] * 5)
    assert ward.health.unavailable(ONE) is not None
    assert ward.health.unavailable(TWO) is None
    assert ward.health.unavailable(OTHER) is None


def test_who_is_turned_away_learns_why_until_when_and_by_which_error() -> None:
    ward = Ward().ends(*[FAILED] * 5)
    refusal = ward.refused()
    assert refusal == ward.health.unavailable(ONE)
    assert (refusal.until, refusal.why, refusal.error) == (
        ward.now + 30,
        "5 failures in a row",
        FAILED.error,
    )
    assert (refusal.cooling, refusal.keys is not None) == (False, False)
    assert ward.events == [BreakerOpened("a/1", 30.0, "5 failures in a row")]
    half = Ward().ends(*outcomes("SFSFF"))
    assert half.refused().why == "3 of the last 5 attempts failed"


def test_what_ends_without_an_error_still_gives_one_to_those_it_turns_away() -> None:
    ward = Ward().ends(*[HealthReport(counts=True)] * 5)
    assert isinstance(ward.refused().error, CcrouteError)


# -- How long it stays open


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_an_open_breaker_stays_so_for_30_seconds_doubling_to_300_with_jitter(
    draw: float, factor: float
) -> None:
    ward = Ward(draw).ends(*[FAILED] * 5)
    for _ in range(6):
        ward.after(400).ends(FAILED)
    expected = [30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0]
    assert ward.opened == pytest.approx([seconds * factor for seconds in expected], rel=1e-4)


def test_opening_again_never_shortens() -> None:
    ward = Ward(*[1.0] * 5, 0.0).ends(*[FAILED] * 5)
    for _ in range(7):
        ward.after(400).ends(FAILED)
    assert ward.opened == sorted(ward.opened)
    assert ward.opened[-1] == pytest.approx(360)


def test_an_early_probe_that_fails_does_not_bring_the_end_closer() -> None:
    ward = Ward().ends(*[FAILED] * 5)
    until = ward.refused().until
    ward.after(1).ends(FAILED, early=True)
    assert ward.refused().until == until
    assert ward.opened == [30.0], "nor does it put it off: somebody may be waiting for the end"
    ward.after(29).ends(FAILED)
    assert ward.opened == [30.0, 60.0]


def test_a_breaker_that_closed_begins_again_at_30_seconds_and_forgets_what_was() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30).ends(FAILED).after(60).ends(ANSWERED)
    ward.ends(*outcomes("SSSSFFFF"))
    assert ward.opened == [30.0, 60.0]
    ward.ends(FAILED)
    assert ward.opened == [30.0, 60.0, 30.0]


# -- A server that is gone

REFUSED = FAILED._replace(gone="refused")
BROKEN = FAILED._replace(gone="broken")


def test_a_server_that_refuses_connections_is_asked_again_within_seconds() -> None:
    ward = Ward().ends(*[REFUSED] * 5)
    for _ in range(4):
        ward.after(3).ends(REFUSED)
    assert ward.opened == [1.0, 2.0, 2.0, 2.0, 2.0]


def test_a_broken_connection_is_risked_once_and_then_as_any_failure() -> None:
    ward = Ward().ends(*[BROKEN] * 5).after(1).ends(BROKEN).after(30).ends(BROKEN)
    assert ward.opened == [1.0, 30.0, 60.0]


def test_a_sick_server_that_went_away_is_asked_again_within_seconds_too() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30).ends(REFUSED).after(2).ends(FAILED)
    assert ward.opened == [30.0, 2.0, 30.0]


# -- Failures count by different callers

BAD, WORSE = Request(agent="bad"), Request(agent="worse")
OTHERS = [Request(agent=f"agent {i}") for i in range(20)]


def ends(ward: Ward, request: Request, *letters: str) -> Ward:
    """Attempts of one caller, each ending as its letter says."""
    for letter in "".join(letters):
        admission = ward.health.admit(ONE, request)
        assert isinstance(admission, Admission), f"{request.agent} was refused"
        note = FAILED._replace(caller=caller_of(request)) if letter == "F" else ANSWERED
        ward.health.settle(admission, note)
    return ward


def admits(ward: Ward, *requests: Request) -> bool:
    """Whether all of them would be admitted."""
    refused = [ward.health.unavailable(ONE, request) is not None for request in requests]
    assert len({*refused}) == 1, "some would, and some would not"
    return not refused[0]


def test_five_failures_of_one_caller_turn_away_nobody_else() -> None:
    ward = ends(Ward(), BAD, "FFFFF")
    assert ward.opened == [30.0]
    assert not admits(ward, BAD)
    assert admits(ward, *OTHERS)
    assert ward.health.unavailable(ONE) is not None, "it is told to whoever does not say who asks"
    for request in OTHERS:
        ends(ward, request, "S")
    assert ward.opened == [30.0]


def test_who_fails_next_where_nobody_is_answered_shows_that_it_fails_for_all() -> None:
    ward = ends(ends(Ward(), BAD, "FFFFF"), OTHERS[0], "F")
    assert ward.opened == [30.0, 30.0]
    assert not admits(ward, BAD, *OTHERS)


def test_who_fails_next_where_others_are_answered_shows_nothing() -> None:
    ward = ends(ends(ends(Ward(), BAD, "FFFFF"), OTHERS[0], "S"), WORSE, "F")
    assert admits(ward, *OTHERS)
    ends(ward, WORSE, "FFFF")
    assert not admits(ward, WORSE, BAD)
    assert admits(ward, *OTHERS)


def test_five_callers_in_a_row_open_it_for_all_whoever_was_answered_before() -> None:
    ward = Ward()
    for request in OTHERS:
        ends(ward, request, "S")
    for request in OTHERS[:5]:
        ends(ward, request, "F")
    assert not admits(ward, *OTHERS, BAD)


def test_half_of_the_attempts_may_fail_while_most_callers_are_answered() -> None:
    ward = Ward()
    for request in OTHERS[:10]:
        ends(ward, request, "S")
        ends(ward, BAD if OTHERS.index(request) % 2 else WORSE, "F")
    assert admits(ward, *OTHERS)
    ends(ward, WORSE, "FF")
    assert admits(ward, *OTHERS)


def test_the_caller_it_is_open_for_proves_it_well_by_a_probe_of_its_own() -> None:
    ward = ends(Ward(), BAD, "FFFFF").after(30)
    probe = ward.health.admit(ONE, BAD)
    assert isinstance(probe, Admission)
    assert isinstance(ward.health.admit(ONE, BAD), Unavailable)
    ends(ward, OTHERS[0], "S")  # others do not wait for it
    ward.health.settle(probe, ANSWERED)
    assert admits(ward, BAD)


def test_a_probe_of_the_bad_caller_that_fails_keeps_away_only_that_one_for_longer() -> None:
    ward = ends(Ward(), BAD, "FFFFF").after(30)
    ends(ward, BAD, "F")
    assert ward.opened == [30.0, 60.0]
    assert not admits(ward, BAD)
    assert admits(ward, *OTHERS)


def test_a_breaker_for_a_caller_that_never_returns_closes_when_its_time_is_over() -> None:
    ward = ends(ends(Ward(), BAD, "FFFFF"), OTHERS[0], "S")
    assert not admits(ward, BAD)
    ends(ward.after(30), OTHERS[0], "S")
    assert ward.events[-1] == BreakerClosed("a/1")
    assert admits(ward, BAD, *OTHERS)


def test_what_is_refused_as_a_whole_is_so_for_all_though_it_was_open_for_one() -> None:
    ward = ends(Ward(), BAD, "FFFFF")
    admission = ward.health.admit(ONE, OTHERS[0])
    assert isinstance(admission, Admission)
    ward.health.settle(admission, NO_MODEL)
    assert not admits(ward, BAD, *OTHERS)


def test_the_callers_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.routing.health.MOST_CALLERS", 2)
    ward = Ward()
    for request in OTHERS[:4]:
        ends(ends(ward, request, "FFFFF"), OTHERS[19], *["S"] * 20)
    assert not admits(ward, *OTHERS[2:4])
    assert admits(ward, *OTHERS[:2])


def test_a_caller_without_a_name_is_known_by_what_it_asks() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    one = Request(messages=[{"role": "user", "content": "a"}], tools=tools)
    two = Request(messages=[{"role": "user", "content": "b"}], tools=tools)
    three = Request(messages=[{"role": "user", "content": "b"}])
    assert caller_of(one) == caller_of(two) != caller_of(three)
    assert caller_of(Request(session="s", user="u")) == "u"
    assert caller_of(Request(messages=one.messages, temperature=0.2)) == caller_of(
        Request(messages=one.messages)
    )
    assert caller_of(Request(agent="a", session="s")) == "a"


def test_a_caller_that_is_refused_while_others_are_answered_is_turned_away_alone() -> None:
    forbidden = HealthReport(error=CcrouteError("forbidden"), off="deployment", seconds=300.0)
    ward = ends(Ward(), OTHERS[0], "S")
    for request, others in ((BAD, [*OTHERS, WORSE]), (BAD, OTHERS)):
        admission = ward.health.admit(ONE, request, early=True)
        assert isinstance(admission, Admission)
        ward.health.settle(admission, forbidden._replace(caller=caller_of(request)))
        assert not admits(ward, BAD)
        assert admits(ward, *others)
    ends(ward, OTHERS[1], "S")
    for request in (WORSE, OTHERS[2]):  # two in a row, and nobody was answered in between
        admission = ward.health.admit(ONE, request)
        assert isinstance(admission, Admission)
        ward.health.settle(admission, forbidden._replace(caller=caller_of(request)))
    assert not admits(ward, *OTHERS, BAD, WORSE)


def test_a_probe_that_fails_for_one_caller_leaves_the_next_to_another() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    for _ in range(3):
        probe = ward.health.admit(ONE, BAD)
        assert isinstance(probe, Admission)
        ward.health.settle(probe, FAILED._replace(caller="bad"))
        assert not admits(ward, BAD)
        assert admits(ward, *OTHERS)
        ward.after(30)
    assert ward.opened == [30.0], "nobody else waits any longer"
    ends(ward, OTHERS[0], "S")
    assert admits(ward, BAD, *OTHERS)


def test_probes_that_fail_for_two_callers_open_it_for_all_for_longer() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    ends(ends(ward, BAD, "F"), WORSE, "F")
    assert ward.opened == [30.0, 60.0]
    assert not admits(ward, BAD, WORSE, *OTHERS)


def test_a_server_that_refused_connections_is_back_when_a_probe_is_not_refused_within_a_second() -> None:
    ward = Ward().ends(*[FAILED._replace(gone="refused")] * 5).after(1)
    probe = ward.admitted()
    assert isinstance(ward.after(0.9).refused(), Unavailable)
    assert isinstance(ward.after(0.2).admitted(), Admission)
    assert ward.events[-1] == BreakerClosed("a/1")
    ward.health.settle(probe, ANSWERED)


def test_a_probe_whose_answer_has_begun_keeps_nobody_waiting() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    probe = ward.admitted()
    ward.health.answers(probe)
    assert ward.events[-1] == BreakerClosed("a/1")
    assert isinstance(ward.admitted(), Admission)
    ward.health.settle(probe, FAILED)
    assert ward.opened == [30.0], "what follows is an outcome like any other"


# -- Half-open: one probe


def test_until_its_time_is_over_nobody_is_admitted() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(29.99)
    assert isinstance(ward.refused(), Unavailable)
    assert isinstance(ward.after(0.01).admitted(), Admission)


def test_of_a_hundred_that_ask_after_it_one_is_the_probe() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    asked = [ward.health.admit(ONE) for _ in range(100)]
    assert sum(isinstance(admission, Admission) for admission in asked) == 1
    assert isinstance(asked[0], Admission)
    assert isinstance(ward.after(29.9).refused(early=True), Unavailable)
    assert isinstance(ward.after(0.1).admitted(), Admission), (
        "one that takes long keeps nobody waiting for ever"
    )


def test_a_probe_that_is_answered_closes_the_breaker_for_all() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30).ends(ANSWERED)
    assert ward.events[1:] == [BreakerClosed("a/1")]
    assert [isinstance(ward.health.admit(ONE), Admission) for _ in range(3)] == [True] * 3


def test_a_probe_that_fails_opens_it_again_for_twice_as_long() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30).ends(FAILED)
    assert ward.events[1:] == [BreakerOpened("a/1", 60.0, "the probe failed")]
    assert isinstance(ward.after(59.9).refused(), Unavailable)
    assert isinstance(ward.after(0.1).admitted(), Admission)


@pytest.mark.parametrize("note", [NEUTRAL, None, SLOW_DOWN._replace(cool=None)])
def test_a_probe_that_proves_nothing_gives_its_lease_back_and_counts_for_nothing(
    note: HealthReport | None,
) -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    probe = ward.admitted()
    if note is not None:
        ward.health.settle(probe, note)
    del probe  # or it is dropped, whatever interrupted it
    gc.collect()
    assert len(ward.events) == 1
    again = ward.admitted()
    assert isinstance(ward.refused(), Unavailable), "the next one is the probe, alone again"
    ward.health.settle(again, FAILED)
    assert ward.opened == [30.0, 60.0], "doubled once"


@pytest.mark.parametrize("note", [FAILED, ANSWERED, NEUTRAL])
def test_who_was_on_the_way_when_it_opened_neither_closes_nor_prolongs_it(note: HealthReport) -> None:
    ward = Ward()
    late = [ward.admitted() for _ in range(10)]
    ward.ends(*[FAILED] * 5)
    until = ward.refused().until
    for admission in late[:5]:
        ward.health.settle(admission, note)
    assert ward.refused().until == until
    probe = ward.after(30).admitted()
    for admission in late[5:]:
        ward.health.settle(admission, note)
    assert isinstance(ward.refused(), Unavailable), "the probe is still out"
    ward.health.settle(probe, ANSWERED)
    assert ward.events[1:] == [BreakerClosed("a/1")]


def test_only_the_first_word_about_an_attempt_counts() -> None:
    ward = Ward()
    for _ in range(4):
        admission = ward.admitted()
        for note in (FAILED, FAILED, ANSWERED):
            ward.health.settle(admission, note)
    assert ward.opened == []
    assert ward.ends(FAILED).opened == [30.0]


def test_a_settled_probe_that_is_dropped_later_frees_nobody_elses_lease() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    first = ward.admitted()
    ward.health.settle(first, NEUTRAL)
    second = ward.admitted()
    del first
    gc.collect()
    assert isinstance(ward.refused(), Unavailable)
    ward.health.settle(second, ANSWERED)


def test_tried_early_it_still_has_one_probe_only() -> None:
    ward = Ward().ends(*[FAILED] * 5)
    probe = ward.admitted(early=True)
    assert isinstance(ward.refused(early=True), Unavailable)
    ward.health.settle(probe, ANSWERED)
    assert ward.health.unavailable(ONE) is None


def test_to_look_takes_nothing() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    assert [ward.health.unavailable(ONE) for _ in range(3)] == [None] * 3
    probe = ward.admitted()
    assert isinstance(ward.health.unavailable(ONE), Unavailable)
    ward.health.settle(probe, ANSWERED)


# -- Cooling: what the server asked for


def test_a_deployment_is_left_alone_for_as_long_as_its_server_asked() -> None:
    ward = Ward().ends(SLOW_DOWN)
    assert ward.events == [CooledDown("a/1", 20.0, "slow down")]
    refusal = ward.refused()
    assert (refusal.until, refusal.error, refusal.cooling) == (ward.now + 20, SLOW_DOWN.error, True)
    assert ward.health.unavailable(TWO) is None
    assert isinstance(ward.after(19.9).refused(early=True), Unavailable), "it may be slept through, not tried"
    assert isinstance(ward.after(0.1).admitted(), Admission)
    assert isinstance(ward.admitted(), Admission), "it needs no probe"


def test_a_longer_cooldown_wins_and_a_shorter_one_changes_nothing() -> None:
    ward = Ward()
    admissions = [ward.admitted() for _ in range(3)]
    for admission, seconds in zip(admissions, [20.0, 5.0, 60.0], strict=True):
        ward.health.settle(admission, SLOW_DOWN._replace(cool=seconds))
    assert [event.seconds for event in ward.events if isinstance(event, CooledDown)] == [20.0, 60.0]
    assert ward.refused().until == ward.now + 60


def test_to_be_asked_to_wait_speaks_neither_for_nor_against() -> None:
    ward = Ward()
    admissions = [ward.admitted() for _ in range(9)]
    for admission in admissions:
        ward.health.settle(admission, SLOW_DOWN)
    assert ward.opened == []
    ward.after(20).ends(*[FAILED] * 4)
    assert ward.opened == []
    assert ward.ends(FAILED).opened == [30.0]


def test_a_sick_server_that_says_when_to_come_back_cools_and_counts() -> None:
    busy = FAILED._replace(cool=7.0)
    ward = Ward()
    for _ in range(5):
        ward.ends(busy).after(7)
    assert len(ward.opened) == 1
    assert sum(isinstance(event, CooledDown) for event in ward.events) == 5


def test_a_breaker_whose_time_is_over_waits_for_the_cooldown_besides() -> None:
    busy = FAILED._replace(cool=100.0)
    ward = Ward()
    for admission in [ward.admitted() for _ in range(5)]:
        ward.health.settle(admission, busy)
    refusal = ward.after(31).refused()
    assert (refusal.cooling, refusal.until) == (True, ward.now + 69)
    probe = ward.after(69).admitted()
    assert isinstance(ward.refused(), Unavailable), "and then for the probe"
    ward.health.settle(probe, ANSWERED)


def test_who_is_turned_away_by_a_breaker_and_a_cooldown_learns_when_the_later_ends() -> None:
    ward = Ward()
    for admission in [ward.admitted() for _ in range(5)]:
        ward.health.settle(admission, FAILED._replace(cool=100.0))
    assert ward.refused().until == ward.now + 100


# -- Credentials and models


def test_a_refused_key_turns_off_every_deployment_of_its_backend_for_5_minutes() -> None:
    ward = Ward().ends(NO_KEY)
    assert ward.events == [CooledDown("a", 300.0, "who?")]
    for deployment in (ONE, TWO):
        refusal = ward.refused(deployment)
        assert (refusal.until, refusal.error, refusal.keys is not None) == (
            ward.now + 300,
            NO_KEY.error,
            True,
        )
        assert not refusal.cooling
    assert ward.health.unavailable(OTHER) is None
    probe = ward.after(300).admitted(TWO)
    assert ward.refused(ONE).keys is not None, "one probe for the whole backend"
    ward.health.settle(probe, ANSWERED)
    assert (ward.health.unavailable(ONE), ward.health.unavailable(TWO)) == (None, None)


def test_a_key_that_is_refused_again_is_off_twice_as_long_up_to_an_hour() -> None:
    ward = Ward()
    for _ in range(7):
        ward.ends(NO_KEY).after(3600)
    seconds = [event.seconds for event in ward.events if isinstance(event, CooledDown)]
    assert seconds == [300, 600, 1200, 2400, 3600, 3600, 3600]
    ward.ends(ANSWERED, NO_KEY)
    assert ward.events[-1] == CooledDown("a", 300.0, "who?"), "proved good, it begins anew"


def test_a_hundred_calls_that_were_on_the_way_with_a_bad_key_turn_it_off_once() -> None:
    ward = Ward()
    for admission in [ward.admitted(deployment) for deployment in (ONE, TWO) for _ in range(50)]:
        ward.health.settle(admission, NO_KEY)
    assert ward.events == [CooledDown("a", 300.0, "who?")]


def test_a_bad_key_does_not_count_against_the_deployment() -> None:
    ward = Ward()
    for _ in range(9):
        ward.ends(NO_KEY).after(3600)
    ward.ends(ANSWERED)
    assert ward.opened == []
    assert not [event for event in ward.events if isinstance(event, BreakerClosed)]


def test_a_billing_limit_lasts_as_long_as_was_said_and_does_not_double() -> None:
    ward = Ward()
    for seconds in (900.0, 900.0, 86_400.0, 900.0):
        ward.ends(NO_MONEY._replace(seconds=seconds))
        assert ward.refused(TWO).until == ward.now + seconds
        ward.after(seconds)


def test_an_early_probe_that_is_refused_for_a_shorter_time_does_not_shorten_it() -> None:
    ward = Ward().ends(NO_MONEY._replace(seconds=86_400.0))
    until = ward.refused().until
    ward.after(10).ends(NO_MONEY, early=True)
    assert ward.refused().until == until


def test_after_a_billing_limit_the_first_refused_key_is_off_for_5_minutes() -> None:
    ward = Ward().ends(NO_MONEY._replace(seconds=86_400.0)).after(86_400).ends(NO_KEY)
    assert ward.refused().until == ward.now + 300


def test_a_missing_model_turns_off_its_deployment_only() -> None:
    ward = Ward().ends(NO_MODEL)
    assert ward.events == [CooledDown("a/1", 300.0, "what?")]
    assert (ward.refused().until, ward.refused().keys is not None) == (ward.now + 300, False)
    assert ward.health.unavailable(TWO) is None
    ward.after(300).ends(NO_MODEL)
    assert ward.refused().until == ward.now + 300, "it does not double"
    ward.after(300).ends(ANSWERED)
    assert ward.health.unavailable(ONE) is None


def test_a_switched_off_models_probe_that_fails_otherwise_does_not_shorten_it() -> None:
    ward = Ward().ends(NO_MODEL).after(300).ends(FAILED)
    assert ward.refused().until >= ward.now + 300


def test_a_call_may_prove_key_and_deployment_at_once() -> None:
    ward = Ward()
    late = ward.admitted()
    ward.ends(*[FAILED] * 5)
    ward.health.settle(late, NO_KEY)
    assert ward.refused().until == ward.now + 300, "the later of the two is told"
    probe = ward.after(300).admitted()
    assert isinstance(ward.refused(TWO), Unavailable)
    ward.health.settle(probe, ANSWERED)
    assert (ward.health.unavailable(ONE), ward.health.unavailable(TWO)) == (None, None)
    assert ward.events[-2:] == [BreakerClosed("a/1"), Recovered("a")]


def test_another_key_is_asked_at_once() -> None:
    ward = Ward().ends(NO_KEY)
    ward.health.renew("b")
    assert ward.refused().keys is not None
    ward.health.renew("a")
    assert ward.health.unavailable(ONE) is None
    assert isinstance(ward.admitted(), Admission)
    assert isinstance(ward.admitted(), Admission), "and needs no probe"


def test_the_old_keys_probe_says_nothing_about_the_new_key() -> None:
    ward = Ward().ends(NO_KEY).after(300)
    probe = ward.admitted()
    ward.health.renew("a")
    ward.ends(NO_KEY)
    ward.health.settle(probe, ANSWERED)
    assert ward.refused().keys is not None, "only a call with this key can prove it"


# -- Off, forks, memory


def test_switched_off_it_admits_always_and_tells_nothing() -> None:
    ward = Ward(on=False)
    for note in (*[FAILED] * 9, SLOW_DOWN, NO_KEY, NO_MONEY, NO_MODEL):
        ward.ends(note)
    assert ward.health.unavailable(ONE) is None
    assert ward.events == []


def test_a_forked_child_waits_neither_for_the_lock_nor_for_a_probe_of_its_parent() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    probe = ward.admitted()
    ward.health._lock.acquire()
    ward.health.after_fork()
    own = ward.admitted()
    del probe
    gc.collect()
    assert isinstance(ward.refused(), Unavailable), "the parent's probe gives nothing back here"
    ward.health.settle(own, ANSWERED)
    assert ward.health.unavailable(ONE) is None


def test_memory_is_bounded_however_many_models_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.routing.health.MAX_KNOWN", 10)
    ward = Ward()
    for number in range(50):
        ward.ends(FAILED, at=replace(ONE, name=f"a/{number}"))
    assert len(ward.health._circuits) == 10


# -- Locks and listeners


def test_listeners_are_called_outside_of_the_lock_and_may_ask_and_settle_themselves() -> None:
    clock, told = FakeClock(), []
    free: list[bool] = []

    def listen(event: Event) -> None:
        told.append(type(event))
        free.append(health._lock.acquire(blocking=False))
        if free[-1]:
            health._lock.release()
        health.unavailable(ONE)
        admission = health.admit(TWO)
        if isinstance(admission, Admission):
            health.settle(admission, SLOW_DOWN if len(told) < 3 else NEUTRAL)

    health = Health(clock, listen)
    for _ in range(5):
        admission = health.admit(ONE)
        assert isinstance(admission, Admission)
        health.settle(admission, FAILED)
    assert told == [BreakerOpened, CooledDown]
    assert all(free)


def test_what_is_settled_while_the_lock_is_held_never_waits_and_is_seen_by_the_next() -> None:
    ward = Ward()
    admissions = [ward.admitted() for _ in range(5)]
    with ward.health._lock:  # a finaliser in the middle of admit()
        for admission in admissions:
            ward.health.settle(admission, FAILED)
        assert ward.events == [], "nothing is told under the lock"
    assert isinstance(ward.health.unavailable(ONE), Unavailable)
    assert ward.opened == [30.0]


def test_a_probe_that_is_collected_while_the_lock_is_held_gives_its_lease_back() -> None:
    ward = Ward().ends(*[FAILED] * 5).after(30)
    probes: list[Any] = [ward.admitted()]
    probes.append(probes)  # only the collector can free it
    with ward.health._lock:
        del probes
        gc.collect()
    assert isinstance(ward.admitted(), Admission)


def test_an_instant_is_that_of_the_end_not_of_when_it_was_read() -> None:
    ward = Ward()
    admission = ward.admitted()
    with ward.health._lock:
        ward.health.settle(admission, SLOW_DOWN)
        ward.after(15)
    assert ward.refused().until == ward.now + 5


# -- Threads


def test_thirty_two_threads_never_have_two_probes_of_one_switch() -> None:
    clock = FakeClock()
    events: Counter[type[Event]] = Counter()
    health = Health(clock, lambda event: events.update([type(event)]))
    out: Counter[int] = Counter()
    guard, start = threading.Lock(), threading.Barrier(32)
    seen: list[int] = []
    faults: list[BaseException] = []
    notes = [FAILED, FAILED, FAILED, FAILED, ANSWERED, NEUTRAL, NO_KEY, SLOW_DOWN, NO_MODEL, None]

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        start.wait()
        for _ in range(150):
            admission = health.admit(chance.choice([ONE, TWO, OTHER]), early=chance.random() < 0.2)
            if isinstance(admission, Unavailable):
                clock.elapsed += 1
                continue
            with guard:
                out.update(map(id, admission.probes))
                seen.extend(out[id(switch)] for switch in admission.probes)
            note = chance.choice(notes)
            with guard:
                out.subtract(map(id, admission.probes))
            if note is not None:
                health.settle(admission, note)

    threads = [threading.Thread(target=_caught(hammer, faults), args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(seen) > 50
    assert set(seen) == {1}
    assert events[BreakerOpened] > 0
    assert events[BreakerClosed] > 0
    clock.elapsed += 10_000
    for deployment in (ONE, TWO, OTHER):
        assert isinstance(health.admit(deployment), Admission), "no lease was lost"
    assert not health._inbox
    assert not health._events


def _caught(work: Callable[[int], None], faults: list[BaseException]) -> Callable[[int], None]:
    def run(seed: int) -> None:
        try:
            work(seed)
        except BaseException as fault:
            faults.append(fault)

    return run


def test_a_note_that_makes_no_sense_is_one_calls_error_and_no_others() -> None:
    ward = Ward()
    admission = ward.admitted()
    with pytest.raises(TypeError):
        ward.health.settle(admission, HealthReport(counts=True, cool="20"))  # type: ignore[arg-type]
    assert ward.health.unavailable(ONE) is None
    assert isinstance(ward.admitted(), Admission)


def test_who_is_sick_is_not_forgotten_for_others_that_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.routing.health.MAX_KNOWN", 10)
    ward = Ward().ends(NO_MODEL)
    for i in range(30):
        other = Deployment(f"a/other{i}", ONE.backend, f"other{i}", ONE.info, None)
        admission = ward.health.admit(other)
        assert isinstance(admission, Admission)
        ward.health.settle(admission, ANSWERED)
    assert ward.refused() is not None
