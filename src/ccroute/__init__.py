"""ccroute routes each agent's LLM request in-process: it picks the model, sends, retries, falls back,
translates, prices and records. Importing it opens nothing, starts nothing and reads no variable.
"""

from ccroute import errors
from ccroute._version import __version__
from ccroute.accounting import PriceBook, Report
from ccroute.backends import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend
from ccroute.router import Router
from ccroute.routing import Agent, AliasTable
from ccroute.runtime.streams import AsyncStream, Stream
from ccroute.types import (
    Attempt,
    Chunk,
    Completion,
    Message,
    Model,
    Price,
    RetryPolicy,
    Route,
    Timeout,
    Usage,
)

__all__ = [
    "Agent",
    "AliasTable",
    "AnthropicBackend",
    "AsyncStream",
    "Attempt",
    "Backend",
    "Chunk",
    "Completion",
    "Message",
    "Model",
    "OllamaBackend",
    "OpenAIBackend",
    "Price",
    "PriceBook",
    "Report",
    "RetryPolicy",
    "Route",
    "Router",
    "Stream",
    "Timeout",
    "Usage",
    "__version__",
    "errors",
]
