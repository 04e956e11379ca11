"""What was learned of a deployment outlives a reload if its backend stays the same, and only then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Caller
from tests.faults.parallel import at_rest
from tests.reload.support import ONE, TWO, Hosts, backend, router, source
from tests.support.certificates import Authority
from tests.support.openai_like import chat
from tests.support.scripted import Reply, ScriptedServer, Set, Wait, answer

from ccroute import Budget, RetryPolicy, Router, errors
from ccroute.observe import Event, Queued
from ccroute.types import HealthStats

ONCE = {"attempts": 1}
ANSWER = answer(json=chat("fine"))
MOVED = [
    {"base_url": TWO},
    {"base_url": "http://one.test/other"},
    {"base_url": "http://one.test:81/v1"},
    {"kind": "anthropic", "api_key": "a-key-0123456789"},
    {"kind": "vllm"},
]


def failing(hosts: Hosts, made: Router, status: int, times: int = 1, **options: Any) -> None:
    hosts.status["one.test"] = status
    for i in range(times):
        with pytest.raises(errors.BackendError):
            made.complete("hi", user=f"caller {i}", **options)
    hosts.status.clear()


def health(made: Router, deployment: str = "main/m") -> HealthStats:
    return made.stats().deployments[deployment].health


# -- Breakers, cooldowns, refused models ---------------------------------------------------------------------


def test_an_open_breaker_stays_open_if_its_backend_stays() -> None:
    hosts, given = Hosts(), source(retry=ONCE)
    with router(given, hosts) as made:
        failing(hosts, made, 502, 5)
        before = health(made)
        assert before.state == "off"
        settings = {"timeout": 9, "headers": {"x-team": "blue"}, "models": {"m": {"max_output": 5}}}
        made.reload(source(backend(**settings), retry=ONCE, agents={"new": "main/m"}))
        after = health(made)
        assert (after.state, after.reason) == (before.state, before.reason)
        assert after.seconds_left <= before.seconds_left


@pytest.mark.parametrize("moved", MOVED)
def test_a_server_that_is_new_under_the_name_gets_calls(moved: dict[str, Any]) -> None:
    hosts, given = Hosts(), source(retry=ONCE, backends={"spare": backend(ONE)})
    with router(given, hosts) as made:
        failing(hosts, made, 502, 5)
        failing(hosts, made, 502, 5, model="spare/m")
        made.reload(source(backend() | moved, retry=ONCE, backends={"spare": backend(ONE)}))
        assert {*made.stats().deployments} == {"spare/m"}, "the old server's are not listed"
        assert health(made, "spare/m").state == "off"
        made.stream("hi").close()
        hosts.status["one.test"] = hosts.status["two.test"] = 400
        with pytest.raises(errors.InvalidRequestError):
            made.complete("hi")  # it is asked
        assert health(made).state == "on"
        made.reload(given)
        assert health(made).state == "off", "the first server is back, and so is what is known of it"


def test_a_late_failure_of_the_old_server_is_not_the_new_ones() -> None:
    hosts, here, go = Hosts(), threading.Semaphore(0), threading.Event()

    def late(request: httpx.Request) -> httpx.Response:
        if request.url.host == "one.test":
            here.release()
            assert go.wait(5)
            return httpx.Response(502)
        return hosts._answer(request)

    transport = httpx.MockTransport(late)
    with (
        Router.from_config(source(retry=ONCE), env={}, transport=transport) as made,
        ThreadPoolExecutor(6) as pool,
    ):
        calls = [pool.submit(made.complete, "hi", user=f"caller {i}") for i in range(6)]
        for _ in calls:
            assert here.acquire(timeout=5)
        made.reload(source(TWO, retry=ONCE))
        made.complete("hi")
        go.set()
        assert all(isinstance(call.exception(), errors.ServerError) for call in calls)
        stats = made.stats().deployments["main/m"]
        assert (stats.health.state, stats.success_rate) == ("on", 1.0)
        made.complete("hi")
        made.reload(source(retry=ONCE))
        assert health(made).state == "off"


def test_a_cooldown_and_a_missing_model_outlive_a_reload() -> None:
    def busy(request: httpx.Request) -> httpx.Response:
        missing = b'"gone"' in request.content
        return httpx.Response(404) if missing else httpx.Response(429, headers={"retry-after": "60"})

    given = source(retry=ONCE)
    with Router.from_config(given, env={}, transport=httpx.MockTransport(busy)) as made:
        for model, error in (("main/m", errors.RateLimitError), ("main/gone", errors.ModelNotFoundError)):
            with pytest.raises(error):
                made.complete("hi", model=model)
        made.reload()
        assert health(made).state == "cooling"
        assert health(made, "main/gone").state == "off"


# -- Keys ----------------------------------------------------------------------------------------------------


def test_a_new_key_is_sent_at_once_and_only_its_backend_is_reset() -> None:
    hosts = Hosts()
    main = backend(api_key="old-key-0123456789")
    other = {"other": backend(TWO, api_key="bad-key-0123456789")}
    with router(source(main, backends=other, retry=ONCE), hosts) as made:
        failing(hosts, made, 502, 5, model="main/broken")
        hosts.status = {"one.test": 401, "two.test": 401}
        for model in ("main/m", "other/m"):
            with pytest.raises(errors.AuthenticationError):
                made.complete("hi", model=model)
        made.reload(source(backend(api_key="old-key-0123456789"), backends=other, retry=ONCE))
        credentials = {name: host.credential.state for name, host in made.stats().backends.items()}
        assert credentials == {"main": "off", "other": "off"}
        made.reload(source(backend(api_key="new-key-0123456789"), backends=other, retry=ONCE))
        credentials = {name: host.credential.state for name, host in made.stats().backends.items()}
        assert credentials == {"main": "on", "other": "off"}
        assert health(made, "main/broken").state == "off", "another key repairs no server"
        hosts.status.clear()
        assert made.complete("hi").text == "fine"
        hosts.status["one.test"] = 401
        with pytest.raises(errors.AuthenticationError):
            made.complete("hi")
        assert made.stats().backends["main"].credential.state == "off"


def test_a_key_in_a_header_is_a_key() -> None:
    hosts = Hosts()
    with router(source(backend(headers={"x-api-key": "old-key-0123456789"}), retry=ONCE), hosts) as made:
        failing(hosts, made, 401)
        assert made.stats().backends["main"].credential.state == "off"
        made.reload(source(backend(headers={"x-api-key": "new-key-0123456789"}), retry=ONCE))
        assert made.stats().backends["main"].credential.state == "on"


def test_no_identity_shows_a_key() -> None:
    given = source(backend(api_key="old-key-0123456789", headers={"x-other": "a-value-0123456789"}))
    with router(given, Hosts()) as made:
        main = made._state.tables.backends["main"]
    assert "0123456789" not in main.credential_identity + main.identity


# -- Load, retry budget, refused parameters ------------------------------------------------------------------


def test_measured_load_is_kept_and_that_of_a_new_server_begins_anew() -> None:
    hosts, given = Hosts(), source(retry=ONCE, aliases={"x": {"targets": ["main/m"], "strategy": "latency"}})
    with router(given, hosts) as made:
        made.complete("hi")
        failing(hosts, made, 502, 1)
        deployment = made._state.tables.deployment("main/m")
        before = made._state.load.snapshot(deployment)
        assert before.success_rate < 1
        assert before.latency is not None
        made.reload()
        after = made._state.load.snapshot(made._state.tables.deployment("main/m"))
        assert after.failed_last
        assert after.latency == before.latency
        made.reload(source(TWO, retry=ONCE))
        moved = made._state.load.snapshot(made._state.tables.deployment("main/m"))
        assert (moved.success_rate, moved.latency) == (1.0, None)


def test_latency_is_measured_from_the_reload_on_that_asks_for_it() -> None:
    hosts = Hosts()
    aliases = {"x": {"targets": ["main/m"], "strategy": "latency"}}

    def measured() -> bool:
        made.complete("hi")
        return made._state.load.snapshot(made._state.tables.deployment("main/m")).latency is not None

    with router(source(), hosts) as made:
        assert not measured()
        made.reload(source(aliases=aliases))
        assert measured()


def test_a_spent_retry_budget_stays_spent() -> None:
    hosts = Hosts()
    retry = {"attempts": 2, "per_deployment": 2, "base": 0, "max": 0}
    with router(source(retry=retry, health="off"), hosts) as made:
        failing(hosts, made, 500, 12)
        asked = len(hosts.requests)
        made.reload(source(retry=retry, health="off", max_queue=5))
        failing(hosts, made, 500, 1)
        assert len(hosts.requests) == asked + 1
        made.reload(source(TWO, retry=retry, health="off"))
        hosts.status["two.test"] = 500
        with pytest.raises(errors.ServerError):
            made.complete("hi")
        assert len(hosts.requests) == asked + 3, "the new server has a budget of its own"


def test_a_refused_parameter_is_not_sent_again() -> None:
    hosts = Hosts()
    said = {"message": "Unsupported parameter: 'seed'", "param": "seed", "code": "unsupported_parameter"}

    def picky(request: httpx.Request) -> httpx.Response:
        hosts.requests.append(request)
        if b'"seed"' in request.content:
            return httpx.Response(400, json={"error": said})
        return httpx.Response(200, json=chat("fine"))

    given = source(drop_params=True)
    with Router.from_config(given, env={}, transport=httpx.MockTransport(picky)) as made:
        made.complete("hi", seed=1)
        made.reload()
        made.complete("hi", seed=1)
        made.reload(source(TWO, drop_params=True))
        made.complete("hi", seed=1)
    assert ["seed" in sent for sent in hosts.bodies_sent] == [True, False, False, True, False]


def test_health_switched_off_and_on_begins_anew() -> None:
    hosts = Hosts()
    with router(source(retry=ONCE), hosts) as made:
        failing(hosts, made, 502, 5)
        made.reload(source(retry=ONCE, health="off"))
        assert made.complete("hi").text == "fine"
        made.reload(source(retry=ONCE))
        assert made.complete("hi").text == "fine"


# -- Slots ---------------------------------------------------------------------------------------------------


class Busy:
    """A host that answers when it may, and knows how many calls it has at a time."""

    def __init__(self) -> None:
        self.here, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.transport = httpx.MockTransport(self._answer)
        self.at_once = self.most = 0
        self._lock = threading.Lock()
        self._queued = threading.Semaphore(0)

    def listen(self, event: Event) -> None:
        if isinstance(event, Queued):
            self._queued.release()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.here.release()
        assert self.go.acquire(timeout=5)
        with self._lock:
            self.at_once -= 1
        return httpx.Response(200, json=chat("fine"))

    def wait(self, arrived: int = 0, queued: int = 0) -> None:
        assert all(self.here.acquire(timeout=5) for _ in range(arrived))
        assert all(self._queued.acquire(timeout=5) for _ in range(queued))


@contextmanager
def busy(limit: int | None, calls: int, arrived: int) -> Iterator[tuple[Busy, Router, list[Future[Any]]]]:
    """So many calls at a host with a limit, of which so many have arrived. All are answered in the end."""
    host = Busy()
    made = Router.from_config(
        source(backend(max_concurrency=limit)), env={}, transport=host.transport, on_event=host.listen
    )
    with made, ThreadPoolExecutor(calls + 2) as pool:
        running = [pool.submit(made.complete, "hi") for _ in range(calls)]
        try:
            host.wait(arrived, calls - arrived)
            yield host, made, running
        finally:
            for _ in range(calls + 9):
                host.go.release()
        assert [call.result().text for call in running] == ["fine"] * calls
        at_rest(made)


def slots(made: Router) -> tuple[int | None, int, int]:
    main = made.stats().backends["main"]
    return main.slots, main.slots_held, main.queued


def test_a_raised_limit_wakes_calls_that_wait() -> None:
    with busy(1, 4, 1) as (host, made, _):
        made.reload(source(backend(max_concurrency=3)))
        host.wait(arrived=2)
        assert slots(made) == (3, 3, 1)


def test_a_lowered_limit_holds_as_soon_as_calls_have_ended() -> None:
    with busy(3, 4, 3) as (host, made, calls):
        made.reload(source(backend(max_concurrency=1)))
        assert slots(made) == (1, 3, 1)
        ended = as_completed(calls, timeout=5)
        for _ in range(2):
            host.go.release()
            next(ended)
        assert slots(made) == (1, 1, 1)
        host.go.release()
        host.wait(arrived=1)
        assert slots(made) == (1, 1, 0)


def test_a_limit_taken_off_lets_every_waiting_call_go() -> None:
    with busy(1, 4, 1) as (host, made, _):
        made.reload(source())
        host.wait(arrived=3)
        assert slots(made) == (None, 0, 0)


def test_a_limit_that_is_new_counts_from_then_on() -> None:
    with busy(None, 2, 2) as (_host, made, _running):
        made.reload(source(backend(max_concurrency=1)))
        assert slots(made) == (1, 0, 0)


def test_calls_at_a_removed_host_keep_their_slots_and_their_queue() -> None:
    with busy(1, 3, 1) as (host, made, _running):
        made.reload(source(TWO))
        made.reload(source(TWO))
        host.go.release()
        host.wait(arrived=1)
        assert host.most == 1
        made.reload(source(backend(max_concurrency=1)))
        assert slots(made) == (1, 1, 1), "it is the same host"


def test_the_limiter_of_a_removed_host_is_forgotten_once_it_is_idle() -> None:
    with router(source(backend(max_concurrency=1)), Hosts()) as made:
        made.reload(source(TWO))
        assert len(made._limiter) == 1, "calls that began before may still come"
        made.reload()
        assert len(made._limiter) == 0


def test_a_changed_max_queue_holds_for_the_next_call() -> None:
    with busy(1, 2, 1) as (_host, made, _):
        made.reload(source(backend(max_concurrency=1), max_queue=1, retry=ONCE))
        with pytest.raises(errors.QueueTimeoutError):
            made.complete("hi")


def test_a_forked_child_has_the_limits_of_the_last_reload() -> None:
    with router(source(backend(max_concurrency=1)), Hosts()) as made:
        made.reload(source(backend(max_concurrency=2), max_queue=4))
        made._process = 0  # as if it were another process
        assert slots(made) == (2, 0, 0)
        assert made._state.hosts is made._limiter


# -- Connections ---------------------------------------------------------------------------------------------


def test_connections_are_kept_where_the_server_stays_and_closed_elsewhere(caller: Caller) -> None:
    with (
        ScriptedServer([ANSWER], repeat=True) as one,
        ScriptedServer([ANSWER], repeat=True) as two,
        Router.from_config(source(one.url, backends={"spare": backend(two.url)})) as made,
    ):

        async def calls() -> None:
            """All of them on one loop, which would close its connections at its end."""
            await made.acomplete("hi")
            await made.acomplete("hi", model="spare/m")
            made.reload(source(one.url, agents={"a": "main/m"}))
            await made.acomplete("hi")
            assert await asyncio.to_thread(two.wait_idle)
            assert (one.connections, one.open_connections) == (1, 1)

        if caller.mode == "sync":
            made.complete("hi")
            made.complete("hi", model="spare/m")
            made.reload(source(one.url, agents={"a": "main/m"}))
            made.complete("hi")
            assert two.wait_idle()
            assert (one.connections, one.open_connections) == (1, 1)
        else:
            caller.run(calls)


def test_a_connection_in_use_is_closed_when_its_call_has_ended() -> None:
    here, go = threading.Event(), threading.Event()
    held: Reply = [Set(here), Wait(go), *ANSWER]
    with (
        ScriptedServer([held, ANSWER, ANSWER]) as old,
        ScriptedServer([ANSWER], repeat=True) as new,
        Router.from_config(source(old.url)) as made,
        ThreadPoolExecutor(1) as pool,
    ):
        call = pool.submit(made.complete, "hi")
        assert here.wait(5)
        made.reload(source(new.url))
        go.set()
        assert call.result().text == "fine"
        assert old.wait_idle()
        assert made._connections._threads.stacks, "it is forgotten only by a later reload"
        made.reload()
        assert not made._connections._threads.stacks
        made.reload(source(old.url))
        for _ in range(2):
            made.complete("hi")
        assert old.connections == 2, "kept again"


def test_a_host_that_comes_back_keeps_connections_again() -> None:
    here, go = threading.Event(), threading.Event()
    held: Reply = [Set(here), Wait(go), *ANSWER]
    with (
        ScriptedServer([held, ANSWER]) as server,
        Router.from_config(source(server.url)) as made,
        ThreadPoolExecutor(1) as pool,
    ):
        call = pool.submit(made.complete, "hi")
        assert here.wait(5)
        made.reload(source(TWO))
        made.reload(source(server.url))
        go.set()
        assert call.result().text == "fine"
        made.complete("hi")
        assert server.connections == 1


def test_a_call_that_ends_after_close_leaves_no_connection_open() -> None:
    here, go = threading.Event(), threading.Event()
    held: Reply = [Set(here), Wait(go), *ANSWER]
    with ScriptedServer([held]) as server, ThreadPoolExecutor(1) as pool:
        made = Router.from_config(source(server.url))
        call = pool.submit(made.complete, "hi")
        assert here.wait(5)
        made.close()
        made._use({"backends": [*made._state.tables.backends.values()]})  # a reload that close() came into
        go.set()
        assert call.result().text == "fine"
        assert server.wait_idle()


def test_another_ca_file_makes_a_new_connection(tmp_path: Path) -> None:
    authority, stranger = Authority(), Authority()
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    for file in (first, second):
        authority._ca.cert_pem.write_to_path(str(file))
    with ScriptedServer([ANSWER], repeat=True, tls=authority.server()) as server:
        with Router.from_config(source(backend(server.url, ca_file=str(first)))) as made:
            made.complete("hi")
            made.reload(source(backend(server.url, ca_file=str(second))))
            made.complete("hi")
            assert server.connections == 2
            assert server.wait_closed(count=1)
            stranger._ca.cert_pem.write_to_path(str(first))
            made.reload(source(backend(server.url, ca_file=str(first)), retry=ONCE))
            with pytest.raises(errors.ConnectionFailedError, match="no trusted connection"):
                made.complete("hi")


def test_a_policy_is_read_once_by_a_call() -> None:
    """A retry's policy is that of the call's beginning."""
    hosts = Hosts()
    patient = {"attempts": 2, "base": 0, "max": 0}

    def failing_once(request: httpx.Request) -> httpx.Response:
        hosts.requests.append(request)
        made.reload(source(retry=ONCE, health="off"))
        return httpx.Response(500) if len(hosts.requests) == 1 else httpx.Response(200, json=chat("fine"))

    transport = httpx.MockTransport(failing_once)
    with Router.from_config(source(retry=patient), env={}, transport=transport) as made:
        made.complete("hi")
        assert made._state.retry == RetryPolicy(attempts=1)
    assert len(hosts.requests) == 2


# -- Budgets -------------------------------------------------------------------------------------------------


def test_what_is_spent_of_a_budget_stays_and_the_limit_of_now_holds() -> None:
    def given(usd: object, url: str = ONE) -> dict[str, Any]:
        agents = {"x": {"model": "main/m", "budget": {"usd": usd}}}
        return source(url, agents=agents, prices={"m": {"input": 1000, "output": 1000}})

    with router(given(1), Hosts()) as made:
        cost = made.complete("hi", agent="x", max_tokens=5).cost
        assert cost
        assert made.stats().budgets["agent:x"].spent == cost
        made.reload(given(cost, TWO))
        spent = made.stats().budgets["agent:x"]
        assert (spent.spent, spent.limit) == (cost, cost)
        with pytest.raises(errors.BudgetExceededError) as caught:
            made.complete("hi", agent="x", max_tokens=5)
        assert (caught.value.budget, caught.value.spent, caught.value.limit) == ("agent:x", cost, cost)
        made.reload(given(1))
        assert made.complete("hi", agent="x", max_tokens=5).cost == cost
        made.reload(source())
        assert made.stats().budgets == {}


def test_budgets_of_a_caller_hold_after_a_reload() -> None:
    given = source(prices={"m": {"input": 1, "output": 1}}, budgets={"router": {"usd": 5}})
    with router(given, Hosts(), budgets={"backend:main": Budget(7)}) as made:
        made.reload()
        assert {name: each.limit for name, each in made.stats().budgets.items()} == {"backend:main": 7}
