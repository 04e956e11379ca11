"""Which parameters an OpenAI-compatible server and its models accept, and how a request asks for thinking.

Knows the description of a server (`Dialect`) and of a model (`Model`); must not know messages.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ccroute.types import JSON, Model, Request
from ccroute.wire.fields import given, thinks
from ccroute.wire.openai.dialect import Dialect

_SAMPLING: Final = ("temperature", "top_p", "top_k")
_NEUTRAL: Final[Mapping[str, JSON]] = {
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
}
"""Default values. A refused parameter with its default value can be left out."""

_EFFORTS: Final = ("minimal", "low", "medium", "high", "xhigh", "max")
_SWITCHED: Final = ("switch", "flag")  # forms of providers whose models think unless thinking is switched off
_OTHERWISE: Final = "if it does take it, say so in the backend's models={{{model!r}: Model({field}=…)}}"


def refused_parameters(request: Request, model: str, dialect: Dialect, facts: Model) -> dict[str, str]:
    """Return the given parameters that `model` refuses, each with the reason."""
    why = {}
    for name, value in _refused(request, facts).items():
        if name not in ("reasoning_effort", "max_tokens") and value != _NEUTRAL.get(name):
            field = "sampling" if name in _SAMPLING else "refuses"
            why[name] = f"{model} does not take it; {_OTHERWISE.format(model=model, field=field)}"
    if facts.sampling == "one" and request.temperature is not None and request.top_p is not None:
        why["top_p"] = f"{model} takes temperature or top_p, not both"
    if request.reasoning_effort:
        if thinks(request) and _form(dialect, facts)[0] in _SWITCHED and is_forced(request):
            why["tool_choice"] = f"{model} does not think before a forced tool; use reasoning_effort='none'"
        if reason := _refused_effort(request, model, dialect, facts):
            why["reasoning_effort"] = reason
    return why


def neutral_parameters(request: Request, facts: Model) -> list[str]:
    """Return the refused parameters whose given value is the model's default. They are not sent."""
    return [name for name, value in _refused(request, facts).items() if value == _NEUTRAL.get(name)]


def _refused_effort(request: Request, model: str, dialect: Dialect, facts: Model) -> str | None:
    """Return why the model cannot think with the asked effort; None if it can."""
    is_asked, otherwise = thinks(request), _OTHERWISE.format(model=model, field="thinking")
    if facts.thinking == "none":
        return f"{model} does not think; {otherwise}" if is_asked else None
    refuses = facts.refuses or ()
    with_tools = is_asked and "reasoning_effort with tools" in refuses and bool(request.tools)
    if with_tools or "reasoning_effort" in refuses:
        beside = " beside tools" if with_tools else ""
        return f"{model} does not take it{beside}; {_OTHERWISE.format(model=model, field='refuses')}"
    form, efforts = _form(dialect, facts)
    if efforts is None or form != "effort":
        return None
    if is_asked:
        return None if set(efforts) - {"none"} else f"{model} does not take it; {otherwise}"
    if "none" in efforts:
        return None
    known = ", ".join(efforts) or "no other either"
    return f"thinking cannot be switched off at {model}; it takes {known}; {otherwise}"


def is_forced(request: Request) -> bool:
    """Whether the model must call a tool."""
    return bool(request.tools and request.tool_choice) and request.tool_choice not in ("auto", "none")


def put_effort(body: dict[str, JSON], request: Request, dialect: Dialect, facts: Model) -> None:
    """Write the reasoning effort in the model's form."""
    effort = request.reasoning_effort
    if facts.thinking == "none":
        return
    form, efforts = _form(dialect, facts)
    if not effort:
        if form in _SWITCHED and is_forced(request):
            effort = "none"  # these models think by default, and then refuse a forced tool
        else:
            return
    is_asked = effort != "none"
    if form == "switch":
        body["thinking"] = {"type": "enabled" if is_asked else "disabled"}
    elif form == "template":
        body["chat_template_kwargs"] = {"enable_thinking": is_asked}
    elif form == "flag":
        body["enable_thinking"] = is_asked
    if form == "effort" or (is_asked and efforts):
        body["reasoning_effort"] = _word(effort, efforts, dialect)


def _refused(request: Request, facts: Model) -> dict[str, JSON]:
    """Return the given parameters that the model refuses, with their values."""
    takes_none = facts.sampling == "none" or (facts.sampling == "not_thinking" and thinks(request))
    names = (*(_SAMPLING if takes_none else ()), *(facts.refuses or ()))
    # `tool_choice` in `refuses` means only a forced tool.
    return {
        name: value
        for name, value in given(request, names).items()
        if name != "tool_choice" or is_forced(request)
    }


def _form(dialect: Dialect, facts: Model) -> tuple[str, Sequence[str] | None]:
    """Return the form in which to ask for thinking, and the efforts that the model accepts."""
    return facts.thinking or dialect.thinking, dialect.efforts if facts.efforts is None else facts.efforts


def _word(effort: str, efforts: Sequence[str] | None, dialect: Dialect) -> str:
    """Return the effort if the model accepts it, else the nearest lower one, else the nearest higher one."""
    if efforts is None:
        return dialect.top_effort if effort == "max" else effort
    if effort in efforts:
        return effort
    place = _EFFORTS.index(effort)
    known = [word for word in _EFFORTS if word in efforts]
    if not known:  # the model has only efforts of its own
        return effort
    below = [word for word in known if _EFFORTS.index(word) < place]
    return below[-1] if below else known[0]
