"""LiteLLM's `config.yaml`, read as it is: recognised here, read by `ccroute.config.litellm.translate`."""

from collections.abc import Mapping
from typing import Any, Final

_SIGNS: Final = frozenset({"model_list", "litellm_settings", "router_settings", "credential_list"})


def is_litellm(document: Mapping[str, Any]) -> bool:
    """Whether the document is LiteLLM's, or includes such files."""
    included = document.get("include")
    includes = isinstance(included, list) and all(isinstance(name, str) for name in included)
    signs = _SIGNS | ({"include"} if includes else set()) | {"general_settings"}
    return not signs.isdisjoint(document) and not {"backends", "llm_routing"} & document.keys()
