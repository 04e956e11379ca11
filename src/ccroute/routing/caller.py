"""Who asks, as far as it matters when a deployment fails: whose request may be at fault."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

from ccroute.types import Request
from ccroute.types.request import PARAMETERS

Caller: TypeAlias = Hashable
"""Who asked: an agent's name, or a mark of what was asked where nobody gave a name."""

_PARAMETERS = tuple(sorted(PARAMETERS))


def name_of(request: Request) -> str | None:
    """The caller's name, if it gave one: its agent, its session or its user."""
    return request.agent or request.session or request.user


def caller_of(request: Request) -> Caller:
    """The caller's name; where it has none, a mark of what it asks: of its parameters (tools, a schema),
    else of its messages. A mistake is repeated with them."""
    name = name_of(request)
    if name is not None:
        return name
    given = {key: value for key in _PARAMETERS if (value := getattr(request, key))}
    return hash(repr(given or request.messages))
