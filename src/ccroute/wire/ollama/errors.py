"""Ollama's errors: `{"error": "…"}`, in an answer or as a line of a stream."""

import re
from collections.abc import Mapping
from typing import Final

from ccroute.wire.errors import Told, classified, read_body
from ccroute.wire.kinds import Failure

_MISSING: Final = re.compile(r"""model ["']([^"'\s]+)["'] not found""")


def error(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The typed error of an answer that is not 2xx. Header names are in lower case."""
    told = read_body(body)
    return classified(
        told, status=status, headers=headers, body=body, hint=_hint(told) if status == 404 else ""
    )


def _hint(told: Told) -> str:
    """What to do about a model that is not there; a bare 404 is a wrong path."""
    missing = _MISSING.search(told.message)
    return f"the model is not there: run `ollama pull {missing[1]}`" if missing else ""
