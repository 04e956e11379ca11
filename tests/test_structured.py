"""Python types where a call takes schemas: classes as an answer's form, functions and classes as tools."""

from __future__ import annotations

import copy
import enum
import functools
import gc
import inspect
import json
import pickle
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter, create_model
from tests.conftest import Caller
from tests.support.openai_like import USAGE, chat, chat_sse, chunk, tool_call
from tests.support.scripted import ScriptedServer, answer, stream
from typing_extensions import TypedDict

from ccroute import Agent, Completion, OpenAIBackend, Router, errors
from ccroute.types import Choice, Function, Message, ToolCall
from ccroute.types.arguments.docstrings import LONGEST, read_docstring
from ccroute.types.arguments.structured import KEPT, AnswerFormat, answer_format
from ccroute.types.arguments.tools import Tool, checked_tools, tool_of
from ccroute.types.request import Request


class Finding(BaseModel):
    """What a reviewer found."""

    severity: Literal["low", "high"]
    line: int = Field(ge=1, description="counted from 1")


class Node(BaseModel):
    name: str
    children: list[Node] = []


@dataclass
class Point:
    x: int
    y: int = 0


class Place(TypedDict):
    city: str


class Color(enum.Enum):
    RED = "red"


FOUND = '{"severity": "high", "line": 3}'


def router_to(server: ScriptedServer, **options: Any) -> Router:
    return Router([OpenAIBackend("main", base_url=server.url)], {"m": "main/m"}, default_model="m", **options)


def answered(text: str | None, kind: Any = Finding, finish: Any = "stop") -> Completion[Any]:
    """An answer as a call with that `response_format` gives it."""
    completion = Completion[Any](choices=(Choice(message=Message(content=text), finish_reason=finish),))
    completion._asked_with(answer_format(kind), None)
    return completion


# -- the form of an answer -----------------------------------------------------------------------------------


def test_a_class_is_sent_as_schema_and_the_answer_is_its_instance(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat(FOUND))]) as server, router_to(server) as router:
        reply = caller.complete(router, "hi", response_format=Finding)
    assert reply.parsed == Finding(severity="high", line=3)
    assert reply.parsed is reply.parsed
    sent = server.requests[0].json["response_format"]
    assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == (
        "json_schema",
        "Finding",
        True,
    )
    assert set(sent["json_schema"]["schema"]["properties"]) == {"severity", "line"}


def test_a_streams_whole_answer_is_parsed_too(caller: Caller) -> None:
    pieces = stream(chat_sse([FOUND[:9], FOUND[9:]]))
    with ScriptedServer([pieces]) as server, router_to(server) as router:
        assert caller.stream(router, "hi", response_format=Finding).completion.parsed == Finding(
            severity="high", line=3
        )


def test_a_stream_that_broke_has_no_instance_but_its_text(caller: Caller) -> None:
    with ScriptedServer([stream([chunk_of('{"severity": "hi')])]) as server, router_to(server) as router:
        heard = caller.stream(router, "hi", response_format=Finding)
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert heard.error.partial is not None
    with pytest.raises(errors.InvalidOutputError, match="broke off") as caught:
        _ = heard.error.partial.parsed
    assert caught.value.text == '{"severity": "hi'


def chunk_of(text: str) -> bytes:
    return chunk({"content": text})


def test_an_agents_own_form_applies_to_its_calls(caller: Caller) -> None:
    agents = {"reviewer": Agent("m", params={"response_format": Finding, "tools": [search]})}
    with ScriptedServer([answer(json=chat(FOUND))]) as server, router_to(server, agents=agents) as router:
        reply = caller.complete(router, "hi", agent="reviewer")
    assert reply.parsed == Finding(severity="high", line=3)
    assert server.requests[0].json["tools"][0]["function"]["name"] == "search"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"tools": [lambda: 1]}, r"agents.x.params: tools\[0\] is a lambda"),
        ({"response_format": 7}, "agents.x.params: response_format must be a class or a dict, not int"),
    ],
)
def test_an_agents_wrong_form_is_an_error_of_the_router(params: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.ConfigError, match=says):
        Router([OpenAIBackend("main")], agents={"x": Agent("main/m", params=params)})


def test_without_a_class_nothing_is_parsed(caller: Caller) -> None:
    form = {"type": "json_object"}
    with ScriptedServer([answer(json=chat(FOUND))]) as server, router_to(server) as router:
        assert caller.complete(router, "hi", response_format=form).parsed is None
    assert Completion().parsed is None


@pytest.mark.parametrize(
    ("kind", "text", "instance"),
    [
        (Point, '{"x": 1}', Point(1)),
        (Place, '{"city": "Ulm"}', {"city": "Ulm"}),
        (list[Finding], f'{{"value": [{FOUND}]}}', [Finding(severity="high", line=3)]),
        (list[int], "[1, 2]", [1, 2]),
        (Literal["yes", "no"], '{"value": "yes"}', "yes"),
        (Color, '{"value": "red"}', Color.RED),
        (int, "7", 7),
        (date, '{"value": "2026-01-02"}', date(2026, 1, 2)),
        (TypeAdapter(list[Point]), '{"value": [{"x": 1, "y": 2}]}', [Point(1, 2)]),
        (Finding | Point, '{"value": {"x": 1}}', Point(1)),
        (Annotated[int, {"unhashable": 1}], '{"value": 1}', 1),
        (Node, '{"name": "a", "children": [{"name": "b"}]}', Node(name="a", children=[Node(name="b")])),
    ],
    ids=str,
)
def test_every_type_of_pydantic_becomes_a_schema_of_an_object(kind: Any, text: str, instance: object) -> None:
    form = answer_format(kind)["json_schema"]
    assert form["schema"]["type"] == "object"
    assert "$ref" not in form["schema"]
    assert form["name"].replace("_", "a").isalnum()
    json.dumps(form)
    assert answered(text, kind).parsed == instance


def test_a_wrapped_types_definitions_are_at_the_root() -> None:
    schema = answer_format(list[Finding])["json_schema"]["schema"]
    assert schema["properties"]["value"]["items"] == {"$ref": "#/$defs/Finding"}
    assert "Finding" in schema["$defs"]


def test_titles_that_repeat_names_are_left_out_of_a_schema() -> None:
    assert answer_format(Finding)["json_schema"]["schema"]["properties"]["line"] == {
        "description": "counted from 1",
        "minimum": 1,
        "type": "integer",
    }


@pytest.mark.parametrize(
    "text",
    [
        FOUND,
        f"\n  {FOUND}\n",
        f"```json\n{FOUND}\n```",
        f"```\n{FOUND}```",
        f"Here it is:\n\n```json\n{FOUND}\n```\nAnything else?",
        f"Sure! {FOUND}",
        f"<think>hm</think>{FOUND}",
    ],
)
def test_an_answer_may_be_fenced_or_within_a_sentence(text: str) -> None:
    assert answered(text).parsed == Finding(severity="high", line=3)


@pytest.mark.parametrize(
    ("text", "finish", "says", "faults"),
    [
        ("I cannot know.", "stop", "no valid Finding: Invalid JSON: expected ident at line 1 column 2", 1),
        ("", "stop", "no valid Finding: Invalid JSON: EOF", 1),
        (
            '{"line": 0}',
            "stop",
            "severity: Field required; line: Input should be greater than or equal to 1",
            2,
        ),
        ('```json\n{"line": 1}\n```', "stop", "no valid Finding: severity: Field required", 1),
        (FOUND[:20], "length", "cut off at its token limit: raise max_tokens", 1),
        ("I can't help with that.", "content_filter", "the model refused to answer", 1),
        (None, "tool_calls", "the model called tools instead: run them and ask again", 1),
        (FOUND[:20], None, "the answer broke off", 1),
        ('{"severity": "high", "line": "canary"}', "stop", "line: Input should be a valid integer", 1),
    ],
)
def test_an_answer_that_does_not_parse_says_why_and_keeps_the_text(
    text: str | None, finish: Any, says: str, faults: int
) -> None:
    with pytest.raises(errors.InvalidOutputError) as caught:
        _ = answered(text, finish=finish).parsed
    assert says in str(caught.value)
    assert caught.value.text == (text or "")
    assert len(caught.value.faults) == faults
    assert "canary" not in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.text, again.faults) == (
        str(caught.value),
        caught.value.text,
        caught.value.faults,
    )


def test_an_answer_that_is_whole_counts_however_it_ended() -> None:
    assert answered(FOUND, finish="length").parsed == Finding(severity="high", line=3)


def test_an_answer_that_does_not_parse_is_charged_and_not_retried(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat("no"))]) as server, router_to(server) as router:
        reply = caller.complete(router, "hi", response_format=Finding, fallback=["main/other"])
    assert (reply.text, len(server.requests), reply.usage.output) == ("no", 1, USAGE["completion_tokens"])
    with pytest.raises(errors.InvalidOutputError):
        _ = reply.parsed


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (Finding(severity="low", line=1), "give the class Finding, not an instance"),
        ("Finding", "response_format must be a class or a dict, not str"),
        (lambda: 1, "response_format must be a class or a dict, not function"),
        ({"properties": {}}, "response_format.type is missing"),
        (Callable[[], int], "response_format: "),
        (inspect.Parameter, "response_format: Unable to generate pydantic-core schema"),
        (list["Nowhere"], "response_format: "),  # type: ignore[name-defined]  # noqa: F821 - it does not exist
    ],
    ids=str,
)
def test_what_has_no_schema_is_refused_before_anything_is_sent(caller: Caller, form: Any, says: str) -> None:
    with ScriptedServer() as server, router_to(server) as router:
        with pytest.raises(errors.InvalidRequestError, match=says):
            caller.complete(router, "hi", response_format=form)
    assert server.connections == 0


def test_a_schema_is_cached_and_old_ones_are_evicted() -> None:
    assert answer_format(Finding) is answer_format(Finding)
    made = create_model("Made", x=(int, ...))
    gone = weakref.ref(made)
    answer_format(made)
    del made
    for i in range(KEPT):
        answer_format(Literal[i])  # type: ignore[valid-type]
    gc.collect()
    assert gone() is None


def test_a_server_that_ignores_the_schema_is_named(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat("Well, it is high."))]) as server, router_to(server) as router:
        reply = caller.complete(router, "hi", response_format=Finding)
    with pytest.raises(errors.InvalidOutputError) as caught:
        _ = reply.parsed
    assert str(caught.value).endswith("it is no JSON at all: main/m seems to ignore response_format")
    assert [each.deployment for each in caught.value.attempts] == ["main/m"]
    assert caught.value.reasons == reply.route.reasons


def test_a_bare_schema_is_refused_with_how_to_wrap_it() -> None:
    with pytest.raises(
        errors.InvalidRequestError, match=r"^response_format is a JSON schema: wrap it, .* class"
    ):
        answer_format(Finding.model_json_schema())


def test_a_parsed_answer_survives_pickling_copying_and_dumping() -> None:
    reply = answered(FOUND)
    assert pickle.loads(pickle.dumps(reply)).parsed == reply.parsed
    assert copy.deepcopy(reply).parsed == reply.parsed
    assert reply.model_copy(update={"id": "x"}).parsed is reply.parsed
    assert reply == Completion.model_validate_json(reply.model_dump_json())
    assert "_form" not in reply.model_dump_json() + repr(reply) + str(reply.to_dict())


def test_a_class_that_cannot_be_pickled_is_left_out() -> None:
    class Local(BaseModel):
        x: int

    reply = answered('{"x": 1}', Local)
    assert reply.parsed == Local(x=1)
    for other in (
        pickle.loads(pickle.dumps(reply)),
        Completion[Any].model_validate_json(reply.model_dump_json()),
        Completion[Any].model_validate({**reply.to_dict()}),
    ):
        assert (other.text, other.response_type) == (reply.text, "Local")
        with pytest.raises(errors.InvalidRequestError, match=r"by Local\.model_validate_json\(reply\.text\)"):
            _ = other.parsed
        assert Local.model_validate_json(other.text) == reply.parsed
    assert Completion().parsed is None, "nobody gave a class"


def test_a_parametrised_completion_is_the_class_itself() -> None:
    assert Completion[Finding] is Completion

    class Kept(BaseModel):
        reply: Completion[Finding]

    assert Kept(reply=answered(FOUND)).reply.parsed == Finding(severity="high", line=3)


# -- tools ---------------------------------------------------------------------------------------------------


def search(query: str, limit: Annotated[int, Field(ge=1)] = 10, kind: Literal["a", "b"] | None = None) -> str:
    """Search the handbook.

    It is long.

    Args:
        query: what to look for,
            in plain words
        limit (int): how many
    """
    return f"{query}/{limit}/{kind}"


async def fetch(url: str) -> str:
    """Fetch a page.

    Parameters
    ----------
    url : str
        where it is

    Returns
    -------
    str
        the page
    """
    return url


def convert(amount: float, currency: str) -> float:
    """Convert money.

    :param float amount: how much
    :param currency: into what
    :returns: the amount
    """
    return amount


class Lookup(BaseModel):
    """Look a word up."""

    word: str


class Shelf:
    def take(self, book: str) -> str:
        """Take a book."""
        return book

    @classmethod
    def make(cls, size: int) -> int:
        return size

    @staticmethod
    def count(of: str) -> int:
        return 0


def called(name: str, arguments: str, tools: Sequence[Any]) -> ToolCall:
    """A call in the answer to a request with those tools."""
    call = ToolCall(id="1", function=Function(name=name, arguments=arguments))
    Completion(choices=(Choice(message=Message(tool_calls=(call,))),))._asked_with(None, checked_tools(tools))
    return call


def test_a_function_is_a_tool_and_its_call_is_checked(caller: Caller) -> None:
    wants = chat(None, finish="tool_calls", tool_calls=[tool_call("search", '{"query": "x", "limit": 3}')])
    with ScriptedServer([answer(json=wants)]) as server, router_to(server) as router:
        reply = caller.complete(router, "hi", tools=[search, Lookup])
    [call] = reply.tool_calls
    assert (call.name, call.arguments) == ("search", {"query": "x", "limit": 3})
    assert call.function.arguments == '{"query": "x", "limit": 3}'
    assert search(**call.validated()) == "x/3/None"
    assert reply.message.tool_calls is not None
    assert reply.message.tool_calls[0].validated() == call.validated()
    first, second = server.requests[0].json["tools"]
    assert first == {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search the handbook.\n\nIt is long.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "what to look for, in plain words"},
                    "limit": {"type": "integer", "minimum": 1, "default": 10, "description": "how many"},
                    "kind": {
                        "anyOf": [{"enum": ["a", "b"], "type": "string"}, {"type": "null"}],
                        "default": None,
                    },
                },
                "required": ["query"],
                "additionalProperties": False,
            },
        },
    }
    assert second["function"] == {
        "name": "Lookup",
        "description": "Look a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    }


def test_a_streams_calls_are_checked_too(caller: Caller) -> None:
    delta = {"tool_calls": [{"index": 0, **tool_call("Lookup", '{"word": "x"}')}]}
    with ScriptedServer([stream(chat_sse([delta], finish="tool_calls"))]) as server:
        with router_to(server) as router:
            heard = caller.stream(router, "hi", tools=[Lookup])
    assert heard.completion.tool_calls[0].validated() == Lookup(word="x")


@pytest.mark.parametrize(
    ("source", "name", "described"),
    [
        (fetch, "fetch", {"url": "where it is"}),
        (convert, "convert", {"amount": "how much", "currency": "into what"}),
        (Shelf().take, "take", {"book": None}),
        (Shelf.make, "make", {"size": None}),
        (Shelf.count, "count", {"of": None}),
        (functools.wraps(fetch)(lambda *args, **kwargs: None), "fetch", {"url": "where it is"}),
        (Point, "Point", {"x": None, "y": None}),
        (Place, "Place", {"city": None}),
    ],
)
def test_functions_methods_and_classes_say_what_they_take(
    source: Any, name: str, described: dict[str, str | None]
) -> None:
    function = tool_of(source, "tools[0]")["function"]
    properties = function["parameters"]["properties"]
    assert function["name"] == name
    assert {each: schema.get("description") for each, schema in properties.items()} == described


def test_a_described_annotation_wins_over_the_docstring() -> None:
    def f(x: Annotated[int, Field(description="from the annotation")]) -> None:
        """F.

        Args:
            x: from the docstring
        """

    assert (
        tool_of(f, "t")["function"]["parameters"]["properties"]["x"]["description"] == "from the annotation"
    )


def test_a_field_may_be_a_parameters_default() -> None:
    def f(
        items: list[str] = Field(default_factory=list, description="which"),  # noqa: B008 - as users write it
        most: int = Field(5, ge=1),
        least: int = 2,
    ) -> None:
        """F.

        Args:
            most: how many
        """

    tool = tool_of(f, "t")
    assert tool["function"]["parameters"]["properties"] == {
        "items": {"type": "array", "items": {"type": "string"}, "description": "which"},
        "most": {"type": "integer", "minimum": 1, "default": 5, "description": "how many"},
        "least": {"type": "integer", "default": 2},
    }
    assert tool.read("{}") == {"items": [], "most": 5}  # least is the function's own


def test_a_parameters_own_default_wins_over_its_annotations() -> None:
    def f(
        x: Annotated[int, Field(5)] = 7,
        y: Annotated[int, Field(5)] = Field(6),
        *,
        z: Annotated[int, Field(5)],
    ) -> None: ...  # type: ignore[assignment]

    tool = tool_of(f, "t")
    properties = tool["function"]["parameters"]["properties"]
    assert [part["default"] for part in properties.values()] == [7, 6, 5]
    assert tool.read("{}") == {"y": 6, "z": 5}  # x is the function's own


def test_parameters_may_have_names_that_pydantics_fields_may_not() -> None:
    def f(schema: str, _id: int, model_x: int = 1, *, json: bool = False) -> None: ...

    tool = tool_of(f, "t")
    assert list(tool["function"]["parameters"]["properties"]) == ["schema", "_id", "model_x", "json"]
    assert tool.read('{"schema": "s", "_id": 1, "json": true}') == {"schema": "s", "_id": 1, "json": True}


def test_a_default_that_json_cannot_hold_is_left_out() -> None:
    def f(x: str = inspect.Parameter.empty) -> None: ...  # type: ignore[assignment]

    assert "required" in tool_of(f, "t")["function"]["parameters"]

    def g(x: Any = object()) -> None: ...  # noqa: B008 - that is the point

    assert "default" not in tool_of(g, "t")["function"]["parameters"]["properties"]["x"]


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def now() -> str:
        return "now"

    assert tool_of(now, "t")["function"]["parameters"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    assert called("now", "", [now]).validated() == {}
    assert called("now", "", [now]).arguments == {}


def unannotated(x): ...  # type: ignore[no-untyped-def]


def anything(*args: int) -> None: ...


def keywords(**kwargs: int) -> None: ...


def positional(x: int, /) -> None: ...


def unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - it does not exist


def unfit(x: inspect.Parameter) -> None: ...


def pair(x: (int, str)) -> None: ...  # type: ignore[syntax]


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([lambda x: x], r"tools\[0\] is a lambda, which has no name"),
        ([search, unannotated], r'tools\[1\] unannotated: parameter "x" has no annotation'),
        ([anything], r'tools\[0\] anything: parameter "args" takes any arguments'),
        ([keywords], r'tools\[0\] keywords: parameter "kwargs" takes any arguments'),
        ([positional], r'tools\[0\] positional: parameter "x" is positional only'),
        ([unknown], r"tools\[0\] unknown: an annotation is not known .*Nowhere"),
        ([unfit], r"tools\[0\] unfit: Unable to generate pydantic-core schema"),
        ([pair], r"tools\[0\] pair: "),
        ([Color], r"tools\[0\] Color: its arguments are no object"),
        ([list[int]], r"tools\[0\] "),
        ([print], r"tools\[0\] print: parameter"),
        ([functools.partial(search, "x")], r"tools\[0\] has no name: write a function"),
        ([Lookup(word="x")], r"tools\[0\]: give the class Lookup"),
        ([None], r"tools\[0\] is of type NoneType"),
        ([{"name": "f", "input_schema": {}}], r"tools\[0\].type is missing.*Anthropic's form"),
        ([search, {"type": "function", "function": {"name": "search"}}], r"tools\[1\]: tools\[0\] is named"),
        (search, "tools must be a list, not function"),
        ({"type": "function"}, "tools must be a list, not dict"),
        ("search", "tools must be a list, not str"),
        (7, "tools must be a list, not int"),
    ],
    ids=str,
)
def test_what_cannot_be_a_tool_is_refused_by_place(caller: Caller, tools: Any, says: str) -> None:
    with ScriptedServer() as server, router_to(server) as router:
        with pytest.raises(errors.InvalidRequestError, match=says):
            caller.complete(router, "hi", tools=tools)
    assert server.connections == 0


def test_a_tool_name_that_servers_refuse_is_refused() -> None:
    def größe() -> None: ...

    with pytest.raises(errors.InvalidRequestError, match=r"tools\[0\] größe: a tool's name has up to 64"):
        checked_tools([größe])


def test_dicts_are_passed_on_as_they_are() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    server_tool = {"type": "web_search"}
    assert checked_tools((tool, server_tool)) == [tool, server_tool]
    mixed = checked_tools([tool, search])
    assert mixed[0] is tool
    assert checked_tools(mixed) is mixed


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        (
            "search",
            '{"query": 7}',
            "the arguments of search are not valid: query: Input should be a valid string",
        ),
        ("search", '{"qeury": "x"}', "query: Field required; qeury: Extra inputs are not permitted"),
        ("search", '{"query": "x"', "the arguments of search are not valid: Invalid JSON"),
        ("search", "[]", "the arguments of search are not valid"),
        ("serch", "{}", 'there is no tool "serch", did you mean "search"?'),
        ("weather", "{}", 'there is no tool "weather": there are search, Lookup'),
    ],
)
def test_wrong_arguments_are_explained_to_the_model(name: str, arguments: str, says: str) -> None:
    call = called(name, arguments, [search, Lookup])
    with pytest.raises(errors.InvalidOutputError) as caught:
        call.validated()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [("{", "not valid JSON"), ("[1]", "no JSON object"), ('"x"', "no JSON object")],
)
def test_arguments_that_are_no_object_are_an_error(arguments: str, says: str) -> None:
    call = ToolCall(function=Function(name="f", arguments=arguments))
    with pytest.raises(errors.InvalidOutputError, match=says) as caught:
        _ = call.arguments
    assert caught.value.text == arguments


@pytest.mark.parametrize("tools", [[search], [tool_of(search, "t").copy()]])
def test_a_call_that_was_cut_off_at_the_token_limit_says_so(tools: list[Any]) -> None:
    calls = tuple(
        ToolCall(id=id, function=Function(name="search", arguments='{"query": "x')) for id in ("1", "2")
    )
    reply = Completion[Any](choices=(Choice(message=Message(tool_calls=calls), finish_reason="length"),))
    reply._asked_with(None, checked_tools(tools))
    with pytest.raises(errors.InvalidOutputError, match="cut off at its token limit: raise max_tokens"):
        _ = reply.tool_calls[1].arguments
    with pytest.raises(errors.InvalidOutputError, match="cut off at its token limit: raise max_tokens"):
        reply.tool_calls[1].validated(search)
    with pytest.raises(errors.InvalidOutputError, match="EOF") as caught:
        _ = reply.tool_calls[0].arguments
    assert "cut off" not in str(caught.value), "only the last one can be"
    assert "_cut" not in reply.model_dump_json()


def test_a_stored_call_says_that_its_function_was_not_kept() -> None:
    call = called("search", '{"query": "x"}', [search])
    for other in (pickle.loads(pickle.dumps(call)), ToolCall.model_validate_json(call.model_dump_json())):
        with pytest.raises(errors.InvalidRequestError, match="the call was stored, which keeps no function"):
            other.validated()
        assert other.validated(search) == {"query": "x"}


def test_a_call_of_a_dict_tool_is_validated_only_by_a_named_tool() -> None:
    call = called("search", '{"query": "x"}', [{"type": "function", "function": {"name": "search"}}])
    assert call.arguments == {"query": "x"}
    with pytest.raises(errors.InvalidRequestError, match=r"use .arguments, or validated\(…\)"):
        call.validated()
    assert call.validated(search) == {"query": "x"}
    assert ToolCall(function=Function(name="l", arguments='{"word": "x"}')).validated(Lookup) == Lookup(
        word="x"
    )
    with pytest.raises(errors.InvalidRequestError, match="cannot check the arguments of search"):
        called("search", "{}", [{"type": "function", "function": {"name": "search"}}, Lookup]).validated()


def test_tools_are_neither_shown_dumped_nor_pickled() -> None:
    call = called("search", '{"query": "x"}', [search])
    assert "_tools" not in repr(call) + call.model_dump_json()
    assert call == ToolCall(id="1", function=Function(name="search", arguments='{"query": "x"}'))
    assert copy.deepcopy(call).validated() == {"query": "x"}
    other = pickle.loads(pickle.dumps(called("f", "{}", [Shelf().take])))
    with pytest.raises(errors.InvalidOutputError, match='there is no tool "f": there are take'):
        other.validated()


def test_a_tool_is_made_once_and_keeps_no_object_alive() -> None:
    assert tool_of(search, "t") is tool_of(search, "t")
    shelf = Shelf()
    assert tool_of(shelf.take, "t") is tool_of(Shelf().take, "t")
    gone = weakref.ref(shelf)
    del shelf
    gc.collect()
    assert gone() is None


def test_forms_and_tools_are_plain_dicts_to_a_wire() -> None:
    request = Request().with_defaults({"response_format": Finding, "tools": [search]})
    assert isinstance(request.response_format, AnswerFormat)
    assert request.tools is not None
    assert isinstance(request.tools[0], Tool)
    json.dumps([request.response_format, *request.tools])


# -- docstrings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "summary", "parameters"),
    [
        (None, "", {}),
        ("One line.", "One line.", {}),
        ("Note: this is text.\n\nMore.", "Note: this is text.\n\nMore.", {}),
        (
            "Do.\n\nArguments:\n    a: first\n    *b: second\n\n        more\n    c (str): third\n    no",
            "Do.",
            {"a": "first", "b": "second more", "c": "third"},
        ),
        ("Do.\n\nReturns:\n    x: y", "Do.", {}),
        (
            "Do.\n\nParameters\n----------\na\n    first\nb : int\n    second\nRaises\n------\nc\n    x",
            "Do.",
            {"a": "first", "b": "second"},
        ),
        (
            "Do.\n:param a: first\n  more\n:type a: int\n:param str b: second",
            "Do.",
            {"a": "first more", "b": "second"},
        ),
        ("\nArgs:\n    a: first", "", {"a": "first"}),
        ("Args:\n        a: first\n        b: second\n    ", "", {"a": "first", "b": "second"}),
        (
            "Do.\n    Args:\n\n        a: first\n    Keyword Args:\n        b: x",
            "Do.",
            {"a": "first", "b": "x"},
        ),
    ],
)
def test_docstrings_of_three_forms_are_read(
    text: str | None, summary: str, parameters: dict[str, str]
) -> None:
    assert read_docstring(text) == (summary, parameters)


# -- what goes wrong -----------------------------------------------------------------------------------------


def test_a_cached_tool_keeps_no_function_or_closure_alive() -> None:
    class Big:
        pass

    def made() -> weakref.ref[Big]:
        big = Big()

        def size(unit: str = "kB") -> str:
            """How big it is."""
            return f"{big} {unit}"

        assert tool_of(size, "t") is tool_of(size, "t")
        return weakref.ref(big)

    gone = made()
    gc.collect()
    assert gone() is None


def test_a_function_that_is_defined_again_is_another_tool() -> None:
    def first() -> Any:
        def look(word: str) -> None: ...

        return look

    def second() -> Any:
        def look(word: int) -> None: ...

        return look

    one = tool_of(first(), "t")
    gc.collect()
    other = tool_of(second(), "t")
    kinds = [tool["function"]["parameters"]["properties"]["word"]["type"] for tool in (one, other)]
    assert kinds == ["string", "integer"]


def test_the_same_function_is_one_tool_plain_and_another_bound() -> None:
    class Held:
        def take(self: int, count: int) -> None: ...

    assert [*tool_of(Held.take, "t")["function"]["parameters"]["properties"]] == ["self", "count"]
    assert [*tool_of(Held().take, "t")["function"]["parameters"]["properties"]] == ["count"]


@pytest.mark.parametrize("text", ['{"line": "SECRET", "severity": "low"}', "SECRET", '{"line": SECRET'])
def test_what_the_model_wrote_is_in_no_traceback(text: str) -> None:
    with pytest.raises(errors.InvalidOutputError) as answer_error:
        answer_format(Finding).parse(text, "stop")  # type: ignore[attr-defined]
    with pytest.raises(errors.InvalidOutputError) as call_error:
        called("Finding", text, [Finding]).validated()
    with pytest.raises(errors.InvalidOutputError) as function_error:
        called("search", text, [search]).validated()
    for raised in (answer_error, call_error, function_error):
        shown = "".join(traceback.format_exception(raised.value))
        assert "SECRET" not in shown
        assert raised.value.__context__ is None
        assert raised.value.faults
        assert raised.value.text == text


def test_a_long_name_is_cut_in_messages_only() -> None:
    name = "n" * 1_000_000
    with pytest.raises(errors.InvalidOutputError, match="there is no tool") as raised:
        called(name, "{}", [search]).validated()
    assert len(str(raised.value)) < 300
    assert raised.value.text == name
    for wrong in (
        lambda: called(name, "[]", [search]).arguments,
        lambda: answer_format(Strict).parse(f'{{"{name}": 1}}', "stop"),  # type: ignore[attr-defined]
        lambda: checked_tools([{"type": "function", "function": {"name": name}}] * 2),
        lambda: Router([OpenAIBackend("main")]).complete("hi", **{name: 1}),
        lambda: Router([OpenAIBackend("main")]).complete("hi", agent=name),
    ):
        with pytest.raises((errors.CcrouteError, TypeError)) as cut:
            wrong()
        assert len(str(cut.value)) < 500
    unknown = errors.UnknownModelError(name, [name])
    assert unknown.name == name
    assert len(str(unknown)) < 300
    assert len(str(errors.ServerError("no", deployment=name))) < 150


class Strict(BaseModel, extra="forbid"):
    x: int = 0


@pytest.mark.parametrize(
    "text",
    [
        "S.\n\nArgs:\n    a" + " " * 300_000 + "(\n",
        "S.\n\nArgs:\n    " + "a" * 300_000 + "\n",
        "S.\n\nArgs:\n    a" + "()" * 200_000,
        "S.\n\n:param " + "a " * 200_000 + "\n",
        "S.\n\n:param " + " " * 300_000 + "\n",
        "S.\n\n:" + "a" * 300_000 + "\n",
        "S.\n\n" + ":param a: b\n" * 100_000,
        "S.\n\nParameters\n----------\n" + "a : int\n    text\n" * 60_000,
        "Parameters\n" + "-" * 300_000 + "x\n",
        "Args:\n" * 100_000,
        "\n" * 1_000_000,
    ],
    ids=range(11),
)
def test_a_docstring_is_read_in_linear_time(text: str) -> None:
    for each in (text, text[:LONGEST]):
        began = time.perf_counter()
        read_docstring(each)
        assert time.perf_counter() - began < 0.5


def test_only_the_beginning_of_a_very_long_docstring_is_read() -> None:
    def long() -> None: ...

    long.__doc__ = "word " * 200_000
    longer = create_model("Longer", __doc__=long.__doc__, x=(int, 0))
    for source in (long, longer):
        assert LONGEST - 5 < len(tool_of(source, "t")["function"]["description"]) <= LONGEST
