"""Fixtures of the real llama.cpp server. Where it cannot run, tests skip with the reason; in CI they fail."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

import tiny_llama
from tiny_llama import TinyLlama

__all__ = ["llama_server", "llama_tools_server", "server_connections"]


def require_llama() -> None:
    """Skip the test, or fail it in CI, when no server can be started here."""
    if reason := tiny_llama.available():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def llama_server() -> Iterator[TinyLlama]:
    """One server for the whole session: two slots of 32,768 tokens, words for answers."""
    require_llama()
    with tiny_llama.serve(n_ctx=32_768) as server:
        yield server


@pytest.fixture(scope="session")
def llama_tools_server() -> Iterator[TinyLlama]:
    """One whose model calls a tool when `tool_choice` says it must."""
    require_llama()
    with tiny_llama.serve(speech="tools") as server:
        yield server


def server_connections(server: TinyLlama) -> int:
    """How many connections the server's process holds open right now."""
    found = psutil.Process(server.process.pid).net_connections(kind="tcp")
    return sum(item.status == psutil.CONN_ESTABLISHED for item in found)
