"""Any calls at any hosts, in any order: no slot is lost, priority counts, nobody starves, and what is loaded
fits."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.routing.scheduling.support import ONE, THREE, TWO

from ccroute.http.origin import Origin
from ccroute.routing.scheduling import RECHECK, Choice, Grant, Host, HostLimits, Hosts, LoadedFirst, Place

SIZES = {"a": 4.0, "b": 5.0, "c": 6.0, "d": None}
LOADS = {"a": 1.0, "b": 3.0, "c": 0.5, "d": 8.0}
places = st.lists(
    st.builds(
        lambda host, model: Place(host, model, SIZES[model]),
        st.sampled_from([ONE, TWO]),
        st.sampled_from("abcd"),
    )
    | st.just(Place(THREE, "")),
    min_size=1,
    max_size=3,
    unique=True,
)
limits = st.builds(HostLimits, st.integers(1, 3), st.just(True), st.sampled_from([None, 6.0, 10.0, 100.0]))


class Checked(LoadedFirst):
    """`LoadedFirst`, whose choices are looked at."""

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None:
        assert choices
        assert all(len(choice.queue) for choice in choices)
        chosen = super().choose(host, choices, now)
        top = max(choice.queue.priority for choice in choices)
        urgent = [choice for choice in choices if choice.queue.priority == top]
        if chosen is not None:
            assert chosen in choices
            assert chosen.place.host == host.origin
            self.check_priority(host, chosen, top, now)
            if all(len({place.host for place in choice.queue.places}) == 1 for choice in choices):
                self.check_bound(host, chosen, urgent, now)
        elif host.loaded:
            # An empty slot is for the loaded model's next caller, or another host serves sooner.
            assert not any(host.has(choice.place) for choice in urgent)
        return chosen

    def check_priority(self, host: Host, chosen: Choice, top: int, now: float) -> None:
        if chosen.queue.priority < top:
            longest = self.bound(host, chosen.place.model)
            assert now - chosen.queue.oldest > longest
            assert now - chosen.queue.served > longest

    def check_bound(self, host: Host, chosen: Choice, urgent: Sequence[Choice], now: float) -> None:
        """Who has waited longer than the bound and a batch is next, but for the batch of a loaded model."""
        ready = {
            id(choice.queue) for choice in urgent if host.has(choice.place) or host.has_room(choice.place)
        }
        others = [choice for choice in urgent if id(choice.queue) not in ready]
        if not others or chosen.queue.priority != others[0].queue.priority:
            return
        first = min(others, key=lambda each: each.queue.oldest)
        models = {*host.loaded, *(each.place.model for each in others)}
        batch = max(host.times(model).batch for model in models)
        if now - first.queue.oldest <= self.bound(host, first.place.model) + batch:
            return
        if chosen.queue is not first.queue and (loaded := host.loaded.get(chosen.place.model)) is not None:
            load = host.load_seconds(chosen.place.model)
            assert chosen.queue.oldest <= loaded.since + load or now - loaded.since < 2 * load


@settings(max_examples=40, stateful_step_count=50, deadline=None)
class HostsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.hosts = Hosts(Checked())
        self.now = 0.0
        self.number = 0
        self.waiting: dict[int, tuple[Sequence[Place], int]] = {}
        self.running: dict[int, Grant] = {}

    @initialize(one=limits, two=limits)
    def begin(self, one: HostLimits, two: HostLimits) -> None:
        self.limits: dict[Origin, HostLimits] = {ONE: one, TWO: two, THREE: HostLimits(1)}
        self.hosts.configure(self.limits)

    def look(self) -> int:
        """Give slots away, as the limiter does after each change. Returns how many."""
        granted = list(self.hosts.grants(self.now))
        for grant in granted:
            assert isinstance(grant.call, int)
            asked, _ = self.waiting.pop(grant.call)
            assert grant.place in asked
            self.running[grant.call] = grant
        return len(granted)

    def leave(self, call: int, seconds: float) -> None:
        grant = self.running.pop(call)
        self.hosts.measured(grant, LOADS.get(grant.place.model), seconds, self.now)
        self.hosts.leave(call, self.now)

    @rule(asked=places, priority=st.integers(0, 1), after=st.sampled_from([0.0, 0.01, 1.0]))
    def a_call_comes(self, asked: list[Place], priority: int, after: float) -> None:
        self.now += after
        asked = [place for place in asked if place.host in self.limits]
        if not asked:
            return
        seconds = [self.hosts.predicted(place, priority, self.now) for place in asked]
        assert all(0.0 <= each < float("inf") for each in seconds)
        self.number += 1
        self.waiting[self.number] = asked, priority
        if (grant := self.hosts.enter(self.number, asked, priority, self.now)) is not None:
            assert self.waiting.pop(self.number)
            self.running[self.number] = grant
        self.look()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def a_call_ends(self, data: st.DataObject, seconds: float) -> None:
        self.now += seconds
        self.leave(data.draw(st.sampled_from(sorted(self.running))), seconds)
        self.look()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_call_gives_up(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[call]
        self.hosts.leave(call, self.now)
        self.look()

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.look()

    @rule(host=st.sampled_from([ONE, TWO]), models=st.sets(st.sampled_from("ab"), max_size=1))
    def a_server_lists_its_models(self, host: Origin, models: set[str]) -> None:
        self.hosts.listed(host, [(model, SIZES[model]) for model in models], self.now)
        self.look()

    @rule(host=st.sampled_from([ONE, TWO]))
    def a_host_is_gone(self, host: Origin) -> None:
        """The limiter wakes those who wait for it, before it forgets the host."""
        self.limits.pop(host, None)
        for call, (asked, _) in [*self.waiting.items()]:
            if any(place.host == host for place in asked):
                del self.waiting[call]
                self.hosts.leave(call, self.now)
        for call in [call for call, grant in self.running.items() if grant.place.host == host]:
            del self.running[call]
            self.hosts.leave(call, self.now)
        self.hosts.configure(self.limits)
        self.look()

    @rule(host=st.sampled_from([ONE, TWO]), given=limits)
    def a_host_gets_other_limits(self, host: Origin, given: HostLimits) -> None:
        self.limits[host] = given
        self.hosts.configure(self.limits)
        self.look()

    @invariant()
    def each_call_is_in_one_place(self) -> None:
        assert len(self.hosts) == len(self.waiting)
        for origin, host in self.hosts.by_origin.items():
            assert {*host.running} == {
                call for call, grant in self.running.items() if grant.place.host == origin
            }
            assert self.hosts.waiting_at(origin) == sum(
                any(place.host == origin for place in asked) for asked, _ in self.waiting.values()
            )

    def teardown(self) -> None:
        """No slot is lost and nobody waits for ever: all calls are served, if none comes any more."""
        turns = 0
        while self.waiting:
            self.now += max(RECHECK, 1.0)
            for call in [*self.running]:
                self.leave(call, 1.0)
            turns = 0 if self.look() else turns + 1
            assert turns < 200, self.hosts.by_origin
        for call in [*self.running]:
            self.leave(call, 1.0)
        assert not any(host.running or host.queues for host in self.hosts.by_origin.values())


class FittingMachine(HostsMachine):
    """Without other limits or listings: what is loaded always fits."""

    a_server_lists_its_models = None  # type: ignore[assignment]
    a_host_gets_other_limits = None  # type: ignore[assignment]

    @invariant()
    def slots_and_memory_suffice(self) -> None:
        for host in self.hosts.by_origin.values():
            assert len(host.running) <= host.limits.slots
            sizes = [loaded.memory_gb for loaded in host.loaded.values()]
            if len(sizes) > 1:
                assert host.limits.memory_gb is not None
                assert sum(size for size in sizes if size is not None) <= host.limits.memory_gb
                assert None not in sizes
            in_use = {running.place.model for running in host.running.values()}
            assert not host.limits.loads_models or in_use <= {*host.loaded}


TestHosts = HostsMachine.TestCase
TestFitting = FittingMachine.TestCase
