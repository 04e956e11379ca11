"""Drives a flow by hand: a clock that is set, two codecs of a few lines, a scripted server.

    driver = HandDriver([ScriptedReply(503), ScriptedReply(200, [b"hello"])])
    driver.run(calling(alias, model="fast"))
    assert driver.completion.text == "hello"

Knows effects; opens no socket, runs no loop, asks no clock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NoReturn

from tests.support.openai_like import chat, chat_sse, error

from ccroute.accounting import Ledger, LedgerRow, MemoryLedger, PriceBook
from ccroute.accounting.counts import Counts
from ccroute.accounting.prices import PriceLike
from ccroute.accounting.tokens import estimate
from ccroute.backends import Backend, HttpRequest, OpenAIBackend, Origin
from ccroute.errors import CcrouteError, OverloadedError, ServerError
from ccroute.flow import CallContext, Flow, RouterState, call
from ccroute.flow.effects import (
    Effect,
    Emit,
    Enter,
    Granted,
    Leave,
    Look,
    Queued,
    Read,
    Send,
    Sleep,
    Stopped,
    Wait,
)
from ccroute.http.message import Failure, Reply
from ccroute.observe import Event
from ccroute.routing import (
    Agent,
    AgentTable,
    AliasTable,
    Deployment,
    Health,
    Load,
    Plan,
    RateLimits,
    RefusedParameters,
    RetryBudget,
    Tables,
    make_plan,
)
from ccroute.routing.scheduling import Grant
from ccroute.routing.scheduling.waiting_cost import Waits
from ccroute.types import (
    Choice,
    Chunk,
    Completion,
    LoadedModel,
    Message,
    Model,
    Request,
    RetryPolicy,
    Timeout,
)
from ccroute.types.arguments.checked import build_request

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@dataclass
class FakeClock:
    """Time that a test sets; `draws` are the random numbers, the last one again and again."""

    elapsed: float = 0.0
    draws: list[float] = field(default_factory=lambda: [0.5])

    def monotonic(self) -> float:
        return 1000.0 + self.elapsed

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.elapsed)

    def random(self) -> float:
        return self.draws.pop(0) if len(self.draws) > 1 else self.draws[0]


class PlainBackend(Backend):
    """A user's own backend with the four methods and nothing else: the body is the text, `!` is its end."""

    def __init__(self, name: str = "plain", **options: Any) -> None:
        super().__init__(name, f"http://{name}.test", **options)

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        return HttpRequest("/say", json.dumps([model, stream, *map(dict, request.messages)]).encode())

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        return completion_of(body.decode())

    def decoder(self, status: int, headers: Mapping[str, str]) -> PlainDecoder:
        return PlainDecoder()

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> OverloadedError | ServerError:
        return (OverloadedError if status == 503 else ServerError)(body.decode(), status=status)


class PlainDecoder:
    """Only what the protocol demands: no `done`, no `partial`."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, data: bytes) -> list[Chunk]:
        self._text += data.decode()
        return [Chunk(text=text)] if (text := data.decode().rstrip("!")) else []

    def finish(self) -> Completion:
        if not self._text.endswith("!"):
            raise ServerError("it never ended")
        return completion_of(self._text.removesuffix("!"))


def completion_of(text: str) -> Completion:
    return Completion(choices=(Choice(message=Message(content=text), finish_reason="stop"),))


def paid(name: str = "paid", price: Any = None, window: int | None = None, **options: Any) -> OpenAIBackend:
    """A backend somewhere on the net whose model `m` has a price and a window."""
    models = {"m": Model(price=price, context_window=window)}
    return OpenAIBackend(name, base_url=f"https://{name}.test", models=models, **options)


def local(name: str = "home", **options: Any) -> OpenAIBackend:
    """A backend at home, free of charge."""
    return OpenAIBackend(name, base_url="http://localhost:8080", preset="llamacpp", **options)


def planned(
    backends: Sequence[Backend],
    *,
    aliases: Mapping[Any, Any] | None = None,
    agents: Mapping[str, Agent | str] | None = None,
    groups: Mapping[str, Agent] | None = None,
    strategy: Any = "ordered",
    random: Callable[[], float] = lambda: 0.5,
    prompt: str | None = "What is it?",
    default_model: str | None = None,
    agent_override: bool = True,
    unknown_agent: Any = "error",
    prices: Mapping[str, PriceLike] | None = None,
    count_tokens: Callable[[Request], int] = estimate,
    **options: Any,
) -> Plan:
    """A plan over tables made for it; `options` are the call's own keywords."""
    tables = Tables(
        backends,
        AliasTable(aliases, strategy=strategy),
        AgentTable(agents or {}, groups),
        default_model=default_model,
        agent_override=agent_override,
        unknown_agent=unknown_agent,
        prices=PriceBook(prices),
    )
    return make_plan(build_request(prompt, options), tables, random, count_tokens)  # type: ignore[arg-type]


@dataclass
class Call:
    """One call before its first effect. `rows` are those that its ledger has by now."""

    flow: Flow[Completion]
    context: CallContext
    clock: FakeClock
    events: list[Event]

    @property
    def state(self) -> RouterState:
        return self.context.state

    @property
    def rows(self) -> list[LedgerRow]:
        ledger = self.state.ledger
        assert isinstance(ledger, MemoryLedger)
        return list(ledger.rows())


class LimitedHosts(set[Origin]):
    """Hosts with a limit, where nobody waits but at those `busy` for some seconds. Notes what it is told."""

    def __init__(
        self, origins: Iterable[Origin] = (), busy: Mapping[Origin, float] = MappingProxyType({})
    ) -> None:
        super().__init__(origins)
        self.busy = dict(busy)
        self.told: list[Any] = []
        self.begun: list[Grant] = []  # whose answers began, or came without times

    def predicted(self, option: Deployment, priority: int) -> float:
        return self.busy.get(option.backend.origin, 0.0)

    def measured(self, grant: Grant, load: float | None, service: float) -> None:
        self.told.append((grant, load, service))

    def answered(self, grant: Grant) -> None:
        self.begun.append(grant)

    def listed(self, backend: Backend, models: Sequence[LoadedModel]) -> None:
        self.told.append((backend, models))


def router_state(
    clock: FakeClock, emit: Callable[[Event], None] = lambda event: None, **given: Any
) -> RouterState:
    """The state of a router that has seen no call yet, but for what is `given`."""
    return RouterState(
        **{
            "retry": RetryPolicy(),
            "timeout": Timeout(),
            "clock": clock,
            "drop_params": False,
            "health": Health(clock, emit),
            "retry_budget": RetryBudget(clock.monotonic),
            "rate_limits": RateLimits(clock.monotonic),
            "load": Load(clock.monotonic),
            "counts": Counts(clock.monotonic()),
            "ledger": MemoryLedger(),
            "emit": emit,
            "refused_parameters": RefusedParameters(),
            "hosts": LimitedHosts(),
            "waits": Waits(),
        }
        | given
    )


def calling(
    *backends: Backend,
    stream: bool = False,
    retry: RetryPolicy | None = None,
    limits: Timeout | None = None,
    drop_params: bool = False,
    limited: bool | Collection[str] = False,
    clock: FakeClock | None = None,
    ledger: Ledger | None = None,
    health: Health | None = None,
    retry_budget: RetryBudget | None = None,
    load: Load | None = None,
    rate_limits: RateLimits | None = None,
    refused_parameters: RefusedParameters | None = None,
    count_tokens: Callable[[Request], int] | None = None,
    **planning: Any,
) -> Call:
    """A call to `backends` in their order, each by its model `m`, unless `planning` says otherwise.

    `limited`: the hosts of these backends, or all, serve only so many calls at a time. Several calls share
    what is known of the backends by sharing `clock`, `health`, `retry_budget` and `load`.
    """
    clock = clock or FakeClock()
    if "aliases" not in planning:
        planning["aliases"] = {"any": [f"{backend.name}/m" for backend in backends]}
        if not planning.keys() & {"agent", "model"}:
            planning["model"] = "any"
    plan = planned(backends, count_tokens=count_tokens or estimate, **planning)
    events: list[Event] = []
    shared = {
        "ledger": ledger,
        "health": health,
        "retry_budget": retry_budget,
        "load": load,
        "rate_limits": rate_limits,
        "refused_parameters": refused_parameters,
        "count_tokens": count_tokens,
    }
    state = router_state(
        clock,
        events.append,
        retry=retry or RetryPolicy(),
        timeout=limits or Timeout(),
        drop_params=drop_params,
        hosts=LimitedHosts(
            each.origin for each in backends if limited is True or (limited and each.name in limited)
        ),
        **{name: given for name, given in shared.items() if given is not None},
    )
    context = CallContext(plan, state, os.getpid())
    return Call(call(context, stream=stream), context, clock, events)


@dataclass
class ScriptedReply:
    """What a server does with one request. A float among the pieces is seconds of silence before the next.

    A stream is given up after `ends=False` only by a limit: after its last piece it says nothing more.
    """

    status: int = 200
    pieces: Sequence[bytes | Failure | float] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0
    ends: bool = True
    reconnected: bool = False


REFUSED = Failure("connect", "connection refused", sent=False)
BROKEN = Failure("broken", "connection reset", sent=True)
TIMED_OUT = "no answer in time"


def answers(text: str = "Hello there.", **about: Any) -> ScriptedReply:
    """A whole answer on OpenAI's wire."""
    return ScriptedReply(pieces=[json.dumps(chat(text, **about)).encode()])


def streams(*texts: str, **about: Any) -> ScriptedReply:
    """A streamed answer on OpenAI's wire."""
    return ScriptedReply(pieces=chat_sse(texts or ("Hello", " there", "."), **about))


FREE = Granted()


@dataclass
class Queue:
    """A host that is busy: `ahead` calls wait already, and after `seconds` the call has a slot, as `granted`
    says. Before that it is asked to `look`, each time after `every` seconds. `left` are the waits that are
    predicted to it while it waits, one after the other; then the true ones."""

    ahead: int = 0
    seconds: float = 0.0
    granted: Granted = field(default_factory=Granted)
    look: Sequence[Backend] = ()
    every: float = 1.0
    left: Sequence[float] = ()


FULL = Failure("queue", "its queue is full", sent=False)
LATE = Failure("queue", "busy until the deadline", sent=False)


class HandDriver:
    """Performs effects from a script, one entry for each `Send`; the last entry serves all after it.

    `before(k, effect)` is called before the k-th effect; what it raises is thrown into the flow. `hosts` are
    what the first times find that a call asks for a slot; the next ones find one free.
    """

    def __init__(
        self,
        world: Sequence[ScriptedReply | Failure],
        before: Callable[[int, Effect], None] | None = None,
        hosts: Sequence[Failure | Queue | Granted] = (),
    ) -> None:
        self._world = list(world)
        self._hosts = list(hosts)
        self._queue: Queue | None = None
        self._looks: list[Backend] = []
        self._left: list[float] = []
        self._free_at = 0.0
        self._before = before or (lambda k, effect: None)
        self._pieces: list[bytes | Failure | float] = []
        self._ends = True
        self._call: Call | None = None
        self.effects: list[Effect] = []
        self.chunks: list[Chunk] = []
        self.given: Completion | None = None

    @property
    def completion(self) -> Completion:
        assert self.given is not None
        return self.given

    @property
    def rows(self) -> list[LedgerRow]:
        """The ledger's rows."""
        return [] if self._call is None else self._call.rows

    @property
    def kinds(self) -> list[str]:
        """The effects' names in order, those that came several times in a row once."""
        names = [type(effect).__name__ for effect in self.effects]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    @property
    def sends(self) -> list[Send]:
        return [effect for effect in self.effects if isinstance(effect, Send)]

    @property
    def asked(self) -> list[str]:
        """The backends that were asked, in order."""
        hosts = [effect.request.endpoint.origin.host for effect in self.sends]
        return ["home" if host == "localhost" else host.removesuffix(".test") for host in hosts]

    @property
    def slept(self) -> list[float]:
        return [effect.seconds for effect in self.effects if isinstance(effect, Sleep)]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    def run(self, call: Call) -> HandDriver:
        """Drive `call` to its end; what it raises passes through."""
        self._call = call
        while self.step(call) is not None:
            pass
        return self

    def step(self, call: Call) -> Effect | None:
        """Perform the next effect; None at the call's end."""
        self._call = call
        result, self._result = self._result, None
        try:
            effect = call.flow.send(result)
        except StopIteration as end:
            self.given = end.value
            return None
        try:
            self._before(len(self.effects), effect)
        except BaseException as error:
            _stop(call, effect, error)
        self.effects.append(effect)
        self._result = self._perform(effect, call)
        return effect

    _result: Any = None

    def fail(self, call: Call) -> Any:
        """Drive `call` to the error that it ends with."""
        try:
            self.run(call)
        except CcrouteError as error:
            return error
        raise AssertionError("the call succeeded")

    def _perform(self, effect: Effect, call: Call) -> Any:
        clock = call.clock
        match effect:
            case Enter():
                return self._enter(clock)
            case Wait():
                return self._wait(effect, clock)
            case Leave():
                return None
            case Send():
                return self._send(effect, clock)
            case Read():
                return self._read(effect.until, clock)
            case Sleep():
                clock.elapsed += effect.seconds
            case Emit():
                self.chunks += effect.chunks
        return None

    def _enter(self, clock: FakeClock) -> Granted | Queued | Failure:
        host = self._hosts.pop(0) if self._hosts else Granted()
        if not isinstance(host, Queue):
            return host
        self._queue, self._looks, self._free_at = host, list(host.look), clock.monotonic() + host.seconds
        self._left = list(host.left)
        return Queued(host.ahead, host.seconds)

    def _wait(self, effect: Wait, clock: FakeClock) -> Granted | Look | Queued | Failure:
        assert self._queue is not None, "it waits for nothing"
        now, until = clock.monotonic(), min(effect.until, effect.decides)
        at = now + self._queue.every if self._looks else max(self._free_at, now)
        clock.elapsed = min(at, until) - 1000.0
        if at > until and effect.decides < effect.until:
            return Queued(0, self._left.pop(0) if self._left else self._free_at - until)
        if at > until:
            return LATE
        return Look(self._looks.pop(0)) if self._looks else self._queue.granted

    def _send(self, effect: Send, clock: FakeClock) -> Reply | Failure:
        reply = self._world.pop(0) if len(self._world) > 1 else self._world[0]
        if isinstance(reply, Failure):
            return reply
        if clock.monotonic() + reply.after > effect.until:
            return _late(effect.until, clock)
        clock.elapsed += reply.after
        self._pieces, self._ends = list(reply.pieces), reply.ends
        return Reply(reply.status, reply.headers, reply.reconnected)

    def _read(self, until: float, clock: FakeClock) -> bytes | Failure:
        while self._pieces:
            piece = self._pieces.pop(0)
            if not isinstance(piece, float):
                return piece
            if clock.monotonic() + piece > until:
                return _late(until, clock)
            clock.elapsed += piece
        return b"" if self._ends else _late(until, clock)


def _stop(call: Call, effect: Effect, error: BaseException) -> NoReturn:
    """Throw `error` into the flow, as a driver does: one that interrupts a `Send` says what was sent."""
    is_stop = isinstance(effect, Send) and not isinstance(error, Exception)
    try:
        call.flow.throw(Stopped(error, sent=True) if is_stop else error)
    except Stopped as stop:
        raise stop.error from None
    raise AssertionError("the flow went on after it was stopped") from error


def _late(until: float, clock: FakeClock) -> Failure:
    clock.elapsed = until - 1000.0
    return Failure("timeout", TIMED_OUT, sent=True)


ONCE = RetryPolicy(attempts=1)


def fails(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> ScriptedReply:
    """An error of OpenAI's; `retry_after="7"` is a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ScriptedReply(status, [json.dumps(error(message, code=code)).encode()], headers=named)


class Shared:
    """Backends that several calls share, with all that the calls learn of them."""

    def __init__(self, *backends: Backend, on: bool = True, **planning: Any) -> None:
        self.backends = backends or (paid(),)
        self.planning = planning
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.health = Health(self.clock, self.events.append, on=on)
        self.retry_budget = RetryBudget(self.clock.monotonic)
        self.load = Load(self.clock.monotonic)
        self.rate_limits = RateLimits(self.clock.monotonic)

    def call(self, **options: Any) -> Call:
        shared = {
            "clock": self.clock,
            "health": self.health,
            "retry_budget": self.retry_budget,
            "load": self.load,
            "rate_limits": self.rate_limits,
        }
        return calling(*self.backends, **({"retry": ONCE} | shared | self.planning | options))

    def gets(
        self, *world: Any, hosts: Sequence[Failure | Queue | Granted] = (), **options: Any
    ) -> HandDriver:
        """A call that is answered."""
        return HandDriver(world, hosts=hosts).run(self.call(limited=bool(hosts), **options))

    def misses(self, *world: Any, hosts: Sequence[Failure | Queue | Granted] = (), **options: Any) -> Any:
        """A call that is not; its error."""
        return HandDriver(world, hosts=hosts).fail(self.call(limited=bool(hosts), **options))

    def turned_away(self, **options: Any) -> Any:
        """A call for which no backend is asked; its error."""
        driver = HandDriver([answers()])
        raised = driver.fail(self.call(**options))
        assert driver.sends == []
        assert raised.attempts == ()
        return raised

    def after(self, seconds: float) -> Shared:
        self.clock.elapsed += seconds
        return self

    def deployment(self, name: str = "paid", model: str = "m") -> Deployment:
        backend = next(backend for backend in self.backends if backend.name == name)
        return Deployment(f"{name}/{model}", backend, model, Model(), None)

    def is_off(self, name: str = "paid", model: str = "m") -> bool:
        return self.health.unavailable(self.deployment(name, model)) is not None

    def emitted(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
