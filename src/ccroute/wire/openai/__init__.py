"""OpenAI's chat completions, and the many servers that imitate them.

Knows `POST /chat/completions` and its stream; must not know where it is sent, nor with which key.
"""

from ccroute.wire.openai.decode import decode
from ccroute.wire.openai.encode import Dialect, encode, refusals
from ccroute.wire.openai.errors import error
from ccroute.wire.openai.stream import Decoder

__all__ = ["Decoder", "Dialect", "decode", "encode", "error", "refusals"]
