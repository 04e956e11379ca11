"""Ollama's errors: `{"error": "…"}`, in an answer or as a line of a stream."""

import re
from collections.abc import Mapping
from typing import Final

from ccroute.wire.errors import Told, classified, read_body
from ccroute.wire.kinds import Failure

_MISSING: Final = re.compile(r"""model ["']([^"'\s]+)["'] not found""")

_FOREIGN_HOST: Final = (
    "Ollama refuses a host name that it does not know: set OLLAMA_HOST=0.0.0.0 there, "
    'or give headers={"host": "localhost"}'
)


def error(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The typed error of an answer that is not 2xx. Header names are in lower case."""
    told = read_body(body)
    return classified(told, status=status, headers=headers, body=body, hint=_hint(status, told))


def _hint(status: int, told: Told) -> str:
    """What to do about a model that is not there (a bare 404 is a wrong path), or a host name it refuses."""
    if status == 403 and not told.message:
        return _FOREIGN_HOST
    missing = _MISSING.search(told.message)
    return f"the model is not there: run `ollama pull {missing[1]}`" if missing and status == 404 else ""
