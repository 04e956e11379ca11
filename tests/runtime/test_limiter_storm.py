"""Real threads and loops at two hosts, all at once: cancelled tasks, abandoned calls, reloads."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.runtime.test_drive import FakeConnections
from tests.runtime.test_limiter import A, B, host, limited, option

from ccroute.flow.effects import Emit, Enter, Flow, Granted, Leave, Queued, Wait
from ccroute.runtime.drive import AsyncDrive, Drive
from ccroute.types import Chunk

HOSTS = (option(A), option(B))
MOST = 3


def test_threads_tasks_cancels_and_reloads_lose_no_slot() -> None:
    limiter, over = limited(host(2), host(1, "b", B)), threading.Event()
    guard, inside, most, served = threading.Lock(), Counter[str](), Counter[str](), Counter[str]()

    def flow(who: str, chance: random.Random) -> Flow[str]:
        options = chance.sample(HOSTS, chance.choice([1, 2]))
        answer: Any = yield Enter(options, chance.choice([0, 0, 1]))
        if isinstance(answer, Queued):
            answer = yield Wait(time.monotonic() + chance.choice([0.002, 60]))
        if not isinstance(answer, Granted):
            return "late"
        url = str(options[answer.option].backend.origin)
        with guard:
            inside[url] += 1
            most[url] = max(most[url], inside[url])
            served[who] += 1
        try:
            yield Emit([Chunk(text="inside")])
        finally:
            with guard:
                inside[url] -= 1
        yield Leave()
        return "served"

    def thread(number: int) -> None:
        chance = random.Random(number)
        for _ in range(200):
            drive = Drive(flow("threads", chance), FakeConnections(), limiter)  # type: ignore[arg-type]
            if drive.advance() is not None and chance.random() < 0.5:
                drive.close()
            else:
                drive.advance()

    async def task(chance: random.Random) -> None:
        drive = AsyncDrive(flow("tasks", chance), FakeConnections(), limiter)  # type: ignore[arg-type]
        try:
            if await drive.advance() is not None:
                await asyncio.sleep(0)
                await drive.advance()
        finally:
            drive.close()

    async def loop(number: int) -> None:
        chance = random.Random(number)
        for _ in range(40):
            tasks = [asyncio.create_task(task(chance)) for _ in range(8)]
            await asyncio.sleep(0)
            for each in chance.sample(tasks, 2):
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def reload() -> None:
        chance = random.Random(0)
        while not over.wait(0.002):
            limiter.configure([host(chance.randint(1, MOST)), host(chance.randint(1, MOST), "b", B)], 500)

    with ThreadPoolExecutor(20) as pool, contextlib.ExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-5)
        stack.callback(over.set)
        reloads = pool.submit(reload)
        work = [pool.submit(thread, number) for number in range(10)]
        work += [pool.submit(asyncio.run, loop(number)) for number in range(3)]
        for each in work:
            each.result(30)
        over.set()
        reloads.result(5)
    assert {each[:2] for each in limiter.stats().values()} == {(0, 0)}
    assert not limiter._blocked
    assert not inside.total()
    assert max(most.values()) <= MOST
    assert min(served["threads"], served["tasks"]) > 50
