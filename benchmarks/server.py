"""A server with fixed answers, so cheap that it does not change the measurement. It has its own process.

It has three paths, streamed and not, and reads only a request's length, its path and whether it streams. A
streamed answer is 66 events (for OpenAI's path), each a chunk of HTTP. So the time that is measured is the
client's own.

    python benchmarks/server.py PACE ...     prints its addresses as JSON, serves until stdin ends

It has one address for each PACE. With 0, a stream is one write. Otherwise each event is a write of its own,
PACE seconds after the one before, as a model writes its words: a client that keeps up reads them one by one.

The other servers here (`sick.py`, `provider.py`, `in_flight.py`) use its parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

CHUNKS = 66  # data events before [DONE]: the role, 63 of content, the finish, the usage
WORDS = CHUNKS - 3
PIECES = [f" word{i}" for i in range(WORDS)]
TEXT = "".join(PIECES)
MODEL = "bench-model"
USAGE = {"prompt_tokens": 12, "completion_tokens": WORDS, "total_tokens": 12 + WORDS}
TOKENS = {"input_tokens": 12, "output_tokens": WORDS}


# -- the answers ---------------------------------------------------------------------------------------------


def openai_chat(text: str = TEXT) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_767_225_600,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def openai_events(pieces: Sequence[str] = PIECES) -> list[bytes]:
    base = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_767_225_600,
        "model": MODEL,
    }

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        return base | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in pieces)]
    chunks += [chunk({}, "stop"), base | {"choices": [], "usage": USAGE}]
    return [*(b"data: " + compact(item) + b"\n\n" for item in chunks), b"data: [DONE]\n\n"]


def anthropic_message(text: str = TEXT) -> dict[str, Any]:
    return {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": "end_turn" if text else None,
        "stop_sequence": None,
        "usage": TOKENS,
    }


def anthropic_events(pieces: Sequence[str] = PIECES) -> list[bytes]:
    def event(kind: str, **data: Any) -> bytes:
        return f"event: {kind}\ndata: ".encode() + compact({"type": kind, **data}) + b"\n\n"

    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        event("message_start", message=anthropic_message("")),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
            for piece in pieces
        ),
        event("content_block_stop", index=0),
        event("message_delta", delta=stop, usage={"output_tokens": WORDS}),
        event("message_stop"),
    ]


def ollama_line(text: str, *, done: bool) -> dict[str, Any]:
    line = {
        "model": MODEL,
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text},
    }
    if not done:
        return line | {"done": False}
    counts = {
        "total_duration": 5_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": 12,
        "eval_count": WORDS,
    }
    return line | {"done": True, "done_reason": "stop"} | counts


def ollama_events(pieces: Sequence[str] = PIECES) -> list[bytes]:
    lines = [*(ollama_line(piece, done=False) for piece in pieces), ollama_line("", done=True)]
    return [compact(line) + b"\n" for line in lines]


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def whole(value: object) -> bytes:
    body = compact(value)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def streamed(events: Iterable[bytes], content_type: str = "text/event-stream") -> bytes:
    return b"".join(chunked(events, content_type))


def chunked(events: Iterable[bytes], content_type: str = "text/event-stream") -> list[bytes]:
    """A write for each event. The head comes with the first, the end with the last."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    first, *others = (b"%x\r\n%s\r\n" % (len(item), item) for item in events)
    writes = [head + first, *others]
    writes[-1] += b"0\r\n\r\n"
    return writes


WRITES = {  # (path, streamed) → the answer, in the writes that bring it one by one
    (b"/v1/chat/completions", False): [whole(openai_chat())],
    (b"/v1/chat/completions", True): chunked(openai_events()),
    (b"/v1/messages", False): [whole(anthropic_message())],
    (b"/v1/messages", True): chunked(anthropic_events()),
    (b"/api/chat", False): [whole(ollama_line(TEXT, done=True))],
    (b"/api/chat", True): chunked(ollama_events(), "application/x-ndjson"),
}
ANSWERS = {asked: b"".join(writes) for asked, writes in WRITES.items()}
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
BACKLOG = 4096
"""Connections that may wait to be accepted."""


# -- the server ----------------------------------------------------------------------------------------------


class FixedAnswers(asyncio.Protocol):
    """One connection: keep-alive, one request after the other. `pace`: seconds between a stream's events."""

    def __init__(self, pace: float = 0) -> None:
        self.pace = pace

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            _, _, rest = head.partition(b"content-length:")
            total = end + 4 + int(rest.partition(b"\r\n")[0] or 0)
            if len(self.buffer) < total:
                return
            body, self.buffer = self.buffer[end + 4 : total], self.buffer[total:]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        """Answer one request; `head` is in lower case."""
        asked = path(head), wants_stream(head, body)
        if self.pace and asked in WRITES:
            self.write_next(iter(WRITES[asked]))
        else:
            self.transport.write(ANSWERS.get(asked, NOT_FOUND))

    def write_next(self, writes: Iterator[bytes]) -> None:
        """Write one event, and the next one later; to a client that went away, nothing."""
        if (event := next(writes, None)) is not None and not self.transport.is_closing():
            self.transport.write(event)
            asyncio.get_running_loop().call_later(self.pace, self.write_next, writes)


def path(head: bytes) -> bytes:
    return head.split(b" ", 2)[1]


def wants_stream(head: bytes, body: bytes) -> bool:
    """Ollama streams unless `stream` is false."""
    compacted = body.replace(b" ", b"")
    return b'"stream":true' in compacted or (b"/api/chat" in head and b'"stream":false' not in compacted)


async def until_stdin_ends() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def watch() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()


async def main(paces: Sequence[float]) -> None:
    loop = asyncio.get_running_loop()
    addresses = []
    for pace in paces:
        made = functools.partial(FixedAnswers, pace)
        listener = await loop.create_server(made, "127.0.0.1", 0, backlog=BACKLOG)
        addresses.append("http://{}:{}".format(*listener.sockets[0].getsockname()))
    print(json.dumps(addresses), flush=True)
    await until_stdin_ends()


@contextlib.contextmanager
def process(script: str = __file__, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server's process, for as long as the block runs; closing its stdin ends it earlier."""
    command = [sys.executable, str(Path(script).resolve()), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdin
        try:
            yield started
        finally:
            started.stdin.close()
            started.wait(10)


@contextlib.contextmanager
def running(*paces: float) -> Iterator[dict[float, str]]:
    """The server's address for each pace, for as long as the block runs."""
    with process(__file__, *map(str, paces)) as started:
        assert started.stdout
        yield dict(zip(paces, json.loads(started.stdout.readline()), strict=True))


def allow_files(count: int) -> None:
    """Let this process have so many files open, or say why it cannot."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    except (ValueError, OSError) as error:
        sys.exit(f"{count} open files are needed, {soft} allowed, {hard} at most ({error}): raise ulimit -Hn")


if __name__ == "__main__":
    asyncio.run(main([float(pace) for pace in sys.argv[1:]]))
