"""The breaker, the cooldown and the two switches of every deployment, and how reports change them.

Pure: the instant is handed in, and so is chance; what happened is collected as events. Must not know threads:
`Health` holds the lock.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ccroute.observe import BreakerClosed, BreakerOpened, CooledDown, Event, Recovered
from ccroute.routing.acquired import NEUTRAL, HealthReport, Outcome, Unavailable
from ccroute.routing.breaker import Circuit, Switch, Trip, caller_of, name_of
from ccroute.routing.tables import MAX_KNOWN, Deployment
from ccroute.types import Request
from ccroute.types.stats import HealthStats

if TYPE_CHECKING:
    from ccroute.routing.health import Health

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
    """The leave to ask a deployment once."""

    __slots__ = ("deployment", "health", "request", "settled")

    probes: tuple[Switch, ...] = ()
    lease: object = None
    early = False

    def __init__(self, deployment: Deployment, request: Request | None, health: Health) -> None:
        self.deployment = deployment
        self.request = request
        self.health = health
        self.settled = False

    def settle(self, outcome: Outcome | None = None) -> None:
        """What became of the attempt; only the first call counts. Never waits."""
        self.health.settle(self, NEUTRAL if outcome is None else outcome.health)


class Probe(Admission):
    """The leave to find out whether switches may go on again. A probe that is dropped unsettled gives its
    lease back; one that was `early` and fails changes nothing."""

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
        """Hand over what it proves, though the attempt goes on: others need not wait for its end."""
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
        self.events: deque[Event] = deque()
        self.circuits: dict[str, Circuit] = {}
        self.credentials: dict[str, Switch] = {}
        self._random = random

    def are_on(self, deployment: Deployment) -> bool:
        """Whether nothing at all speaks against a deployment."""
        circuit = self.circuits.get(deployment.name)
        return not self.credentials and (
            circuit is None or (circuit.error is None and not circuit.cool_until)
        )

    def concerning(self, deployment: Deployment, request: Request | None) -> tuple[Switch, ...]:
        """The switches of this deployment that concern this caller."""
        circuit = self.circuits.get(deployment.name)
        if circuit is not None and not circuit.concerns(request):
            circuit = None
        credential = self.credentials.get(deployment.backend.name)
        return tuple(switch for switch in (circuit, credential) if switch is not None)

    def unavailable(
        self,
        deployment: Deployment,
        switches: tuple[Switch, ...],
        request: Request | None,
        now: float,
        *,
        early: bool,
    ) -> Unavailable | None:
        """Why the deployment gets no call; None if it may be asked. `early`: before its time."""
        found = None
        for switch in switches:
            if isinstance(switch, Circuit) and self._is_back(switch, deployment, now):
                continue
            is_probed = switch.probe is not None and now < switch.probe_until
            shut = is_probed or (now < switch.until and not early)
            if isinstance(switch, Circuit) and switch.held is not None and not shut and not early:
                who, until = switch.held
                if request is not None and now < until and caller_of(request) == who:
                    return Unavailable(until, "the probe failed", switch.error)
            if switch.error is not None and shut and (found is None or switch.until > found.until):
                keys = None if isinstance(switch, Circuit) else switch.keys
                found = Unavailable(switch.until, switch.why, switch.error, keys=keys)
        circuit = self.circuits.get(deployment.name)
        if circuit is not None and circuit.cool_until:
            if now >= circuit.cool_until:
                circuit.cool_until = 0.0
            elif found is None:
                return Unavailable(circuit.cool_until, COOLING, circuit.cool_error, cooling=True)
            else:
                found = found._replace(until=max(found.until, circuit.cool_until))
        return found

    def _is_back(self, circuit: Circuit, deployment: Deployment, now: float) -> bool:
        """Whether a server that refused connections is there again: a probe of it has not been refused."""
        begun = circuit.probe_until - LEASE
        if not circuit.gone or circuit.probe is None or now < begun + SOON:
            return False
        circuit.turn_on()
        self.events.append(BreakerClosed(deployment.name))
        return True

    def renew(self, backend: str) -> None:
        """The backend has a key that was not refused: it may be asked again."""
        switch = self.credentials.get(backend)
        if switch is not None and switch.error is not None:
            switch.turn_on()
            self.events.append(Recovered(backend))

    def apply(self, admission: Admission, report: HealthReport, at: float) -> None:
        """Take note of what became of an admitted attempt, at an instant."""
        deployment = admission.deployment
        circuit = self.circuits.get(deployment.name) or self._new_circuit(deployment.name)
        # What was turned on in between has taken the lease back. An answer proves a server well however late
        # it comes, but only the key that it was asked with.
        proved = admission.probes and [
            switch
            for switch in admission.probes
            if switch.probe is admission.lease
            or (report.counts is False and switch.error is not None and switch is circuit)
        ]
        for switch in proved:
            switch.probe = None
        if report.counts is False:
            if circuit in proved:
                who = deployment.name
                self.events.append(BreakerClosed(who) if circuit.base else Recovered(who))
            for switch in proved:
                switch.turn_on()
            credential = self.credentials.get(deployment.backend.name)
            if credential is not None and credential.error is None:
                del self.credentials[deployment.backend.name]
                if credential in proved:
                    self.events.append(Recovered(deployment.backend.name))
        if report.cool:
            self._cool(circuit, deployment, report, at)
        request = admission.request
        caller = report.caller if report.counts or request is None else name_of(request)
        if report.off is not None:
            self._turn_off(circuit, admission, proved, report, at)
        elif report.counts and circuit in proved:
            if not admission.early:
                self._keep_open(circuit, deployment, report, at)
        elif report.counts is not None and (circuit.error is None or circuit.counts(caller)):
            trip = circuit.count(failed=report.counts, caller=caller)
            if trip is not None:
                self._trip(circuit, deployment, trip, report, at)
            elif circuit.only and not report.counts and at >= circuit.until and circuit.probe is None:
                circuit.turn_on()  # those it was open for may never come back to prove it well
                self.events.append(BreakerClosed(deployment.name))

    def _trip(
        self, circuit: Circuit, deployment: Deployment, trip: Trip, report: HealthReport, at: float
    ) -> None:
        """Open a breaker; one that is open for some callers may have to be so for others too."""
        if circuit.error is None or trip.only is None:
            circuit.base, circuit.only = 0.0, ()
            self._open(circuit, deployment, trip.why, report, at)
        if trip.only is not None:
            circuit.only = (*circuit.only, trip.only)[-MOST_CALLERS:]

    def _keep_open(self, circuit: Circuit, deployment: Deployment, report: HealthReport, at: float) -> None:
        """A probe failed. It may be its caller's fault: then another caller may make the next one at once."""
        first = circuit.held is None or circuit.held[0] == report.caller
        if report.caller is None or circuit.only or not first:
            circuit.held = None
            self._open(circuit, deployment, "the probe failed", report, at)
        else:
            circuit.held = (report.caller, at + max(OPEN, circuit.base))

    def _open(
        self, circuit: Circuit, deployment: Deployment, why: str, report: HealthReport, at: float
    ) -> None:
        # A request whose connection broke is lost; that is risked once only, where a refused one is not sent.
        soon = report.gone == "refused" or (report.gone == "broken" and not circuit.base)
        circuit.gone = report.gone == "refused"
        if soon:
            circuit.base = min(SOON_LONGEST, circuit.base * 2 or SOON)
        else:
            circuit.base = min(LONGEST, max(OPEN, circuit.base * 2))
        jittered = circuit.base * (1 + JITTER * (2 * self._random() - 1))
        circuit.turn_off(at, jittered if soon else max(jittered, circuit.seconds), why, report.error)
        self.events.append(BreakerOpened(deployment.name, circuit.until - at, why))

    def _turn_off(
        self,
        circuit: Circuit,
        admission: Admission,
        proved: Sequence[Switch],
        report: HealthReport,
        at: float,
    ) -> None:
        backend = admission.deployment.backend.name
        switch: Switch = circuit
        if report.caller is not None and circuit.answers_others(report.caller):
            circuit.refused |= {report.caller}
            if len(circuit.refused) == 1:  # others are answered: it may be about this one request
                self._turn_off_for(circuit, admission, report, at)
                return
        if report.off == "credential":
            switch = self.credentials.setdefault(backend, Switch())
            switch.keys = frozenset([*switch.keys, report.key][-MOST_KEYS:])
        elif circuit.only:
            circuit.turn_on()  # it was for some callers only, and this is for all
        if switch.error is not None and (switch not in proved or admission.early):
            return  # it is off already; who was on the way before, or came too early, adds nothing
        if report.longest:
            switch.base = max(report.seconds, min(report.longest, switch.base * 2))
        why = f"refused: {_why(report)}"
        switch.turn_off(at, switch.base if report.longest else report.seconds, why, report.error)
        who = admission.deployment.name if switch is circuit else backend
        self.events.append(CooledDown(who, switch.until - at, _why(report)))

    def _turn_off_for(self, circuit: Circuit, admission: Admission, report: HealthReport, at: float) -> None:
        """Off for the caller that was refused, while others are answered."""
        if circuit.error is None or circuit.only:
            circuit.only = (*circuit.only, report.caller)[-MOST_CALLERS:]
            circuit.turn_off(at, report.seconds, "it was refused", report.error)
            why = f"{_why(report)}; for this caller alone, because others are answered"
            self.events.append(CooledDown(admission.deployment.name, circuit.until - at, why))

    def _cool(self, circuit: Circuit, deployment: Deployment, report: HealthReport, at: float) -> None:
        until = at + (report.cool or 0.0)
        if until > circuit.cool_until:
            circuit.cool_until, circuit.cool_error = until, report.error
            self.events.append(CooledDown(deployment.name, until - at, _why(report)))

    def _new_circuit(self, name: str) -> Circuit:
        """A record for one more deployment. Callers may name any; what is well is forgotten first."""
        if len(self.circuits) >= MAX_KNOWN:
            well = (known for known, circuit in self.circuits.items() if circuit.is_on)
            del self.circuits[next(well, None) or next(iter(self.circuits))]
        circuit = self.circuits[name] = Circuit()
        return circuit


def stats_of(switch: Switch, now: float) -> HealthStats:
    """Whether it lets calls through, as plain data."""
    if switch.error is not None:
        is_probed = switch.probe is not None and now < switch.probe_until
        callers = len(switch.only) if isinstance(switch, Circuit) else 0
        return HealthStats(
            state="probing" if is_probed else "off",
            reason=f"{switch.why} (only for {callers} of the callers)" if callers else switch.why,
            seconds_left=max(0.0, switch.until - now),
        )
    if isinstance(switch, Circuit) and now < switch.cool_until:
        return HealthStats(state="cooling", reason=COOLING, seconds_left=switch.cool_until - now)
    return HealthStats()


def _why(report: HealthReport) -> str:
    return str(getattr(report.error, "detail", report.error))
