"""Calls from threads and tasks while a router is reloaded a hundred times, also from a broken file."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.faults.parallel import at_rest
from tests.support.openai_like import chat

from ccroute import Completion, Router, errors

RELOADS = 100

# Both share a host with slots and a host without. Model, key, temperature and fallback tell whose a call is.
CONFIGURATION = """
[backends.main]
kind = "openai"
base_url = "http://main.test/v1"
api_key = "key-of-{name}-0123456789"
max_concurrency = {slots}

[backends.spare-{name}]
kind = "openai"
base_url = "http://spare.test/v1"
api_key = "key-of-{name}-0123456789"

[aliases]
fast = "main/{name}"
slow = "spare-{name}/{name}"

[agents.worker]
model = "fast"
fallback = ["slow"]
params = {{ temperature = {temperature} }}

[retry]
attempts = {attempts}
"""
TEXTS = {
    "a": CONFIGURATION.format(name="a", slots=1, temperature=0.1, attempts=2),
    "b": CONFIGURATION.format(name="b", slots=3, temperature=0.2, attempts=3),
}
BROKEN = "[agents.worker\n"
TEMPERATURES = {"a": 0.1, "b": 0.2}


class Hosts:
    """Checks that each request is wholly of one configuration. Every third one at main.test is refused."""

    def __init__(self) -> None:
        self.mixed: list[str] = []
        self.most = 0
        self._count = self._at_once = 0
        self._lock = threading.Lock()
        self.transport = _Both(self)

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        name = body["model"]
        right = (f"Bearer key-of-{name}-0123456789", TEMPERATURES[name])
        if (request.headers["authorization"], body["temperature"]) != right:
            self.mixed.append(name)
        with self._lock:
            self._count += 1
            refused = request.url.host == "main.test" and self._count % 3 == 0
        return httpx.Response(503) if refused else httpx.Response(200, json=chat(name))

    def come(self) -> None:
        with self._lock:
            self._at_once += 1
            self.most = max(self.most, self._at_once)

    def go(self) -> None:
        with self._lock:
            self._at_once -= 1


class _Both(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A task gives way to others in the middle of a request, as threads do."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "main.test":
            return self._hosts.answer(request)
        self._hosts.come()
        try:
            return self._hosts.answer(request)
        finally:
            self._hosts.go()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "main.test":
            return self._hosts.answer(request)
        self._hosts.come()
        try:
            await asyncio.sleep(0)
            return self._hosts.answer(request)
        finally:
            self._hosts.go()


def is_whole(reply: Completion) -> bool:
    """Whether the answer, the route and every attempt are of one configuration."""
    name, attempts = reply.text, reply.route.attempts
    expected = [f"main/{name}", f"spare-{name}/{name}"][: len(attempts)]
    return [each.deployment for each in attempts] == expected and reply.route.model == ("fast", "slow")[
        len(attempts) - 1
    ]


@pytest.mark.parametrize("watch", [False, True])
def test_every_call_during_a_hundred_reloads_is_served_by_one_configuration(
    tmp_path: Path, watch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccroute.config.sources.EVERY", 0.0)
    hosts, file, stop = Hosts(), tmp_path / "ccroute.toml", threading.Event()
    file.write_text(TEXTS["a"])

    def in_a_thread() -> list[Completion]:
        replies = []
        while not stop.is_set():
            replies.append(router.complete("hi", agent="worker"))
        return replies

    def on_a_loop() -> list[Completion]:
        async def task() -> list[Completion]:
            replies = []
            while not stop.is_set():
                replies.append(await router.acomplete("hi", agent="worker"))
                async with router.astream("hi", agent="worker"):
                    pass  # given up before it began
            return replies

        async def tasks() -> list[Completion]:
            return [
                reply for replies in await asyncio.gather(*(task() for _ in range(3))) for reply in replies
            ]

        return asyncio.run(tasks())

    def change(turn: int) -> None:
        """Each file is replaced as a whole, as editors and deployments do."""
        text = BROKEN if turn % 3 == 1 else TEXTS["ab"[turn % 2]]
        new = tmp_path / "new.toml"
        new.write_text(text + f"# {'.' * turn}\n")  # of another size each time
        new.replace(file)
        if watch:
            return
        if text is BROKEN:
            with pytest.raises(errors.ConfigError):
                router.reload()
        else:
            router.reload()

    made = Router.from_config(file, env={}, watch=watch, transport=hosts.transport, health="off")
    with made as router, ThreadPoolExecutor(4) as pool:
        callers = [*(pool.submit(in_a_thread) for _ in range(2)), *(pool.submit(on_a_loop) for _ in range(2))]
        try:
            for turn in range(RELOADS):
                change(turn)
                router.complete("hi", agent="worker")
        finally:
            stop.set()
        replies = [reply for caller in callers for reply in caller.result()]
        at_rest(router)
    assert all(map(is_whole, replies))
    assert not hosts.mixed
    assert {reply.text for reply in replies} == {"a", "b"}
    assert 1 < hosts.most <= 3
