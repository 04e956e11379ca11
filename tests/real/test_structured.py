"""What users reported of structured answers, of functions as tools, and of notebooks."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import jedi
import pytest
from pydantic import BaseModel, Field, TypeAdapter, create_model
from tests.conftest import Caller
from tests.support.openai_like import chat, tool_call
from tests.support.scripted import ScriptedServer, answer

from ccroute import Completion, Message, OpenAIBackend, Router, errors
from ccroute.types import Choice
from ccroute.types.arguments.structured import KEPT, answer_format
from ccroute.types.arguments.tools import checked_tools, tool_of

complaint = pytest.mark.complaint


class Finding(BaseModel):
    severity: str
    line: int = 1


class Node(BaseModel):
    name: str
    children: list[Node] = []


def asked(caller: Caller, reply: dict[str, Any], **options: Any) -> Completion[Any]:
    """The answer of a call to a server that sends `reply`."""
    with ScriptedServer([answer(json=reply)]) as server:
        with Router([OpenAIBackend("main", base_url=server.url)], default_model="main/m") as router:
            return caller.complete(router, "hi", **options)


def read(text: str | None, kind: Any = Finding, finish: Any = "stop") -> Completion[Any]:
    """An answer as a call with `response_format=kind` gives it."""
    reply = Completion[Any](choices=(Choice(message=Message(content=text), finish_reason=finish),))
    reply._asked_with(answer_format(kind), None)
    return reply


def described(source: Any) -> dict[str, str | None]:
    properties = tool_of(source, "tools[0]")["function"]["parameters"]["properties"]
    return {name: schema.get("description") for name, schema in properties.items()}


# -- answers -------------------------------------------------------------------------------------------------


@complaint("https://github.com/crewAIInc/crewAI/pull/4641", "JSON in a Markdown fence is called invalid")
def test_a_fence_around_the_json_does_no_harm(caller: Caller) -> None:
    reply = asked(caller, chat('```json\n{"severity": "high"}\n```'), response_format=Finding)
    assert reply.parsed == Finding(severity="high")


@complaint("https://github.com/pydantic/pydantic-ai/pull/3475", "a fence that is opened and never closed")
def test_a_fence_need_not_be_closed() -> None:
    assert read('```json\n{"severity": "high"}').parsed == Finding(severity="high")


@complaint("https://github.com/567-labs/instructor/issues/276", "a cut off answer is reported as bad JSON")
def test_an_answer_that_was_cut_off_says_so(caller: Caller) -> None:
    reply = asked(caller, chat('{"severity": "hi', finish="length"), response_format=Finding)
    with pytest.raises(errors.InvalidOutputError, match="cut off at its token limit: raise max_tokens"):
        _ = reply.parsed


@complaint("https://github.com/browser-use/browser-use/pull/5148", "all tokens spent on thoughts: no content")
def test_a_limit_that_was_spent_on_thoughts_is_the_limits_fault() -> None:
    with pytest.raises(errors.InvalidOutputError, match="cut off at its token limit"):
        _ = read(None, finish="length").parsed


@complaint("https://github.com/openai/openai-python/issues/2406", "a cut off answer is not in the error")
def test_what_came_of_a_cut_off_answer_is_in_the_error() -> None:
    with pytest.raises(errors.InvalidOutputError) as caught:
        _ = read('{"severity": "hi', finish="length").parsed
    assert caught.value.text == '{"severity": "hi'


@complaint(
    "https://github.com/mozilla-ai/any-llm/issues/881", "a refused answer is parsed as None in silence"
)
def test_a_refusal_is_an_error_and_never_none(caller: Caller) -> None:
    reply = asked(caller, chat(None, refusal="I can't help with that."), response_format=Finding)
    with pytest.raises(errors.InvalidOutputError, match="the model refused to answer") as caught:
        _ = reply.parsed
    assert caught.value.text == "I can't help with that."


@complaint("https://github.com/openai/openai-python/issues/1763", "an invalid answer ends the whole call")
def test_an_invalid_answer_is_still_an_answer_with_its_cost(caller: Caller) -> None:
    reply = asked(caller, chat('{"severity": 7}'), response_format=Finding)
    assert (reply.text, reply.usage.output > 0) == ('{"severity": 7}', True)
    with pytest.raises(errors.InvalidOutputError, match="severity: Input should be a valid string"):
        _ = reply.parsed


@complaint("https://github.com/openai/openai-python/issues/2090", "lists and TypeAdapters are no formats")
@pytest.mark.parametrize("kind", [list[Finding], TypeAdapter(list[Finding])], ids=["list", "adapter"])
def test_a_list_is_asked_for_as_the_field_of_an_object(kind: Any) -> None:
    assert answer_format(kind)["json_schema"]["schema"]["type"] == "object"
    assert read('{"value": [{"severity": "high"}]}', kind).parsed == [Finding(severity="high")]


@complaint("https://github.com/ollama/ollama/issues/8000", "Ollama does not hold to a schema that is a list")
def test_a_bare_list_is_read_too() -> None:
    assert read('[{"severity": "high"}]', list[Finding]).parsed == [Finding(severity="high")]


@complaint("https://github.com/noamgat/lm-format-enforcer/issues/98", "a class that holds itself has no type")
def test_a_recursive_classs_schema_has_its_type_at_the_root() -> None:
    schema = answer_format(Node)["json_schema"]["schema"]
    assert schema["type"] == "object"
    assert "$ref" not in schema
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}


@complaint("https://github.com/openai/openai-python/issues/2146", "each class of a program is kept for ever")
def test_classes_that_are_made_as_a_program_runs_are_let_go() -> None:
    made = create_model("Made", x=(int, ...))
    gone = weakref.ref(made)
    answer_format(made)
    del made
    for i in range(KEPT):
        answer_format(create_model(f"Made{i}", x=(int, ...)))
    gc.collect()
    assert gone() is None


@complaint("https://github.com/567-labs/instructor/issues/2603", "a class is prepared anew for every call")
def test_a_class_is_prepared_once() -> None:
    assert answer_format(Finding) is answer_format(Finding)
    assert answer_format(list[Finding]) is answer_format(list[Finding])


# -- tools ---------------------------------------------------------------------------------------------------


def search(query: str, limit: int = 10) -> str:
    """Search."""
    return f"{query}/{limit}"


@complaint(
    "https://github.com/run-llama/llama_index/issues/7170", "a tool that does not exist crashes the agent"
)
def test_a_tool_that_the_model_made_up_is_a_typed_error(caller: Caller) -> None:
    calls = [tool_call("look_up", "{}")]
    reply = asked(caller, chat(None, finish="tool_calls", tool_calls=calls), tools=[search])
    with pytest.raises(errors.InvalidOutputError, match='there is no tool "look_up"'):
        reply.tool_calls[0].validated()


@complaint("https://github.com/livekit/agents/pull/6085", "the model is not told which tools there are")
def test_the_error_tells_the_model_which_tools_there_are(caller: Caller) -> None:
    calls = [tool_call("weather", "{}")]
    reply = asked(caller, chat(None, finish="tool_calls", tool_calls=calls), tools=[search, Finding])
    with pytest.raises(errors.InvalidOutputError, match="there are search, Finding"):
        reply.tool_calls[0].validated()


@complaint("https://github.com/langchain-ai/langchain/issues/27602", "arguments that are an empty text")
def test_no_arguments_are_an_empty_object(caller: Caller) -> None:
    def now() -> str:
        return "now"

    calls = [tool_call("now", "")]
    [call] = asked(caller, chat(None, finish="tool_calls", tool_calls=calls), tools=[now]).tool_calls
    assert (call.arguments, call.validated()) == ({}, {})


@complaint(
    "https://github.com/anthropics/anthropic-sdk-python/pull/1535", "of two tools of one name one is lost"
)
def test_two_tools_of_one_name_are_refused_by_place() -> None:
    def other() -> None: ...

    other.__name__ = "search"
    with pytest.raises(errors.InvalidRequestError, match=r'tools\[1\]: tools\[0\] is named "search", too'):
        checked_tools([search, other])


@complaint(
    "https://github.com/modelcontextprotocol/python-sdk/pull/1123", "parameters named json or schema clash"
)
def test_a_parameter_may_have_the_name_of_a_models_method(recwarn: pytest.WarningsRecorder) -> None:
    def f(json: str, schema: str, model_dump: int) -> None: ...

    assert list(described(f)) == ["json", "schema", "model_dump"]
    assert not recwarn.list


@complaint(
    "https://github.com/openai/openai-agents-python/pull/4108", "a parameter with an underscore crashes"
)
def test_a_parameter_may_begin_with_an_underscore() -> None:
    def f(_path: str) -> None: ...

    assert tool_of(f, "t").read('{"_path": "x"}') == {"_path": "x"}


@complaint("https://github.com/strands-agents/harness-sdk/issues/1914", "a Field(…) as a default warns")
def test_a_field_as_a_default_is_one(recwarn: pytest.WarningsRecorder) -> None:
    def f(items: list[str] = Field(default_factory=list, description="which")) -> None: ...  # noqa: B008 - theirs

    assert described(f) == {"items": "which"}
    assert tool_of(f, "t").read("{}") == {"items": []}
    assert not recwarn.list


@complaint(
    "https://github.com/generative-computing/mellea/issues/1517", "defaults are lost, *args become one"
)
def test_defaults_are_in_the_schema_and_args_are_refused() -> None:
    schema = tool_of(search, "t")["function"]["parameters"]
    assert (schema["required"], schema["properties"]["limit"]["default"]) == (["query"], 10)

    def f(*args: int) -> None: ...

    with pytest.raises(errors.InvalidRequestError, match='parameter "args" takes any arguments'):
        tool_of(f, "tools[0]")


@complaint(
    "https://github.com/modelcontextprotocol/python-sdk/pull/2402", "docstrings' parameters are not read"
)
def test_a_docstring_describes_the_parameters_and_not_the_tool() -> None:
    def add(a: float, b: float) -> float:
        """Adds two numbers.

        Args:
            a: The first number.
            b: The second number.
        """
        return a + b

    assert described(add) == {"a": "The first number.", "b": "The second number."}
    assert tool_of(add, "t")["function"]["description"] == "Adds two numbers."


@complaint("https://github.com/huggingface/smolagents/pull/724", "types in a docstring are taken for names")
def test_types_in_a_docstring_are_passed_over() -> None:
    def multiply(x: float) -> float:
        """Multiply.

        Args:
            x (float): The number.
        """
        return x

    assert described(multiply) == {"x": "The number."}


@complaint(
    "https://github.com/openai/openai-agents-python/issues/4769", "a blank line below Args loses them all"
)
def test_blank_lines_around_args_do_no_harm() -> None:
    def f(city: str) -> None:
        """Get the weather.
        Args:

            city: The city.
        """

    assert described(f) == {"city": "The city."}
    assert tool_of(f, "t")["function"]["description"] == "Get the weather."


@complaint("https://github.com/openai/openai-agents-python/issues/4985", "Keyword Args are not read")
def test_keyword_args_are_args() -> None:
    def f(query: str, *, limit: int = 10) -> None:
        """Search.

        Keyword Args:
            limit: How many.
        """

    assert described(f) == {"query": None, "limit": "How many."}


@complaint("https://github.com/rr-/docstring_parser/issues/115", "a docstring that begins with Args is lost")
def test_a_docstring_may_begin_with_args() -> None:
    def f(to: str) -> None:
        """Args:
        to: Recipient.
        """

    assert described(f) == {"to": "Recipient."}
    assert "description" not in tool_of(f, "t")["function"]


# -- conversations and notebooks -----------------------------------------------------------------------------


@complaint("https://github.com/run-llama/llama_index/issues/10349", "a message with tool calls is no JSON")
def test_a_conversation_is_json(caller: Caller) -> None:
    calls = [tool_call("search", '{"query": "x"}')]
    reply = asked(caller, chat(None, finish="tool_calls", tool_calls=calls), tools=[search])
    kept = json.loads(json.dumps([{"role": "user", "content": "hi"}, reply.message], default=Message.to_dict))
    assert kept[1]["tool_calls"][0]["function"] == {"name": "search", "arguments": '{"query": "x"}'}
    assert json.dumps(reply.to_dict())


@complaint(
    "https://github.com/davidhalter/jedi/issues/1990", "a property that is a Literal ends tab completion"
)
def test_tab_completes_an_answer() -> None:
    offered = {each.name for each in jedi.Interpreter("reply.", [{"reply": Completion()}]).complete()}
    assert {"text", "cost", "finish_reason", "route"} <= offered
