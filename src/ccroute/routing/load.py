"""How busy, how quick and how reliable each deployment is, measured by the calls of one router.

Must not know what is decided from the measurements. The clock is injected.

Nothing here waits, because a finaliser may end a call in the middle of any other code. Calls in flight are
members of sets, whose `add` and `remove` are atomic. A measurement is a value that is replaced as a whole:
if two threads replace it at once, one sample is lost, but no reader sees half of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ccroute.http.origin import Origin
from ccroute.routing.acquired import AttemptOutcome
from ccroute.routing.tables.deployments import Deployment
from ccroute.routing.tables.tables import MAX_KNOWN

FAILURE_HALF_LIFE = 30.0
"""Seconds after which an outcome counts half. As long as a breaker first stays open."""
LATENCY_HALF_LIFE = 60.0
"""Seconds after which an answer's time counts half. Long enough that one long prompt does not reverse the
order; short enough to notice a slower host after a few answers of a minute each."""
MEMORY = 30
"""Outcomes and answers that count at most. At a hundred a second, half-lives alone would keep thousands."""
STALE = 120.0
"""Seconds without an answer after which a latency is only a guess: two half-lives."""
ASSUMED = 2.0
"""Successes added to every rate: so one failure does not halve it, and it recovers with time alone."""
FORGOTTEN = 0.25
"""Fewer decayed failures count as 0: one is forgotten after a minute, and equal hosts are equal again."""
USUAL_SECONDS_PER_TOKEN = 0.02
"""Seconds per token, assumed until answers of different lengths were measured: 50 tokens a second."""
SPREAD = 20.0**2
"""Tokens²: with a larger variance of lengths, the measured time per token outweighs the assumed one."""


class Outcomes(NamedTuple):
    """How recent calls ended: decayed counts at the instant `at` (monotonic seconds)."""

    known: float = 0.0
    failures: float = 0.0
    failed_last: bool = False
    at: float = 0.0

    def after(self, ok: bool, now: float) -> Outcomes:
        """The counts with one more outcome."""
        kept = _decay(self.known, now - self.at, FAILURE_HALF_LIFE)
        return Outcomes(self.known * kept + 1, self.failures * kept + (not ok), not ok, now)

    def success_rate(self, now: float) -> float:
        """The share of successes, 0 to 1. It recovers with time alone."""
        kept = 0.5 ** ((now - self.at) / FAILURE_HALF_LIFE)
        failures = self.failures * kept
        return 1.0 if failures < FORGOTTEN else 1.0 - failures / (self.known * kept + ASSUMED)


class LatencyEstimate(NamedTuple):
    """A line through the points (n, seconds until the n-th token was received), by least squares.

    A stream gives two points, its first content and its end; a whole answer gives its end. The fields are
    decayed sums at the instant `at` (monotonic seconds). An answer weighs 1, with one point or two.
    `at_once` sums the calls in flight at the host when each request was sent.
    """

    answers: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    at_once: float = 0.0
    at: float = 0.0

    def after(self, outcome: AttemptOutcome, at_once: int, now: float) -> LatencyEstimate:
        """The estimate with one more answer. A stale estimate is dropped: the host may have recovered."""
        first_content, duration, output = outcome.first_content, outcome.duration, outcome.output
        kept = 0.0 if self.is_stale(now) else _decay(self.answers, now - self.at, LATENCY_HALF_LIFE)
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
        """Whether the last answer is too old to rely on."""
        return now - self.at > STALE

    def predict(self, output: float) -> float:
        """Seconds until `output` tokens are received. The line has no negative start or slope.

        If all answers had about the same length, the time per token cannot be measured: then
        `USUAL_SECONDS_PER_TOKEN` is used.
        """
        tokens, seconds = self.tokens / self.answers, self.seconds / self.answers
        variance = max(0.0, self.squares / self.answers - tokens * tokens)
        covariance = self.products / self.answers - tokens * seconds
        slope = max(0.0, (covariance + SPREAD * USUAL_SECONDS_PER_TOKEN) / (variance + SPREAD))
        if tokens:
            slope = min(slope, seconds / tokens)
        return seconds + slope * (output - tokens)

    def usual(self) -> float:
        """The mean number of calls that the host had in flight when this was measured."""
        return self.at_once / self.answers


class LoadSnapshot(NamedTuple):
    """The load of a deployment at one moment.

    in_flight:    calls in flight at its host, to any model: they share the host.
    running:      those of them that are for this deployment.
    success_rate: 0 to 1; 1 if no failure is known.
    failed_last:  whether its last outcome was a failure.
    latency:      the estimate of its latency; None if nothing was measured.
    stale:        whether `latency` is too old to rely on.
    """

    in_flight: int = 0
    running: int = 0
    success_rate: float = 1.0
    failed_last: bool = False
    latency: LatencyEstimate | None = None
    stale: bool = False


class DeploymentLoad(NamedTuple):
    """Calls in flight to a deployment, and its success rate. `backend` is its backend's identity."""

    name: str
    backend: str
    in_flight: int
    success_rate: float


class _Measured:
    """The measurements of one deployment. `host` has the calls to every deployment of the same host."""

    __slots__ = ("backend", "has_latency", "host", "latency", "name", "outcomes", "running")

    def __init__(self, deployment: Deployment, host: set[object], *, has_latency: bool) -> None:
        self.name = deployment.name
        self.backend = deployment.backend.identity
        self.host = host
        self.has_latency = has_latency
        self.running: set[object] = set()
        self.outcomes = Outcomes()
        self.latency: LatencyEstimate | None = None


class Running:
    """One call in flight. Dropping the object ends it, too."""

    __slots__ = ("at_once", "entry", "known", "monotonic")

    def __init__(self, known: _Measured, monotonic: Callable[[], float]) -> None:
        self.known = known
        self.monotonic = monotonic
        self.entry = object()
        known.running.add(self.entry)
        known.host.add(self.entry)
        self.at_once = len(known.host)

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """End the call and record its outcome. Later calls do nothing. Never waits."""
        known = self.known
        try:
            known.running.remove(self.entry)
        except KeyError:  # already settled
            return
        known.host.discard(self.entry)
        if outcome is None or outcome.ok is None:
            return
        now = self.monotonic()
        known.outcomes = known.outcomes.after(outcome.ok, now)
        if known.has_latency and outcome.ok and outcome.duration > 0:
            latency = known.latency or LatencyEstimate(at=now)
            known.latency = latency.after(outcome, self.at_once, now)

    def __del__(self) -> None:
        if hasattr(self, "entry"):  # an interrupt in `__init__` may come before it is set
            self.known.running.discard(self.entry)
            self.known.host.discard(self.entry)


class Load:
    """The load of every deployment of one router. Threads, tasks and finalisers may use it at once.

    has_latency: whether latencies are measured; only the strategy `latency` reads them.

    What is measured is kept by a deployment's identity.
    """

    def __init__(self, monotonic: Callable[[], float], *, has_latency: bool = True) -> None:
        self._monotonic = monotonic
        self._has_latency = has_latency
        self._known: dict[str, _Measured] = {}
        self._hosts: dict[Origin, set[object]] = {}

    def begin(self, deployment: Deployment) -> Running:
        """Count a call to `deployment`, from its place in the host's queue on. The caller settles it."""
        known = self._known.get(deployment.identity)
        if known is None:
            known = self._add(deployment)
        return Running(known, self._monotonic)

    def snapshot(self, deployment: Deployment) -> LoadSnapshot:
        """The load of `deployment` now."""
        known = self._known.get(deployment.identity)
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
        """Calls in flight at a host."""
        return len(self._hosts.get(origin, ()))

    def measure_latency(self, on: bool) -> None:
        """Measure latencies from now on, or no longer."""
        self._has_latency = on
        for known in self._known.copy().values():
            known.has_latency = on

    def stats(self) -> dict[str, DeploymentLoad]:
        """The load of each deployment that got a call, by its identity."""
        now, known = self._monotonic(), self._known.copy()
        return {
            identity: DeploymentLoad(
                each.name, each.backend, len(each.running), each.outcomes.success_rate(now)
            )
            for identity, each in known.items()
        }

    def after_fork(self) -> None:
        """Forget the calls in flight in a forked child: they run in the parent."""
        for known in self._known.values():
            known.running.clear()
            known.host.clear()

    def _add(self, deployment: Deployment) -> _Measured:
        origin = deployment.backend.origin
        host = self._hosts.setdefault(origin, set())
        known = _Measured(deployment, host, has_latency=self._has_latency)
        if len(self._known) >= MAX_KNOWN:
            self._known = {}  # removing single entries is not safe while other threads add some
        self._known[deployment.identity] = known
        return known


def _decay(weight: float, seconds: float, half_life: float) -> float:
    """The decay factor of a `weight` after `seconds`. With one more sample it stays within `MEMORY`."""
    kept = 0.5 ** (seconds / half_life)
    return kept if weight * kept <= MEMORY - 1 else (MEMORY - 1) / weight
