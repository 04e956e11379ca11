"""A host that keeps several models: which fit, and which one goes."""

from __future__ import annotations

from tests.routing.scheduling.support import ONE, Bed

from ccroute import OllamaBackend
from ccroute.routing.scheduling import Host, HostLimits, LoadedFirst, Place
from ccroute.routing.scheduling.stats import model_stats

A, B, C, D = (Place(ONE, model, size) for model, size in zip("abcd", (4.0, 4.0, 4.0, 9.0), strict=True))
UNKNOWN = Place(ONE, "e")
ROOM = HostLimits(1, loads_models=True, memory_gb=10.0)


def serve(bed: Bed, *places: Place) -> None:
    """A call of each place, one after another."""
    for number, place in enumerate(places):
        call = f"{place.model}{number}-{bed.now}"
        bed.enter(call, place)
        bed.now += 1.0
        bed.look()
        bed.end(call, after=5.0)


def test_models_that_fit_are_loaded_beside_each_other() -> None:
    bed = Bed(limits={"one": ROOM})
    serve(bed, A, B, A)
    assert list(bed[ONE].loaded) == ["a", "b"]
    assert [grant.loads for grant in bed.grants.values()] == [True, True, False]


def test_the_model_goes_whose_calls_would_need_least_time_for_loads() -> None:
    bed = Bed(limits={"one": ROOM})
    serve(bed, A, A, A, B)  # b was used last, but a is asked for more often
    serve(bed, C)
    assert list(bed[ONE].loaded) == ["a", "c"]


def test_a_long_load_is_a_reason_to_stay() -> None:
    bed = Bed(limits={"one": ROOM})
    bed[ONE].estimate("b", 0.0).load = 30.0
    serve(bed, B, A, A)
    bed.now += 60.0
    serve(bed, C)
    assert list(bed[ONE].loaded) == ["b", "c"]


def test_a_model_that_has_just_been_loaded_stays_if_another_can_go() -> None:
    bed = Bed(limits={"one": ROOM}, load=20.0)
    serve(bed, A, A, A)
    bed.now += 100.0
    serve(bed, B)
    assert bed[ONE].is_young("b", bed.now)
    assert bed[ONE].evicted_by(C, bed.now) == ["a"]


def test_a_model_that_needs_all_memory_is_loaded_alone() -> None:
    bed = Bed(limits={"one": ROOM})
    serve(bed, A, B, D)
    assert list(bed[ONE].loaded) == ["d"]


def test_a_model_of_unknown_size_is_loaded_alone() -> None:
    bed = Bed(limits={"one": ROOM})
    serve(bed, A, UNKNOWN)
    assert list(bed[ONE].loaded) == ["e"]
    serve(bed, A)
    assert list(bed[ONE].loaded) == ["a"]


def test_a_model_of_a_running_call_never_goes() -> None:
    bed = Bed(LoadedFirst(max_wait=0.0), limits={"one": HostLimits(2, True, 10.0)})
    bed.enter("d", D)
    bed.enter("a", A)
    assert bed[ONE].evicted_by(A, bed.now) is None
    assert bed.look() == []
    assert bed.end("d", after=5.0) == ["a"]


def test_a_call_for_which_the_host_loads_nothing_evicts_nothing() -> None:
    """Such as one to a cloud model of an Ollama that also runs models itself."""
    backend = OllamaBackend()
    host = Host(backend.origin, HostLimits(1, loads_models=True))
    here = Place(backend.origin, backend.runner("coder"))
    cloud = Place(backend.origin, backend.runner("gpt-oss:120b-cloud"))
    host.start("first", here, 0.0, 0.0).answered = True
    host.end("first", 1.0)
    assert host.has(cloud)
    assert host.evicted_by(cloud, 1.0) == ()
    assert not host.start("second", cloud, 1.0, 1.0).loads
    assert list(host.loaded) == ["coder"]


def test_a_model_for_which_there_is_room_is_loaded_in_order_of_arrival() -> None:
    bed = Bed(limits={"one": ROOM})
    for call, place in {"a0": A, "b0": B, "a1": A, "b1": B}.items():
        bed.enter(call, place)
    assert bed.order() == ["b0", "a1", "b1"]


def test_a_forced_switch_spares_the_batch_of_a_model_that_stays() -> None:
    bed = Bed(LoadedFirst(max_wait=2.0), limits={"one": ROOM})
    serve(bed, A, B)
    for call, place in {"a": A, "c": C, "b": B}.items():
        bed.enter(call, place)
    bed.now += 10.0
    assert "c" in bed.end("a")


def test_what_the_server_lists_is_believed() -> None:
    bed = Bed()
    bed.hosts.listed(ONE, [("a", 4.0), ("b", None)], bed.now)
    assert list(bed[ONE].loaded) == ["a", "b"]  # so two fit, though nobody said so
    bed.enter("b", "b")
    assert not bed.grants["b"].loads
    bed.hosts.listed(ONE, [("a", 5.0)], bed.now)
    assert list(bed[ONE].loaded) == ["a", "b"]  # b runs a call, so it may be loading
    assert bed[ONE].loaded["a"].memory_gb == 5.0
    bed.end("b", after=1.0)
    bed.hosts.listed(ONE, [], bed.now)
    assert list(bed[ONE].loaded) == []


def test_a_list_from_before_a_load_does_not_make_a_host_larger() -> None:
    bed = Bed()
    for call, model in {"b1": "b", "a1": "a", "b2": "b", "a2": "a"}.items():
        bed.enter(call, model)
    bed.hosts.listed(ONE, [("a", 4.0)], bed.now)  # asked when b had only begun to load
    assert list(bed[ONE].loaded) == ["b"]
    assert bed.order(["b1"]) == ["b2", "a1", "a2"]


def test_a_list_from_before_a_load_shows_what_fits_beside_it() -> None:
    bed = Bed(limits={"one": ROOM})
    bed.enter("b", B)
    bed.hosts.listed(ONE, [("a", 4.0)], bed.now)
    assert list(bed[ONE].loaded) == ["b", "a"]


def test_a_model_whose_load_failed_is_not_believed_to_be_loaded() -> None:
    bed = Bed(limits={"one": HostLimits(2, loads_models=True)})
    bed.enter("one", "a")
    bed.enter("two", "a")
    bed.hosts.leave("one", bed.now)
    bed.look()
    assert list(bed[ONE].loaded) == ["a"], "another call may still be loading it"
    bed.hosts.leave("two", bed.now)
    bed.look()
    bed.enter("three", "a")
    assert bed.grants["three"].loads
    bed.grants["three"].answered = True
    bed.hosts.leave("three", bed.now)
    bed.enter("four", "a")
    assert not bed.grants["four"].loads
    bed.hosts.leave("four", bed.now)
    bed.look()
    assert list(bed[ONE].loaded) == ["a"], "it was loaded; this call failed for another reason"


def test_models_that_had_to_go_show_that_fewer_fit() -> None:
    bed = Bed()
    bed.hosts.listed(ONE, [("a", None), ("b", None)], bed.now)
    assert bed[ONE].has_room(Place(ONE, "c")) is False
    bed.hosts.listed(ONE, [("a", None)], bed.now)
    assert list(bed[ONE].evicted_by(Place(ONE, "c"), bed.now) or ()) == ["a"]


def test_a_list_of_nonsense_does_not_grow_what_a_host_knows() -> None:
    bed = Bed()
    bed.hosts.listed(ONE, [("", 1.0), *((f"m{number}", 1.0) for number in range(100_000))], bed.now)
    assert "" not in bed[ONE].loaded
    assert len(bed[ONE].loaded) <= 1000
    bed.hosts.listed(ONE, [("a", None)], bed.now)
    assert list(bed[ONE].loaded) == ["a"]
    assert not bed[ONE].has_room(Place(ONE, "c"))


def test_the_stats_of_a_host_show_measured_loads_of_models_that_had_to_go() -> None:
    bed = Bed()
    bed.enter("first", "a")
    bed[ONE].measured("a", 2.4, 1.0, bed.now)
    bed.hosts.leave("first", bed.now)
    bed.hosts.listed(ONE, [("b", 4.0)], bed.now)
    bed.now += 3.0
    shown = model_stats(bed[ONE], bed.now)
    assert (shown["a"].loaded_for, shown["b"].loaded_for) == (None, 3.0)
    assert (shown["a"].usual_load or 0) > (shown["b"].usual_load or 0) == 1.0, "the bed's loads take a second"
