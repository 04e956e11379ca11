"""How long the way of one call is: the files it visits and the Python calls it makes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import pytest
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

import ccroute
from ccroute import Agent, Model, OpenAIBackend, Price, Router

SOURCE = str(Path(ccroute.__file__).parent)


class Way:
    """The calls of ccroute's own functions on one thread; a generator that goes on is one more call."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            self.files.append(frame.f_code.co_filename)


@contextmanager
def profiled() -> Iterator[Way]:
    way, before = Way(), sys.getprofile()
    sys.setprofile(way.note)
    try:
        yield way
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize(("statuses", "files", "calls"), [([200], 28, 150), ([502, 200], 40, 400)])
def test_the_way_of_a_call_is_short(statuses: list[int], files: int, calls: int) -> None:
    def server(status: int) -> ScriptedServer:
        return ScriptedServer([answer(status, json=chat("hi") if status == 200 else {"error": "bad"})] * 3)

    with ExitStack() as stack:
        servers = [stack.enter_context(server(status)) for status in statuses]
        price = {"m": Model(price=Price(1, 2))}
        backends = [OpenAIBackend(f"b{i}", base_url=s.url, models=price) for i, s in enumerate(servers)]
        agent = Agent("b0/m", fallback=[f"{backend.name}/m" for backend in backends[1:]])
        router = stack.enter_context(Router(backends, agents={"a": agent}))
        for _ in range(2):  # what is made at the first use is there
            router.complete("hi", agent="a")
        with profiled() as way:
            reply = router.complete("hi", agent="a")
    assert [attempt.status for attempt in reply.route.attempts] == statuses
    assert len(set(way.files)) <= files
    assert len(way.files) <= calls
