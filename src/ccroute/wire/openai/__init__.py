"""OpenAI's chat completions, and the many servers that imitate them, in both directions.

Knows `POST /chat/completions` and its stream; must not know where it is sent, nor with which key. A backend
uses `encode` to `error`, a server of this API `parse_request` and the dumps.
"""

from ccroute.wire.errors import error
from ccroute.wire.openai.decode import decode
from ccroute.wire.openai.dialect import Dialect
from ccroute.wire.openai.encode import encode, refusals
from ccroute.wire.openai.serve import dump_completion, dump_error, dump_models, error_body
from ccroute.wire.openai.serve_request import parse_request
from ccroute.wire.openai.serve_stream import adump_stream, dump_stream
from ccroute.wire.openai.stream import Decoder
from ccroute.wire.serving import ParsedRequest, error_headers

__all__ = [
    "Decoder",
    "Dialect",
    "ParsedRequest",
    "adump_stream",
    "decode",
    "dump_completion",
    "dump_error",
    "dump_models",
    "dump_stream",
    "encode",
    "error",
    "error_body",
    "error_headers",
    "parse_request",
    "refusals",
]
