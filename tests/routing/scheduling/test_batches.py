"""The order in which the requests of a batch begin."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ccroute.http.origin import Origin
from ccroute.routing.scheduling import Host, HostLimits, Loaded, Place
from ccroute.routing.scheduling.batches import WAITING, BatchOrder, Places

ONE, TWO, PAID = (Origin("http", name, 80) for name in ("one", "two", "paid"))


def at(*hosts: Origin, model: str = "") -> Places:
    return frozenset(Place(host, model) for host in hosts)


A, B, C = (at(ONE, model=model) for model in "abc")


def make_order(*origins: Origin, slots: int = 1, concurrency: int = 4) -> BatchOrder[int]:
    limits = HostLimits(slots, loads_models=True)
    return BatchOrder({origin: Host(origin, limits) for origin in origins}, concurrency)


def add(order: BatchOrder[int], requests: Sequence[Places]) -> None:
    for number, places in enumerate(requests):
        order.add(number, number, places, 0)


def begin_all(order: BatchOrder[int], requests: Sequence[Places]) -> list[int]:
    """Begin as many as may begin. Each asks the first of its hosts first."""
    begun = []
    while (number := order.next()) is not None:
        order.begin(requests[number], min(place.host for place in requests[number]))
        begun.append(number)
    return begun


def all_in_turn(order: BatchOrder[int], requests: Sequence[Places]) -> list[int]:
    """The whole batch at one host, whose calls end in the order in which they began."""
    begun = running = begin_all(order, requests)
    while running:
        order.end(requests[running[0]], ONE)
        new = begin_all(order, requests)
        begun, running = begun + new, running[1:] + new
    return begun


def models(numbers: Sequence[int], requests: Sequence[Places]) -> str:
    return "".join(place.model for number in numbers for place in requests[number])


def test_one_model_follows_the_other_and_the_one_with_the_most_requests_is_first() -> None:
    order, requests = make_order(ONE), [A, B, C, B, A, B, B, C]
    add(order, requests)
    assert len(order) == 8
    assert models(all_in_turn(order, requests), requests) == "bbbbaacc"
    assert len(order) == 0


def test_a_loaded_model_is_first() -> None:
    host = Host(ONE, HostLimits(1, loads_models=True))
    host.loaded["c"] = Loaded(0.0, None)
    order, requests = BatchOrder[int]({ONE: host}, 1), [A, B, C, B, A, B, B, C]
    add(order, requests)
    assert models(all_in_turn(order, requests), requests).startswith("cc")


def test_equal_requests_begin_in_their_order() -> None:
    order, requests = make_order(ONE), [A] * 9
    add(order, requests)
    assert all_in_turn(order, requests) == list(range(9))


def test_a_higher_priority_is_first_whatever_is_loaded() -> None:
    host = Host(ONE, HostLimits(1, loads_models=True))
    host.loaded["a"] = Loaded(0.0, None)
    order, requests = BatchOrder[int]({ONE: host}, 1), [A, A, B, A]
    for number, priority in enumerate((0, 1, 2, 1)):
        order.add(number, number, requests[number], priority)
    assert all_in_turn(order, requests) == [2, 1, 3, 0]


@pytest.mark.parametrize("slots", [1, 3])
def test_a_host_gets_its_slots_and_a_few_that_wait(slots: int) -> None:
    order, requests = make_order(ONE, slots=slots), [A] * 20
    add(order, requests)
    assert len(begin_all(order, requests)) == slots + WAITING


def test_a_host_without_a_limit_gets_as_many_as_the_batch_allows() -> None:
    order, requests = make_order(concurrency=7), [at(PAID)] * 20
    add(order, requests)
    assert len(begin_all(order, requests)) == 7


def test_hosts_do_not_wait_for_each_other() -> None:
    order, requests = make_order(ONE, concurrency=5), [A] * 20 + [at(PAID)] * 20
    add(order, requests)
    assert sorted(begin_all(order, requests)) == [0, 1, 20, 21, 22, 23, 24]


def test_of_two_hosts_that_serve_the_same_models_each_keeps_one() -> None:
    both = [at(ONE, TWO, model=model) for model in "abc"]
    requests = [both[0]] * 9 + [both[1]] * 4 + [both[2]]
    order = make_order(ONE, TWO)
    add(order, requests)
    assert [min(requests[number]).model for number in begin_all(order, requests)] == list("abab")


def test_of_two_hosts_none_begins_with_the_other_ones_model() -> None:
    requests = [at(ONE, TWO, model=model) for model in "aabbbcc"]
    order = make_order(ONE, TWO)
    add(order, requests)
    assert [min(requests[number]).model for number in begin_all(order, requests)][:2] == ["b", "a"]


def test_a_host_takes_the_other_hosts_model_when_its_own_is_done() -> None:
    both = [at(ONE, TWO, model=model) for model in "ab"]
    requests = [both[0]] * 9 + [both[1]] * 2
    order = make_order(ONE, TWO)
    add(order, requests)
    assert begin_all(order, requests) == [0, 9, 1, 10]
    order.end(both[1], ONE)
    assert begin_all(order, requests) == [2]


def test_a_call_that_moves_to_another_host_makes_room_at_the_first() -> None:
    order, requests = make_order(ONE), [A] * 20
    add(order, requests)
    assert begin_all(order, requests) == [0, 1]
    order.end(A, ONE)
    order.begin(A, PAID)
    assert begin_all(order, requests) == [2]


def test_calls_that_move_on_find_a_bound_at_the_next_host() -> None:
    order, requests = make_order(ONE, concurrency=3), [A] * 20
    add(order, requests)
    begun = 0
    while new := begin_all(order, requests):
        begun += len(new)
        for _ in new:
            order.end(A, ONE)
            order.begin(A, PAID)
    assert begun == 4


def test_a_request_of_an_unknown_place_begins_at_once() -> None:
    order, requests = make_order(ONE), [A] * 3 + [frozenset[Place]()]
    add(order, requests)
    assert order.next() == 0
    order.begin(A, ONE)
    order.begin(A, ONE)
    assert order.next() == 3
    assert order.next() is None
