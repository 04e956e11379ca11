"""Which deployments are worth asking: a breaker, a cooldown and two switches for each.

Knows outcomes and instants; must not know why somebody asks, nor wait for anything: clock and chance
are injected, one lock guards the state, and events are told after it is released.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from ccroute.errors import CcrouteError
from ccroute.observe import BreakerClosed, BreakerOpened, CooledDown, Event, Listener, Recovered
from ccroute.routing.tables import MAX_KNOWN, Deployment
from ccroute.types.clock import Clock

IN_A_ROW = 5
"""Failures in a row that open a breaker."""
WINDOW = 20
"""Outcomes looked back at: a breaker opens, too, when half of them failed, and at least 5 are known."""
OPEN, LONGEST = 30.0, 300.0
"""Seconds a breaker stays open at first, doubling up to the longest, each ± JITTER."""
JITTER = 0.2
MOST_KEYS = 64
"""Refused keys of one backend that are remembered, as marks."""
_ALL = (1 << WINDOW) - 1


class Note(NamedTuple):
    """What one attempt says of its deployment.

    counts:  True: it failed, and that speaks against it. False: it answered. None: neither.
    error:   what to tell those who are turned away because of it.
    cool:    seconds the server asked to be left alone for.
    off:     what is refused as a whole, and the seconds it is taken to stay so. The credential's
             are doubled each time, up to `longest`.
    key:     the mark of the key that was refused.
    """

    counts: bool | None = None
    error: CcrouteError | None = None
    cool: float | None = None
    off: Literal["deployment", "credential"] | None = None
    seconds: float = 0.0
    longest: float = 0.0
    key: int = 0


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


@dataclass(slots=True, eq=False)
class _Switch:
    """Something that is on (no `error`), off until an instant, or, after it, open to one probe.

    `seconds` is how long it was off last, `base` what is doubled for the next time.
    """

    until: float = 0.0
    seconds: float = 0.0
    base: float = 0.0
    why: str = ""
    error: CcrouteError | None = None
    probe: object = None
    keys: frozenset[int] = frozenset()

    def turn_off(self, at: float, seconds: float, why: str, error: CcrouteError | None) -> None:
        """Off for at least `seconds`; a longer time wins."""
        self.until = max(self.until, at + seconds)
        self.seconds, self.why = seconds, why
        self.error = error or CcrouteError(why)

    def turn_on(self) -> None:
        self.until = self.seconds = self.base = 0.0
        self.error = self.probe = None


@dataclass(slots=True, eq=False)
class _Circuit(_Switch):
    """A deployment's breaker: its last outcomes as bits, failures as ones, the newest lowest."""

    outcomes: int = 0
    known: int = 0
    cool_until: float = 0.0
    cool_error: CcrouteError | None = None

    @property
    def is_well(self) -> bool:
        """Whether nothing keeps anybody away."""
        return self.error is None and not self.cool_until

    def count(self, *, failed: bool) -> str | None:
        """Note an outcome; why the breaker has to open, if it has to."""
        self.outcomes = (self.outcomes << 1 | failed) & _ALL
        self.known = min(self.known + 1, WINDOW)
        if not failed:
            return None
        if self.known >= IN_A_ROW and self.outcomes & 0b11111 == 0b11111:
            return f"{IN_A_ROW} failures in a row"
        failures = self.outcomes.bit_count()
        if self.known >= IN_A_ROW and failures * 2 >= self.known:
            return f"{failures} of the last {self.known} attempts failed"
        return None

    def turn_on(self) -> None:
        _Switch.turn_on(self)
        self.outcomes = self.known = 0


class Admission:
    """The leave to ask a deployment once."""

    __slots__ = ("deployment", "settled")

    probes: tuple[_Switch, ...] = ()
    lease: object = None

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.settled = False


class _Probe(Admission):
    """The leave to prove switches on again. One that is dropped unsettled gives its lease back."""

    __slots__ = ("_health", "lease", "probes")

    def __init__(self, deployment: Deployment, probes: tuple[_Switch, ...], health: Health) -> None:
        super().__init__(deployment)
        self.settled = True  # until it is whole: an interrupt may come in between
        self._health = health
        self.probes = probes
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
        self._circuits: dict[str, _Circuit] = {}
        self._credentials: dict[str, _Switch] = {}
        self._inbox: deque[tuple[Admission, Note, float]] = deque()
        self._told: deque[Event] = deque()
        self._lock = threading.Lock()

    def refusal(self, deployment: Deployment) -> Refusal | None:
        """Why this deployment would be refused now; None if it would be admitted. Takes nothing."""
        circuit = self._circuits.get(deployment.name)
        if (circuit is None or circuit.is_well) and not self._credentials and not self._inbox:
            return None
        with self._lock:
            self._read_inbox()
            refusal = self._refusal(deployment, self._clock.monotonic(), early=False)
        self._after_lock()
        return refusal

    def admit(self, deployment: Deployment, *, early: bool = False) -> Admission | Refusal:
        """The leave to ask `deployment` now, or why not. Every admission is settled, however it ends.

        Where a breaker or a switch is off and its time is over (or `early`), the admission is its one
        probe: nobody else is admitted until it is settled.
        """
        if not self._on:
            return Admission(deployment)
        with self._lock:
            self._read_inbox()
            refusal = self._refusal(deployment, self._clock.monotonic(), early=early)
            probes = tuple(switch for switch in self._switches(deployment) if switch.error is not None)
            admission = refusal or (_Probe(deployment, probes, self) if probes else Admission(deployment))
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

    def _switches(self, deployment: Deployment) -> tuple[_Switch, ...]:
        circuit = self._circuits.get(deployment.name)
        credential = self._credentials.get(deployment.backend.name)
        return tuple(switch for switch in (circuit, credential) if switch is not None)

    def _refusal(self, deployment: Deployment, now: float, *, early: bool) -> Refusal | None:
        found = None
        for switch in self._switches(deployment):
            shut = switch.probe is not None or (now < switch.until and not early)
            if switch.error is not None and shut and (found is None or switch.until > found.until):
                keys = None if isinstance(switch, _Circuit) else switch.keys
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
        if note.off is not None:
            self._turn_off(circuit, deployment, proved, note, at)
        elif note.counts is not None and circuit.error is None:
            why = circuit.count(failed=note.counts)
            if why is not None:
                self._open(circuit, deployment, why, note, at)
        elif note.counts and circuit in proved:
            self._open(circuit, deployment, "the probe failed", note, at)

    def _open(self, circuit: _Circuit, deployment: Deployment, why: str, note: Note, at: float) -> None:
        circuit.base = min(LONGEST, circuit.base * 2 or OPEN)
        jittered = circuit.base * (1 + JITTER * (2 * self._clock.random() - 1))
        circuit.turn_off(at, max(jittered, circuit.seconds), why, note.error)
        self._told.append(BreakerOpened(deployment.name, circuit.until - at, why))

    def _turn_off(
        self, circuit: _Circuit, deployment: Deployment, proved: list[_Switch], note: Note, at: float
    ) -> None:
        if note.off == "credential":
            who = deployment.backend.name
            switch = self._credentials.setdefault(who, _Switch())
        else:
            who, switch = deployment.name, circuit
        if switch.error is not None and switch not in proved:
            return  # it is off already; who was on the way before adds nothing
        if note.off == "credential":
            switch.keys = frozenset([*switch.keys, note.key][-MOST_KEYS:])
        if note.longest:
            switch.base = max(note.seconds, min(note.longest, switch.base * 2))
        switch.turn_off(at, switch.base if note.longest else note.seconds, _why(note), note.error)
        self._told.append(CooledDown(who, switch.until - at, switch.why))

    def _cool(self, circuit: _Circuit, deployment: Deployment, note: Note, at: float) -> None:
        until = at + (note.cool or 0.0)
        if until > circuit.cool_until:
            circuit.cool_until, circuit.cool_error = until, note.error
            self._told.append(CooledDown(deployment.name, until - at, _why(note)))

    def _new_circuit(self, name: str) -> _Circuit:
        """A record for one more deployment. Callers may name any; what is well is forgotten first."""
        if len(self._circuits) >= MAX_KNOWN:
            well = (known for known, circuit in self._circuits.items() if circuit.is_well)
            del self._circuits[next(well, None) or next(iter(self._circuits))]
        circuit = self._circuits[name] = _Circuit()
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
