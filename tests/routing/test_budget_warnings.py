"""A budget that refuses calls whatever is spent is a warning when a router is made."""

import pytest

from ccroute import Agent, AnthropicBackend, Budget, OllamaBackend, OpenAIBackend, Price, Router

DOLLAR = {"far/opus": Price(3, 15)}
LEAST = "USD are less than an answer of one token costs at"
FREE = "give it more, or a free model to fall back to"
PRICES = "give prices, such as"


def warnings(caplog, budgets, **options):
    caplog.clear()
    far = OpenAIBackend("far", base_url="https://llm.example.com/v1", api_key="example-key")
    given = {
        "aliases": {"opus": "far/opus", "own": "far/own", "local": "ollama/q"},
        "agents": {
            "paid": Agent("opus", group="g"),
            "both": Agent("opus", fallback=["local"]),
            "own": Agent("own", group="g"),
            "free": "local",
            "any": Agent(),
        },
        "groups": {"g": Agent()},
        "prices": DOLLAR,
    }
    with Router([far, OllamaBackend("ollama")], **given | options, budgets=budgets):
        return caplog.messages


@pytest.mark.parametrize("usd", [0, "0.000000000001", "0.000017"])
def test_less_than_the_shortest_answer_allows_no_call(caplog, usd):
    (message,) = warnings(caplog, {"paid": Budget(usd)})
    assert message.startswith('budgets["agent:paid"] allows no call: ')
    assert message.endswith(f"{LEAST} far/opus; {FREE}")


@pytest.mark.parametrize(
    "budgets",
    [
        {"paid": Budget("0.000018")},
        {"both": Budget(0)},  # its fallback is free
        {"free": Budget(0)},
        {"any": Budget(0)},  # nobody knows its models
        {"backend:ollama": Budget(0)},
        {"own": Budget(tokens=5)},  # tokens need no price
        {"router": Budget(tokens=5)},
    ],
)
def test_a_budget_that_may_allow_a_call_is_no_warning(caplog, budgets):
    assert warnings(caplog, budgets) == []


@pytest.mark.parametrize("holder", ["own", "group:g", "backend:far", "router", "session"])
def test_a_model_without_a_price_is_refused_by_budgets_in_usd(caplog, holder):
    (message,) = warnings(caplog, {holder: Budget(5)})
    name = "agent:own" if holder == "own" else holder
    assert message == (
        f"the budget of {name} refuses every call to far/own, because no price is known: {PRICES} "
        'prices={"far/own": Price(3, 15)}, or a budget in tokens'
    )


def test_budgets_that_refuse_the_same_models_have_one_warning(caplog):
    (message,) = warnings(caplog, {"router": Budget(5), "own": Budget(1)})
    assert message.startswith("the budgets of router, agent:own refuse every call to far/own, because")


def test_a_few_of_many_models_are_named(caplog):
    models = {f"m{i}": f"far/{i}" for i in range(5)}
    (message,) = warnings(caplog, {"router": Budget(5)}, aliases=models, agents={}, groups={}, prices={})
    assert "every call to far/0, far/1, far/2 and 2 more, because" in message


def test_an_agent_without_a_model_has_the_default_one(caplog):
    (message,) = warnings(caplog, {"any": Budget(5)}, default_model="own")
    assert message.startswith("the budget of agent:any refuses every call to far/own")


def test_a_price_that_the_library_knows_is_enough(caplog):
    with Router(
        [AnthropicBackend(api_key="example-key")],
        {"opus": "anthropic/claude-opus-4-20250514"},
        budgets={"router": Budget(5)},
    ):
        assert caplog.messages == []


def test_a_files_budget_is_warned_of_as_well(caplog):
    source = {
        "backends": {"far": {"kind": "openai", "base_url": "https://llm.example.com/v1", "api_key": "k"}},
        "agents": {"x": {"model": "far/own", "budget": {"usd": 1}}},
    }
    with Router.from_config(source, env={}):
        assert caplog.messages[-1].startswith("the budget of agent:x refuses every call to far/own")
