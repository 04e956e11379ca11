"""The health of a few deployments on a clock that is set, and what attempts report of it."""

from __future__ import annotations

from typing import Any

from tests.flow.support import FakeClock, PlainBackend

from ccroute.errors import (
    AuthenticationError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)
from ccroute.observe import BreakerOpened, Event
from ccroute.routing import Deployment, Health
from ccroute.routing.acquired import HealthReport, Unavailable
from ccroute.routing.health.breaker import Breaker
from ccroute.routing.health.switches import Admission
from ccroute.types import Model

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


class Watched:
    """One health on a clock that is set, and all the events it emitted."""

    def __init__(self, *draws: float, on: bool = True) -> None:
        self.clock = FakeClock(draws=list(draws or [0.5]))
        self.events: list[Event] = []
        self.health = Health(self.clock, self.events.append, on=on)

    def admitted(self, deployment: Deployment = ONE, *, early: bool = False) -> Admission:
        admission = self.health.admit(deployment, early=early)
        assert isinstance(admission, Admission), f"turned away: {admission}"
        return admission

    def unavailable(self, deployment: Deployment = ONE, *, early: bool = False) -> Unavailable:
        reason = self.health.admit(deployment, early=early)
        assert isinstance(reason, Unavailable), "it was admitted"
        return reason

    def ends(self, *reports: HealthReport, at: Deployment = ONE, early: bool = False) -> Watched:
        """Attempts one after the other, each ending so."""
        for report in reports:
            self.health.settle(self.admitted(at, early=early), report)
        return self

    def after(self, seconds: float) -> Watched:
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


# What no public method tells, in one place.

MODULE = Admission.__module__
"""Where the bounds are that some tests make smaller."""


def pending(health: Health) -> list[Any]:
    """Reports that nobody has read yet, and events that nobody has emitted."""
    return [*health._inbox, *health._switches.events]


def breaker_of(health: Health, deployment: Deployment) -> Breaker:
    """A deployment's breaker."""
    return health._switches.breakers[deployment.identity]
