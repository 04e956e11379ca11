"""`Budget`: exact amounts, what it refuses, and where its windows begin and end, also where clocks change."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ccroute import Budget
from ccroute.types.budget import ALWAYS

NOW = datetime(2026, 3, 15, 13, 45, 12, 7, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# -- Its values


@pytest.mark.parametrize("usd", [5, "5", 5.0, Decimal(5)])
def test_an_amount_is_exact_however_it_is_written(usd: Any) -> None:
    assert Budget(usd).usd == Decimal(5)
    assert Budget(usd) == Budget("5")


def test_a_float_counts_by_its_shortest_decimal() -> None:
    assert Budget(0.1).usd == Decimal("0.1")


def test_a_budget_is_per_day_in_utc_and_refuses_if_nothing_else_is_said() -> None:
    budget = Budget(5)
    assert (budget.per, budget.then, budget.tz, budget.tokens) == ("day", "refuse", "UTC", None)


def test_a_budget_is_a_value() -> None:
    budget = Budget("2.50", tokens=1000, per="month", then="queue", tz="Europe/Berlin")
    assert pickle.loads(pickle.dumps(budget)) == budget
    assert {budget: 1}[Budget("2.5", tokens=1000, per="month", then="queue", tz="Europe/Berlin")] == 1
    assert replace(budget, per="hour").per == "hour"


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget("2.50"), "2.50 USD per day"),
        (Budget(tokens=1000, per="hour"), "1000 tokens per hour"),
        (Budget(1, tokens=5, per="session"), "1 USD and 5 tokens per session"),
        (Budget(0, per="total"), "0 USD in total"),
    ],
)
def test_a_budget_says_what_it_allows(budget: Budget, text: str) -> None:
    assert str(budget) == text


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, ValueError, r"needs usd= or tokens=, such as Budget\(5\)"),
        ({"usd": -1}, ValueError, "a budget must be a finite amount of at least 0, not -1"),
        ({"usd": float("nan")}, ValueError, "a finite amount"),
        ({"usd": 10**10}, ValueError, "a budget must be at most 1000000000 USD$"),
        ({"usd": "a lot"}, ValueError, "'a lot' is not an amount in USD"),
        ({"usd": True}, TypeError, "a budget is a number or a str, in USD, not True"),
        ({"tokens": 0}, ValueError, "tokens must be positive, not 0"),
        ({"tokens": 1.5}, TypeError, "tokens is a number such as 1_000_000, not 1.5"),
        ({"tokens": True}, TypeError, "tokens is a number"),
        ({"usd": 1, "per": "week"}, ValueError, "per is one of hour, day, month, session, total, not 'week'"),
        ({"usd": 1, "then": "wait"}, ValueError, "then is one of fallback, queue, refuse, not 'wait'"),
        ({"usd": 1, "tz": 2}, TypeError, 'the name of a time zone such as "Europe/Berlin", not 2'),
        (
            {"usd": 1, "tz": "Europe/Berln"},
            ValueError,
            'no time zone "Europe/Berln", did you mean "Europe/Be',
        ),
        ({"usd": 1, "tz": "/etc"}, ValueError, 'no time zone "/etc": a name is such as Europe/Berlin'),
        ({"usd": 1, "tz": ""}, ValueError, 'no time zone ""'),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_write(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Budget(**given)


def test_a_machine_without_time_zones_is_told_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.available_timezones", lambda: set[str]())
    with pytest.raises(ValueError, match=r"no data on time zones.*pip install tzdata"):
        Budget(1, tz="Europe/Nowhere")


# -- Its windows


@pytest.mark.parametrize(
    ("budget", "since", "until"),
    [
        (Budget(1, per="hour"), "2026-03-15 13:00", "2026-03-15 14:00"),
        (Budget(1, per="day"), "2026-03-15", "2026-03-16"),
        (Budget(1, per="month"), "2026-03-01", "2026-04-01"),
        (Budget(1, per="hour", tz="Asia/Kolkata"), "2026-03-15 13:30", "2026-03-15 14:30"),
        (Budget(1, per="day", tz="Asia/Tokyo"), "2026-03-14 15:00", "2026-03-15 15:00"),
        (Budget(1, per="day", tz="America/Los_Angeles"), "2026-03-15 07:00", "2026-03-16 07:00"),
        (Budget(1, per="month", tz="Asia/Tokyo"), "2026-02-28 15:00", "2026-03-31 15:00"),
    ],
)
def test_a_window_begins_and_ends_by_the_clock_of_its_zone(budget: Budget, since: str, until: str) -> None:
    assert budget.window(NOW) == (utc(since), utc(until))


@pytest.mark.parametrize("per", ["session", "total"])
def test_a_session_and_a_total_have_no_end(per: Any) -> None:
    assert Budget(1, per=per).window(NOW) is ALWAYS


@pytest.mark.parametrize(
    ("zone", "moment", "hours"),
    [
        ("Europe/Berlin", "2026-03-29 12:00", 23),
        ("Europe/Berlin", "2026-10-25 12:00", 25),
        ("America/Havana", "2025-11-02 04:30", 25),  # 01:00 becomes 00:00 of the same day
        ("Asia/Beirut", "2026-03-28 22:30", 23),  # 00:00 becomes 01:00, so midnight is missing
        ("Australia/Lord_Howe", "2026-04-04 18:00", 24.5),
    ],
)
def test_a_day_on_which_clocks_change_has_its_own_length(zone: str, moment: str, hours: float) -> None:
    now = utc(moment)
    since, until = Budget(1, tz=zone).window(now)
    assert since <= now < until
    assert until - since == timedelta(hours=hours)
    assert until.astimezone(ZoneInfo(zone)).date() - since.astimezone(ZoneInfo(zone)).date() == timedelta(1)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/Santiago", "Asia/Beirut"])
@pytest.mark.parametrize("per", ["hour", "day", "month"])
def test_each_moment_is_in_one_window(zone: str, per: Any) -> None:
    budget = Budget(1, per=per, tz=zone)
    since, until = budget.window(utc("2026-01-01"))
    while until < utc("2027-01-01"):
        assert budget.window(until - timedelta(microseconds=1)) == (since, until)
        before, (since, until) = until, budget.window(until)
        assert since == before


def test_december_is_followed_by_january() -> None:
    assert Budget(1, per="month").window(utc("2026-12-31 23:59")) == (utc("2026-12-01"), utc("2027-01-01"))
