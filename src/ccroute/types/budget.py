"""Budgets: how much may be spent in a window of time. The constructor checks the values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Literal, NamedTuple, get_args

from ccroute.types.clock import BEGINNING, END
from ccroute.types.policy import Amount, exact_usd

Per = Literal["hour", "day", "month", "session", "total"]
Then = Literal["fallback", "queue", "refuse"]


class Window(NamedTuple):
    """The time from `since` until just before `until`, both in UTC."""

    since: datetime
    until: datetime


ALWAYS = Window(BEGINNING, END)


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """The most that calls may cost in a window of time: `Budget(5)`, `Budget(200, per="month")`.

    usd:    US dollars, exact; `Budget(0)` lets free models answer only. None: any amount.
    tokens: of prompts and answers together, cached ones included. None: any number.
    per:    the window: an "hour", "day" or "month" of the calendar; "session": one budget for each session,
            without an end; "total": everything that was ever spent. A call without a session needs no budget
            of sessions.
    then:   what a call does if it does not fit. "refuse": another deployment of the same model may serve it;
            if none fits, the call raises `BudgetExceededError`. "fallback": the fallback models may serve it,
            too. "queue": the call waits for the next window, if that begins before its deadline and has room
            for it; otherwise as "refuse".
            In each case, a call that may fit when other calls have ended waits for them.
    tz:     where hours, days and months begin, such as "Europe/Berlin".

    Raises `ValueError` and `TypeError`.
    """

    usd: Decimal | None
    tokens: int | None
    per: Per
    then: Then
    tz: str

    def __init__(
        self,
        usd: Amount | None = None,
        *,
        tokens: int | None = None,
        per: Per = "day",
        then: Then = "refuse",
        tz: str = "UTC",
    ) -> None:
        if usd is None and tokens is None:
            raise ValueError("a budget needs usd= or tokens=, such as Budget(5) for 5 USD a day")
        if isinstance(tokens, bool) or not isinstance(tokens, int | None):
            raise TypeError(f"Budget: tokens is a number such as 1_000_000, not {tokens!r}")
        if tokens is not None and tokens < 1:
            raise ValueError(f"Budget: tokens must be positive, not {tokens}")
        for name, value, known in (("per", per, get_args(Per)), ("then", then, get_args(Then))):
            if value not in known:
                raise ValueError(f"Budget: {name} is one of {', '.join(known)}, not {value!r}")
        put = object.__setattr__
        put(self, "usd", None if usd is None else exact_usd(usd, "a budget"))
        put(self, "tokens", tokens)
        put(self, "per", per)
        put(self, "then", then)
        put(self, "tz", tz)
        _zone(tz)

    def __str__(self) -> str:
        amounts = [f"{self.usd:f} USD"] if self.usd is not None else []
        amounts += [f"{self.tokens} tokens"] if self.tokens is not None else []
        whole = " and ".join(amounts)
        return f"{whole} in total" if self.per == "total" else f"{whole} per {self.per}"

    def window(self, now: datetime) -> Window:
        """The window that `now` (UTC) is in. A day has 23 or 25 hours where the clocks change."""
        if self.per in ("session", "total"):
            return ALWAYS
        zone = _zone(self.tz)
        local = now.astimezone(zone)
        if self.per == "hour":
            past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            return Window(now - past, now - past + timedelta(hours=1))
        first = datetime(local.year, local.month, local.day if self.per == "day" else 1)
        # 32 days after the first of a month, it is the next month.
        later = first + timedelta(days=1 if self.per == "day" else 32)
        after = later if self.per == "day" else later.replace(day=1)
        return Window(*(each.replace(tzinfo=zone).astimezone(UTC) for each in (first, after)))


def _zone(name: object) -> tzinfo:
    """The time zone with this name. Raises `ValueError` if there is none, `TypeError` if it is no text."""
    if name == "UTC":
        return UTC
    if not isinstance(name, str):
        raise TypeError(f'Budget: tz is the name of a time zone such as "Europe/Berlin", not {name!r}')
    from zoneinfo import ZoneInfo, available_timezones  # few budgets need it

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # no such name; a folder; a path
        known = available_timezones()
    if not known:
        raise ValueError(
            f'Budget: this machine has no data on time zones such as "{name}": pip install tzdata'
        )
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    meant = f', did you mean "{close[0]}"?' if close else ": a name is such as Europe/Berlin"
    raise ValueError(f'Budget: there is no time zone "{name}"{meant}')
