"""Anthropic's errors: `{"type": "error", "error": {"type": …, "message": …}}`, read in `wire/errors.py`."""

from collections.abc import Mapping

from ccroute.wire.errors import classified, read_body
from ccroute.wire.kinds import Failure


def error(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The typed error of an answer that is not 2xx. Header names are in lower case."""
    return classified(read_body(body), status=status, headers=headers, body=body)
