"""The event loop that runs the caller: asyncio's, trio's, or none."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import trio

_TASKS = set[Any]()
"""Running tasks: asyncio itself keeps only weak references to them."""


def current_loop() -> Any:
    """The running asyncio loop, the token of the running trio loop, or None. It can be referred to weakly."""
    # trio first: in a notebook, and as a guest of asyncio, it runs while an asyncio loop runs, too.
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
            return trio.lowlevel.current_trio_token()
        except (RuntimeError, AttributeError):  # it does not run, or another thread is just importing it
            pass
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.get_running_loop()
    except (RuntimeError, AttributeError):
        return None


def is_asyncio(loop: Any) -> bool:
    """Whether this is a loop of asyncio, and not of trio."""
    return hasattr(loop, "call_soon_threadsafe")


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
    if is_asyncio(loop):
        closed: bool = loop.is_closed()
        return closed
    try:
        loop.run_sync_soon(int, idempotent=True)  # trio has no other way to ask
    except RuntimeError:
        return True
    return False


async def sockets_closed(loop: Any) -> None:
    """Wait for closed sockets: a transport of asyncio closes its own in the loop's next iteration."""
    if is_asyncio(loop):
        import asyncio

        await asyncio.sleep(0)


def create_task(loop: Any, function: Callable[[], Awaitable[None]]) -> None:
    """Await `function` in a task of its own. Only on the running loop."""
    if is_asyncio(loop):
        task = loop.create_task(function())
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)
    else:
        import trio

        with contextlib.suppress(RuntimeError):  # trio ends, and starts no more tasks
            trio.lowlevel.spawn_system_task(_await_quietly, function)


async def call_at_end(loop: Any, method: Callable[[], Awaitable[None]]) -> object:
    """Await `method` when the running loop ends. If the result is dropped earlier, only asyncio awaits it.

    `asyncio.run` closes the loop's async generators before it closes the loop, so one of them waits for that.
    trio warns of such a generator, but it cancels its system tasks when it ends.
    """
    if is_asyncio(loop):
        parked = _call_when_closed(method)
        await anext(parked)
        return parked
    return _TaskAtEnd(loop, method)


async def _call_when_closed(method: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await method()


class _TaskAtEnd:
    """A task of trio that awaits `method` when trio ends. It ends without that when this is dropped.

    It does not keep the method's object alive.
    """

    def __init__(self, loop: Any, method: Callable[[], Awaitable[None]]) -> None:
        import trio

        self._loop = weakref.ref(loop)
        self._scope = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._wait, self._scope, weakref.WeakMethod(method))

    def __del__(self) -> None:
        loop = self._loop()
        if loop is not None:
            call_soon(loop, self._scope.cancel)

    @staticmethod
    async def _wait(
        scope: trio.CancelScope, method: weakref.WeakMethod[Callable[[], Awaitable[None]]]
    ) -> None:
        import trio

        try:
            with scope:
                await trio.sleep_forever()
        except trio.Cancelled:
            call = method()
            if call is not None:
                with trio.CancelScope(shield=True):
                    await _await_quietly(call)
            raise


async def _await_quietly(function: Callable[[], Awaitable[None]]) -> None:
    """Await `function`. An error would end the whole run of trio."""
    with contextlib.suppress(Exception):
        await function()
