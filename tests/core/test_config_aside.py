"""The config read in a process of its own: the same config, and nothing of the reading left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dropscribe.config.aside import ReadAside
from dropscribe.config.load import load_config
from dropscribe.core.errors import ConfigError

GOOD = """
providers: {p: {type: pulse, api_key: "${ASIDE_KEY}", budget: {per_day: 5.00}, price_per_minute: 0.01}}
folders: {f: {inbox: in, provider: [p], params: {p: {language: de}}}}
time_zone: Europe/Berlin
http: {listen: "127.0.0.1:0", token: t0ken}
notify: {webhook: {url: "https://example.com/", secret: s3cret}}
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIDE_KEY", "sk_aside")

    def write(text):
        path = tmp_path / "dropscribe.yaml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def test_it_is_the_same_config(written):
    """Read aside, a config equals the one read here, its secrets and where they came from among it."""
    path = written(GOOD)
    config, warnings = ReadAside(path).result()
    assert (config, warnings) == load_config(path)
    key = config.providers["p"].api_key
    assert (key.reveal(), key.origin) == ("sk_aside", load_config(path)[0].providers["p"].api_key.origin)


def test_it_is_refused_in_the_same_words(written):
    """Every problem of a bad config arrives, with its place."""
    path = written("providers: {p: {type: puls}}\nfolders: {f: {inbx: in}}\n")
    with pytest.raises(ConfigError) as here:
        load_config(path)
    with pytest.raises(ConfigError) as aside:
        ReadAside(path).result()
    assert aside.value.problems == here.value.problems


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false"])
def test_without_a_second_process_it_is_read_here(written, monkeypatch, program):
    """Where no process can be had, or it dies, the config is read all the same."""
    path = written(GOOD)
    monkeypatch.setattr(sys, "executable", program)
    assert ReadAside(path).result() == load_config(path)


def test_a_daemon_imports_nothing_of_the_reading():
    """What only reads a config never comes into the process that stays."""
    imports = "import sys, dropscribe.cli.run, dropscribe.app.foreground"
    program = f"{imports}; print(sorted({{'pydantic', 'yaml'}} & {{*sys.modules}}))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
