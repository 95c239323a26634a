"""The config that the daemon runs on, for commands after the file on disk was broken."""

from __future__ import annotations

import json
import stat

import pytest

from dropscribe.config.load import load_config
from dropscribe.config.running import RUNNING_NAME, load_running_config, store_running_config

CANARY = "sk_canary_7f3a9c2d"
TEXT = f"""
state_dir: kept
providers:
  p: {{type: pulse, api_key: {CANARY}, params: {{language: de}}}}
  q: {{type: pulse, api_key: "${{RUNNING_KEY}}", url: "https://h.example/a?b=c&api_key=${{RUNNING_KEY}}"}}
folders:
  calls: {{inbox: "${{BASE}}/in", done: done, provider: [p, q], exclude: ["$${{x}}*"], min_age: 2m}}
http: {{token: {CANARY}, listen: "0.0.0.0:8790"}}
heartbeat: {{url: "https://hc.example/{CANARY}"}}
notify: {{webhook: {{url: "https://h.example/{CANARY}", secret: {CANARY}}}}}
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A config whose daemon has kept it."""
    path = tmp_path / "dropscribe.yaml"
    path.write_text(TEXT)
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    store_running_config(load_config(path, environ={"RUNNING_KEY": CANARY, "BASE": str(tmp_path)})[0])
    return path


@pytest.mark.parametrize(
    "broken",
    [
        "state_dir: kept\nfolders: [",
        "state_dir: 'kept'  # here\nproviders: {p: {type: nobody}}\n",
        '"state_dir": kept\nfolders: [',
        "'state_dir' : \"kept\"\nfolders: [",
        "  state_dir : kept # here\nfolders: [",
        "{state_dir: kept, folders: [",
    ],
)
def test_it_is_there_when_the_file_is_broken(path, broken):
    """Rules and providers are those that the daemon works with, variables of its environment included."""
    config, _ = load_config(path, environ={"RUNNING_KEY": CANARY, "BASE": str(path.parent)})
    path.write_text(broken)
    running = load_running_config(path, environ={})
    assert running.folders == config.folders
    assert running.state_dir == config.state_dir
    assert {name: provider.params for name, provider in running.providers.items()} == {
        name: provider.params for name, provider in config.providers.items()
    }


def test_a_url_from_a_variable_is_needed_by_the_daemon_alone(path):
    """Also one with an "@", which might be a password: reports go on in a shell without the variable."""
    path.write_text(TEXT.replace("  q:", '  o: {type: openai, url: "${ASR_URL}"}\n  q:'))
    environ = {"RUNNING_KEY": CANARY, "BASE": str(path.parent), "ASR_URL": f"https://x.example/@{CANARY}"}
    store_running_config(load_config(path, environ=environ)[0])
    assert load_running_config(path, environ={}).providers.keys() == {"o", "p", "q"}
    assert CANARY not in (path.parent / "kept" / RUNNING_NAME).read_text()


def test_it_holds_no_secret_and_is_nobody_elses_to_read(path):
    """Neither a key nor a url that is one is copied; the mode is 0600."""
    kept = path.parent / "kept" / RUNNING_NAME
    assert CANARY not in kept.read_text()
    assert "${RUNNING_KEY}" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [each.name for each in kept.parent.iterdir()] == [RUNNING_NAME]


def test_a_copy_of_another_file_counts_as_absent(path):
    """Two configs that share a state directory by mistake are not taken for one another."""
    other = path.with_name("other.yaml")
    other.write_text("state_dir: kept\n")
    assert load_running_config(other, environ={}) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"path": 1}', json.dumps({"path": "", "config": [1]})])
def test_a_damaged_copy_counts_as_absent(path, content):
    """Whatever the copy holds, the answer is a config or None."""
    (path.parent / "kept" / RUNNING_NAME).write_text(content)
    assert load_running_config(path, environ={}) is None
    (path.parent / "kept" / RUNNING_NAME).unlink()
    assert load_running_config(path, environ={}) is None
