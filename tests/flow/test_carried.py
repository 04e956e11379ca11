"""A model's `params` and `drops` in the request that its deployment gets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from tests.flow.support import HandDriver, PlainBackend, ScriptedReply, answers, calling, fails
from tests.support.anthropic_like import message
from tests.support.openai_like import error

from ccroute import Agent, AnthropicBackend, Model, OllamaBackend, OpenAIBackend
from ccroute.backends import Backend
from ccroute.errors import InvalidRequestError
from ccroute.routing import RefusedParameters
from ccroute.wire.fields import OfWire

CLAUDE = ScriptedReply(pieces=[json.dumps(message()).encode()])
OPUS = "claude-opus-4-20250514"
PROMPT = "x" * 4000  # about 1,004 tokens


def server(name: str = "paid", *, model: str = "m", **facts: Any) -> OpenAIBackend:
    return OpenAIBackend(name, base_url=f"https://{name}.test", models={model: Model(**facts)})


def claude(model: str = OPUS, **facts: Any) -> AnthropicBackend:
    return AnthropicBackend("paid", base_url="https://paid.test", api_key="k", models={model: Model(**facts)})


class Sent:
    """The bodies that were sent, and what the route says of changes of them."""

    def __init__(self, bodies: list[Any], reasons: tuple[str, ...]) -> None:
        self.bodies = bodies
        found = (re.fullmatch(r"\w+/[\w-]+: (.*)", reason) for reason in reasons)
        self.changes = [each[1] for each in found if each is not None]

    @property
    def body(self) -> Any:
        (body,) = self.bodies
        return body


def sent(*backends: Backend, world: tuple[ScriptedReply, ...] = (answers(),), **options: Any) -> Sent:
    """What the servers got in one call, and the reasons in its route."""
    if "model" in options:
        options["aliases"] = {}
    driver = HandDriver(world).run(calling(*backends, **options))
    return Sent([json.loads(each.request.body) for each in driver.sends], driver.completion.route.reasons)


# -- params


@pytest.mark.parametrize(
    ("agent", "asked", "temperature"),
    [({}, {}, 0.1), ({"temperature": 0.2}, {}, 0.2), ({"temperature": 0.2}, {"temperature": 0}, 0)],
)
def test_a_models_params_count_after_the_calls_and_the_agents(
    agent: Mapping[str, Any], asked: Mapping[str, Any], temperature: float
) -> None:
    got = sent(
        server(params={"temperature": 0.1, "seed": 7}),
        agents={"py": Agent("paid/m", params=agent)},
        agent="py",
        **asked,
    )
    assert (got.body["temperature"], got.body["seed"], got.changes) == (temperature, 7, [])


def test_each_deployment_has_its_own_params() -> None:
    one, other = server("one", params={"seed": 1}), server("other", params={"top_p": 0.5})
    first, second = sent(one, other, world=(fails(503), answers())).bodies
    assert (first["seed"], first.get("top_p")) == (1, None)
    assert (second.get("seed"), second["top_p"]) == (None, 0.5)


def test_a_default_that_the_model_does_not_take_is_left_out() -> None:
    got = sent(server(sampling="none", params={"temperature": 0.1, "seed": 7}))
    assert ("temperature" in got.body, got.body["seed"]) == (False, 7)
    (why,) = got.changes
    assert why.startswith("temperature of the model's params dropped, m does not take it")


def test_a_default_gives_way_to_what_the_caller_asked_for() -> None:
    got = sent(server(sampling="one", params={"temperature": 0.1}), top_p=0.5)
    assert (got.body.get("temperature"), got.body["top_p"]) == (None, 0.5)
    assert got.changes == [
        "temperature of the model's params dropped, with it top_p: m takes temperature or top_p, not both"
    ]


def test_of_two_defaults_that_do_not_go_together_the_first_is_sent() -> None:
    got = sent(server(sampling="one", params={"temperature": 0.1, "top_p": 0.5}))
    assert (got.body["temperature"], got.body.get("top_p")) == (0.1, None)


def test_a_default_does_not_save_what_the_caller_may_not_ask_for() -> None:
    call = calling(server(refuses=["stop"], params={"seed": 7}), stop="x")
    failed = HandDriver([]).fail(call)
    assert isinstance(failed, InvalidRequestError)
    assert "stop (m does not take it" in str(failed)
    got = sent(server(refuses=["stop"], params={"seed": 7}), stop="x", drop_params=True)
    assert (got.body.get("stop"), got.body["seed"], len(got.changes)) == (None, 7, 1)


def refuses(parameter: str) -> ScriptedReply:
    body = error(f"Unsupported parameter: '{parameter}'", param=parameter, code="unsupported_parameter")
    return ScriptedReply(400, [json.dumps(body).encode()])


def test_a_default_that_the_server_refuses_is_dropped_and_remembered() -> None:
    backend, known = server(params={"temperature": 0.1, "seed": 7}), RefusedParameters()
    got = sent(backend, world=(refuses("temperature"), answers()), refused_parameters=known)
    assert [body.get("temperature") for body in got.bodies] == [0.1, None]
    assert "temperature dropped, the server refused it" in got.changes
    later = sent(backend, refused_parameters=known)
    assert (later.body.get("temperature"), later.body["seed"]) == (None, 7)
    assert later.changes == ["temperature dropped, the server refused it"]
    asked = sent(backend, refused_parameters=known, temperature=0.1)
    assert asked.body["temperature"] == 0.1, "the caller's own is not dropped without drop_params"


def test_what_the_caller_asked_for_and_the_server_refuses_still_fails() -> None:
    call = calling(server(params={"seed": 7}), temperature=0.1)
    assert isinstance(HandDriver([refuses("temperature")]).fail(call), InvalidRequestError)


def test_a_default_form_of_the_answer_is_parsed() -> None:
    backend = server(params={"response_format": dict[str, int]})
    driver = HandDriver([answers('{"a": 1}')]).run(calling(backend))
    assert driver.completion.parsed == {"a": 1}


def test_default_tools_are_offered() -> None:
    def look(path: str) -> str:
        """Read a file."""
        return path

    got = sent(server(params={"tools": [look]}))
    assert [tool["function"]["name"] for tool in got.body["tools"]] == ["look"]


# -- drops


def test_a_models_drops_are_left_out_without_drop_params() -> None:
    got = sent(server(drops=["seed", "user", "temperature"], params={"temperature": 0.1}), seed=7, top_p=0.5)
    assert got.body.keys().isdisjoint({"seed", "user", "temperature"})
    assert got.body["top_p"] == 0.5
    assert got.changes == ["seed dropped, the model's drops name it"]


def test_a_dropped_field_of_extra_is_named_with_its_place() -> None:
    got = sent(server(drops=["extra.store"]), extra={"store": True, "verbosity": "low"})
    assert (got.body.get("store"), got.body["verbosity"]) == (None, "low")
    assert got.changes == ["store dropped, the model's drops name it"]


def test_a_dropped_field_of_another_wire_is_not_refused() -> None:
    extra = OfWire("anthropic", {"context_management": {}})
    got = sent(server(drops=["extra.context_management"]), extra=extra)
    assert "context_management" not in got.body


def test_what_is_dropped_is_not_refused() -> None:
    got = sent(server(refuses=["stop"], drops=["stop"]), stop="x")
    assert got.changes == ["stop dropped, the model's drops name it"]


# -- max_tokens among the params


@pytest.mark.parametrize(
    ("facts", "limit", "changes"),
    [
        (
            {"params": {"max_tokens": 200_000}},
            32_000,
            ["max_tokens 200000 → 32000, the most this model answers with"],
        ),
        ({"params": {"max_tokens": 500}}, 500, []),
        (
            {"params": {"max_tokens": 500}, "max_output": 100},
            100,
            ["max_tokens 500 → 100, the most this model answers with"],
        ),
        ({}, 32_000, []),
        ({"params": {"max_tokens": 500}, "drops": ["max_tokens"]}, 32_000, []),
    ],
    ids=["above the known", "below", "above the given", "none", "dropped"],
)
def test_a_default_limit_is_at_most_what_claude_answers_with(
    facts: Mapping[str, Any], limit: int, changes: list[str]
) -> None:
    got = sent(claude(**facts), model=f"paid/{OPUS}", world=(CLAUDE,))
    assert (got.body["max_tokens"], got.changes) == (limit, changes)


def test_an_unknown_model_at_anthropic_answers_with_4096() -> None:
    got = sent(claude("new", params={"max_tokens": 200_000}), model="paid/new", world=(CLAUDE,))
    assert got.body["max_tokens"] == 4096


@pytest.mark.parametrize("of", ["the call", "the agent"])
def test_a_limit_that_somebody_asked_for_is_never_changed(of: str) -> None:
    agent = Agent("paid/m", params={"max_tokens": 9000} if of == "the agent" else None)
    asked = {"max_tokens": 9000} if of == "the call" else {}
    facts = {"params": {"max_tokens": 7}, "max_output": 8000, "context_window": 8192}
    got = sent(server(**facts), agents={"py": agent}, agent="py", prompt=PROMPT, **asked)
    assert got.body["max_tokens"] == 9000


def test_a_default_limit_leaves_room_for_the_prompt() -> None:
    got = sent(server(params={"max_tokens": 8192}, context_window=8192), prompt=PROMPT)
    assert got.body["max_tokens"] == 8192 - 1004 - 1004 // 4
    assert got.changes == [
        "max_tokens 8192 → 6937, what about 1004 tokens of prompt leave of the context window"
    ]


def test_a_default_limit_is_not_demanded_of_the_window() -> None:
    small = server("small", params={"max_tokens": 2000}, context_window=2000)
    large = server("large", params={"max_tokens": 8000}, context_window=8000)
    assert sent(small, large, prompt=PROMPT).body["max_tokens"] == 2000 - 1004 - 996 // 4


@pytest.mark.parametrize("window", [1004, 900])
def test_a_default_limit_is_not_sent_where_nothing_is_left(window: int) -> None:
    got = sent(server(params={"max_tokens": 8192}, context_window=window), prompt=PROMPT)
    assert "max_tokens" not in got.body
    assert got.changes == ["max_tokens 8192 dropped, the prompt alone has about 1004 tokens"]


@pytest.mark.parametrize(("window", "limit"), [(10_000, 8745), (200_000, 32_000), (1004, 32_000)])
def test_the_limit_that_anthropic_wants_leaves_room_for_the_prompt_too(window: int, limit: int) -> None:
    got = sent(claude(context_window=window), model=f"paid/{OPUS}", world=(CLAUDE,), prompt=PROMPT)
    assert got.body["max_tokens"] == limit
    assert len(got.changes) == (limit == 8745)


def test_a_limit_too_small_for_thinking_gives_way_to_it() -> None:
    got = sent(
        claude(params={"max_tokens": 1000}), model=f"paid/{OPUS}", world=(CLAUDE,), reasoning_effort="low"
    )
    assert got.body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert got.body["max_tokens"] == 32_000
    (why,) = got.changes
    assert why.startswith(
        "max_tokens of the model's params dropped, with it reasoning_effort: thinking takes"
    )


def test_at_ollama_the_default_limit_is_num_predict() -> None:
    mini = OllamaBackend("home", models={"m": Model(params={"max_tokens": 131_072}, context_window=2048)})
    reply = {
        "model": "m",
        "message": {"role": "assistant", "content": "hi"},
        "done": True,
        "done_reason": "stop",
    }
    got = sent(mini, world=(ScriptedReply(pieces=[json.dumps(reply).encode()]),), prompt=PROMPT)
    assert got.body["options"] == {"num_ctx": 2048, "num_predict": 2048 - 1004 - 1004 // 4}


def test_a_backend_of_ones_own_gets_the_defaults_too() -> None:
    class Loud(PlainBackend):
        def encode(self, request: Any, model: str, stream: bool) -> Any:
            return super().encode(request, f"{model} {request.max_tokens}", stream)

    backend = Loud("paid", models={"m": Model(params={"max_tokens": 50}, max_output=20)})
    assert sent(backend, world=(ScriptedReply(pieces=[b"hi"]),)).body[0] == "m 20"
