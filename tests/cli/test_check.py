"""`ccroute check`: routes, agents, warnings and what is ignored; or every fault on its line."""

import re

import pytest

FILE = {
    "backends": {
        "local": {"kind": "ollama", "models": {"q:7b": {"context_window": 32768}}},
        "far": {
            "kind": "anthropic",
            "api_key": "${FAR_KEY}",
            "models": {"opus-4": {"price": {"input": 15, "output": 75}}},
        },
    },
    "aliases": {
        "opus": "far/opus-4",
        "both": ["local/q:7b", "far/opus-4"],
        "c-*": "far/claude-*",
    },
    "agents": {"python-expert": "both", "architect": {"model": "opus", "group": "leads"}, "free": {}},
    "groups": {"leads": {}},
}


@pytest.fixture
def file(write, monkeypatch):
    monkeypatch.setenv("FAR_KEY", "sk-far-secret")
    return write("ccroute.json", FILE)


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_routes_and_agents_are_tables(ccroute, file):
    ran = ccroute("check", file)
    assert (ran.code, ran.err) == (0, "")
    lines = list(map(cells, ran.out.splitlines()))
    columns = ["name", "deployment", "kind", "USD per million", "price from", "window"]
    assert lines[:2] == [["routes:"], columns]
    assert ["opus", "far/opus-4", "anthropic", "$15.00 / $75.00", "model", "unknown"] in lines
    assert ["both", "local/q:7b", "ollama", "free", "free", "32,768"] in lines
    assert ["far/opus-4", "anthropic", "$15.00 / $75.00", "model", "unknown"] in lines
    assert ["c-*", "far/claude-*"] in lines
    assert ["python-expert", "both", "local/q:7b, far/opus-4"] in lines
    assert ["architect", "opus", "far/opus-4"] in lines
    assert ["free", "the call's"] in lines
    assert "sk-far-secret" not in ran.out


def test_json_has_the_same_for_machines(ccroute, file):
    ran = ccroute("check", file, "--json")
    assert ran.code == 0
    found = ran.json
    assert found.keys() == {"files", "routes", "agents", "budgets", "warnings", "ignored"}
    assert found["files"] == [file]
    both = next(route for route in found["routes"] if route["name"] == "both")
    assert both["deployments"][0] == {
        "deployment": "local/q:7b",
        "kind": "ollama",
        "address": "http://localhost:11434",
        "local": True,
        "price": {"input": "0", "output": "0"},
        "price_source": "free",
        "why_unpriced": None,
        "context_window": 32768,
    }
    assert found["agents"][1] == {
        "agent": "architect",
        "model": "opus",
        "deployments": ["far/opus-4"],
        "group": "leads",
        "local_only": False,
    }


def test_a_price_of_a_provider_says_so_and_a_missing_one_why(ccroute, write, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-far-secret")
    aliases = {"opus": "anthropic/claude-opus-4-20250514", "own": "anthropic/my-own"}
    file = write("paid.json", {"backends": {"anthropic": {}}, "aliases": aliases})
    lines = list(map(cells, ccroute("check", file).out.splitlines()))
    names = ["anthropic/claude-opus-4-20250514", "anthropic"]
    assert ["opus", *names, "$15.00 / $75.00", "genai-prices", "unknown"] in lines
    why = "genai-prices has no model my-own of anthropic"
    assert ["own", "anthropic/my-own", "anthropic", "unknown", why, "unknown"] in lines


BUDGETS = {
    "budgets": {
        "router": {"usd": "1000.5", "per": "month", "tz": "Europe/Berlin"},
        "group:leads": {"usd": 3, "tokens": 1_000_000, "then": "queue"},
        "session": {"tokens": 5000, "per": "session", "tz": "Europe/Berlin"},
    },
    "agents": {"architect": {"model": "opus", "group": "leads", "budget": {"usd": "1e-8", "per": "total"}}},
}


def test_the_budgets_are_a_table(ccroute, file, write):
    ran = ccroute("check", file, write("budgets.json", BUDGETS))
    lines = list(map(cells, ran.out.splitlines()))
    at = lines.index(["budgets:"])
    assert lines[at + 1] == ["budget", "limit", "per", "then"]
    assert lines[at + 3 : at + 7] == [
        ["router", "$1000.50", "month in Europe/Berlin", "refuse"],
        ["group:leads", "$3.00 and 1,000,000 tokens", "day", "queue"],
        ["session", "5,000 tokens", "session", "refuse"],
        ["agent:architect", "$0.00000001", "total", "refuse"],
    ]


def test_the_budgets_are_there_for_machines(ccroute, file, write):
    found = ccroute("check", file, write("budgets.json", BUDGETS), "--json").json["budgets"]
    assert found[0] == {
        "budget": "router",
        "usd": "1000.5",
        "tokens": None,
        "per": "month",
        "then": "refuse",
        "tz": "Europe/Berlin",
    }
    assert [each["budget"] for each in found[1:]] == ["group:leads", "session", "agent:architect"]


def test_every_fault_is_a_line_with_its_file_and_the_code_is_2(ccroute, write):
    name = write("bad.json", {"agents": {"x": "opsu"}, "aliases": {"opus": "zzz/x"}, "retri": 1})
    ran = ccroute("check", name)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        'bad.json: retri: unknown key, did you mean "retry"?',
        'bad.json: aliases.opus: unknown backend "zzz" in "zzz/x"',
        'bad.json: agents.x.model: unknown alias "opsu", did you mean "opus"?',
    ]


def test_faults_are_json_as_well(ccroute, write):
    ran = ccroute("check", write("bad.json", {"retri": 1}), "--json")
    assert ran.code == 2
    assert ran.json["error"]["type"] == "ConfigError"
    assert ran.json["error"]["faults"][0] == 'bad.json: retri: unknown key, did you mean "retry"?'


def test_with_several_files_a_place_names_its_file_once(ccroute, write):
    one, two = write("a.json", {"agents": {"x": "opsu"}}), write("b.json", {"aliases": {"opus": "ollama/x"}})
    assert (
        ccroute("check", one, two).err
        == 'a.json: agents.x.model: unknown alias "opsu", did you mean "opus"?\n'
    )


def test_a_file_that_is_missing_is_one_line(ccroute):
    ran = ccroute("check", "nowhere.toml")
    assert (ran.code, ran.err) == (2, "nowhere.toml: cannot be read: No such file or directory\n")


def test_without_a_file_it_says_what_it_expects(ccroute):
    ran = ccroute("check")
    assert ran.code == 2
    assert "give a file: ccroute.toml, an orchestra's file, LiteLLM's config.yaml" in ran.err


def test_warnings_stand_below_the_tables_once(ccroute, write):
    one = write(
        "a.json", {"backends": {"p": {"kind": "openai", "api_key": "sk-literal"}}, "aliases": {"a": "p/1"}}
    )
    two = write(
        "b.json", {"aliases": {"a": "anthropic/2"}, "prices": {"m": {"input": "0.0001", "output": 1}}}
    )
    ran = ccroute("check", one, two)
    assert (ran.code, ran.err) == (0, "")
    warnings = ran.out.partition("warnings:\n")[2]
    for expected in (
        "a.json: backends.p.api_key: holds a secret itself; ${OPENAI_API_KEY} would keep it out of the file",
        "a.json: aliases.a: b.json: aliases.a comes later and wins",
        "ANTHROPIC_API_KEY is not set",
        "b.json: prices.m.input: 0.0001 USD per million tokens",
    ):
        assert warnings.count(expected) == 1
    assert "sk-literal" not in ran.out
    assert "ignored" not in ran.out


def test_what_is_ignored_is_summed_up_by_its_reason(ccroute, write):
    entry = {"model": "ollama/q", "role": "dev", "phase": 1}
    ran = ccroute(
        "check", write("orchestra.json", {"x": entry, "y": entry, "z": {**entry, "enabled": False}})
    )
    assert ran.out.partition("ignored:\n")[2].splitlines()[:2] == [
        "  role ×2, phase ×2: says nothing about which model answers",
        "  z: is disabled",
    ]


def test_verbose_also_logs(ccroute, write):
    ran = ccroute("check", "-v", write("a.json", {"aliases": {"a": "anthropic/2"}}))
    assert "WARNING: config: backends.anthropic: ANTHROPIC_API_KEY is not set" in ran.err


def test_names_of_a_file_control_no_terminal(ccroute, write):
    name = write(
        "a.json", {"aliases": {"\x1b[31mred": "ollama/x"}, "agents": {"\x1b]0;title\x07": "\x1b[31mred"}}
    )
    ran = ccroute("check", name)
    assert "\x1b" not in ran.out + ran.err
    assert "\x07" not in ran.out + ran.err


def test_a_terminal_gets_the_tables_of_rich(ccroute, file):
    ran = ccroute("check", file, terminal=True)
    assert ran.code == 0
    assert "─" in ran.out
    assert "python-expert" in ran.out


def test_no_color_is_respected(ccroute, file, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[3" not in ccroute("check", file, terminal=True).out.replace("\x1b[3m", "")


def test_without_rich_a_terminal_gets_plain_tables(ccroute, file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    ran = ccroute("check", file, terminal=True)
    assert "─" not in ran.out
    assert ran.out == ccroute("check", file).out


def test_a_misspelled_key_stands_before_the_faults_it_causes(ccroute, write):
    orchestra = {"agents": {"x": {"model": "opus", "type": "coder"}}, "llm_routng": {"endpoints": {}}}
    ran = ccroute("check", write("o.json", orchestra))
    assert ran.code == 2
    advice = 'give it a target, as in aliases={"opus": "backend/model"}'
    assert ran.err.splitlines() == [
        'warning: llm_routng: unknown key, did you mean "llm_routing"?',
        f'o.json: agents.x.model: unknown alias "opus"; {advice}',
        'give another file that has a table [aliases], with lines such as: opus = "backend/model"',
    ]


def test_a_fault_of_a_whole_file_names_it_once(ccroute, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x.json").write_text("{,}")
    ran = ccroute("check", "there/x.json")
    assert ran.err.startswith("there/x.json: is not JSON: ")


def test_a_long_name_is_folded_and_a_price_is_not(ccroute, write, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    priced = {"m" * 90: {"price": {"input": 15, "output": 75}}}
    far = {"kind": "openai", "base_url": "http://x.example.com", "models": priced}
    ran = ccroute("check", write("a.json", {"backends": {"far": far}}), terminal=True)
    lines = re.sub(r"\x1b\[[\d;]*m", "", ran.out).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("$15.00 / $75.00" in line for line in lines)


def test_without_room_for_a_table_its_lines_are_plain(ccroute, file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    ran = ccroute("check", file, terminal=True)
    routes = ran.out.partition("agents:")[0]
    assert "─" not in routes
    assert "$75.00" in routes
