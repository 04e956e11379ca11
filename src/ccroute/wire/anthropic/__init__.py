"""Anthropic's messages, as Anthropic and llama.cpp serve them, in both directions.

Knows `POST /v1/messages` and its stream; must not know where it is sent, nor with which key. A backend uses
`encode` to `error`, a server of this API `parse_request` and the dumps.
"""

from ccroute.wire.anthropic.decode import check_form, decode
from ccroute.wire.anthropic.encode import Form, answer_form, encode, refusals
from ccroute.wire.anthropic.serve import dump_completion, dump_error, dump_models, error_body
from ccroute.wire.anthropic.serve_request import dump_count_tokens, parse_count_tokens, parse_request
from ccroute.wire.anthropic.serve_stream import adump_stream, dump_stream
from ccroute.wire.anthropic.stream import Decoder
from ccroute.wire.errors import error
from ccroute.wire.serving import ParsedRequest, error_headers

__all__ = [
    "Decoder",
    "Form",
    "ParsedRequest",
    "adump_stream",
    "answer_form",
    "check_form",
    "decode",
    "dump_completion",
    "dump_count_tokens",
    "dump_error",
    "dump_models",
    "dump_stream",
    "encode",
    "error",
    "error_body",
    "error_headers",
    "parse_count_tokens",
    "parse_request",
    "refusals",
]
