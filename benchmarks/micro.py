"""What each part of a call costs, by itself: plain timeit, the best of several runs, next to its goal.

Nothing here opens a socket: the last rows are a whole router, whose connections answer from memory. A chunk's
cost is a stream's cost divided by its chunks. A failed attempt's cost is what a call costs more if its first
server answers with an error page and its second one answers it. A busy machine shows more, never less.

    python benchmarks/micro.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import timeit
from collections.abc import Callable
from typing import Any, NamedTuple

import server
from canned import Answer, answered_from_memory
from ccroute import (
    Agent,
    AnthropicBackend,
    Backend,
    Budget,
    Completion,
    OllamaBackend,
    OpenAIBackend,
    Price,
    RetryPolicy,
    Router,
    Usage,
)
from ccroute.accounting import LedgerRow, MemoryLedger, PriceBook
from ccroute.accounting.prices import cost
from ccroute.flow.effects import Granted
from ccroute.routing import AgentTable, AliasTable, Tables, make_plan
from ccroute.routing.acquired import UNDECIDED
from ccroute.routing.scheduling import Host, HostLimits, Hosts, LoadedFirst, Place
from ccroute.routing.tables.deployments import make_deployment
from ccroute.runtime.limiter import Limiter, Slot
from ccroute.runtime.waits import ThreadWaiter
from ccroute.types import Request
from contenders import KEY, MESSAGES, MODEL

# The goals, in µs. The last one is for a failure beside a prompt of 2 MB.
PER_CALL, PER_BUDGET, PER_CHUNK, PER_FAILURE, PER_LONG_FAILURE = 60.0, 8.0, 2.5, 300.0, 5000.0
PER_CHOICE = 20.0
PER_SLOT = {"openai": 5.0, "ollama": 6.5}
REPEATS, QUICK = 7, 3
SECONDS = 0.05
"""How long a run takes, about."""
ASKED = Request(messages=MESSAGES, agent="bench", max_tokens=100)
PRICE = Price(3, 15, cache_read="0.3", cache_write="3.75")
BACKENDS: dict[str, Backend] = {
    "openai": OpenAIBackend("bench", base_url="http://127.0.0.1", api_key=KEY),
    "anthropic": AnthropicBackend("bench", base_url="http://127.0.0.1", api_key=KEY),
    "ollama": OllamaBackend("bench", "http://127.0.0.1"),
}
LONG = (server.TEXT * 4)[:1700]  # makes about 2 kB of each whole answer
WHOLES = {
    "openai": server.openai_chat() | {"choices": [{"message": {"content": LONG}, "finish_reason": "stop"}]},
    "anthropic": server.anthropic_message(LONG),
    "ollama": server.ollama_line(LONG, done=True),
}
STREAMS = {
    "openai": server.openai_events(),
    "anthropic": server.anthropic_events(),
    "ollama": server.ollama_events(),
}
ERROR_PAGE = (
    b"<!doctype html><html><head><title>500 Internal Server Error</title><style>\n"
    + b"".join(b".part-%d { margin: %dpx; color: #%06x; }\n" % (i, i, i * 4099) for i in range(64))
    + b"</style></head><body><h1>Internal Server Error</h1><p>The server met an unexpected condition.</p>"
    b"<p>Please try again later, or ask the administrator.</p></body></html>\n"
)
WORDS = "".join(f"Node {i} did not answer in time, so node {i + 1} was asked instead. " for i in range(45))
FAILURES: dict[str, Answer] = {  # each about 3 kB, as the answer of a server of this name
    "page": (500, (ERROR_PAGE,)),
    "words": (503, (server.compact({"error": {"message": WORDS}}),)),
}
LONG_PROMPT = "".join(
    f"Line {i} of the report says what was found on day {i % 365}.\n" for i in range(37_000)
)
Work = Callable[[], object]


class Row(NamedTuple):
    """One line of the table; `parts` is the number of chunks (or similar) in one piece of work, and `less` is
    a part of it whose cost does not count."""

    what: str
    work: Work
    parts: int = 1
    goal: float | None = None  # µs
    less: Work | None = None


def router(*pieces: bytes, ledger: MemoryLedger | None = None, **options: Any) -> Router:
    """Everything on: agent, alias, price, and the ledger in memory. The agents "page" and "words" first ask
    the servers of their names, which fail."""
    made = Router(
        [
            BACKENDS["openai"],
            *(OpenAIBackend(name, base_url=f"http://{name}.test", api_key=KEY) for name in FAILURES),
        ],
        {"fast": f"bench/{MODEL}"},
        {"bench": "fast", **{name: Agent(f"{name}/{MODEL}", fallback=["fast"]) for name in FAILURES}},
        prices={MODEL: PRICE},
        ledger=ledger or MemoryLedger(limit=1000),
        **options,
    )
    return answered_from_memory(made, (200, pieces), **FAILURES)


def planning() -> Row:
    tables = Tables(
        [BACKENDS["openai"]], AliasTable({"fast": f"bench/{MODEL}"}), AgentTable({"bench": "fast"})
    )
    return Row("make a plan", lambda: make_plan(ASKED, tables, lambda: 0.5))


def resolving() -> Row:
    aliases = AliasTable({"fast": "quick", "quick": f"bench/{MODEL}", "gpt-*": "bench/gpt-*"})
    return Row("resolve an alias", lambda: aliases.resolve("fast", BACKENDS))


def pricing() -> Row:
    usage = Usage(input=1200, cache_read=300, output=450)
    return Row("price a usage", lambda: cost(usage, PRICE), goal=1)


def budgeting() -> Row:
    """What the attempt of a call adds that needs one budget: its worst case, the check, and the settlement.
    Its prompt is counted already."""
    made, attempts = router(server.compact(WHOLES["openai"]), budgets={"bench": Budget(10**9)}), list[Any]()
    state = made._state
    made._state = state._replace(reserve=attempts.append)
    made.complete(messages=MESSAGES, agent="bench", max_tokens=100)
    attempt, row, reserve, budgets = attempts[0], state.ledger.rows()[0], state.reserve, state.budgets
    assert reserve is not None
    assert budgets is not None

    def spend() -> None:
        assert reserve(attempt) is None
        attempt.settle(UNDECIDED)
        budgets.count(row)

    return Row("budget: check and settle", spend, goal=PER_BUDGET)


def recording() -> Row:
    ledger = MemoryLedger(limit=1000)
    row = ledger_row()
    return Row("record in the memory ledger", lambda: ledger.record(row))


def ledger_row() -> LedgerRow:
    """The row that one call through a router writes."""
    ledger = MemoryLedger()
    made = router(server.compact(WHOLES["openai"]), ledger=ledger)
    made.complete(messages=MESSAGES, agent="bench")
    return ledger.rows()[0]


def choosing() -> list[Row]:
    """A host's next call of 1,000 that wait for ten models: within a batch, and where it looks whether to
    switch."""
    policy, origin = LoadedFirst(), BACKENDS["ollama"].origin

    def loaded_at(instant: float) -> tuple[Hosts, Host]:
        hosts = Hosts(policy)
        hosts.configure({origin: HostLimits(1, loads_models=True)})
        hosts.listed(origin, [("model-0", None)], instant)
        for number in range(1001):  # the first one gets the slot, and ends
            hosts.enter(number, [Place(origin, f"model-{number % 10}")], 0, number / 1000)
        hosts.leave(0, instant)
        return hosts, hosts.by_origin[origin]

    place = Place(origin, "model-3")
    (_, young), (hosts, old) = loaded_at(1.0), loaded_at(-1000.0)
    return [
        Row(
            "1,000 wait: a choice within a batch",
            lambda: policy.choose(young, young.choices(), 2.0),
            goal=PER_CHOICE,
        ),
        Row(
            "1,000 wait: a choice, switch or not",
            lambda: policy.choose(old, old.choices(), 2.0),
            goal=PER_CHOICE,
        ),
        Row("1,000 wait: a predicted wait", lambda: hosts.predicted(place, 0, 2.0)),
    ]


def slot(wire: str) -> Row:
    """A call's slot at a host with a limit, where nobody waits: taken, measured, and given back."""
    backend = type(BACKENDS[wire])("bench", base_url="http://127.0.0.1", api_key=KEY, max_concurrency=4)
    options = [make_deployment(f"bench/{MODEL}", backend, MODEL, PriceBook())]
    limiter, waiter = Limiter(), ThreadWaiter()
    limiter.configure([backend], 1000)

    def served() -> None:
        taken = Slot(limiter, waiter)
        granted = taken.enter(options, 0)
        assert isinstance(granted, Granted)
        assert granted.grant is not None
        limiter.measured(granted.grant, None, 1.0)
        taken.settle()

    return Row(f"{wire}: a slot at a host with one model", served, goal=PER_SLOT[wire])


def codec(wire: str) -> list[Row]:
    backend, events = BACKENDS[wire], STREAMS[wire]
    whole = server.compact(WHOLES[wire])

    def feed() -> object:
        decoder = backend.decoder(200, {})
        for event in events:
            decoder.feed(event)
        return decoder.finish()

    return [
        Row(f"{wire}: encode", lambda: backend.encode(ASKED, MODEL, False)),
        Row(f"{wire}: decode {len(whole)} bytes", lambda: backend.decode(200, {}, whole)),
        Row(f"{wire}: feed, per chunk", feed, len(events)),
    ]


def whole_calls() -> list[Row]:
    chat = router(server.compact(server.openai_chat()))
    first, *words, last, usage, done = STREAMS["openai"]
    long = (first, *words * 10, last, usage, done)  # so that a chunk's share of the call is next to nothing
    stream = router(*long)

    def streamed() -> object:
        for _ in (chunks := stream.stream(messages=MESSAGES, agent="bench", max_tokens=100)):
            pass
        return chunks.completion

    return [
        Row(
            "router: its own work per call",
            lambda: chat.complete(messages=MESSAGES, agent="bench", max_tokens=100),
            1,
            PER_CALL,
        ),
        Row("router: its own work per chunk", streamed, len(long), PER_CHUNK),
    ]


def failures() -> list[Row]:
    """With health off: it would turn a failing server off, and nobody would ask it."""
    once = RetryPolicy(per_deployment=1)
    made = router(server.compact(server.openai_chat()), health="off", retry=once)
    long: list[Any] = [*MESSAGES, {"role": "user", "content": LONG_PROMPT}]

    def call(agent: str, messages: list[Any]) -> Completion:
        return made.complete(messages=messages, agent=agent, max_tokens=100)

    def row(what: str, agent: str, messages: list[Any], goal: float) -> Row:
        statuses = [attempt.status for attempt in call(agent, messages).route.attempts]
        assert statuses == [FAILURES[agent][0], 200]
        return Row(what, lambda: call(agent, messages), goal=goal, less=lambda: call("bench", messages))

    beside = f"{len(LONG_PROMPT) / 1e6:.0f} MB of prompt"
    return [
        row("router: a failed attempt, error page of 3 kB", "page", MESSAGES, PER_FAILURE),
        row(f"router: the same beside {beside}", "page", long, PER_LONG_FAILURE),
        row("router: a failed attempt, 3 kB of words", "words", MESSAGES, PER_FAILURE),
        row(f"router: the same beside {beside}", "words", long, PER_LONG_FAILURE),
    ]


def measured(row: Row, repeats: int) -> float:
    """µs."""
    less = best(row.less, repeats) if row.less else 0.0
    return (best(row.work, repeats) - less) / row.parts * 1e6


def best(work: Work, repeats: int) -> float:
    """Seconds, of the fastest run."""
    timer = timeit.Timer(work)
    number = max(1, int(SECONDS / min(timer.repeat(3, 1))))
    return min(timer.repeat(repeats, number)) / number


def main() -> None:
    parser = argparse.ArgumentParser(description="what each part of a call costs")
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--json", action="store_true", help="JSON, and the table on stderr")
    options = parser.parse_args()
    log = logging.getLogger("ccroute")  # it makes its records, and nobody writes them
    log.propagate, log.handlers = False, [logging.NullHandler()]
    rows = [
        *(resolving(), planning(), pricing(), budgeting(), recording()),
        *choosing(),
        *map(slot, PER_SLOT),
        *(row for wire in BACKENDS for row in codec(wire)),
        *whole_calls(),
        *failures(),
    ]
    out, found = sys.stderr if options.json else sys.stdout, []
    print(f"{'what':46}{'µs':>9}{'goal':>9}", file=out)
    for row in rows:
        us = measured(row, QUICK if options.quick else REPEATS)
        goal = f"{row.goal:9.1f}  {'✓' if us <= row.goal else '✗'}" if row.goal else ""
        print(f"{row.what:46}{us:9.2f}{goal}", file=out, flush=True)
        found.append({"what": row.what, "us": us, "goal": row.goal})
    if options.json:
        json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
