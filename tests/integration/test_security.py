"""A hostile inbox, provider or file name does no harm; secrets stay secret (SECURITY.md)."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from dropscribe.config.load import load_config
from dropscribe.core.errors import AudioRejected, ConfigError
from support.daemon_process import COMMAND, Installation
from support.emulator import Emulator, Fault
from support.faults import run_as_nobody, tmpfs
from support.house import House, make_config, read_json, tree
from support.inboxes import wav
from support.scripted import ScriptedProvider
from support.whole import Whole

CANARY = "sk-canary+0123456789/abcdef=XYZ"


# What stands in an inbox ---------------------------------------------------------------------------


def _make_strange(inbox, outside):
    (outside / "secret.wav").write_bytes(wav(777))
    (inbox / "link.wav").symlink_to(outside / "secret.wav")
    (inbox / "dangling.wav").symlink_to(outside / "nothing.wav")
    (inbox / "folder").symlink_to(outside)
    os.mkfifo(inbox / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(inbox / "socket.wav"))
    if os.geteuid() == 0:
        os.mknod(inbox / "device.wav", stat.S_IFCHR | 0o666, os.makedev(1, 3))


async def test_nothing_but_regular_files_is_taken(tmp_path, monkeypatch):
    """Symlinks to files and folders, pipes, sockets and devices stay where they are, unread."""
    config = make_config(tmp_path)
    (tmp_path / "outside").mkdir()
    _make_strange(tmp_path / "inbox", tmp_path / "outside")
    before = sorted(os.listdir(tmp_path / "inbox"))
    async with Whole(monkeypatch, config) as whole:
        await whole.until_back()
        (tmp_path / "inbox/last.wav").write_bytes(wav())
        await whole.until((tmp_path / "done/last.wav").exists)
    assert whole.providers["main"].calls == [b"last.wav"]
    assert sorted(os.listdir(tmp_path / "inbox")) == before
    assert (tmp_path / "outside/secret.wav").read_bytes() == wav(777)


SWAPS = {
    "file": lambda inbox, outside: (
        (inbox / "sub/call.wav").unlink(),
        (inbox / "sub/call.wav").symlink_to(outside / "call.wav"),
    ),
    "folder": lambda inbox, outside: (
        os.rename(inbox / "sub", inbox / ".sub"),
        (inbox / "sub").symlink_to(outside),
    ),
    "pipe": lambda inbox, _: ((inbox / "sub/call.wav").unlink(), os.mkfifo(inbox / "sub/call.wav")),
}


@pytest.mark.parametrize("moment", ["queued", "answered"])
@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
async def test_what_is_swapped_in_after_the_check_leads_nowhere(tmp_path, swap, moment):
    """A symlink or pipe put in place of a settled file, or of its folder: neither sent, moved nor removed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "call.wav").write_bytes(b"somebody else's")
    heard = []

    async def listen(audio):
        heard.append(b"".join([block async for block in audio.blocks()]))
        if moment == "answered":
            swap(tmp_path / "inbox", outside)

    async with House(make_config(tmp_path), {"main": ScriptedProvider([listen])}) as house:
        path = tmp_path / "inbox/sub/call.wav"
        path.parent.mkdir()
        path.write_bytes(b"ours")
        if moment == "queued":
            swap(tmp_path / "inbox", outside)  # the settled snapshot is the swapped file's own: worse yet
        await house.submit("sub/call.wav")
        if moment == "queued":
            await house.rest()
        else:
            await house.until(lambda: house.lookout.looked)

    assert (outside / "call.wav").read_bytes() == b"somebody else's"
    assert tree(tmp_path / "done") == set()
    assert b"somebody else's" not in heard


async def test_a_hard_link_is_a_file_of_the_inbox(tmp_path):
    """As documented: it is read and moved; the other name keeps the same content, mode and owner."""
    (tmp_path / "other.wav").write_bytes(b"two names")
    (tmp_path / "other.wav").chmod(0o600)
    async with House(make_config(tmp_path)) as house:
        os.link(tmp_path / "other.wav", tmp_path / "inbox/call.wav")
        await house.submit("call.wav")
        await house.rest()

    assert (tmp_path / "other.wav").read_bytes() == b"two names"
    assert (tmp_path / "other.wav").stat().st_ino == (tmp_path / "done/call.wav").stat().st_ino
    assert stat.S_IMODE((tmp_path / "done/call.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o4755, 0o6777])
async def test_a_sidecar_never_becomes_executable(tmp_path, mode):
    """Neither executable nor set-user-ID, whatever the audio's mode is."""
    async with House(make_config(tmp_path)) as house:
        path = tmp_path / "inbox/call.wav"
        path.write_bytes(b"#!/bin/sh")
        path.chmod(mode)
        await house.submit("call.wav")
        await house.rest()

    for name in ("call.json", "call.txt"):
        assert (tmp_path / "done" / name).stat().st_mode & 0o7111 == 0


def test_a_copied_audio_does_not_become_a_program_that_runs_as_us(tmp_path):
    """Copied by a user who may not give files away, a set-user-ID file loses that bit."""
    with tmpfs(tmp_path / "done"):
        (tmp_path / "inbox").mkdir()
        for name in ("inbox", "done"):
            os.chown(tmp_path / name, 65534, 65534)
        path = tmp_path / "inbox/call.wav"
        path.write_bytes(b"\x7fELF")
        os.chown(path, 1234, 1234)
        path.chmod(0o4755)
        assert run_as_nobody(tmp_path, lambda: _file_what_is_there(tmp_path)) == 0
        moved = (tmp_path / "done/call.wav").stat()
        assert (moved.st_uid, stat.S_IMODE(moved.st_mode)) == (65534, 0o755)


async def _file_what_is_there(root):
    async with House(make_config(root)) as house:
        await house.submit("call.wav")
        await house.rest()


@pytest.mark.parametrize(
    ("inbox", "done"), [("in", "in"), ("in", "in/done"), ("in/../in", "in/done"), ("link", "in/done")]
)
def test_a_done_inside_an_inbox_is_refused(tmp_path, inbox, done):
    """Also through a symlink or a detour: what was filed would be found again for ever."""
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    path = tmp_path / "dropscribe.yaml"
    path.write_text(
        "providers: {main: {type: openai, url: 'http://127.0.0.1:9/v1'}}\n"
        f"folders: {{calls: {{inbox: {inbox}, done: {done}, provider: main}}}}\n"
    )
    with pytest.raises(ConfigError):
        load_config(path, environ={})


async def test_the_state_directory_is_nobody_elses(tmp_path):
    """It and every file in it can be read by its user alone, whatever the umask."""
    old = os.umask(0)
    try:
        async with House(make_config(tmp_path)) as house:
            await house.drop("call.wav")
            await house.rest()
            modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "state").iterdir()}
    finally:
        os.umask(old)

    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert set(modes) >= {"queue.db", "queue.db-wal", "lock"}
    assert not any(modes.values())


# The key, through the whole process ----------------------------------------------------------------

ECHOES = [
    Fault(status=401, body={"error": f"the key {CANARY} is wrong", "key": CANARY}),
    Fault(status=401, body=f"<html>Authorization: Bearer {CANARY}</html>"),
    Fault(status=403, body={"detail": [{"msg": f"no access for {CANARY}", "input": quote(CANARY, safe="")}]}),
    Fault(status=307, body="", headers={"Location": "http://127.0.0.1:9/elsewhere?key=" + quote(CANARY)}),
    Fault(status=302, body=CANARY, headers={"Location": "/_requests"}),
    Fault(status=400, body={"error": {"message": f"bad file for {CANARY}", "code": "bad_audio"}}),
    Fault(status=500, body=f"trace: api_key={CANARY!r}"),
    Fault(status=429, body={"message": CANARY}, headers={"Retry-After": "0"}),
]


def _greppable(key):
    return [key.encode(), quote(key, safe="").encode(), json.dumps(key)[1:-1].encode()]


@pytest.fixture
def canary_house(tmp_path):
    """A process with a canary key in a file, whose provider says the key in every way it can."""
    (tmp_path / "key").write_text(CANARY + "\n")
    (tmp_path / "key").chmod(0o600)
    with Emulator(key=CANARY) as emulator:
        emulator.fail(*ECHOES)
        house = Installation(
            tmp_path / "house",
            emulator.url,
            provider={"api_key": None, "api_key_file": str(tmp_path / "key"), "concurrency": 1},
            extra={"hold": {"first": "50ms", "max": "50ms"}, "metrics": {"file": "metrics.prom"}},
        )
        config = house.config()
        del config["providers"]["pulse"]["api_key"]
        house.write_config(json.dumps(config))
        yield house, emulator


@pytest.mark.slow
def test_the_key_is_nowhere_but_in_its_file(canary_house):
    """Not in logs, sidecars, errors, status, why, metrics, the queue, live.json or the process's arguments,
    though 401 bodies, redirects and error pages say it; and no server but the provider's sees it.
    """
    house, emulator = canary_house
    for number in range(4):
        house.drop(f"{number}.wav", wav(100 + number))
    told = []
    with house.start_ready() as process:
        pid = process._process.pid
        process.until_logged("provider.held")
        told += [_said(house, command) for command in (["status"], ["status", "--json"], ["why", "0.wav"])]
        told += [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        assert "\nMax core file size        0" in Path(f"/proc/{pid}/limits").read_text()
        process.until(lambda: len(emulator.requests) >= len(ECHOES) + 3, "all the echoes")
        process.until(lambda: not any(house.inbox.glob("*.wav")), "the end of every file")
        told.append(_said(house, ["status", "--json"]))
        assert process.stop() == 0
    told += [_said(house, ["check"]), _said(house, ["plan"]), _said(house, ["why", "0.wav"])]
    files = {path: path.read_bytes() for path in house.root.rglob("*") if path.is_file()}
    assert {path.name for path in files} >= {"queue.db", "live.json", "run-1.log", "metrics.prom"}
    for needle in _greppable(CANARY):
        assert [path.name for path, content in files.items() if needle in content] == []
        assert not any(needle in text for text in told)
    assert all(request.path.startswith("/waves/") for request in emulator.requests)
    for path in (house.root / "state").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


def _said(house, command):
    done = subprocess.run(
        [*COMMAND, *command, "-c", str(house.config_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=house.inbox,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_config_prints_without_its_key(tmp_path):
    """Neither repr nor str of the config, nor of a copy of it, nor an error about it, says the key."""
    path = tmp_path / "dropscribe.yaml"
    path.write_text(
        f"providers: {{main: {{type: openai, url: 'http://127.0.0.1:9/v1', api_key: '{CANARY}'}}}}\n"
        "folders: {calls: {inbox: in, provider: main}}\n"
    )
    path.chmod(0o600)
    config, warnings = load_config(path, environ={})
    assert config.providers["main"].api_key.reveal() == CANARY
    shown = f"{config!r} {config} {replace(config)!r} {config.providers['main'].api_key} {warnings}"
    assert CANARY not in shown


ESCAPES = "\x1b[2J\x1b]0;owned\x07 line one\nline two\r\u202e \x9b31m"


@pytest.mark.slow
async def test_what_a_provider_says_cannot_repaint_a_terminal(tmp_path):
    """Escapes, newlines and direction marks in its reason and in names are shown as text by every command."""
    root = tmp_path / "house"
    house = Installation(root, "http://127.0.0.1:9")
    name = "bad\x1b[31m\n.wav"
    config = make_config(root)
    script = ScriptedProvider([AudioRejected("bad\x1b[5m", ESCAPES, status=415)])
    async with House(config, {"main": script}) as inside:
        await inside.drop(name, wav())
        await inside.rest()
    told = [
        _said(house, command)
        for command in (["status"], ["plan"], ["why", name], ["retry", "--all"], ["status", "--json"])
    ]
    for text in told:
        for raw in (b"\x1b", b"\x07", b"\r", "\u202e".encode(), "\x9b".encode()):
            assert raw not in text
    assert any(b"line one" in text for text in told)


@pytest.mark.slow
def test_what_a_provider_says_cannot_forge_a_log_line(tmp_path):
    """In every format of the log one event is one line, and nothing in it moves the cursor."""
    with Emulator() as emulator:
        for form in ("console", "logfmt", "json"):
            emulator.fail(Fault(status=415, body={"error": ESCAPES, "message": ESCAPES}))
            house = Installation(tmp_path / form, emulator.url, extra={"log": {"format": form}})
            house.drop("evil\x1b[31m\nname.wav", wav())
            assert house.run_once() == 3
            log = (house.root / "run-1.log").read_bytes()
            for raw in (b"\x1b", b"\x07", b"\r", "\u202e".encode(), "\x9b".encode()):
                assert raw not in log.replace(b"\x1b[0m", b"") or form == "console"
            assert b"\nline two" not in log
            assert b"\nname.wav" not in log
            error = next(house.failed.glob("*.error.json"))
            assert read_json(error)["code"]


def test_an_owner_that_the_sandbox_hides_is_not_named(tmp_path):
    """With PrivateUsers=yes every other owner looks like `nobody`, who has nothing to do with the file."""
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs root")
    (tmp_path / "call.wav").touch()
    os.chown(tmp_path / "call.wav", 12345, 12345)
    code = "import sys; from dropscribe.files.audio import describe_forbidden\n"
    code += "print(describe_forbidden(sys.argv[1].encode(), b'call.wav'))"
    program = [sys.executable, "-c", code, str(tmp_path)]
    assert "owner 12345, " in subprocess.run(program, capture_output=True, text=True, check=True).stdout
    hidden = subprocess.run(["unshare", "-U", "-r", *program], capture_output=True, text=True, check=False)
    if hidden.returncode != 0 and "unshare" in hidden.stderr:
        pytest.skip(f"no user namespace here: {hidden.stderr.strip()}")
    assert "owner not visible to the service (PrivateUsers=yes), " in hidden.stdout
