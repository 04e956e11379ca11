"""How busy, how quick and how reliable each deployment is, as seen by the calls of one router.

Knows calls that begin and end; must not know what is decided from it. The clock is injected.

Nothing here waits, because a finaliser may end a call in the middle of anything: calls in flight are
members of sets, whose `add` and `remove` are atomic, and what was measured is a value that is replaced
as a whole. Of two threads that measure at once one may lose its sample; nobody sees half of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ccroute.backends.origin import Origin
from ccroute.routing.acquired import AttemptOutcome
from ccroute.routing.tables import MAX_KNOWN, Deployment

FAILURE_HALF_LIFE = 30.0
"""Seconds after which an outcome counts half: as long as a breaker first stays open."""
LATENCY_HALF_LIFE = 60.0
"""Seconds after which an answer's time counts half: long enough that one long prompt does not turn the
order round, short enough to see a host slow down within a few answers of a minute each."""
MEMORY = 30
"""Outcomes and answers that count at most: at a hundred a second, half-lives look back at thousands."""
STALE = 120.0
"""Seconds after which a latency is no more than a guess: two half-lives without an answer."""
ASSUMED = 2.0
"""Successes assumed of everybody, so that one failure halves nobody's rate, and time alone restores it."""
FORGOTTEN = 0.25
"""Failures, decayed, that count as none: one is forgotten after a minute, and equals are equal again."""
USUAL_SECONDS_PER_TOKEN = 0.02
"""Seconds a token that are assumed until answers of different lengths tell it: 50 tokens a second."""
SPREAD = 20.0**2
"""Tokens²: the variance of lengths from which on the measured latency outweighs the assumed one."""


class Outcomes(NamedTuple):
    """How calls ended lately: decayed counts as of `at` (monotonic seconds)."""

    known: float = 0.0
    failures: float = 0.0
    failed_last: bool = False
    at: float = 0.0

    def after(self, ok: bool, now: float) -> Outcomes:
        """With one more."""
        kept = _kept(self.known, now - self.at, FAILURE_HALF_LIFE)
        return Outcomes(self.known * kept + 1, self.failures * kept + (not ok), not ok, now)

    def success_rate(self, now: float) -> float:
        """The share that succeeded, 0 to 1; it recovers by time alone."""
        kept = 0.5 ** ((now - self.at) / FAILURE_HALF_LIFE)
        failures = self.failures * kept
        return 1.0 if failures < FORGOTTEN else 1.0 - failures / (self.known * kept + ASSUMED)


class LatencyEstimate(NamedTuple):
    """A line through the points (n, seconds until the n-th token was there), by least squares.

    A stream shows two points of it, its first content and its end; a whole answer shows its end. The
    fields are decayed sums as of `at` (monotonic seconds); an answer weighs 1, however many its points.
    `at_once` sums the calls that the host had when each answer was asked for.
    """

    answers: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    at_once: float = 0.0
    at: float = 0.0

    def after(self, outcome: AttemptOutcome, at_once: int, now: float) -> LatencyEstimate:
        """With one more answer. A stale latency is dropped: a host that recovered is judged by how it is."""
        first_content, duration, output = outcome.first_content, outcome.duration, outcome.output
        kept = 0.0 if self.is_stale(now) else _kept(self.answers, now - self.at, LATENCY_HALF_LIFE)
        share = 1.0 if first_content is None else 0.5
        return LatencyEstimate(
            self.answers * kept + 1,
            self.tokens * kept + share * output,
            self.seconds * kept + share * duration + (1 - share) * (first_content or 0.0),
            self.squares * kept + share * output * output,
            self.products * kept + share * output * duration,
            self.at_once * kept + at_once,
            now,
        )

    def is_stale(self, now: float) -> bool:
        """Whether the last answer is too long ago to rely on."""
        return now - self.at > STALE

    def predict(self, output: float) -> float:
        """Seconds until `output` tokens are there; no part of the line is below zero.

        Where all answers had about the same length, they do not tell how the time splits into a
        beginning and tokens: then `USUAL_SECONDS_PER_TOKEN` does.
        """
        tokens, seconds = self.tokens / self.answers, self.seconds / self.answers
        variance = max(0.0, self.squares / self.answers - tokens * tokens)
        covariance = self.products / self.answers - tokens * seconds
        slope = max(0.0, (covariance + SPREAD * USUAL_SECONDS_PER_TOKEN) / (variance + SPREAD))
        if tokens:
            slope = min(slope, seconds / tokens)
        return seconds + slope * (output - tokens)

    def usual(self) -> float:
        """How many calls the host had at once when this was measured."""
        return self.at_once / self.answers


class LoadSnapshot(NamedTuple):
    """What is known of a deployment at one moment.

    in_flight:    calls its host has now, to whatever model: they share it.
    running:      those of them that this deployment has.
    success_rate: 0 to 1, 1 where nothing speaks against it.
    failed_last:  whether it has answered nothing since its last failure.
    latency:         how quick its answers came; None where none was measured.
    stale:        whether that is too long ago to rely on.
    """

    in_flight: int = 0
    running: int = 0
    success_rate: float = 1.0
    failed_last: bool = False
    latency: LatencyEstimate | None = None
    stale: bool = False


class _Known:
    """One deployment at one host; `host` holds the calls of every deployment there."""

    __slots__ = ("host", "latency", "origin", "outcomes", "running")

    def __init__(self, origin: Origin, host: set[_InFlight]) -> None:
        self.origin = origin
        self.host = host
        self.running: set[_InFlight] = set()
        self.outcomes = Outcomes()
        self.latency: LatencyEstimate | None = None


class _InFlight:
    """What stands for a call in the sets."""

    __slots__ = ()


class Running:
    """One call in flight; one that is dropped is over, too."""

    __slots__ = ("at_once", "entry", "known", "monotonic")

    def __init__(self, known: _Known, monotonic: Callable[[], float]) -> None:
        self.known = known
        self.monotonic = monotonic
        self.entry = _InFlight()
        known.running.add(self.entry)
        known.host.add(self.entry)
        self.at_once = len(known.host)

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """The call is over; only the first call counts. Never waits."""
        known = self.known
        try:
            known.running.remove(self.entry)
        except KeyError:  # settled before
            return
        known.host.discard(self.entry)
        if outcome is None or outcome.ok is None:
            return
        now = self.monotonic()
        known.outcomes = known.outcomes.after(outcome.ok, now)
        if outcome.ok and outcome.duration > 0:
            latency = known.latency or LatencyEstimate(at=now)
            known.latency = latency.after(outcome, self.at_once, now)

    def __del__(self) -> None:
        if hasattr(self, "entry"):  # an interrupt may come before
            self.known.running.discard(self.entry)
            self.known.host.discard(self.entry)


class Load:
    """The load of every deployment of one router. Threads, tasks and finalisers may use it at once."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._known: dict[str, _Known] = {}
        self._hosts: dict[Origin, set[_InFlight]] = {}

    def begin(self, deployment: Deployment) -> Running:
        """A call goes to `deployment`, or into the queue of its host. Every call begun is settled."""
        known = self._known.get(deployment.name)
        if known is None or known.origin != deployment.backend.origin:
            known = self._add(deployment)
        return Running(known, self._monotonic)

    def snapshot(self, deployment: Deployment) -> LoadSnapshot:
        """What is known of `deployment` now."""
        known = self._find(deployment)
        if known is None:
            return LoadSnapshot(in_flight=len(self._hosts.get(deployment.backend.origin, ())))
        now, outcomes, latency = self._monotonic(), known.outcomes, known.latency
        return LoadSnapshot(
            len(known.host),
            len(known.running),
            outcomes.success_rate(now),
            outcomes.failed_last,
            latency,
            latency is not None and latency.is_stale(now),
        )

    def in_flight(self, origin: Origin) -> int:
        """Calls that a host has now."""
        return len(self._hosts.get(origin, ()))

    def stats(self) -> dict[str, tuple[int, float]]:
        """Calls in flight and success rate of each deployment that was asked."""
        now = self._monotonic()
        known = list(self._known.items())
        return {name: (len(each.running), each.outcomes.success_rate(now)) for name, each in known}

    def after_fork(self) -> None:
        """In a forked child: the calls in flight are those of threads that are not here."""
        for known in self._known.values():
            known.running.clear()
            known.host.clear()

    def _find(self, deployment: Deployment) -> _Known | None:
        """What is known by that name, unless a reload has moved it to another host."""
        known = self._known.get(deployment.name)
        return known if known is not None and known.origin == deployment.backend.origin else None

    def _add(self, deployment: Deployment) -> _Known:
        origin = deployment.backend.origin
        known = _Known(origin, self._hosts.setdefault(origin, set()))
        if len(self._known) >= MAX_KNOWN:
            self._known = {}  # to drop one, another thread would have to keep off
        self._known[deployment.name] = known
        return known


def _kept(weight: float, seconds: float, half_life: float) -> float:
    """The factor by which what weighed `weight` counts after `seconds`, with room for one in MEMORY."""
    kept = 0.5 ** (seconds / half_life)
    return kept if weight * kept <= MEMORY - 1 else (MEMORY - 1) / weight
