"""Whatever happens in whatever order: breakers, cooldowns and switches do what an independent model does.

The model is written from the rules (docs/architecture.md, "Failures"), with lists and sets where the code
has bits and leases. Of chance it only checks the bounds, and takes the time from the event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.flow.support import FakeClock, PlainBackend
from tests.routing.support import breaker_of, pending

from ccroute.errors import CcrouteError
from ccroute.observe import BreakerClosed, BreakerOpened, CooledDown, Event, Recovered
from ccroute.routing import Deployment, Health
from ccroute.routing.acquired import HealthReport, Unavailable
from ccroute.routing.health.switches import Admission
from ccroute.types import Model

# Backend a refuses keys (5 min, doubling to 1 h), b refuses to pay (15 min).
BACKENDS = {name: PlainBackend(name) for name in "ab"}
PLACES = {
    name: Deployment(name, BACKENDS[name[0]], name[2:], Model(), None) for name in ("a/1", "a/2", "b/1")
}
KINDS = ["answered", "failed", "failed", "failed", "neutral", "limited", "busy", "credential", "model"]


@dataclass(eq=False)
class SwitchModel:
    """A model's switch: off until an instant, then one at a time may prove it on."""

    off: bool = False
    until: float = 0.0
    seconds: float = 0.0
    doubling: float = 0.0
    probe: object = None
    awaited: float = 0.0  # until when others wait for the probe

    def clear(self) -> None:
        self.off, self.until, self.seconds, self.doubling = False, 0.0, 0.0, 0.0


@dataclass(eq=False)
class DeploymentModel(SwitchModel):
    history: list[bool] = field(default_factory=list)
    cool: float = 0.0

    def clear(self) -> None:
        super().clear()
        self.history = []


@dataclass(eq=False)
class AdmissionModel:
    """One admission: the real one, and which of the model's switches it is to prove."""

    name: str
    admission: Admission | None
    proves: list[SwitchModel]
    early: bool


class HealthMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.health = Health(self.clock, self.listen)
        self.places = {name: DeploymentModel() for name in PLACES}
        self.keys = {name: SwitchModel() for name in BACKENDS}
        self.out: list[AdmissionModel] = []
        self.listening = False

    def listen(self, event: Event) -> None:
        """Asks, as a listener may, which must neither wait nor take anything."""
        assert self.health._inbox.lock.acquire(blocking=False), "emitted under the lock"
        self.health._inbox.lock.release()
        self.events.append(event)
        for deployment in PLACES.values():
            self.health.unavailable(deployment)

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    # -- Asking

    def switches(self, name: str) -> list[SwitchModel]:
        return [switch for switch in (self.places[name], self.keys[name[0]]) if switch.off]

    def why_not(self, name: str, *, early: bool) -> tuple[float, bool, bool] | None:
        """Until when, whether it cools, whether it is the key: as a refusal has to say it."""
        shut = [
            switch
            for switch in self.switches(name)
            if (switch.probe is not None and self.now < switch.awaited)
            or (self.now < switch.until and not early)
        ]
        cool = self.places[name].cool if self.now < self.places[name].cool else 0.0
        if shut:
            last = max(shut, key=lambda switch: switch.until)
            return max(last.until, cool), False, last is self.keys[name[0]]
        return (cool, True, False) if cool else None

    def compare(
        self, outcome: Admission | Unavailable | None, expected: tuple[float, bool, bool] | None
    ) -> None:
        if expected is None:
            assert not isinstance(outcome, Unavailable), f"refused: {outcome}"
        else:
            assert isinstance(outcome, Unavailable), "admitted"
            assert (outcome.until, outcome.cooling, outcome.keys is not None) == expected
            assert outcome.error is not None

    @rule(name=st.sampled_from([*PLACES]), early=st.booleans(), times=st.integers(1, 8))
    def ask(self, name: str, early: bool, times: int) -> None:
        for _ in range(times):
            expected = self.why_not(name, early=early)
            outcome = self.health.admit(PLACES[name], early=early)
            self.compare(outcome, expected)
            if isinstance(outcome, Admission):
                switches = self.switches(name)
                asked = AdmissionModel(
                    name, outcome, switches, any(self.now < switch.until for switch in switches)
                )
                assert len(outcome.probes) == len(asked.proves)
                for switch in asked.proves:
                    assert switch.probe is None or self.now >= switch.awaited, "two probes at a time"
                    switch.probe, switch.awaited = asked, self.now + 30
                self.out.append(asked)

    @invariant()
    def looking_agrees(self) -> None:
        for name, deployment in PLACES.items():
            self.compare(self.health.unavailable(deployment), self.why_not(name, early=False))

    # -- Settling

    @precondition(lambda self: self.out)
    @rule(
        which=st.integers(0, 10**6),
        kind=st.sampled_from(KINDS),
        draw=st.floats(0, 1, exclude_max=True),
        seconds=st.sampled_from([1.0, 20.0, 90.0]),
        locked=st.booleans(),
        late=st.sampled_from([0.0, 0.0, 7.0]),
    )
    def settle(self, which: int, kind: str, draw: float, seconds: float, locked: bool, late: float) -> None:
        asked = self.out.pop(which % len(self.out))
        self.clock.draws = [draw]
        report = self.report(kind, asked, seconds)
        assert asked.admission is not None
        if locked:  # a finaliser, in the middle of anything; read only later
            with self.health._inbox.lock:
                self.health.settle(asked.admission, report)
                assert self.events == []
            at = self.now
            self.clock.elapsed += late
            self.health.unavailable(PLACES[asked.name])
        else:
            at = self.now
            self.health.settle(asked.admission, report)
        self.health.settle(asked.admission, HealthReport(counts=True))  # only the first word counts
        self.apply(asked, report, at)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 10**6), locked=st.booleans())
    def drop(self, which: int, locked: bool) -> None:
        """Cancelled, abandoned, interrupted: nobody settles it."""
        asked = self.out.pop(which % len(self.out))
        if locked:
            with self.health._inbox.lock:
                asked.admission = None
        else:
            asked.admission = None
        self.apply(asked, HealthReport(), self.now)

    @rule(which=st.sampled_from([*PLACES]), times=st.integers(1, 12), kind=st.sampled_from(KINDS[:4]))
    def several(self, which: str, times: int, kind: str) -> None:
        """A run of the same outcome, so that breakers do open."""
        for _ in range(times):
            if self.why_not(which, early=False) is None:
                self.ask(which, early=False, times=1)
                self.settle(len(self.out) - 1, kind, 0.5, 0.0, locked=False, late=0.0)

    def report(self, kind: str, asked: AdmissionModel, seconds: float) -> HealthReport:
        error = CcrouteError(kind)
        if kind == "credential":
            if asked.name[0] == "a":
                return HealthReport(error=error, off="credential", seconds=300.0, longest=3600.0)
            return HealthReport(error=error, off="credential", seconds=900.0)
        return {
            "answered": HealthReport(counts=False),
            "failed": HealthReport(counts=True, error=error),
            "neutral": HealthReport(),
            "limited": HealthReport(error=error, cool=seconds),
            "busy": HealthReport(counts=True, error=error, cool=seconds),
            "model": HealthReport(error=error, off="deployment", seconds=300.0),
        }[kind]

    def apply(self, asked: AdmissionModel, report: HealthReport, at: float) -> None:
        """What the rules make of it, and that exactly this was emitted."""
        name, place, key = asked.name, self.places[asked.name], self.keys[asked.name[0]]
        emitted: list[Event] = [*self.events]
        self.events.clear()
        answered = report.counts is False and place.off  # however late it came
        proved = [s for s in asked.proves if s.probe is asked or (answered and s is place)]
        for switch in proved:
            switch.probe = None
        if report.counts is False:
            if place in proved:
                assert emitted.pop(0) == (BreakerClosed(name) if place.doubling else Recovered(name))
            if key in proved:
                assert emitted.pop(0) == Recovered(name[0])
            for switch in proved:
                switch.clear()
        if report.cool and at + report.cool > place.cool:
            place.cool = at + report.cool
            assert emitted.pop(0) == CooledDown(name, report.cool, str(report.error))
        if report.off is not None:
            switch, who = (key, name[0]) if report.off == "credential" else (place, name)
            if not switch.off or (switch in proved and not asked.early):
                if report.longest:
                    switch.doubling = min(report.longest, max(report.seconds, switch.doubling * 2))
                seconds = max(report.seconds, switch.doubling if report.longest else 0.0)
                switch.off, switch.seconds = True, seconds
                switch.until = max(switch.until, at + seconds)
                assert emitted.pop(0) == CooledDown(who, switch.until - at, str(report.error))
        elif report.counts and asked.early and place in proved:
            pass  # it came before its time, so it neither prolongs nor ends anything
        elif report.counts is not None and not place.off:
            place.history.append(report.counts)
            last = place.history[-20:]
            five = len(last) >= 5 and all(last[-5:])
            if report.counts and (five or (len(last) >= 5 and sum(last) * 2 >= len(last))):
                self.opened(place, name, emitted.pop(0), at)
        elif report.counts and place in proved:
            self.opened(place, name, emitted.pop(0), at)
        assert emitted == []

    def opened(self, place: DeploymentModel, name: str, event: Event, at: float) -> None:
        assert isinstance(event, BreakerOpened)
        assert event.deployment == name
        place.doubling = min(300.0, place.doubling * 2 or 30.0)
        least, most = place.doubling * 0.8, place.doubling * 1.2
        floor = max(place.seconds, place.until - at)
        assert max(least, floor) - 1e-6 <= event.seconds <= max(most, floor) + 1e-6
        assert at + event.seconds >= place.until - 1e-6, "opening again never shortens"
        place.off = True
        place.until = breaker_of(self.health, PLACES[name]).until
        assert abs(place.until - at - event.seconds) < 1e-6
        place.seconds = breaker_of(self.health, PLACES[name]).seconds

    # -- Time, and another key

    @rule(seconds=st.sampled_from([0.5, 5.0, 29.0, 31.0, 100.0, 301.0, 4000.0]))
    def passes(self, seconds: float) -> None:
        self.clock.elapsed += seconds

    @rule(name=st.sampled_from([*BACKENDS]))
    def renew(self, name: str) -> None:
        self.health.renew(BACKENDS[name])
        emitted = [*self.events]
        self.events.clear()
        assert emitted == ([Recovered(name)] if self.keys[name].off else [])
        self.keys[name] = SwitchModel()

    @invariant()
    def nothing_is_emitted_on_its_own(self) -> None:
        assert self.events == []
        assert pending(self.health) == []

    def teardown(self) -> None:
        """Whatever was out is dropped; once all times are over, everybody is admitted and proved well."""
        if not hasattr(self, "out"):
            return
        for asked in self.out:
            asked.admission = None
        self.clock.elapsed += 100_000
        for _ in range(2):
            for deployment in PLACES.values():
                admission: Any = self.health.admit(deployment)
                assert isinstance(admission, Admission), "a lease was lost"
                self.health.settle(admission, HealthReport(counts=False))


TestHealth = HealthMachine.TestCase
TestHealth.settings = settings(max_examples=150, stateful_step_count=40)
