"""One deployment's breaker: how its last attempts ended, for which callers, and when it opens.

Knows outcomes and callers; must not know clocks, locks or leases. Servers answer 500 to a caller's mistake,
so failures are counted by different callers: where one caller alone fails, it opens for that one alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ccroute.errors import CcrouteError
from ccroute.types import JSON, Request

IN_A_ROW = 5
"""Failures in a row that open a breaker."""
WINDOW = 20
"""Outcomes looked back at: a breaker opens, too, when half of them failed, and at least 5 are known."""

Caller: TypeAlias = Hashable
"""Who asked: the name of an agent, user or session, or a fingerprint of what was asked."""


def name_of(request: Request) -> str | None:
    """The caller's name, if it gave one: its agent, its user or its session."""
    return request.agent or request.user or request.session


def caller_of(request: Request) -> Caller:
    """The caller's name; without one, a fingerprint of its tools and its schema, else of its messages: a
    mistake is repeated with them."""
    name = name_of(request)
    if name is not None:
        return name
    formed = (request.tools, request.tool_choice, request.response_format)
    return hash(repr(formed) if any(formed) else tuple(map(_said, request.messages)))


def _said(message: Mapping[str, JSON]) -> Hashable:
    """What distinguishes a message: mostly its text, which may be long, and whose hash Python caches."""
    role, content = message.get("role"), message.get("content")
    is_plain = len(message) == 2 and isinstance(role, str) and isinstance(content, str)
    return (role, content) if is_plain else repr(message)


@dataclass(slots=True, eq=False)
class Switch:
    """Something that is on (no `error`), off until an instant, or, after it, open to one probe.

    `seconds` is how long it was off last, `base` what is doubled for the next time. `probe` is the lease of
    the one probe, which others wait for until `probe_until`.
    """

    until: float = 0.0
    seconds: float = 0.0
    base: float = 0.0
    why: str = ""
    error: CcrouteError | None = None
    probe: object = None
    probe_until: float = 0.0
    keys: frozenset[int] = frozenset()

    def turn_off(self, at: float, seconds: float, why: str, error: CcrouteError | None) -> None:
        """Off for at least `seconds`; a longer time wins."""
        self.until = max(self.until, at + seconds)
        self.seconds, self.why = seconds, why
        self.error = error or CcrouteError(why)

    def turn_on(self) -> None:
        self.until = self.seconds = self.base = 0.0
        self.error = self.probe = None


class Trip(NamedTuple):
    """Why a breaker has to open. `only`: for this caller alone; None: for all callers."""

    why: str
    only: Caller | None


@dataclass(slots=True, eq=False)
class Breaker(Switch):
    """A deployment's breaker. It is open (calls do not pass) while the switch is off.

    outcomes: of its last attempts: whether each failed, and its caller. A failure without a caller is no
              caller's fault (nothing was sent, or the server has no room); it counts as one more caller.
    only:     the callers it is open for; empty where it is open for all.
    gone:     whether connections are refused.
    held:     the caller whose probe failed, and until when it may not make the next one.
    refused:  the callers that were refused since any caller was answered.
    """

    outcomes: deque[tuple[bool, Caller | None]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    only: tuple[Caller, ...] = ()
    gone: bool = False
    held: tuple[Caller, float] | None = None
    refused: frozenset[Caller] = frozenset()
    cool_until: float = 0.0
    cool_error: CcrouteError | None = None

    @property
    def is_on(self) -> bool:
        """Whether every call may go there."""
        return self.error is None and not self.cool_until

    def concerns(self, request: Request | None) -> bool:
        """Whether an open breaker turns this request's caller away."""
        return not self.only or request is None or caller_of(request) in self.only

    def counts(self, caller: Caller | None) -> bool:
        """Whether an outcome counts. While the breaker is open, only callers it is not open for count."""
        return self.error is None or (bool(self.only) and caller not in self.only)

    def count(self, *, failed: bool, caller: Caller | None) -> Trip | None:
        """Add an outcome. Returns why the breaker has to open, or None."""
        self.outcomes.append((failed, caller))
        if not failed:
            self.refused = frozenset()
            return None
        if len(self.outcomes) < IN_A_ROW:
            return None
        known = [*self.outcomes]
        failing = [who for bad, who in known if bad]
        if all(bad for bad, _ in known[-IN_A_ROW:]):
            why, failing, enough = f"{IN_A_ROW} failures in a row", failing[-IN_A_ROW:], _concerns_all
        elif len(failing) * 2 >= len(known):
            why, enough = f"{len(failing)} of the last {len(known)} attempts failed", _are_most
        else:
            return None
        if caller is not None and set(failing) == {caller}:
            return Trip(why, caller)
        return Trip(why, None) if enough(known, failing, self.only) else None

    def answers_others(self, caller: Caller) -> bool:
        """Whether another caller was answered among the last outcomes."""
        return any(not failed and who != caller for failed, who in self.outcomes)

    def turn_on(self) -> None:
        Switch.turn_on(self)
        self.outcomes.clear()
        self.only, self.gone, self.held = (), False, None


_Known: TypeAlias = Sequence[tuple[bool, Caller | None]]


def _concerns_all(known: _Known, failing: Sequence[Caller | None], only: Sequence[Caller]) -> bool:
    """For failures in a row: whether they are of different callers, or most callers fail."""
    different = len(set(failing)) + failing.count(None) - (None in failing)
    return different >= IN_A_ROW or _are_most(known, failing, only)


def _are_most(known: _Known, failing: Sequence[Caller | None], only: Sequence[Caller]) -> bool:
    """For failures now and then: whether more than one caller fails, and at least as many fail as are
    answered. Each caller counts by its last outcome. Callers that the breaker is open for do not count."""
    unnamed = [bad for bad, who in known if who is None]
    last = {who: bad for bad, who in known if who is not None and who not in only}
    outcomes = [*unnamed, *last.values()]
    return sum(outcomes) * 2 >= len(outcomes) and (sum(outcomes) > 1 or all(outcomes))
