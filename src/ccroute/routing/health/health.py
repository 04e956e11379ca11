"""Which deployments may be asked, for threads, tasks and finalisers at once.

Knows the lock, the clock and the listener; must not know who asks or why, nor wait for anything. `Switches`
says what a report means. Events are emitted after the lock is released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccroute.backends import Backend
from ccroute.routing.acquired import ANSWERED, HealthReport, Unavailable
from ccroute.routing.health.switches import Admission, Probe, Switches, switch_stats
from ccroute.routing.tables.deployments import Deployment
from ccroute.types import Request
from ccroute.types.clock import Clock
from ccroute.types.locks import Inbox

if TYPE_CHECKING:
    from ccroute.observe import Listener
    from ccroute.types import HealthStats


class Health:
    """The health of every deployment of one router.

    Settling never waits, because a finaliser may do it in the middle of anything: a report goes into an
    inbox that the next holder of the lock reads first.
    """

    def __init__(self, clock: Clock, emit: Listener, *, on: bool = True) -> None:
        self._clock = clock
        self._emit = emit
        self.on = on
        self._switches = Switches(clock.random)
        self._inbox = Inbox(self._switches.apply)

    def unavailable(self, deployment: Deployment, request: Request | None = None) -> Unavailable | None:
        """Why this deployment gets no call now; None if it may be asked. Takes nothing.

        A breaker that one caller's failures opened turns only the requests of that caller away.
        """
        if self._switches.are_on(deployment) and not self._inbox:
            return None
        with self._inbox.lock:
            self._inbox.read()
            switches = self._switches.concerning(deployment, request)
            found = self._switches.unavailable(
                deployment, switches, request, self._clock.monotonic(), early=False
            )
        self._after_lock()
        return found

    def admit(
        self, deployment: Deployment, request: Request | None = None, *, early: bool = False
    ) -> Admission | Unavailable:
        """The permission to send an attempt now, or why not. Every admission is settled, however it ends.

        Where a breaker or a switch is off and its time is over (or `early`), the admission is its one
        probe: no other call is admitted until it is settled.
        """
        if not self.on or (self._switches.are_on(deployment) and not self._inbox):
            return Admission(deployment, request, self)
        with self._inbox.lock:
            self._inbox.read()
            now, switches = self._clock.monotonic(), self._switches.concerning(deployment, request)
            self._switches.refresh(deployment, switches, now)
            admitted: Admission | Unavailable | None = self._switches.unavailable(
                deployment, switches, request, now, early=early
            )
            if admitted is None:
                off = tuple(switch for switch in switches if switch.error is not None)
                admitted = (
                    Probe(deployment, request, self, off, now)
                    if off
                    else Admission(deployment, request, self)
                )
        self._after_lock()
        return admitted

    def settle(self, admission: Admission, report: HealthReport) -> None:
        """What became of an admitted attempt; only the first call counts. Never waits."""
        if admission.settled or not self.on:
            return
        self._inbox.append((admission, report, self._clock.monotonic()))
        admission.settled = True
        self._inbox.drain()
        if self._switches.events:
            self._after_lock()

    def answers(self, admission: Admission) -> None:
        """The server has begun to answer an admitted attempt, which may go on for long. Never waits."""
        if isinstance(admission, Probe) and admission.probes and not admission.settled:
            self._inbox.append((admission.proved(), ANSWERED, self._clock.monotonic()))
            self._after_lock()

    def stats(self) -> tuple[dict[str, HealthStats], dict[str, HealthStats]]:
        """The state of each deployment that was asked, and of each backend's key that was refused: by the
        deployment's identity, and by the backend's with its key."""
        with self._inbox.lock:
            self._inbox.read()
            now = self._clock.monotonic()
            breakers = {name: switch_stats(each, now) for name, each in self._switches.breakers.items()}
            credentials = {name: switch_stats(each, now) for name, each in self._switches.credentials.items()}
        self._after_lock()
        return breakers, credentials

    def renew(self, backend: Backend) -> None:
        """The backend has a key that was not refused: it may be asked again."""
        with self._inbox.lock:
            self._inbox.read()
            self._switches.renew(backend)
        self._after_lock()

    def after_fork(self) -> None:
        """In a forked child: the lock and the probes may belong to threads that are not here."""
        self._inbox.renew()
        for switch in (*self._switches.breakers.values(), *self._switches.credentials.values()):
            switch.probe = None

    def _after_lock(self) -> None:
        """Apply reports that came in while the lock was held, and emit events."""
        if self._inbox:
            self._inbox.drain()
        # A finaliser may be here in the middle of the lock's holder, who comes here after it.
        while self._switches.events and not self._inbox.lock.locked():
            try:
                event = self._switches.events.popleft()
            except IndexError:  # another thread emitted it
                return
            self._emit(event)
