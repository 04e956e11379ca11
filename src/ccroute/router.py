"""`Router`, the public entry point, with its sync and async methods. Must not decide anything itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from ccroute.accounting import Ledger, LedgerRow, PriceBook
from ccroute.accounting.ledger import moment
from ccroute.accounting.prices import PriceLike
from ccroute.accounting.tokens import TokenCounter
from ccroute.backends import Backend
from ccroute.flow import call
from ccroute.routing import Agent, AliasTable, Fallback, with_agent
from ccroute.routing.arguments import checked
from ccroute.routing.tables.aliases import Target
from ccroute.routing.tables.prices import baseline_price, price_of
from ccroute.runtime.base import RouterBase
from ccroute.runtime.drive import AsyncDrive, Drive
from ccroute.runtime.streams import AsyncStream, Stream
from ccroute.types import Completion, ModelInfo, Price, RetryPolicy, Timeout
from ccroute.types.arguments.checked import build_request
from ccroute.types.request import CallOptions, Form, MostOptions, takes_call_options
from ccroute.types.results import Parsed
from ccroute.types.signatures import explains

if TYPE_CHECKING:
    from ccroute.accounting import Report
    from ccroute.accounting.report import GroupBy
    from ccroute.config.reading.source import Given
    from ccroute.http.connections import Transport
    from ccroute.observe import Listener
    from ccroute.routing.scheduling import Scheduler
    from ccroute.runtime.batches import AsyncBatch, Batch
    from ccroute.types import BackendHealth, Budget, Progress, RoutePlan, RouterStats


class Router(RouterBase):
    """Decides which model answers an agent's request, gets the answer, and records its cost.

    One router serves threads, tasks and several event loops at once. It opens nothing before its
    first call. Use it as a context manager, or `close()` it, to close its idle connections.

    backends:       the servers to ask; their names are unique.
    aliases:        model name → deployments, as an `AliasTable` or a mapping.
    agents:         agent name → `Agent`, or the name of its model.
    groups:         defaults for agents that name the group.
    fallbacks:      model → models to try in order if it fails; "*" for all other models. A `Fallback` names
                    the failures that it is for. An agent's own come first; a call's `fallback=` replaces
                    both.
    default_model:  used if neither the call nor its agent names a model.
    agent_override: whether the agent's configured model wins over `model=`.
    unknown_agent:  "error", or "default" to treat an unknown agent as none.
    retry, timeout: the defaults of every call.
    prices:         model → `Price` or "free", for models without a price in their backend's `models`.
    budgets:        the most that calls may cost: of "router", "agent:x" (or just "x"), "group:x" (its agents
                    together), "backend:x", "session" (each on its own) or "session:x" → `Budget`.
    ledger:         where attempts are recorded: the path of an SQLite file, a postgresql:// address, or a
                    ledger of your own; None keeps them in memory.
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
    scheduler:      which waiting call gets a free slot of a host that has `max_concurrency`; None:
                    `LoadedFirst()`, which serves the callers of a loaded model first.

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
        budgets: Mapping[str, Budget] | None = None,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        baseline: str | None = None,
        groups: Mapping[str, Agent] | None = None,
        fallbacks: Mapping[str, Sequence[str | Fallback]] | None = None,
        drop_params: bool = False,
        health: Literal["on", "off"] = "on",
        max_queue: int = 1000,
        trust_env: bool = False,
        count_tokens: TokenCounter | None = None,
        on_event: Listener | None = None,
        transport: Transport | None = None,
        scheduler: Scheduler | None = None,
    ) -> None:
        configuration = checked(
            backends,
            aliases,
            agents,
            default_model=default_model,
            agent_override=agent_override,
            unknown_agent=unknown_agent,
            retry=retry,
            timeout=timeout,
            prices=prices,
            budgets=budgets,
            ledger=ledger,
            baseline=baseline,
            groups=groups,
            fallbacks=fallbacks,
            drop_params=drop_params,
            health=health,
            max_queue=max_queue,
            on_event=on_event,
            scheduler=scheduler,
        )
        super().__init__(
            configuration,
            ledger=ledger,
            trust_env=trust_env,
            count_tokens=count_tokens,
            on_event=on_event,
            transport=transport,
            scheduler=scheduler,
        )

    @classmethod
    def from_config(
        cls,
        source: Given | Sequence[Given],
        *,
        env: Mapping[str, str] | None = None,
        watch: bool = False,
        **overrides: Any,
    ) -> Self:
        """A router from one or several files, or from mappings of the same shape.

        Secrets written as `${NAME}` come from `env` (None: `os.environ`, read now). `overrides`
        are this class's keywords: `backends` and `aliases` are merged over the file's, the others replace
        the file's. Raises `ConfigError` with every fault and its place.

        watch: before a call, look whether a file was written, at most once a second; then read it again. A
               file with a fault is only logged.
        """
        from ccroute.config.sources import Sources  # not every program reads files

        sources = Sources(source, env, overrides)
        router = cls(**sources.read())
        router._reloader.sources, router._reloader.watched = sources, watch
        return router

    def reload(self, source: Given | Sequence[Given] | None = None) -> None:
        """Read the sources of `from_config` again, or from now on `source` in their place.

        Later calls use what they say; calls that run go on with what was there before. What is known of the
        health, the load and the rate limits of a deployment is kept if its backend stays the same. `ledger`,
        `transport`, `trust_env`, `on_event`, `count_tokens` and `scheduler` stay what they were. Raises
        `ConfigError` with every fault; then nothing has changed.
        """
        self._check_open()
        sources = None
        if source is not None:
            from ccroute.config.sources import Sources

            before = self._reloader.sources
            sources = Sources(source) if before is None else before.replaced_by(source)
        self._reloader.reload(self._use, sources)

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
        drive = Drive(call(context, stream=False), self._connections, self._limiter)
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
        drive = AsyncDrive(call(context, stream=False), self._connections, self._limiter)
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
        drive = Drive(call(context, stream=True), self._connections, self._limiter)
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
        drive = AsyncDrive(call(context, stream=True), self._connections, self._limiter)
        return AsyncStream(drive, context)

    @takes_call_options
    def complete_many(
        self,
        requests: Iterable[str | Mapping[str, object]],
        *,
        concurrency: int = 32,
        on_progress: Callable[[Progress], object] | None = None,
        response_format: Form[Parsed] = None,
        **options: Unpack[MostOptions],
    ) -> Batch[Parsed]:
        """The answers to many requests, as they come: each a `Completion`, or the error of that request. Its
        `.index` is the request's place.

        A request is a prompt, or a mapping of a call's keywords, `prompt` among them; the keywords given here
        are for all that do not name their own. Requests begin by priority, and in an order that lets hosts
        load each model once. A call's time starts when it begins. The iterator is a context manager, too.

        concurrency: calls at a time at each host without `max_concurrency`.
        on_progress: called with a `Progress` before each answer is given; an error it raises is only logged.

        Raises `TypeError` for an unknown keyword; of an iterable without a length, when that request is read.
        """
        from ccroute.runtime.batches import Batch  # loaded at its first use

        given = {**options, "response_format": response_format}
        return Batch(self, requests, given, concurrency, on_progress)

    @takes_call_options
    def acomplete_many(
        self,
        requests: Iterable[str | Mapping[str, object]],
        *,
        concurrency: int = 32,
        on_progress: Callable[[Progress], object] | None = None,
        response_format: Form[Parsed] = None,
        **options: Unpack[MostOptions],
    ) -> AsyncBatch[Parsed]:
        """`complete_many` for `async for` and `async with`; not a coroutine itself."""
        from ccroute.runtime.batches import AsyncBatch

        given = {**options, "response_format": response_format}
        return AsyncBatch(self, requests, given, concurrency, on_progress)

    @takes_call_options
    def explain(
        self, prompt: str | None = None, *, response_format: Form[Any] = None, **options: Unpack[MostOptions]
    ) -> RoutePlan:
        """Where a call with these arguments would go now, and why: print it. Nothing is sent or drawn at
        random, and nothing changes.

        A deployment that the call would not ask has `allowed=False` and a `why_not`. Raises a call's errors
        for a wrong request, an unknown model or an unknown agent.
        """
        self._check_open()
        if self._reloader.watched:
            self._reload_if_changed()
        from ccroute.flow.explain import explain  # loaded at its first use

        request = build_request(prompt, {**options, "response_format": response_format})
        return explain(request, self._state)

    @takes_call_options
    def count_tokens(self, prompt: str | None = None, **options: Unpack[CallOptions]) -> int:
        """How many tokens this prompt has, with the tools on offer, before any model is asked. No network.

        Uses the router's `count_tokens=`, or estimates the number from the length. Takes a call's keywords.
        Raises a call's errors for a wrong request, an unknown model or an unknown agent.
        """
        state = self._state
        return state.count_tokens(with_agent(build_request(prompt, options), state.tables))

    def models(self) -> list[ModelInfo]:
        """Every name a caller may ask for: aliases, patterns and described deployments. No network."""
        return self._state.tables.models()

    def discover(self) -> list[ModelInfo]:
        """The models that the backends list now. Generates nothing.

        A backend that does not answer is named in a warning on the logger `ccroute` and left out.
        """
        drive = Drive(self._discovery(), self._connections, self._limiter)
        drive.advance()
        return drive.finished()

    async def adiscover(self) -> list[ModelInfo]:
        """`discover`, on the running event loop."""
        drive = AsyncDrive(self._discovery(), self._connections, self._limiter)
        await drive.advance()
        return drive.finished()

    def health(self) -> dict[str, BackendHealth]:
        """What each backend's own lists say now: whether it answers, its models, which are in memory, and
        which models of this router it lacks (`missing`). Generates nothing, and raises nothing for a server's
        fault."""
        from ccroute.runtime.inspection import check_all  # loaded at its first use

        self._check_open()
        return check_all(self._state, self._connections, self._limiter)

    async def ahealth(self) -> dict[str, BackendHealth]:
        """`health`, on the running event loop. All backends are asked at the same time."""
        from ccroute.runtime.inspection import acheck_all

        self._check_open()
        return await acheck_all(self._state, self._connections, self._limiter)

    def report(
        self,
        by: GroupBy | Sequence[GroupBy] = "agent",
        since: date | str | None = None,
        until: date | str | None = None,
        baseline: Price | str | None = None,
    ) -> Report:
        """The cost and savings of attempts started in [since, until), grouped by `by`.

        `since` and `until` are datetimes, dates, or ISO 8601 texts such as "2026-01-31"; without a zone they
        are UTC. `baseline` is the model, or the price, that savings are measured against; None: the router's
        own. Raises `UnknownModelError` or `ConfigError` if this one is unknown or has no price.
        """
        from ccroute.accounting.report import Report  # loaded at its first use

        state = self._own_state()
        if isinstance(baseline, Price):
            return Report.of(state.ledger.tallies, by, since, until, baseline)
        price = None
        if baseline is not None:
            price = baseline_price(state.tables, baseline)
        elif state.baseline is not None:
            price = price_of(state.tables, state.baseline, usual=True)
        return Report.of(state.ledger.tallies, by, since, until, price, baseline or state.baseline or "")

    def rows(self, since: date | str | None = None, until: date | str | None = None) -> list[LedgerRow]:
        """The ledger's rows of attempts started in [since, until), oldest first; both as in `report`.

        The ledger in memory keeps the last 100,000 rows; older ones are only in the reports' sums. Raises
        `ConfigError` if your own ledger has no `rows()`, and if PostgreSQL cannot be read.
        """
        return self._own_state().ledger.rows(moment("since", since), moment("until", until))

    def stats(self) -> RouterStats:
        """The router's state now: calls in flight, slots, queues, connections, and which deployments and keys
        get no calls, and why. Plain data; no network."""
        from ccroute.runtime.inspection import router_stats  # loaded at its first use

        return router_stats(self._own_state(), self._limiter, self._connections)
