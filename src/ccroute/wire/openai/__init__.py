"""OpenAI's chat completions, and the many servers that imitate them.

Knows `POST /chat/completions` and its stream; must not know addresses and keys.
"""

from ccroute.wire.errors.typed import error
from ccroute.wire.openai.decode import decode
from ccroute.wire.openai.dialect import Dialect
from ccroute.wire.openai.encode import encode, refusals
from ccroute.wire.openai.stream import Decoder

__all__ = ["Decoder", "Dialect", "decode", "encode", "error", "refusals"]
