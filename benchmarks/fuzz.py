"""Mutated bytes into all code that reads a server's answer: a completion or a typed error, nothing else.

A case is a recorded answer that was flipped, cut, spliced, …, and re-chunked, all by its seed. Each is read
as a stream, as a whole answer and as an error's body. The cases of HTTP come over connections that are kept,
in pieces and in one piece: both must end alike, and the next answer on the connection must be the right one.
Any other end, and any other exception, ends the run with exit code 1, and prints seed and bytes. So does a
case that takes longer than `PATIENCE`.

    python benchmarks/fuzz.py [BYTES]     of each wire and of HTTP; default one million
"""

from __future__ import annotations

import itertools
import re
import resource
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from ccroute.errors import CcrouteError
from ccroute.http.exchange import ConnectionExchange
from ccroute.http.message import Endpoint, Failure, PreparedRequest, Reply, TransportError
from ccroute.http.origin import Origin
from ccroute.http.pool import Pool
from ccroute.http.streams.blocking import run as run_blocking
from ccroute.types import Completion
from ccroute.wire import anthropic, ollama, openai

FIXTURES = Path(__file__).parents[1] / "tests" / "wire" / "fixtures"
WIRES: dict[str, ModuleType] = {"anthropic": anthropic, "ollama": ollama, "openai": openai}
STATUSES = (400, 401, 404, 413, 422, 429, 500, 503, 529)
PATIENCE = 10  # seconds a case may take; a usual one takes less than a millisecond
WORDS = (
    *(b"null", b"true", b"{}", b"[]", b'""', b"-1", b"0.5", b"1e999", b"NaN", b"9" * 5000, b"[" * 300),
    *(b"\n", b"\r", b"\r\n\r\n", b"\xff", b"\xef\xbb\xbf", b"\x00", b"\\ud83d", b'\\"', b"<html>"),
    *(b"data: ", b"data: [DONE]\n\n", b"event: error\n", b"error: x\n\n", b": ping\n\n", b'{"error":"x"}\n'),
    *(b'"error":{"type":"overloaded_error"},', b'"index":-1,', b'"choices":[],', b'"usage":null,'),
)
_VALUE = re.compile(rb':\s*("(?:[^"\\]|\\.)*"|[-+.\w]+|\[\]|\{\})')


def recorded(wire: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(FIXTURES.glob(f"{wire}_*"))]


CORPUS = {wire: recorded(wire) for wire in WIRES}
ANYTHING = [answer for answers in CORPUS.values() for answer in answers]


# -- the mutations: each takes bytes and chance, and returns bytes -------------------------------------------


def span(data: bytes, chance: Random) -> slice:
    """A place in `data`, mostly short."""
    start = chance.randint(0, len(data))
    return slice(start, start + min(chance.choice((1, 2, 8, 64, 512)), len(data) - start))


def flip(data: bytes, chance: Random) -> bytes:
    flipped = bytearray(data)
    if flipped:
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def delete(data: bytes, chance: Random) -> bytes:
    gone = span(data, chance)
    return data[: gone.start] + data[gone.stop :]


def insert(data: bytes, chance: Random) -> bytes:
    place = chance.randint(0, len(data))
    return (
        data[:place] + (chance.choice(WORDS) if chance.random() < 0.7 else chance.randbytes(3)) + data[place:]
    )


def duplicate(data: bytes, chance: Random) -> bytes:
    twice = span(data, chance)
    return data[: twice.stop] + data[twice] * chance.choice((1, 1, 1, 20)) + data[twice.stop :]


def splice(data: bytes, chance: Random) -> bytes:
    other = chance.choice(ANYTHING)
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def truncate(data: bytes, chance: Random) -> bytes:
    return data[: chance.randint(0, len(data))]


def swap(data: bytes, chance: Random) -> bytes:
    """Another value for a key: text that stays JSON is read further than other text."""
    values = list(_VALUE.finditer(data))
    if not values:
        return data
    start, end = chance.choice(values).span(1)
    return data[:start] + chance.choice((*WORDS[:9], chance.choice(values)[1])) + data[end:]


def shuffle(data: bytes, chance: Random) -> bytes:
    """Two lines change places."""
    lines = data.split(b"\n")
    i, j = (chance.randrange(len(lines)) for _ in range(2))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(flip, delete, insert, duplicate, splice, truncate, shuffle),
    *(swap, swap, swap),
)


# -- a case, and its outcome ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """Mutated bytes, in pieces as from the network."""

    seed: str
    wire: str
    pieces: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


def cases(wire: str) -> Iterator[Case]:
    """The cases of a wire, the same ones each time; endless."""
    for number in itertools.count():
        seed = f"{wire} {number}"
        chance = Random(seed)
        data = chance.choice(CORPUS[wire])
        for _ in range(chance.choice((1, 1, 2, 4))):
            data = chance.choice(MUTATIONS)(data, chance)
        yield Case(seed, wire, rechunked(data, chance))


def rechunked(data: bytes, chance: Random) -> tuple[bytes, ...]:
    size = chance.choice((1, 7, 64, len(data) + 1))
    ends = sorted({0, len(data), *(chance.randint(0, len(data)) for _ in range(len(data) // size))})
    return tuple(data[start:end] for start, end in itertools.pairwise(ends))


def outcomes(case: Case) -> tuple[str, str, str]:
    """How the case ends as a stream, as a whole answer and as an error's body; raises any other exception."""
    wire = WIRES[case.wire]
    status = STATUSES[len(case.data) % len(STATUSES)]
    return (
        f"stream {ended(lambda: read_stream(wire, case.pieces))}",
        f"answer {ended(lambda: wire.decode(case.data))}",
        f"error {type(wire.error(status, {}, case.data)).__name__}",
    )


def ended(read: Callable[[], Completion]) -> str:
    try:
        return type(read()).__name__
    except CcrouteError as error:
        return type(error).__name__


def read_stream(wire: ModuleType, pieces: tuple[bytes, ...]) -> Completion:
    """The answer of a stream; the part before an error must be there, too."""
    decoder = wire.Decoder()
    try:
        for piece in pieces:
            decoder.feed(piece)
        completion: Completion = decoder.finish()
    except CcrouteError:
        assert isinstance(decoder.partial(), Completion)
        raise
    return completion


# -- HTTP: a case is what a server sends, and how its connection ends ---------------------------------------

HTTP_WORDS = (
    *(b"\n", b"\r", b"\r\n", b" ", b"\0", b"\xff", b"x: y\r\n" * 201, b"0\r\n", b"0\r\n\r\n"),
    *(b"Content-Length: 5\r\n", b"content-length:0\r\n", b"Transfer-Encoding: chunked\r\n", b"a: b\r\n"),
    *(b"transfer-encoding: gzip\r\n", b"Connection: close\r\n", b"connection: keep-alive\r\n", b"ffffffff"),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switch\r\n\r\n", b"HTTP/1.0 204 No\r\n\r\n"),
)
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
ENDS = ("silence", "silence", "close", "reset")


def insert_framing(data: bytes, chance: Random) -> bytes:
    place = chance.randint(0, len(data))
    return data[:place] + chance.choice(HTTP_WORDS) + data[place:]


def flood(data: bytes, chance: Random) -> bytes:
    """Into the head: how much of trailers is read depends on the pieces."""
    return data[:10] + b"y" * 70_000 + data[10:] if chance.random() < 0.1 else data


def drop(data: bytes, chance: Random) -> bytes:
    return b""


HTTP_MUTATIONS = (
    *(flip, delete, duplicate, truncate, shuffle, insert_framing, insert_framing, insert_framing) * 5,
    *(flood, drop),
)


@dataclass(frozen=True, slots=True)
class HttpCase(Case):
    """`end` follows the answer. Not `fresh`: the connection was kept after another answer."""

    end: str
    fresh: bool


def http_cases() -> Iterator[HttpCase]:
    """The cases of HTTP, the same ones each time; endless."""
    for number in itertools.count():
        seed = f"http {number}"
        chance = Random(seed)
        data = framed(chance.choice(ANYTHING)[: chance.choice((0, 30, 30, 300))], chance)
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            data = chance.choice(HTTP_MUTATIONS)(data, chance)
        pieces = rechunked(data, chance)
        yield HttpCase(seed, "http", pieces, chance.choice(ENDS), chance.random() < 0.5)


def framed(body: bytes, chance: Random) -> bytes:
    """A body as an answer, in one of the ways that HTTP knows."""
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * chance.choice((0, 0, 0, 1, 3))
    status = chance.choice((b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 503 Busy"))
    headers = b"\r\nDate: today\r\n" + chance.choice((b"", b"connection: close\r\n", b"server: a b\r\n"))
    match chance.choice(("length", "length", "chunks", "chunks", "close")):
        case "length":
            framing, content = b"content-length: %d\r\n" % len(body), body
        case "chunks":
            framing, content = b"Transfer-Encoding: chunked\r\n", b""
            for piece in rechunked(body, chance):
                content += b"%x\r\n%s\r\n" % (len(piece), piece)
            content += b"0\r\n" + chance.choice((b"", b"", b"x-checksum: 7\r\n")) + b"\r\n"
        case _:
            framing, content = b"", body
    return (
        interim + status + headers + framing + b"\r\n" + content + chance.choice((b"", b"", b"", GOOD, b"x"))
    )


class FakeNetwork:
    """Connections without sockets. The first one plays the case, and all of them are good besides."""

    def __init__(self, case: HttpCase) -> None:
        self.opened = 0
        self._answers = iter([case.pieces] if case.fresh else [(GOOD,), case.pieces])
        self._end = case.end

    async def resolve(self, host: str, port: int, until: float) -> list[Any]:
        return [None]

    async def open(self, address: Any, until: float) -> FakeStream:
        self.opened += 1
        return FakeStream(self._answers, self._end) if self.opened == 1 else FakeStream(iter(()), "silence")


class FakeStream:
    """Answers each request with the next pieces; ends after the last of `answers`."""

    writing = False

    def __init__(self, answers: Iterator[tuple[bytes, ...]], end: str) -> None:
        self._answers = [*answers]
        self._end = end
        self._pieces = deque[bytes]()

    def write(self, data: bytes) -> None:
        self._pieces.extend(self._answers.pop(0) if self._answers else (GOOD,))

    async def read(self, until: float) -> bytes:
        if self._pieces:
            return self._pieces.popleft()
        if self._end == "close":
            return b""
        raise TransportError("broken" if self._end == "reset" else "timeout", self._end)

    async def start_tls(self, context: object, host: str, until: float) -> None:
        raise NotImplementedError

    def is_quiet(self) -> bool:
        return not self._pieces and (bool(self._answers) or self._end == "silence")

    def close(self) -> None:
        self._pieces.clear()


class FakeConnections:
    """What an exchange needs of `Connections`."""

    def __init__(self, network: FakeNetwork) -> None:
        self._pool = Pool(network, set, closed=False)

    async def pool(self, *, blocking: bool) -> Pool:
        return self._pool

    def find_proxy(self, endpoint: Endpoint) -> None:
        return None

    def tls_context(self, endpoint: Endpoint) -> None:
        return None


class Exchanged(NamedTuple):
    """An answer: its head, its body, why it was not complete, and whether its connection had the next one."""

    head: Reply | Failure
    body: bytes = b""
    failure: Failure | None = None
    kept: bool = False


async def exchange(connections: Any) -> Exchanged:
    forever = float("inf")
    request = PreparedRequest(Endpoint(Origin("http", "127.0.0.1", 80)), "POST", "/", (), b"{}")
    exchange = ConnectionExchange(connections, request, None, forever, blocking=True)
    head, body = await exchange.send(), b""
    if isinstance(head, Failure):
        return Exchanged(head)
    while data := await exchange.read(forever):
        if isinstance(data, Failure):
            assert head.body is None
            return Exchanged(head, body, data)
        body += data
    assert head.body in (None, body)
    return Exchanged(head._replace(body=None), body)


def answered(case: HttpCase) -> Exchanged:
    """The case's answer. The answers before and after it must be the good ones."""
    network = FakeNetwork(case)
    connections = FakeConnections(network)

    def expect_good() -> None:
        good = run_blocking(exchange(connections))
        assert (good.body, good.failure) == (b"good", None), "an answer became part of another one"

    if not case.fresh:
        expect_good()
    found = run_blocking(exchange(connections))
    before = network.opened
    expect_good()
    return found._replace(kept=network.opened == before)


def http_outcomes(case: HttpCase) -> tuple[str]:
    """How the case ends in pieces, which is how it ends in one piece."""
    found, whole = answered(case), answered(replace(case, pieces=(case.data,) if case.data else ()))
    if found != whole:
        # A blank line after an answer is skipped, if it comes together with the answer.
        assert found == whole._replace(kept=False)
        assert case.data.endswith((b"\r", b"\n"))
        assert answered(replace(case, pieces=(case.data[:-1],))) == whole
    if isinstance(found.head, Failure):
        return (f"head {found.head.kind}",)
    ended = "complete" if found.failure is None else found.failure.kind
    return (f"body {ended}{', kept' * found.kept}{', sent again' * found.head.reconnected}",)


# -- the long run --------------------------------------------------------------------------------------------


def too_long(signum: int, frame: FrameType | None) -> None:
    raise RuntimeError(f"a case took more than {PATIENCE} s")


def peak_rss() -> float:
    """MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def run(name: str, cases: Iterator[Case], outcomes: Callable[[Any], Iterable[str]], limit: int) -> bool:
    """Read `limit` bytes of some cases and print how they ended; False if one ended wrong."""
    start, runs, size = time.perf_counter(), 0, 0
    found: Counter[str] = Counter()
    for case in cases:
        if size >= limit:
            break
        signal.alarm(PATIENCE)
        try:
            found.update(outcomes(case))
        except Exception:
            traceback.print_exc()
            print(f"seed {case.seed!r}, pieces {case.pieces!r}", file=sys.stderr)
            return False
        finally:
            signal.alarm(0)
        runs, size = runs + 1, size + len(case.data)
    seconds = time.perf_counter() - start
    print(f"{name}: {runs} runs, {size} bytes, {seconds:.1f} s, peak RSS {peak_rss():.0f} MB")
    for outcome, count in sorted(found.items()):
        print(f"  {outcome:32}{count:8}")
    return True


def main() -> int:
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    signal.signal(signal.SIGALRM, too_long)
    good = all(run(wire, cases(wire), outcomes, limit) for wire in WIRES)
    return 0 if good and run("http", http_cases(), http_outcomes, limit) else 1


if __name__ == "__main__":
    sys.exit(main())
