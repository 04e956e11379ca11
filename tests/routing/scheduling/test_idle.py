"""When a server's load time is that of one load alone: the host had nothing else to do."""

from __future__ import annotations

from ccroute.http.origin import Origin
from ccroute.routing.scheduling import ArrivalOrder, Grant, HostLimits, Hosts, Place

MINI = Origin("http", "mini.test", 11434)


def hosts() -> Hosts:
    made = Hosts(ArrivalOrder())
    made.configure({MINI: HostLimits(1, loads_models=True)})
    return made


def served(made: Hosts, call: str, model: str, now: float, *, answered: bool = True) -> Grant:
    """The slot of a call that finds the host free."""
    grant = made.enter(call, [Place(MINI, model)], 0, now)
    if grant is None:
        (grant,) = made.grants(now)
    if answered:
        made.measured(grant, 2.0, 1.0, now + 3)
    made.leave(call, now + 3)
    return grant


def test_a_load_after_a_call_that_was_cut_is_not_measured() -> None:
    """The server may still read the prompt of the call that was cut, and the load waits for that."""
    made = hosts()
    assert served(made, "first", "a", 0.0).idle
    assert served(made, "second", "b", 100.0, answered=False).idle
    third = served(made, "third", "a", 200.0)
    assert (third.loads, third.idle) == (True, False)
    assert served(made, "fourth", "b", 300.0).idle, "an answer shows that the host is done with it"
