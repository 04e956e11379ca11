"""What tests need for many callers at once and for callers that are stopped: it looks at what a router holds.

Slots, calls in flight, probes, connections, rows: after a fault all of them are back where they were. They
are read from `router.stats()`, because a later call would only notice the loss of the last slot.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, Self

import psutil
import pytest
from tests.conftest import Caller
from tests.faults.harness import GRACE, ONCE, PATIENT, Call, Late
from tests.faults.servers import HEALTHY, OPENAI, FaultyServer, Wire
from tests.faults.servers import backend as make_backend
from tests.support import loops
from tests.support.scripted import Reply
from tests.test_bad_input import everything_shown
from tests.test_canaries import KEY, PROMPT, assert_tells_nothing, locals_of_ccroute

from ccroute import AliasTable, RetryPolicy, Router, errors
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.observe import Event


class Host(FaultyServer):
    """A server that knows when it is idle."""

    def plays(self, *faults: Reply) -> None:
        """From now on, as if it had been made with these faults."""
        self._faults[:] = faults

    def settles(self, kept: Callable[[], int]) -> bool:
        """Within a second: it answers nobody, and so many connections are open."""
        return self._wait(lambda: not self._busy and len(self._links) == kept(), 1.0)

    def wait_for(self, connections: int, *, hung_up: int) -> bool:
        """Within a second: so many connections are open, and so many callers have hung up."""
        return self._wait(lambda: (len(self._links), self.closed_by_peer) == (connections, hung_up), 1.0)


class EventLog:
    """The events of a router; a test may wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def listen(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    def wait(self, kind: type[Event], count: int = 1) -> bool:
        """Until there were so many of a kind; False when there were not."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count(kind) >= count, 5)


class Subject(NamedTuple):
    """A router under test, whose alias `m` is `main/m` and, where there is another server, `other/m`."""

    router: Router
    hosts: Mapping[str, Host]
    ledger: MemoryLedger
    event_log: EventLog


def at_rest(router: Router) -> None:
    """No slot is held, nobody waits for one, no call is in flight, no probe is on its way."""
    stats = router.stats()
    for name, host in stats.backends.items():
        left = (host.in_flight, host.slots_held, host.queued, host.busy_connections)
        assert left == (0, 0, 0, 0), f"something is left at {name}: {host}"
        assert host.credential.state != "probing", f"a probe of the key of {name} is on its way"
    for name, deployment in stats.deployments.items():
        assert not deployment.in_flight, f"{deployment.in_flight} calls to {name} are in flight"
        assert deployment.health.state != "probing", f"a probe of {name} is on its way"


def kept(subject: Subject, server: Host) -> int:
    """How many idle connections to a server the router has, of all threads and loops."""
    backends = subject.router.stats().backends
    return sum(backends[name].idle_connections for name, host in subject.hosts.items() if host is server)


def half_open(router: Router) -> None:
    """As if each breaker had been open for long enough."""
    for breaker in router._state.health._switches.breakers.values():
        breaker.until = min(breaker.until, time.monotonic())


def forget(router: Router) -> None:
    """As if nobody had failed yet."""
    router._state.health._switches.breakers.clear()
    router._state.health._switches.credentials.clear()
    router._state.retry_budget.left.clear()


def locks(router: Router) -> list[threading.Lock]:
    """Every lock that a call takes."""
    state, limiter = router._state, router._limiter
    shared = [state.health._inbox.lock, state.retry_budget._lock, state.rate_limits._inbox.lock]
    return [limiter._inbox.lock, *shared]


class ParallelHarness:
    """Makes servers and routers, calls many times at once in one mode, and checks the rules."""

    def __init__(self, caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
        self.caller, self.mode = caller, caller.mode
        self._caplog = caplog
        self._subjects: list[Subject] = []
        self._servers: list[Host] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._threads, self._files = loops.threads(), psutil.Process().num_fds()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.clear(check=kind is None)

    def clear(self, *, check: bool = True) -> None:
        """The end of a test: the servers are well now and answer, and then nothing may be left."""
        with self._stack:
            for server in self._servers:
                server.recover()
            for subject in self._subjects:
                if check:
                    self.answers(subject)
                subject.router.close()
            for server in self._servers:
                assert not check or server.wait_idle(1.0), "a connection is open after router.close()"
        for made in (self._subjects, self._servers):
            made.clear()
        if check:
            assert loops.threads() == self._threads
            if psutil.Process().num_fds() > self._files:
                gc.collect()
            assert psutil.Process().num_fds() <= self._files

    def enter(self, context: Any) -> Any:
        """A context manager that is left at the end of the test."""
        return self._stack.enter_context(context)

    def server(self, *faults: Reply, wire: Wire = OPENAI) -> Host:
        """A server that answers with faults, the last one for ever, or without any a healthy one."""
        server: Host = self.enter(Host(*faults, wire=wire, cure=None))
        self._servers.append(server)
        return server

    def router(
        self,
        main: Host,
        other: Host | None = None,
        *,
        slots: int | None = 1,
        retry: RetryPolicy = ONCE,
        **options: Any,
    ) -> Subject:
        """A router to one server or two, each of which serves `slots` calls at a time."""
        hosts = {"main": main} if other is None else {"main": main, "other": other}
        backends = [make_backend(name, host) for name, host in hosts.items()]
        for backend in backends:
            backend.max_concurrency = slots
        aliases = AliasTable({"m": [f"{backend.name}/m" for backend in backends]}, strategy="ordered")
        ledger, event_log = MemoryLedger(), EventLog()
        options = {"default_model": "m", "timeout": PATIENT} | options
        router = Router(backends, aliases, retry=retry, ledger=ledger, on_event=event_log.listen, **options)
        subject = Subject(router, hosts, ledger, event_log)
        self._subjects.append(subject)
        return subject

    # -- calling -------------------------------------------------------------------------------------------

    def answers(self, subject: Subject) -> None:
        """The first server is asked and answers: no slot, no lease, no connection was lost before."""
        reply = self.caller.complete(subject.router, PROMPT, model="main/m", timeout=5)
        assert reply.text == HEALTHY
        assert reply.route.deployment == "main/m"
        self.check_rest(subject)

    def at_once(
        self,
        subject: Subject,
        callers: int,
        *,
        then: Callable[[], object] = lambda: None,
        rest: bool = True,
        **options: Any,
    ) -> list[Call]:
        """So many calls at the same time, in threads or in tasks of one loop; `then` is done after each.

        Not `rest`: another call goes on meanwhile.
        """
        before = len(subject.ledger.rows())
        limit = options.get("timeout", PATIENT.total)
        calls = [Call(limit) for _ in range(callers)]
        router, start = subject.router, threading.Barrier(callers)

        def ask(caller: int) -> None:
            call = calls[caller]
            start.wait()
            call.took = -time.monotonic()
            try:
                call.completion = router.complete(PROMPT, session=str(caller), **options)
            except errors.CcrouteError as error:
                call.error = error
            call.took += time.monotonic()
            then()

        async def aask(caller: int) -> None:
            call = calls[caller]
            call.took = -time.monotonic()
            try:
                call.completion = await router.acomplete(PROMPT, session=str(caller), **options)
            except errors.CcrouteError as error:
                call.error = error
            call.took += time.monotonic()
            then()

        async def everybody() -> None:
            await loops.at_once(aask, range(callers))
            await loops.nobody_else()

        if self.mode == "sync":
            with ThreadPoolExecutor(callers) as pool:
                for done in [pool.submit(ask, caller) for caller in range(callers)]:
                    done.result()
        else:
            self.caller.run(everybody)
        self.check_all(subject, calls, subject.ledger.rows()[before:])
        if rest:
            self.check_rest(subject)
        return calls

    @contextmanager
    def meanwhile(self, subject: Subject, **options: Any) -> Iterator[None]:
        """Another call is on its way, in a thread of its own; it is answered by the end."""
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(subject.router.complete, PROMPT, **options)
            yield
            assert call.result().text == HEALTHY

    # -- the rules -----------------------------------------------------------------------------------------

    def check_all(self, subject: Subject, calls: list[Call], rows: list[LedgerRow]) -> None:
        """The rules for calls that ran at the same time: `session` says whose a row is."""
        of = defaultdict[str | None, list[LedgerRow]](list)
        for row in rows:
            of[row.session].append(row)
        shown = f"{rows}{subject.event_log.events}{[*map(str, subject.event_log.events)]}"
        for caller, call in enumerate(calls):
            call.rows = of.pop(str(caller), [])
            assert (call.error is None) != (call.completion is None)
            assert [row.outcome for row in call.rows] == [attempt.outcome for attempt in call.attempts]
            assert [row.cost for row in call.rows] == [attempt.cost for attempt in call.attempts]
            settled_once(call.rows)
            if call.error is not None:
                shown += everything_shown(call.error)
                assert KEY not in locals_of_ccroute(call.error)
        assert not of.keys() - {None}, "rows of nobody's call"
        assert_tells_nothing(shown)
        late = [call for call in calls if call.took > call.limit + GRACE]
        if late:
            raise Late(f"{len(late)} calls took longer than {late[0].limit} s")

    def check_rest(self, subject: Subject) -> None:
        """Nothing goes on, what is open at a server is what the router keeps, and no log tells anything."""
        at_rest(subject.router)
        for server in self._servers:
            idle = partial(kept, subject, server)
            assert server.settles(idle), f"{server.open_connections} connections are open, {idle()} are kept"
        assert_tells_nothing(self._caplog.text)


def settled_once(rows: list[LedgerRow]) -> None:
    """Each attempt of a call has one row, and the last one is final."""
    assert [row.final for row in rows] == [False] * (len(rows) - 1) + [True] * bool(rows)
    assert len({row.id for row in rows}) == len(rows)
    assert len({row.call for row in rows}) <= 1


@contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program of its own, to be talked to line by line; warnings are errors there, too."""
    # From 3.12 on Python warns of a fork while threads run, which is what is tested.
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, *warnings, "-c", code, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def ended(running: subprocess.Popen[str]) -> None:
    """The program came to its end, without an error and without a warning."""
    _, words = running.communicate(timeout=20)
    assert (running.returncode, words) == (0, "")
