"""The servers that answer: a backend is an origin, a key, a codec and limits.

Knows the wires; must not know agents, aliases, sockets or clocks.
"""

from typing import TYPE_CHECKING

from ccroute.lazy import loader

if TYPE_CHECKING:
    from ccroute.backends.anthropic import AnthropicBackend
    from ccroute.backends.backend import Backend, BackendOptions
    from ccroute.backends.codec import HttpRequest
    from ccroute.backends.ollama import OllamaBackend
    from ccroute.backends.openai import OpenAIBackend
    from ccroute.backends.registry import register
    from ccroute.http.origin import Origin

__all__ = [
    "AnthropicBackend",
    "Backend",
    "BackendOptions",
    "HttpRequest",
    "OllamaBackend",
    "OpenAIBackend",
    "Origin",
    "register",
]

__getattr__ = loader(
    __name__,
    {
        "AnthropicBackend": "ccroute.backends.anthropic",
        "Backend": "ccroute.backends.backend",
        "BackendOptions": "ccroute.backends.backend",
        "HttpRequest": "ccroute.backends.codec",
        "OllamaBackend": "ccroute.backends.ollama",
        "OpenAIBackend": "ccroute.backends.openai",
        "Origin": "ccroute.http.origin",
        "register": "ccroute.backends.registry",
    },
)
