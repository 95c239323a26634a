"""Man pages and completion, as they are made at build time."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dropscribe import __version__
from dropscribe.cli.main import COMMANDS
from dropscribe.config.keys import keys_of
from dropscribe.config.model import FolderRule
from support.scene import CONFIG, Scene

SCRIPT = Path(__file__).parents[2] / "packaging" / "make_docs.py"


def needs(tool: str) -> pytest.MarkDecorator:
    """Skips where *tool* is not installed."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    """The share folder that the build makes."""
    spec = importlib.util.spec_from_file_location("make_docs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_docs"] = module
    spec.loader.exec_module(module)
    share = tmp_path_factory.mktemp("share")
    module.main([str(share)])
    yield share
    del sys.modules["make_docs"]


def test_every_command_and_its_options_are_in_the_man_page(share):
    """The parser is the one source."""
    page = (share / "man/man1/dropscribe.1").read_text()
    assert [name for name in COMMANDS if f".B {name}" not in page] == []
    assert "\\-\\-online" in page
    assert "75" in page


def test_only_what_may_be_left_out_is_in_brackets(share):
    """An option that must be given has none."""
    page = (share / "man/man1/dropscribe.1").read_text()
    assert ".B release [\\-\\-config CONFIG] \\-\\-folder NAME\n" in page
    assert ".B why [\\-\\-config CONFIG] [\\-\\-json] FILE\n" in page


def test_every_key_is_in_the_configs_man_page(share):
    """The keys are the one source."""
    page = (share / "man/man5/dropscribe.yaml.5").read_text()
    assert [name for name in keys_of(FolderRule) if f".B {name}\n" not in page] == []
    assert "|" not in page.replace("||", "")
    assert "](" not in page


@needs("groff")
@pytest.mark.parametrize("page", ["man/man1/dropscribe.1", "man/man5/dropscribe.yaml.5"])
def test_groff_has_nothing_to_say(share, page):
    """No unknown request, no stray escape."""
    call = ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-z", str(share / page)]
    ran = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@needs("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dropscribe", "st"], "status"),
        (["dropscribe", "check", "--on"], "--online"),
        (["dropscribe", "transcribe", "--format", "v"], "vtt"),
    ],
)
def test_bash_completes(share, words, expected):
    """In a bash without anything of bash-completion."""
    script = (
        f"compopt() {{ :; }}; source {share}/bash-completion/completions/dropscribe\n"
        f'COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _dropscribe; echo "${{COMPREPLY[@]}}"'
    )
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == (expected, "")


@pytest.fixture
def named(tmp_path):
    """A config with two rules and a provider, and the command that a shell finds."""
    scene = Scene(tmp_path, CONFIG + "  meetings:\n    inbox: meetings\n    provider: main\n")
    return scene, f'dropscribe() {{ {shlex.quote(sys.executable)} -m dropscribe "$@"; }}\n'


@needs("bash")
@pytest.mark.parametrize(
    ("command", "flag", "expected"),
    [("list", "--folder", "calls meetings"), ("transcribe", "--provider", "main")],
)
def test_bash_completes_the_names_in_the_config(share, named, command, flag, expected):
    """Folders and providers, of the config that the line names."""
    scene, shell = named
    script = (
        f"{shell}compopt() {{ :; }}; source {share}/bash-completion/completions/dropscribe\n"
        f"COMP_WORDS=(dropscribe {command} -c {scene.config} {flag} ''); COMP_CWORD=5; _dropscribe\n"
        'echo "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == (expected, "")


ZSH_AT_A_TERMINAL = r"""
zmodload zsh/zpty
zpty zsh zsh -f -i
zpty -w zsh "PS1='' LISTMAX=1000 COLUMNS=120 fpath=($SHARE/zsh/site-functions \$fpath)"
zpty -w zsh "$SHELL_LINES autoload -U compinit; compinit -u -D; bindkey '^I' list-choices; echo is''ready"
zpty -r zsh heard '*isready*'
zpty -w -n zsh "$TYPED"$'\t'
zpty -r zsh heard "$EXPECTED"
"""


@needs("zsh")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("list -c {config} --folder ", "calls meetings"),
        ("forget {config.parent}/", "dropscribe.yaml"),
        ("why {config.parent}/", "dropscribe.yaml"),
        ("transcribe --format ", "json md srt txt vtt"),
        ("-", "--help --version"),
    ],
)
def test_zsh_completes_at_a_terminal(share, named, typed, expected):
    """Names of the config, files, values and options, by zsh's own completion."""
    scene, shell = named
    words = {
        "SHARE": str(share),
        "SHELL_LINES": shell.strip().removesuffix(";") + ";",
        "TYPED": "dropscribe " + typed.format(config=scene.config),
        "EXPECTED": f"*{'*'.join(expected.split())}*",
    }
    call = ["zsh", "-f", "-c", ZSH_AT_A_TERMINAL]
    ran = subprocess.run(call, env=os.environ | words, capture_output=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr


@needs("zsh")
def test_zsh_keeps_apostrophes(share):
    """The words of the help stand in single quotes."""
    script = f"source {share}/zsh/site-functions/_dropscribe"
    stub = "_describe() { print -l $commands }; words=(dropscribe ''); CURRENT=2\n"
    ran = subprocess.run(["zsh", "-f", "-c", stub + script], capture_output=True, text=True, check=False)
    assert "the config's JSON Schema" in ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("changelog", "day"),
    [
        (f"## [Unreleased]\n\n## [{__version__}] - 2026-12-24\n", "2026-12-24"),
        ("## [Unreleased]\n", "unreleased"),
    ],
)
def test_the_man_page_has_the_day_of_the_release(share, monkeypatch, changelog, day):
    """Not the day of the build: the same source makes the same page."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert sys.modules["make_docs"].release_day(changelog) == day


@needs("zsh")
def test_zsh_takes_the_completion(share):
    """It is a function that zsh can parse."""
    ran = subprocess.run(["zsh", "-n", str(share / "zsh/site-functions/_dropscribe")], check=False)
    assert ran.returncode == 0
