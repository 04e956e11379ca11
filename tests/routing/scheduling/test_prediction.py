"""The predicted wait: seconds until a call that came now would begin to be answered."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.routing.scheduling.support import ONE, SWAPS, TWO, Bed

from ccroute.routing.scheduling import ArrivalOrder, HostLimits, Place


def predicted(bed: Bed, *models: str, priority: int = 0) -> list[float]:
    return [bed.hosts.predicted(Place(ONE, model), priority, bed.now) for model in models]


def test_at_a_free_host_it_is_the_load() -> None:
    bed = Bed(load=3.0)
    bed.hosts.listed(ONE, [("a", None)], 0.0)
    assert predicted(bed, "a", "b") == [0.0, 3.0]


def test_a_loaded_model_s_queue_is_before_it() -> None:
    bed = Bed(seconds=2.0, load=3.0)
    for call in ("a0", "a1", "a2"):
        bed.enter(call, "a")
    assert predicted(bed, "a") == [pytest.approx(5.0 + 2 * 2.0, abs=0.01)]
    bed.now += 4.0
    assert predicted(bed, "a") == [pytest.approx(1.0 + 2 * 2.0, abs=0.01)]


def test_another_model_is_loaded_after_the_queue_of_the_loaded_one() -> None:
    bed = Bed(seconds=2.0, load=3.0)
    for call, model in {"a0": "a", "a1": "a", "b0": "b"}.items():
        bed.enter(call, model)
    waits = 5.0 + 2.0 + 3.0 + 2.0  # a0 with its load, a1, the load of b, b0
    assert predicted(bed, "b")[0] == pytest.approx(waits, rel=0.35)
    assert predicted(bed, "c")[0] > predicted(bed, "b")[0]


def test_who_has_to_wait_for_a_switch_first_waits_longer() -> None:
    bed = Bed(seconds=2.0, load=1.0)
    bed.enter("a0", "a")
    bed.enter("b0", "b")
    bed.now += 11.0
    for number in range(1, 4):
        bed.enter(f"a{number}", "a")
    assert predicted(bed, "a")[0] > 3 * 2.0 + 1.0 + 1.0


def test_calls_of_lower_priority_do_not_count() -> None:
    bed = Bed(load=3.0)
    for number in range(5):
        bed.enter(f"a{number}", "a")
    low, high = (predicted(bed, "a", priority=priority)[0] for priority in (0, 1))
    assert low - high == pytest.approx(4.0)


def test_hosts_share_what_waits_for_any_of_them() -> None:
    bed = Bed(limits={"one": SWAPS, "two": SWAPS})
    for origin in (ONE, TWO):
        bed.hosts.listed(origin, [("a", None)], 0.0)
    for number in range(6):
        bed.enter(f"a{number}", Place(ONE, "a"), Place(TWO, "a"))
    assert bed.hosts.predicted(Place(ONE, "a"), 0, bed.now) == pytest.approx(1.0 + 2.0, abs=0.01)
    bed.enter("b", Place(ONE, "b"), Place(TWO, "b"))
    assert bed.hosts.predicted(Place(ONE, "c"), 0, bed.now) > 4.0


def test_several_slots_serve_sooner() -> None:
    waits = []
    for slots in (1, 4):
        bed = Bed(limits={"one": HostLimits(slots, loads_models=True)})
        for number in range(12):
            bed.enter(f"a{number}", "a")
        waits += predicted(bed, "a")
    assert waits[0] > 2 * waits[1]


def test_queues_of_different_priority_are_before_it() -> None:
    bed = Bed()
    bed.enter("a0", "a")
    bed.enter("a1", "a", priority=1)
    bed.enter("a2", "a")
    assert predicted(bed, "a") == [pytest.approx(2.0 + 2.0, abs=0.01)]


def test_a_scheduler_of_ones_own_has_no_bound() -> None:
    bed = Bed(ArrivalOrder())
    bed.enter("a0", "a")
    bed.enter("b0", "b")
    bed.now += 100.0
    bed.enter("a1", "a")
    assert predicted(bed, "a")[0] == pytest.approx(98.0 + 1.0, abs=0.1)


def test_a_call_of_which_nothing_is_known_takes_as_long_as_others() -> None:
    bed = Bed(seconds=7.0, load=2.0)
    assert bed[ONE].service_seconds("new") == pytest.approx(7.0)
    assert bed[ONE].load_seconds("new") == pytest.approx(2.0)
    grant = bed.hosts.enter("x", [Place(ONE, "new")], 0, 0.0) or next(iter(bed.hosts.grants(0.0)))
    bed.hosts.measured(grant, 0.01, 1.0, 1.0)  # the server had it loaded, so that was no load
    bed.hosts.measured(replace(grant, idle=False), 50.0, 1.0, 1.0)  # it waited for another model, too
    assert bed[ONE].load_seconds("new") == pytest.approx(2.0)
    assert bed[ONE].service_seconds("new") == 1.0
