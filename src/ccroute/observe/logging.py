"""The built-in listener: it writes events as lines to the standard logger `ccroute`."""

from __future__ import annotations

import contextlib
import logging
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccroute.observe.events import Event, Listener

logger = logging.getLogger("ccroute")


def log_event(event: Event) -> None:
    """Write one event as one line."""
    if logger.isEnabledFor(event.level):
        from ccroute.observe.events import CallEvent  # loaded already: this is an event

        if isinstance(event, CallEvent):
            whose = "" if event.agent is None else f" of agent {event.agent}"
            logger.log(event.level, "%s (call %s%s)", event, event.call, whose)
        else:
            logger.log(event.level, "%s", event)


def safe_listener(*listeners: Listener) -> Listener:
    """One listener that calls all of them. What one of them raises is logged, and the call goes on."""

    def emit(event: Event) -> None:
        for listener in listeners:
            try:
                listener(event)
            except Exception as error:  # a listener must not break a call
                log_raised("on_event", error, event)

    return emit


def log_raised(name: str, error: Exception, given: object) -> None:
    """Log that a user's function raised for what it was given."""
    with contextlib.suppress(Exception):  # of a handler of the log
        logger.error("%s raised %s for %s", name, kind_and_place(error), type(given).__name__)


def kind_and_place(error: Exception) -> str:
    """The error's class and line, but not its words: they may be a prompt's."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {where.filename}:{where.lineno}"
