"""The events that a router sends to its listeners: failures, retries, waits and what follows from them.

An event holds names, numbers and reasons without secrets; never a prompt, an answer or a key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

from ccroute.display import escaped
from ccroute.types import FailureClass

_WORDS: Final[Mapping[FailureClass, str]] = {
    FailureClass.NOT_SENT: "nothing was sent",
    FailureClass.REJECTED: "turned the call away",
    FailureClass.AMBIGUOUS: "failed without an answer",
    FailureClass.DELIVERED: "broke off its answer",
    FailureClass.INVALID_REQUEST: "refused the request",
    FailureClass.CONTEXT_LENGTH: "has too small a context window",
    FailureClass.CREDENTIAL: "refused the key",
    FailureClass.UNAVAILABLE: "does not have the model or path",
    FailureClass.BUDGET: "is not asked, for lack of budget",
}

_MOST_NAMES: Final = 20


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events. `str(event)` is a line for a log, and `level` its level there."""

    level: ClassVar[int] = logging.INFO
    _line: ClassVar[str] = "{0!r}"

    def __str__(self) -> str:
        return self._line.format(self)


@dataclass(frozen=True, slots=True)
class CallEvent(Event):
    """Something that happened to one call: `call` is its id, the same as in the ledger's rows."""

    call: str
    agent: str | None


@dataclass(frozen=True, slots=True)
class Overridden(CallEvent):
    """The agent's model won over the one that the caller named."""

    requested_model: str
    model: str
    level = logging.DEBUG
    _line = "agent {0.agent} uses {0.model}, not the requested {0.requested_model}"


@dataclass(frozen=True, slots=True)
class Queued(CallEvent):
    """A call waits for a slot at its host; `ahead` calls wait already. `seconds` is the predicted wait."""

    deployment: str
    ahead: int
    seconds: float = 0.0
    level = logging.DEBUG

    def __str__(self) -> str:
        about = f", about {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.deployment}: waits for its host, {self.ahead} ahead{about}"


@dataclass(frozen=True, slots=True)
class Loading(CallEvent):
    """A call has a slot, and its host loads the model first: as predicted, that takes `seconds`."""

    deployment: str
    seconds: float
    level = logging.DEBUG
    _line = "{0.deployment}: its host loads the model first, about {0.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class Switched(Event):
    """A host loads the model `loaded` for a call to `deployment`, and gives up `unloaded` for it."""

    deployment: str
    loaded: str
    unloaded: tuple[str, ...]

    def __str__(self) -> str:
        gone = f" instead of {_some(self.unloaded)}" if self.unloaded else ""
        return f"{self.deployment}: its host loads {escaped(self.loaded)}{gone}"


@dataclass(frozen=True, slots=True)
class WaitSkipped(CallEvent):
    """A call does not wait for the host of `deployment`, but takes `instead`, which may serve it at once: to
    wait would cost more, or last too long. `reason` has the figures."""

    deployment: str
    instead: str
    reason: str
    _line = "{0.reason}"


@dataclass(frozen=True, slots=True)
class RateLimited(CallEvent):
    """A call waits for `wait` seconds, or less, because a limit of the configuration is reached: its
    deployment's, or, where `deployment` is None, its agent's."""

    deployment: str | None
    limit: str
    wait: float

    def __str__(self) -> str:
        who = self.deployment or f"agent {self.agent}"
        return f"{who}: waits {self.wait:.1f} s, its limit {self.limit} is reached"


@dataclass(frozen=True, slots=True)
class OverBudget(CallEvent):
    """A budget does not allow an attempt: `budget` is its name, and `reason` says why. The attempt waits for
    it, or is not made."""

    deployment: str
    budget: str
    reason: str
    waits: bool

    def __str__(self) -> str:
        return f"{self.deployment}: {'waits' if self.waits else 'not asked'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class AttemptFailed(CallEvent):
    """One attempt failed; `error` names the error's class, `status` is HTTP's where there was one."""

    deployment: str
    failure: FailureClass
    error: str
    status: int | None
    reason: str

    def __str__(self) -> str:
        status = f", HTTP {self.status}" if self.status is not None else ""
        return f"{self.deployment}: {_WORDS[self.failure]} ({self.error}{status}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Retried(CallEvent):
    """A deployment that failed is tried again, after `wait` seconds."""

    deployment: str
    wait: float
    _line = "{0.deployment}: tried again after {0.wait:.1f} s"


@dataclass(frozen=True, slots=True)
class FellBack(CallEvent):
    """Another deployment takes over; `fallback` says that it serves a fallback model."""

    failed: str
    deployment: str
    fallback: bool

    def __str__(self) -> str:
        what = "fallback model" if self.fallback else "next deployment"
        return f"{self.deployment}: tried instead of {self.failed}, as the {what}"


@dataclass(frozen=True, slots=True)
class Interrupted(CallEvent):
    """A stream broke after content had reached the caller."""

    deployment: str
    reason: str
    level = logging.WARNING
    _line = "{0.deployment}: stream interrupted: {0.reason}"


@dataclass(frozen=True, slots=True)
class TurnedAway(CallEvent):
    """A call ended without an attempt: its deployments get no calls for `seconds` or more."""

    deployment: str
    seconds: float
    reason: str = "it failed before"
    _line = "{0.deployment}: not asked, gets no calls for {0.seconds:.0f} s more: {0.reason}"


@dataclass(frozen=True, slots=True)
class Recovered(Event):
    """`who`, a deployment or a refused credential of a backend, gets calls again."""

    who: str
    _line = "{0.who}: answers again"


@dataclass(frozen=True, slots=True)
class LedgerFailed(CallEvent):
    """An attempt could not be recorded; the call went on. `error` names the exception's class."""

    error: str
    level = logging.ERROR
    _line = "the ledger could not record an attempt of call {0.call}: {0.error}"


@dataclass(frozen=True, slots=True)
class BreakerOpened(Event):
    """A deployment failed too often: for `seconds` it gets no calls, then one probe. A call that has no
    other deployment left is that probe earlier."""

    deployment: str
    seconds: float
    reason: str
    level = logging.WARNING
    _line = "{0.deployment}: gets no calls for {0.seconds:.0f} s (breaker open): {0.reason}"


@dataclass(frozen=True, slots=True)
class BreakerClosed(Event):
    """A deployment answers again."""

    deployment: str
    _line = "{0.deployment}: answers again, gets calls as before (breaker closed)"


@dataclass(frozen=True, slots=True)
class CooledDown(Event):
    """`who`, a deployment or a backend's credential, gets no calls for `seconds`: the server asked for
    that, or refuses the key or the model."""

    who: str
    seconds: float
    reason: str
    level = logging.WARNING
    _line = "{0.who}: gets no calls for {0.seconds:.0f} s: {0.reason}"


@dataclass(frozen=True, slots=True)
class Reloaded(Event):
    """The router has another configuration. The names are those of its parts, such as `backends.local`,
    `agents.python-expert` or `retry`; what a group changed is in its agents."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        named = {"added": self.added, "removed": self.removed, "changed": self.changed}
        parts = [f"{what} {_some(names)}" for what, names in named.items() if names]
        return f"configuration reloaded: {'; '.join(parts) or 'nothing changed'}"


def _some(names: tuple[str, ...]) -> str:
    """The names as a line of a log has room for them."""
    more = len(names) - _MOST_NAMES
    return escaped(", ".join(names[:_MOST_NAMES])) + (f" and {more} more" if more > 0 else "")


Listener: TypeAlias = Callable[[Event], None]
"""Called in the thread or task where the event happened. What it raises is logged, and breaks no call."""
