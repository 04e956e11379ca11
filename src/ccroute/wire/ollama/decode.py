"""Reads a whole answer or an error of Ollama. `stream.py` uses the readers of usage and times.

Knows the answer's shape; must not know the request. Ollama's tool calls may lack ids, and end with `stop`.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NoReturn

from ccroute.errors import InvalidRequestError
from ccroute.failures import CallFailure
from ccroute.types import JSON, Completion, FinishReason, Usage
from ccroute.types.results import new_choice, new_completion, new_message
from ccroute.wire.decoding import check_error
from ccroute.wire.errors.typed import parse_body, typed_error
from ccroute.wire.ollama.tags import split_thoughts
from ccroute.wire.reading import answer_text, finish_reason, load_object, text, wrong
from ccroute.wire.tools import whole_calls
from ccroute.wire.usage import counts, estimate_choices, usage

DONE: Final[Mapping[str, FinishReason]] = {"": "stop", "stop": "stop", "length": "length"}
"""Ollama's finish reasons in canonical form. Older versions send none."""
LOADED: Final = frozenset({"load", "unload"})
"""Finish reasons of a request that asked for no answer."""
_MISSING: Final = re.compile(r"""model ["']([^"'\s]+)["'] not found""")
_FOREIGN_HOST: Final = (
    "Ollama refuses a host name that it does not know: set OLLAMA_HOST=0.0.0.0 there, "
    'or give headers={"host": "localhost"}'
)


def decode(body: bytes) -> Completion:
    """Return the answer of a response with status 200. Raises the error that it reports, or `ProtocolError`,
    also if it is not done: Ollama stops an answer so if the model only repeats itself."""
    frame = load_object(body)
    message = frame.get("message")
    if "error" in frame or not isinstance(message, dict):
        check_error(frame, body)
    if not isinstance(message, dict):
        wrong("the answer holds no message", body)
    if not is_done(frame):
        wrong("Ollama broke the answer off (done: false), as it does when a model repeats itself", body)
    thoughts, answer = split_thoughts(answer_text(message.get("content")))
    thoughts = text(message.get("thinking")) + thoughts
    calls = whole_calls(message["tool_calls"]) if message.get("tool_calls") else ()
    reason, logprobs = text(frame.get("done_reason")), frame.get("logprobs")
    if reason in LOADED and not (calls or answer or thoughts):
        nothing_asked()
    choice = new_choice(
        message=new_message(content=answer, tool_calls=calls or None, thinking=thoughts or None),
        finish_reason=finish_reason(reason, DONE, calls),
        logprobs={"content": logprobs} if logprobs else None,
    )
    return new_completion(
        created=read_time(frame.get("created_at")),
        model=text(frame.get("model")),
        choices=(choice,),
        usage=read_usage(frame, lambda: estimate_choices([choice])),
        raw_finish_reason=reason or None,
        raw=frame,
    )


def error(status: int, headers: Mapping[str, str], body: bytes) -> CallFailure:
    """Return the typed error of an answer that is not 2xx. Header names are in lower case.

    Its message has advice for a missing model (any other 404 is a wrong path) and for a refused host name.
    """
    payload = parse_body(body, status, headers)
    missing = _MISSING.search(payload.line) if status == 404 else None
    if missing:
        payload.hint = f"the model is not there: run `ollama pull {missing[1]}`"
    elif status == 403 and not payload.words.strip():
        payload.hint = _FOREIGN_HOST
    return typed_error(payload)


def is_done(frame: Mapping[str, JSON]) -> bool:
    """Whether an answer ends with this frame. A runner (MLX) may send only `done_reason`."""
    done = frame.get("done")
    return done is True or (done is None and bool(frame.get("done_reason")))


def nothing_asked() -> NoReturn:
    """Raise `InvalidRequestError` for an empty answer: the model was only loaded or unloaded."""
    raise InvalidRequestError(
        "Ollama only loaded the model, as for a conversation without a user's message: give it one"
    )


def read_usage(frame: JSON, output_estimate: Callable[[], int]) -> Usage:
    """Return the usage of the last frame. Ollama leaves out a count of 0, and a prompt is never empty.

    `prompt_eval_cached_count`, which older versions do not send, is part of `prompt_eval_count`.
    """
    known = counts(frame)
    prompt = known.get("prompt_eval_count")
    cached = min(known.get("prompt_eval_cached_count", 0), prompt or 0)
    return usage(
        input=None if prompt is None else prompt - cached,
        cache_read=cached,
        output=known.get("eval_count", None if "eval_count" in frame else 0),
        output_estimate=output_estimate,
    )


def read_time(value: JSON) -> int:
    """Return an RFC 3339 time as a Unix time in seconds; 0 for any other value."""
    try:
        return int(datetime.fromisoformat(text(value)).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0
