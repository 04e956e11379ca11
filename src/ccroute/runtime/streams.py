"""What `stream` and `astream` return: a call paused between two chunks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Generic, Self

from ccroute.flow import CallContext
from ccroute.runtime.drive import AsyncDrive, Drive
from ccroute.types import Chunk, Completion, Route, Usage
from ccroute.types.results import Parsed
from ccroute.types.route import new_usage
from ccroute.types.signatures import completed_live


class _StreamState(Generic[Parsed]):
    """The part that both streams share. `id`, `model` and `route` are known from the first chunk on."""

    _over = True  # `__del__` reads this, and an interrupt may come before `__init__` has set it

    def __init__(
        self, drive: Drive[Completion[Any]] | AsyncDrive[Completion[Any]], context: CallContext
    ) -> None:
        self._end = drive.close
        self._outcome = drive
        self._context = context
        self._ready: Iterator[Chunk] = iter(())  # the chunks that were received and not yet given
        self._partial: Completion[Any] | None = None
        self._over = False

    @property
    def id(self) -> str:
        """The answer's id."""
        return self._context.answer_id

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._context.model

    @property
    @completed_live
    def route(self) -> Route:
        """Where the call went and why."""
        return self._context.route

    @property
    @completed_live
    def usage(self) -> Usage:
        """The usage so far, at least the prompt's tokens. An estimate until the server reports it."""
        if self._outcome.result is not None:
            return self._outcome.result.usage
        context = self._context
        known = new_usage(estimated=True) if context.known_answer is None else context.known_answer.usage
        if known.prompt_tokens:
            return known
        plan, count = context.plan, context.state.count_tokens
        return known.model_copy(update={"input": plan.prompt.estimated(count, plan.request)})

    @property
    @completed_live
    def completion(self) -> Completion[Parsed]:
        """The whole answer. Raises `RuntimeError` before the end of the stream."""
        if self._outcome.result is None:
            advice = "it stopped before its end" if self._over else "read all its chunks first"
            raise RuntimeError(f"the stream has not ended: {advice}; stream.partial has the answer so far")
        return self._outcome.result

    @property
    @completed_live
    def partial(self) -> Completion[Parsed]:
        """The answer so far, with its price; the whole answer after the end. Its usage is estimated where the
        server had not yet said it.

        Also there after the stream was closed, interrupted or broken.
        """
        if self._outcome.result is not None:
            return self._outcome.result
        if self._partial is not None:
            return self._partial
        so_far: Completion[Any] | None = self._context.so_far()
        if so_far is None:
            so_far = Completion[Any](usage=self.usage, route=self.route)
        if self._over:
            self._partial = so_far
        return so_far

    def __repr__(self) -> str:
        if self._outcome.result is not None:
            state = "ended"
        elif self._over:
            state = "stopped before its end, see .partial"
        else:
            state = "running" if self._context.known_answer is not None else "nothing received yet"
        where = f" {self.route}" if self.route.deployment else ""
        return f"<{type(self).__name__}{where}: {state}>"

    def _close(self) -> None:
        self._over = True
        self._ready = iter(())
        self._end()

    def __del__(self) -> None:
        # A finaliser may run in the middle of any code, so nothing here waits.
        if not self._over:
            with contextlib.suppress(Exception):
                self._close()


class Stream(_StreamState[Parsed]):
    """Iterates over the chunks of an answer. Also a context manager: leaving it early ends the call.

    Before the first content, a failure leads to a fallback and is not seen here. After it, a failure raises
    `StreamInterruptedError` with the answer so far.
    """

    def __init__(self, drive: Drive[Completion[Any]], context: CallContext) -> None:
        super().__init__(drive, context)
        self._drive = drive

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        while (chunk := next(self._ready, None)) is None:
            if self._over:
                raise StopIteration
            try:
                chunks = self._drive.advance()
            except BaseException:
                self._over = self._drive.over
                raise
            if chunks is None:
                self._over = True
            else:
                self._ready = iter(chunks)
        return chunk

    def close(self) -> None:
        """End the call: the connection is closed at once, so the server stops generating."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_StreamState[Parsed]):
    """Like `Stream`, with `async for` and `async with`."""

    def __init__(self, drive: AsyncDrive[Completion[Any]], context: CallContext) -> None:
        super().__init__(drive, context)
        self._drive = drive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while (chunk := next(self._ready, None)) is None:
            if self._over:
                raise StopAsyncIteration
            try:
                chunks = await self._drive.advance()
            except BaseException:
                self._over = self._drive.over
                raise
            if chunks is None:
                self._over = True
            else:
                self._ready = iter(chunks)
        return chunk

    async def aclose(self) -> None:
        """End the call: the connection is closed at once, so the server stops generating."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
