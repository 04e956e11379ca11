"""What attempts say of their deployment, and what is said to those who want to ask it: values only."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ccroute.errors import CcrouteError
from ccroute.routing.breaker import Switch
from ccroute.routing.caller import Caller
from ccroute.routing.tables import Deployment


class Note(NamedTuple):
    """What one attempt says of its deployment.

    counts:  True: it failed, and that speaks against it. False: it answered. None: neither.
    error:   what to tell those who are turned away because of it.
    cool:    seconds the server asked to be left alone for.
    off:     what is refused as a whole, and the seconds it is taken to stay so. The credential's
             are doubled each time, up to `longest`.
    key:     the mark of the key that was refused.
    caller:  of a failure: whose request it may have been the fault of; None where it was nobody's.
    gone:    whether the server seems to be gone: it refused the connection, or broke it.
    """

    counts: bool | None = None
    error: CcrouteError | None = None
    cool: float | None = None
    off: Literal["deployment", "credential"] | None = None
    seconds: float = 0.0
    longest: float = 0.0
    key: int = 0
    caller: Caller | None = None
    gone: Literal["refused", "broken"] | None = None


class Refusal(NamedTuple):
    """Why a deployment is not to be asked, and until when (monotonic seconds).

    `cooling`: the server asked for it, so it may be slept through; what is off may only be tried
    early, by one probe. `keys`: it is the backend's key that is refused, and these are the marks of
    those that were.
    """

    until: float
    why: str
    error: CcrouteError | None
    cooling: bool = False
    keys: frozenset[int] | None = None

    @property
    def credential(self) -> bool:
        """Whether another key would be admitted."""
        return self.keys is not None


class Admission:
    """The leave to ask a deployment once. `caller` is the one to note where it is answered."""

    __slots__ = ("caller", "deployment", "settled")

    probes: tuple[Switch, ...] = ()
    lease: object = None
    early = False

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.caller: Caller | None = None
        self.settled = False
