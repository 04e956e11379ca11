"""asyncio and trio under the same names, for tests that run on both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio

from ccroute.http.streams.event_loops import current_loop, is_asyncio

T = TypeVar("T")
Mode = Literal["sync", "async", "trio"]
"""How a test calls: blocking, on asyncio, or on trio."""
on_all_loops = pytest.mark.parametrize("caller", ["sync", "async", "trio"], indirect=True)
"""Runs a test on trio, too, and not only blocking and on asyncio."""
TRIOS_OWN = {"<init>", "<TrioToken.run_sync_soon task>", "ccroute.http.streams.event_loops._TaskAtEnd._wait"}
"""Tasks that are there until trio ends."""


def run(mode: Mode, function: Callable[..., Any], *args: object) -> Any:
    """The result of an async function, on a new loop."""
    return trio.run(function, *args) if mode == "trio" else asyncio.run(function(*args))


def on_asyncio() -> bool:
    """Whether the running loop is one of asyncio."""
    return is_asyncio(current_loop())


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """The result of a blocking function, from a thread."""
    if on_asyncio():
        return await asyncio.to_thread(function, *args)
    return await trio.to_thread.run_sync(function, *args)


async def at_once(function: Callable[[T], Awaitable[object]], arguments: Iterable[T]) -> None:
    """One task for each argument, until the last one has ended."""
    async with anyio.create_task_group() as group:
        for argument in arguments:
            group.start_soon(function, argument)


async def cancelled(
    function: Callable[[], Awaitable[object]], *, when: Callable[[], Awaitable[object]]
) -> None:
    """A task that is cancelled when `when` has returned. The cancellation is its end."""
    if on_asyncio():
        task = asyncio.ensure_future(function())
        await when()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(function)
            await when()
            scope.cancel()
    assert scope.cancelled_caught


async def nobody_else() -> None:
    """This task is the only one, after those that the loop makes to close generators which were dropped."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    if on_asyncio():
        assert asyncio.all_tasks() == {asyncio.current_task()}
    else:
        here = anyio.get_current_task()
        assert {task.name for task in anyio.get_running_tasks() if task != here} <= TRIOS_OWN


def threads() -> set[threading.Thread]:
    """All threads but those that trio keeps for its next use of a thread."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}
