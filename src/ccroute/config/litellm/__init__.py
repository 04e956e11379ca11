"""LiteLLM's `config.yaml`, read as it is."""

from ccroute.config.litellm.document import is_litellm
from ccroute.config.litellm.translate import translate

__all__ = ["is_litellm", "translate"]
