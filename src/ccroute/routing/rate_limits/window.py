"""What was sent in the last minute, and when there is room for more. Pure: every instant is handed in.

The window slides: in any 60 seconds no more is sent than the limit, and all of it may be sent at once.
Providers count in buckets that refill (Anthropic) or in shorter windows (OpenAI); what keeps to the sliding
window also keeps to a full bucket of that size. Sources: https://platform.claude.com/docs/en/api/rate-limits,
https://developers.openai.com/api/docs/guides/rate-limits
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

WINDOW = 60.0
"""Seconds in which a limit counts."""
STEP = 0.1
"""Requests of so many seconds are counted together, until a minute after the last of them. So a window has
600 counters at most, and a request waits at most that much too long."""


class Limit(NamedTuple):
    """The most requests and tokens of a deployment or an agent in a minute; None: any number.

    identity: what was sent is counted under this: a deployment's identity, or an agent's name.
    """

    of: Literal["deployment", "agent"]
    identity: str
    name: str
    rpm: int | None
    tpm: int | None = None

    def reserved(self, prompt: int, max_tokens: int | None) -> int:
        """The tokens to reserve for a request.

        A `max_tokens` that does not fit into the whole limit says nothing of the answer: it is left out.
        """
        whole = prompt + (max_tokens or 0)
        return prompt if self.tpm is not None and whole > self.tpm else whole


class Room(NamedTuple):
    """The instant (monotonic) at which there is room, and the limit that is in the way until then."""

    at: float
    limit: str


@dataclass(slots=True, eq=False)
class Step:
    """What was sent between two instants that are at most `STEP` apart. `counts`: within the last minute."""

    first: float
    last: float
    requests: int = 0
    tokens: int = 0
    counts: bool = True


class Window:
    """What was sent in the last minute."""

    def __init__(self) -> None:
        self.steps: deque[Step] = deque()
        self.requests = 0
        self.tokens = 0

    def forget(self, now: float) -> None:
        """Drop what is older than a minute."""
        steps = self.steps
        while steps and steps[0].last + WINDOW <= now:
            old = steps.popleft()
            old.counts = False
            self.requests -= old.requests
            self.tokens -= old.tokens

    def add(self, now: float, requests: int, tokens: int) -> Step:
        """Count what is sent now."""
        if not self.steps or now - self.steps[-1].first > STEP:
            self.steps.append(Step(now, now))
        step = self.steps[-1]
        if now > step.last:  # another thread may have read the clock later
            step.last = now
        step.requests += requests
        step.tokens += tokens
        self.requests += requests
        self.tokens += tokens
        return step

    def renew(self, step: Step, now: float) -> bool:
        """Count from now on what was counted a moment ago; False where that is too long ago."""
        if now - step.first > STEP or step is not self.steps[-1]:
            return False
        step.last = max(step.last, now)
        return True

    def take_back(self, step: Step, requests: int, tokens: int) -> None:
        """Count something no longer."""
        if step.counts:
            step.requests -= requests
            step.tokens -= tokens
            self.requests -= requests
            self.tokens -= tokens

    def fits(self, limit: Limit, tokens: int) -> bool:
        """Whether one more request may be sent. One with more tokens than the whole limit goes alone."""
        if limit.rpm is not None and self.requests >= limit.rpm:
            return False
        return limit.tpm is None or not self.tokens or self.tokens + tokens <= limit.tpm

    def room(self, limit: Limit, now: float, requests: int, tokens: int) -> Room:
        """When so much fits, if nothing else is sent meanwhile. For more than one request it may be later:
        their tokens may not fill a window exactly."""
        found = Room(now, "")
        if limit.rpm is not None:
            at = self._free("requests", limit.rpm, requests, now)
            found = Room(at, f"rpm={limit.rpm}")
        if limit.tpm is not None:
            at = self._free("tokens", limit.tpm, tokens, now)
            if at > found.at or limit.rpm is None:
                found = Room(at, f"tpm={limit.tpm}")
        return found

    def _free(self, measure: Literal["requests", "tokens"], limit: int, wanted: int, now: float) -> float:
        full_windows, rest = divmod(max(wanted, 1) - 1, limit)
        used: int = getattr(self, measure)
        excess = used + rest + 1 - limit
        at = now
        for step in self.steps:
            if excess <= 0:
                break
            excess -= getattr(step, measure)
            at = step.last + WINDOW
        return at + full_windows * WINDOW
