"""A breaker opens by its rules, stays open for so long, and is closed by one probe."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.routing.support import (
    ANSWERED,
    FAILED,
    MODULE,
    NEUTRAL,
    NO_MODEL,
    ONE,
    OTHER,
    SLOW_DOWN,
    TWO,
    Watched,
    outcomes,
)

from ccroute.errors import CcrouteError
from ccroute.observe import BreakerClosed, BreakerOpened
from ccroute.routing.acquired import HealthReport, Unavailable
from ccroute.routing.health.breaker import caller_of
from ccroute.routing.health.switches import Admission
from ccroute.types import Request

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
def test_a_breaker_opens_at_5_in_a_row_or_half_of_the_last_20(history: str) -> None:
    watched = Watched()
    watched.ends(*outcomes(history[:-1]))
    assert watched.events == [], "one too early"
    watched.ends(*outcomes(history[-1]))
    assert watched.opened == [30.0]
    assert isinstance(watched.unavailable(), Unavailable)


@pytest.mark.parametrize(
    "history", ["FFFF", "SFSF", "FFFFS", "SSSFFSSF", "S" * 20 + "FS" * 9, "FFFF" + "-" * 20, "S" * 50]
)
def test_a_breaker_stays_closed_below_both(history: str) -> None:
    watched = Watched().ends(*outcomes(history))
    assert watched.health.unavailable(ONE) is None
    assert watched.events == []


@given(st.lists(st.booleans(), max_size=60))
def test_a_closed_breaker_opens_exactly_when_the_rule_says(history: list[bool]) -> None:
    watched = Watched()
    for count, failed in enumerate(history, 1):
        watched.ends(FAILED if failed else ANSWERED)
        last = history[max(0, count - 20) : count]
        in_a_row = count >= 5 and all(history[count - 5 : count])
        half = len(last) >= 5 and sum(last) >= len(last) / 2
        assert bool(watched.opened) is (failed and (in_a_row or half))
        if watched.opened:
            return


def test_each_deployment_has_its_own_breaker() -> None:
    watched = Watched().ends(*[FAILED] * 5)
    assert watched.health.unavailable(ONE) is not None
    assert watched.health.unavailable(TWO) is None
    assert watched.health.unavailable(OTHER) is None


def test_a_call_turned_away_learns_why_until_when_and_the_error() -> None:
    watched = Watched().ends(*[FAILED] * 5)
    reason = watched.unavailable()
    assert reason == watched.health.unavailable(ONE)
    assert (reason.until, reason.why, reason.error) == (
        watched.now + 30,
        "5 failures in a row",
        FAILED.error,
    )
    assert (reason.cooling, reason.keys is not None) == (False, False)
    assert watched.events == [BreakerOpened("a/1", 30.0, "5 failures in a row")]
    half = Watched().ends(*outcomes("SFSFF"))
    assert half.unavailable().why == "3 of the last 5 attempts failed"


def test_a_failure_without_an_error_still_gives_one_to_others() -> None:
    watched = Watched().ends(*[HealthReport(counts=True)] * 5)
    assert isinstance(watched.unavailable().error, CcrouteError)


# -- How long it stays open


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_a_breaker_stays_open_30_to_300_seconds_with_jitter(draw: float, factor: float) -> None:
    watched = Watched(draw).ends(*[FAILED] * 5)
    for _ in range(6):
        watched.after(400).ends(FAILED)
    expected = [30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0]
    assert watched.opened == pytest.approx([seconds * factor for seconds in expected], rel=1e-4)


def test_opening_again_never_shortens() -> None:
    watched = Watched(*[1.0] * 5, 0.0).ends(*[FAILED] * 5)
    for _ in range(7):
        watched.after(400).ends(FAILED)
    assert watched.opened == sorted(watched.opened)
    assert watched.opened[-1] == pytest.approx(360)


def test_an_early_probe_that_fails_does_not_bring_the_end_closer() -> None:
    watched = Watched().ends(*[FAILED] * 5)
    until = watched.unavailable().until
    watched.after(1).ends(FAILED, early=True)
    assert watched.unavailable().until == until
    assert watched.opened == [30.0], "nor does it put it off: somebody may be waiting for the end"
    watched.after(29).ends(FAILED)
    assert watched.opened == [30.0, 60.0]


def test_a_breaker_that_closed_begins_again_at_30_seconds() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30).ends(FAILED).after(60).ends(ANSWERED)
    watched.ends(*outcomes("SSSSFFFF"))
    assert watched.opened == [30.0, 60.0]
    watched.ends(FAILED)
    assert watched.opened == [30.0, 60.0, 30.0]


# -- A server that is gone

REFUSED = FAILED._replace(gone="refused")
BROKEN = FAILED._replace(gone="broken")


def test_a_server_that_refuses_connections_is_probed_soon() -> None:
    watched = Watched().ends(*[REFUSED] * 5)
    for _ in range(4):
        watched.after(3).ends(REFUSED)
    assert watched.opened == [1.0, 2.0, 2.0, 2.0, 2.0]


def test_after_a_broken_connection_one_probe_comes_soon() -> None:
    watched = Watched().ends(*[BROKEN] * 5).after(1).ends(BROKEN).after(30).ends(BROKEN)
    assert watched.opened == [1.0, 30.0, 60.0]


def test_a_failing_server_that_went_down_is_probed_soon_too() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30).ends(REFUSED).after(2).ends(FAILED)
    assert watched.opened == [30.0, 2.0, 30.0]


# -- Failures count by different callers

BAD, WORSE = Request(agent="bad"), Request(agent="worse")
OTHERS = [Request(agent=f"agent {i}") for i in range(20)]


def ends(watched: Watched, request: Request, *letters: str) -> Watched:
    """Attempts of one caller, each ending as its letter says."""
    for letter in "".join(letters):
        admission = watched.health.admit(ONE, request)
        assert isinstance(admission, Admission), f"{request.agent} was refused"
        report = FAILED._replace(caller=caller_of(request)) if letter == "F" else ANSWERED
        watched.health.settle(admission, report)
    return watched


def admits(watched: Watched, *requests: Request) -> bool:
    """Whether all of them would be admitted."""
    refused = [watched.health.unavailable(ONE, request) is not None for request in requests]
    assert len({*refused}) == 1, "some would, and some would not"
    return not refused[0]


def test_five_failures_of_one_caller_turn_no_other_caller_away() -> None:
    watched = ends(Watched(), BAD, "FFFFF")
    assert watched.opened == [30.0]
    assert not admits(watched, BAD)
    assert admits(watched, *OTHERS)
    assert watched.health.unavailable(ONE) is not None, "a call without a caller sees it"
    for request in OTHERS:
        ends(watched, request, "S")
    assert watched.opened == [30.0]


def test_a_second_callers_failure_opens_it_for_all_without_an_answer() -> None:
    watched = ends(ends(Watched(), BAD, "FFFFF"), OTHERS[0], "F")
    assert watched.opened == [30.0, 30.0]
    assert not admits(watched, BAD, *OTHERS)


def test_a_second_callers_failure_opens_nothing_amid_answers() -> None:
    watched = ends(ends(ends(Watched(), BAD, "FFFFF"), OTHERS[0], "S"), WORSE, "F")
    assert admits(watched, *OTHERS)
    ends(watched, WORSE, "FFFF")
    assert not admits(watched, WORSE, BAD)
    assert admits(watched, *OTHERS)


def test_five_failing_callers_in_a_row_open_it_for_all() -> None:
    watched = Watched()
    for request in OTHERS:
        ends(watched, request, "S")
    for request in OTHERS[:5]:
        ends(watched, request, "F")
    assert not admits(watched, *OTHERS, BAD)


def test_half_of_the_attempts_may_fail_if_most_callers_are_answered() -> None:
    watched = Watched()
    for request in OTHERS[:10]:
        ends(watched, request, "S")
        ends(watched, BAD if OTHERS.index(request) % 2 else WORSE, "F")
    assert admits(watched, *OTHERS)
    ends(watched, WORSE, "FF")
    assert admits(watched, *OTHERS)


def test_the_caller_it_is_open_for_may_close_it_by_a_probe() -> None:
    watched = ends(Watched(), BAD, "FFFFF").after(30)
    probe = watched.health.admit(ONE, BAD)
    assert isinstance(probe, Admission)
    assert isinstance(watched.health.admit(ONE, BAD), Unavailable)
    ends(watched, OTHERS[0], "S")  # others do not wait for it
    watched.health.settle(probe, ANSWERED)
    assert admits(watched, BAD)


def test_a_failed_probe_of_one_caller_keeps_only_it_away_longer() -> None:
    watched = ends(Watched(), BAD, "FFFFF").after(30)
    ends(watched, BAD, "F")
    assert watched.opened == [30.0, 60.0]
    assert not admits(watched, BAD)
    assert admits(watched, *OTHERS)


def test_a_breaker_for_one_caller_closes_when_its_time_is_over() -> None:
    watched = ends(ends(Watched(), BAD, "FFFFF"), OTHERS[0], "S")
    assert not admits(watched, BAD)
    ends(watched.after(30), OTHERS[0], "S")
    assert watched.events[-1] == BreakerClosed("a/1")
    assert admits(watched, BAD, *OTHERS)


def test_a_refused_model_is_off_for_all_though_open_for_one() -> None:
    watched = ends(Watched(), BAD, "FFFFF")
    admission = watched.health.admit(ONE, OTHERS[0])
    assert isinstance(admission, Admission)
    watched.health.settle(admission, NO_MODEL)
    assert not admits(watched, BAD, *OTHERS)


def test_the_callers_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.MOST_CALLERS", 2)
    watched = Watched()
    for request in OTHERS[:4]:
        ends(ends(watched, request, "FFFFF"), OTHERS[19], *["S"] * 20)
    assert not admits(watched, *OTHERS[2:4])
    assert admits(watched, *OTHERS[:2])


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


def test_a_caller_refused_amid_answers_is_turned_away_alone() -> None:
    forbidden = HealthReport(error=CcrouteError("forbidden"), off="deployment", seconds=300.0)
    watched = ends(Watched(), OTHERS[0], "S")
    for request, others in ((BAD, [*OTHERS, WORSE]), (BAD, OTHERS)):
        admission = watched.health.admit(ONE, request, early=True)
        assert isinstance(admission, Admission)
        watched.health.settle(admission, forbidden._replace(caller=caller_of(request)))
        assert not admits(watched, BAD)
        assert admits(watched, *others)
    ends(watched, OTHERS[1], "S")
    for request in (WORSE, OTHERS[2]):  # two in a row, and nobody was answered in between
        admission = watched.health.admit(ONE, request)
        assert isinstance(admission, Admission)
        watched.health.settle(admission, forbidden._replace(caller=caller_of(request)))
    assert not admits(watched, *OTHERS, BAD, WORSE)


def test_a_failed_probe_of_one_caller_lets_another_caller_probe() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    for _ in range(3):
        probe = watched.health.admit(ONE, BAD)
        assert isinstance(probe, Admission)
        watched.health.settle(probe, FAILED._replace(caller="bad"))
        assert not admits(watched, BAD)
        assert admits(watched, *OTHERS)
        watched.after(30)
    assert watched.opened == [30.0], "nobody else waits any longer"
    ends(watched, OTHERS[0], "S")
    assert admits(watched, BAD, *OTHERS)


def test_probes_that_fail_for_two_callers_open_it_for_all_for_longer() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    ends(ends(watched, BAD, "F"), WORSE, "F")
    assert watched.opened == [30.0, 60.0]
    assert not admits(watched, BAD, WORSE, *OTHERS)


def test_a_probe_not_refused_for_a_second_shows_the_server_is_back() -> None:
    watched = Watched().ends(*[FAILED._replace(gone="refused")] * 5).after(1)
    probe = watched.admitted()
    assert isinstance(watched.after(0.9).unavailable(), Unavailable)
    assert isinstance(watched.after(0.2).admitted(), Admission)
    assert watched.events[-1] == BreakerClosed("a/1")
    watched.health.settle(probe, ANSWERED)


def test_a_probe_whose_answer_has_begun_keeps_nobody_waiting() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    probe = watched.admitted()
    watched.health.answers(probe)
    assert watched.events[-1] == BreakerClosed("a/1")
    assert isinstance(watched.admitted(), Admission)
    watched.health.settle(probe, FAILED)
    assert watched.opened == [30.0], "what follows is an outcome like any other"


# -- Half-open: one probe


def test_until_its_time_is_over_nobody_is_admitted() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(29.99)
    assert isinstance(watched.unavailable(), Unavailable)
    assert isinstance(watched.after(0.01).admitted(), Admission)


def test_of_a_hundred_that_ask_after_it_one_is_the_probe() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    asked = [watched.health.admit(ONE) for _ in range(100)]
    assert sum(isinstance(admission, Admission) for admission in asked) == 1
    assert isinstance(asked[0], Admission)
    assert isinstance(watched.after(29.9).unavailable(early=True), Unavailable)
    assert isinstance(watched.after(0.1).admitted(), Admission), (
        "one that takes long keeps nobody waiting for ever"
    )


def test_a_probe_that_is_answered_closes_the_breaker_for_all() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30).ends(ANSWERED)
    assert watched.events[1:] == [BreakerClosed("a/1")]
    assert [isinstance(watched.health.admit(ONE), Admission) for _ in range(3)] == [True] * 3


def test_a_probe_that_fails_opens_it_again_for_twice_as_long() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30).ends(FAILED)
    assert watched.events[1:] == [BreakerOpened("a/1", 60.0, "the probe failed")]
    assert isinstance(watched.after(59.9).unavailable(), Unavailable)
    assert isinstance(watched.after(0.1).admitted(), Admission)


@pytest.mark.parametrize("report", [NEUTRAL, None, SLOW_DOWN._replace(cool=None)])
def test_a_probe_that_proves_nothing_leaves_the_next_one_free(
    report: HealthReport | None,
) -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    probe = watched.admitted()
    if report is not None:
        watched.health.settle(probe, report)
    del probe  # or it is dropped, whatever interrupted it
    gc.collect()
    assert len(watched.events) == 1
    again = watched.admitted()
    assert isinstance(watched.unavailable(), Unavailable), "the next one is the probe, alone again"
    watched.health.settle(again, FAILED)
    assert watched.opened == [30.0, 60.0], "doubled once"


@pytest.mark.parametrize("report", [FAILED, ANSWERED, NEUTRAL])
def test_a_late_outcome_neither_closes_nor_prolongs_it(report: HealthReport) -> None:
    watched = Watched()
    late = [watched.admitted() for _ in range(10)]
    watched.ends(*[FAILED] * 5)
    until = watched.unavailable().until
    for admission in late[:5]:
        watched.health.settle(admission, report)
    assert watched.unavailable().until == until
    probe = watched.after(30).admitted()
    for admission in late[5:]:
        watched.health.settle(admission, report)
    assert isinstance(watched.unavailable(), Unavailable), "the probe is still out"
    watched.health.settle(probe, ANSWERED)
    assert watched.events[1:] == [BreakerClosed("a/1")]


def test_an_attempt_is_settled_only_once() -> None:
    watched = Watched()
    for _ in range(4):
        admission = watched.admitted()
        for report in (FAILED, FAILED, ANSWERED):
            watched.health.settle(admission, report)
    assert watched.opened == []
    assert watched.ends(FAILED).opened == [30.0]


def test_a_settled_probe_dropped_later_does_not_free_the_next_one() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    first = watched.admitted()
    watched.health.settle(first, NEUTRAL)
    second = watched.admitted()
    del first
    gc.collect()
    assert isinstance(watched.unavailable(), Unavailable)
    watched.health.settle(second, ANSWERED)


def test_tried_early_it_still_has_one_probe_only() -> None:
    watched = Watched().ends(*[FAILED] * 5)
    probe = watched.admitted(early=True)
    assert isinstance(watched.unavailable(early=True), Unavailable)
    watched.health.settle(probe, ANSWERED)
    assert watched.health.unavailable(ONE) is None


def test_to_look_takes_nothing() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    assert [watched.health.unavailable(ONE) for _ in range(3)] == [None] * 3
    probe = watched.admitted()
    assert isinstance(watched.health.unavailable(ONE), Unavailable)
    watched.health.settle(probe, ANSWERED)
