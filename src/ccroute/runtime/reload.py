"""Reloads of one router: on demand, or when one of its files was written.

Knows threads and their lock; must not know what files hold, nor what a router does with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ccroute.errors import ConfigError
from ccroute.flow import RouterState
from ccroute.types.locks import lock_tries

if TYPE_CHECKING:
    from ccroute.config.sources import Sources
    from ccroute.observe import Reloaded

Use: TypeAlias = Callable[[Mapping[str, Any]], tuple[RouterState, RouterState]]
"""Lets a router decide by keyword arguments. Returns its state before and after."""


class Reloader:
    """Reads a router's sources again. One reload at a time; calls never wait for one.

    sources: what the router was configured from; None if by hand.
    watched: whether a call looks for changes first.
    fixed:   the arguments that a reload does not take over.
    """

    def __init__(self, fixed: Mapping[str, object]) -> None:
        self.sources: Sources | None = None
        self.watched = False
        self._fixed = fixed
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold it."""
        self._lock = threading.RLock()  # a signal's handler may reload during a reload
        self._begun = 0
        self._tries = lock_tries(self._lock)

    def reload(self, use: Use, sources: Sources | None) -> None:
        """Read `sources` from now on; None: those it has, again. Raises `ConfigError`; then nothing has
        changed."""
        with self._lock:
            found = sources or self.sources
            if found is None:
                raise ConfigError(
                    "reload: this router was not made by Router.from_config, so there is nothing to read "
                    "again: give it a source, such as a path"
                )
            event, after = self._read(use, found)
        after.emit(event)

    def reload_if_changed(self, use: Use, now: float) -> None:
        """Reload if a file was written. Neither waits nor raises: a call is on its way. `now`: monotonic."""
        sources, done = self.sources, None
        if sources is None or not sources.is_due(now):
            return
        for _ in self._tries():
            try:
                if sources is self.sources and sources.have_changed():
                    done = self._read(use, sources)
            except Exception as error:  # the call is served by what was there before
                sources.failed(error)
            finally:
                self._lock.release()
            break
        if done is not None:
            event, after = done
            after.emit(event)

    def _read(self, use: Use, sources: Sources) -> tuple[Reloaded, RouterState]:
        from ccroute.runtime.changes import changes, warn_of_fixed  # only routers that are reloaded need it

        turn = self._begun = self._begun + 1
        options = sources.read()
        before, after = use(options)
        if turn != self._begun:  # a signal's handler reloaded meanwhile, perhaps what is newer
            _, after = self._read(use, sources)
        self.sources = sources
        warn_of_fixed(self._fixed, options)
        return changes(before, after), after
