"""A server's side of Anthropic's API: `/v1/messages`, its `count_tokens`, and `/v1/models`. No I/O.

`parse_request` and `parse_count_tokens` read a body, the other functions write one.
"""

from ccroute.serve.answers import error_headers
from ccroute.serve.anthropic.answers import (
    adump_stream,
    dump_completion,
    dump_count_tokens,
    dump_error,
    dump_models,
    dump_stream,
    error_body,
)
from ccroute.serve.anthropic.request import parse_count_tokens, parse_request
from ccroute.serve.body import ParsedRequest

__all__ = [
    "ParsedRequest",
    "adump_stream",
    "dump_completion",
    "dump_count_tokens",
    "dump_error",
    "dump_models",
    "dump_stream",
    "error_body",
    "error_headers",
    "parse_count_tokens",
    "parse_request",
]
