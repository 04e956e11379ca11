"""What a router holds, from its making over its reloads to its end, and how a notebook shows it. Must not
decide anything itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from ccroute.display import card, table
from ccroute.errors import RouterClosedError
from ccroute.flow import CallContext, Flow, RouterState, new_state
from ccroute.observe.logging import log_event, safe_listener
from ccroute.routing import make_plan
from ccroute.routing.arguments import Configuration, checked
from ccroute.runtime.clock import SystemClock
from ccroute.runtime.limiter import Limiter
from ccroute.runtime.reload import Reloader
from ccroute.types import ModelInfo
from ccroute.types.arguments.checked import build_request
from ccroute.types.request import Form

if TYPE_CHECKING:
    from ccroute.accounting.tokens import TokenCounter
    from ccroute.http.connections import Transport
    from ccroute.observe import Listener
    from ccroute.routing.scheduling import Scheduler
    from ccroute.runtime.batches.calls import BatchCalls


class RouterBase:
    """The part of a router that its methods share.

    configuration: what a reload replaces; the others stay. `ledger` is `Router`'s argument as it was given.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        ledger: object,
        trust_env: bool,
        count_tokens: TokenCounter | None,
        on_event: Listener | None,
        transport: Transport | None,
        scheduler: Scheduler | None,
    ) -> None:
        from ccroute.http.connections import Connections  # imports asyncio

        listeners = [log_event] if on_event is None else [log_event, on_event]
        self._connections = Connections(transport, trust_env=trust_env)
        self._limiter = Limiter(scheduler)
        self._state = new_state(
            SystemClock(),
            safe_listener(*listeners),
            configuration.ledger,
            self._limiter,
            count_tokens,
        )
        """The configuration, which a reload replaces, and what was learned. Each call reads it once."""
        self._reloader = Reloader({"ledger": ledger, "trust_env": trust_env})
        self._batches: set[BatchCalls] = set()  # those that run
        self._process = os.getpid()
        self._closed = False
        self._made_ledger = configuration.made_ledger
        self._apply(configuration)

    def close(self) -> None:
        """Close idle connections, and the ledger if the router opened it. Later calls raise
        `RouterClosedError`; running calls finish, but for those of a batch, which end."""
        self._end()
        self._connections.close()

    async def aclose(self) -> None:
        """`close`, and wait until this loop's connections are gone."""
        self._end()
        await self._connections.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Router({', '.join(f'{name}={value}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        tables = self._state.tables
        yield "backends", list(tables.backends)
        yield "aliases", len(tables.aliases)
        yield "agents", len(tables.agents)

    def _repr_html_(self) -> str:
        tables = self._state.tables
        counts = [("aliases", len(tables.aliases)), ("agents", len(tables.agents))]
        rows = [
            (name, type(backend).__name__, str(backend.origin), "yes" if backend.local else "no")
            for name, backend in tables.backends.items()
        ]
        return card("Router", counts, table=table(("backend", "kind", "address", "local"), rows))

    def _use(self, given: Mapping[str, Any]) -> tuple[RouterState, RouterState]:
        """Decide by these arguments from the next call on; the state before and after.

        Raises `ConfigError` before anything has changed.
        """
        return self._apply(checked(**given))

    def _apply(self, configuration: Configuration) -> tuple[RouterState, RouterState]:
        backends = configuration.tables.backends.values()
        before, after = self._state, self._state.configured(configuration)
        for backend in backends:
            known = before.tables.backends.get(backend.name)
            if known is not None and known.identity == backend.identity:
                backend.learn_from(known)
        self._limiter.configure(backends, configuration.max_queue)
        self._state = after
        self._connections.keep_only({backend.endpoint for backend in backends})
        return before, after

    def _begin(self, prompt: str | None, form: Form[Any], options: Mapping[str, object]) -> CallContext:
        """Check the request and make its plan, before anything is sent."""
        self._check_open()
        if self._reloader.watched:
            self._reload_if_changed()
        if form is not None:
            options = {**options, "response_format": form}
        state, request = self._state, build_request(prompt, options)
        plan = make_plan(request, state.tables, state.clock.random, state.count_tokens, load=state.load)
        return CallContext(plan, state, self._process)

    def _reload_if_changed(self) -> None:
        """For a router that is watched."""
        self._reloader.reload_if_changed(self._use, self._state.clock.monotonic())

    def _discovery(self) -> Flow[list[ModelInfo]]:
        from ccroute.flow.listings import discover  # loaded at its first use

        self._check_open()
        state = self._state
        return discover(state.tables.backends.values(), state.timeout, state.clock)

    def _check_open(self) -> None:
        if self._closed:
            raise RouterClosedError("this router was closed: make a new one")
        if self._process != os.getpid():  # as `_own_state`, without its frame: each call comes here
            self._after_fork()

    def _own_state(self) -> RouterState:
        """The router's state, without what belongs to the parent of a forked child."""
        if self._process != os.getpid():
            self._after_fork()
        return self._state

    def _end(self) -> None:
        """No more calls. Close the ledger if the router made it; the caller closes its own."""
        self._closed = True
        ledger = self._own_state().ledger
        for batch in self._batches.copy():
            batch.fail(RouterClosedError("this router was closed: the rest of the batch was not asked"))
            batch.join()
        (ledger.close if self._made_ledger else ledger.settle)()

    def _after_fork(self) -> None:
        """Renew locks, slots and connections in a forked child, and forget batches: they belong to the
        parent."""
        self._process = os.getpid()
        self._batches = set()
        self._reloader.after_fork()
        self._state.after_fork()
        self._limiter.after_fork()
        self._connections.after_fork()
