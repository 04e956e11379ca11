"""The servers of the fault matrix: what they say when they are well, and a server that plays its faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from tests.support import anthropic_like, ollama, openai_like
from tests.support.scripted import Reply, Request, ScriptedServer, answer, stream
from tests.support.steps import Step
from tests.test_canaries import KEY

from ccroute import AnthropicBackend, Backend, Model, OllamaBackend, OpenAIBackend, Price

HEALTHY = "Hello there."
"""What every server says when it is well."""
SO_FAR = "so far"


class Wire(NamedTuple):
    """A kind of server: who speaks to it, how it answers, and how its streams begin.

    `opening` holds no content yet, `begun` holds `SO_FAR` and no end.
    """

    backend: Callable[..., Backend]
    whole: Mapping[str, Any]
    events: Sequence[bytes]
    opening: Sequence[bytes]
    begun: Sequence[bytes]
    content_type: str = "text/event-stream"

    def answer(self, request: Request) -> Iterable[Step]:
        return self.stream(*self.events) if request.json.get("stream") else answer(json=self.whole)

    def stream(self, *pieces: bytes | Step, **options: Any) -> stream:
        return stream(pieces, content_type=self.content_type, **options)


def _lines(*pieces: str, done: bool = True) -> list[bytes]:
    return [*map(ollama.line, ollama.chat_lines(ollama.ScriptedReply(pieces, done=done), "m"))]


OPENAI = Wire(
    OpenAIBackend,
    openai_like.chat(),
    openai_like.chat_sse(),
    opening=openai_like.chat_sse([], usage=None, finish=None, done=False),
    begun=openai_like.chat_sse([SO_FAR], usage=None, finish=None, done=False),
)
ANTHROPIC = Wire(
    AnthropicBackend,
    anthropic_like.message(),
    anthropic_like.message_sse(),
    opening=anthropic_like.message_sse([SO_FAR])[:3],
    begun=anthropic_like.message_sse([SO_FAR])[:4],
)
OLLAMA = Wire(
    OllamaBackend,
    ollama.merged(ollama.chat_lines(ollama.ScriptedReply(), "m")),
    _lines("Hello", " there", "."),
    opening=_lines("", done=False),
    begun=_lines(SO_FAR, done=False),
    content_type="application/x-ndjson",
)

each_wire = pytest.mark.parametrize(
    "wire", [OPENAI, ANTHROPIC, OLLAMA], ids=["openai", "anthropic", "ollama"]
)


class FaultyServer(ScriptedServer):
    """Plays its faults in turn, the last one for ever, until it is healthy; without a fault it always is.

    `cure` is called when it recovers.
    """

    def __init__(
        self, *faults: Reply, wire: Wire, cure: Callable[[FaultyServer], None] | None = None, **options: Any
    ) -> None:
        super().__init__(self._play, **options)
        self.wire = wire
        self._faults = [*faults]
        self._cure = cure
        self._busy = 0

    @property
    def is_healthy(self) -> bool:
        return not self._faults and self._cure is None

    def recover(self) -> None:
        self._faults.clear()
        if self._cure is not None:
            self._cure(self)

    def _play(self, request: Request) -> Iterator[Step]:
        with self._changed:
            self._busy += 1
            faults = self._faults
            reply = (faults.pop(0) if len(faults) > 1 else faults[0]) if faults else self.wire.answer(request)
        try:
            yield from reply
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def wait_quiet(self, kept: int) -> bool:
        """Until it says nothing any more, and no more than so many connections are kept."""
        return self._wait(lambda: not self._busy and len(self._links) <= kept, 1.0)


def backend(name: str, server: FaultyServer | str, **options: Any) -> Backend:
    """A backend with a canary for a key, whose models cost a dollar a million tokens, one call at a time."""
    wire, url = (OPENAI, server) if isinstance(server, str) else (server.wire, server.url)
    models = dict.fromkeys(("m", "n"), Model(price=Price(1, 1)))
    return wire.backend(name, base_url=url, api_key=KEY, max_concurrency=1, models=models, **options)
