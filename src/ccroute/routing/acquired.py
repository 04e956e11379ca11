"""What an attempt acquires before it sends, and how it gives it back.

The admission by the deployment's health, its entry in the load, tokens of the retry budget, its turn under a
rate limit: each is acquired once and settled once, however the attempt ends. (The slot at the host is the
driver's, in the same way.)
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from ccroute.errors import CcrouteError
from ccroute.routing.health.breaker import Caller


class HealthReport(NamedTuple):
    """What one attempt says of its deployment's health.

    counts:  True: it failed, and that counts for the breaker. False: it was answered. None: neither.
    error:   what to raise for calls that are turned away because of it.
    cool:    seconds for which the server asked to get no calls.
    off:     what is switched off, for `seconds`; they double each time up to `longest`, if that is given.
    key:     the fingerprint of the key that was refused.
    caller:  of a failure: the caller whose fault it may be; None where it is no caller's.
    gone:    whether the server seems to be away: it refused the connection, or broke it.
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


NEUTRAL = HealthReport()
ANSWERED = HealthReport(counts=False)


class Unavailable(NamedTuple):
    """Why a deployment gets no call, and until when (monotonic seconds).

    cooling: the server or a limit asks for it, so the call may sleep until then; what is switched off may
             only be tried early, by one probe.
    keys:    the fingerprints of the keys that were refused, where that is the reason.
    limited: a limit of the configuration is reached; those who wait for it queue.
    """

    until: float
    why: str
    error: CcrouteError | None
    cooling: bool = False
    keys: frozenset[int] | None = None
    limited: bool = False


class AttemptOutcome(NamedTuple):
    """How an attempt ended.

    health:        what it says of the deployment's health.
    ok:            True: it was answered. False: the deployment failed. None: neither, because it was
                   cancelled or the request itself was at fault.
    first_content: seconds until a stream's first content; None for a whole answer.
    duration:      seconds until the answer was complete, without the wait for a slot; 0 if not measured.
    output:        tokens of the answer.
    """

    health: HealthReport = NEUTRAL
    ok: bool | None = None
    first_content: float | None = None
    duration: float = 0.0
    output: int = 0


UNDECIDED = AttemptOutcome()


class Acquired(Protocol):
    """Something that an attempt holds."""

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """Give it back; only the first call counts. Never waits. None: no attempt was made with it."""
