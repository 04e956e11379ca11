"""Who asks, as far as it matters when a deployment fails: whose request may be at fault."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

from ccroute.types import Request

Caller: TypeAlias = Hashable
"""Who asked: an agent's name, or a mark of what was asked where nobody gave a name."""


def name_of(request: Request) -> str | None:
    """The caller's name, if it gave one: its agent, its user or its session."""
    return request.agent or request.user or request.session


def caller_of(request: Request) -> Caller:
    """The caller's name; where it has none, a mark of what it asks: of its tools and its schema, else of its
    messages. A mistake is repeated with them."""
    name = name_of(request)
    if name is not None:
        return name
    formed = (request.tools, request.tool_choice, request.response_format)
    return hash(repr(formed if any(formed) else request.messages))
