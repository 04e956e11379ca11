"""`router.explain()`: what it prints, what it raises, and that nothing is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel
from tests.support.scripted import ScriptedServer

from ccroute import (
    Agent,
    AnthropicBackend,
    Model,
    OllamaBackend,
    OpenAIBackend,
    Price,
    RoutePlan,
    Router,
    errors,
)

EVIL = "<script>alert(1)</script>"


class Finding(BaseModel):
    severity: str


def router(url: str = "http://vllm.example.com", **options: Any) -> Router:
    opus = Model(context_window=200_000, max_output=32_000, price=Price(15, 75))
    return Router(
        [
            OllamaBackend("mini"),
            OpenAIBackend("vllm", base_url=url, preset="vllm"),
            AnthropicBackend(api_key="sk-ant-0123456789", models={"claude-opus-4-1": opus}),
        ],
        {
            "opus": "anthropic/claude-opus-4-1",
            "coder": {"mini/qwen:7b": 1, "vllm/qwen": 3},
            EVIL: "mini/qwen:7b",
        },
        {
            "py": "coder",
            "architect": Agent("opus", fallback=["coder"]),
            "hr": Agent("coder", local_only=True),
        },
        **options,
    )


def test_a_plan_is_printed_as_a_table() -> None:
    with router() as asked:
        plan = asked.explain("Fix it", agent="architect", model="coder", max_tokens=1000)
    assert str(plan) == (
        "architect → coder → opus (about 6 tokens, overridden, at most 600 s)\n"
        "\n"
        "   deployment                 first  worst cost   window  why\n"
        "-  -------------------------  -----  ----------  -------  --------------------------\n"
        '1  anthropic/claude-opus-4-1  100 %    $0.07512  200,000  model "opus"\n'
        '2  vllm/qwen                    0 %     unknown  unknown  fallback "coder", weighted\n'
        '3  mini/qwen:7b                 0 %       $0.00  unknown  fallback "coder", weighted\n'
        "\n"
        'agent architect uses "opus", not the requested "coder"'
    )


def test_one_that_is_not_asked_has_a_dash_and_the_reason() -> None:
    with router(timeout=5) as asked:
        plan = asked.explain("Fix it", agent="hr")
    no = "no: agent hr is local_only, and backend vllm is not local"
    assert str(plan).splitlines() == [
        "hr → coder (about 6 tokens, at most 5 s)",
        "",
        "   deployment    first  worst cost   window  why",
        f"-  ------------  -----  ----------  -------  {'-' * len(no)}",
        f"-  vllm/qwen               unknown  unknown  {no}",
        '1  mini/qwen:7b  100 %       $0.00  unknown  model "coder", weighted',
        "",
        "local_only: vllm/qwen left out",
    ]


def test_a_rare_first_choice_is_not_shown_as_none() -> None:
    with Router([OllamaBackend("a"), OllamaBackend("b")], {"x": {"a/m": 1, "b/m": 999}}) as asked:
        _, _, _, _, first, second, *_ = str(asked.explain("hi", model="x")).splitlines()
    assert ">99 %" in first
    assert "<1 %" in second


def test_a_notebook_shows_it_escaped() -> None:
    with router() as asked:
        plan = asked.explain("hi", model=EVIL)
        denied = asked.explain("hi", agent="hr")
    shown = plan._repr_html_()
    assert EVIL not in shown
    assert ">mini/qwen:7b</td>" in shown
    assert "local_only: vllm/qwen left out" in denied._repr_html_()
    assert list(denied.__rich_repr__()) == [
        "hr → coder (about 5 tokens, at most 600 s)",
        ("vllm/qwen", "no: agent hr is local_only, and backend vllm is not local"),
        ("mini/qwen:7b", 'model "coder", weighted'),
    ]


def test_a_plan_is_json() -> None:
    with router() as asked:
        plan = asked.explain("hi", agent="architect", max_tokens=10)
    stored = json.loads(json.dumps(plan.to_dict()))
    assert stored["candidates"][0]["worst_cost"] == "0.000855"
    assert RoutePlan.model_validate(stored) == plan
    assert RoutePlan.model_validate_json(plan.model_dump_json()) == plan
    with pytest.raises(ValueError, match="frozen"):
        plan.model = "other"


def test_nothing_is_sent() -> None:
    with ScriptedServer() as server, router(server.url) as asked:
        for _ in range(3):
            plan = asked.explain("hi", model="vllm/qwen", response_format=Finding)
            assert plan.candidates[0].allowed
        assert asked.rows() == []
        assert asked.stats().deployments == {}
    assert server.connections == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"agent": "pyy"}, errors.UnknownAgentError),
        ({"model": "opsu"}, errors.UnknownModelError),
        ({"agent": "py", "fallback": ["opsu"]}, errors.UnknownModelError),
        ({}, errors.InvalidRequestError),
        ({"agent": "py", "max_tokens": 0}, errors.InvalidRequestError),
        ({"agent": "py", "messages": []}, errors.InvalidRequestError),
    ],
)
def test_what_a_call_refuses_at_once_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with router() as asked:
        with pytest.raises(error) as explained:
            asked.explain("hi", **options)
        with pytest.raises(error) as called:
            asked.complete("hi", **options)
    assert str(explained.value) == str(called.value)


def test_an_unknown_keyword_is_a_type_error() -> None:
    with router() as asked, pytest.raises(TypeError, match="max_retries"):
        asked.explain("hi", model="opus", max_retries=3)  # type: ignore[call-arg]


def test_a_closed_router_explains_nothing() -> None:
    asked = router()
    asked.close()
    with pytest.raises(errors.RouterClosedError):
        asked.explain("hi", agent="py")
