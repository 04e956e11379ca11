"""The breaker, the cooldown and the two switches of every deployment, and how reports change them.

Pure: the instant is handed in, and so is chance; what happened is collected as events. Must not know threads:
`Health` holds the lock.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ccroute import observe
from ccroute.backends import Backend
from ccroute.routing.acquired import ANSWERED, NEUTRAL, AttemptOutcome, HealthReport, Unavailable
from ccroute.routing.health.breaker import Breaker, Switch, Trip, caller_of, name_of
from ccroute.routing.tables.deployments import Deployment
from ccroute.routing.tables.tables import MAX_KNOWN
from ccroute.types import Request

if TYPE_CHECKING:
    from ccroute.routing.health.health import Health
    from ccroute.types import HealthStats

OPEN, LONGEST = 30.0, 300.0
"""Seconds a breaker stays open at first, doubling up to the longest, each ± JITTER."""
SOON, SOON_LONGEST = 1.0, 2.0
"""The same where the server is away: connections are refused, or have just been broken. To notice that it
is back costs no more than a connection."""
LEASE = 30.0
"""Seconds that others wait for a probe; while one that takes longer goes on, the next call may be another."""
MOST_CALLERS = 64
"""Callers that one breaker is open for alone, at most; the oldest are let in again."""
JITTER = 0.2
COOLING = "asked for a pause"
MOST_KEYS = 64
"""Refused keys of one backend that are remembered, as fingerprints."""


class Admission:
    """The permission to send one attempt to a deployment."""

    __slots__ = ("deployment", "health", "request", "settled")

    probes: tuple[Switch, ...] = ()
    lease: object = None
    early = False

    def __init__(self, deployment: Deployment, request: Request | None, health: Health) -> None:
        self.deployment = deployment
        self.request = request
        self.health = health
        self.settled = False

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """What became of the attempt; only the first call counts. Never waits."""
        self.health.settle(self, NEUTRAL if outcome is None else outcome.health)


class Probe(Admission):
    """The permission to send the one attempt that tests whether switches may go on again. A probe that is
    dropped without being settled gives its lease back. An `early` probe that fails changes nothing."""

    __slots__ = ("early", "lease", "probes")

    def __init__(
        self,
        deployment: Deployment,
        request: Request | None,
        health: Health,
        probes: tuple[Switch, ...],
        now: float,
    ) -> None:
        super().__init__(deployment, request, health)
        self.settled = True  # until it is complete: an interrupt may come in between
        self.probes = probes
        self.early = any(now < switch.until for switch in probes)
        self.lease = object()
        self.settled = False
        for switch in probes:
            switch.probe, switch.probe_until = self.lease, now + LEASE

    def proved(self) -> Admission:
        """An admission that settles this probe's switches now, while the attempt goes on."""
        proof = copy.copy(self)
        proof.settled = True
        self.probes, self.early = (), False
        return proof

    def __del__(self) -> None:
        if not getattr(self, "settled", True):
            self.settle()


class Switches:
    """The state of one router's deployments and credentials."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.events: deque[observe.Event] = deque()
        self.breakers: dict[str, Breaker] = {}  # by the deployment's identity
        self.credentials: dict[str, Switch] = {}  # by the backend's identity with its key
        self._random = random

    def are_on(self, deployment: Deployment) -> bool:
        """Whether nothing at all speaks against a deployment."""
        if self.credentials and deployment.backend.credential_identity in self.credentials:
            return False
        breaker = self.breakers.get(deployment.identity)
        return breaker is None or (breaker.error is None and not breaker.cool_until)  # `is_on`, inlined

    def concerning(self, deployment: Deployment, request: Request | None) -> tuple[Switch, ...]:
        """The switches that can turn this caller away from this deployment."""
        breaker = self.breakers.get(deployment.identity)
        if breaker is not None and not breaker.concerns(request):
            breaker = None
        credential = self.credentials.get(deployment.backend.credential_identity)
        return tuple(switch for switch in (breaker, credential) if switch is not None)

    def unavailable(
        self,
        deployment: Deployment,
        switches: tuple[Switch, ...],
        request: Request | None,
        now: float,
        *,
        early: bool,
    ) -> Unavailable | None:
        """Why the deployment gets no call; None if it may be asked. Changes nothing. `early`: before its
        time."""
        found = None
        for switch in switches:
            if isinstance(switch, Breaker) and _is_back(switch, now):
                continue
            is_probed = switch.probe is not None and now < switch.probe_until
            shut = is_probed or (now < switch.until and not early)
            if isinstance(switch, Breaker) and switch.held is not None and not shut and not early:
                who, until = switch.held
                if request is not None and now < until and caller_of(request) == who:
                    return Unavailable(until, "the probe failed", switch.error)
            if switch.error is not None and shut and (found is None or switch.until > found.until):
                keys = None if isinstance(switch, Breaker) else switch.keys
                found = Unavailable(switch.until, switch.why, switch.error, keys=keys)
        breaker = self.breakers.get(deployment.identity)
        if breaker is not None and now < breaker.cool_until:
            if found is None:
                return Unavailable(breaker.cool_until, COOLING, breaker.cool_error, cooling=True)
            found = found._replace(until=max(found.until, breaker.cool_until))
        return found

    def refresh(self, deployment: Deployment, switches: tuple[Switch, ...], now: float) -> None:
        """Turn on the breaker of a server that is back, and end a pause whose time is over."""
        breaker = self.breakers.get(deployment.identity)
        if breaker is None:
            return
        if breaker in switches and _is_back(breaker, now):
            breaker.turn_on()
            self.events.append(observe.BreakerClosed(deployment.name))
        if now >= breaker.cool_until:
            breaker.cool_until = 0.0

    def renew(self, backend: Backend) -> None:
        """The backend has a key that was not refused: it may be asked again."""
        switch = self.credentials.get(backend.credential_identity)
        if switch is not None and switch.error is not None:
            switch.turn_on()
            self.events.append(observe.Recovered(backend.name))

    def apply(self, admission: Admission, report: HealthReport, at: float) -> None:
        """Change the switches by the report of an attempt that ended at the instant `at`."""
        deployment = admission.deployment
        breaker = self.breakers.get(deployment.identity) or self._new_breaker(deployment.identity)
        request = admission.request
        if report is ANSWERED and breaker.is_on and not (self.credentials or admission.probes):
            breaker.count(failed=False, caller=None if request is None else name_of(request))
            return  # nearly every report
        # A switch that was turned on meanwhile has taken its lease back. A late answer still proves that the
        # server works, but of the keys only the one that was sent.
        proved = admission.probes and [
            switch
            for switch in admission.probes
            if switch.probe is admission.lease
            or (report.counts is False and switch.error is not None and switch is breaker)
        ]
        for switch in proved:
            switch.probe = None
        if report.counts is False:
            if breaker in proved:
                who = deployment.name
                self.events.append(observe.BreakerClosed(who) if breaker.base else observe.Recovered(who))
            for switch in proved:
                switch.turn_on()
            credential = self.credentials.get(deployment.backend.credential_identity)
            if credential is not None and credential.error is None:
                del self.credentials[deployment.backend.credential_identity]
                if credential in proved:
                    self.events.append(observe.Recovered(deployment.backend.name))
        if report.cool:
            self._cool(breaker, deployment, report, at)
        caller = report.caller if report.counts or request is None else name_of(request)
        if report.off is not None:
            self._turn_off(breaker, admission, proved, report, at)
        elif report.counts and breaker in proved:
            if not admission.early:
                self._keep_open(breaker, deployment, report, at)
        elif report.counts is not None and breaker.counts(caller):
            trip = breaker.count(failed=report.counts, caller=caller)
            if trip is not None:
                self._trip(breaker, deployment, trip, report, at)
            elif breaker.only and not report.counts and at >= breaker.until and breaker.probe is None:
                breaker.turn_on()  # the callers it was open for may never come back to probe it
                self.events.append(observe.BreakerClosed(deployment.name))

    def _trip(
        self, breaker: Breaker, deployment: Deployment, trip: Trip, report: HealthReport, at: float
    ) -> None:
        """Open a breaker, for one more caller or for all."""
        if breaker.error is None or trip.only is None:
            breaker.base, breaker.only = 0.0, ()
            self._open(breaker, deployment, trip.why, report, at)
        if trip.only is not None:
            breaker.only = (*breaker.only, trip.only)[-MOST_CALLERS:]

    def _keep_open(self, breaker: Breaker, deployment: Deployment, report: HealthReport, at: float) -> None:
        """A probe failed. Its caller may be at fault, so another caller may make the next probe at once."""
        first = breaker.held is None or breaker.held[0] == report.caller
        if report.caller is None or breaker.only or not first:
            breaker.held = None
            self._open(breaker, deployment, "the probe failed", report, at)
        else:
            breaker.held = (report.caller, at + max(OPEN, breaker.base))

    def _open(
        self, breaker: Breaker, deployment: Deployment, why: str, report: HealthReport, at: float
    ) -> None:
        # A broken connection loses a request, so an early probe is risked once. A refused one loses nothing.
        soon = report.gone == "refused" or (report.gone == "broken" and not breaker.base)
        breaker.gone = report.gone == "refused"
        if soon:
            breaker.base = min(SOON_LONGEST, breaker.base * 2 or SOON)
        else:
            breaker.base = min(LONGEST, max(OPEN, breaker.base * 2))
        jittered = breaker.base * (1 + JITTER * (2 * self._random() - 1))
        breaker.turn_off(at, jittered if soon else max(jittered, breaker.seconds), why, report.error)
        self.events.append(observe.BreakerOpened(deployment.name, breaker.until - at, why))

    def _turn_off(
        self,
        breaker: Breaker,
        admission: Admission,
        proved: Sequence[Switch],
        report: HealthReport,
        at: float,
    ) -> None:
        backend = admission.deployment.backend
        switch: Switch = breaker
        if report.caller is not None and breaker.answers_others(report.caller):
            breaker.refused |= {report.caller}
            if len(breaker.refused) == 1:  # others are answered: it may be about this one request
                self._turn_off_for(breaker, admission, report, at)
                return
        if report.off == "credential":
            switch = self.credentials.setdefault(backend.credential_identity, Switch())
            switch.keys = frozenset([*switch.keys, report.key][-MOST_KEYS:])
        elif breaker.only:
            breaker.turn_on()  # it was off for some callers; now it goes off for all
        if switch.error is not None and (switch not in proved or admission.early):
            return  # it is off already: attempts that were under way, and early probes, change nothing
        if report.longest:
            switch.base = max(report.seconds, min(report.longest, switch.base * 2))
        why = f"refused: {_why(report)}"
        switch.turn_off(at, switch.base if report.longest else report.seconds, why, report.error)
        who = admission.deployment.name if switch is breaker else backend.name
        self.events.append(observe.CooledDown(who, switch.until - at, _why(report)))

    def _turn_off_for(self, breaker: Breaker, admission: Admission, report: HealthReport, at: float) -> None:
        """Turn the deployment off for the refused caller alone, because others are answered."""
        if breaker.error is None or breaker.only:
            breaker.only = (*breaker.only, report.caller)[-MOST_CALLERS:]
            breaker.turn_off(at, report.seconds, "it was refused", report.error)
            why = f"{_why(report)}; for this caller alone, because others are answered"
            self.events.append(observe.CooledDown(admission.deployment.name, breaker.until - at, why))

    def _cool(self, breaker: Breaker, deployment: Deployment, report: HealthReport, at: float) -> None:
        until = at + (report.cool or 0.0)
        if until > breaker.cool_until:
            breaker.cool_until, breaker.cool_error = until, report.error
            self.events.append(observe.CooledDown(deployment.name, until - at, _why(report)))

    def _new_breaker(self, identity: str) -> Breaker:
        """The breaker of one more deployment. Callers may name any, so one that is on is forgotten first."""
        if len(self.breakers) >= MAX_KNOWN:
            on = (known for known, breaker in self.breakers.items() if breaker.is_on)
            del self.breakers[next(on, None) or next(iter(self.breakers))]
        breaker = self.breakers[identity] = Breaker()
        return breaker


def switch_stats(switch: Switch, now: float) -> HealthStats:
    """The state of one switch as plain data."""
    from ccroute.types import HealthStats  # loaded at its first use

    if switch.error is not None:
        is_probed = switch.probe is not None and now < switch.probe_until
        callers = len(switch.only) if isinstance(switch, Breaker) else 0
        return HealthStats(
            state="probing" if is_probed else "off",
            reason=f"{switch.why} (only for {callers} of the callers)" if callers else switch.why,
            seconds_left=max(0.0, switch.until - now),
        )
    if isinstance(switch, Breaker) and now < switch.cool_until:
        return HealthStats(state="cooling", reason=COOLING, seconds_left=switch.cool_until - now)
    return HealthStats()


def _is_back(breaker: Breaker, now: float) -> bool:
    """Whether a server that refused connections is back: it has not refused a probe for a second."""
    return breaker.gone and breaker.probe is not None and now >= breaker.probe_until - LEASE + SOON


def _why(report: HealthReport) -> str:
    return str(getattr(report.error, "detail", report.error))
