"""Which models the backends have is asked of their listings, and a backend that fails is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.flow.support import BROKEN, REFUSED, FakeClock, HandDriver, PlainBackend, ScriptedReply, paid

from ccroute import Model, OllamaBackend, OpenAIBackend, Timeout
from ccroute.backends import Backend
from ccroute.flow import Flow
from ccroute.flow.listings import discover
from ccroute.types import ModelInfo


class Listing:
    """What stands for a call: a flow that discovers, on a clock that is set."""

    def __init__(self, *backends: Backend) -> None:
        self.clock = FakeClock()
        self.flow: Flow[list[ModelInfo]] = discover(backends, Timeout(connect=3), self.clock)


def found(world: Sequence[Any], *backends: Backend) -> tuple[dict[str, int | None], HandDriver]:
    """The models and their context windows, and the driver that asked for them."""
    driver = HandDriver(world)
    driver.run(Listing(*backends))  # type: ignore[arg-type]
    listed: Any = driver.given
    return {model.id: model.context_window for model in listed}, driver


def lists(*names: str) -> ScriptedReply:
    return ScriptedReply(pieces=[json.dumps({"data": [{"id": name} for name in names]}).encode()])


def says(body: Any) -> ScriptedReply:
    return ScriptedReply(pieces=[json.dumps(body).encode()])


def test_each_backend_lists_its_models() -> None:
    other = OpenAIBackend("other", base_url="http://other.test", models={"c": Model(context_window=7)})
    models, driver = found([lists("a", "b"), lists("c")], paid(), other)
    assert models == {"paid/a": None, "paid/b": None, "other/c": 7}
    assert [(sent.request.method, sent.request.target, sent.connect) for sent in driver.sends] == [
        ("GET", "/v1/models", 3),
        ("GET", "/v1/models", 3),
    ]
    assert [sent.until for sent in driver.sends] == [1010, 1010]


def test_a_backend_without_a_listing_is_not_asked() -> None:
    models, driver = found([lists("a")], PlainBackend(), paid())
    assert (models, driver.asked) == ({"paid/a": None}, ["paid"])


def test_the_window_is_read_from_details_then_loaded_models() -> None:
    tags = says({"models": [{"name": "one:latest"}, {"name": "two:latest"}]})
    loaded = says({"models": [{"name": "two:latest", "context_length": 4096}]})
    shown = says(
        {"model_info": {"general.architecture": "x", "x.context_length": 8192}, "parameters": "num_ctx 2048"}
    )
    models, driver = found([tags, loaded, shown, says({})], OllamaBackend("home"))
    assert [sent.request.target for sent in driver.sends] == [
        "/api/tags",
        "/api/ps",
        "/api/show",
        "/api/show",
    ]
    assert models == {"home/one": 2048, "home/two": 4096}


@pytest.mark.parametrize(
    "fault",
    [
        REFUSED,
        ScriptedReply(401),
        ScriptedReply(500, [b"broken"]),
        ScriptedReply(pieces=[b"{", BROKEN]),
        ScriptedReply(pieces=[b"<html>"]),
        ScriptedReply(pieces=[b"["], ends=False),
        ScriptedReply(pieces=[b" " * 2**20] * 9),
    ],
    ids=["refused", "401", "500", "broken", "page", "silent", "endless"],
)
def test_a_backend_that_fails_is_named_in_a_warning_and_left_out(
    fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    models, driver = found([fault, lists("c")], paid(), OpenAIBackend("other", base_url="http://other.test"))
    assert (models, driver.asked) == ({"other/c": None}, ["paid", "other"])
    (record,) = caplog.records
    kind, detail = record.getMessage().removeprefix("paid did not list its models: ").split(": ", 1)
    assert kind.endswith("Error")
    assert detail
