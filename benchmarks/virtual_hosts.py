"""Hosts that load models on demand, in virtual time. `simulate` drives `Hosts` of ccroute unchanged, as the
router's limiter does; `ollama` is the order of Ollama's own server. Knows no workload and no figure.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ccroute.http.origin import Origin
from ccroute.routing.scheduling import RECHECK, Grant, HostLimits, Hosts, Place, Scheduler

TURNAROUND = 0.002
"""Seconds between an answer and the agent's next call, besides its pause."""


class Call(NamedTuple):
    """One call of an agent: seconds of pause before it, and what a server works for it, in seconds."""

    pause: float
    seconds: float


class Agent(NamedTuple):
    """One agent. It waits for each answer before its next call. A call that comes by itself is an agent's
    only one."""

    model: str
    calls: Sequence[Call]
    priority: int = 0


class Machine(NamedTuple):
    """What the hosts are: how many, the seconds that each model takes to load, and how many models fit."""

    loads: Mapping[str, float]
    hosts: int = 1
    slots: int = 1
    fit: int = 1

    @property
    def origins(self) -> list[Origin]:
        return [Origin("http", f"host{number}.test", 11434) for number in range(self.hosts)]


class Waited(NamedTuple):
    """One call: its model, when it came, when its answer began (the model was loaded), and what was
    predicted."""

    model: str
    came: float
    began: float
    predicted: float | None = None

    @property
    def seconds(self) -> float:
        return self.began - self.came


class Run(NamedTuple):
    """What came of a workload."""

    makespan: float
    loads: int
    waits: Sequence[Waited]


class Clock:
    """What happens when, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, object]] = []
        self._numbers = itertools.count()

    def at(self, instant: float, event: object) -> None:
        heapq.heappush(self._events, (instant, next(self._numbers), event))

    def __iter__(self) -> Iterator[object]:
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            yield event


class Arrives(NamedTuple):
    agent: int
    number: int


class Ends(NamedTuple):
    arrived: Arrives
    grant: Grant
    load: float


def simulate(
    agents: Sequence[Agent], machine: Machine, scheduler: Scheduler, at_once: int | None = None
) -> Run:
    """Serve all calls in the order that the scheduler gives. `at_once`: the agents begin one after another,
    and only so many of them work at a time."""
    hosts, clock = Hosts(scheduler), Clock()
    memory = float(machine.fit) if machine.fit > 1 else None
    hosts.configure({origin: HostLimits(machine.slots, True, memory) for origin in machine.origins})
    came: dict[Hashable, tuple[float, float]] = {}
    waits: list[Waited] = []
    loads, end, recheck = 0, 0.0, float("inf")

    def begin(grant: Grant) -> None:
        nonlocal loads
        arrived = grant.call
        assert isinstance(arrived, Arrives)
        agent = agents[arrived.agent]
        load = machine.loads[agent.model] if grant.loads else 0.0
        loads += grant.loads
        instant, predicted = came.pop(arrived)
        waits.append(Waited(agent.model, instant, clock.now + load, predicted))
        clock.at(
            clock.now + load + agent.calls[arrived.number].seconds,
            Ends(arrived, grant, load),
        )

    begins = (Arrives(number, 0) for number in range(len(agents)))
    for arrives in itertools.islice(begins, at_once):
        clock.at(agents[arrives.agent].calls[0].pause, arrives)
    for event in clock:
        if isinstance(event, Arrives):
            agent = agents[event.agent]
            places = [Place(origin, agent.model, 1.0) for origin in machine.origins]
            left = min(hosts.predicted(place, agent.priority, clock.now) for place in places)
            came[event] = clock.now, left
            if (grant := hosts.enter(event, places, agent.priority, clock.now)) is not None:
                begin(grant)
        elif isinstance(event, Ends):
            arrived, end = event.arrived, clock.now
            calls = agents[arrived.agent].calls
            hosts.measured(event.grant, event.load, calls[arrived.number].seconds, clock.now)
            hosts.leave(arrived, clock.now)
            if (following := arrived.number + 1) < len(calls):
                clock.at(
                    clock.now + TURNAROUND + calls[following].pause,
                    Arrives(arrived.agent, following),
                )
            elif (arrives := next(begins, None)) is not None:
                clock.at(clock.now + TURNAROUND + agents[arrives.agent].calls[0].pause, arrives)
        elif event is RECHECK:
            recheck = float("inf")
        for grant in hosts.grants(clock.now):
            begin(grant)
        if recheck > clock.now + RECHECK and any(
            host.queues and host.free_slots for host in hosts.by_origin.values()
        ):
            recheck = clock.now + RECHECK
            clock.at(recheck, RECHECK)
    assert not came, f"{len(came)} calls wait for ever"
    return Run(end, loads, waits)


class OllamaHost:
    """Ollama's own order with one loaded model: a call of the loaded model joins its queue at once; others
    wait in order of arrival, and the first of them stops all behind it until the loaded model is idle.

    As `GetRunner` and `processPending` in https://github.com/ollama/ollama/blob/v0.24.0/server/sched.go.
    """

    def __init__(self) -> None:
        self.loaded: str | None = None
        self.ready = 0.0  # when its load is done
        self.accepted: deque[Arrives] = deque()
        self.running = 0
        self.pending: deque[Arrives] = deque()

    def __len__(self) -> int:
        return len(self.accepted) + self.running + len(self.pending)


def ollama(agents: Sequence[Agent], machine: Machine, seed: int = 0) -> Run:
    """Serve all calls as Ollama does by itself; with several hosts, a call goes to the one with fewest."""
    clock, choice = Clock(), random.Random(seed)
    hosts = [OllamaHost() for _ in range(machine.hosts)]
    came: dict[Arrives, float] = {}
    waits: list[Waited] = []
    loads, end = 0, 0.0

    def serve(host: OllamaHost) -> None:
        nonlocal loads
        load = 0.0
        while host.pending:
            model = agents[host.pending[0].agent].model
            if host.loaded != model:
                if host.running or host.accepted:
                    break
                host.loaded, load = model, machine.loads[model]
                host.ready = clock.now + load
                loads += 1
            host.accepted.append(host.pending.popleft())
        while host.accepted and host.running < machine.slots:
            arrived = host.accepted.popleft()
            host.running += 1
            began = clock.now + load
            waits.append(Waited(agents[arrived.agent].model, came[arrived], began))
            clock.at(began + agents[arrived.agent].calls[arrived.number].seconds, (arrived, host))

    for number, agent in enumerate(agents):
        clock.at(agent.calls[0].pause, Arrives(number, 0))
    for event in clock:
        if isinstance(event, Arrives):
            came[event] = clock.now
            host = min(hosts, key=lambda each: (len(each), choice.random()))
            same = host.loaded == agents[event.agent].model and host.ready <= clock.now
            (host.accepted if same else host.pending).append(event)
        else:
            assert isinstance(event, tuple)
            arrived, host = event
            host.running -= 1
            end = clock.now
            calls = agents[arrived.agent].calls
            if (following := arrived.number + 1) < len(calls):
                clock.at(
                    clock.now + TURNAROUND + calls[following].pause,
                    Arrives(arrived.agent, following),
                )
        serve(host)
    return Run(end, loads, waits)
