"""`Router`, the public entry point, with its sync and async methods. Must not decide anything itself."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from ccroute.accounting import BaseLedger, Ledger, LedgerRow, MemoryLedger, PriceBook, open_ledger
from ccroute.accounting.ledger import moment
from ccroute.accounting.prices import PriceLike
from ccroute.accounting.tokens import TokenCounter, estimate
from ccroute.backends import Backend
from ccroute.display import card, table
from ccroute.errors import ConfigError, RouterClosedError, UnknownModelError
from ccroute.flow import CallContext, Flow, RouterState, call, discover
from ccroute.observe.logging import log_event, safe_listener
from ccroute.routing import (
    Agent,
    AliasTable,
    Health,
    Load,
    RefusedParameters,
    RetryBudget,
    make_plan,
    with_agent,
)
from ccroute.routing.aliases import Target
from ccroute.routing.arguments import Faults, make_tables
from ccroute.routing.prices import is_known, price_of, warn_of_unused
from ccroute.runtime.clock import SystemClock
from ccroute.runtime.drive import AsyncDrive, Drive
from ccroute.runtime.limiter import Limiters
from ccroute.runtime.streams import AsyncStream, Stream
from ccroute.types import Completion, ModelInfo, RetryPolicy, Timeout
from ccroute.types.checked import build_request
from ccroute.types.request import CallOptions, Form, MostOptions, takes_call_options
from ccroute.types.results import Parsed
from ccroute.types.signatures import explains

if TYPE_CHECKING:
    from ccroute.accounting import Report
    from ccroute.accounting.report import GroupBy
    from ccroute.http.connections import Transport
    from ccroute.observe import Listener
    from ccroute.types import RouterStats


class Router:
    """Decides which model answers an agent's request, gets the answer, and records its cost.

    One router serves threads, tasks and several event loops at once. It opens nothing before its
    first call. Use it as a context manager, or `close()` it, to close its idle connections.

    backends:       the servers to ask; their names are unique.
    aliases:        model name → deployments, as an `AliasTable` or a mapping.
    agents:         agent name → `Agent`, or the name of its model.
    groups:         defaults for agents that name the group.
    fallbacks:      model → models to try in order if it fails; "*" for all other models. An agent's own come
                    first; a call's `fallback=` replaces both.
    default_model:  used if neither the call nor its agent names a model.
    agent_override: whether the agent's configured model wins over `model=`.
    unknown_agent:  "error", or "default" to treat an unknown agent as none.
    retry, timeout: the defaults of every call.
    prices:         model → `Price` or "free", for models without a price in their backend's `models`.
    ledger:         where attempts are recorded: the path of an SQLite file, or a ledger of your own; None
                    keeps them in memory.
    baseline:       the model that savings are measured against.
    drop_params:    drop parameters that a backend does not support (listed in `route.reasons`) instead
                    of refusing the call.
    health:         "on": send no calls to deployments that fail, for a while; "off": always send them.
    max_queue:      how many calls may wait for one host that has `max_concurrency`.
    trust_env:      use the proxies that the environment names (HTTPS_PROXY, NO_PROXY, …).
    count_tokens:   counts a prompt's tokens; None estimates them from its length.
    on_event:       called with each `ccroute.observe` event, in any thread; an error that it raises is
                    only logged.
    transport:      an httpx transport to send through instead of ccroute's own connections, or "httpx" for
                    httpx's own.

    Raises `ConfigError` with every fault of the arguments.
    """

    @explains("Router")
    def __init__(
        self,
        backends: Iterable[Backend],
        aliases: AliasTable | Mapping[str, Target] | None = None,
        agents: Mapping[str, Agent | str] | None = None,
        *,
        default_model: str | None = None,
        agent_override: bool = True,
        unknown_agent: Literal["error", "default"] = "error",
        retry: RetryPolicy | None = None,
        timeout: Timeout | float | None = None,
        prices: PriceBook | Mapping[str, PriceLike] | None = None,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        baseline: str | None = None,
        groups: Mapping[str, Agent] | None = None,
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        drop_params: bool = False,
        health: Literal["on", "off"] = "on",
        max_queue: int = 1000,
        trust_env: bool = False,
        count_tokens: TokenCounter | None = None,
        on_event: Listener | None = None,
        transport: Transport | None = None,
    ) -> None:
        faults = Faults(
            retry=(retry, RetryPolicy | None, "a RetryPolicy"),
            timeout=(timeout, Timeout | int | float | None, "a number of seconds or a Timeout"),
            max_queue=(max_queue, int, "a number of calls"),
            on_event=(on_event, Callable | None, "a function of one event"),
            default_model=(default_model, str | None, "a model's name"),
            baseline=(baseline, str | None, "a model's name"),
        )
        if health not in ("on", "off"):
            faults.append(f'health= is "on" or "off", not {health!r}')
        if bool(inspect.iscoroutinefunction(on_event)):  # bool: its type is checked at run time only
            faults.append("on_event= takes a plain function, because a coroutine would not be awaited")
        if isinstance(max_queue, int) and max_queue < 0:
            faults.append(f"max_queue= is a number of calls, 0 or more, not {max_queue}")
        memory: tuple[BaseLedger, bool] = MemoryLedger(), True
        store, self._made_ledger = faults.collect(lambda: open_ledger(ledger), memory)
        self._tables = make_tables(
            faults,
            backends,
            aliases,
            agents,
            groups,
            prices,
            fallbacks=fallbacks,
            default_model=default_model,
            agent_override=agent_override,
            unknown_agent=unknown_agent,
        )
        warn_of_unused(self._tables, baseline)
        self._baseline = baseline
        if baseline is not None and not is_known(self._tables, baseline):
            raise ConfigError(
                f'baseline: unknown model "{baseline}"; it needs an alias, a deployment or a price'
            )
        from ccroute.http.connections import Connections  # imports asyncio

        clock = SystemClock()
        emit = safe_listener(log_event) if on_event is None else safe_listener(log_event, on_event)
        self._connections = Connections(transport, trust_env=trust_env)
        self._limiters = Limiters(self._tables.backends.values(), max_queue)
        self._state = RouterState(
            retry=retry or RetryPolicy(),
            timeout=Timeout(total=timeout) if isinstance(timeout, int | float) else timeout or Timeout(),
            clock=clock,
            drop_params=drop_params,
            health=Health(clock, emit, on=health == "on"),
            retry_budget=RetryBudget(clock.monotonic),
            load=Load(clock.monotonic, has_latency="latency" in self._tables.aliases.strategies),
            ledger=store,
            emit=emit,
            refused_parameters=RefusedParameters(),
            limited_hosts=self._limiters.by_origin,
            count_tokens=count_tokens or estimate,
        )
        self._process = os.getpid()
        self._closed = False

    @classmethod
    def from_config(
        cls,
        source: str
        | os.PathLike[str]
        | Mapping[str, Any]
        | Sequence[str | os.PathLike[str] | Mapping[str, Any]],
        *,
        env: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Self:
        """A router from one or several files, or from mappings of the same shape.

        Secrets written as `${NAME}` come from `env` (None: `os.environ`, read now). `overrides`
        are this class's keywords: `backends` and `aliases` are merged over the file's, the others replace
        the file's. Raises `ConfigError` with every fault and its place.
        """
        from ccroute.config import load  # not every program reads files

        return cls(**load(source, os.environ if env is None else env, overrides))

    @takes_call_options
    def complete(
        self,
        prompt: str | None = None,
        *,
        response_format: Form[Parsed] = None,
        **options: Unpack[MostOptions],
    ) -> Completion[Parsed]:
        """One answer to `prompt` (a user message) or to `messages=`.

        Blocks; works in any thread, also in one that runs an event loop. Raises the errors of
        `ccroute.errors`; a routing error's `.attempts` lists what was tried. With a class as
        `response_format`, the answer's `.parsed` is an instance of it.
        """
        context = self._begin(prompt, response_format, options)
        drive = Drive(call(context, stream=False), self._connections, self._limiters)
        drive.advance()
        return drive.finished()

    @takes_call_options
    async def acomplete(
        self,
        prompt: str | None = None,
        *,
        response_format: Form[Parsed] = None,
        **options: Unpack[MostOptions],
    ) -> Completion[Parsed]:
        """`complete`, on the running event loop. A cancelled call closes its connection at once."""
        context = self._begin(prompt, response_format, options)
        drive = AsyncDrive(call(context, stream=False), self._connections, self._limiters)
        await drive.advance()
        return drive.finished()

    @takes_call_options
    def stream(
        self,
        prompt: str | None = None,
        *,
        response_format: Form[Parsed] = None,
        **options: Unpack[MostOptions],
    ) -> Stream[Parsed]:
        """The answer while it is generated: an iterator of `Chunk` and a context manager.

        An error of the request is raised here; nothing is sent before the first chunk is read.
        `.completion` is the whole answer after the end.
        """
        context = self._begin(prompt, response_format, options)
        drive = Drive(call(context, stream=True), self._connections, self._limiters)
        return Stream(drive, context)

    @takes_call_options
    def astream(
        self,
        prompt: str | None = None,
        *,
        response_format: Form[Parsed] = None,
        **options: Unpack[MostOptions],
    ) -> AsyncStream[Parsed]:
        """`stream` for `async for` and `async with`; not a coroutine itself."""
        context = self._begin(prompt, response_format, options)
        drive = AsyncDrive(call(context, stream=True), self._connections, self._limiters)
        return AsyncStream(drive, context)

    @takes_call_options
    def count_tokens(self, prompt: str | None = None, **options: Unpack[CallOptions]) -> int:
        """How many tokens this prompt has, with the tools on offer, before any model is asked. No network.

        Uses the router's `count_tokens=`, or estimates the number from the length. Takes a call's keywords.
        Raises a call's errors for a wrong request, an unknown model or an unknown agent.
        """
        return self._state.count_tokens(with_agent(build_request(prompt, options), self._tables))

    def models(self) -> list[ModelInfo]:
        """Every name a caller may ask for: aliases, patterns and described deployments. No network."""
        return self._tables.models()

    def discover(self) -> list[ModelInfo]:
        """The models that the backends list now. Generates nothing.

        A backend that does not answer is named in a warning on the logger `ccroute` and left out.
        """
        drive = Drive(self._discovery(), self._connections, self._limiters)
        drive.advance()
        return drive.finished()

    async def adiscover(self) -> list[ModelInfo]:
        """`discover`, on the running event loop."""
        drive = AsyncDrive(self._discovery(), self._connections, self._limiters)
        await drive.advance()
        return drive.finished()

    def _discovery(self) -> Flow[list[ModelInfo]]:
        self._check_open()
        return discover(self._tables.backends.values(), self._state.timeout, self._state.clock)

    def report(
        self,
        by: GroupBy | Sequence[GroupBy] = "agent",
        since: date | str | None = None,
        until: date | str | None = None,
        baseline: str | None = None,
    ) -> Report:
        """The cost and savings of attempts started in [since, until), grouped by `by`.

        `since` and `until` are datetimes, dates, or ISO 8601 texts such as "2026-01-31"; without a zone they
        are UTC. `baseline` is the model that savings are measured against; None: the router's own.
        """
        if self._process != os.getpid():
            self._after_fork()
        from ccroute.accounting.report import Report, group_by  # only where somebody asks

        name = baseline if baseline is not None else self._baseline
        if baseline is not None and not is_known(self._tables, baseline):
            raise UnknownModelError(baseline, hint="a baseline needs an alias, a deployment or a price")
        price = None if name is None else price_of(self._tables, name)
        parts = group_by(by)
        tiers = price is not None and bool(price.above)
        sums = self._state.ledger.tallies(moment("since", since), moment("until", until), parts, tiers=tiers)
        return Report(sums, parts, baseline=price)

    def rows(self, since: date | str | None = None, until: date | str | None = None) -> list[LedgerRow]:
        """The ledger's rows of attempts started in [since, until), oldest first; both as in `report`.

        The ledger in memory keeps the last 100,000 rows; older ones are only in the reports' sums. Raises
        `ConfigError` if your own ledger has no `rows()`.
        """
        return self._state.ledger.rows(moment("since", since), moment("until", until))

    def stats(self) -> RouterStats:
        """The router's state now: calls in flight, slots, queues, connections, and which deployments and keys
        get no calls, and why. Plain data; no network."""
        if self._process != os.getpid():
            self._after_fork()
        from ccroute.runtime.stats import router_stats  # only where somebody asks

        return router_stats(self._tables.backends, self._state, self._limiters, self._connections)

    def close(self) -> None:
        """Close idle connections, and the ledger if the router opened it. Later calls raise
        `RouterClosedError`; running calls finish."""
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
        backends, aliases, agents = self._tables.backends, self._tables.aliases, self._tables.agents
        return f"Router(backends={list(backends)}, aliases={len(aliases)}, agents={len(agents)})"

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        yield "backends", list(self._tables.backends)
        yield "aliases", len(self._tables.aliases)
        yield "agents", len(self._tables.agents)

    def _repr_html_(self) -> str:
        tables = self._tables
        counts = [("aliases", len(tables.aliases)), ("agents", len(tables.agents))]
        rows = [
            (name, type(backend).__name__, str(backend.origin), "yes" if backend.local else "no")
            for name, backend in tables.backends.items()
        ]
        return card("Router", counts, table=table(("backend", "kind", "address", "local"), rows))

    def _end(self) -> None:
        """No more calls. Close the ledger if the router made it; the caller closes its own."""
        self._closed = True
        if self._process != os.getpid():
            self._after_fork()
        ledger = self._state.ledger
        (ledger.close if self._made_ledger else ledger.settle)()

    def _check_open(self) -> None:
        if self._closed:
            raise RouterClosedError("this router was closed: make a new one")
        if self._process != os.getpid():
            self._after_fork()

    def _after_fork(self) -> None:
        """Reset locks, slots and connections in a forked child: they belong to the parent."""
        self._process = os.getpid()
        self._state.health.after_fork()
        self._state.retry_budget.after_fork()
        self._state.load.after_fork()
        self._limiters.after_fork()
        self._connections.after_fork()
        self._state.ledger.after_fork()

    def _begin(self, prompt: str | None, form: Form[Any], options: Mapping[str, object]) -> CallContext:
        """Check the request and make its plan, before anything is sent."""
        self._check_open()
        if form is not None:
            options = {**options, "response_format": form}
        state, request = self._state, build_request(prompt, options)
        plan = make_plan(request, self._tables, state.clock.random, state.count_tokens, load=state.load)
        return CallContext(plan, state, self._process)
