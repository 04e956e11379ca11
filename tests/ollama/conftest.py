"""What the tests against the real Ollama share. All of them are skipped where it is not at hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.ollama_real import RealOllama

from ccroute import Model, OllamaBackend, RetryPolicy, Router

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"severity": {"enum": ["low", "high"]}, "n": {"type": "integer"}},
    "required": ["severity", "n"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "finding", "schema": SCHEMA}}

WIDE = Model(context_window=4096)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/ollama/" in item.nodeid:
            item.add_marker(pytest.mark.ollama)


@pytest.fixture
def router(ollama_server: RealOllama) -> Iterator[Router]:
    """A router to the real server, which tries everything once."""
    with Router([OllamaBackend("local", ollama_server.url)], retry=RetryPolicy(attempts=1)) as router:
        yield router


@pytest.fixture
def patient(ollama_server: RealOllama) -> Iterator[Router]:
    """One whose `say-cycle` has room to speak for seconds."""
    backend = OllamaBackend("local", ollama_server.url, models={"say-cycle": WIDE})
    with Router([backend], retry=RetryPolicy(attempts=1)) as router:
        yield router
