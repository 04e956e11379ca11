"""The event loop that runs the caller: asyncio's, trio's, or none."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

_TASKS = set[Any]()
"""Running tasks: asyncio itself keeps only weak references to them."""


def current_loop() -> Any:
    """The running asyncio loop, the token of the running trio loop, or None. It can be referred to weakly."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


def is_asyncio(loop: Any) -> bool:
    """Whether this is a loop of asyncio, and not of trio."""
    return isinstance(loop, asyncio.AbstractEventLoop)


def call_soon(loop: Any, function: Callable[..., object], *arguments: object) -> bool:
    """Let `loop` call a function soon, from any thread. False if the loop has ended. Never waits."""
    try:
        if is_asyncio(loop):
            loop.call_soon_threadsafe(function, *arguments)
        else:
            loop.run_sync_soon(function, *arguments)
    except RuntimeError:  # trio's RunFinishedError is one
        return False
    return True


def has_ended(loop: Any) -> bool:
    """Whether the loop runs nothing any more."""
    return loop.is_closed() if is_asyncio(loop) else not call_soon(loop, int)


def create_task(loop: Any, function: Callable[[], Awaitable[None]]) -> None:
    """Await `function` in a task of its own. Only on the running loop."""
    if is_asyncio(loop):
        task = loop.create_task(function())
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)
    else:
        import trio

        trio.lowlevel.spawn_system_task(function)


async def call_at_end(loop: Any, function: Callable[[], Awaitable[None]]) -> object:
    """Await `function` when the running loop ends. asyncio does it earlier if the result is dropped.

    `asyncio.run` closes the loop's async generators before it closes the loop, so one of them waits for that.
    trio warns of such a generator, but it cancels its system tasks when it ends.
    """
    if is_asyncio(loop):
        parked = _call_when_closed(function)
        await anext(parked)
        return parked
    import trio

    return trio.lowlevel.spawn_system_task(_call_when_cancelled, function)


async def _call_when_closed(function: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await function()


async def _call_when_cancelled(function: Callable[[], Awaitable[None]]) -> None:
    import trio

    try:
        await trio.sleep_forever()
    finally:
        await function()
