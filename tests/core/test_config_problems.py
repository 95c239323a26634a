"""Every problem at once, each with its place; never a secret."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropscribe.config.extras import LIBRARIES
from dropscribe.config.load import load_config, parse_config
from dropscribe.config.model import diff_configs
from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import ConfigError, Problem

GOLDEN = Path(__file__).parent / "golden" / "config"
CANARY = "sk_canary_7f3a9c2"


@pytest.fixture(autouse=True)
def _with_local_engine(monkeypatch):
    """The extra counts as installed, so that the answers do not depend on the machine."""
    monkeypatch.setitem(LIBRARIES, "local", ())


def problems_of(text, environ=None):
    """What is said about *text* as a config."""
    try:
        return parse_config(text, folder=Path("/srv"), environ=environ or {})[1]
    except ConfigError as error:
        return error.problems


def test_a_file_full_of_mistakes_is_answered_whole():
    """One run names all the mistakes of the golden file, in the order of its lines."""
    problems = problems_of((GOLDEN / "bad.yaml").read_text())
    said = "\n".join(map(str, problems)) + "\n"
    assert said == (GOLDEN / "bad.txt").read_text()
    assert sum(not problem.warning for problem in problems) >= 20
    assert "canary" not in said


def test_a_problem_is_worded_with_place_line_and_caret():
    """file:line:column: message, then the line, then a caret with the hint."""
    problem = Problem("unknown key 'b'", "c.yaml", 12, 3, 2, "did you mean 'a'?", "  bb: 1", "x.b")
    assert str(problem) == (
        "c.yaml:12:3: x.b: unknown key 'b'\n    12 |   bb: 1\n       |   ^^ did you mean 'a'?"
    )


@pytest.mark.parametrize("column", [1, 50_001, 100_000])
def test_a_long_line_is_shown_around_its_place(column):
    """A line of any length takes one line of a terminal, with the caret below the place."""
    line = "x" * (column - 1) + "Y" + "x" * (100_000 - column)
    _, shown, caret = str(Problem("m", "c.yaml", 1, column, 100_000, source_line=line)).splitlines()
    assert shown[caret.index("^")] == "Y"
    assert max(len(shown), len(caret)) <= 170


def test_a_warning_says_so():
    """A warning is told from an error in its first line."""
    assert str(Problem("m", "c.yaml", 1, 1, warning=True)) == "c.yaml:1:1: warning: m"


def test_a_problem_without_place_is_worded():
    """What has no line names the file alone, with the remedy below."""
    assert str(Problem("cannot be read", "c.yaml", hint="chmod it")) == (
        "c.yaml: cannot be read\n    chmod it"
    )


def test_a_line_break_in_a_value_is_escaped():
    """One line for each problem, with or without a place."""
    inbox = next(
        each for each in problems_of('folders: {f: {inbox: "in\\nx"}}\n') if "control" in each.message
    )
    assert str(inbox).splitlines()[0].endswith("'in\\nx' has a control character in it")
    assert str(Problem("m\nn", "c\nd.yaml", hint="h\ni")) == "c\\nd.yaml: m\\nn\n    h\\ni"


BASE = "providers: {{p: {{type: pulse, {}}}}}\nfolders: {{f: {{inbox: in, provider: p}}}}\n"
FOLDERS = "folders: {f: {inbox: in, provider: l}}\n"
LEAKS = [
    BASE.format(f"api_key: {CANARY}, tmeout: 1"),
    BASE.format(f"apikey: {CANARY}"),
    BASE.format(f"api-key: {CANARY}"),
    BASE.format(f"api_kye: {CANARY}"),
    BASE.format(f"api_key: [{CANARY}]"),
    BASE.format(f"api_key: {{a: {CANARY}}}"),
    BASE.format(f'api_key: "{CANARY}\\n{CANARY}"'),
    BASE.format(f"api_key: ' {CANARY}'"),
    BASE.format(f"api_key: {CANARY}ü"),
    BASE.format(f"api_key: {CANARY}, api_key_file: x"),
    BASE.format(f"api_key: x, url: 'https://u:{CANARY}@host/'"),
    BASE.format(f"api_key: x, url: 'https://host/a?key={CANARY}&b=1', tpe: 1"),
    BASE.format("timeout: '${KEY}', api_key: '${KEY}'"),
    BASE.format("api_key: x, url: '${KEY}'"),
    BASE.format("api_key: x, timeout: '${KEY}', params: {a: {b: '${KEY}'}}"),
    f"x-k: &k {CANARY}\nproviders: {{p: {{type: pulse, api_key: *k}}}}\nx-k: 2\n",
    f"providers:\n  p:\n    api_key: {CANARY}: x\n",
    f"providers:\n  p:\n    api_key: !{CANARY} x\n",
    f"providers:\n  p:\n    api_key: *{CANARY}\n",
    f'providers:\n  p:\n    api_key: "{CANARY}\n',
    f"providers:\n  p:\n    api_key:\n      {CANARY}: @x\n",
    f"providers:\n  p: {{type: pulse, api_key: {CANARY}\n",
    f"providers:\n  p:\n    type: pulse\n    api_key: |\n      {CANARY}\n      {CANARY}\n",
    f"http: {{listen: '0.0.0.0:1', token: '{CANARY} ', x: 1}}\n",
    f"heartbeat: {{url: 'https://hc/{CANARY}', evry: 5}}\n",
    f"heartbeat: {{url: 'hc/{CANARY}'}}\n",
    f'heartbeat:\n  url: "https://hc/{CANARY}\n',
    f'heartbeat: {{url: "https://hc/{CANARY}\n',
    f'notify:\n  webhook:\n    url: "https://h/{CANARY}\n',
    f'hooks:\n  on_done: [/bin/x, --key, "{CANARY}\n',
    f"providers:\n  api_key: {CANARY}\n",
    f'providers:\n  api_key: "{CANARY}\n',
    f"providers:\n  - {{type: pulse, api_key: {CANARY}}}\n",
    f"providers:\n  - {{type: pulse, api_key: {{a: {CANARY}}}, x: 1}}\n",
    f"providers:\n  p:\n    api_key: [{CANARY},\n",
    f"providers:\n  p:\n    api_key:\n      [{CANARY},\n\n",
    f"providers:\n  - api_key:\n      {CANARY}: @x\n",
    f"providers:\n  - - api_key:\n      - {CANARY}: @x\n",
    f"providers:\n  p:\n    type: pulse\n    api_key: x\n    api_key: {CANARY}\n",
    BASE.format(f"api_key: x, api_key: {CANARY}"),
    BASE.format(f"api_key: {{{CANARY}}}"),
    BASE.format(f"api_key: {{{CANARY}: 1, b: 2}}"),
    f"providers:\n  p:\n    type: pulse\n    api_key:\n      {CANARY}:\n",
    BASE.replace("pulse", "local").format("model: '${KEY}'"),
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_problem_shows_a_secret(text):
    """However a key is miswritten, no problem about it or beside it holds the key."""
    problems = problems_of(text, {"KEY": CANARY})
    assert any(not problem.warning for problem in problems)
    assert CANARY not in "".join(map(str, problems)) + repr(problems)


def test_no_repr_shows_a_secret(tmp_path):
    """Config, secret, difference and warning print without the key; its origin is told."""
    path = tmp_path / "c.yaml"
    path.write_text(
        BASE.format(f"api_key: {CANARY}")
        + f"http: {{token: {CANARY}}}\nheartbeat: {{url: 'http://h/{CANARY}'}}\n"
    )
    path.chmod(0o604)
    config, warnings = load_config(path, environ={})
    other, _ = load_config(path, environ={})
    path.write_text(path.read_text().replace(CANARY, CANARY + "2"))
    changed, _ = load_config(path, environ={})
    secret = config.providers["p"].api_key
    assert secret.reveal() == CANARY
    assert secret.origin == "config"
    assert warnings
    changes = diff_configs(config, changed)
    assert changes == [
        "providers.p changed: api_key",
        "http changed: token",
        "heartbeat changed: url",
    ]
    assert diff_configs(config, other) == []
    said = f"{config!r} {config} {secret!r} {secret} {secret:>20} {warnings!r} {changes!r}"
    assert CANARY not in said + "".join(map(str, warnings))


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_cannot_be_taken_along(take):
    """Pickling and copying refuse a secret."""
    with pytest.raises(TypeError):
        take(Secret(CANARY, "config"))


def test_a_misspelt_key_is_guessed():
    """An unknown key names the nearest known one; a request parameter is sent to params."""
    text = "providers: {l: {type: local, modle: tiny.en, diarise: true}}\n" + FOLDERS
    assert [problem.hint for problem in problems_of(text)] == [
        "did you mean 'model'?",
        "did you mean 'diarize'? That goes into params",
    ]
    text = "providers: {o: {type: openai, api_key: k, model: whisper-1}}\n" + FOLDERS.replace("l}", "o}")
    assert problems_of(text)[0].hint == "that goes into params: {model: …}"


def test_a_mistake_hides_no_other():
    """A provider with a mistake of its own still counts as there; the rest is checked as if it were whole."""
    text = "providers: {l: {type: local, concurrency: x}}\n" + FOLDERS.replace(
        "}}", "}, g: {inbox: in, provider: l}}"
    )
    said = [(problem.path, problem.message) for problem in problems_of(text) if not problem.warning]
    assert said == [
        ("providers.l.concurrency", "'x' is not a number from 0 up"),
        ("folders.g.inbox", "is the inbox of 'f' too"),
    ]


def test_a_refused_wait_is_compared_with_no_other():
    """A wait that is refused is one problem, and not also longer than the longest one."""
    for section in ("retry: {first: 0, max: 1s}", "hold: {first: 2h, max: x}"):
        errors = [problem.path for problem in problems_of(section) if "wait" in problem.message]
        assert errors == []


TOKENS = [
    "null",
    "[]",
    "{}",
    "12",
    "-",
    "x",
    '"',
    "{",
    "[",
    ":",
    "\n",
    "\t",
    "*a",
    "&a ",
    "!t ",
    "${",
    "1e999",
    "type",
    "|\n",
]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(TOKENS), st.integers(0, 12)), max_size=5))
def test_a_damaged_file_is_a_config_error_with_places(damages):
    """However a file is damaged, the answer is a config or problems inside the file."""
    text = (GOLDEN / "bad.yaml").read_text()
    for where, token, length in damages:
        start = int(where * len(text))
        text = text[:start] + token + text[start + length :]
    for problem in problems_of(text):
        assert 1 <= problem.line <= text.count("\n") + 1
