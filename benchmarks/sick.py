"""Four hosts that sometimes fail, in their own process: the servers of the soak.

    steady    OpenAI's wire
    flapping  OpenAI's wire; after FLAPS_AFTER requests it goes away for a while: idle connections are closed,
              new ones refused
    small     Ollama's wire
    keyed     Anthropic's wire; sometimes refuses its key

Each host has its own seed, which decides which of its requests get a fault, in the order in which they
come. No fault comes again before all others did. A request's body holds `call` and nine digits. Its answer
repeats them, which shows that no call gets the answer of another.

    python benchmarks/sick.py SEED SHARE FLAPS_AFTER

SHARE of the requests get a fault. Prints the hosts' addresses as JSON; when stdin ends, waits until no
connection is open, and prints what each host saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import server
from steps import CLOSE, RESET, WAIT, PlaysSteps, Step

MARK = "0" * 9
"""Where the number of the call goes, in the templates of all answers."""
PIECES = [f" {MARK}", " is", " what", " this", " call", " asked", " for", "."]
DOWN = 0.5
"""Seconds that the flapping host is away."""
LEFT = 5.0
"""Seconds that connections have to be closed by the client, at the end."""
_MARK = MARK.encode()
_CALL = re.compile(rb"call (\d{9})")


def text(number: int) -> str:
    """What call `number` is answered."""
    return "".join(PIECES).replace(MARK, f"{number:09}")


# -- their answers -------------------------------------------------------------------------------------------


class Wire(NamedTuple):
    """How a kind of server answers; `error` is a frame of its streams."""

    message: dict[str, Any]
    events: Sequence[bytes]
    error: bytes
    content_type: str = "text/event-stream"

    @property
    def begun(self) -> Sequence[bytes]:
        """The events of a stream up to the middle of its content."""
        return self.events[: len(self.events) // 2]

    def stream(self, events: Sequence[bytes]) -> bytes:
        return server.streamed(events, self.content_type)

    def open(self, events: Sequence[bytes]) -> bytes:
        """A stream that could go on."""
        return self.stream(events).removesuffix(b"0\r\n\r\n")


SICK = {"type": "api_error", "message": "sick for a change"}
WIRES = {
    b"/v1/chat/completions": Wire(
        server.openai_chat("".join(PIECES)),
        server.openai_events(PIECES),
        b"data: " + server.compact({"error": SICK}) + b"\n\n",
    ),
    b"/v1/messages": Wire(
        server.anthropic_message("".join(PIECES)),
        server.anthropic_events(PIECES),
        b"event: error\ndata: " + server.compact({"type": "error", "error": SICK}) + b"\n\n",
    ),
    b"/api/chat": Wire(
        server.ollama_line("".join(PIECES), done=True),
        server.ollama_events(PIECES),
        server.compact({"error": SICK["message"]}) + b"\n",
        "application/x-ndjson",
    ),
}


def reply(body: bytes, status: str = "200 OK", headers: str = "content-type: application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def refusal(status: int, headers: str = "content-type: application/json") -> bytes:
    return reply(server.compact({"error": SICK}), f"{status} Sick", headers)


def half(data: bytes) -> bytes:
    return data[: len(data) - len(data) // 4]


def healthy(wire: Wire, streamed: bool) -> list[Step]:
    if not streamed:
        return [server.whole(wire.message)]
    whole, begun = wire.stream(wire.events), wire.open(wire.begun)
    return [begun, WAIT, whole.removeprefix(begun)]


def faults(wire: Wire, streamed: bool) -> dict[str, list[Step]]:
    """Everything that can go wrong with an answer. If it has no end, the client has to end it."""
    body = server.compact(wire.message)
    packed, kind = gzip.compress(body), "application/json"
    # In one piece with the answer: what comes later may come after the next request was sent, and then
    # no client can tell it from the answer.
    *begun_well, end = healthy(wire, streamed)
    assert isinstance(end, bytes)
    if streamed:
        packed, kind = gzip.compress(b"".join(wire.events)), wire.content_type
    everywhere: dict[str, list[Step]] = {
        **{f"{status}": [refusal(status)] for status in (400, 429, 500, 502, 503, 529)},
        "429 with Retry-After": [refusal(429, "retry-after-ms: 100\r\nretry-after: 1")],
        "reset before headers": [RESET],
        "silence": [],
        "garbage": [bytes(range(256)), CLOSE],
        "HTML": [reply(b"<html>Please log in.</html>", headers="content-type: text/html")],
        "truncated gzip": [reply(half(packed), headers=f"content-encoding: gzip\r\ncontent-type: {kind}")],
        "surplus": [*begun_well, end + server.whole(wire.message)],
    }
    if not streamed:
        return everywhere | {
            "invalid JSON": [reply(half(body))],
            "reset inside JSON": [half(server.whole(wire.message)), WAIT, RESET],
        }
    begun = wire.open(wire.begun)
    return everywhere | {
        "invalid JSON in a stream": [wire.stream([*wire.begun, half(wire.events[2]) + b"\n\n"])],
        "error frame": [wire.stream([*wire.begun, wire.error])],
        "reset inside a stream": [begun, WAIT, RESET],
        "closed inside a stream": [begun, WAIT, CLOSE],
        "end without finish": [wire.stream(wire.begun)],
        "silence inside a stream": [begun],
    }


REFUSALS: list[tuple[str, list[Step]]] = [("401", [refusal(401)])] * 5
"""Of the key; more often than other faults, because they happen at one host only."""


LISTINGS = (b"/api/ps", b"/api/show")
"""What a waiting call asks an Ollama. These hosts do not say what they have loaded."""


# -- the hosts -----------------------------------------------------------------------------------------------


class Host:
    """One host: what it answers next, and what it has seen."""

    def __init__(
        self, seed: str, share: float, *, flaps_after: int | None = None, refuses_key: bool = False
    ) -> None:
        self.answered = 0
        self.faults: Counter[str] = Counter()
        self.calls: set[int] = set()
        self.flaps = 0
        self.links: set[Link] = set()
        self.quiet = asyncio.Event()
        self.quiet.set()
        self._chance = Random(seed)
        self._share = share
        self._flaps_after = flaps_after
        self._healthy = {key: healthy(WIRES[key[0]], key[1]) for key in _KINDS}
        self._faults = {
            key: [*faults(WIRES[key[0]], key[1]).items(), *(REFUSALS if refuses_key else ())]
            for key in _KINDS
        }
        self._to_come: dict[tuple[bytes, bool], list[tuple[str, list[Step]]]] = {key: [] for key in _KINDS}
        self._coming_back: asyncio.Task[None] | None = None
        self._place = socket.socket()  # while the host is away, no other process may get its port
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port: int = self._place.getsockname()[1]

    async def listen(self) -> None:
        """Accept connections from now on."""
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: Link(self), "127.0.0.1", self.port, backlog=server.BACKLOG, reuse_port=True
        )

    def next_answer(self, head: bytes, body: bytes) -> Iterator[Step]:
        if server.path(head) in LISTINGS:
            return iter([refusal(404)])
        found = _CALL.search(body)
        assert found, "a request that belongs to no call"
        self.calls.add(int(found[1]))
        kind = (server.path(head), server.wants_stream(head, body))
        fault, steps = None, self._healthy[kind]
        if self._chance.random() < self._share:
            to_come = self._to_come[kind]
            if not to_come:
                to_come += self._chance.sample(self._faults[kind], len(self._faults[kind]))
            fault, steps = to_come.pop()
            self.faults[fault] += 1
        self.answered += fault is None
        if self._flaps_after and not (self.answered + self.faults.total()) % self._flaps_after:
            self._go_away()
        return (step.replace(_MARK, found[1]) if isinstance(step, bytes) else step for step in steps)

    def _go_away(self) -> None:
        self.flaps += 1
        self._listener.close()
        for link in self.links:
            link.retire()
        self._coming_back = asyncio.create_task(self._come_back())

    async def _come_back(self) -> None:
        await asyncio.sleep(DOWN)
        await self.listen()

    async def end(self) -> dict[str, Any]:
        """What it has seen, after the last connection has ended. Then its port is free for others."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.quiet.wait(), LEFT)
        if self._coming_back is not None:
            await self._coming_back
        self._listener.close()
        self._place.close()
        await asyncio.sleep(0)  # who was accepted last is known only now
        left = [*self.links]
        for link in left:
            link.transport.abort()
        await asyncio.sleep(0)
        return {
            "answered": self.answered,
            "faults": self.faults,
            "flaps": self.flaps,
            "calls": sorted(self.calls),
            "open": len(left),
        }


_KINDS = [(path, streamed) for path in WIRES for streamed in (False, True)]


class Link(PlaysSteps):
    """One connection to a host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._busy = self._retired = False

    def retire(self) -> None:
        """Close the connection, after its current answer."""
        self._retired = True
        if not self._busy:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._host.links.add(self)
        self._host.quiet.clear()

    def connection_lost(self, error: Exception | None) -> None:
        self._host.links.discard(self)
        if not self._host.links:
            self._host.quiet.set()

    def answer(self, head: bytes, body: bytes) -> None:
        self._busy = True
        self.play(self._host.next_answer(head, body))

    def played(self) -> None:
        """The connection is free for the next request."""
        self._busy = False
        if self._retired:
            self.transport.close()


async def main(seed: str, share: float, flaps_after: int) -> None:
    hosts = {
        "steady": Host(f"{seed} steady", share),
        "flapping": Host(f"{seed} flapping", share, flaps_after=flaps_after),
        "small": Host(f"{seed} small", share),
        "keyed": Host(f"{seed} keyed", share, refuses_key=True),
    }
    for host in hosts.values():
        await host.listen()
    print(json.dumps({name: f"http://127.0.0.1:{host.port}" for name, host in hosts.items()}), flush=True)
    await server.until_stdin_ends()
    print(json.dumps({name: await host.end() for name, host in hosts.items()}), flush=True)


if __name__ == "__main__":
    server.allow_files(4096)
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
