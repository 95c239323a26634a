"""Man pages and completion, as they are made at build time."""

from __future__ import annotations

import importlib.util
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


@needs("zsh")
def test_zsh_completes_the_names_in_the_config(share, named):
    """The same in zsh; compadd, which only a completion has, is replaced."""
    scene, shell = named
    script = (
        f"{shell}compadd() {{ print -l $names }}; _arguments() {{ }}\n"
        f"words=(dropscribe list -c {scene.config} --folder ''); CURRENT=6\n"
        f"source {share}/zsh/site-functions/_dropscribe; _dropscribe_names folders"
    )
    ran = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=False)
    assert (ran.stdout.split(), ran.stderr) == (["calls", "meetings"], "")


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
