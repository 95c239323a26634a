"""The admin's commands, as real processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dropscribe.service import hooks as module
from dropscribe.service.hooks import Hooks, scrub_environment
from support.waiting import until

COPY = "import json, os, sys; json.dump([json.load(sys.stdin), dict(os.environ)], open(sys.argv[1], 'w'))"


def python(code: str, *arguments: object) -> tuple[str, ...]:
    """A hook's command that runs *code*."""
    return (sys.executable, "-c", code, *map(str, arguments))


async def finish(hooks: Hooks) -> list[dict[str, object]]:
    """Wait for all commands; the log lines of it."""
    with capture_logs() as lines:
        await hooks.close(grace_seconds=20)
    return lines


async def test_the_event_is_json_on_standard_input(tmp_path):
    """The command gets one object: which event, and what is known of the file."""
    out = tmp_path / "out.json"
    hooks = Hooks({"done": python(COPY, out)}, 20)
    hooks.notify("done", {"folder": "calls", "file": "a\udcff.wav"})
    assert await finish(hooks) == []
    assert json.loads(out.read_text())[0] == {
        "schema": "dropscribe.event/1",
        "event": "done",
        "folder": "calls",
        "file": "a\udcff.wav",
    }


async def test_no_key_in_the_environment(tmp_path):
    """Neither by name nor by value does a key reach the command; the rest of the environment does."""
    out = tmp_path / "out.json"
    environment = {**os.environ, "MY_API_KEY": "one", "PLAIN": "x two y", "KEEP": "me", "NOTIFY_SOCKET": "/n"}
    hooks = Hooks({"done": python(COPY, out)}, 20, environment, secrets=["two"])
    hooks.notify("done", {})
    assert await finish(hooks) == []
    seen = json.loads(out.read_text())[1]
    assert seen["KEEP"] == "me"
    assert not {"MY_API_KEY", "PLAIN", "NOTIFY_SOCKET"} & seen.keys()


def test_scrubbing_leaves_what_is_harmless():
    """An empty secret takes nothing away; a command needs the way to the network."""
    harmless = {"PATH": "/bin", "PWD": "/", "https_proxy": "http://me:pw@proxy:3128", "SSH_AUTH_SOCK": "/s"}
    harmless |= {
        "XAUTHORITY": "/x",
        "COMPASS": "north",
        "SLACK_WEBHOOK": "https://hooks.example/T0/B0",
    }  # a hook's own, to post to
    assert scrub_environment(harmless, [""]) == harmless


def test_a_word_in_the_place_of_a_key_leaves_the_command_its_path():
    """A server of one's own may want no key, and get any word."""
    system = {"PATH": "/usr/local/bin:/bin", "HOME": "/home/local", "TMPDIR": "/tmp/local"}
    assert scrub_environment({**system, "OPTIONS": "--key local"}, ["local"]) == system


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DROPSCRIBE_DSN", "host=db"),
        ("DATABASE_URL", "postgresql://me:secret@db/jobs"),
        ("PG_CONNINFO", "host=db"),
        ("SETTINGS", "host=db password=secret"),
        ("MYSQL_PWD", "secret"),
        ("SMTP_PASS", "secret"),
        ("GPG_PASSPHRASE", "secret"),
    ],
)
def test_secrets_that_this_config_does_not_use_are_taken_away_too(name, value):
    """The service's environment file may hold those of another config."""
    assert scrub_environment({name: value}, []) == {}


async def test_no_shell(tmp_path):
    """An argument is an argument, whatever stands in it."""
    out = tmp_path / "$(echo x); touch y"
    hooks = Hooks({"done": python(COPY, out)}, 20)
    hooks.notify("done", {})
    await finish(hooks)
    assert [entry.name for entry in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/nonexistent/hook",), "No such file"),
        (("/etc/passwd",), "Permission denied"),
        (("a\0b",), "null byte"),
        (python("raise SystemExit(3)"), "exit 3"),
        (python("import os; os.kill(os.getpid(), 9)"), "exit -9"),
        (python("import sys; sys.stdin.close(); raise SystemExit(1)"), "exit 1"),
    ],
)
async def test_a_failure_is_a_log_line(command, reason):
    """Whatever goes wrong with a command is said once, by its name, and ends there."""
    hooks = Hooks({"failed": command}, 20)
    hooks.notify("failed", {"x": "y" * 200_000})
    (line,) = await finish(hooks)
    assert (line["event"], line["hook"], line["command"]) == ("hook.failed", "failed", command[0])
    assert reason in line["reason"]


SPAWN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".new", "w") as out:
    out.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""


async def test_the_time_limit_kills_the_whole_group(tmp_path):
    """A command that hangs is killed with all that it started."""
    out = tmp_path / "pids"
    hooks = Hooks({"held": python(SPAWN, out)}, 2)
    hooks.notify("held", {})
    (line,) = await finish(hooks)
    assert line["reason"] == "killed after 2 s"
    await until(lambda: not any(is_running(int(pid)) for pid in out.read_text().split()))


def is_running(pid: int) -> bool:
    """Whether *pid* is a process that is not yet dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


async def test_the_output_is_logged(capfd):
    """Each line is an event, also without a newline at its end; nothing goes past the log."""
    code = r"import os; os.write(1, b'one\n\ntw\xff'); os.write(2, b'o\x1b[31m{}\n'); os.write(1, b'three')"
    hooks = Hooks({"done": python(code)}, 20)
    hooks.notify("done", {})
    lines = await finish(hooks)
    assert [(line["event"], line["hook"], line["text"]) for line in lines] == [
        ("hook.output", "done", text) for text in ("one", "tw\ufffdo\x1b[31m{}", "three")
    ]
    assert capfd.readouterr() == ("", "")


async def test_the_output_that_is_logged_is_bounded():
    """A command that writes a lot neither waits for a reader nor fills the log."""
    hooks = Hooks({"done": python("print('x' * 5000); [print(n) for n in range(200_000)]")}, 60)
    hooks.notify("done", {})
    lines = await finish(hooks)
    *logged, last = [line["event"] for line in lines]
    assert logged == ["hook.output"] * module.MOST_LINES
    assert last == "hook.output_dropped"


LEFT = """
import os, sys, time
if os.fork() == 0:
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    print(7)
"""


async def test_a_program_left_behind_may_write_on(tmp_path):
    """The command has ended; what it started goes on, and is heard, until the daemon ends."""
    go = tmp_path / "go"
    hooks = Hooks({"done": python(LEFT, go)}, 20)
    hooks.notify("done", {})
    with capture_logs() as lines:
        await until(lambda: not hooks._running)
        assert lines == []
        go.touch()
        await until(lambda: lines)
    assert [line["text"] for line in lines] == ["7"]
    await finish(hooks)


async def test_programs_left_behind_take_few_open_files(tmp_path, monkeypatch):
    """Each that a command starts and does not end keeps its output open: that of further ones is dropped."""
    monkeypatch.setattr(module, "MOST_OUTPUTS", 1)
    go = tmp_path / "go"
    hooks = Hooks({"done": python(LEFT, go), "failed": python("print(8)")}, 20)
    with capture_logs() as lines:
        for event in hooks.commands:
            hooks.notify(event, {})
            await until(lambda: not hooks._running)
        go.touch()
        await until(lambda: not hooks._outputs)
    assert [line["text"] for line in lines] == ["7"]
    await finish(hooks)


async def test_only_a_few_at_once(tmp_path, monkeypatch):
    """Commands wait for each other, so that a thousand files do not start a thousand processes."""
    monkeypatch.setattr(module, "MOST_AT_ONCE", 1)
    log = tmp_path / "log"
    code = "import sys, time; f = open(sys.argv[1], 'ab', 0); f.write(b'<'); time.sleep(0.05); f.write(b'>')"
    hooks = Hooks({"done": python(code, log)}, 20)
    for _ in range(4):
        hooks.notify("done", {})
    await finish(hooks)
    assert log.read_bytes() == b"<>" * 4


async def test_what_waits_is_bounded(monkeypatch):
    """When commands cannot keep up, events are dropped with a line, and the memory stays."""
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    hooks = Hooks({"done": python("pass")}, 20)
    with capture_logs() as lines:
        for _ in range(3):
            hooks.notify("done", {})
    assert [line["event"] for line in lines] == ["hook.dropped"]
    await finish(hooks)


async def test_close_kills_what_still_runs(tmp_path):
    """The daemon's end does not wait for a hook beyond the grace that it is given."""
    out = tmp_path / "pids"
    hooks = Hooks({"done": python(SPAWN, out)}, 600)
    hooks.notify("done", {})
    await until(out.exists)
    await hooks.close()
    await until(lambda: not any(is_running(int(pid)) for pid in out.read_text().split()))


async def test_an_event_without_command_is_nothing():
    """No hook, no process."""
    hooks = Hooks({}, 20)
    hooks.notify("failed", {})
    assert await finish(hooks) == []
