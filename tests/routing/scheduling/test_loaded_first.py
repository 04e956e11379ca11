"""One host with one loaded model: who is next, and when it switches."""

from __future__ import annotations

from typing import Any

import pytest
from tests.routing.scheduling.support import ONE, SWAPS, Bed

from ccroute.routing.scheduling import ArrivalOrder, Estimate, HostLimits, LoadedFirst, Place
from ccroute.types.route import LEAST_LOAD


def test_callers_of_the_loaded_model_come_first_in_order_of_arrival() -> None:
    bed = Bed()
    for call, model in {"a1": "a", "b1": "b", "a2": "a", "b2": "b", "a3": "a"}.items():
        bed.enter(call, model)
    assert bed.order() == ["a2", "a3", "b1", "b2"]


def test_arrival_order_knows_no_models() -> None:
    bed = Bed(ArrivalOrder())
    for call, model in {"a1": "a", "b1": "b", "a2": "a", "b2": "b"}.items():
        bed.enter(call, model)
    bed.enter("b3", "b", priority=1)
    assert bed.order() == ["b3", "b1", "a2", "b2"]


def test_nobody_waits_longer_than_the_bound_while_others_of_the_loaded_model_come_again_and_again() -> None:
    bed = Bed()
    bed.enter("a0", "a")
    bed.enter("b", "b")
    for number in range(1, 30):
        bed.enter(f"a{number}", "a")
        if "b" in bed.end(f"a{number - 1}", after=1.0):
            break
    assert (
        8 <= bed.now <= 11
    )  # twelve loads of 1 s, at least 10 s, with the load; and one call is not stopped


def test_a_bound_of_ones_own_holds_instead() -> None:
    bed = Bed(LoadedFirst(max_wait=3.0))
    bed.enter("a0", "a")
    bed.enter("b", "b")
    bed.enter("a1", "a")
    bed.enter("a2", "a")
    bed.now = 1.2
    bed.enter("a3", "a")  # after the load: no part of the batch
    assert bed.end("a0", after=0.5) == ["a1"]
    assert bed.end("a1", after=0.5) == ["a2"]
    assert bed.end("a2") == ["b"]


def test_a_batch_is_served_whole_though_somebody_has_waited_too_long() -> None:
    bed = Bed(LoadedFirst(max_wait=2.0))
    bed.enter("a0", "a")
    bed.enter("b0", "b")
    for number in range(1, 6):
        bed.enter(f"a{number}", "a")
    bed.now = 1.5
    bed.enter("late", "a")
    assert bed.order(["a0"]) == ["a1", "a2", "a3", "a4", "a5", "b0", "late"]


def test_a_model_that_took_long_to_load_serves_as_long() -> None:
    bed = Bed(LoadedFirst(max_wait=0.5), load=4.0)
    bed.enter("a0", "a")
    bed.enter("b", "b")
    bed.now = 4.5
    for number in range(1, 6):
        bed.enter(f"a{number}", "a")
    assert bed.end("a0", after=0.4) == ["a1"]
    assert bed.order(["a1"]) == ["a2", "a3", "a4", "b", "a5"]


def test_of_those_who_have_waited_too_long_the_first_is_next() -> None:
    bed = Bed(LoadedFirst(max_wait=1.0))
    bed.enter("a0", "a")
    bed.enter("b0", "b")
    bed.enter("c0", "c")
    bed.enter("b1", "b")
    bed.hosts.leave("b0", bed.now)
    bed.now = 10.0
    bed.enter("a1", "a")
    assert bed.end("a0") == ["c0"]


def test_a_queue_that_is_served_is_no_reason_to_load_its_other_model() -> None:
    bed = Bed()
    bed.enter("first", "a", "b")
    bed.now = 2.5
    for number in range(30):
        bed.enter(f"any{number}", "a", "b")
    bed.order(["first"])
    assert [call for call, grant in bed.grants.items() if grant.loads] == ["first"]


def test_the_model_whose_first_caller_waits_longest_is_next() -> None:
    bed = Bed()
    bed.enter("a", "a")
    bed.enter("b", "b")
    bed.now = 0.5
    for number in range(5):
        bed.enter(f"c{number}", "c")
    assert bed.order(["a"])[:3] == ["b", "c0", "c1"]


def test_of_equal_waits_the_shorter_load_is_next() -> None:
    bed = Bed()
    bed[ONE].estimate("b", 0.0).load = 3.0
    bed.enter("a", "a")
    bed.enter("b", "b")
    bed.now = 0.1
    bed.enter("c", "c")
    assert bed.order(["a"]) == ["c", "b"]


def test_priority_beats_what_is_loaded() -> None:
    bed = Bed()
    bed.enter("a0", "a")
    bed.enter("a1", "a")
    bed.enter("b", "b", priority=1)
    bed.enter("a2", "a", priority=1)
    bed.enter("c", "c", priority=2)
    assert bed.order(["a0"]) == ["c", "b", "a2", "a1"]


def test_a_caller_of_lower_priority_is_served_once_in_each_bound() -> None:
    bed = Bed()
    bed.enter("high0", "a", priority=1)
    bed.enter("low0", "b")
    bed.enter("low1", "b")
    served = []
    for number in range(1, 40):
        bed.enter(f"high{number}", "a", priority=1)
        for call in bed.end(*map(str, bed[ONE].running), after=1.0):
            if str(call).startswith("low"):
                served.append((call, bed.now))
    assert [call for call, _ in served] == ["low0", "low1"]
    first, second = (instant for _, instant in served)
    assert 12 < first <= 14
    assert 12 < second - first <= 14


def test_a_model_stays_for_a_moment_after_its_queue_is_empty() -> None:
    bed = Bed()
    bed.enter("a0", "a")
    bed.enter("b", "b")
    assert bed.end("a0", after=2.0) == []  # an agent with its answer may ask again at once
    bed.now += 0.01
    bed.enter("a1", "a")
    assert "a1" in bed.grants
    assert bed.end("a1", after=1.0) == []
    bed.now += 0.5
    assert bed.look() == ["b"]


def test_a_model_stays_for_a_caller_who_usually_comes_back_soon() -> None:
    bed = Bed(load=40.0, seconds=5.0)
    bed.enter("b0", "b")
    bed.enter("c0", "c")
    bed.end("b0", after=45.0)
    bed.now += 10.0
    assert bed.look() == ["c0"]  # nothing was known of b
    for number in range(1, 6):  # b's next call comes 4 s after each answer
        bed.now += 4.0
        bed.enter(f"b{number}", "b")
        bed.end(f"c{number - 1}", f"b{number}", after=50.0)
        bed.enter(f"c{number}", "c")
        if f"c{number}" not in bed.grants:
            break
    assert bed[ONE].estimate("b", bed.now).gap is not None


@pytest.mark.parametrize(("gap", "stays"), [(3.0, True), (30.0, False)])
def test_a_host_idles_only_where_that_is_cheaper_than_a_load(gap: float, *, stays: bool) -> None:
    bed = Bed(load=40.0, seconds=1.0)
    for number in range(8):
        bed.enter(f"a{number}", "a")
        bed.end(f"a{number}", after=1.0)
        bed.now += gap
    bed.enter("a8", "a")
    bed.enter("b", "b")
    bed[ONE].loaded["a"].calls = 4  # so a call has cost 10 s of load
    bed.end("a8", after=1.0)
    bed.now += 4.9
    bed.look()
    assert ("b" not in bed.grants) is stays
    bed.now += 0.5  # nobody came
    bed.look()
    assert "b" in bed.grants


def test_a_host_does_not_idle_for_much_longer_than_usual() -> None:
    bed = Bed(load=40.0, seconds=1.0)
    for number in range(8):
        bed.enter(f"a{number}", "a")
        bed.end(f"a{number}", after=1.0)
        bed.now += 1.0
    bed.enter("a8", "a")
    bed.enter("b", "b")
    bed[ONE].loaded["a"].calls = 4
    bed.end("a8", after=1.0)
    bed.now += 2.9
    assert bed.look() == []
    bed.now += 0.2
    assert bed.look() == ["b"]


def test_a_switch_waits_for_the_calls_that_run() -> None:
    bed = Bed(LoadedFirst(max_wait=1.0), limits={"one": HostLimits(2, loads_models=True)})
    bed.enter("a0", "a")
    bed.enter("a1", "a")
    bed.enter("b", "b")
    bed.now = 3.0
    bed.enter("a2", "a")
    assert bed.end("a0") == []  # else it would never be idle
    assert bed[ONE].free_slots == 1
    assert bed.end("a1") == ["b"]
    assert bed.grants["b"].evicted == ["a"]


def test_a_host_without_models_of_its_own_serves_in_order() -> None:
    bed = Bed(limits={"one": HostLimits(1)})
    for call in ("x", "y", "z"):
        bed.enter(call, Place(ONE, ""))
    assert bed.order() == ["y", "z"]
    assert not any(grant.loads for grant in bed.grants.values())


def test_a_call_may_be_served_by_several_models_of_one_host() -> None:
    bed = Bed()
    bed.enter("b0", "b")
    bed.enter("c0", "c")
    bed.enter("any", "a", "b")
    assert bed.order(["b0"]) == ["any", "c0"]
    assert bed.grants["any"].place.model == "b"
    bed.enter("other", "a", "b")
    bed.enter("d", "d")
    bed.now += 20.0
    bed.look()
    assert bed.grants["other"].place.model == "a"  # the preferred one, where none is loaded


def test_a_call_that_gives_up_leaves_its_queue() -> None:
    bed = Bed()
    for call in ("a0", "a1", "a2"):
        bed.enter(call, "a")
    bed.hosts.leave("a1", bed.now)
    bed.hosts.leave("unknown", bed.now)
    assert bed.order(["a0"]) == ["a2"]
    assert len(bed.hosts) == 0
    assert bed.hosts.waiting_at(ONE) == 0


def test_a_batch_counts_the_calls_that_came_before_the_load_was_over() -> None:
    bed = Bed()
    bed.enter("a0", "a")
    bed.enter("b", "b")
    bed.enter("a1", "a")
    bed.now = 1.5
    bed.enter("a2", "a")
    bed.order(["a0"])
    assert bed[ONE].estimate("a", bed.now).batch == 2
    assert SWAPS.memory_gb is None


@pytest.mark.parametrize("wrong", ["60", True, -1, float("nan")])
def test_a_wrong_bound_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_wait must be"):
        LoadedFirst(max_wait=wrong)


def test_a_load_that_took_nothing_is_believed_only_the_third_time() -> None:
    estimate = Estimate(0.0)
    for load in (None, None, LEAST_LOAD):
        estimate.loaded_in(0.003)  # a new router finds models that are loaded already
        assert estimate.load == load
    known = Estimate(0.0)
    for seconds in (45.0, 0.003, 0.003, 0.003):
        known.loaded_in(seconds)
    assert known.load == 45.0
