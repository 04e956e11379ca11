"""`ccroute migrate` writes one native file, on a machine without the keys, and overwrites nothing."""

import tomllib
from pathlib import Path

import pytest

from ccroute.config import load

AGENTS = {
    "python-expert": {
        "model": "opus",
        "role": "dev",
        "baseUrl": "https://p.example.com/v1",
        "apiKey": "sk-lit",
    }
}
MODELS = '[aliases]\nsonnet = "anthropic/x"\n[backends.anthropic]\napi_key = "env:MY_KEY"\n'


@pytest.fixture
def files(write):
    return write("agents.json", AGENTS), write("models.toml", MODELS)


def test_without_an_output_it_is_printed(ccroute, files):
    ran = ccroute("migrate", *files)
    assert ran.code == 0
    assert tomllib.loads(ran.out) == {
        "backends": {
            "anthropic": {"api_key": "${MY_KEY}"},
            "p": {"kind": "openai", "base_url": "https://p.example.com/v1", "api_key": "${P_API_KEY}"},
        },
        "aliases": {"sonnet": "anthropic/x", "opus": "p/opus"},
        "agents": {"python-expert": "opus"},
    }
    assert ran.err.splitlines() == [
        "set P_API_KEY: its value stood in agents.json: python-expert.apiKey",
        "ignored agents.json: python-expert.role: says nothing about which model answers",
    ]
    assert "sk-lit" not in ran.out + ran.err


def test_the_file_that_is_written_loads(ccroute, files):
    assert ccroute("migrate", *files, "-o", "ccroute.toml").out == ""
    env = {"P_API_KEY": "sk-lit", "MY_KEY": "sk-mine"}
    assert load("ccroute.toml", env).keys() == load([*files], env).keys()


def test_an_existing_file_is_replaced_only_by_force(ccroute, files):
    Path("ccroute.toml").write_text("mine")
    ran = ccroute("migrate", *files, "-o", "ccroute.toml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "ccroute.toml exists; --force replaces it\n"
    assert Path("ccroute.toml").read_text() == "mine"
    assert ccroute("migrate", *files, "-o", "ccroute.toml", "--force").code == 0
    assert tomllib.loads(Path("ccroute.toml").read_text())["agents"] == {"python-expert": "opus"}


def test_a_place_that_cannot_be_written_is_one_line(ccroute, files):
    ran = ccroute("migrate", *files, "-o", "nowhere/ccroute.toml")
    assert (ran.code, ran.err) == (2, "nowhere/ccroute.toml: No such file or directory\n")


def test_json_has_the_text_and_what_to_set(ccroute, files):
    found = ccroute("migrate", *files, "--json").json
    assert tomllib.loads(found["toml"])["agents"] == {"python-expert": "opus"}
    assert found["variables"] == {"P_API_KEY": ["agents.json: python-expert.apiKey"]}
    assert found["ignored"] == [
        {"place": "agents.json: python-expert.role", "reason": "says nothing about which model answers"}
    ]


def test_a_fault_of_a_file_writes_nothing(ccroute, write):
    ran = ccroute("migrate", write("a.json", {"agents": {"x": "nope"}}), "-o", "ccroute.toml")
    assert ran.code == 2
    assert ran.err.startswith('a.json: agents.x: unknown alias "nope"') or ran.err.startswith(
        "a.json: agents.x.model"
    )
    assert not Path("ccroute.toml").exists()


def test_without_tomli_w_it_says_what_to_install(ccroute, files, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tomli_w", None)
    ran = ccroute("migrate", *files, "-o", "ccroute.toml")
    assert ran.code == 2
    assert ran.err == "writing TOML needs tomli-w: pip install 'ccroute[cli]'\n"


def test_a_ledgers_path_counts_from_the_new_file(ccroute, write, tmp_path):
    (tmp_path / "conf").mkdir()
    name = write("conf/old.toml", 'default_model = "ollama/x"\nledger = "usage.db"\n')
    assert 'ledger = "conf/usage.db"' in ccroute("migrate", name).out
    assert ccroute("migrate", name, "-o", "conf/new.toml").code == 0
    assert tomllib.loads(Path("conf/new.toml").read_text())["ledger"] == "usage.db"


def test_a_journals_path_counts_from_the_new_file_too(ccroute, write, tmp_path):
    (tmp_path / "conf").mkdir()
    address = "postgresql://${USER}:hunter2@db.example.com/usage?journal=my%20rows.db"
    name = write("conf/old.toml", f'default_model = "ollama/x"\nledger = "{address}"\n')
    written = ccroute("migrate", name).out
    assert "db.example.com/usage?journal=conf/my%20rows.db" in written
    assert "hunter2" not in written


@pytest.mark.parametrize(
    "path",
    ["/var/usage.db", "~/usage.db", "${LEDGER}", "postgresql://h/db", "postgresql://h/db?journal=/j.db"],
)
def test_a_ledgers_whole_path_stays(ccroute, write, path):
    name = write("old.toml", f'default_model = "ollama/x"\nledger = "{path}"\n')
    assert tomllib.loads(ccroute("migrate", name).out)["ledger"] == path
