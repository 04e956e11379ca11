"""Who asks: an agent's model, its fallbacks and its constraints, after its group's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ccroute.errors import ConfigError, UnknownAgentError
from ccroute.routing.names import close_matches, did_you_mean, slug
from ccroute.types import JSON
from ccroute.types.checked import fault_of
from ccroute.types.request import PARAMETERS

Trigger = Literal["token_limit", "rate_limit", "availability", "budget"]
TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)


@dataclass(frozen=True, slots=True, init=False)
class Agent:
    """What is configured for one agent, or, in `groups=`, for all agents that name the group.

    model:      the alias or `backend/model` it uses.
    fallback:   models to try in order when `model` fails for one of `triggers`.
    triggers:   token_limit (the prompt does not fit), rate_limit (429), availability (anything
                else that is not the caller's fault), budget.
    local_only: its prompts never reach a backend that is not local, on any hop.
    params:     defaults for parameters a call does not give, such as `{"temperature": 0.2}`.
    """

    model: str | None
    fallback: tuple[str, ...]
    triggers: tuple[Trigger, ...]
    group: str | None
    local_only: bool
    params: Mapping[str, JSON]

    def __init__(
        self,
        model: str | None = None,
        *,
        fallback: Sequence[str] = (),
        triggers: Sequence[Trigger] = TRIGGERS,
        group: str | None = None,
        local_only: bool = False,
        params: Mapping[str, JSON] | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "model", model)
        put(self, "fallback", (fallback,) if isinstance(fallback, str) else tuple(fallback))
        put(self, "triggers", (triggers,) if isinstance(triggers, str) else tuple(triggers))
        put(self, "group", group)
        put(self, "local_only", local_only)
        put(self, "params", dict(params or {}))

    def under(self, group: Agent) -> Agent:
        """This agent with `group`'s settings where it has none of its own."""
        return Agent(
            self.model if self.model is not None else group.model,
            fallback=self.fallback or group.fallback,
            triggers=group.triggers if self.triggers == TRIGGERS else self.triggers,
            group=self.group,
            local_only=self.local_only or group.local_only,
            params={**group.params, **self.params},
        )


class AgentTable:
    """All agents of a router, by name and by slug, group defaults applied.

    Raises `ConfigError` with every fault: unknown groups, triggers and parameters.
    """

    def __init__(self, agents: Mapping[str, Agent | str], groups: Mapping[str, Agent] | None = None) -> None:
        groups = groups or {}
        if not isinstance(agents, Mapping):
            raise ConfigError(f"agents: give a mapping of names to agents, not {type(agents).__name__}")
        faults = [fault for name, group in groups.items() for fault in _faults(f"groups.{name}", group)]
        self._agents: dict[str, Agent] = {}
        for name, given in agents.items():
            agent = _agent(given)
            if agent is None:
                faults.append(f"agents.{name}: give an Agent or a model's name, not {type(given).__name__}")
                continue
            faults += _faults(f"agents.{name}", agent)
            if agent.group is not None and groups:
                group = groups.get(agent.group)
                if group is None:
                    close = did_you_mean(agent.group, groups)
                    faults.append(f'agents.{name}.group: unknown group "{agent.group}"{close}')
                else:
                    agent = agent.under(group)
            self._agents[name] = agent
        if faults:
            raise ConfigError(*faults)
        self._by_slug = {short: name for name in reversed(self._agents) if (short := slug(name))}

    def find(self, name: str) -> tuple[str, Agent] | None:
        """The agent's configured name and settings; exact name first, then slug."""
        agent = self._agents.get(name)
        if agent is not None:
            return name, agent
        known = self._by_slug.get(slug(name))
        return None if known is None else (known, self._agents[known])

    def unknown(self, name: str) -> UnknownAgentError:
        """The error for a name that `find` does not know."""
        return UnknownAgentError(
            name, close_matches(name, self._agents), hint='configure it, or use unknown_agent="default"'
        )

    def __len__(self) -> int:
        return len(self._agents)

    def items(self) -> list[tuple[str, Agent]]:
        """Every agent in the order it was given."""
        return list(self._agents.items())


def _agent(given: object) -> Agent | None:
    if isinstance(given, str):
        return Agent(given)
    return given if isinstance(given, Agent) else None


def _faults(place: str, agent: Agent) -> list[str]:
    return (
        [
            f'{place}.triggers: unknown trigger "{trigger}", the triggers are {", ".join(TRIGGERS)}'
            for trigger in agent.triggers
            if trigger not in TRIGGERS
        ]
        + [
            f"{place}.params: {fault}"
            for name, value in agent.params.items()
            if name in PARAMETERS and (fault := fault_of(name, value))
        ]
        + [
            f'{place}.params: unknown parameter "{name}"{did_you_mean(name, PARAMETERS)}'
            for name in agent.params
            if name not in PARAMETERS
        ]
    )
