"""Chats with a real Ollama: whole and streamed."""

from __future__ import annotations

import pytest
from tests.conftest import Caller
from tests.support.ollama_real import RealOllama

from ccroute import OllamaBackend, Router

pytestmark = pytest.mark.ollama


def test_a_chat_is_answered_whole_and_streamed(ollama_server: RealOllama, caller: Caller) -> None:
    with Router([OllamaBackend("local", ollama_server.url)]) as router:
        whole = caller.complete(router, "hi", model="local/say-hello")
        heard = caller.stream(router, "hi", model="local/say-hello")
    assert whole.text == heard.text == "Hello there, wörld 🚀 end."
    assert whole.usage == heard.completion.usage
    assert (whole.usage.input, whole.usage.output, whole.usage.estimated) == (24, 6, False)
