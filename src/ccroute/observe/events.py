"""What a router tells its listeners: one small value per thing that did not go straight.

An event holds names, numbers and cleaned reasons; never a prompt, an answer or a key. `str(event)` is
a line for a log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

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
}


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events."""


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

    def __str__(self) -> str:
        return f"agent {self.agent} uses {self.model}, not the requested {self.requested_model}"


@dataclass(frozen=True, slots=True)
class Queued(CallEvent):
    """A call waits for a host that serves no more at a time; `ahead` wait already."""

    deployment: str
    ahead: int

    def __str__(self) -> str:
        return f"{self.deployment}: waits for its host, {self.ahead} ahead"


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

    def __str__(self) -> str:
        return f"{self.deployment}: tried again after {self.wait:.1f} s"


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

    def __str__(self) -> str:
        return f"{self.deployment}: stream interrupted: {self.reason}"


@dataclass(frozen=True, slots=True)
class TurnedAway(CallEvent):
    """A call ended without an attempt, because all that it may use is left alone; `seconds` is when the
    first of it may be asked again."""

    deployment: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.deployment}: not asked, gets no calls for {self.seconds:.0f} s more: it failed before"


@dataclass(frozen=True, slots=True)
class Recovered(Event):
    """`who`, a deployment or a backend's credential that was refused, is asked again as before."""

    who: str

    def __str__(self) -> str:
        return f"{self.who}: answers again"


@dataclass(frozen=True, slots=True)
class LedgerFailed(CallEvent):
    """An attempt could not be recorded; the call went on. `error` names the exception's class."""

    error: str

    def __str__(self) -> str:
        return f"the ledger could not record an attempt of call {self.call}: {self.error}"


@dataclass(frozen=True, slots=True)
class BreakerOpened(Event):
    """A deployment failed too often: for `seconds` it gets no calls, then one probe. Where a call has nobody
    else left, it is that probe early."""

    deployment: str
    seconds: float
    reason: str

    def __str__(self) -> str:
        return f"{self.deployment}: gets no calls for {self.seconds:.0f} s (breaker open): {self.reason}"


@dataclass(frozen=True, slots=True)
class BreakerClosed(Event):
    """A deployment answers again."""

    deployment: str

    def __str__(self) -> str:
        return f"{self.deployment}: answers again, gets calls as before (breaker closed)"


@dataclass(frozen=True, slots=True)
class CooledDown(Event):
    """`who`, a deployment or a backend's credential, is left alone for `seconds`: the server asked
    for it, or refuses the key or the model."""

    who: str
    seconds: float
    reason: str

    def __str__(self) -> str:
        return f"{self.who}: gets no calls for {self.seconds:.0f} s: {self.reason}"


Listener: TypeAlias = Callable[[Event], None]
"""Called in whichever thread or task the event happened; what it raises is logged and forgotten."""
