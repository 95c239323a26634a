"""What `check` finds by looking at the system: programs, files and folders that the config names."""

from __future__ import annotations

import os
import socket as stdlib_socket
import threading

import pytest

from dropscribe.config import system_checks
from dropscribe.config.extras import LIBRARIES
from dropscribe.config.load import parse_config
from dropscribe.config.system_checks import system_problems

_CARRIAGE_RETURNS = "its lines end with carriage returns: remove them (sed -i 's/\\r$//')"


@pytest.fixture(autouse=True)
def _with_local_engine(monkeypatch):
    """The extra counts as installed, so that the answers do not depend on the machine."""
    monkeypatch.setitem(LIBRARIES, "local", ())


def config_of(folder, more=""):
    """A config with everything that can be looked at."""
    text = (
        "providers: {l: {type: local, model: ./model}}\n"
        "folders: {f: {inbox: in, provider: l, template: minutes.j2}}\n"
        "hooks: {on_done: [./done.sh], on_failed: [no-such-program-of-ours], on_held: [sh, -c, exit]}\n"
        "metrics: {file: metrics/dropscribe.prom}\n"
    )
    return parse_config(text + more, folder=folder, environ={})[0]


def test_what_is_missing_is_named(tmp_path):
    """Each with its key; a program that is found by the search path is none of it."""
    (tmp_path / "done.sh").write_text("#!/bin/sh\n")
    found = [
        (problem.path, problem.message, problem.hint) for problem in system_problems(config_of(tmp_path))
    ]
    assert found == [
        ("hooks.on_done", f"'{tmp_path}/done.sh' cannot be run", f"chmod +x {tmp_path}/done.sh"),
        (
            "hooks.on_failed",
            "'no-such-program-of-ours' cannot be run",
            "name a program that is there, with its whole path",
        ),
        ("metrics.file", f"{tmp_path}/metrics is not a folder", "make it, or name another"),
        (
            "providers.l.model",
            f"{tmp_path}/model holds no model.bin",
            "name a directory with a model in CTranslate2's format",
        ),
        ("folders.f.template", f"{tmp_path}/minutes.j2 cannot be read: No such file or directory", ""),
    ]


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"echo hi\n", "its first line must name its interpreter: #!/bin/sh"),
        (b"#!/bin/sh\r\necho hi\r\n", _CARRIAGE_RETURNS),
        (b"#!/usr/bin/env python3\r\nprint()\r\n", _CARRIAGE_RETURNS),
        (b"#! /no/such/interpreter -x\n", "its first line names /no/such/interpreter, which is not there"),
        (b"#!\t/bin/sh -e\n", None),
        (b"\x7fELF\x02\x01\x01\x00", None),
    ],
)
def test_a_script_that_no_kernel_starts_is_named(tmp_path, content, hint):
    """Without a shell a script needs an interpreter that is there."""
    hook = tmp_path / "done.sh"
    hook.write_bytes(content)
    hook.chmod(0o755)
    named = {problem.path: problem.hint for problem in system_problems(config_of(tmp_path))}
    assert named.get("hooks.on_done") == hint


def test_a_hook_that_is_no_file_is_named_at_once(tmp_path):
    """A FIFO may be executable; nobody writes to it."""
    os.mkfifo(tmp_path / "done.sh", 0o755)
    named = {problem.path: problem.hint for problem in system_problems(config_of(tmp_path))}
    assert named["hooks.on_done"] == "name a program that is there, with its whole path"


def test_the_arguments_of_a_hook_are_not_shown(tmp_path):
    """A key may be among them; the program's name is in the message."""
    text = (
        "providers: {p: {type: openai, url: http://localhost/v1}}\n"
        "folders: {f: {inbox: in, provider: p}}\n"
        "hooks: {on_done: [no-such-program, --key, k3y-of-ours], on_held: [no-such-program, k3y-of-ours]}\n"
    )
    config, warnings = parse_config(text, folder=tmp_path, environ={})
    problems = [*system_problems(config), *warnings]
    assert [problem.path for problem in problems if "cannot be run" in problem.message] == [
        "hooks.on_done",
        "hooks.on_held",
    ]
    assert "k3y-of-ours" not in repr(problems)


def test_what_is_there_is_not_named(tmp_path):
    """Nothing is said about a config whose parts are all there."""
    (tmp_path / "done.sh").write_text("#!/bin/sh\n")
    (tmp_path / "done.sh").chmod(0o755)
    for name in ("metrics", "model"):
        (tmp_path / name).mkdir()
    for name in ("model/model.bin", "minutes.j2"):
        (tmp_path / name).touch()
    (problem,) = system_problems(config_of(tmp_path))
    assert problem.path == "hooks.on_failed"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/dev/null", "/dev/null is there and is not a file"),
        ("n" * 300 + "/x", "n" * 300 + " is not a folder"),
    ],
)
def test_a_metrics_file_is_no_device_and_has_a_folder(tmp_path, name, said):
    """A device would be replaced by the file; a name that no disk takes ended ``check`` without a report."""
    text = f"providers: {{l: {{type: local}}}}\nfolders: {{}}\nmetrics: {{file: {name}}}\n"
    config, _ = parse_config(text, folder=tmp_path, environ={})
    (problem,) = system_problems(config)
    assert (problem.path, problem.message.endswith(said)) == ("metrics.file", True)


def test_a_metrics_file_and_a_template_must_be_files(tmp_path):
    """A folder is none, and a FIFO is not waited for."""
    (tmp_path / "metrics/dropscribe.prom").mkdir(parents=True)
    os.mkfifo(tmp_path / "minutes.j2")
    found = {problem.path: problem.message for problem in system_problems(config_of(tmp_path))}
    assert found["metrics.file"] == f"{tmp_path}/metrics/dropscribe.prom is there and is not a file"
    assert found["folders.f.template"] == f"{tmp_path}/minutes.j2 cannot be read: not a regular file"


@pytest.mark.parametrize(
    ("socket", "message"),
    [
        ("nowhere/x.sock", "{}/nowhere is not a folder"),
        ("a" * 108, "the path of the socket is longer than 107 bytes"),
        ("x.sock", None),
        ("minutes.j2", "{}/minutes.j2 is there and is not a socket"),
        ("link", "{}/link is there and is not a socket"),
        (".", "{} is there and is not a socket"),
        ("left.sock", None),
        ("/run/made-by-a-unit/x.sock", None),
    ],
)
def test_a_socket_must_have_a_place(tmp_path, socket, message):
    """The daemon could not start; a folder in /run appears with its unit."""
    (tmp_path / "minutes.j2").touch()
    (tmp_path / "link").symlink_to("left.sock")
    left = stdlib_socket.socket(stdlib_socket.AF_UNIX)
    left.bind(str(tmp_path / "left.sock"))
    left.close()
    config = config_of(tmp_path, f"http: {{listen: 'unix:{socket}'}}\n")
    found = [problem.message for problem in system_problems(config) if problem.path == "http.listen"]
    assert found == ([] if message is None else [message.format(tmp_path)])


@pytest.mark.parametrize(
    ("text", "message", "is_warning"),
    [
        ("ok\n{{ title | nofilter }}", "{}/minutes.j2, line 2: No filter named 'nofilter'.", False),
        ("{{ title is nothing_known }}", "No test named", False),
        ("{{ " + "(" * 3000 + ")" * 3000 + " }}", "{}/minutes.j2 is nested too deeply", False),
        ("{{ source.file }} {{ b }}", "{}/minutes.j2 uses b, source, which no transcript gives it", True),
        ("{{ range(3) | list }} {{ title | clock }} {{ audio | markdown }}", None, False),
        ("{% for p in paragraphs %}{{ p.text }}{% set x = 1 %}{{ x }}{% endfor %}", None, False),
        ("{{ transcript.text }} {{ warnings }}", None, False),
    ],
)
def test_a_template_that_cannot_be_rendered_is_named(tmp_path, text, message, is_warning):
    """A filter or test that Jinja lacks; a name that is not there is a warning, since it may be guarded."""
    (tmp_path / "minutes.j2").write_text(text)
    problems = system_problems(config_of(tmp_path))
    found = [problem for problem in problems if problem.path == "folders.f.template"]
    assert [problem.warning for problem in found] == ([] if message is None else [is_warning])
    if message is not None:
        assert message.format(tmp_path) in found[0].message


def test_a_file_system_that_does_not_answer_is_named(tmp_path, monkeypatch):
    """The look ends after a bounded time."""
    release = threading.Event()
    monkeypatch.setattr(system_checks.shutil, "which", lambda *_, **__: [release.wait(), None][1])
    monkeypatch.setattr(system_checks, "WAIT_SECONDS", 0.1)
    (problem,) = system_problems(config_of(tmp_path))
    release.set()
    assert problem.message == "a file system that the config names does not answer"
