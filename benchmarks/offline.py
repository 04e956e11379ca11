"""What a schedule that knows all calls beforehand could do, on one host with one loaded model: the optimum of
small workloads, a lower bound for any, and the best one that a search finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from virtual_hosts import Agent, Machine

EXACT = 16
"""Calls up to which `optimum` is quick."""


class State(NamedTuple):
    """A schedule's beginning: when its last call ends, what is loaded then, how many calls of each agent are
    served, when the next of each comes, and the seconds of all calls that are left."""

    end: float
    loaded: str | None
    served: tuple[int, ...]
    ready: tuple[float, ...]
    left: float


def lower_bound(agents: Sequence[Agent], machine: Machine) -> float:
    """No schedule of any number of hosts is shorter.

    An agent's calls and pauses follow each other. One host with one loaded model must also be there for each
    model: for its calls, and while it stays for an agent's pause; it need not stay for the longest v - 1
    pauses if it loads the model v times.
    """
    loads = {agent.model: machine.loads[agent.model] for agent in agents}
    chains = [(agent, sum(call.pause + call.seconds for call in agent.calls)) for agent in agents]
    path = max(loads[agent.model] + seconds for agent, seconds in chains)
    work = sum(call.seconds for agent in agents for call in agent.calls)
    hosts = machine.hosts * machine.slots
    if hosts > 1 or machine.fit > 1:
        return max(path, (work + sum(loads.values())) / hosts)
    total = 0.0
    for model, load in loads.items():
        own = [(agent, seconds - agent.calls[0].pause) for agent, seconds in chains if agent.model == model]
        busy = sum(call.seconds for agent, _ in own for call in agent.calls)
        pauses = [sorted((call.pause for call in agent.calls[1:]), reverse=True) for agent, _ in own]
        rest, best = [seconds for _, seconds in own], float("inf")
        for visits in range(1, max(map(len, pauses)) + 2):
            best = min(best, max(busy, *rest) + visits * load)
            rest = [
                seconds - (of_agent[visits - 1] if visits <= len(of_agent) else 0.0)
                for seconds, of_agent in zip(rest, pauses, strict=True)
            ]
        total += best
    return max(path, total)


def optimum(agents: Sequence[Agent], machine: Machine) -> float:
    """The end of the shortest schedule of all, by trying all orders. Of two beginnings that served the same
    calls, one that is later in everything is dropped."""
    level = [_start(agents)]
    for _ in range(sum(len(agent.calls) for agent in agents)):
        following: dict[object, list[State]] = {}
        for state in level:
            for number in range(len(agents)):
                if (new := _serve(state, number, agents, machine.loads)) is None:
                    continue
                same = following.setdefault((new.loaded, new.served), [])
                if not any(_is_no_later(each, new) for each in same):
                    same[:] = [each for each in same if not _is_no_later(new, each)] + [new]
        level = [state for states in following.values() for state in states]
    return min(state.end for state in level)


def search(agents: Sequence[Agent], machine: Machine, longest: float, width: int = 60) -> float | None:
    """The end of the best schedule that a beam search finds with nobody waiting longer than `longest`
    seconds; None if it finds none. Within a model, calls are served in order of arrival."""
    models = sorted({agent.model for agent in agents})
    of_model = {model: [n for n, agent in enumerate(agents) if agent.model == model] for model in models}
    chains = [_chains(agent) for agent in agents]
    level = [_start(agents)]
    for _ in range(sum(len(agent.calls) for agent in agents)):
        best: dict[object, tuple[tuple[float, float], State]] = {}
        for state in level:
            for model in models:
                open_ = [n for n in of_model[model] if state.served[n] < len(agents[n].calls)]
                if not open_:
                    continue
                number = min(open_, key=state.ready.__getitem__)
                new = _serve(state, number, agents, machine.loads)
                assert new is not None
                began = new.end - agents[number].calls[state.served[number]].seconds
                if began - state.ready[number] > longest or not _is_in_time(new, agents, machine, longest):
                    continue
                least = new.end + new.left
                todo = {agent.model for n, agent in enumerate(agents) if new.served[n] < len(agent.calls)}
                least += sum(machine.loads[each] for each in todo if each != new.loaded)
                for n, agent in enumerate(agents):
                    if new.served[n] < len(agent.calls):
                        least = max(least, max(new.ready[n], new.end) + chains[n][new.served[n]])
                key = new.loaded, new.served
                if key not in best or (least, new.end) < best[key][0]:
                    best[key] = (least, new.end), new
        level = [state for _, state in sorted(best.values(), key=lambda each: each[0])[:width]]
    return min((state.end for state in level), default=None)


def _start(agents: Sequence[Agent]) -> State:
    work = sum(call.seconds for agent in agents for call in agent.calls)
    return State(0.0, None, (0,) * len(agents), tuple(agent.calls[0].pause for agent in agents), work)


def _serve(state: State, number: int, agents: Sequence[Agent], loads: Mapping[str, float]) -> State | None:
    """Serve an agent's next call. Its model may be loaded before the call comes."""
    agent, served = agents[number], state.served[number]
    if served == len(agent.calls):
        return None
    call = agent.calls[served]
    load = 0.0 if state.loaded == agent.model else loads[agent.model]
    end = max(state.end + load, state.ready[number]) + call.seconds
    pause = agent.calls[served + 1].pause if served + 1 < len(agent.calls) else 0.0
    counts = (*state.served[:number], served + 1, *state.served[number + 1 :])
    ready = (*state.ready[:number], end + pause, *state.ready[number + 1 :])
    return State(end, agent.model, counts, ready, state.left - call.seconds)


def _is_no_later(one: State, other: State) -> bool:
    return one.end <= other.end and all(a <= b for a, b in zip(one.ready, other.ready, strict=True))


def _is_in_time(state: State, agents: Sequence[Agent], machine: Machine, longest: float) -> bool:
    """Whether the models that are not loaded can be served in time, one after another."""
    first: dict[str, float] = {}
    for number, agent in enumerate(agents):
        if agent.model != state.loaded and state.served[number] < len(agent.calls):
            first[agent.model] = min(first.get(agent.model, float("inf")), state.ready[number])
    end = state.end
    for came, model in sorted((came, model) for model, came in first.items()):
        end = max(end + machine.loads[model], came)
        if end - came > longest:
            return False
        for number, agent in enumerate(agents):
            if (
                agent.model == model
                and state.served[number] < len(agent.calls)
                and state.ready[number] <= end
            ):
                end += agent.calls[state.served[number]].seconds
    return True


def _chains(agent: Agent) -> list[float]:
    """The seconds from the begin of each call to the end of the last one, if the agent never waits."""
    found = [0.0]
    for number in range(len(agent.calls) - 1, -1, -1):
        pause = agent.calls[number + 1].pause if number + 1 < len(agent.calls) else 0.0
        found.append(found[-1] + agent.calls[number].seconds + pause)
    return found[::-1]
