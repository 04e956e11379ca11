"""Ollama's errors: `{"error": "…"}`, in an answer or as a line of a stream."""

import re
from collections.abc import Mapping
from typing import Final

from ccroute.failures import CallFailure
from ccroute.wire.errors.typed import parse_body, typed_error

_MISSING: Final = re.compile(r"""model ["']([^"'\s]+)["'] not found""")

_FOREIGN_HOST: Final = (
    "Ollama refuses a host name that it does not know: set OLLAMA_HOST=0.0.0.0 there, "
    'or give headers={"host": "localhost"}'
)


def error(status: int, headers: Mapping[str, str], body: bytes) -> CallFailure:
    """The typed error of an answer that is not 2xx. Header names are in lower case.

    It says what to do about a missing model (a bare 404 is a wrong path) and about a refused host name.
    """
    payload = parse_body(body, status, headers)
    missing = _MISSING.search(payload.line) if status == 404 else None
    if missing:
        payload.hint = f"the model is not there: run `ollama pull {missing[1]}`"
    elif status == 403 and not payload.words.strip():
        payload.hint = _FOREIGN_HOST
    return typed_error(payload)
