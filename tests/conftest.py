"""What all tests share: the public API in both modes by one parameter, and real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.support import loops
from tests.support.llama import llama_server, llama_tools_server  # noqa: F401 - fixtures
from tests.support.ollama_real import ollama_server  # noqa: F401 - a fixture
from tests.support.watch import Watch, watching

from ccroute import AsyncStream, Chunk, Completion, Router, Stream

# The same examples each time: a run gives the same result twice; benchmarks/fuzz.py looks further.
settings.register_profile(
    "ccroute",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ccroute")


@pytest.fixture(scope="session")
def whole_run() -> Iterator[Watch]:
    """Whatever leaves a router in any test is looked at."""
    with watching() as watch:
        yield watch


@pytest.fixture(autouse=True)
def no_secret_is_shown(whole_run: Watch) -> Iterator[None]:
    """No error, event, log line or ledger row of a test shows a key or a prompt of its calls."""
    whole_run.begin()
    yield
    assert not whole_run.found


@dataclass
class StreamResult:
    """What came out of a stream, also when it broke."""

    chunks: list[Chunk] = field(default_factory=list)
    stream: Stream | AsyncStream | None = None
    error: Exception | None = None

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def completion(self) -> Completion:
        assert self.stream is not None
        return self.stream.completion


class Caller:
    """The public API, blocking or on a loop of its own for each call."""

    def __init__(self, mode: loops.Mode) -> None:
        self.mode = mode

    def run(self, function: Callable[..., Any], *args: object) -> Any:
        """The result of an async function, on a loop of its own."""
        return loops.run(self.mode, function, *args)

    def complete(self, router: Router, *args: Any, **options: Any) -> Completion:
        if self.mode == "sync":
            return router.complete(*args, **options)
        completion: Completion = self.run(partial(router.acomplete, *args, **options))
        return completion

    def stream(self, router: Router, *args: Any, **options: Any) -> StreamResult:
        """All chunks until the end, or until it breaks (then `error` is set)."""
        heard = StreamResult()
        try:
            if self.mode == "sync":
                heard.stream = router.stream(*args, **options)
                for chunk in heard.stream:
                    heard.chunks.append(chunk)
            else:
                self.run(self._astream, heard, router, args, options)
        except Exception as error:
            heard.error = error
        return heard

    async def _astream(self, heard: StreamResult, router: Router, args: Any, options: Any) -> None:
        heard.stream = router.astream(*args, **options)
        async for chunk in heard.stream:
            heard.chunks.append(chunk)


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Caller:
    """Runs a test once with `complete`/`stream` and once with `acomplete`/`astream`, on asyncio."""
    return Caller(request.param)
