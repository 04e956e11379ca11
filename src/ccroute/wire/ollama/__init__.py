"""Ollama's own chat API. Its `/v1` ignores the context window, tool choice and token limits.

Knows `POST /api/chat` and its stream; must not know addresses.
"""

from ccroute.wire.ollama.decode import decode, error
from ccroute.wire.ollama.encode import encode, offers_tools, refusals
from ccroute.wire.ollama.stream import Decoder

__all__ = ["Decoder", "decode", "encode", "error", "offers_tools", "refusals"]
