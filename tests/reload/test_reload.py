"""`Router.reload()`: what it reads, what changes by it, and what stays."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Caller
from tests.reload.support import ONE, TWO, Hosts, Reloads, backend, router, source

from ccroute import OpenAIBackend, Price, Router, errors
from ccroute.accounting import MemoryLedger
from ccroute.config.sources import Sources
from ccroute.observe import Reloaded
from ccroute.routing.arguments import checked

FAST = {"attempts": 1}


def write(path: Path, base_url: str, extra: str = "") -> Path:
    path.write_text(
        f'default_model = "main/m"\n{extra}\n[backends.main]\nkind = "openai"\nbase_url = "{base_url}"\n'
    )
    return path


# -- What is read --------------------------------------------------------------------------------------------


def test_a_file_is_read_again(caller: Caller, tmp_path: Path) -> None:
    hosts, file = Hosts(), write(tmp_path / "ccroute.toml", ONE)
    with router(file, hosts) as made:
        caller.complete(made, "hi")
        write(file, TWO)
        caller.complete(made, "hi")
        made.reload()
        caller.complete(made, "hi")
    assert hosts.asked == ["one.test m", "one.test m", "two.test m"]


def test_mappings_are_read_as_they_are_now() -> None:
    hosts, given = Hosts(), source(ONE)
    with router([given, {"aliases": {"x": "main/other"}}], hosts) as made:
        given["backends"]["main"] = backend(TWO)
        made.reload()
        made.complete("hi", model="x")
    assert hosts.asked == ["two.test other"]


def test_another_source_is_the_source_from_then_on(tmp_path: Path) -> None:
    hosts, file = Hosts(), write(tmp_path / "other.toml", TWO)
    with router(source(ONE), hosts) as made:
        made.reload(file)
        write(file, "http://three.test/v1")
        made.reload()
        made.complete("hi")
    assert hosts.asked == ["three.test m"]


def test_a_relative_path_is_found_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, file = Hosts(), write(tmp_path / "ccroute.toml", ONE)
    monkeypatch.chdir(tmp_path)
    with router(["ccroute.toml", {"max_queue": 3}], hosts) as made:
        write(file, TWO)
        monkeypatch.chdir("/")
        made.reload()
        made.complete("hi")
    assert hosts.asked == ["two.test m"]


def test_the_environment_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts()
    monkeypatch.setenv("CCROUTE_TEST_KEY", "first-key-0123456789")
    given = source(backend(api_key="${CCROUTE_TEST_KEY}"))
    with Router.from_config(given, transport=hosts.transport) as made:
        made.complete("hi")
        monkeypatch.setenv("CCROUTE_TEST_KEY", "second-key-0123456789")
        made.reload()
        made.complete("hi")
        monkeypatch.delenv("CCROUTE_TEST_KEY")
        with pytest.raises(errors.ConfigError, match="CCROUTE_TEST_KEY is not set"):
            made.reload()
    sent = [request.headers["authorization"] for request in hosts.requests]
    assert sent == ["Bearer first-key-0123456789", "Bearer second-key-0123456789"]


def test_an_environment_that_was_given_is_used_again() -> None:
    hosts, env = Hosts(), {"HOST": "one.test"}
    with Router.from_config(source("http://${HOST}/v1"), env=env, transport=hosts.transport) as made:
        env["HOST"] = "two.test"
        made.reload()
        made.complete("hi")
        made.reload(source("http://${HOST}/v1", default_model="main/x"))
        made.complete("hi")
    assert hosts.asked == ["two.test m", "two.test x"]


def test_the_overrides_hold_for_every_reload() -> None:
    hosts = Hosts()
    spare = iter([OpenAIBackend("spare", base_url=TWO)])
    overrides: dict[str, Any] = {"aliases": {"m": "spare/m"}, "default_model": "m", "max_queue": 7}
    with router(source(ONE), hosts, backends=spare, **overrides) as made:
        made.reload()
        made.reload(source(ONE, max_queue=5))
        made.complete("hi")
        assert made._state.max_queue == 7
    assert hosts.asked == ["two.test m"]


def test_a_router_made_by_hand_needs_a_source() -> None:
    hosts = Hosts()
    with Router([OpenAIBackend("main", base_url=ONE)], transport=hosts.transport) as made:
        with pytest.raises(errors.ConfigError, match=r"not made by Router\.from_config.*give it a source"):
            made.reload()
        made.reload(source(TWO))
        made.complete("hi")
        made.reload()
        made.complete("hi")
    assert hosts.asked == ["two.test m"] * 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"nonsense": 1}, "nonsense"),
        (source(ONE, aliases={"a": "nobody/m"}), 'unknown backend "nobody"'),
        (source(ONE, baseline="nothing-known"), "baseline: unknown model"),
        ("/no/such/file.toml", "cannot be read"),
        (3, "expected a path or a mapping"),
    ],
)
def test_a_bad_source_changes_nothing_and_raises(bad: Any, said: str) -> None:
    hosts, reloads = Hosts(), Reloads()
    with router(source(ONE), hosts, on_event=reloads.listen) as made:
        before = made._state
        with pytest.raises(errors.ConfigError, match=said):
            made.reload(bad)
        assert made._state is before
        made.complete("hi")
        made.reload()
        made.complete("hi")
    assert hosts.asked == ["one.test m"] * 2, "and the source is the one before"
    assert len(reloads.events) == 1


def test_a_closed_router_is_not_reloaded() -> None:
    made = router(source(ONE), Hosts())
    made.close()
    with pytest.raises(errors.RouterClosedError):
        made.reload()


def test_a_forked_child_reloads_also_during_the_parents_reload() -> None:
    made = router(source(ONE), Hosts())
    lock = made._reloader._lock
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(5)
        made._process = 0  # as if it were another process
        made.reload(source(TWO))
    finally:
        over.set()
        holder.join()
    assert str(made._state.tables.backends["main"].origin) == "http://two.test"
    made.close()


# -- What changes --------------------------------------------------------------------------------------------

Observe = Callable[[Router, Hosts], object]


def served(**options: Any) -> Observe:
    def observe(made: Router, hosts: Hosts) -> object:
        return made.complete("hi", **options).route.deployment

    return observe


def fails(**options: Any) -> Observe:
    def observe(made: Router, hosts: Hosts) -> object:
        try:
            made.complete("hi", **options)
        except errors.CcrouteError as error:
            return type(error)
        return None

    return observe


def attempts(made: Router, hosts: Hosts) -> object:
    hosts.status["one.test"] = 500
    with pytest.raises(errors.ServerError) as caught:
        made.complete("hi", timeout=5)
    hosts.status.clear()
    return len(caught.value.attempts)


def state(name: str) -> Observe:
    return lambda made, hosts: getattr(made._state, name)


def after_a_404(made: Router, hosts: Hosts) -> object:
    """What is said of a model that was not found."""
    hosts.status["one.test"] = 404
    with pytest.raises(errors.ModelNotFoundError):
        made.complete("hi")
    hosts.status.clear()
    return made.stats().deployments["main/m"].health.state


def saved(made: Router, hosts: Hosts) -> object:
    made.complete("hi")
    return made.report(by=()).total["saved"] is not None


TWO_BACKENDS = {"spare": backend(TWO)}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], Observe, object, object]] = {
    "backends": (
        source(ONE),
        source(TWO),
        lambda made, hosts: (made.complete("hi"), hosts.asked[-1])[1],
        "one.test m",
        "two.test m",
    ),
    "aliases": (
        source(aliases={"x": "main/a"}),
        source(aliases={"x": "main/b"}),
        served(model="x"),
        "main/a",
        "main/b",
    ),
    "agents": (
        source(agents={"worker": "main/a"}),
        source(agents={"worker": "main/b"}),
        served(agent="worker"),
        "main/a",
        "main/b",
    ),
    "groups": (
        source(groups={"g": {"model": "main/a", "agents": ["worker"]}}),
        source(groups={"g": {"model": "main/b", "agents": ["worker"]}}),
        served(agent="worker"),
        "main/a",
        "main/b",
    ),
    "fallbacks": (
        source(backend("http://dead.test/v1"), backends=TWO_BACKENDS, health="off"),
        source(
            backend("http://dead.test/v1"),
            backends=TWO_BACKENDS,
            health="off",
            fallbacks={"main/m": ["spare/m"]},
        ),
        fails(),
        errors.ModelNotFoundError,
        None,
    ),
    "default_model": (source(), source() | {"default_model": "main/b"}, served(), "main/m", "main/b"),
    "agent_override": (
        source(agents={"worker": "main/a"}),
        source(agents={"worker": "main/a"}, agent_override=False),
        served(agent="worker", model="main/b"),
        "main/a",
        "main/b",
    ),
    "unknown_agent": (
        source(),
        source(unknown_agent="default"),
        fails(agent="nobody"),
        errors.UnknownAgentError,
        None,
    ),
    "prices": (
        source(),
        source(prices={"main/m": {"input": 1, "output": 1}}),
        lambda made, hosts: made.complete("hi").cost is None,
        True,
        False,
    ),
    "baseline": (
        source(prices={"main/m": {"input": 1, "output": 1}, "big": {"input": 9, "output": 9}}),
        source(
            prices={"main/m": {"input": 1, "output": 1}, "big": {"input": 9, "output": 9}}, baseline="big"
        ),
        saved,
        False,
        True,
    ),
    "budgets": (
        source(backend(models={"m": {"price": {"input": 1, "output": 1}}})),
        source(
            backend(models={"m": {"price": {"input": 1, "output": 1}}}),
            budgets={"router": {"usd": 0}},
        ),
        fails(),
        None,
        errors.BudgetExceededError,
    ),
    "retry": (source(retry=FAST), source(retry={"attempts": 2, "base": 0, "max": 0}), attempts, 1, 2),
    "timeout": (
        source(timeout=5),
        source(timeout={"total": 6}),
        lambda made, hosts: made._state.timeout.total,
        5,
        6,
    ),
    "drop_params": (
        source(backend(models={"m": {"refuses": ["seed"]}})),
        source(backend(models={"m": {"refuses": ["seed"]}}), drop_params=True),
        fails(seed=1),
        errors.InvalidRequestError,
        None,
    ),
    "health": (source(), source(health="off"), after_a_404, "off", "on"),
    "max_queue": (source(), source(max_queue=3), state("max_queue"), 1000, 3),
}
STAYS = {"ledger", "transport", "on_event", "count_tokens", "trust_env", "scheduler"}


@pytest.mark.parametrize("keyword", CHANGES)
def test_a_reload_changes_what_the_keyword_says(keyword: str) -> None:
    hosts = Hosts()
    hosts.status["dead.test"] = 404
    before, after, observe, first, second = CHANGES[keyword]
    with router(before, hosts) as made:
        assert observe(made, hosts) == first
        made.reload(after)
        assert observe(made, hosts) == second
    with router(after, hosts) as made:
        assert observe(made, hosts) == second, "as a new router with it"


def test_every_keyword_of_a_router_changes_or_is_listed_as_one_that_stays() -> None:
    assert {*CHANGES, *STAYS} == {*inspect.signature(Router).parameters}


def test_what_a_source_leaves_out_has_the_defaults_of_a_router() -> None:
    of_router = inspect.signature(Router).parameters
    for name, parameter in inspect.signature(checked).parameters.items():
        if parameter.default is not parameter.empty:
            assert of_router[name].default == parameter.default, name
    plain = Router([OpenAIBackend("main", base_url=ONE)])
    reloaded = Router(
        [], agent_override=False, unknown_agent="default", drop_params=True, health="off", max_queue=1
    )
    reloaded.reload({"backends": {"main": backend(ONE)}})
    for name in ("retry", "timeout", "drop_params", "baseline", "max_queue"):
        assert getattr(reloaded._state, name) == getattr(plain._state, name)
    for name in ("agent_override", "unknown_agent", "default_model", "fallbacks"):
        assert getattr(reloaded._state.tables, name) == getattr(plain._state.tables, name)
    assert reloaded._state.health.on
    plain.close()
    reloaded.close()


def test_ledger_listener_transport_and_counter_stay(caplog: pytest.LogCaptureFixture) -> None:
    hosts, reloads, ledger = Hosts(), Reloads(), MemoryLedger()
    options: dict[str, Any] = {"on_event": reloads.listen, "ledger": ledger, "count_tokens": lambda _: 77}
    with router(source(ONE), hosts, **options) as made:
        made.complete("hi")
        with caplog.at_level(logging.WARNING, "ccroute"):
            made.reload(source(TWO))
        made.complete("hi")
        assert made.count_tokens("hi") == 77
        assert len(made.rows()) == len(ledger.rows()) == 2
    assert len(reloads.events) == 1
    assert hosts.asked == ["one.test m", "two.test m"]
    assert not caplog.records


def test_a_change_that_is_not_taken_over_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with router(source(ONE), Hosts()) as made, caplog.at_level(logging.WARNING, "ccroute"):
        made.reload(source(ONE, trust_env=True))
        assert made._connections._proxies is None
    assert [record.getMessage() for record in caplog.records] == [
        "config: trust_env has changed, which a reload does not take over: make a new router"
    ]


def test_a_ledger_on_disk_goes_on_in_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = tmp_path / "usage.db", tmp_path / "other.db"
    with router(source(ONE, ledger=str(first)), Hosts()) as made:
        made.complete("hi")
        made.reload()
        assert not caplog.records
        made.reload(source(ONE, ledger=str(second)))
        made.complete("hi")
        assert len(made.rows()) == 2
    assert not second.exists()
    assert [record.getMessage() for record in caplog.records] == [
        "config: ledger has changed, which a reload does not take over: make a new router"
    ]


# -- What is told --------------------------------------------------------------------------------------------


def test_the_event_has_the_names_of_what_changed(caplog: pytest.LogCaptureFixture) -> None:
    reloads = Reloads()
    before = source(
        backends={"old": backend(TWO), "same": backend(TWO, api_key="a-key-0123456789")},
        agents={"a": {"group": "g"}, "b": "main/b"},
        groups={"g": {"model": "main/m"}},
        aliases={"x": "main/x"},
        prices={"main/m": "free"},
        retry=FAST,
    )
    after = source(
        TWO,
        backends={"new": backend(TWO), "same": backend(TWO, api_key="a-key-0123456789")},
        agents={"a": {"group": "g"}, "b": "main/b"},
        groups={"g": {"model": "main/other"}},
        aliases={"y": "main/x"},
        fallbacks={"*": ["y"]},
        health="off",
    )
    with router(before, Hosts(), on_event=reloads.listen) as made, caplog.at_level(logging.INFO, "ccroute"):
        made.reload(after)
        made.reload()
    names = Reloaded(
        added=("backends.new", "aliases.y", "fallbacks.*"),
        removed=("backends.old", "aliases.x", "prices.main/m"),
        changed=("backends.main", "agents.a", "retry", "health"),
    )
    assert reloads.events == [names, Reloaded((), (), ())]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "INFO",
            (
                "configuration reloaded: added backends.new, aliases.y, fallbacks.*; "
                "removed backends.old, aliases.x, prices.main/m; "
                "changed backends.main, agents.a, retry, health"
            ),
        ),
        ("INFO", "configuration reloaded: nothing changed"),
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "another-key-0123456789"},
        {"headers": {"x-team": "blue"}},
        {"timeout": 9},
        {"max_concurrency": 2},
        {"models": {"m": {"context_window": 9000}}},
        {"kind": "vllm"},
        {"local": True},
        {"base_url": "http://one.test/other"},
        {"api_version": "2024-10-21"},
    ],
)
def test_any_other_setting_of_a_backend_is_a_change(options: dict[str, Any]) -> None:
    reloads = Reloads()
    plain = backend(ONE, api_key="a-key-0123456789")
    with router(source(plain), Hosts(), on_event=reloads.listen) as made:
        made.reload(source(dict(plain)))
        made.reload(source(plain | options))
    assert [event.changed for event in reloads.events] == [(), ("backends.main",)]


def test_a_call_that_keeps_something_in_a_backend_breaks_no_comparison() -> None:
    class Name(str):
        def startswith(self, *_: Any) -> bool:
            vars(main)[f"from another thread, as {len(vars(main))}"] = 0
            return True

    main = OpenAIBackend("main", base_url=ONE)
    vars(main)[Name("kept")] = 0
    reloads = Reloads()
    with Router.from_config(
        {"default_model": "main/m"}, env={}, backends=[main], on_event=reloads.listen
    ) as it:
        it.reload()
    assert len(reloads.events) == 1


def test_the_line_for_many_names_is_short() -> None:
    event = Reloaded(tuple(f"agents.a{i}" for i in range(119)), (), ())
    assert str(event).endswith("agents.a18, agents.a19 and 99 more")


# -- More than one at a time ---------------------------------------------------------------------------------


class Slow(dict[str, Any]):
    """A source that is being read until it may be finished."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.begun, self.finish = threading.Event(), threading.Event()
        self.readers = self.most = 0

    def items(self) -> Any:
        self.begun.set()
        self.readers += 1
        self.most = max(self.most, self.readers)
        assert self.finish.wait(5)
        self.readers -= 1
        return super().items()


def test_calls_go_on_while_the_sources_are_read(caller: Caller) -> None:
    hosts, slow = Hosts(), Slow(source(TWO))
    with router(source(ONE), hosts) as made, ThreadPoolExecutor(1) as pool:
        reload = pool.submit(made.reload, slow)
        try:
            assert slow.begun.wait(5)
            caller.complete(made, "hi")
        finally:
            slow.finish.set()
        reload.result()
        caller.complete(made, "hi")
    assert hosts.asked == ["one.test m", "two.test m"]


def test_two_reloads_come_one_after_the_other() -> None:
    hosts, slow = Hosts(), Slow(source(TWO))
    with router(source(ONE), hosts) as made, ThreadPoolExecutor(3) as pool:
        reloads = [pool.submit(made.reload, slow) for _ in range(3)]
        assert slow.begun.wait(5)
        slow.finish.set()
        for reload in reloads:
            reload.result()
    assert slow.most == 1


class Interrupted(dict[str, Any]):
    """A source that is read first as it was; then a signal's handler runs, in the middle of the reading."""

    def __init__(self, content: dict[str, Any], handler: Callable[[], None]) -> None:
        super().__init__(content)
        self._handlers: Iterator[Callable[[], None]] = iter([handler])

    def items(self) -> Any:
        read = list(super().items())
        for handler in self._handlers:
            handler()
            break
        return read


def test_a_signals_handler_may_reload_during_a_reload() -> None:
    hosts, reloads = Hosts(), Reloads()

    def handler() -> None:
        given["backends"] = {"main": backend(TWO)}
        made.reload()

    given = Interrupted(source(ONE), handler)
    with router(source(ONE), hosts, on_event=reloads.listen) as made:
        made._reloader.sources = Sources(given)
        made.reload()
        made.complete("hi")
    assert hosts.asked == ["two.test m"], "what the handler read is not replaced by what was read before"
    assert [event.changed for event in reloads.events] == [("backends.main",), ()]


def test_a_call_that_runs_goes_on_with_the_old_tables(caller: Caller) -> None:
    hosts = Hosts()
    before = source(
        ONE, backends=TWO_BACKENDS, aliases={"m": "main/old", "f": "spare/old"}, fallbacks={"m": ["f"]}
    )
    after = source(TWO, aliases={"m": "main/new"}, prices={"main/new": {"input": 1, "output": 1}}, retry=FAST)

    def reloading(request: httpx.Request) -> httpx.Response:
        if request.url.host == "one.test":
            made.reload(after)
            return httpx.Response(503)
        return hosts._answer(request)

    options: dict[str, Any] = {"transport": httpx.MockTransport(reloading), "env": {}}
    with Router.from_config(before, **options) as made:
        reply = caller.complete(made, "hi", model="m")
        assert [each.deployment for each in reply.route.attempts] == ["main/old", "spare/old"]
        assert reply.cost is None
        later = caller.complete(made, "hi", model="m")
    assert later.route.deployment == "main/new"
    assert later.cost == Price(1, 1).input * 18 / 10**6
    assert hosts.asked == ["two.test old", "two.test new"]


def test_a_stream_that_runs_is_read_to_its_end() -> None:
    gate = threading.Event()

    def streamed(request: httpx.Request) -> httpx.Response:
        from tests.support.openai_like import chat_sse

        pieces = chat_sse(["hel", "lo"])
        return httpx.Response(200, stream=Held([b"".join(pieces[:2]), b"".join(pieces[2:])], gate))

    with Router.from_config(source(ONE), env={}, transport=httpx.MockTransport(streamed)) as made:
        stream = made.stream("hi")
        text = next(stream).text
        made.reload(source("http://three.test/v1"))
        gate.set()
        text += "".join(chunk.text for chunk in stream)
        assert text == "hello"
        assert stream.completion.route.deployment == "main/m"


class Held(httpx.SyncByteStream):
    def __init__(self, pieces: list[bytes], gate: threading.Event) -> None:
        self._pieces, self._gate = pieces, gate

    def __iter__(self) -> Iterator[bytes]:
        yield self._pieces[0]
        assert self._gate.wait(5)
        yield self._pieces[1]


def test_reading_a_file_of_119_agents_again_takes_milliseconds(tmp_path: Path) -> None:
    agents = "".join(f'[agents.agent-{i}]\nmodel = "main/m{i % 7}"\n' for i in range(119))
    file = write(tmp_path / "ccroute.toml", ONE)
    file.write_text(file.read_text() + agents)
    with router(file, Hosts()) as made:
        made.reload()
        begun = os.times()
        for _ in range(10):
            made.reload()
        spent = os.times()
    assert (spent.user - begun.user) / 10 < 0.05, "CPU seconds of this process"
