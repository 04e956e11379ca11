"""What is known of a host's load is right, never waits, and is forgotten in time."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flow.support import FakeClock, PlainBackend

from ccroute.backends import Backend, OpenAIBackend
from ccroute.routing import Deployment
from ccroute.routing.acquired import AttemptOutcome
from ccroute.routing.load import FAILURE_HALF_LIFE, LATENCY_HALF_LIFE, MEMORY, STALE, LatencyEstimate, Load
from ccroute.types import Model


def deployment(backend: Backend | str = "mini", model: str = "m") -> Deployment:
    backend = PlainBackend(backend) if isinstance(backend, str) else backend
    return Deployment(f"{backend.name}/{model}", backend, model, Model(), None)


class LoadScenario:
    """A load on a clock that is set, and one deployment that it is about."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.load = Load(self.clock.monotonic)
        self.deployment = deployment()

    def ends(self, *outcomes: bool | None, **measured: Any) -> LoadScenario:
        for ok in outcomes:
            self.load.begin(self.deployment).settle(AttemptOutcome(ok=ok, **measured))
        return self

    def after(self, seconds: float) -> LoadScenario:
        self.clock.elapsed += seconds
        return self

    @property
    def rate(self) -> float:
        return self.load.snapshot(self.deployment).success_rate

    @property
    def latency(self) -> LatencyEstimate:
        latency = self.load.snapshot(self.deployment).latency
        assert latency is not None
        return latency


# -- In flight


def test_models_and_backends_of_one_host_share_its_calls() -> None:
    load = Load(lambda: 0.0)
    here = OpenAIBackend("a", base_url="http://gpu.test:1/v1")
    same = OpenAIBackend("b", base_url="http://gpu.test:1/other")
    other = OpenAIBackend("c", base_url="http://gpu.test:2/v1")
    running = load.begin(deployment(here, "x"))
    others = [load.begin(deployment(same, "y")), load.begin(deployment(other, "x"))]
    snapshot = load.snapshot(deployment(here, "x"))
    assert (snapshot.in_flight, snapshot.running) == (2, 1)
    assert load.snapshot(deployment(same, "never asked")).in_flight == 2
    running.settle(AttemptOutcome(ok=None))
    assert load.snapshot(deployment(here, "x")).in_flight == 1
    del others
    assert load.snapshot(deployment(here, "x")).in_flight == 0, "one that is dropped is over"


def test_a_load_without_latencies_still_counts_outcomes() -> None:
    load = Load(lambda: 0.0, has_latency=False)
    load.begin(deployment()).settle(AttemptOutcome(ok=True, duration=1.0, output=5))
    load.begin(deployment()).settle(AttemptOutcome(ok=False))
    snapshot = load.snapshot(deployment())
    assert (snapshot.latency, snapshot.failed_last, snapshot.success_rate) == (None, True, 0.75)


def test_nothing_is_known_of_a_host_that_was_never_asked() -> None:
    assert Load(lambda: 0.0).snapshot(deployment()) == (0, 0, 1.0, False, None, False)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 9), st.sampled_from([True, False, None]))))
def test_calls_in_flight_are_those_begun_and_not_ended(steps: list[tuple[str, int, bool | None]]) -> None:
    load, hosts = Load(lambda: 0.0), {name: deployment(name) for name in "xyz"}
    begun: list[tuple[str, Any]] = []
    open_calls: set[int] = set()
    for name, which, ok in steps:
        if which > len(begun) - 1:
            open_calls.add(len(begun))
            begun.append((name, load.begin(hosts[name])))
        else:  # also those that are ended already
            begun[which][1].settle(AttemptOutcome(ok=ok))
            open_calls.discard(which)
        for host, known in hosts.items():
            expected = sum(begun[call][0] == host for call in open_calls)
            assert load.snapshot(known)[:2] == (expected, expected)
    for _, running in begun:
        running.settle(AttemptOutcome(ok=None))
    assert all(load.snapshot(known)[:2] == (0, 0) for known in hosts.values())


def test_a_call_in_flight_is_settled_only_once() -> None:
    scene = LoadScenario()
    running = scene.load.begin(scene.deployment)
    running.settle(AttemptOutcome(ok=True))
    running.settle(AttemptOutcome(ok=False))
    assert scene.rate == 1.0


def test_threads_that_begin_and_end_at_once_leave_nothing_behind() -> None:
    scene = LoadScenario()
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(500):
            scene.ends(True, False, None, duration=1.0, output=10)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = scene.load.snapshot(scene.deployment)
    assert (snapshot.in_flight, snapshot.running) == (0, 0)
    assert snapshot.success_rate == pytest.approx(0.5, abs=0.1)
    assert scene.latency.predict(10) == pytest.approx(1.0)


def test_calls_that_end_in_a_finaliser_leave_nothing_behind() -> None:
    scene = LoadScenario()

    def stream(circle: list[Any]) -> Iterator[None]:
        running = scene.load.begin(scene.deployment)
        try:
            circle.append(running)
            yield
        finally:
            running.settle(AttemptOutcome(ok=False))

    def abandon() -> None:
        circle: list[Any] = []
        circle.append(stream(circle))
        next(circle[0])

    before = gc.get_threshold()
    gc.set_threshold(3)
    try:
        for _ in range(300):
            abandon()
            scene.ends(True, duration=1.0, output=10)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    snapshot = scene.load.snapshot(scene.deployment)
    assert (snapshot.in_flight, snapshot.running) == (0, 0)


def test_a_forked_child_has_no_calls_in_flight() -> None:
    scene = LoadScenario()
    running = scene.load.begin(scene.deployment)
    scene.load.after_fork()
    assert scene.load.snapshot(scene.deployment).in_flight == 0
    running.settle(AttemptOutcome(ok=True))
    assert scene.load.snapshot(scene.deployment).in_flight == 0


def test_a_backend_at_another_host_begins_without_history() -> None:
    load = Load(lambda: 0.0)
    before, after = (
        deployment(OpenAIBackend("a", base_url=f"http://{host}.test")) for host in ("old", "new")
    )
    running = load.begin(before)
    load.begin(before).settle(AttemptOutcome(ok=False))
    assert load.snapshot(after) == (0, 0, 1.0, False, None, False)
    load.begin(after).settle(AttemptOutcome(ok=True))
    running.settle(AttemptOutcome(ok=True))
    assert load.snapshot(before).in_flight == load.snapshot(after).in_flight == 0


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.routing.load.MAX_KNOWN", 10)
    load, backend = Load(lambda: 0.0), PlainBackend("a")
    calls = [load.begin(deployment(backend, f"m{i}")) for i in range(25)]
    assert len(load.stats()) <= 10
    assert load.snapshot(deployment(backend)).in_flight == 25
    for running in calls:
        running.settle(AttemptOutcome(ok=False))
    assert load.snapshot(deployment(backend)).in_flight == 0


# -- Success rate


def test_failures_lower_the_success_rate_and_time_alone_restores_it() -> None:
    scene = LoadScenario().ends(*[False] * 10)
    assert scene.rate < 0.2
    rates = [scene.after(FAILURE_HALF_LIFE).rate for _ in range(8)]
    assert rates == sorted(rates)
    assert rates[-1] == 1.0


def test_one_failure_weighs_the_less_the_more_was_answered() -> None:
    assert LoadScenario().ends(False).rate == pytest.approx(2 / 3)
    assert LoadScenario().ends(*[True] * 20, False).rate == pytest.approx(22 / 23)


def test_what_neither_answered_nor_failed_says_nothing() -> None:
    scene = LoadScenario().ends(*[None] * 10)
    snapshot = scene.load.snapshot(scene.deployment)
    assert (snapshot.success_rate, snapshot.failed_last, snapshot.latency) == (1.0, False, None)


def test_a_busy_host_that_begins_to_fail_is_seen_within_a_few_calls() -> None:
    scene = LoadScenario().ends(*[True] * 1000)
    assert scene.ends(*[False] * 10).rate < 0.8


def test_a_failure_is_the_last_word_until_an_answer_comes() -> None:
    scene = LoadScenario().ends(True, False, None).after(1000)
    assert scene.load.snapshot(scene.deployment).failed_last
    scene.ends(True)
    assert not scene.load.snapshot(scene.deployment).failed_last


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1000)), max_size=60))
def test_a_success_rate_is_a_share_and_never_zero(steps: list[tuple[bool, float]]) -> None:
    scene = LoadScenario()
    for ok, seconds in steps:
        assert 0 < scene.ends(ok).after(seconds).rate <= 1


# -- LatencyEstimate


def test_a_stream_measures_its_first_content_and_its_rate() -> None:
    scene = LoadScenario().ends(*[True] * 10, first_content=2.0, duration=6.0, output=400)
    assert scene.latency.predict(0) == pytest.approx(2.0, abs=0.1)
    assert scene.latency.predict(800) == pytest.approx(10.0, abs=0.2)


def test_whole_answers_of_different_lengths_tell_it_too() -> None:
    scene = LoadScenario()
    for output in (50, 400, 100, 300, 200):
        scene.ends(True, duration=1.0 + 0.05 * output, output=output)
    assert scene.latency.predict(0) == pytest.approx(1.0, abs=0.2)
    assert scene.latency.predict(1000) == pytest.approx(51.0, rel=0.02)


def test_streams_and_whole_answers_measure_the_same_line() -> None:
    scene = LoadScenario()
    scene.ends(True, first_content=1.0, duration=5.0, output=200)
    scene.ends(True, duration=9.0, output=400)
    assert scene.latency.predict(300) == pytest.approx(7.0, abs=0.1)


def test_one_short_answer_does_not_make_long_ones_look_endless() -> None:
    scene = LoadScenario().ends(True, duration=0.5, output=2)
    assert scene.latency.predict(400) == pytest.approx(0.5 + 398 * 0.02)


def test_answers_of_one_length_are_predicted_as_they_were() -> None:
    scene = LoadScenario().ends(*[True] * 10, duration=3.0, output=1000)
    assert scene.latency.predict(1000) == pytest.approx(3.0)
    assert 0 <= scene.latency.predict(0) < 3.0


def test_an_answer_without_a_duration_gives_no_speed() -> None:
    scene = LoadScenario().ends(True, output=100)
    assert scene.load.snapshot(scene.deployment).latency is None


def test_an_old_answer_counts_less() -> None:
    scene = LoadScenario().ends(True, duration=1.0, output=100).after(LATENCY_HALF_LIFE)
    scene.ends(True, duration=4.0, output=100)
    assert scene.latency.predict(100) == pytest.approx((0.5 * 1 + 4) / 1.5)


def test_a_busy_hosts_latency_follows_its_last_answers() -> None:
    scene = LoadScenario().ends(*[True] * 1000, duration=1.0, output=100)
    scene.ends(*[True] * 2 * MEMORY, duration=5.0, output=100)
    assert scene.latency.predict(100) > 4


def test_a_latency_goes_stale_and_is_then_measured_afresh() -> None:
    scene = LoadScenario().ends(*[True] * 30, duration=60.0, output=100).after(STALE)
    assert not scene.load.snapshot(scene.deployment).stale
    scene.after(1)
    assert scene.load.snapshot(scene.deployment).stale
    scene.ends(True, duration=1.0, output=100)
    assert not scene.load.snapshot(scene.deployment).stale
    assert scene.latency.predict(100) == pytest.approx(1.0)


def test_a_latency_knows_how_many_calls_its_host_had() -> None:
    scene = LoadScenario()
    calls = [scene.load.begin(scene.deployment) for _ in range(3)]
    for running in calls:
        running.settle(AttemptOutcome(ok=True, duration=1.0, output=10))
    assert scene.latency.usual() == pytest.approx(2.0)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1) | st.none(),
            st.floats(1e-6, 1e4),
            st.integers(0, 10**6),
            st.floats(0, 300),
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(0, 10**6),
)
def test_no_prediction_is_negative(
    answers: list[tuple[float | None, float, int, float]], output: int
) -> None:
    scene = LoadScenario()
    for part, duration, tokens, pause in answers:
        first = None if part is None else part * duration
        scene.after(pause).ends(True, first_content=first, duration=duration, output=tokens)
    assert scene.latency.predict(output) >= -1e-6
