"""What each part of a call costs, by itself: plain timeit, the best of several runs, next to its goal.

Nothing here opens a socket: the last rows are a whole router, whose connections answer from memory. A chunk's
cost is a stream's cost divided by its chunks. A busy machine shows more, never less.

    python benchmarks/micro.py
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Sequence
from typing import NamedTuple

import server
from canned import answered_from_memory
from ccroute import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend, Price, Router, Usage
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.accounting.prices import cost
from ccroute.routing import AgentTable, AliasTable, Tables, make_plan
from ccroute.types import Request
from contenders import KEY, MESSAGES, MODEL

PER_CALL, PER_CHUNK, PER_DECODE = 60.0, 3.5, 60.0  # µs, the goals
REPEATS = 7
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
Work = Callable[[], object]


class Row(NamedTuple):
    """One line of the table; `parts` is the number of chunks (or similar) in one piece of work."""

    what: str
    work: Work
    parts: int = 1
    goal: float | None = None  # µs


def router(*pieces: bytes, ledger: MemoryLedger | None = None) -> Router:
    """Everything on: agent, alias, price, and the ledger in memory."""
    made = Router(
        [BACKENDS["openai"]],
        {"fast": f"bench/{MODEL}"},
        {"bench": "fast"},
        prices={MODEL: PRICE},
        ledger=ledger or MemoryLedger(limit=1000),
    )
    return answered_from_memory(made, (200, pieces))


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
    return Row("price a usage", lambda: cost(usage, PRICE))


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
        Row(f"{wire}: decode {len(whole)} bytes", lambda: backend.decode(200, {}, whole), 1, PER_DECODE),
        Row(f"{wire}: feed, per chunk", feed, len(events), PER_CHUNK),
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
            "router: a call",
            lambda: chat.complete(messages=MESSAGES, agent="bench", max_tokens=100),
            1,
            PER_CALL,
        ),
        Row("router: a stream, per chunk", streamed, len(long), PER_CHUNK),
    ]


def measured(row: Row) -> float:
    """µs."""
    timer = timeit.Timer(row.work)
    number = max(1, timer.autorange()[0] // 4)  # about 50 ms a run
    return min(timer.repeat(REPEATS, number)) / number / row.parts * 1e6


def table(rows: Sequence[Row]) -> None:
    print(f"{'what':32}{'µs':>8}{'goal':>8}")
    for row in rows:
        spent = measured(row)
        goal = f"{row.goal:8.1f}  {'yes' if spent <= row.goal else 'no'}" if row.goal else ""
        print(f"{row.what:32}{spent:8.2f}{goal}", flush=True)


if __name__ == "__main__":
    table(
        [
            *(resolving(), planning(), pricing(), recording()),
            *(row for wire in BACKENDS for row in codec(wire)),
            *whole_calls(),
        ]
    )
