"""Which deployments are worth asking: a breaker, a cooldown and two switches for each.

Knows outcomes and instants; must not know why somebody asks, nor wait for anything: clock and chance
are injected, one lock guards the state, and events are told after it is released.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import Literal, NamedTuple

from ccroute.errors import CcrouteError
from ccroute.observe import BreakerClosed, BreakerOpened, CooledDown, Event, Listener, Recovered
from ccroute.routing.breaker import Circuit, Switch, Trip
from ccroute.routing.caller import Caller
from ccroute.routing.tables import MAX_KNOWN, Deployment
from ccroute.types import Request
from ccroute.types.clock import Clock

OPEN, LONGEST = 30.0, 300.0
"""Seconds a breaker stays open at first, doubling up to the longest, each ± JITTER."""
SOON, SOON_LONGEST = 1.0, 2.0
"""The same where the server is gone: connections are refused, or have just been broken. To notice that it
is back costs no more than a connection."""
MOST_CALLERS = 64
"""Callers that one breaker is open for alone, at most; the oldest are let in again."""
JITTER = 0.2
MOST_KEYS = 64
"""Refused keys of one backend that are remembered, as marks."""


class Note(NamedTuple):
    """What one attempt says of its deployment.

    counts:  True: it failed, and that speaks against it. False: it answered. None: neither.
    error:   what to tell those who are turned away because of it.
    cool:    seconds the server asked to be left alone for.
    off:     what is refused as a whole, and the seconds it is taken to stay so. The credential's
             are doubled each time, up to `longest`.
    key:     the mark of the key that was refused.
    caller:  of a failure: whose request it may have been the fault of; None where it was nobody's.
    gone:    whether the server seems to be gone: it refused the connection, or broke it.
    """

    counts: bool | None = None
    error: CcrouteError | None = None
    cool: float | None = None
    off: Literal["deployment", "credential"] | None = None
    seconds: float = 0.0
    longest: float = 0.0
    key: int = 0
    caller: Caller | None = None
    gone: Literal["refused", "broken"] | None = None


class Refusal(NamedTuple):
    """Why a deployment is not to be asked, and until when (monotonic seconds).

    `cooling`: the server asked for it, so it may be slept through; what is off may only be tried
    early, by one probe. `keys`: it is the backend's key that is refused, and these are the marks of
    those that were.
    """

    until: float
    why: str
    error: CcrouteError | None
    cooling: bool = False
    keys: frozenset[int] | None = None

    @property
    def credential(self) -> bool:
        """Whether another key would be admitted."""
        return self.keys is not None


class Admission:
    """The leave to ask a deployment once. `caller` is the one to note where it is answered."""

    __slots__ = ("caller", "deployment", "settled")

    probes: tuple[Switch, ...] = ()
    lease: object = None
    early = False

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.caller: Caller | None = None
        self.settled = False


class _Probe(Admission):
    """The leave to prove switches on again. One that is dropped unsettled gives its lease back; one that
    was `early` and fails leaves everything as it was."""

    __slots__ = ("_health", "early", "lease", "probes")

    def __init__(
        self, deployment: Deployment, probes: tuple[Switch, ...], health: Health, *, early: bool
    ) -> None:
        super().__init__(deployment)
        self.settled = True  # until it is whole: an interrupt may come in between
        self._health = health
        self.probes = probes
        self.early = early
        self.lease = object()
        self.settled = False
        for switch in probes:
            switch.probe = self.lease

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
            refusal = self._refusal(deployment, switches, self._clock.monotonic(), early=False)
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
            refusal = self._refusal(deployment, switches, now, early=early)
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
        return _Probe(deployment, probes, self, early=any(now < switch.until for switch in probes))

    def _refusal(
        self, deployment: Deployment, switches: tuple[Switch, ...], now: float, *, early: bool
    ) -> Refusal | None:
        found = None
        for switch in switches:
            shut = switch.probe is not None or (now < switch.until and not early)
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
        # What was turned on in between has taken the lease back.
        proved = [switch for switch in admission.probes if switch.probe is admission.lease]
        circuit = self._circuits.get(deployment.name) or self._new_circuit(deployment.name)
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
                self._open(circuit, deployment, "the probe failed", note, at)
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

    def _open(self, circuit: Circuit, deployment: Deployment, why: str, note: Note, at: float) -> None:
        # A request whose connection broke is lost; that is risked once only, where a refused one is not sent.
        soon = note.gone == "refused" or (note.gone == "broken" and not circuit.base)
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
        if note.off == "credential":
            switch = self._credentials.setdefault(backend, Switch())
            switch.keys = frozenset([*switch.keys, note.key][-MOST_KEYS:])
        elif circuit.only:
            circuit.turn_on()  # it was for some callers only, and this is for all
        if switch.error is not None and (switch not in proved or admission.early):
            return  # it is off already; who was on the way before, or came too early, adds nothing
        if note.longest:
            switch.base = max(note.seconds, min(note.longest, switch.base * 2))
        why = "its key was refused" if note.off == "credential" else "it was refused"
        switch.turn_off(at, switch.base if note.longest else note.seconds, why, note.error)
        who = admission.deployment.name if switch is circuit else backend
        self._told.append(CooledDown(who, switch.until - at, _why(note)))

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
