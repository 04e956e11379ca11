"""Watches the whole run: no error, event, log line or ledger row shows its call's key or prompt.

Installed once by tests/conftest.py. The secrets are taken from the call itself: the keys that its backends
have used, and the texts of its messages. A key may be nowhere, a prompt only in an error's `body`.
"""

from __future__ import annotations

import copy
import logging
import pickle
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from ccroute import errors
from ccroute.accounting import MemoryLedger
from ccroute.backends.credentials import Credentials
from ccroute.observe import Event
from ccroute.runtime import base
from ccroute.runtime.drive import AsyncDrive, Drive

SHORTEST_KEY = 12  # characters
SHORTEST_PROMPT = 24  # without whitespace, as in flow/attempt/redact.py
MOST = 64  # characters of a long prompt's start and end


class Watch:
    """The secrets of the current test, and what showed them."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.keys: set[str] = set()
        self.prompts: set[str] = set()

    def begin(self) -> None:
        self.found, self.keys, self.prompts = [], set(), set()

    def asked(self, request: Any) -> None:
        """Remember what a call asks."""
        for message in request.messages:
            content = message.get("content")
            parts = [content] if isinstance(content, str) else [p.get("text") for p in content or ()]
            for text in parts:
                if isinstance(text, str) and len("".join(text.split())) >= SHORTEST_PROMPT:
                    self.prompts |= {text} if len(text) <= MOST else {text[:MOST], text[-MOST:]}

    def look(self, where: str, shown: str, *, prompts: bool = True) -> None:
        """Note where a secret is shown."""
        for secret in (*self.keys, *(self.prompts if prompts else ())):
            if secret in shown:
                self.found.append(f"{where} shows a {'key' if secret in self.keys else 'prompt'}")

    def look_at_error(self, error: BaseException) -> None:
        """An error in its own words, its causes', as a traceback and pickled."""
        seen: BaseException | None = error
        while seen is not None:
            if isinstance(seen, errors.CcrouteError):
                name, bare = type(seen).__name__, copy.copy(seen)
                vars(bare).pop("partial", None)  # the answer so far is for the caller to see
                self.look(f"the body of a {name}", str(getattr(seen, "body", None)), prompts=False)
                self.look(name, f"{seen} {seen!r} {vars(bare)}")
                self.look(f"a pickled {name}", pickle.dumps(bare).decode("latin-1"))
            seen = seen.__cause__ or seen.__context__
        last = traceback.TracebackException.from_exception(error)
        self.look("a traceback", "".join(last.format_exception_only()))


class LogWatch(logging.Handler):
    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.DEBUG)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("ccroute"):
            self._watch.look("a log line", record.getMessage())


@contextmanager
def watching() -> Iterator[Watch]:
    """Wrap what leaves a router, for as long as the run lasts."""
    watch = Watch()
    lock = threading.Lock()
    patch = pytest.MonkeyPatch()
    checked_key = Credentials._checked_key
    begin, telling, record = (
        base.CallContext,
        base.safe_listener,
        MemoryLedger.record,
    )
    advance, aadvance = Drive.advance, AsyncDrive.advance

    def key(self: Credentials, given: Any) -> str:
        value = checked_key(self, given)
        if value and len(value) >= SHORTEST_KEY:
            with lock:
                watch.keys = watch.keys | {value}
        return value

    def log(plan: Any, *others: Any) -> Any:
        watch.asked(plan.request)
        return begin(plan, *others)

    def tell(*listeners: Any) -> Any:
        def event(event: Event) -> None:
            watch.look(type(event).__name__, f"{event} {event!r}")

        return telling(event, *listeners)

    def row(self: MemoryLedger, row: Any) -> None:
        watch.look("a ledger row", repr(row))
        record(self, row)

    def sync(self: Any) -> Any:
        try:
            return advance(self)
        except BaseException as error:
            watch.look_at_error(error)
            raise

    async def asynchronous(self: Any) -> Any:
        try:
            return await aadvance(self)
        except BaseException as error:
            watch.look_at_error(error)
            raise

    ear = LogWatch(watch)
    replaced: Mapping[tuple[Any, str], Any] = {
        (Credentials, "_checked_key"): key,
        (base, "CallContext"): log,
        (base, "safe_listener"): tell,
        (MemoryLedger, "record"): row,
        (Drive, "advance"): sync,
        (AsyncDrive, "advance"): asynchronous,
    }
    for (owner, name), value in replaced.items():
        patch.setattr(owner, name, value)
    logging.getLogger().addHandler(ear)
    try:
        yield watch
    finally:
        logging.getLogger().removeHandler(ear)
        patch.undo()
