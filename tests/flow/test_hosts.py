"""What a call does at a host with a limit: it looks what is loaded, makes room, and says what it measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from tests.flow.support import (
    BROKEN,
    ONCE,
    Call,
    HandDriver,
    LimitedHosts,
    PlainBackend,
    Queue,
    ScriptedReply,
    answers,
    calling,
    fails,
    paid,
)

from ccroute import OllamaBackend, Timeout
from ccroute.backends import HttpRequest
from ccroute.errors import QueueTimeoutError
from ccroute.flow.effects import Effect, Granted, Send
from ccroute.flow.waits.slots import ASK_TIMEOUT
from ccroute.observe import Event, Loading, Queued, Switched
from ccroute.routing.scheduling import Grant, Place
from ccroute.types import LoadedModel

ANSWER = answers("well")
SHOWN = json.dumps({"modelfile": f"FROM /blobs/sha256-{'a' * 64}"}).encode()


class Unloading(OllamaBackend):
    """An Ollama whose models are freed by name."""

    def unload(self, model: str) -> HttpRequest | None:
        if model == "stays":
            return None
        return HttpRequest("/api/chat", json.dumps({"model": model, "keep_alive": 0}).encode())


def mini(**options: Any) -> Unloading:
    return Unloading("mini", "http://mini.test", **options)


def waits(*backends: Any, **about: Any) -> Call:
    return calling(*(backends or (mini(),)), **{"limited": True, "retry": ONCE, **about})


def chat(load: float = 0.001, text: str = "well", **more: Any) -> ScriptedReply:
    """Ollama's answer after 3 seconds, in which it says that it loaded the model for `load` seconds."""
    line = {"model": "m", "message": {"role": "assistant", "content": text}, "done": True}
    line |= {"done_reason": "stop", "load_duration": int(load * 1e9), **more}
    return ScriptedReply(pieces=[json.dumps(line).encode() + b"\n"], after=3.0)


def listing(*names: str, **about: Any) -> ScriptedReply:
    return ScriptedReply(
        pieces=[json.dumps({"models": [{"name": name} for name in names]}).encode()], **about
    )


def told(call: Call) -> list[Any]:
    hosts = call.state.hosts
    assert isinstance(hosts, LimitedHosts)
    return hosts.told


def begun(call: Call) -> list[Grant]:
    hosts = call.state.hosts
    assert isinstance(hosts, LimitedHosts)
    return hosts.begun


def grant(loads: bool = True, evicted: Sequence[str] = (), kept: Sequence[str] = ()) -> Granted:
    """A slot for the call's model."""
    place = Place(mini().origin, "m")
    return Granted(0, Grant("call", place, loads, evicted, True, kept, 45.0 if loads else 0.0))


def targets(driver: HandDriver) -> list[str]:
    return [send.request.target for send in driver.sends]


# -- Looks


def test_a_waiting_call_tells_the_schedule_what_the_server_has_loaded() -> None:
    backend = mini()
    call = waits(backend)
    world = [listing("m:latest"), ScriptedReply(pieces=[SHOWN]), listing(), chat()]
    driver = HandDriver(world, hosts=[Queue(seconds=9.0, look=[backend, backend])]).run(call)
    assert targets(driver) == ["/api/ps", "/api/show", "/api/ps", "/api/chat"]
    assert told(call)[:2] == [(backend, [LoadedModel(name="m:latest")]), (backend, [])]
    asked = ["Send", "Read"]
    assert driver.kinds == ["Enter", "Wait", *asked, *asked, "Wait", *asked, "Wait", *asked]
    (row,) = driver.rows
    assert (row.queue, row.duration) == (9.0, 3.0), "looking is a part of the wait"


def test_a_look_learns_which_runner_the_waiting_model_needs() -> None:
    backend = mini()
    backend.read_details(SHOWN, "like-m")
    world = [listing(), ScriptedReply(pieces=[SHOWN]), chat()]
    HandDriver(world, hosts=[Queue(seconds=9.0, look=[backend])]).run(waits(backend))
    assert backend.runner("like-m") == backend.runner("m") == "m"


@pytest.mark.parametrize(
    "reply",
    [
        fails(404),
        fails(500),
        BROKEN,
        ScriptedReply(pieces=[b"no json"]),
        ScriptedReply(pieces=[BROKEN]),
        ScriptedReply(after=99.0),
        ScriptedReply(pieces=[b"{", 99.0]),
        ScriptedReply(headers={"content-encoding": "br"}, pieces=[b"?"]),
    ],
    ids=str,
)
def test_a_look_that_fails_harms_nobody(reply: Any, caplog: pytest.LogCaptureFixture) -> None:
    backend = mini()
    call = waits(backend)
    with caplog.at_level(logging.DEBUG, "ccroute"):
        driver = HandDriver([reply, reply, chat()], hosts=[Queue(seconds=9.0, look=[backend] * 2)]).run(call)
    assert driver.completion.text == "well"
    assert [row.outcome for row in driver.rows] == ["ok"]
    assert {each.state for each in call.state.health.stats()[0].values()} == {"on"}
    assert [entry.levelname for entry in caplog.records if "loaded models" in entry.message] == ["DEBUG"]
    assert [each for each in told(call) if each[0] is backend] == []


def test_a_look_ends_soon_and_before_the_deadline() -> None:
    backend = mini()
    for total, until in ((60.0, 1.0 + ASK_TIMEOUT), (2.5, 2.5 - 0.05)):
        call = waits(backend, limits=Timeout(total=total))
        driver = HandDriver([ScriptedReply(after=99.0), chat()], hosts=[Queue(seconds=9.0, look=[backend])])
        if total == 60.0:
            driver.run(call)
        else:
            assert isinstance(driver.fail(call), QueueTimeoutError)
        assert driver.sends[0].until == pytest.approx(1000.0 + until)


def test_a_backend_without_a_list_of_loaded_models_is_not_asked() -> None:
    plain = PlainBackend()
    call = waits(plain, aliases={"any": ["plain/m"]}, model="any")
    answer = ScriptedReply(pieces=[b"well"])
    assert targets(HandDriver([answer], hosts=[Queue(seconds=9.0, look=[plain])]).run(call)) == ["/say"]


def test_a_look_with_a_backend_whose_own_codec_breaks_harms_nobody() -> None:
    class Odd(OllamaBackend):
        def read_loaded(self, body: bytes) -> Any:
            raise KeyError("models")

    odd = Odd("mini", "http://mini.test")
    driver = HandDriver([listing(), chat()], hosts=[Queue(seconds=9.0, look=[odd])]).run(waits(odd))
    assert driver.completion.text == "well"


def test_a_call_that_is_stopped_while_it_looks_has_sent_nothing() -> None:
    class Stop(BaseException):
        pass

    def stop(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            raise Stop

    backend = mini()
    call = waits(backend)
    with pytest.raises(Stop):
        HandDriver([listing()], stop, hosts=[Queue(seconds=9.0, look=[backend])]).run(call)
    (row,) = call.rows
    assert (row.outcome, row.usage.total_tokens, row.queue, row.duration) == ("cancelled", 0, 1.0, 0.0)
    assert call.state.load.in_flight(backend.origin) == 0


def test_a_look_asks_once_which_models_share_a_runner() -> None:
    backend, show = OllamaBackend("mini", "http://mini.test"), ScriptedReply(pieces=[SHOWN])
    call = waits(backend)
    world = [listing("n"), show, show, listing("n"), chat()]
    driver = HandDriver(world, hosts=[Queue(seconds=9.0, look=[backend] * 2)]).run(call)
    assert targets(driver) == ["/api/ps", "/api/show", "/api/show", "/api/ps", "/api/chat"]
    assert backend.runner("m") == backend.runner("n")
    assert [each[1] for each in told(call)[:2]] == [[LoadedModel(name="n")]] * 2


def test_a_list_of_loaded_models_counts_where_their_runners_stay_unknown() -> None:
    backend = OllamaBackend("mini", "http://mini.test")
    call = waits(backend)
    driver = HandDriver([listing("n"), fails(500), chat()], hosts=[Queue(seconds=9.0, look=[backend])])
    assert driver.run(call).completion.text == "well"
    assert told(call)[0] == (backend, [LoadedModel(name="n")])


# -- Loads


def heard(call: Call, kind: type[Event]) -> list[Any]:
    return [event for event in call.events if isinstance(event, kind)]


def test_a_load_is_told_before_the_request_is_sent() -> None:
    call = waits()
    before: list[Event] = []

    def note(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            before.extend(call.events)

    HandDriver([chat(2.0)], note, hosts=[grant(evicted=["llama"])]).run(call)
    loading, switched = before
    assert loading == Loading(call.context.id, None, "mini/m", 45.0)
    assert switched == Switched("mini/m", "m", ("llama",))


def test_a_loaded_model_is_no_event() -> None:
    call = waits()
    HandDriver([chat()], hosts=[grant(loads=False)]).run(call)
    assert call.events == []


def test_a_server_that_keeps_one_model_is_not_told_to_unload_it() -> None:
    driver = HandDriver([chat(2.0)], hosts=[grant(evicted=["llama"])]).run(waits())
    assert targets(driver) == ["/api/chat"]


@pytest.mark.parametrize(
    ("evicted", "kept", "freed"),
    [(["a"], ["b"], ["a"]), (["a", "b"], [], ["a", "b"]), (["stays", "a"], [], ["a"]), ([], ["b"], [])],
)
def test_a_server_that_keeps_several_models_is_told_which_to_unload(
    evicted: list[str], kept: list[str], freed: list[str]
) -> None:
    done = ScriptedReply(pieces=[b"{}"], after=0.5)
    world = [*[done] * len(freed), chat(2.0)]
    driver = HandDriver(world, hosts=[grant(evicted=evicted, kept=kept)]).run(waits())
    models = [json.loads(send.request.body)["model"] for send in driver.sends]
    assert models == [*freed, "m"]
    (row,) = driver.rows
    assert (row.queue, row.duration) == (0.5 * len(freed), 3.0), "it is a part of the wait"


@pytest.mark.parametrize("reply", [fails(500), BROKEN, ScriptedReply(after=99.0)], ids=str)
def test_an_unload_that_fails_harms_nobody(reply: Any) -> None:
    driver = HandDriver([reply, chat(2.0)], hosts=[grant(evicted=["a"], kept=["b"])]).run(waits())
    assert [row.outcome for row in driver.rows] == ["ok"]
    assert driver.sends[0].until == 1000.0 + ASK_TIMEOUT


# -- What is measured


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("said", "load", "service"), [(2.0, 2.0, 1.0), (0.0, 0.0, 3.0), (9.0, 3.0, 0.0)])
def test_an_answer_tells_the_load_and_the_time_without_it(
    said: float, load: float, service: float, stream: bool
) -> None:
    call, granted = waits(stream=stream), grant()
    HandDriver([chat(said)], hosts=[Queue(seconds=9.0, granted=granted)]).run(call)
    assert told(call) == [(granted.grant, load, service)], "no load takes longer than its call"
    assert begun(call) == [granted.grant] * stream


def test_an_answer_without_times_tells_that_its_model_is_loaded() -> None:
    call, granted = waits(paid()), grant()
    HandDriver([ANSWER], hosts=[granted]).run(call)
    assert (told(call), begun(call)) == ([], [granted.grant])


def test_a_server_that_does_not_tell_its_loads_teaches_only_by_loaded_models() -> None:
    for loads, said in ((True, []), (False, [(None, 0.0)])):
        call, granted = waits(paid()), grant(loads=loads)
        HandDriver([ANSWER], hosts=[granted]).run(call)
        assert [each[1:] for each in told(call)] == said


def test_the_readers_pauses_are_no_time_of_the_host() -> None:
    call = waits(stream=True)

    def pause(k: int, effect: Effect) -> None:
        if type(effect).__name__ == "Emit":
            call.clock.elapsed += 10.0

    HandDriver([chat(1.0)], pause, hosts=[grant()]).run(call)
    assert [each[1:] for each in told(call)] == [(1.0, 2.0)]


@pytest.mark.parametrize(
    "reply", [fails(500), BROKEN, ScriptedReply(pieces=[b"{", BROKEN], after=3.0)], ids=str
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_attempt_that_fails_teaches_nothing(reply: Any, stream: bool) -> None:
    call = waits(stream=stream)
    HandDriver([reply], hosts=[grant()]).fail(call)
    assert told(call) == []


@pytest.mark.parametrize("at", ["Send", "Emit"])
def test_an_attempt_that_is_cut_teaches_nothing(at: str) -> None:
    call = waits(stream=True)

    def stop(k: int, effect: Effect) -> None:
        if type(effect).__name__ == at:
            raise KeyboardInterrupt

    line = json.dumps({"model": "m", "message": {"role": "assistant", "content": "a"}, "done": False})
    with pytest.raises(KeyboardInterrupt):
        HandDriver([ScriptedReply(pieces=[line.encode() + b"\n"])], stop, hosts=[grant()]).run(call)
    assert told(call) == []


def test_a_slot_of_a_host_that_was_freed_of_its_limit_teaches_nothing() -> None:
    call = waits()
    HandDriver([chat()], hosts=[Granted()]).run(call)
    assert told(call) == []


# -- What the route says


@pytest.mark.parametrize(
    ("wait", "load", "said"),
    [
        (12.0, 3.1, ["mini/m: waited 12.0 s for a slot, then 3.1 s while the host loaded the model"]),
        (12.0, 0.03, ["mini/m: waited 12.0 s for a slot"]),
        (0.05, 3.1, ["mini/m: waited 3.1 s while the host loaded the model"]),
        (0.05, 0.03, []),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_route_says_what_a_call_waited_for(wait: float, load: float, said: list[str], stream: bool) -> None:
    driver = HandDriver([chat(load)], hosts=[Queue(seconds=wait)]).run(waits(stream=stream))
    route = driver.completion.route
    assert [reason for reason in route.reasons if "waited" in reason] == said
    assert (route.queued, route.load) == (pytest.approx(wait), load)


def test_a_load_is_told_where_the_host_has_no_limit() -> None:
    driver = HandDriver([chat(2.0)]).run(calling(mini()))
    assert "mini/m: waited 2.0 s while the host loaded the model" in driver.completion.route.reasons


def test_the_event_says_the_predicted_wait() -> None:
    call = waits()
    HandDriver([chat()], hosts=[Queue(ahead=2, seconds=7.0)]).run(call)
    assert heard(call, Queued) == [Queued(call.context.id, None, "mini/m", 2, 7.0)]
