"""A server's side of OpenAI's API: `/v1/chat/completions` and `/v1/models`. No I/O.

`parse_request` reads a body, the other functions write one.
"""

from ccroute.serve.answers import error_headers
from ccroute.serve.body import ParsedRequest
from ccroute.serve.openai.answers import (
    adump_stream,
    dump_completion,
    dump_error,
    dump_models,
    dump_stream,
    error_body,
)
from ccroute.serve.openai.request import parse_request

__all__ = [
    "ParsedRequest",
    "adump_stream",
    "dump_completion",
    "dump_error",
    "dump_models",
    "dump_stream",
    "error_body",
    "error_headers",
    "parse_request",
]
