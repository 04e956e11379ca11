"""How OpenAI-compatible servers differ from each other: plain data, read by the encoder and the decoders."""

from typing import Final, Literal, NamedTuple


class Dialect(NamedTuple):
    """How an OpenAI-compatible server differs from the others.

    max_tokens:     the name of the limit; OpenAI's newer models know only the long one, TGI only the short
    one. include_usage:  whether a stream may ask for usage at its end.
    json_schema:    whether `response_format` may hold a schema.
    top_k:          whether it knows `top_k`; OpenAI itself refuses it.
    developer_role: whether it knows the role `developer`; otherwise `system` is sent.
    top_effort:     its value for `reasoning_effort="max"`, if the model's efforts are not known.
    thinking:       how `reasoning_effort` is written for an unknown model: see `Model`, or "flag"
    (`enable_thinking`).
    efforts:        its values of `reasoning_effort` for an unknown model.
    seed:           its name for `seed`.
    most_stops:     the most stop sequences that it takes.
    cache_control:  whether it passes `cache_control` on to the model.
    own_fields:     whether an assistant message may send back fields that this server added to its answer.
                    OpenAI and Mistral refuse unknown fields.
    thoughts:       the text of `reasoning_content` in an assistant message without known thinking, if the
                    server refuses messages without the field; None: the field is not needed.
    one_system:     whether only the first message may be a system message, as many chat templates demand.
    tool_images:    whether a tool message may hold images; otherwise a user message after it does.
    null_content:   whether the content of an assistant message with calls may be null; otherwise it is "".
    blank_answers:  whether an assistant message without text and calls may be sent; otherwise it is left out.
    call_ids:       which ids of tool calls it takes: any, at most 40 characters ("short"), or exactly nine
                    letters and digits ("nine").
    unknown:        further parameters it refuses or silently ignores.
    """

    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    include_usage: bool = True
    json_schema: bool = True
    top_k: bool = False
    developer_role: bool = False
    top_effort: str = "xhigh"
    thinking: Literal["effort", "switch", "template", "flag"] = "effort"
    efforts: tuple[str, ...] | None = None
    seed: Literal["seed", "random_seed"] = "seed"
    most_stops: int | None = None
    cache_control: bool = False
    own_fields: bool = True
    thoughts: str | None = None
    one_system: bool = False
    tool_images: bool = False
    null_content: bool = True
    blank_answers: bool = True
    call_ids: Literal["any", "short", "nine"] = "any"
    unknown: frozenset[str] = frozenset()


PLAIN: Final = Dialect()
"""What nearly every server understands."""
