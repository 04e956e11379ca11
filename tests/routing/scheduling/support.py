"""Hosts that are driven by hand: the clock is set, and calls are strings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType

from ccroute.http.origin import Origin
from ccroute.routing.scheduling import Grant, Host, HostLimits, Hosts, LoadedFirst, Place, Scheduler

ONE, TWO, THREE = (Origin("http", f"{name}.test", 11434) for name in ("one", "two", "three"))
SWAPS = HostLimits(1, loads_models=True)
"""One slot, and one model at a time."""


class Bed:
    """The hosts, the time, and what was granted. A model takes 1 s to load and 1 s for a call, as
    measured."""

    def __init__(
        self,
        scheduler: Scheduler | None = None,
        *,
        seconds: float = 1.0,
        load: float = 1.0,
        limits: Mapping[str, HostLimits] = MappingProxyType({"one": SWAPS}),
    ) -> None:
        names = {"one": ONE, "two": TWO, "three": THREE}
        self.hosts = Hosts(scheduler or LoadedFirst())
        self.hosts.configure({names[name]: each for name, each in limits.items()})
        self.now = 0.0
        self.seconds, self.load = seconds, load
        self.grants: dict[Hashable, Grant] = {}
        for host in self.hosts.by_origin.values():
            for model in "abcdefgh":
                host.measured(model, load, seconds, self.now)

    def __getitem__(self, origin: Origin) -> Host:
        return self.hosts.by_origin[origin]

    def enter(self, call: str, *places: Place | str, priority: int = 0) -> None:
        """A call comes, a moment after the last one. A place that is only a model is at the first host."""
        self.now += 0.001
        all_places = [place if isinstance(place, Place) else Place(ONE, place) for place in places]
        if (grant := self.hosts.enter(call, all_places, priority, self.now)) is not None:
            self.grants[call] = grant
        self.look()

    def look(self) -> list[Hashable]:
        """Give free slots away. Returns the calls that got one."""
        granted = list(self.hosts.grants(self.now))
        self.grants |= {grant.call: grant for grant in granted}
        return [grant.call for grant in granted]

    def end(self, *calls: str, after: float = 0.0) -> list[Hashable]:
        """Calls end. Returns those that get a slot then."""
        self.now += after
        for call in calls:
            if (grant := self.grants.get(call)) is not None:
                grant.answered = True
            self.hosts.leave(call, self.now)
        return self.look()

    def order(self, calls: Sequence[str] | None = None) -> list[Hashable]:
        """End one call after another, each as long after its slot as it takes. Returns the order of slots."""
        running = list(self.grants if calls is None else calls)
        found: list[Hashable] = []
        while running:
            call = running.pop(0)
            loads = self.grants[call].loads
            new = self.end(str(call), after=self.seconds + (self.load if loads else 0.0))
            for _ in range(5):
                if not new and len(self.hosts) and not any(map(_runs, self.hosts.by_origin.values())):
                    self.now += 0.5
                    new = self.look()
            found += new
            running += map(str, new)
        return found


def _runs(host: Host) -> bool:
    return bool(host.running)
