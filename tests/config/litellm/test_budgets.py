"""LiteLLM's budgets: of all calls, of providers and of entries.

https://docs.litellm.ai/docs/proxy/provider_budget_routing, https://docs.litellm.ai/docs/proxy/users
"""

import logging

import pytest
from tests.config.litellm.files import entry, loaded
from tests.reload.support import Hosts

from ccroute import Router
from ccroute.types import Budget


def openai(name="a", **params):
    return entry(name, "openai/gpt-4o", **{"api_key": "k", **params})


ROW = openai()
DAY = "each day of the calendar instead of one that begins with a call"


def of(*entries, **sections):
    return loaded(*entries, **sections).options.get("budgets")


def providers(**given):
    return {"router_settings": {"provider_budget_config": given}}


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        # As LiteLLM's own duration_parser.py: a day begins at midnight, 30d and 1mo on the first of a month.
        ({"max_budget": 100, "budget_duration": "30d"}, Budget(100, per="month")),
        ({"max_budget": "0.5", "budget_duration": "1mo"}, Budget("0.5", per="month")),
        ({"max_budget": 1, "budget_duration": "1d"}, Budget(1)),
        ({"max_budget": 1, "budget_duration": "24h"}, Budget(1)),
        ({"max_budget": 1, "budget_duration": "1h"}, Budget(1, per="hour")),
        ({"max_budget": 1, "budget_duration": "60m"}, Budget(1, per="hour")),
        ({"max_budget": 1, "budget_duration": "1d", "timezone": "Asia/Tokyo"}, Budget(1, tz="Asia/Tokyo")),
        ({"max_budget": 1}, Budget(1, per="total")),
    ],
)
def test_the_budget_of_the_proxy_is_the_routers(caplog, settings, budget):
    found = loaded(ROW, litellm_settings=settings)
    assert found.options["budgets"] == {"router": budget}
    assert not found.ignored
    assert not caplog.messages


@pytest.mark.parametrize("duration", ["7d", "1w", "12h", "2mo", "30m", "10s"])
def test_a_duration_that_is_no_window_is_no_budget(caplog, duration):
    caplog.set_level(logging.WARNING, "ccroute")
    found = loaded(ROW, litellm_settings={"max_budget": 5, "budget_duration": duration})
    assert "budgets" not in found.options
    reason = f"a budget is for an hour, a day or a month: one for {duration} is not kept"
    assert found.ignored == {"litellm_settings.budget_duration": reason}
    assert caplog.messages == [f"config: litellm_settings.budget_duration: {reason}"]


def test_zero_is_no_limit_as_in_litellm():
    found = loaded(ROW, litellm_settings={"max_budget": 0, "budget_duration": "7d"})
    assert "budgets" not in found.options
    assert found.ignored == {
        "litellm_settings.max_budget": "0 is no limit, in LiteLLM either",
        "litellm_settings.budget_duration": "has a meaning beside max_budget only",
    }


def test_a_providers_budget_is_that_of_its_backend():
    found = loaded(
        ROW,
        entry("b", "anthropic/claude-sonnet-4-20250514", api_key="k"),
        **providers(
            openai={"budget_limit": 0.000000000001, "time_period": "1d"},
            anthropic={"max_budget": 10, "budget_duration": "1mo"},
            vertex_ai={"budget_limit": 3, "time_period": "1d"},
        ),
    )
    assert found.options["budgets"] == {
        "backend:openai": Budget("1e-12", then="fallback"),
        "backend:anthropic": Budget(10, per="month", then="fallback"),
    }
    at = "router_settings.provider_budget_config"
    assert found.ignored == {
        f"{at}.openai.time_period": DAY,
        f"{at}.anthropic.budget_duration": DAY.replace("day", "month"),
        f"{at}.vertex_ai.time_period": DAY,
        f"{at}.vertex_ai.budget_limit": "no model is of that provider",
    }


def test_backends_of_one_provider_share_its_limit(caplog):
    rows = [openai("a", api_key="one"), openai("a", api_key="two"), openai("b", api_key="three")]
    found = loaded(*rows, **providers(openai={"budget_limit": 100, "time_period": "1d"}))
    share = Budget("33.333333", then="fallback")  # together never more than the limit
    names = ["openai", "openai-2", "openai-3"]
    assert found.options["budgets"] == {f"backend:{name}": share for name in names}
    text = f"the backends {', '.join(names)} have 33.333333 USD each, because each has a budget of its own"
    place = "router_settings.provider_budget_config.openai.budget_limit"
    assert caplog.messages == [f"config: {place}: {text}"]


def test_providers_at_one_address_do_not_share_a_backend_with_a_budget():
    rows = [openai("a"), entry("b", "text-completion-openai/x", api_key="k")]
    assert loaded(*rows).leads("b") == ("openai/x",)
    found = loaded(*rows, **providers(openai={"budget_limit": 1, "time_period": "1d"}))
    assert found.leads("a") == ("openai/gpt-4o",)
    assert found.leads("b") == ("text-completion-openai/x",)
    assert found.options["budgets"] == {"backend:openai": Budget(1, then="fallback")}


def test_an_entry_with_a_budget_has_a_backend_of_its_own():
    limit = {"max_budget": 2, "budget_duration": "1d"}
    found = loaded(openai("a"), openai("a", **limit), openai("a", **limit), openai("b"))
    assert found.leads("a") == ("openai/gpt-4o", "openai-2/gpt-4o", "openai-3/gpt-4o")
    assert found.leads("b") == ("openai/gpt-4o",)
    budget = Budget(2, then="fallback")
    assert found.options["budgets"] == {"backend:openai-2": budget, "backend:openai-3": budget}


def test_a_wildcards_budget_is_of_all_its_models():
    row = entry("openai/*", "openai/*", api_key="k", max_budget=2, budget_duration="1d")
    found = loaded(openai("a"), row)
    assert found.options["budgets"] == {"backend:openai": Budget(2, then="fallback")}
    assert found.leads("openai/o3") == ("openai/o3",)
    assert found.leads("a") == ("openai-2/gpt-4o",)


def test_an_entrys_own_budget_is_besides_that_of_its_provider(caplog):
    found = loaded(
        openai("a"),
        openai("b", max_budget=2, budget_duration="1d"),
        **providers(openai={"budget_limit": 5, "time_period": "1d"}),
    )
    assert found.options["budgets"] == {
        "backend:openai-2": Budget(2, then="fallback"),
        "backend:openai": Budget(5, then="fallback"),
    }
    place = "router_settings.provider_budget_config.openai.budget_limit"
    assert caplog.messages == [f"config: {place}: does not count what b cost, with budgets of their own"]


def test_a_limit_that_litellm_never_checks_is_none(caplog):
    found = loaded(openai(max_budget=2), **providers(openai={"budget_limit": 5}))
    assert "budgets" not in found.options
    assert found.ignored == {
        "model_list[0].litellm_params.max_budget": "is no limit without budget_duration, in LiteLLM either",
        "router_settings.provider_budget_config.openai.budget_limit": (
            "is no limit without time_period, in LiteLLM either"
        ),
    }
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        (
            {"litellm_settings": {"max_budget": -1}},
            "litellm_settings.max_budget: should be a number, at least 0",
        ),
        (
            {"litellm_settings": {"max_budget": 1, "budget_duration": "soon"}},
            'litellm_settings.budget_duration: should be a duration such as "30d"',
        ),
        (
            {"litellm_settings": {"max_budget": 1, "budget_duration": 30}},
            "litellm_settings.budget_duration: should be a string",
        ),
        (
            {"litellm_settings": {"max_budget": 1, "timezone": "Mars"}},
            'litellm_settings.timezone: there is no time zone "Mars"',
        ),
        (
            providers(openai=5),
            "router_settings.provider_budget_config.openai: should be a table with budget_limit and",
        ),
    ],
)
def test_a_fault_of_a_budget_has_its_place(faults, sections, fault):
    (found,) = faults({"model_list": [ROW], **sections})
    assert found.startswith(fault)


def test_a_misspelt_key_of_a_providers_budget_is_a_warning(caplog):
    loaded(ROW, **providers(openai={"budget_limt": 5, "time_period": "1d", "rpm_limit": 3}))
    place = "router_settings.provider_budget_config.openai"
    assert caplog.messages == [f'config: {place}.budget_limt: unknown key, did you mean "budget_limit"?']


def test_a_frequent_mistake_in_another_section_is_no_crash():
    found = loaded(ROW, router_settings={"rpm_limit": 3})
    assert "is not known" in found.ignored["router_settings.rpm_limit"]


def test_budgets_of_users_and_keys_are_the_proxys():
    found = loaded(ROW, litellm_settings={"max_end_user_budget": 1, "tag_budget_config": {}})
    assert {reason.partition(";")[0] for reason in found.ignored.values()} == {
        "is for users, keys, teams and tags of LiteLLM's proxy"
    }


def test_a_budget_under_general_settings_is_a_warning(caplog):
    loaded(ROW, general_settings={"max_budget": 5, "budget_duration": "1d"})
    (message,) = caplog.messages
    assert message.endswith("is read under litellm_settings only, by LiteLLM too")


def test_a_spent_budget_of_a_provider_leads_to_the_fallback():
    paid = {"api_base": "http://one.test/v1", "input_cost_per_token": 1e-3, "output_cost_per_token": 1e-3}
    free = {"api_base": "http://two.test/v1", "input_cost_per_token": 0, "output_cost_per_token": 0}
    source = {
        "model_list": [openai("paid", **paid), entry("free", "hosted_vllm/q", **free)],
        "router_settings": {
            "provider_budget_config": {"openai": {"budget_limit": 0.05, "time_period": "1d"}},
            "fallbacks": [{"paid": ["free"]}],
        },
    }
    with Router.from_config(source, env={}, transport=Hosts().transport) as router:
        served = [router.complete("hi", model="paid", max_tokens=5).route for _ in range(5)]
    assert [route.backend for route in served][::4] == ["one", "two"]
    assert served[-1].fallback
