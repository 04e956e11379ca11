"""Recognises other tools' files, which ccroute does not read, by their keys, and gives advice.

The advice names keys and models, never another value, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, Final

from ccroute.routing.names import slug

_OURS = frozenset({"agents", "aliases", "backends", "groups", "llm_routing", "model_list"})
_ORCHESTRAS = ("agents", "llmrouting", "llmgateway", "agentmodeloverrides")
_AIDER = frozenset(
    {"anthropic-api-key", "edit-format", "editor-model", "openai-api-base", "openai-api-key", "weak-model"}
)
_KEY = frozenset({"apikey", "openaiapikey"})
_CLIENT = frozenset({"apibase", "baseurl", "model", "openaibaseurl"})
_VARIABLE = re.compile("(?:export )?[A-Z][A-Z0-9_]*")
_WRITE = "write a table [backends.<name>] for each of its servers, and [aliases] for its names of models"
_PAGE = "docs/configuration.md"
_DEEPEST = 6


def _has_any(known: Set[str], top: Iterable[str]) -> bool:
    """Whether one of the keys is known, in any spelling."""
    return any(slug(key).replace("-", "") in known for key in top)


# A file that ccroute does not read, how its keys show it, and what to do with it.
_SHAPES: Final[tuple[tuple[str, Callable[[Mapping[str, Any], Set[str]], object], str], ...]] = (
    (
        "an opencode file",
        lambda top, below: "provider" in top and below & {"npm", "options"},
        f"{_WRITE}; its provider.<name>.options.baseURL is base_url",
    ),
    (
        "a claude-code-router file",
        lambda top, below: isinstance(top.get("Providers", ""), list | None) and "api_base_url" in below,
        f"{_WRITE}; its Providers[].api_base_url is base_url, up to /v1",
    ),
    (
        "a Continue file",
        lambda top, below: isinstance(top.get("models", ""), list | None) and {"provider", "model"} <= below,
        f"{_WRITE}; its models[].provider is kind, its models[].apiBase is base_url",
    ),
    (
        "an aider file",
        lambda top, below: _AIDER & top.keys(),
        'its model goes to default_model = "<backend>/<model>", its openai-api-base to base_url of a backend',
    ),
    (
        "a Docker Compose file",
        lambda top, below: "services" in top and below & {"image", "build"} and "model" not in below,
        f"{_WRITE}; a service's published port is part of base_url",
    ),
    (
        "a Claude Code settings file",
        lambda top, below: "env" in top and any(key.startswith("ANTHROPIC_") for key in below),
        'its ANTHROPIC_BASE_URL is base_url of a backend of kind = "anthropic"',
    ),
    (
        "a list of MCP servers",
        lambda top, below: "mcpServers" in top,
        "ccroute routes requests to models; it does not run tools",
    ),
    (
        "the body of a request",
        lambda top, below: top.keys() >= {"messages", "model"},
        "give it to complete() of a router",
    ),
    (
        "a file of environment variables",
        lambda top, below: top and all(_VARIABLE.fullmatch(key) for key in top),
        "load it into the environment; a configuration names its variables as ${NAME}",
    ),
    (
        "the settings of one client",
        lambda top, below: _has_any(_KEY, top) and _has_any(_CLIENT, top),
        (
            "its address and its key are base_url and api_key of a table [backends.main] with "
            'kind = "openai", its model is default_model = "main/<model>"'
        ),
    ),
)
_ASSIGNMENT = re.compile(f"({_VARIABLE.pattern})=")


def looks_like(content: Mapping[Any, Any]) -> str | None:
    """Which other tool's file a table looks like, and what to do; None if it is not recognised."""
    top = {str(key): value for key, value in content.items()}
    return None if _is_ours(top) else _recognised(top, frozenset(_below(content)))


def looks_like_text(text: str) -> str | None:
    """`looks_like` for a text of variables, which no parser reads: `export NAME=value`."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = [_ASSIGNMENT.match(line) for line in lines]
    if not lines or not all(found):
        return None
    return _recognised(dict.fromkeys(match[1] for match in found if match), frozenset())


def _recognised(top: Mapping[str, Any], below: Set[str]) -> str | None:
    """Advice for a file with these keys: at its top with their values (None in a text), and below."""
    for name, fits, advice in _SHAPES:
        if fits(top, below):
            return f"looks like {name}, which is not read: {advice}. See {_PAGE}"
    return None


def _is_ours(top: Iterable[str]) -> bool:
    """Whether a key is one of the native shape or of an orchestra, such as `codingAgents`."""
    return any(key in _OURS or slug(key).replace("-", "").endswith(_ORCHESTRAS) for key in top)


def _below(value: object, levels: int = _DEEPEST) -> Iterator[str]:
    """All keys within a table's values."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for each in inner:
        if isinstance(each, Mapping):
            yield from map(str, each)
        if levels > 1:
            yield from _below(each, levels - 1)
