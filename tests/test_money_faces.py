"""What a caller gets and what the ledger says are two faces of one thing, on any walk of calls.

The replies, the attempts of routes and errors, the rows of both ledgers, the reports and the events are
compared with each other, and with prices multiplied here.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import anthropic_like, openai_like
from tests.support.scripted import Close, Hang, Request, ScriptedServer, Step, answer, stream

from ccroute import (
    Agent,
    AnthropicBackend,
    AsyncStream,
    Completion,
    OllamaBackend,
    OpenAIBackend,
    Price,
    Report,
    RetryPolicy,
    Router,
    Stream,
    Usage,
    errors,
)
from ccroute.accounting import LedgerRow, MemoryLedger, SqliteLedger
from ccroute.accounting.ledger import attempt_id
from ccroute.accounting.report import GroupBy
from ccroute.accounting.row import Key
from ccroute.accounting.tally import Tally
from ccroute.observe import AttemptFailed, Event, FellBack, Interrupted, Overridden, Retried
from ccroute.observe.events import CallEvent
from ccroute.types import Attempt

# -- the servers: one for each wire -------------------------------------------------------------------------

PROMPT, OUTPUT = 1000, 7
PIECES = ["It ", "is ", "so", "."]


def openai(kind: str, streamed: bool) -> Sequence[Step]:
    usage = openai_like.usage(PROMPT, OUTPUT, cached=400, reasoning=2)
    told = None if kind == "untold" else usage
    if not streamed:
        return answer(json=openai_like.chat("It is so.", usage=told))
    pieces = openai_like.chat_sse(PIECES, usage=told)
    return cut(kind, pieces[:1], pieces[1:4], pieces[1:-1], pieces, openai_like.sse(BUSY))


def claude(kind: str, streamed: bool) -> Sequence[Step]:
    usage = anthropic_like.usage(300, OUTPUT, read=400, write_5m=200, write_1h=100)
    told: Mapping[str, Any] = {"input_tokens": 0, "output_tokens": 0} if kind == "untold" else usage
    if not streamed:
        return answer(json=anthropic_like.message("It is so.", usage=told))
    pieces = anthropic_like.message_sse(PIECES, usage=told)
    return cut(kind, pieces[:2], pieces[2:6], pieces[2:-1], pieces, anthropic_like.error_event())


def ollama(kind: str, streamed: bool) -> Sequence[Step]:
    counts = {} if kind == "untold" else {"prompt_eval_count": PROMPT, "eval_count": OUTPUT}

    def line(text: str, **more: Any) -> bytes:
        message = {"role": "assistant", "content": text}
        return json.dumps({"model": "m", "message": message, "done": False, **more}).encode() + b"\n"

    end = {"done": True, "done_reason": "stop", "load_duration": 5_000_000, **counts}
    if not streamed:
        return answer(body=line("It is so.", **end))
    pieces = [*map(line, PIECES), line("", **end)]
    busy = json.dumps({"error": "server busy, please try again"}).encode() + b"\n"
    return cut(kind, [], pieces[:3], pieces, pieces, busy, content_type="application/x-ndjson")


BUSY = {"error": {"message": "busy", "type": "rate_limit_exceeded", "code": 429}}


def cut(
    kind: str,
    opening: list[bytes],
    begun: list[bytes],
    used: list[bytes],
    pieces: list[bytes],
    busy: bytes,
    **options: Any,
) -> Sequence[Step]:
    """A stream that breaks as `kind` says, or ends."""
    steps: dict[str, list[bytes | Step]] = {
        "broken at once": [*opening, Close()],
        "busy at once": [busy],
        "busy": [*opening, busy],
        "broken": [*opening, *begun, Close()],
        "broken after its usage": [*opening, *used, Close()],
        "busy later": [*opening, *begun, busy],
        "held": [b"".join([*opening, *begun]), Hang()],
        "held after its usage": [b"".join([*opening, *used]), Hang()],
    }
    return [*stream(steps.get(kind, [*pieces]), **options)]


WIRES: dict[str, Callable[[str, bool], Sequence[Step]]] = {
    "openai": openai,
    "claude": claude,
    "ollama": ollama,
}
REFUSED = {"400": 400, "401": 401, "404": 404, "429": 429, "500": 500, "503": 503, "529": 529}
BROKEN = ["broken at once", "busy at once", "busy", "broken", "broken after its usage", "busy later"]
KINDS = ["ok", "ok", "ok", "untold", *REFUSED, "closed", "garbage", *BROKEN]


class Host(ScriptedServer):
    """A server that does what comes next, and answers where nothing does."""

    def __init__(self, wire: str, kinds: list[str]) -> None:
        self.wire, self.kinds = wire, kinds
        super().__init__(self.play)

    def play(self, request: Request) -> Sequence[Step]:
        kind = self.kinds.pop(0) if self.kinds else "ok"
        if kind in REFUSED:
            return answer(REFUSED[kind], json={"error": {"message": "no"}})
        if kind == "closed":
            return [Close()]
        if kind == "garbage":
            return answer(body=b"<html>")
        return WIRES[self.wire](kind, request.json.get("stream", False))


@dataclass
class Hosts:
    """One server for each wire; `kinds` is what their next requests get."""

    kinds: list[str]
    urls: dict[str, str]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    kinds: list[str] = []
    with ExitStack() as stack:
        yield Hosts(kinds, {wire: stack.enter_context(Host(wire, kinds)).url for wire in WIRES})


# -- the walk -----------------------------------------------------------------------------------------------

Leaves = Literal["never", "close", "drop", "cancel"]


class Ask(NamedTuple):
    """One call: what its hosts do, and when its caller leaves the stream."""

    agent: str | None
    model: str | None
    streamed: bool
    session: str | None
    kinds: list[str]
    leaves: Leaves = "never"


@dataclass
class Seen:
    """What a caller knows of its call. None: nobody told it."""

    attempts: tuple[Attempt, ...] | None = None
    cost: Decimal | Literal["not told"] | None = "not told"
    usage: Usage | None = None
    latency: float | None = None
    outcome: str | None = None
    events: list[Event] = field(default_factory=list)


ASKS = st.builds(
    Ask,
    agent=st.sampled_from([None, "py", "js", "boss"]),
    model=st.sampled_from(["any", "claude/m", "ollama/m", "openai/unpriced", "openai/m"]),
    streamed=st.booleans(),
    session=st.sampled_from([None, "one", "two"]),
    kinds=st.lists(st.sampled_from(KINDS), max_size=3),
    leaves=st.just("never"),
) | st.builds(
    Ask,
    agent=st.sampled_from([None, "py"]),
    model=st.sampled_from(["any", "claude/m", "ollama/m"]),
    streamed=st.just(True),
    session=st.none(),
    kinds=st.lists(st.sampled_from([*REFUSED, "closed"]), max_size=1).flatmap(
        lambda before: st.sampled_from(["held", "held after its usage"]).map(lambda held: [*before, held])
    ),
    leaves=st.sampled_from(["close", "drop", "cancel"]),
)

PRICES = {
    "openai/m": Price(3, 15, cache_read="0.3"),
    "claude/m": Price(5, 25, cache_read="0.5", cache_write="6.25", cache_write_1h=10),
}
BASELINE = PRICES["openai/m"]


class Both:
    """A ledger of the user's own that writes into both of ccroute's."""

    def __init__(self, folder: Path) -> None:
        self.ledgers = [MemoryLedger(), SqliteLedger(folder / "usage.db")]

    def record(self, row: LedgerRow) -> None:
        for ledger in self.ledgers:
            ledger.record(row)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        first, second = (ledger.rows(since, until) for ledger in self.ledgers)
        assert first == second, "the ledgers have different rows"
        return first

    def tallies(self, since: datetime | None = None, until: datetime | None = None) -> Mapping[Key, Tally]:
        return self.ledgers[0].tallies(since, until)


class Walk:
    """Some calls to one router, and what was seen of each."""

    def __init__(self, hosts: Hosts, stack: ExitStack) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        self.kinds, self.ledger = hosts.kinds, Both(Path(folder))
        self.seen, self.events = list[Seen](), list[Event]()
        self.router = Router(
            [
                OpenAIBackend("openai", base_url=hosts.urls["openai"], api_key="key"),
                AnthropicBackend("claude", base_url=hosts.urls["claude"], api_key="key"),
                OllamaBackend("ollama", hosts.urls["ollama"]),
            ],
            {"any": ["openai/m", "claude/m", "ollama/m"]},
            {
                "py": Agent("any", group="devs"),
                "js": Agent("openai/m", fallback=["claude/m", "ollama/m"], group="devs"),
                "boss": Agent("openai/unpriced", fallback=["any"]),
            },
            groups={"devs": Agent()},
            default_model="any",
            prices=PRICES,
            ledger=self.ledger,
            retry=RetryPolicy(base=0, max=0),
            on_event=self.events.append,
            health="off",
        )
        stack.callback(self.ledger.ledgers[1].close)
        stack.callback(self.router.close)

    def go(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            with self.call(ask) as seen:
                self._ask(ask, seen)

    async def ago(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            with self.call(ask) as seen:
                await self._aask(ask, seen)

    def call(self, ask: Ask) -> Noted:
        self.kinds[:] = ask.kinds
        return Noted(self)

    def options(self, ask: Ask) -> dict[str, Any]:
        asked = {"agent": ask.agent, "model": ask.model, "session": ask.session, "timeout": 5}
        return {**asked, "metadata": {"call": len(self.seen)}}

    def _ask(self, ask: Ask, seen: Seen) -> None:
        if not ask.streamed:
            return answered(seen, self.router.complete("hi", **self.options(ask)))
        left = self.router.stream("hi", **self.options(ask))
        for _ in left:
            if ask.leaves == "drop":
                return None
            if ask.leaves != "never":
                so_far = left.partial
                left.close()
                return closed(seen, so_far, left)
        return answered(seen, left.completion)

    async def _aask(self, ask: Ask, seen: Seen) -> None:
        if not ask.streamed:
            return answered(seen, await self.router.acomplete("hi", **self.options(ask)))
        left = self.router.astream("hi", **self.options(ask))
        if ask.leaves == "cancel":
            begun = asyncio.Event()
            reading = asyncio.create_task(read(left, begun))
            await begun.wait()
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            return closed(seen, left.partial, left)
        async for _ in left:
            if ask.leaves == "drop":
                return None
            if ask.leaves == "close":
                so_far = left.partial
                await left.aclose()
                return closed(seen, so_far, left)
        return answered(seen, left.completion)


async def read(left: Any, begun: asyncio.Event) -> None:
    try:
        async for _ in left:
            begun.set()
    finally:
        begun.set()


class Noted:
    """One call of a walk: catches its error, and keeps its events."""

    def __init__(self, walk: Walk) -> None:
        self.walk, self.seen = walk, Seen()

    def __enter__(self) -> Seen:
        self.walk.events.clear()
        return self.seen

    def __exit__(self, kind: Any, error: BaseException | None, *_: object) -> bool:
        if isinstance(error, errors.CcrouteError):
            self.seen.attempts, self.seen.outcome = error.attempts, "failed"
            if isinstance(error, errors.StreamInterruptedError):
                assert error.partial is not None
                partial(self.seen, error.partial, error.attempts, "interrupted")
        elif error is not None:
            return False
        gc.collect(0)  # a stream that was dropped
        self.seen.events = [*self.walk.events]
        self.walk.seen.append(self.seen)
        return True


def answered(seen: Seen, reply: Completion) -> None:
    seen.attempts, seen.cost, seen.usage = reply.route.attempts, reply.cost, reply.usage
    seen.latency, seen.outcome = reply.latency, "ok"


def closed(seen: Seen, so_far: Completion, left: Stream | AsyncStream) -> None:
    """A stream that was left says what it said before."""
    with pytest.raises(RuntimeError, match="before its end"):
        _ = left.completion
    assert (left.partial.cost, left.partial.usage) == (so_far.cost, so_far.usage)
    assert left.partial.text == so_far.text
    partial(seen, left.partial, left.route.attempts)


def partial(seen: Seen, so_far: Completion, attempts: Any, outcome: str = "cancelled") -> None:
    assert so_far.route.attempts == attempts
    seen.attempts, seen.cost, seen.usage = attempts, so_far.cost, so_far.usage
    seen.latency, seen.outcome = so_far.latency, outcome


# -- the comparison -----------------------------------------------------------------------------------------


def priced(row: LedgerRow) -> Decimal | None:
    """What a row's tokens cost, multiplied here."""
    price, used = PRICES.get(row.deployment), row.usage
    if row.backend == "ollama" or not used.total_tokens:
        return Decimal(0)
    if price is None:
        return None
    return (
        price.input * used.input
        + price.output * used.output
        + (price.cache_read or 0) * used.cache_read
        + (price.cache_write or 0) * used.cache_write_5m
        + (price.cache_write_1h or 0) * used.cache_write_1h
    ) / 1_000_000


def total(rows: Sequence[LedgerRow]) -> Decimal | None:
    costs = [row.cost for row in rows]
    return None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))


def check_call(seen: Seen, rows: Sequence[LedgerRow]) -> None:
    """One call: the rows are what its caller and its listener know."""
    assert [row.id for row in rows] == [attempt_id(rows[0].call, n) for n in range(1, len(rows) + 1)]
    assert [row.final for row in rows] == [False] * (len(rows) - 1) + [True]
    assert all((row.latency is not None) == row.final for row in rows)
    assert [row.cost for row in rows] == [priced(row) for row in rows]
    last = rows[-1]
    if seen.attempts is not None:
        told = [
            (a.deployment, a.outcome, a.failure, a.status, a.usage, a.cost, a.started) for a in seen.attempts
        ]
        assert told == [
            (r.deployment, r.outcome, r.failure, r.status, r.usage, r.cost, r.started) for r in rows
        ]
        times = [(a.queued, a.duration, a.load) for a in seen.attempts]
        assert times == [(r.queue, r.duration, r.load) for r in rows]
        assert last.outcome == seen.outcome
    else:
        assert last.outcome == "cancelled"
    if seen.cost != "not told":
        assert (seen.cost, seen.usage, seen.latency) == (total(rows), last.usage, last.latency)
    calls = {event.call for event in seen.events if isinstance(event, CallEvent)}
    assert calls <= {rows[0].call}
    failed = [e for e in seen.events if isinstance(e, AttemptFailed)]
    assert [(e.deployment, e.failure, e.status) for e in failed] == [
        (row.deployment, row.failure, row.status) for row in rows if row.outcome == "failed"
    ]
    broken = [e.deployment for e in seen.events if isinstance(e, Interrupted)]
    assert broken == [row.deployment for row in rows if row.outcome == "interrupted"]
    further = [e.deployment for e in seen.events if isinstance(e, FellBack | Retried)]
    assert further == [row.deployment for row in rows[1:]]
    assert any(isinstance(e, Overridden) for e in seen.events) == last.overridden


GROUPS: tuple[GroupBy, ...] = ("agent", "group", "alias", "model", "backend", "day", "session")


def check_reports(walk: Walk, rows: Sequence[LedgerRow]) -> None:
    """Each grouping of both ledgers' reports is a sum over the rows."""
    sums = [ledger.tallies() for ledger in walk.ledger.ledgers]
    for by in [(), *((each,) for each in GROUPS), *itertools.combinations(GROUPS, 2), GROUPS]:
        report = walk.router.report(by=by, baseline="openai/m")
        others = [Report(each, by, baseline=BASELINE) for each in sums]
        assert [unordered(each) for each in others] == [unordered(report)] * 2
        groups: dict[tuple[Any, ...], list[LedgerRow]] = defaultdict(list)
        for row in rows:
            groups[tuple(getattr(row.key(), name) for name in by)].append(row)
        assert len(report) == len(groups)
        if not by:
            counts = walk.router.stats().counts.model_dump()
            assert {name: report.total[name] for name in counts} == pytest.approx(counts, abs=1e-5)
        for line in report:
            check_sums(line, groups[tuple(line[name] for name in by)])
        check_sums(report.total, rows)


def unordered(report: Report) -> dict[str, Any]:
    """As JSON; what costs the same is in any order."""
    whole = report.to_dict()
    return whole | {name: sorted(whole[name], key=str) for name in ("rows", "estimated")}


def check_sums(line: Mapping[str, Any], rows: Sequence[LedgerRow]) -> None:
    finals = [row for row in rows if row.final]
    costs = [row.cost for row in rows if row.cost is not None]
    counts = {
        "requests": len(finals),
        "attempts": len(rows),
        "failures": sum(row.outcome in {"failed", "interrupted"} for row in rows),
        "unknown_cost_requests": sum(row.cost is None for row in finals),
        "overrides": sum(row.overridden for row in finals),
        "input": sum(row.usage.input for row in rows),
        "cache_read": sum(row.usage.cache_read for row in rows),
        "cache_write": sum(row.usage.cache_write for row in rows),
        "output": sum(row.usage.output for row in rows),
    }
    loads = [row.load for row in rows if row.load is not None and row.load >= 0.05]
    counts["loads"] = len(loads)
    assert {name: line[name] for name in counts} == counts
    assert line["wait"] == pytest.approx(sum(row.queue for row in rows), abs=1e-5)
    assert line["load_seconds"] == pytest.approx(sum(loads), abs=1e-5)
    if any(row.cost is not None and row.usage.total_tokens for row in rows) or len(costs) == len(rows):
        assert line["cost"] == sum(costs, Decimal(0))
    else:
        assert line["cost"] is None
    took = sorted(row.latency for row in finals if row.outcome == "ok" and row.latency is not None)
    for name, percent in (("p50", 50), ("p95", 95)):
        assert line[name] == (round(took[math.ceil(len(took) * percent / 100) - 1], 6) if took else None)


def check(walk: Walk) -> None:
    rows = walk.router.rows()
    for number, seen in enumerate(walk.seen):
        of_call = [row for row in rows if row.metadata["call"] == number]
        check_call(seen, sorted(of_call, key=lambda row: row.id))
    check_reports(walk, rows)


@pytest.mark.parametrize("mode", ["sync", "async"])
@settings(max_examples=15)
@given(asks=st.lists(ASKS, min_size=1, max_size=6))
def test_all_faces_of_the_money_agree(hosts: Hosts, mode: str, asks: list[Ask]) -> None:
    with ExitStack() as stack:
        walk = Walk(hosts, stack)
        if mode == "sync":
            walk.go(asks)
        else:
            asyncio.run(walk.ago(asks))
        check(walk)
