"""Which deployments are worth asking: a breaker, a cooldown and two switches for each.

Knows outcomes and instants; must not know why somebody asks, nor wait for anything: clock and chance
are injected, one lock guards the state, and events are told after it is released.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from functools import partial

from ccroute.observe import BreakerClosed, BreakerOpened, CooledDown, Event, Listener, Recovered
from ccroute.routing.breaker import Circuit, Switch, Trip
from ccroute.routing.caller import caller_of
from ccroute.routing.notes import Admission, Note, Refusal
from ccroute.routing.tables import MAX_KNOWN, Deployment
from ccroute.types import Request
from ccroute.types.clock import Clock

OPEN, LONGEST = 30.0, 300.0
"""Seconds a breaker stays open at first, doubling up to the longest, each ± JITTER."""
SOON, SOON_LONGEST = 1.0, 2.0
"""The same where the server is gone: connections are refused, or have just been broken. To notice that it
is back costs no more than a connection."""
LEASE = 30.0
"""Seconds that others wait for a probe; while one that takes longer goes on, the next call may be another."""
MOST_CALLERS = 64
"""Callers that one breaker is open for alone, at most; the oldest are let in again."""
JITTER = 0.2
MOST_KEYS = 64
"""Refused keys of one backend that are remembered, as marks."""


class _Probe(Admission):
    """The leave to prove switches on again. One that is dropped unsettled gives its lease back; one that
    was `early` and fails leaves everything as it was."""

    __slots__ = ("_health", "early", "lease", "probes")

    def __init__(
        self, deployment: Deployment, probes: tuple[Switch, ...], health: Health, now: float
    ) -> None:
        super().__init__(deployment)
        self.settled = True  # until it is whole: an interrupt may come in between
        self._health = health
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
            self._health.settle(self, Note())


class Health:
    """The health of every deployment of one router.

    Settling never waits, because a finaliser may do it in the middle of anything: a note goes into an
    inbox that whoever has the lock reads first.
    """

    def __init__(self, clock: Clock, tell: Listener, *, on: bool = True) -> None:
        self._clock = clock
        self._tell = tell
        self._on = on
        self._circuits: dict[str, Circuit] = {}
        self._credentials: dict[str, Switch] = {}
        self._inbox: deque[tuple[Admission, Note, float]] = deque()
        self._told: deque[Event] = deque()
        self._lock = threading.Lock()

    def refusal(self, deployment: Deployment, request: Request | None = None) -> Refusal | None:
        """Why this deployment would be refused now; None if it would be admitted. Takes nothing.

        A breaker that one caller's failures opened keeps only the requests of that one away.
        """
        circuit = self._circuits.get(deployment.name)
        if (circuit is None or circuit.is_well) and not self._credentials and not self._inbox:
            return None
        with self._lock:
            self._read_inbox()
            switches = self._switches(deployment, request)
            refusal = self._refusal(deployment, switches, request, self._clock.monotonic(), early=False)
        self._after_lock()
        return refusal

    def admit(
        self, deployment: Deployment, request: Request | None = None, *, early: bool = False
    ) -> Admission | Refusal:
        """The leave to ask `deployment` now, or why not. Every admission is settled, however it ends.

        Where a breaker or a switch is off and its time is over (or `early`), the admission is its one
        probe: nobody else is admitted until it is settled.
        """
        if not self._on:
            return Admission(deployment)
        with self._lock:
            self._read_inbox()
            now, switches = self._clock.monotonic(), self._switches(deployment, request)
            refusal = self._refusal(deployment, switches, request, now, early=early)
            admission = refusal or self._admission(deployment, switches, now)
        self._after_lock()
        return admission

    def settle(self, admission: Admission, note: Note) -> None:
        """What became of an admitted attempt; only the first word counts. Never waits."""
        if admission.settled or not self._on:
            return
        self._inbox.append((admission, note, self._clock.monotonic()))
        admission.settled = True
        self._after_lock()

    def answers(self, admission: Admission) -> None:
        """The server has begun to answer an admitted attempt, which may go on for long. Never waits."""
        if isinstance(admission, _Probe) and admission.probes and not admission.settled:
            self._inbox.append((admission.proved(), Note(counts=False), self._clock.monotonic()))
            self._after_lock()

    def renew(self, backend: str) -> None:
        """The backend has a key that was not refused: it may be asked again."""
        with self._lock:
            self._read_inbox()
            switch = self._credentials.get(backend)
            if switch is not None and switch.error is not None:
                switch.turn_on()
                self._told.append(Recovered(backend))
        self._after_lock()

    def after_fork(self) -> None:
        """In a forked child: the lock and the probes may belong to threads that are not here."""
        self._lock = threading.Lock()
        for switch in (*self._circuits.values(), *self._credentials.values()):
            switch.probe = None

    def _switches(self, deployment: Deployment, request: Request | None) -> tuple[Switch, ...]:
        """What concerns this deployment and this caller."""
        circuit = self._circuits.get(deployment.name)
        if circuit is not None and not circuit.concerns(request):
            circuit = None
        credential = self._credentials.get(deployment.backend.name)
        return tuple(switch for switch in (circuit, credential) if switch is not None)

    def _admission(self, deployment: Deployment, switches: tuple[Switch, ...], now: float) -> Admission:
        probes = tuple(switch for switch in switches if switch.error is not None)
        if not probes:
            return Admission(deployment)
        return _Probe(deployment, probes, self, now)

    def _refusal(
        self,
        deployment: Deployment,
        switches: tuple[Switch, ...],
        request: Request | None,
        now: float,
        *,
        early: bool,
    ) -> Refusal | None:
        found = None
        for switch in switches:
            if isinstance(switch, Circuit) and self._is_back(switch, deployment, now):
                continue
            is_probed = switch.probe is not None and now < switch.probe_until
            shut = is_probed or (now < switch.until and not early)
            if isinstance(switch, Circuit) and switch.held is not None and not shut and not early:
                who, until = switch.held
                if request is not None and now < until and caller_of(request) == who:
                    return Refusal(until, "the probe failed", switch.error)
            if switch.error is not None and shut and (found is None or switch.until > found.until):
                keys = None if isinstance(switch, Circuit) else switch.keys
                found = Refusal(switch.until, switch.why, switch.error, keys=keys)
        circuit = self._circuits.get(deployment.name)
        if circuit is not None and circuit.cool_until:
            if now >= circuit.cool_until:
                circuit.cool_until = 0.0
            elif found is None:
                return Refusal(circuit.cool_until, "asked to be left alone", circuit.cool_error, cooling=True)
            else:
                found = found._replace(until=max(found.until, circuit.cool_until))
        return found

    def _is_back(self, circuit: Circuit, deployment: Deployment, now: float) -> bool:
        """Whether a server that refused connections is there again: a probe of it has not been refused."""
        begun = circuit.probe_until - LEASE
        if not circuit.gone or circuit.probe is None or now < begun + SOON:
            return False
        circuit.turn_on()
        self._told.append(BreakerClosed(deployment.name))
        return True

    def _read_inbox(self) -> None:
        """Apply what was settled; only with the lock."""
        while self._inbox:
            try:
                self._apply(*self._inbox[0])  # taken out only after it, so that no interrupt loses it
            except Exception:
                self._inbox.popleft()
                raise
            self._inbox.popleft()

    def _apply(self, admission: Admission, note: Note, at: float) -> None:
        deployment = admission.deployment
        circuit = self._circuits.get(deployment.name) or self._new_circuit(deployment.name)
        # What was turned on in between has taken the lease back. An answer proves a server well however late
        # it comes, but only the key that it was asked with.
        proved = [
            switch
            for switch in admission.probes
            if switch.probe is admission.lease
            or (note.counts is False and switch.error is not None and switch is circuit)
        ]
        for switch in proved:
            switch.probe = None
        if note.counts is False:
            if circuit in proved:
                who = deployment.name
                self._told.append(BreakerClosed(who) if circuit.base else Recovered(who))
            for switch in proved:
                switch.turn_on()
            credential = self._credentials.get(deployment.backend.name)
            if credential is not None and credential.error is None:
                del self._credentials[deployment.backend.name]
                if credential in proved:
                    self._told.append(Recovered(deployment.backend.name))
        if note.cool:
            self._cool(circuit, deployment, note, at)
        caller = note.caller if note.counts else admission.caller
        if note.off is not None:
            self._turn_off(circuit, admission, proved, note, at)
        elif note.counts and circuit in proved:
            if not admission.early:
                self._keep_open(circuit, deployment, note, at)
        elif note.counts is not None and circuit.counts(caller):
            trip = circuit.count(failed=note.counts, caller=caller)
            if trip is not None:
                self._trip(circuit, deployment, trip, note, at)
            elif circuit.only and not note.counts and at >= circuit.until and circuit.probe is None:
                circuit.turn_on()  # those it was open for may never come back to prove it well
                self._told.append(BreakerClosed(deployment.name))

    def _trip(self, circuit: Circuit, deployment: Deployment, trip: Trip, note: Note, at: float) -> None:
        """Open a breaker; one that is open for some callers may have to be so for others too."""
        if circuit.error is None or trip.only is None:
            circuit.base, circuit.only = 0.0, ()
            self._open(circuit, deployment, trip.why, note, at)
        if trip.only is not None:
            circuit.only = (*circuit.only, trip.only)[-MOST_CALLERS:]

    def _keep_open(self, circuit: Circuit, deployment: Deployment, note: Note, at: float) -> None:
        """A probe failed. It may be its caller's fault: then another caller may make the next one at once."""
        first = circuit.held is None or circuit.held[0] == note.caller
        if note.caller is None or circuit.only or not first:
            circuit.held = None
            self._open(circuit, deployment, "the probe failed", note, at)
        else:
            circuit.held = (note.caller, at + max(OPEN, circuit.base))

    def _open(self, circuit: Circuit, deployment: Deployment, why: str, note: Note, at: float) -> None:
        # A request whose connection broke is lost; that is risked once only, where a refused one is not sent.
        soon = note.gone == "refused" or (note.gone == "broken" and not circuit.base)
        circuit.gone = note.gone == "refused"
        if soon:
            circuit.base = min(SOON_LONGEST, circuit.base * 2 or SOON)
        else:
            circuit.base = min(LONGEST, max(OPEN, circuit.base * 2))
        jittered = circuit.base * (1 + JITTER * (2 * self._clock.random() - 1))
        circuit.turn_off(at, jittered if soon else max(jittered, circuit.seconds), why, note.error)
        self._told.append(BreakerOpened(deployment.name, circuit.until - at, why))

    def _turn_off(
        self, circuit: Circuit, admission: Admission, proved: list[Switch], note: Note, at: float
    ) -> None:
        backend = admission.deployment.backend.name
        switch: Switch = circuit
        if note.caller is not None and circuit.answers_others(note.caller):
            circuit.refused |= {note.caller}
            if len(circuit.refused) == 1:  # others are answered: it may be about this one request
                self._turn_off_for(circuit, admission, note, at)
                return
        if note.off == "credential":
            switch = self._credentials.setdefault(backend, Switch())
            switch.keys = frozenset([*switch.keys, note.key][-MOST_KEYS:])
        elif circuit.only:
            circuit.turn_on()  # it was for some callers only, and this is for all
        if switch.error is not None and (switch not in proved or admission.early):
            return  # it is off already; who was on the way before, or came too early, adds nothing
        if note.longest:
            switch.base = max(note.seconds, min(note.longest, switch.base * 2))
        why = f"refused: {_why(note)}"
        switch.turn_off(at, switch.base if note.longest else note.seconds, why, note.error)
        who = admission.deployment.name if switch is circuit else backend
        self._told.append(CooledDown(who, switch.until - at, _why(note)))

    def _turn_off_for(self, circuit: Circuit, admission: Admission, note: Note, at: float) -> None:
        """Off for the caller that was refused, while others are answered."""
        if circuit.error is None or circuit.only:
            circuit.only = (*circuit.only, note.caller)[-MOST_CALLERS:]
            circuit.turn_off(at, note.seconds, "it was refused", note.error)
            why = f"{_why(note)}; for this caller alone, because others are answered"
            self._told.append(CooledDown(admission.deployment.name, circuit.until - at, why))

    def _cool(self, circuit: Circuit, deployment: Deployment, note: Note, at: float) -> None:
        until = at + (note.cool or 0.0)
        if until > circuit.cool_until:
            circuit.cool_until, circuit.cool_error = until, note.error
            self._told.append(CooledDown(deployment.name, until - at, _why(note)))

    def _new_circuit(self, name: str) -> Circuit:
        """A record for one more deployment. Callers may name any; what is well is forgotten first."""
        if len(self._circuits) >= MAX_KNOWN:
            well = (known for known, circuit in self._circuits.items() if circuit.is_well)
            del self._circuits[next(well, None) or next(iter(self._circuits))]
        circuit = self._circuits[name] = Circuit()
        return circuit

    def _after_lock(self) -> None:
        """Read what came in while the lock was held, and tell what happened."""
        if self._inbox:
            # Whoever has the lock comes here, too; it may be a frame below this one. No interrupt comes
            # between a step of `for` and its body, as it may after a call of acquire().
            for _ in iter(partial(self._lock.acquire, blocking=False), False):
                try:
                    self._read_inbox()
                finally:
                    self._lock.release()
                if not self._inbox:
                    break
        while self._told:
            try:
                event = self._told.popleft()
            except IndexError:  # another thread told it
                return
            self._tell(event)


def _why(note: Note) -> str:
    return str(getattr(note.error, "detail", note.error))
