"""Wrong input of every kind ends in its own error; none shows a secret or the prompt."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.ollama import FakeOllama
from tests.support.openai_like import chat, chunk, error, sse
from tests.support.scripted import ScriptedServer, Send, answer, stream

from ccroute import (
    Agent,
    AliasTable,
    AnthropicBackend,
    Backend,
    Completion,
    OllamaBackend,
    OpenAIBackend,
    RetryPolicy,
    Router,
    errors,
)
from ccroute.types import CallOptions
from ccroute.types.arguments.checked import build_request
from ccroute.types.hints import _HINTS, hint

KEY = "sk-canary-0123456789abcdef"
PROMPT = "the canary sings of unmistakable-confidentiality"
ONCE = RetryPolicy(attempts=1)


def router_to(server: ScriptedServer) -> Router:
    backend = OpenAIBackend("main", base_url=server.url, api_key=KEY)
    return Router([backend], {"good-model": "main/m"}, {"python-expert": "good-model"}, retry=ONCE)


def facts(error: BaseException) -> dict[str, Any]:
    """Its attributes but `body`, which may hold the prompt."""
    return {name: value for name, value in vars(error).items() if name != "body"}


def everything_shown(error: BaseException) -> str:
    """All that an error shows: words, repr, traceback, pickle, and those of its causes; not its body."""
    shown = "".join(traceback.format_exception(error))
    while error is not None:
        shown += f"{error} {error!r} {facts(error)}"
        if isinstance(error, errors.CcrouteError):
            shown += repr(pickle.dumps(error))
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return shown


def fails(caller: Caller, router: Router, kind: type[errors.CcrouteError], match: str, **options: Any) -> Any:
    """Both the whole and the streamed call fail so, without saying the key or the prompt."""
    asked = {"prompt": PROMPT, "model": "good-model"} | options
    with pytest.raises(kind, match=match) as caught:
        caller.complete(router, **asked)
    heard = caller.stream(router, **asked)
    assert type(heard.error) is type(caught.value)
    for raised in (caught.value, heard.error):
        shown = everything_shown(raised)
        assert KEY not in shown
        assert PROMPT not in shown
        assert "confidentiality" not in shown
    return caught.value


def test_an_unknown_agent_gets_a_suggestion(caller: Caller) -> None:
    with ScriptedServer() as server, router_to(server) as router:
        found = fails(
            caller, router, errors.UnknownAgentError, 'did you mean "python-expert"', agent="pyton-expert"
        )
    assert found.suggestions == ("python-expert",)
    assert server.connections == 0


def test_an_unknown_model_gets_a_suggestion(caller: Caller) -> None:
    with ScriptedServer() as server, router_to(server) as router:
        found = fails(
            caller, router, errors.UnknownModelError, 'did you mean "good-model"', model="goodmodel"
        )
    assert found.suggestions == ("good-model",)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "either prompt= or messages="),
        ({"prompt": None}, "either prompt= or messages="),
        ({"prompt": None, "messages": [PROMPT]}, r"messages\[0\] must be a dict"),
        (
            {"prompt": None, "messages": [{"role": "user", "content": [PROMPT]}]},
            r"content\[0\] must be a part",
        ),
        ({"model": None}, "no model: give model= or agent="),
    ],
)
def test_malformed_calls_are_refused_by_place_before_sending(
    caller: Caller, options: dict[str, Any], says: str
) -> None:
    with ScriptedServer() as server, router_to(server) as router:
        fails(caller, router, errors.InvalidRequestError, says, **options)
    assert server.connections == 0


def test_an_unknown_keyword_is_a_type_error(caller: Caller) -> None:
    with Router([OllamaBackend()]) as router, pytest.raises(TypeError, match="temprature"):
        caller.complete(router, "hi", temprature=1)


def test_a_missing_environment_variable_is_named() -> None:
    config = {"backends": {"paid": {"kind": "anthropic", "api_key": "${CCROUTE_TEST_KEY}"}}}
    with pytest.raises(errors.ConfigError, match=r"backends\.paid\.api_key.*CCROUTE_TEST_KEY"):
        Router.from_config(config, env={})


@pytest.mark.parametrize("kind", [AnthropicBackend, OpenAIBackend])
def test_a_missing_key_is_an_authentication_error_before_sending(caller: Caller, kind: Any) -> None:
    backend = kind("paid", api_key=None)
    with (
        Router([backend]) as router,
        pytest.raises(errors.AuthenticationError, match=r"no API key: set .*_API_KEY"),
    ):
        caller.complete(router, "hi", model="paid/m")


def test_a_rejected_key_is_not_repeated_even_if_the_server_does(caller: Caller) -> None:
    says = error(f"Incorrect API key provided: {KEY}. Prompt was: {PROMPT}", code="invalid_api_key")
    with ScriptedServer([answer(401, json=says)], repeat=True) as server, router_to(server) as router:
        found = fails(caller, router, errors.AuthenticationError, r"main/m: .*HTTP 401")
    assert (found.backend, found.deployment, found.status) == ("main", "main/m", 401)


def test_a_model_ollama_lacks_says_how_to_get_it(caller: Caller) -> None:
    with FakeOllama(models=["other"]) as ollama, Router([OllamaBackend("mini", ollama.url)]) as router:
        fails(caller, router, errors.ModelNotFoundError, "ollama pull qwen3:4b", model="mini/qwen3:4b")


def test_a_web_page_instead_of_json_is_a_protocol_error(caller: Caller) -> None:
    page = answer(
        body=f"<!DOCTYPE html><html>Please log in, {PROMPT}</html>", headers={"content-type": "text/html"}
    )
    with ScriptedServer([page], repeat=True) as server, router_to(server) as router:
        fails(caller, router, errors.ProtocolError, "main/m")


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'{"choices": []}', b'{"choices": [{}]}', b"[" * 100_000, b"\xff\xfe"],
    ids=["empty", "null", "list", "cut", "no choices", "no message", "nested", "binary"],
)
def test_a_malformed_answer_is_a_protocol_error(caller: Caller, body: bytes) -> None:
    with ScriptedServer([answer(body=body)], repeat=True) as server, router_to(server) as router:
        fails(caller, router, errors.ProtocolError, "main/m")


@pytest.mark.parametrize(
    "garbage", [b"data: {not json}\n\n", b"data: 7\n\n", b"\x00\x01\x02", b"<html></html>"]
)
def test_garbage_in_a_stream_is_a_protocol_error(caller: Caller, garbage: bytes) -> None:
    with ScriptedServer([stream([garbage])], repeat=True) as server, router_to(server) as router:
        heard = caller.stream(router, PROMPT, model="good-model")
    assert isinstance(heard.error, errors.ProtocolError)


def test_garbage_after_content_interrupts_the_stream(caller: Caller) -> None:
    pieces = [chunk({"content": "so far"}), b"data: {not json}\n\n"]
    with ScriptedServer([stream(pieces)], repeat=True) as server, router_to(server) as router:
        heard = caller.stream(router, PROMPT, model="good-model")
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert heard.error.partial is not None
    assert heard.error.partial.text == "so far"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, errors.BackendError),
        (400, errors.InvalidRequestError),
        (402, errors.QuotaExhaustedError),
        (403, errors.PermissionDeniedError),
        (404, errors.ModelNotFoundError),
        (413, errors.InvalidRequestError),
        (418, errors.BackendError),
        (422, errors.InvalidRequestError),
        (429, errors.RateLimitError),
        (500, errors.ServerError),
        (503, errors.OverloadedError),
        (529, errors.OverloadedError),
    ],
)
def test_each_status_has_its_error(caller: Caller, status: int, kind: type[errors.CcrouteError]) -> None:
    page = answer(status, json=error(f"no: {PROMPT}"), headers={"location": "http://127.0.0.1:9/"})
    with ScriptedServer([page], repeat=True) as server, router_to(server) as router:
        assert type(fails(caller, router, kind, f"HTTP {status}")) is kind


def test_an_overloaded_frame_under_200_is_typed(caller: Caller) -> None:
    frame = sse({"error": {"type": "overloaded_error", "message": "busy", "code": 529}})
    with ScriptedServer([stream([frame])], repeat=True) as server, router_to(server) as router:
        assert isinstance(caller.stream(router, "hi", model="good-model").error, errors.OverloadedError)


def test_all_faults_of_a_table_are_reported_at_once() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        AliasTable({"a": "b", "b": "a", "c": [], "d": "nowhere"})
    assert len(caught.value.faults) >= 3
    assert "aliases.c" in str(caught.value)


def test_a_switch_of_protocols_is_a_protocol_error(caller: Caller) -> None:
    switch = answer(101, headers={"upgrade": "h2c"})
    with ScriptedServer([switch], repeat=True) as server, router_to(server) as router:
        fails(caller, router, errors.ProtocolError, "does not answer in HTTP")


def test_a_wrong_configuration_is_an_error_of_the_constructor() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Router(
            [OllamaBackend("mini"), OllamaBackend("mini")],
            {"a": "mimi/m"},
            {"x": "b"},
            default_model="c",
        )
    shown = str(caught.value)
    assert all(
        part in shown for part in ('two are named "mini"', 'did you mean "mini"', "agents.x", "default_model")
    )


def test_bytes_after_an_answer_never_become_the_next_answer(caller: Caller) -> None:
    [whole] = answer(json=chat("first"))
    surplus = [Send(whole.data + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")]  # type: ignore[attr-defined]
    with ScriptedServer([surplus, answer(json=chat("second"))]) as server, router_to(server) as router:
        first = caller.complete(router, "hi", model="good-model").text
        second = caller.complete(router, "hi", model="good-model").text
    assert (first, second) == ("first", "second")
    assert server.connections == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"retry": 3}, "retry= takes a RetryPolicy, not int"),
        ({"timeout": "5"}, "timeout= takes a number of seconds or a Timeout, not str"),
        ({"backends": OllamaBackend()}, "give a list of backends, not OllamaBackend"),
        ({"backends": ["ollama"]}, r"backends\[0\]: give a Backend such as OllamaBackend\(\), not str"),
        ({"agents": ["x"]}, "give a mapping of names to agents, not list"),
        ({"groups": ["x"]}, "groups: give a mapping of names to agents, not list"),
        ({"aliases": ["x"]}, "aliases: give a mapping of names to targets, not list"),
        ({"fallbacks": ["x"]}, "fallbacks: give a mapping of models to fallback models, not list"),
        ({"prices": ["x"]}, "prices: give a mapping of models to prices, not list"),
        ({"prices": {"x": 3}}, 'prices.x: give a Price or "free", not 3'),
        ({"default_model": 3}, "default_model= takes a model's name, not int"),
        ({"baseline": 3}, "baseline= takes a model's name, not int"),
        ({"max_queue": "3"}, "max_queue= takes a number of calls, not str"),
        ({"agents": {"x": {"model": "m"}}}, "agents.x: give an Agent or a model's name, not dict"),
        ({"unknown_agent": "ignore"}, 'unknown_agent is "error" or "default"'),
        (
            {"ledger": 3},
            r"ledger= takes a path, a postgresql:// address, an object with .*, or None .*, not int",
        ),
        ({"ledger": SimpleNamespace(record=print)}, r", not SimpleNamespace, which has no tallies\(\)$"),
        ({"ledger": ""}, 'ledger: give the path of a file, such as "usage.db"'),
        ({"ledger": ":memory:"}, "ledger: leave it out, and rows are kept in memory"),
        (
            {"ledger": "mysql://me:secret@host/db"},
            "ledger: ccroute knows no mysql:// ledger; give the path .* or a postgresql:// address",
        ),
        ({"ledger": "no/such/folder/usage.db"}, r"ledger: there is no folder /.*/no/such/folder"),
        ({"baseline": "opsu"}, 'baseline: unknown model "opsu"'),
    ],
)
def test_each_wrong_argument_of_a_router_is_explained(options: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.ConfigError, match=says):
        Router(**{"backends": [OllamaBackend()]} | options)


def test_all_wrong_arguments_are_reported_at_once() -> None:
    wrong: Any = {
        "backends": ["ollama", OllamaBackend(), 3],
        "aliases": {"a": 3},
        "agents": {"x": 3, "y": Agent("m", group="typo")},
        "prices": {"m": 0.5},
        "retry": 3,
        "health": "maybe",
        "max_queue": -1,
    }
    with pytest.raises(errors.ConfigError) as caught:
        Router(**wrong)
    assert caught.value.faults == (
        "retry= takes a RetryPolicy, not int",
        'health= is "on" or "off", not \'maybe\'',
        "max_queue= is a number of calls, 0 or more, not -1",
        "backends[0]: give a Backend such as OllamaBackend(), not str",
        "backends[2]: give a Backend such as OllamaBackend(), not int",
        "aliases.a: give a target, a list of targets or a mapping to weights, not int",
        "agents.x: give an Agent or a model's name, not int",
        'agents.y.group: unknown group "typo"; name it, as in groups={"typo": Agent()}',
        'prices.m: give a Price or "free", not 0.5',
    )


def test_an_unknown_baseline_of_a_report_is_refused() -> None:
    with Router([OllamaBackend()]) as router, pytest.raises(errors.UnknownModelError, match="opsu"):
        router.report(baseline="opsu")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": "hot"}, "temperature must be a number, not str"),
        ({"max_tokens": True}, "max_tokens must be an int, not bool"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"stop": 3}, "stop must be a str or a list, not int"),
        ({"tool_choice": 3}, "tool_choice must be a str or a dict, not int"),
        ({"agent": 3}, "agent must be a str, not int"),
        ({"fallback": True}, "fallback must be a list of models, or False"),
        ({"fallback": ["good-model", 7]}, r"fallback\[1\] must be a model's name, not int"),
        ({"fallback": [None]}, r"fallback\[0\] must be a model's name, not NoneType"),
        ({"tool_choice": {"function": {}}}, "tool_choice.type is missing"),
        ({"tool_choice": {"type": "function", "function": 7}}, "tool_choice.function.name is missing"),
        ({"system": 7}, "system must be a str or a list of parts, not int"),
        ({"system": [7]}, r"system.content\[0\] must be a part"),
        ({"reasoning_effort": "super"}, "reasoning_effort must be one of none, minimal, low"),
        ({"timeout": "5"}, "timeout must be a number of seconds or a Timeout"),
        ({"timeout": -1}, "timeout must be a positive number of seconds"),
        ({"extra": {"model": "evil", "stream": True}}, "extra may not hold model, stream"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused_by_name(
    caller: Caller, options: dict[str, Any], says: str
) -> None:
    with ScriptedServer() as server, router_to(server) as router:
        fails(caller, router, errors.InvalidRequestError, says, **options)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Completion(), r"messages\[1\] must be a dict or a Message, not Completion; append its .message"),
        ({"role": "assistant", "tool_calls": 7}, r"messages\[1\].tool_calls must be a list, not int"),
        ({"role": "assistant", "tool_calls": [7]}, r"tool_calls\[0\] must be a dict, not int"),
        ({"role": "assistant", "tool_calls": [{"id": 7}]}, r"tool_calls\[0\].id must be a str"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, r"tool_calls\[0\].function must be"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": 7}}]}, r"\[0\].function must be"),
        ({"role": "assistant", "thinking_blocks": 7}, "thinking_blocks must be a list of dicts"),
        ({"role": "assistant", "thinking_blocks": ["x"]}, "thinking_blocks must be a list of dicts"),
        ({"role": "tool", "content": "x", "tool_call_id": [1]}, r"messages\[1\].tool_call_id must be a str"),
    ],
)
def test_messages_of_the_wrong_type_are_refused_by_place(caller: Caller, message: Any, says: str) -> None:
    messages = [{"role": "user", "content": PROMPT}, message]
    with ScriptedServer() as server, router_to(server) as router:
        fails(caller, router, errors.InvalidRequestError, says, prompt=None, messages=messages)
    assert server.connections == 0


JUNK: list[Any] = [
    *(7, -1.5, True, "x", b"b", float("nan"), object(), [7], ["x"], [None], [[]], [{}], {"a": 1}, {1: 2}),
    *({"type": "function"}, {"type": 7}, {"type": "json_schema", "json_schema": 7}, [{"type": "text"}]),
    *({"type": "json_schema", "json_schema": {"schema": 7}}, {"type": "function", "function": {"name": 7}}),
]
ASKED = {"role": "user", "content": "hi"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def wrong_kinds() -> Iterator[dict[str, Any]]:
    """Calls with every parameter and every field of a message and a tool replaced by every junk."""
    for junk in JUNK:
        for name in CallOptions.__annotations__:
            yield {name: junk} if name == "messages" else {"messages": [ASKED], name: junk}
        for role in ("system", "user", "assistant", "tool", "function"):
            for name in ("content", "tool_calls", "tool_call_id", "name", "thinking", "thinking_blocks"):
                yield {"messages": [ASKED, {"role": role, "content": "x", name: junk}]}
            for name in ("type", "text", "image_url"):
                part = {"type": "text", "text": "x", name: junk}
                yield {"messages": [ASKED, {"role": role, "content": [part]}]}
        for name in ("id", "type", "function"):
            yield {"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL | {name: junk}]}]}
        for name in ("name", "arguments", "description", "parameters", "strict"):
            function = {"name": "f", "arguments": "{}", name: junk}
            yield {"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL | {"function": function}]}]}
            yield {"messages": [ASKED], "tools": [{"type": "function", "function": function}]}


@pytest.mark.parametrize(
    "backend",
    [OpenAIBackend("x", base_url="http://x"), OpenAIBackend(), AnthropicBackend(), OllamaBackend()],
    ids=["compatible", "openai", "anthropic", "ollama"],
)
def test_no_wrong_kind_breaks_a_codec_from_inside(backend: Backend) -> None:
    refused = 0
    for options in wrong_kinds():
        try:
            request = build_request(None, options)
            if not backend.refusals(request, "m"):
                backend.encode(request, "m", False)
        except errors.InvalidRequestError:
            refused += 1
    assert refused > len(JUNK) * 10


def test_an_address_in_place_of_a_name_says_where_it_goes() -> None:
    for kind in (OpenAIBackend, AnthropicBackend, OllamaBackend):
        with pytest.raises(errors.ConfigError, match="this is an address: give it as base_url=") as caught:
            kind("http://user:canary@localhost:1234/v1")
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("agnet", "did you mean 'agent'"),
        ("stream", r"call stream\(\)"),
        ("api_key", "belongs to the backend"),
        ("zzz", r"help\(Router.complete\)"),
        ("max_retries", r"Router\(…, retry=RetryPolicy\(attempts=…\)\)"),
        ("extra_headers", r"headers belong to the backend: OpenAIBackend\(…, headers="),
        ("extra_body", "it is extra= here"),
        ("thinking", "it is reasoning_effort= here"),
        ("instructions", "it is system= here"),
        ("max_cost", r'a budget is the router\'s: Router\(…, budgets={"router": Budget\(5\)}\)'),
        ("store", r'only OpenAI\'s own models carry it, so use extra={"store": …} only where every'),
        ("verbosity", 'extra={"verbosity": …} only where'),
        ("max_completion_tokens", "it is max_tokens here"),
        ("base_url", r"belongs to the backend: OpenAIBackend\(…, base_url=…\)"),
        ("api_base", r"OpenAIBackend\(…, base_url=…\)"),
        ("n", "every call has one answer"),
        ("functions", "it is tools= here"),
        ("function_call", "it is tool_choice= here"),
        ("num_ctx", r"Model\(context_window=…\)"),
        ("keep_alive", r"OllamaBackend\(…, keep_alive=…\)"),
        ("repeat_penalty", r'only Ollama carries it: extra={"options": {"repeat_penalty": …}}'),
        ("top_a", "only OpenRouter, vLLM and their like"),
        ("request_timeout", "it is timeout= here"),
        ("fallbacks", "it is fallback= here"),
        ("response_model", "it is response_format= here, which takes the class"),
        ("drop_params", r"belongs to the router: Router\(…, drop_params=…\)"),
        ("cache_control", "goes into a message's parts"),
    ],
)
def test_an_unknown_keyword_says_what_was_meant(name: str, says: str) -> None:
    with Router([OllamaBackend()]) as router, pytest.raises(TypeError, match=says):
        router.complete("hi", **{name: 1})  # type: ignore[arg-type]


def test_hints_are_for_unknown_keywords_and_restrict_extra() -> None:
    assert not _HINTS.keys() & CallOptions.__annotations__.keys()
    for name in [*_HINTS, "whatever", "some_field"]:
        said = hint(name, CallOptions.__annotations__)
        assert "{0}" not in said
        assert "extra=" not in said or "only" in said or "every candidate" in said


def test_a_fallback_may_be_one_name(caller: Caller) -> None:
    replies = [answer(503), answer(json=chat("second"))]
    with ScriptedServer(replies) as server, Router([OpenAIBackend("main", base_url=server.url)]) as router:
        assert caller.complete(router, "hi", model="main/m", fallback="main/n").text == "second"
    assert server.requests[1].json["model"] == "n"


def test_a_misspelt_backend_in_a_direct_name_is_corrected() -> None:
    with (
        Router([OllamaBackend("local")]) as router,
        pytest.raises(errors.UnknownModelError, match='"local/foo"'),
    ):
        router.complete("hi", model="lcal/foo")
