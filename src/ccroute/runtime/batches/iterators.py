"""What `complete_many` and `acomplete_many` return: an iterator of the answers to many requests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import ClassVar, Generic, Self, cast

from ccroute.errors import CcrouteError
from ccroute.http.streams.blocking import run
from ccroute.runtime.base import RouterBase
from ccroute.runtime.batches.calls import BatchCalls
from ccroute.runtime.batches.requests import BatchRequests, Requests
from ccroute.types import Completion
from ccroute.types.progress import Progress
from ccroute.types.results import Parsed


class _BatchState(Generic[Parsed]):
    """The part that both share."""

    _blocking: ClassVar[bool]

    def __init__(
        self,
        router: RouterBase,
        requests: Requests,
        options: Mapping[str, object],
        concurrency: int,
        on_progress: Callable[[Progress], object] | None,
    ) -> None:
        router._check_open()
        if on_progress is not None and not callable(on_progress):
            raise TypeError(f"on_progress must be callable, not {type(on_progress).__name__}")
        unbegun = BatchRequests(router, requests, options, concurrency)
        self._calls = BatchCalls(router, unbegun, on_progress, blocking=self._blocking)

    def __repr__(self) -> str:
        calls = self._calls
        of = "" if calls.total is None else f" of {calls.total}"
        state = "over" if calls.is_over else "running" if calls.done else "nothing received yet"
        return f"<{type(self).__name__}: {calls.done}{of} answers, {calls.failed} failed, {state}>"

    def __del__(self) -> None:
        # A finaliser may run in the middle of any code, so nothing here waits. An interrupt may have come
        # before `__init__` had made the calls.
        with contextlib.suppress(Exception):
            self._calls.close()


class Batch(_BatchState[Parsed]):
    """Iterates over the answers to many requests, as they come: a `Completion`, or the error of that request.

    `.index` of an answer is the place of its request, from 0. Also a context manager: leaving it early ends
    the calls that run. Nothing is sent before the first answer is asked for.
    """

    _blocking = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Completion[Parsed] | CcrouteError:
        answer = run(self._calls.next())
        if answer is None:
            raise StopIteration
        return cast("Completion[Parsed] | CcrouteError", answer)

    def close(self) -> None:
        """End the calls that run: their connections are closed at once. The others do not begin."""
        self._calls.close()
        self._calls.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncBatch(_BatchState[Parsed]):
    """Like `Batch`, with `async for` and `async with`. Its calls run on the loop that reads it."""

    _blocking = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Completion[Parsed] | CcrouteError:
        answer = await self._calls.next()
        if answer is None:
            raise StopAsyncIteration
        return cast("Completion[Parsed] | CcrouteError", answer)

    async def aclose(self) -> None:
        """End the calls that run: their connections are closed at once. The others do not begin."""
        self._calls.close()
        await self._calls.ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
