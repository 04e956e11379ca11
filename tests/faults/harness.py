"""What the fault matrix runs on: faulty servers, routers to them, and the rules that hold after every fault.

A row says what the fault is and what must follow from it. Everything else is checked here after each call:
one outcome, in time; attempts within their cap, each recorded once at its price, one of them final; neither
key nor prompt to be seen anywhere; nothing left running. At the end of a test the server recovers, and the
same router has to be answered by it: a slot or a lease that was lost would show.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self

import psutil
import pytest
from tests.conftest import Caller
from tests.faults.servers import HEALTHY, OPENAI, FaultyServer, Wire, backend
from tests.support.loops import in_thread, nobody_else, threads
from tests.support.scripted import Reply
from tests.test_bad_input import everything_shown
from tests.test_canaries import KEY, PROMPT, assert_tells_nothing, locals_of_ccroute

from ccroute import (
    AliasTable,
    Chunk,
    Completion,
    RetryPolicy,
    Router,
    Timeout,
    Usage,
    errors,
)
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.observe import BreakerOpened, Event
from ccroute.types import Attempt

SHORT = 0.08
"""Seconds of a limit that is waited for: the shortest that leaves a machine time to breathe."""
PER_TOKEN = Decimal("0.000001")
SAID = Usage(input=11, output=7)
"""What the servers' streams say at their end."""
GRACE = 0.1
"""Seconds past a limit that are allowed."""
ONCE = RetryPolicy(attempts=1)
THRICE = RetryPolicy(attempts=3, per_deployment=2, base=0, max=0)
PATIENT = Timeout(total=10, connect=5, first=5, idle=5)
IN_A_ROW = 5
"""Failures that open a breaker."""


class Late(AssertionError):
    """A limit was overrun; the machine may have stood still, so the test is run again."""


def row(number: int, fault: str) -> pytest.MarkDecorator:
    """Marks the tests of one row of the matrix, by its number and its name there."""
    return pytest.mark.row(number, fault)


whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@dataclass
class Call:
    """What became of one call."""

    limit: float
    took: float = 0.0
    chunks: list[Chunk] = field(default_factory=list)
    completion: Completion | None = None
    error: errors.CcrouteError | None = None
    rows: list[LedgerRow] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def answer(self) -> Completion:
        assert self.completion is not None, f"no answer but {self.error!r}"
        return self.completion

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return self.answer.route.attempts if self.error is None else self.error.attempts

    @property
    def text(self) -> str:
        """The answer's text as the caller had it."""
        said = "".join(chunk.text for chunk in self.chunks)
        assert self.completion is None or not self.chunks or said == self.completion.text
        return said if self.chunks else self.answer.text

    @property
    def tried(self) -> list[tuple[str, str | None, str | None]]:
        return [(attempt.deployment, attempt.failure, attempt.error) for attempt in self.attempts]


@dataclass(frozen=True)
class Subject:
    """A router under test, and the server that its deployment `main/m` is at."""

    router: Router
    server: FaultyServer | str
    retry: RetryPolicy
    ledger: MemoryLedger
    events: list[Event]


class FaultHarness:
    """Makes servers and routers, calls in one mode, and checks the rules."""

    def __init__(self, caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
        self.caller, self.mode = caller, caller.mode
        self.first_chunk = threading.Event()
        """Set as soon as the caller has a chunk: a script that waits for it breaks after content."""
        self._caplog = caplog
        self._last: dict[FaultyServer | str, Subject] = {}
        self._routers: list[Router] = []
        self._servers: list[FaultyServer] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._threads, self._files = threads(), psutil.Process().num_fds()
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """The end of a test: the faulty servers recover and answer, and then nothing may be left."""
        with self._stack:
            for server in self._servers:
                server.recover()
            for subject in self._last.values():
                self._recovers(subject)
            for router in self._routers:
                router.close()
            for server in self._servers:
                assert server.wait_idle(1.0), "a connection is open after router.close()"
        for made in (self._last, self._routers, self._servers):
            made.clear()
        assert threads() == self._threads
        assert psutil.Process().num_fds() == self._files

    # -- making --------------------------------------------------------------------------------------------

    def enter(self, context: Any) -> Any:
        """A context manager that is left at the end of the test."""
        return self._stack.enter_context(context)

    def faulty(
        self,
        *faults: Reply,
        wire: Wire = OPENAI,
        cure: Callable[[FaultyServer], None] | None = None,
        **options: Any,
    ) -> FaultyServer:
        """A server that answers with faults, or without any a healthy one."""
        server: FaultyServer = self.enter(FaultyServer(*faults, wire=wire, cure=cure, **options))
        self._servers.append(server)
        return server

    def router(
        self,
        faulty: FaultyServer | str,
        other: FaultyServer | None = None,
        *,
        retry: RetryPolicy = ONCE,
        limits: Timeout | None = None,
        ca_file: str | None = None,
        recovers: bool = True,
    ) -> Subject:
        """A router whose alias `m` is `main/m` at the faulty server and then, if there is one, `other/m`.

        `limits` are those of one attempt at the faulty server; the call has plenty of time. Not `recovers`:
        the fault lasts, by its nature, longer than the test.
        """
        backends = [backend("main", faulty, timeout=limits, ca_file=ca_file)]
        if other is not None:
            backends.append(backend("other", other))
        aliases = AliasTable({"m": [f"{backend.name}/m" for backend in backends]}, strategy="ordered")
        ledger, events = MemoryLedger(), list[Event]()
        router = Router(
            backends,
            aliases,
            default_model="m",
            retry=retry,
            timeout=PATIENT,
            ledger=ledger,
            on_event=events.append,
        )
        subject = Subject(router, faulty, retry, ledger, events)
        self._routers.append(router)
        if recovers and not (isinstance(faulty, FaultyServer) and faulty.is_healthy):
            self._last[faulty] = subject
        return subject

    # -- calling -------------------------------------------------------------------------------------------

    def ask(self, subject: Subject, *, stream: bool = False, **options: Any) -> Call:
        """One call, after which the rules were checked."""
        return self.asks(subject, 1, stream=stream, **options)[0]

    def asks(
        self,
        subject: Subject,
        times: int,
        *,
        stream: bool = False,
        then: Callable[[], object] = lambda: None,
        **options: Any,
    ) -> list[Call]:
        """The same call several times, on one loop if on any; `then` is done after each."""
        if self.mode != "sync":
            done: list[Call] = self.caller.run(self._aasks, subject, times, stream, then, options)
            return done
        calls, asked = [], options if "messages" in options else {"prompt": PROMPT, **options}
        for _ in range(times):
            call = self._begin(subject, options)
            try:
                if stream:
                    started = subject.router.stream(**asked)
                    for chunk in started:
                        call.chunks.append(chunk)
                        self.first_chunk.set()
                    call.completion = started.completion
                else:
                    call.completion = subject.router.complete(**asked)
            except errors.CcrouteError as error:
                call.error = error
            call.took += time.monotonic()
            then()
            calls.append(self._check(subject, call))
        return calls

    async def _aasks(
        self, subject: Subject, times: int, stream: bool, then: Callable[[], object], options: Any
    ) -> list[Call]:
        calls, asked = [], options if "messages" in options else {"prompt": PROMPT, **options}
        for _ in range(times):
            call = self._begin(subject, options)
            try:
                if stream:
                    started = subject.router.astream(**asked)
                    async for chunk in started:
                        call.chunks.append(chunk)
                        self.first_chunk.set()
                    call.completion = started.completion
                else:
                    call.completion = await subject.router.acomplete(**asked)
            except errors.CcrouteError as error:
                call.error = error
            call.took += time.monotonic()
            then()
            calls.append(await in_thread(self._check, subject, call))
            await nobody_else()
        return calls

    def _begin(self, subject: Subject, options: dict[str, Any]) -> Call:
        self.first_chunk.clear()
        limit = options.get("timeout", PATIENT)
        call = Call(limit.total if isinstance(limit, Timeout) else limit, -time.monotonic())
        call.rows, call.events = subject.ledger.rows(), [*subject.events]
        return call

    # -- the rules -----------------------------------------------------------------------------------------

    def _check(self, subject: Subject, call: Call) -> Call:
        call.rows = subject.ledger.rows()[len(call.rows) :]
        call.events = subject.events[len(call.events) :]
        assert (call.error is None) != (call.completion is None)
        self._check_attempts(call, subject.retry)
        self._check_secrets(call)
        for server in self._servers:
            assert server.wait_quiet(len(self._routers)), "the server still has the caller on the line"
        in_time(call.took, call.limit)
        return call

    def _check_attempts(self, call: Call, retry: RetryPolicy) -> None:
        attempts, rows = call.attempts, call.rows
        assert sum(attempt.failure != "not_sent" for attempt in attempts) <= retry.attempts
        assert max(Counter(attempt.deployment for attempt in attempts).values()) <= retry.per_deployment
        assert len({row.call for row in rows}) == 1
        assert [row.final for row in rows] == [False] * (len(attempts) - 1) + [True]
        for attempt, row in zip(attempts, rows, strict=True):
            seen = (attempt.deployment, attempt.outcome, attempt.failure, attempt.usage, attempt.cost)
            assert (row.deployment, row.outcome, row.failure, row.usage, row.cost) == seen
            assert attempt.cost == attempt.usage.total_tokens * PER_TOKEN
            assert attempt.outcome == {None: "ok", "delivered": "interrupted"}.get(attempt.failure, "failed")
            if attempt.failure in {"ambiguous", "delivered"}:
                assert attempt.usage.estimated or attempt.usage == SAID
                assert attempt.usage.input > 0
            elif attempt.failure is not None:
                assert attempt.cost == 0
        spent = sum(attempt.cost for attempt in attempts)
        if call.completion is not None:
            assert call.completion.cost == spent
            assert attempts[-1].outcome == "ok"

    def _check_secrets(self, call: Call) -> None:
        shown = f"{call.attempts}{call.rows}{call.events}{[*map(str, call.events)]}{self._caplog.text}"
        if call.completion is not None:
            shown += repr(call.completion.route)
        if call.error is not None:
            shown += everything_shown(call.error)
            shown += repr(vars(pickle.loads(pickle.dumps(call.error))))
            assert KEY not in locals_of_ccroute(call.error)
        assert_tells_nothing(shown)

    def _recovers(self, subject: Subject) -> None:
        """A server that got well is asked and answers; at one that cannot get well, no call waits."""
        may_recover = isinstance(subject.server, FaultyServer)
        call = self.ask(subject, model="main/m", timeout=5 if may_recover else 0.06)
        if may_recover:
            assert call.text == HEALTHY
            assert call.attempts[-1].deployment == "main/m"
        else:
            assert not isinstance(call.error, errors.QueueTimeoutError)

    # -- what a row requires -------------------------------------------------------------------------------

    def answers(
        self, faulty: FaultyServer, text: str = HEALTHY, *, stream: bool = False, **options: Any
    ) -> Call:
        """It is no fault: the answer is taken, at the first attempt."""
        call = self.ask(self.router(faulty, **options), stream=stream)
        assert call.text == text
        assert call.tried == [("main/m", None, None)]
        return call

    def fails(
        self,
        faulty: FaultyServer | str,
        error: type[errors.CcrouteError],
        failure: str | None,
        *,
        stream: bool = False,
        timeout: float | None = None,
        **options: Any,
    ) -> Call:
        """Tried once, with nobody else there, it ends in exactly this error; `failure` is its class."""
        asked = {} if timeout is None else {"timeout": timeout}
        call = self.ask(self.router(faulty, **options), stream=stream, **asked)
        assert type(call.error) is error
        assert call.tried == [("main/m", failure, error.__name__)]
        assert not call.chunks
        return call

    def is_retried(
        self,
        faulty: FaultyServer | str,
        error: type[errors.CcrouteError],
        failure: str,
        *,
        stream: bool = False,
        **options: Any,
    ) -> Call:
        """R: another deployment answers, unseen; where there is none, there is one extra attempt here."""
        self.moves_on(faulty, error, failure, stream=stream, **options)
        call = self.ask(self.router(faulty, retry=THRICE, **options), stream=stream)
        assert type(call.error) is error
        assert call.tried == [("main/m", failure, error.__name__)] * 2
        assert not call.chunks
        return call

    def moves_on(
        self,
        faulty: FaultyServer | str,
        error: type[errors.CcrouteError],
        failure: str,
        *,
        stream: bool = False,
        fallback: bool = False,
        **options: Any,
    ) -> Call:
        """The other deployment (or fallback model) is asked next, and its answer is the whole answer."""
        subject = self.router(faulty, self.faulty(), retry=THRICE, **options)
        asked = {"model": "main/m", "fallback": ["other/m"]} if fallback else {}
        call = self.ask(subject, stream=stream, **asked)
        assert call.tried == [("main/m", failure, error.__name__), ("other/m", None, None)]
        assert call.text == HEALTHY
        assert call.answer.route.backend == "other"
        assert call.answer.route.fallback == fallback
        return call

    def is_not_retried(
        self,
        faulty: FaultyServer | str,
        error: type[errors.CcrouteError],
        failure: str,
        *,
        stream: bool = False,
        **options: Any,
    ) -> Call:
        """Where there is nobody else, one attempt is all, whatever the policy allows."""
        return self.fails(faulty, error, failure, stream=stream, retry=THRICE, **options)

    def is_final(
        self, faulty: FaultyServer, error: type[errors.CcrouteError], failure: str, *, stream: bool = False
    ) -> Call:
        """It is raised at once, though another deployment could answer."""
        other = self.faulty()
        call = self.ask(self.router(faulty, other, retry=THRICE), stream=stream)
        assert type(call.error) is error
        assert call.tried == [("main/m", failure, error.__name__)]
        assert other.connections == 0
        return call

    def cuts(
        self,
        faulty: FaultyServer,
        text: str,
        cause: type[errors.CcrouteError],
        *,
        total: float | None = None,
        **options: Any,
    ) -> Call:
        """CUT: the caller has the text so far, with what it cost, and nobody else is asked to go on."""
        other = self.faulty()
        subject = self.router(faulty, other, retry=THRICE, **options)
        call = self.ask(subject, stream=True, **({} if total is None else {"timeout": total}))
        error = call.error
        assert type(error) is errors.StreamInterruptedError
        assert type(error.__cause__) is cause
        assert call.tried == [("main/m", "delivered", "StreamInterruptedError")]
        assert error.partial is not None
        assert error.partial.text == call.text == text
        assert error.partial.usage == call.attempts[0].usage
        assert error.partial.usage.output > 0
        assert error.partial.cost == call.attempts[0].cost > 0
        assert other.connections == 0
        return call

    def follows(
        self, faulty: FaultyServer, error: type[errors.CcrouteError], failure: str, *, stream: bool = False
    ) -> None:
        """What the class of a failure asks for follows from it, and nothing is said before it."""
        if failure == "invalid_request":
            self.is_final(faulty, error, failure, stream=stream)
        elif failure in {"credential", "context_length", "unavailable"}:
            self.is_not_retried(faulty, error, failure, stream=stream)
            self.moves_on(faulty, error, failure, stream=stream, fallback=failure == "context_length")
        else:
            self.is_retried(faulty, error, failure, stream=stream)

    def opens_breaker(
        self,
        faulty: FaultyServer | str,
        *,
        opens: bool = True,
        stream: bool = False,
        timeout: Timeout | None = None,
        **options: Any,
    ) -> None:
        """B+: five in a row open the breaker, and four do not. Not `opens` (B0): five do not either."""
        asked = {} if timeout is None else {"timeout": timeout}
        calls = self.asks(self.router(faulty, **options), IN_A_ROW, stream=stream, **asked)
        assert all(call.error is not None for call in calls)
        opened = [[event for event in call.events if isinstance(event, BreakerOpened)] for call in calls]
        last = ["main/m"] if opens else []
        assert [[event.deployment for event in events] for events in opened] == [[]] * (IN_A_ROW - 1) + [last]


def effort(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of this thread's own computing that some work takes at best, whatever else the machine does."""
    spent = []
    for _ in range(times):
        began = time.thread_time()
        work()
        spent.append(time.thread_time() - began)
    return min(spent)


def in_time(took: float, limit: float) -> None:
    """No more than `GRACE` past the limit. For a second no machine stands still."""
    assert took < limit + 1
    if took > limit + GRACE:
        raise Late(f"took {took:.3f} s of {limit} s")


def on_time(call: Call, limit: float) -> None:
    """The first attempt ended when its limit passed, not before and not much later."""
    took = call.attempts[0].duration
    assert took >= limit * 0.9
    in_time(took, limit)
