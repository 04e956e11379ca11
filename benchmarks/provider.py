"""A provider that keeps its own bill, in its own process: the server of `bill.py`.

It has five hosts, on three wires. For each request it draws an act: an answer with its usage in one of the
shapes that real servers send (`usages.py`), or a fault. The bill has a line for each request: what was
charged, and whether the client was told. Prices are whole picodollars per token, so no arithmetic of
ccroute's is in it.

A client that leaves without having read all that came resets the connection. So the provider knows whether
what it told was read.

    python benchmarks/provider.py SEED FILE

prints the hosts' addresses as JSON; when stdin ends, writes the bill to FILE, one line of JSON a request.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Literal, NamedTuple

import server
from server import compact
from steps import CLOSE, HOLD, RESET, WAIT, PlaysSteps, Step
from usages import LONG, Answer, Tokens, anthropic_answer, event, ollama_answer, openai_answer

PRICES: dict[str, tuple[Tokens, Tokens]] = {
    # Picodollars per token, of short prompts and of long ones.
    "openai": (Tokens(2_500_000, 1_250_000, 3_125_000, 0, 10_000_000),) * 2,
    "azure": (Tokens(2_750_000, 1_375_000, 2_750_000, 0, 11_000_000),) * 2,
    "vllm": (Tokens(70_000, 7_000, 70_000, 0, 210_000),) * 2,
    "claude": (
        Tokens(3_000_000, 300_000, 3_750_000, 6_000_000, 15_000_000),
        Tokens(6_000_000, 600_000, 7_500_000, 12_000_000, 22_500_000),
    ),
    "ollama": (Tokens(10_000, 1_000, 10_000, 0, 50_000),) * 2,
}


def charge(host: str, used: Tokens) -> int:
    """Picodollars for what a request used."""
    prices = PRICES[host][used.prompt > LONG]
    return sum(count * price for count, price in zip(used[:5], prices[:5], strict=True))


Told = Literal["all", "prompt", "nothing", "unread"]
"""What the client heard of the bill: all of it, what the prompt used, or nothing. "unread": it may have left
before it read what was said."""


class Line(NamedTuple):
    """One request on the bill. `said` is what the usage says, which may be told or not; `cost` is in
    picodollars. `resent`: it was dropped on a kept connection, so the client may have sent it again."""

    call: int
    host: str
    act: str
    status: int | None
    told: Told
    said: Tokens
    cost: int
    resent: bool


# -- what callers do -----------------------------------------------------------------------------------------

Fate = Literal["wait", "cancel", "close", "drop", "timeout"]


class Ask(NamedTuple):
    """One call, and what its caller does. `pieces` come before it leaves, and the end of the stream if it is
    `told`."""

    number: int
    agent: str
    streamed: bool
    fate: Fate
    pieces: int
    told: bool
    words: int

    @property
    def prompt(self) -> str:
        return f"call {self.number:09}" + " word" * self.words


AGENTS = ("worker", "reviewer", "gateway", "local")


def drawn(seed: str, number: int) -> Ask:
    """The same call for the same seed, in the client and in the provider."""
    chance = Random(f"{seed} {number}")
    fate: Fate = chance.choices(("wait", "cancel", "close", "drop", "timeout"), (82, 6, 4, 4, 4))[0]
    streamed = chance.random() < 0.55 or fate in {"close", "drop"}
    pieces = chance.randrange(fate in {"close", "drop"}, 12)
    told = streamed and pieces > 0 and chance.random() < 0.4
    return Ask(number, chance.choice(AGENTS), streamed, fate, pieces, told, chance.randrange(400))


# -- what a host does ----------------------------------------------------------------------------------------


class Wire(NamedTuple):
    """How a kind of server answers. `failed` is a frame of its streams, `refused` one that says that it did
    not begin."""

    answer: Callable[[Random, int, str], Answer]
    failed: bytes
    refused: bytes
    content_type: str = "text/event-stream"

    def stream(self, events: Sequence[bytes], *, ends: bool = True) -> bytes:
        data = server.streamed([b"".join(events)], self.content_type) if events else self._nothing
        return data if ends else data.removesuffix(b"0\r\n\r\n")

    @property
    def _nothing(self) -> bytes:
        return server.streamed([b"\n"], self.content_type)


SICK = {"type": "api_error", "message": "sick for a change"}
BUSY = {"type": "overloaded_error", "message": "busy for a change", "code": "rate_limit_exceeded"}
OPENAI = Wire(
    openai_answer,
    b"data: " + compact({"error": SICK}) + b"\n\n",
    b"data: " + compact({"error": {"message": "busy", "type": "rate_limit_exceeded", "code": 429}}) + b"\n\n",
)
HOSTS: dict[str, Wire] = {
    "openai": OPENAI,
    "azure": OPENAI,
    "vllm": OPENAI,
    "claude": Wire(anthropic_answer, event("error", error=SICK), event("error", error=BUSY)),
    "ollama": Wire(
        ollama_answer,
        compact({"error": SICK["message"]}) + b"\n",
        compact({"error": "server busy, please try again.  maximum pending requests exceeded"}) + b"\n",
        "application/x-ndjson",
    ),
}


# -- acts ----------------------------------------------------------------------------------------------------


class Act(NamedTuple):
    """What the provider does about one request. `used` is on the bill, unless it is `free`."""

    name: str
    steps: Sequence[Step]
    status: int | None = 200
    told: Told = "nothing"
    used: Tokens = Tokens()
    free: bool = False


def refusal(status: int, body: Any = None, headers: str = "") -> bytes:
    data = compact({"error": SICK} if body is None else body)
    head = f"HTTP/1.1 {status} Sick\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def answered(wire: Wire, answer: Answer, streamed: bool, chance: Random) -> Act:
    """The whole answer. A stream's end may follow later, or be missing where that is no fault."""
    told: Told = "all" if answer.told else "nothing"
    name = f"ok, {answer.shape}"
    if not streamed:
        return Act(name, [server.whole(answer.whole)], 200, told, answer.used, answer.free)
    opening, pieces, final, end, _ = answer.streamed
    whole = wire.stream([*opening, *pieces, *final, *end])
    begun = wire.stream([*opening, *pieces[:3]], ends=False)
    steps: list[Step] = [whole]
    if wire is OPENAI and chance.random() < 0.1 and answer.shape != "each":
        name += ", closed without [DONE]"
        steps = [wire.stream([*opening, *pieces, *final], ends=False), WAIT, CLOSE]
    elif chance.random() < 0.3:
        rest = wire.stream([*pieces[3:], *final, *end]).partition(b"\r\n\r\n")[2]
        steps = [begun, WAIT, rest]
    return Act(name, steps, 200, told, answer.used, answer.free)


def held(wire: Wire, answer: Answer, ask: Ask) -> Act:
    """As much as the caller waits for; then nothing until it leaves, and a few tokens more."""
    used, (opening, pieces, final, end, early) = answer.used, answer.streamed
    if not ask.streamed:
        some = server.whole(answer.whole)[: 40 * ask.pieces][:-1]
        status = 200 if b"\r\n\r\n" in some else None
        return Act("held", [some, HOLD], status, "nothing", used)
    if not answer.told:
        early = False
    if ask.told and pieces:
        steps = [wire.stream([*opening, *pieces, *final, *end], ends=False), HOLD]
        return Act("held after its usage", steps, 200, "all" if answer.told else "nothing", used, answer.free)
    pieces = pieces[: ask.pieces]
    steps = [wire.stream([*opening, *pieces], ends=False), HOLD]
    so_far = used._replace(output=len(pieces) + 2, reasoning=0)
    return Act("held", steps, 200, "prompt" if early else "nothing", so_far)


def faults(wire: Wire, host: str, answer: Answer, streamed: bool, chance: Random) -> Iterator[Act]:
    """Everything that can go wrong with an answer."""
    used, prompt = answer.used, answer.used._replace(output=0, reasoning=0)
    for status in (400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 503, 529):
        charged = host == "azure" and status == 408
        told: Told = "nothing" if charged else "all"
        waits = "retry-after-ms: 5\r\n" if status in {429, 503} else ""
        yield Act(
            f"{status}", [refusal(status, headers=waits)], status, told, prompt if charged else Tokens()
        )
    filtered = {"error": {"code": "content_filter", "message": "filtered", "param": "prompt"}}
    yield Act(
        "400 content_filter",
        [refusal(400, filtered)],
        400,
        "nothing" if host == "azure" else "all",
        prompt if host == "azure" else Tokens(),
    )
    for status in (424, 500, 502, 504):
        worked = chance.random() < 0.3
        yield Act(f"{status}", [refusal(status)], status, "nothing", prompt if worked else Tokens())
    yield Act("reset before headers", [RESET], None)
    yield Act("silence", [HOLD], None, "nothing", used)
    yield Act("garbage", [bytes(range(256)), CLOSE], None, "nothing", used)
    yield Act("HTML", [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"], 200, "nothing", used)
    packed = gzip.compress(compact(answer.whole))[:-9]
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
    yield Act("truncated gzip", [head.encode() + packed], 200, "nothing", used)
    if streamed:
        yield from stream_faults(wire, answer)
        return
    whole = server.whole(answer.whole)
    yield Act("cut inside JSON", [whole[:-9], WAIT, CLOSE], 200, "nothing", used)
    yield Act("reset inside JSON", [whole[:-9], WAIT, RESET], 200, "nothing", used)
    if wire is OPENAI:
        busy = {"error": {"message": "busy", "type": "rate_limit_exceeded", "code": "rate_limit_exceeded"}}
        yield Act("busy under 200", [server.whole(busy)], 200, "all")
        yield Act("sick under 200", [server.whole({"error": SICK})], 200, "nothing", prompt)


def stream_faults(wire: Wire, answer: Answer) -> Iterator[Act]:
    used, (opening, pieces, final, end, early) = answer.used, answer.streamed
    early = early and answer.told and not answer.free
    told: Told = "prompt" if early else "nothing"
    unbegun, half = (
        used._replace(output=0, reasoning=0),
        used._replace(output=len(pieces[:4]) + 1, reasoning=0),
    )
    begun, more = wire.stream(opening, ends=False), wire.stream([*opening, *pieces[:4]], ends=False)
    if opening:
        for name, ending in {"reset": [RESET], "closed": [CLOSE], "silent": [HOLD]}.items():
            yield Act(f"{name} before content", [begun, WAIT, *ending], 200, told, unbegun)
        yield Act("ends before content", [wire.stream(opening)], 200, told, unbegun)
        yield Act("sick before content", [wire.stream([*opening, wire.failed])], 200, told, unbegun)
    yield Act("busy at once", [wire.stream([wire.refused])], 200, "all")
    if early:
        yield Act("busy before content", [wire.stream([*opening, wire.refused])], 200, "all")
    if not pieces:
        return
    for name, ending in {"reset": [RESET], "closed": [CLOSE], "silent": [HOLD]}.items():
        yield Act(f"{name} inside a stream", [more, WAIT, *ending], 200, told, half)
    yield Act("ends without finish", [wire.stream([*opening, *pieces[:4]])], 200, told, half)
    yield Act("sick inside a stream", [wire.stream([*opening, *pieces[:4], wire.failed])], 200, told, half)
    if end and wire is not OPENAI:
        cut = wire.stream([*opening, *pieces, *final], ends=False)
        yield Act("cut after its usage", [cut, WAIT, CLOSE], 200, "all" if answer.told else "nothing", used)


FAULTY = 0.3
"""The share of requests that get a fault."""


def act_of(ask: Ask, host: str, nth: int, seed: str) -> Act:
    """What the provider does about the nth request of a call."""
    chance = Random(f"{seed} {ask.number} {nth}")
    wire = HOSTS[host]
    prompt = max(1, round((len(ask.prompt) / 4 + 4) * chance.uniform(0.9, 1.15)))
    answer = wire.answer(chance, prompt, host)
    if chance.random() < FAULTY:
        return chance.choice([*faults(wire, host, answer, ask.streamed, chance)])
    if ask.fate == "wait":
        return answered(wire, answer, ask.streamed, chance)
    while not answer.streamed.pieces:  # a caller that leaves waits for a word first
        answer = wire.answer(chance, prompt, host)
    return held(wire, answer, ask)


# -- the hosts -----------------------------------------------------------------------------------------------

_CALL = re.compile(rb"call (\d{9})")


class Provider:
    """All hosts, and the bill."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.bill: list[Line] = []
        self.requests: Counter[int] = Counter()
        self.open = 0

    def opened(self, host: str, body: bytes, *, kept: bool) -> tuple[int, Act]:
        """The act for a request, and its place on the bill."""
        found = _CALL.search(body)
        assert found, "a request that belongs to no call"
        number = int(found[1])
        act = act_of(drawn(self.seed, number), host, self.requests[number], self.seed)
        self.requests[number] += 1
        cost = 0 if act.free else charge(host, act.used)
        resent = kept and act.steps[0] is RESET
        self.bill.append(Line(number, host, act.name, act.status, act.told, act.used, cost, resent))
        return len(self.bill) - 1, act


class Link(PlaysSteps):
    """One connection to a host."""

    wait = 0.003

    def __init__(self, provider: Provider, host: str) -> None:
        self._provider, self._host = provider, host
        self._place = -1  # on the bill, of the latest request
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._provider.open += 1
        self._socket: socket.socket = transport.get_extra_info("socket")

    def eof_received(self) -> None:
        # What was written to a client that had left comes back as an error of the socket.
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.left()

    def connection_lost(self, error: Exception | None) -> None:
        self._provider.open -= 1
        if error is not None:
            self.left()

    def left(self) -> None:
        """What was told last may not have been read."""
        bill = self._provider.bill
        if self._place >= 0 and bill[self._place].told != "nothing":
            bill[self._place] = bill[self._place]._replace(told="unread")

    def answer(self, head: bytes, body: bytes) -> None:
        self._place, act = self._provider.opened(self._host, body, kept=self._count > 0)
        self._count += 1
        self.play(iter(act.steps))


async def main(seed: str, file: str) -> None:
    provider, loop, addresses = Provider(seed), asyncio.get_running_loop(), {}
    listeners: list[asyncio.Server] = []
    for host in HOSTS:
        listener = await loop.create_server(
            lambda host=host: Link(provider, host), "127.0.0.1", 0, backlog=server.BACKLOG
        )
        listeners.append(listener)
        addresses[host] = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    print(json.dumps(addresses), flush=True)
    await server.until_stdin_ends()
    for listener in listeners:
        listener.close()
    for _ in range(500):
        if not provider.open:
            break
        await asyncio.sleep(0.01)
    with open(file, "w") as lines:
        lines.writelines(json.dumps(line) + "\n" for line in provider.bill)
    print(provider.open, flush=True)


if __name__ == "__main__":
    server.allow_files(4096)
    asyncio.run(main(sys.argv[1], sys.argv[2]))
