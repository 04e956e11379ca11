"""ccroute routes each agent's LLM request in-process: it picks the model, sends, retries, falls back,
translates, prices and records.

Importing it opens nothing, starts nothing and reads no variable; each name is loaded at its first use,
so a program that only may need a model pays for pydantic and asyncio only when it does.
"""

from typing import TYPE_CHECKING

from ccroute._version import __version__
from ccroute.lazy import loader

if TYPE_CHECKING:
    from ccroute import errors
    from ccroute.accounting import PriceBook, Report
    from ccroute.backends import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend
    from ccroute.router import Router
    from ccroute.routing import Agent, AliasTable, Fallback
    from ccroute.routing.scheduling import LoadedFirst, Scheduler
    from ccroute.runtime.batches import AsyncBatch, Batch
    from ccroute.runtime.streams import AsyncStream, Stream
    from ccroute.types import (
        Attempt,
        Budget,
        Chunk,
        Completion,
        Message,
        Model,
        Price,
        RetryPolicy,
        Route,
        RoutePlan,
        Timeout,
        Usage,
    )

_HOMES = {
    "ccroute": ("errors",),
    "ccroute.accounting": ("PriceBook", "Report"),
    "ccroute.backends": ("AnthropicBackend", "Backend", "OllamaBackend", "OpenAIBackend"),
    "ccroute.router": ("Router",),
    "ccroute.routing": ("Agent", "AliasTable", "Fallback"),
    "ccroute.routing.scheduling": ("LoadedFirst", "Scheduler"),
    "ccroute.runtime.batches": ("AsyncBatch", "Batch"),
    "ccroute.runtime.streams": ("AsyncStream", "Stream"),
    "ccroute.types": (
        "Attempt",
        "Budget",
        "Chunk",
        "Completion",
        "Message",
        "Model",
        "Price",
        "RetryPolicy",
        "Route",
        "RoutePlan",
        "Timeout",
        "Usage",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "AliasTable",
    "AnthropicBackend",
    "AsyncBatch",
    "AsyncStream",
    "Attempt",
    "Backend",
    "Batch",
    "Budget",
    "Chunk",
    "Completion",
    "Fallback",
    "LoadedFirst",
    "Message",
    "Model",
    "OllamaBackend",
    "OpenAIBackend",
    "Price",
    "PriceBook",
    "Report",
    "RetryPolicy",
    "Route",
    "RoutePlan",
    "Router",
    "Scheduler",
    "Stream",
    "Timeout",
    "Usage",
    "__version__",
    "errors",
]


__getattr__ = loader(__name__, _HOME)


def __dir__() -> list[str]:
    return __all__
