"""`ccroute report` sums up a ledger that a router wrote."""

import csv

import pytest
from tests.support import openai_like
from tests.support.scripted import ScriptedServer, answer

from ccroute import OpenAIBackend, Price, Router

PRICES = """
[backends.openai]
[prices]
big = { input = 1000, output = 1000 }
[aliases]
paid = "openai/big"
"""


@pytest.fixture
def ledger(tmp_path):
    """The path of a ledger with two calls of one agent and one of another."""
    path = tmp_path / "usage.db"
    with ScriptedServer([answer(json=openai_like.chat("hi"))], repeat=True) as server:
        with Router(
            [OpenAIBackend("p", base_url=server.url)],
            agents={"python-expert": "p/m", "qa": "p/m"},
            prices={"m": Price(1, 2)},
            ledger=path,
        ) as router:
            for agent in ("python-expert", "python-expert", "qa"):
                router.complete("Hello", agent=agent)
    return str(path)


def test_the_calls_are_summed_by_agent(ccroute, ledger):
    ran = ccroute("report", ledger)
    assert (ran.code, ran.err) == (0, "")
    head, _, first, second, _, total = ran.out.splitlines()
    assert head.split()[:2] == ["agent", "requests"]
    assert first.split()[:2] == ["python-expert", "2"]
    assert second.split()[:2] == ["qa", "1"]
    assert total.split()[:2] == ["total", "3"]


def test_json_has_rows_and_the_total(ccroute, ledger):
    found = ccroute("report", ledger, "--by", "agent,model", "--json").json
    assert found["by"] == ["agent", "model"]
    assert [(row["agent"], row["model"], row["requests"]) for row in found["rows"]] == [
        ("python-expert", "m", 2),
        ("qa", "m", 1),
    ]
    assert found["total"]["requests"] == 3


def test_several_parts_may_be_given_one_by_one(ccroute, ledger):
    found = ccroute("report", ledger, "--by", "day", "--by", "agent, model", "--json").json
    assert found["by"] == ["day", "agent", "model"]


def test_rows_are_written_as_csv(ccroute, ledger, tmp_path):
    ran = ccroute("report", ledger, "--csv", "costs.csv")
    assert ran == (0, "", "costs.csv has 2 rows\n")
    with open("costs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["agent"], row["requests"]) for row in rows] == [("python-expert", "2"), ("qa", "1")]
    assert ccroute("report", ledger, "--csv", "-") == (0, (tmp_path / "costs.csv").read_text(), "")


def test_csv_is_never_written_over_the_ledger(ccroute, ledger):
    ran = ccroute("report", ledger, "--csv", "./usage.db")
    assert (ran.code, ran.err) == (2, "--csv ./usage.db: that is the ledger\n")
    assert ccroute("report", ledger, "--json").json["total"]["requests"] == 3


def test_a_folder_that_is_missing_is_a_line_and_code_2(ccroute, ledger):
    ran = ccroute("report", ledger, "--csv", "nowhere/costs.csv")
    assert ran == (2, "", "nowhere/costs.csv: No such file or directory\n")


def test_a_terminal_gets_a_table_with_its_total(ccroute, ledger):
    ran = ccroute("report", ledger, terminal=True)
    assert "python-expert" in ran.out
    assert "total" in ran.out


def test_a_time_limits_the_report(ccroute, ledger):
    assert ccroute("report", ledger, "--until", "2020-01-01", "--json").json["total"]["requests"] == 0
    assert ccroute("report", ledger, "--since", "2020-01-01", "--json").json["total"]["requests"] == 3


def test_savings_are_measured_at_a_price_of_a_configuration(ccroute, ledger, write):
    file = write("prices.toml", PRICES)
    for name in ("big", "openai/big", "paid"):
        total = ccroute("report", ledger, "--baseline", name, "--config", file, "--json").json["total"]
        assert float(total["saved"]) > 0


def test_a_baseline_may_have_the_price_of_its_provider(ccroute, ledger):
    total = ccroute("report", ledger, "--baseline", "claude-opus-4-20250514", "--json").json["total"]
    assert float(total["saved"]) > 0


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (
            ("--by", "agnet"),
            "--by= is one of agent, group, alias, model, backend, day, session, or several of them, not",
        ),
        (("--since", "soon"), "--since= takes a datetime or a text such as"),
        (("--baseline", "big"), '--baseline: "big" has no price: --config FILE names a configuration'),
        (("--baseline", "other", "--config", "prices.toml"), 'prices.toml: "other" has no price'),
    ],
)
def test_a_wrong_option_is_a_line_and_code_2(ccroute, ledger, write, argv, fault):
    write("prices.toml", PRICES)
    ran = ccroute("report", ledger, *argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(fault)


def test_a_ledger_that_is_missing_is_a_line_and_code_2(ccroute):
    ran = ccroute("report", "nowhere.db")
    assert ran.code == 2
    assert "nowhere.db" in ran.err


def test_a_ledger_without_calls_in_the_time_says_so(ccroute, ledger):
    assert ccroute("report", ledger, "--since", "2999-01-01") == (0, "no calls\n", "")
