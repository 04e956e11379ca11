"""Anthropic's Messages API, as Anthropic and llama.cpp serve it.

Knows `POST /v1/messages` and its stream; must not know addresses and keys.
"""

from ccroute.wire.anthropic.decode import check_form, decode
from ccroute.wire.anthropic.encode import DEFAULT_MAX_TOKENS, Form, answer_form, encode, refusals
from ccroute.wire.anthropic.stream import Decoder
from ccroute.wire.errors.typed import error

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "Decoder",
    "Form",
    "answer_form",
    "check_form",
    "decode",
    "encode",
    "error",
    "refusals",
]
