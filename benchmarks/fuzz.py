"""Mutated bytes into all code that reads a server's answer: a completion or a typed error, nothing else.

A case is a recorded answer that was flipped, cut, spliced, …, and re-chunked, all by its seed. Each is read
as a stream, as a whole answer and as an error's body. Any other exception ends the run with exit code 1, and
prints seed and bytes. So does a case that takes longer than `PATIENCE`.

    python benchmarks/fuzz.py [BYTES]     of each wire; default one million
"""

from __future__ import annotations

import itertools
import re
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType, ModuleType

from ccroute.errors import CcrouteError
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
        ended(lambda: read_stream(wire, case.pieces)),
        ended(lambda: wire.decode(case.data)),
        type(wire.error(status, {}, case.data)).__name__,
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


# -- the long run --------------------------------------------------------------------------------------------


def too_long(signum: int, frame: FrameType | None) -> None:
    raise RuntimeError(f"a case took more than {PATIENCE} s")


def peak_rss() -> float:
    """MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def run(wire: str, limit: int) -> bool:
    """Read `limit` bytes of a wire's cases and print how they ended; False if one ended wrong."""
    start, runs, size = time.perf_counter(), 0, 0
    found: Counter[str] = Counter()
    for case in cases(wire):
        if size >= limit:
            break
        signal.alarm(PATIENCE)
        try:
            as_stream, as_answer, as_error = outcomes(case)
        except Exception:
            traceback.print_exc()
            print(f"seed {case.seed!r}, pieces {case.pieces!r}", file=sys.stderr)
            return False
        finally:
            signal.alarm(0)
        found.update((f"stream {as_stream}", f"answer {as_answer}", f"error {as_error}"))
        runs, size = runs + 1, size + len(case.data)
    seconds = time.perf_counter() - start
    print(f"{wire}: {runs} runs, {size} bytes, {seconds:.1f} s, peak RSS {peak_rss():.0f} MB")
    for outcome, count in sorted(found.items()):
        print(f"  {outcome:32}{count:8}")
    return True


def main() -> int:
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    signal.signal(signal.SIGALRM, too_long)
    return 0 if all(run(wire, limit) for wire in WIRES) else 1


if __name__ == "__main__":
    sys.exit(main())
