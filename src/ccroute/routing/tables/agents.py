"""Agents with their groups' defaults, fallback models, and the faults of both and of a model's parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ccroute.errors import ConfigError, UnknownAgentError
from ccroute.failures import TRIGGERS, Trigger
from ccroute.routing.names import close_matches, did_you_mean, slug
from ccroute.types import JSON, Model
from ccroute.types.arguments.checked import fault_of, max_wait_fault, waiting_cost_fault
from ccroute.types.policy import Amount, exact_usd
from ccroute.types.request import EXTRA, PARAMETERS
from ccroute.types.signatures import explains

OTHERS = "*"
"""Key in `fallbacks=` for every model that has no fallbacks of its own."""
_WILDCARDS = frozenset("*?")


@dataclass(frozen=True, slots=True, init=False)
class Fallback:
    """A fallback model that is used only for failures of its own `triggers`, and of the agent's.

    `Fallback("big", triggers=["token_limit"])` serves the prompts that fit nowhere else. The triggers are
    those of `Agent`. The router reports a wrong value.
    """

    model: str
    triggers: tuple[Trigger, ...]

    def __init__(self, model: str, triggers: Sequence[Trigger] = TRIGGERS) -> None:
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "triggers", _as_tuple(triggers))


@dataclass(frozen=True, slots=True, init=False)
class Agent:
    """The settings of one agent, or, in `groups=`, the defaults of all agents that name the group.

    model:      the alias or `backend/model` that the agent uses.
    fallback:   models to try in order if `model` fails for one of `triggers`; a `Fallback` has triggers of
                its own.
    triggers:   token_limit (the prompt does not fit), rate_limit (429), availability (any other failure
                that the caller did not cause), budget.
    local_only: the agent's prompts are sent to local backends only, by fallbacks too.
    params:     defaults for parameters that a call does not give, such as `{"temperature": 0.2}`.
    rpm:        the most requests of the agent in a minute, each agent of a group on its own; None: no limit.

    waiting_cost:  USD per hour: what it is worth not to wait for a busy host, or for one that loads the model
                   first. Where that is more than the price of another candidate that may serve at once, the
                   call goes there. None or 0: it waits.
    max_wait_free: the same as a limit: the call goes there where it would wait for more than so many seconds.
    other_names: more names that a call may give for it. Results have its own name.

    The router reports a value of the wrong type, because it knows the agent's name.
    """

    model: str | None
    fallback: tuple[str | Fallback, ...]
    triggers: tuple[Trigger, ...]
    group: str | None
    local_only: bool
    params: Mapping[str, JSON]
    rpm: int | None
    waiting_cost: Decimal | None
    max_wait_free: float | None
    other_names: tuple[str, ...]

    @explains("Agent")
    def __init__(
        self,
        model: str | None = None,
        *,
        fallback: Sequence[str | Fallback] = (),
        triggers: Sequence[Trigger] = TRIGGERS,
        group: str | None = None,
        local_only: bool = False,
        params: Mapping[str, JSON] | None = None,
        rpm: int | None = None,
        waiting_cost: Amount | None = None,
        max_wait_free: float | None = None,
        other_names: Sequence[str] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "model", model)
        put(self, "fallback", _as_tuple(fallback))
        put(self, "triggers", _as_tuple(triggers))
        put(self, "group", group)
        put(self, "local_only", local_only)
        put(self, "params", dict(params) if isinstance(params, Mapping) else params or {})
        put(self, "rpm", rpm)
        put(self, "waiting_cost", _as_usd(waiting_cost))
        put(self, "max_wait_free", max_wait_free)
        put(self, "other_names", _as_tuple(other_names))

    def under(self, group: Agent) -> Agent:
        """This agent, with the settings of `group` for those it does not set."""
        return Agent(
            self.model if self.model is not None else group.model,
            fallback=self.fallback or group.fallback,
            triggers=group.triggers if self.triggers == TRIGGERS else self.triggers,
            group=self.group,
            local_only=self.local_only or group.local_only,
            params={**group.params, **self.params},
            rpm=self.rpm if self.rpm is not None else group.rpm,
            waiting_cost=self.waiting_cost if self.waiting_cost is not None else group.waiting_cost,
            max_wait_free=self.max_wait_free if self.max_wait_free is not None else group.max_wait_free,
            other_names=self.other_names,
        )


class AgentTable:
    """All agents of a router with their groups' defaults, by name and by slug.

    Raises `ConfigError` with every fault: unknown groups, triggers and parameters, and wrong types.
    """

    def __init__(self, agents: Mapping[str, Agent | str], groups: Mapping[str, Agent] | None = None) -> None:
        faults: list[str] = []
        groups = {} if groups is None else groups
        usable = dict(checked_agents("groups", groups, faults))
        self.groups = tuple(usable)
        """The names of all groups."""
        self._agents: dict[str, Agent] = {}
        for name, agent in checked_agents("agents", agents, faults):
            group = None if agent.group is None else usable.get(agent.group)
            self._agents[name] = agent if group is None else agent.under(group)
            # Other faults of groups are already in `faults`.
            if agent.group is not None and isinstance(groups, Mapping) and agent.group not in groups:
                close = did_you_mean(agent.group, map(str, groups))
                advice = close or f'; name it, as in groups={{"{agent.group}": Agent()}}'
                faults.append(f'agents.{name}.group: unknown group "{agent.group}"{advice}')
        self._by_slug = {short: name for name in reversed(self._agents) if (short := slug(name))}
        for name, agent in self._agents.items():
            for other in agent.other_names:
                if self._by_slug.setdefault(slug(other), name) != name:
                    known = self._by_slug[slug(other)]
                    faults.append(f'agents.{name}.other_names: "{other}" is a name of the agent "{known}"')
        if faults:
            raise ConfigError(*faults)

    def find(self, name: str) -> tuple[str, Agent] | None:
        """The agent's configured name and settings; None if unknown.

        It is found by the exact name, then by slug, also of its other names.
        """
        agent = self._agents.get(name)
        if agent is not None:
            return name, agent
        known = self._by_slug.get(slug(name))
        return None if known is None else (known, self._agents[known])

    def unknown(self, name: str) -> UnknownAgentError:
        """The error for a name that `find` does not know."""
        others = (other for agent in self._agents.values() for other in agent.other_names)
        return UnknownAgentError(
            name,
            close_matches(name, [*self._agents, *others]),
            hint='configure it, or use unknown_agent="default"',
        )

    def __len__(self) -> int:
        return len(self._agents)

    def items(self) -> list[tuple[str, Agent]]:
        """Every agent with its name, in the given order."""
        return list(self._agents.items())


def _as_tuple(given: Any) -> Any:
    """One name or a list of names as a tuple. Any other value stays as it is, and is reported later."""
    if isinstance(given, str | Fallback):
        return (given,)
    return tuple(given) if isinstance(given, Sequence) else given


def _as_usd(given: Any) -> Any:
    """An amount in USD, exact. Any other value stays as it is, and is reported later."""
    try:
        return None if given is None else exact_usd(given, "waiting_cost")
    except (TypeError, ValueError):
        return given


def checked_agents(section: str, given: object, faults: list[str]) -> Iterator[tuple[str, Agent]]:
    """The agents or groups without a fault; the faults of the others are added to `faults`."""
    if not isinstance(given, Mapping):
        faults.append(f"{section}: give a mapping of names to agents, not {type(given).__name__}")
        return
    for name, value in given.items():
        agent = Agent(value) if isinstance(value, str) and section == "agents" else value
        if not isinstance(name, str):
            faults.append(f"{section}: a name is a str, not {name!r}")
        elif not isinstance(agent, Agent):
            or_model = " or a model's name" if section == "agents" else ""
            faults.append(f"{section}.{name}: give an Agent{or_model}, not {type(value).__name__}")
        elif wrong := [f"{section}.{name}.{fault}" for fault in (_type_faults(agent) or _faults(agent))]:
            faults += wrong
        else:
            yield name, agent


def _type_faults(agent: Agent) -> list[str]:
    """The fields with a value of the wrong type, as faults."""
    shapes = (
        ("model", agent.model, str | None, "a model's name"),
        ("triggers", agent.triggers, tuple, "a list"),
        ("group", agent.group, str | None, "a group's name"),
        ("local_only", agent.local_only, bool, "True or False"),
        ("params", agent.params, Mapping, "a dict of parameters"),
        ("rpm", agent.rpm, int | None, "a number of requests such as 60"),
        ("max_wait_free", agent.max_wait_free, int | float | None, "a number of seconds such as 30"),
        ("other_names", agent.other_names, tuple, "a list of names"),
    )
    faults = [
        f"{field}: give {what}, not {type(value).__name__}"
        for field, value, kind, what in shapes
        if not isinstance(value, kind) or (field in ("rpm", "max_wait_free") and isinstance(value, bool))
    ]
    fault = _fallbacks_fault(agent.fallback)
    return [*faults, f"fallback: {fault}"] if fault else faults


def _faults(agent: Agent) -> list[str]:
    rpm, price, longest = agent.rpm, agent.waiting_cost, agent.max_wait_free
    waiting = [None if price is None else waiting_cost_fault(price)]
    waiting.append(None if longest is None else max_wait_fault(longest))
    return [
        *([] if rpm is None or rpm > 0 else [f"rpm: must be positive, not {rpm}"]),
        *filter(None, waiting),
        *(f"triggers: {fault}" for fault in _trigger_faults(agent.triggers)),
        *(f"params: {fault}" for fault in params_faults(agent.params)),
        *(
            f"other_names: an agent is named by a str, not {name!r}"
            for name in agent.other_names
            if not isinstance(name, str) or not slug(name)
        ),
    ]


def _trigger_faults(triggers: Iterable[object]) -> Iterator[str]:
    for trigger in triggers:
        if trigger not in TRIGGERS:
            yield f'unknown trigger "{trigger}", the triggers are {", ".join(TRIGGERS)}'


def model_of(fallback: str | Fallback) -> str:
    """The name of a fallback model."""
    return fallback if isinstance(fallback, str) else fallback.model


def checked_fallbacks(given: object) -> tuple[dict[str, tuple[str | Fallback, ...]], list[str]]:
    """Fallback models by model, and the faults of a wrong type or name."""
    if given is None:
        return {}, []
    if not isinstance(given, Mapping):
        return {}, [f"fallbacks: give a mapping of models to fallback models, not {type(given).__name__}"]
    found, faults = {}, []
    for name, models in given.items():
        if not isinstance(name, str):
            faults.append(f"fallbacks: a model is named by a str, not {name!r}")
        elif name != OTHERS and (name.startswith("re:") or not _WILDCARDS.isdisjoint(name)):
            faults.append(
                f'fallbacks.{name}: no pattern; give the names themselves, and "{OTHERS}" for all others'
            )
        elif fault := _fallbacks_fault(listed := _as_tuple(models)):
            faults.append(f"fallbacks.{name}: {fault}")
        else:
            found[name] = listed
    return found, faults


def _fallbacks_fault(given: object) -> str | None:
    """The first fault of a value that should be a tuple of fallback models, or None."""
    if not isinstance(given, tuple):
        return f"give a list of models, not {type(given).__name__}"
    for each in given:
        name = each.model if isinstance(each, Fallback) else each
        if not isinstance(name, str) or not name.strip():
            return f"a model is named by a str, not {name!r}"
        triggers: object = each.triggers if isinstance(each, Fallback) else ()
        if not isinstance(triggers, tuple):
            return f"{name}: triggers is a list, not {type(triggers).__name__}"
        if fault := next(_trigger_faults(triggers), None):
            return f"{name}: {fault}"
    return None


def params_faults(params: Mapping[Any, JSON]) -> list[str]:
    """What is wrong with an agent's or a model's default parameters."""
    known = {name: value for name, value in params.items() if name in PARAMETERS}
    return [fault for name, value in known.items() if (fault := fault_of(name, value))] + [
        unknown_parameter(name) for name in params if name not in known
    ]


def unknown_parameter(name: object) -> str:
    """The fault of a name that no parameter of a call has."""
    return f'unknown parameter "{name}"{did_you_mean(str(name), PARAMETERS)}'


def drop_fault(name: object) -> str | None:
    """What is wrong with a name in a model's `drops`, or None."""
    is_field = isinstance(name, str) and name.startswith(EXTRA)
    return None if is_field or name in PARAMETERS else unknown_parameter(name)


def model_faults(model: Model) -> Iterator[str]:
    """What is wrong with a model's `params` and `drops`."""
    params: object = model.params or {}
    drops: object = model.drops or ()
    if isinstance(params, Mapping):
        yield from (f"params: {fault}" for fault in params_faults(params))
    else:
        yield f"params: give a dict of parameters, not {type(params).__name__}"
    if isinstance(drops, str) or not isinstance(drops, Collection):
        yield f"drops: give a list of parameters, not {type(drops).__name__}"
    else:
        yield from (f"drops: {fault}" for name in drops if (fault := drop_fault(name)))
