"""``status``, ``why`` and ``list`` report from the config that the daemon runs on."""

from __future__ import annotations

import json
import os
import pty
import pwd
import subprocess
import sys
import time
from argparse import Namespace

import pytest

from dropscribe.cli.main import main
from dropscribe.cli.options import read_config
from dropscribe.config.load import load_config
from dropscribe.config.running import store_running_config
from dropscribe.queue.embedded.store import Store
from support.scene import CONFIG, Scene, add_job, json_of

BROKEN = "state_dir: state\nfolders: ["


@pytest.fixture
def scene(tmp_path):
    """A daemon has run on the config and kept it."""
    scene = Scene(tmp_path)
    with scene.queue():
        store_running_config(load_config(scene.config, keys_needed=False)[0])
    return scene


@pytest.mark.parametrize("command", ["status", "list", "why"])
def test_a_broken_file_blinds_no_report(scene, capsys, command):
    """The last config that a daemon ran on is used, and standard error says so."""
    file = scene.drop("a.wav")
    scene.config.write_text(BROKEN)
    code = scene.run(command, *([file] if command == "why" else []))
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "calls" in said.out
    assert "cannot be used as it is now" in said.err
    assert "last ran on" in said.err


def test_a_file_that_is_gone_blinds_no_report(scene, capsys, monkeypatch):
    """The file was deleted: what it said last is known, where its state directory is the default one."""
    scene.config.unlink()
    monkeypatch.setenv("STATE_DIRECTORY", str(scene.root / "state"))
    assert scene.run("status") == 0
    assert "calls" in capsys.readouterr().out


def test_a_file_that_lost_its_state_dir_blinds_no_report(scene, capsys):
    """An empty file: the state directory is where init puts it."""
    scene.config.write_text("")
    assert scene.run("status") == 0
    assert "calls" in capsys.readouterr().out


@pytest.mark.parametrize(
    "spelling", ["../dropscribe.yaml", "{}/in/../dropscribe.yaml", "{}-link/dropscribe.yaml"]
)
@pytest.mark.parametrize("is_named_by", ["-c", "$DROPSCRIBE_CONFIG"])
def test_a_broken_file_is_known_under_each_of_its_names(scene, capsys, monkeypatch, spelling, is_named_by):
    """By way of the folder above, and through a link to its folder."""
    (scene.root / "in").mkdir()
    scene.root.with_name(f"{scene.root.name}-link").symlink_to(scene.root)
    monkeypatch.chdir(scene.root / "in")
    scene.config.write_text(BROKEN)
    name = spelling.format(scene.root)
    monkeypatch.setenv("DROPSCRIBE_CONFIG", name)
    assert main(["status", *(["-c", name] if is_named_by == "-c" else [])]) == 0
    assert "calls" in capsys.readouterr().out


def test_files_are_known_through_a_link_to_the_configs_folder(tmp_path, capsys):
    """The daemon has read the config through a link, a command reads it without: both mean the same files."""
    link = tmp_path / "link"
    (tmp_path / "real").mkdir()
    link.symlink_to(tmp_path / "real")
    scene = Scene(tmp_path / "real")
    files = {state: scene.drop(f"{state}.wav", part=state) for state in ("done", "failed")}
    words = [{"word": "hello", "start": 0.0, "end": 1.0}]
    document = {"schema": "dropscribe.transcript/1", "text": "hello", "segments": [], "words": words}
    files["done"].with_suffix(".json").write_text(json.dumps(document))
    with scene.queue() as store:
        store_running_config(load_config(link / "dropscribe.yaml", keys_needed=False)[0])
        for state in files:
            filed = os.fsencode(link / state / f"{state}.wav")
            add_job(store, scene, f"{state}.wav", state=state, ended_at=time.time() - 60, filed=filed)
    assert json_of(scene, capsys, "why", files["done"])["state"] == "done"
    assert len(json_of(scene, capsys, "search", "hello")["files"]) == 1
    assert scene.run("retry", files["failed"]) == 0
    capsys.readouterr()
    assert json_of(scene, capsys, "list", "--failed")["files"] == []


def test_files_of_a_daemon_that_read_the_config_through_a_link_are_known_later(tmp_path, capsys):
    """The next daemon reads it without the link."""
    link = tmp_path / "link"
    (tmp_path / "real").mkdir()
    link.symlink_to(tmp_path / "real")
    scene = Scene(tmp_path / "real")
    with scene.queue() as store:
        for state in ("done", "failed"):
            filed = os.fsencode(link / state / f"{state}.wav")
            add_job(store, scene, f"{state}.wav", state=state, ended_at=time.time() - 60, filed=filed)
    for state in ("done", "failed"):
        explanation = json_of(scene, capsys, "why", scene.drop(f"{state}.wav", part=state))
        assert (explanation["state"], explanation["ended_at"] is None) == (state, False)
        scene.drop("other.wav", part=state)
        assert json_of(scene, capsys, "why", scene.root / state / "other.wav")["state"] == "unknown"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
@pytest.mark.parametrize("is_own", [True, False])
def test_root_reads_the_config_through_no_link_of_another_user(tmp_path, is_own):
    """The daemon's user has written the path, and could lead the link elsewhere before the file is read."""
    link = tmp_path / "link"
    (tmp_path / "real").mkdir()
    link.symlink_to(tmp_path / "real")
    scene = Scene(tmp_path / "real")
    with scene.queue():
        store_running_config(load_config(link / "dropscribe.yaml", keys_needed=False)[0])
    if not is_own:
        os.lchown(link, 65534, -1)
    config = read_config(Namespace(config=str(scene.config)))
    assert config.path == (link / "dropscribe.yaml" if is_own else scene.config)


@pytest.mark.parametrize("text", ["", "foo: [", None, CONFIG.replace("state_dir: state", "state_dir: other")])
@pytest.mark.parametrize("command", ["status", "list", "why"])
def test_a_running_daemon_is_found_without_its_state_dir_in_the_file(tmp_path, capsys, text, command):
    """The file is empty, broken, gone, or names another directory: the daemon's pointer leads to it."""
    scene = Scene(tmp_path, CONFIG.replace("state_dir: state", "state_dir: elsewhere/queue"))
    file = scene.drop("a.wav")
    (tmp_path / "elsewhere").mkdir()
    config = load_config(scene.config, keys_needed=False)[0]
    store = Store(config.state_dir)
    try:
        store_running_config(config)
        scene.config.unlink() if text is None else scene.config.write_text(text)
        code = scene.run(command, *([file] if command == "why" else []))
        said = capsys.readouterr()
        assert code == 0, said.err
        assert "calls" in said.out
        assert "dropscribe runs on" in said.err
    finally:
        store.close()


def test_the_users_config_is_gone_and_its_daemon_is_found(tmp_path, capsys, monkeypatch):
    """No -c: the daemon runs on the file in the user's usual place."""
    folder = tmp_path / "dropscribe"
    folder.mkdir()
    scene = Scene(folder)
    scene.config = scene.config.rename(folder / "config.yaml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with scene.queue():
        store_running_config(load_config(scene.config, keys_needed=False)[0])
        scene.config.unlink()
        assert main(["status"]) == 0
    assert "dropscribe runs on" in capsys.readouterr().err


def test_a_pointer_that_is_left_over_leads_nowhere(scene, capsys):
    """The daemon was killed, and the file has named another directory since."""
    scene.config.write_text(CONFIG.replace("state_dir: state", "state_dir: other"))
    assert scene.run("status") == 0
    assert "dropscribe is not running" in capsys.readouterr().out


def test_an_edited_file_counts_once_the_daemon_has_read_it(scene, capsys):
    """A rule that the running daemon has not read yet is not in its status."""
    more = "  later:\n    inbox: later\n    provider: main\n"
    scene.config.write_text(CONFIG + more)
    with scene.queue():
        scene.run("status", "--json")
        said = capsys.readouterr()
        assert list(json.loads(said.out)["folders"]) == ["calls"]
        assert "was edited since" in said.err
    scene.run("status", "--json")
    said = capsys.readouterr()
    assert list(json.loads(said.out)["folders"]) == ["calls", "later"]
    assert said.err == ""


def test_an_unchanged_file_is_told_nothing_of(scene, capsys):
    """The usual case: no note."""
    with scene.queue():
        assert scene.run("status") == 0
    assert capsys.readouterr().err == ""


def test_a_broken_file_without_a_daemons_copy_is_an_error(tmp_path, capsys):
    """78, with the file's own problem."""
    scene = Scene(tmp_path)
    scene.config.write_text(BROKEN)
    assert scene.run("status") == 78
    assert "dropscribe.yaml:2" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize(
    ("command", "arguments"),
    [("retry", ["--all"]), ("release", ["--folder", "calls"]), ("forget", ["0" * 64])],
)
def test_root_acts_with_the_rights_of_the_state_directorys_owner(scene, command, arguments):
    """What it writes stays the daemon's, and no dropper leads it to root's files."""
    nobody = pwd.getpwnam("nobody")
    subprocess.run(["chown", "-R", f"{nobody.pw_uid}:{nobody.pw_gid}", str(scene.root / "state")], check=True)
    program = (
        "import os, sys\nfrom dropscribe.cli.main import main\n"
        "code = main(sys.argv[1:])\nprint(os.geteuid(), os.getgroups())"
    )
    call = [sys.executable, "-c", program, command, "-c", str(scene.config), *arguments]
    ran = subprocess.run(call, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines()[-1].startswith(f"{nobody.pw_uid} "), ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("retry", "--all"), ("release", "--folder", "calls"), ("forget", "0" * 64), ("run", "--once")],
)
def test_a_command_that_acts_names_its_config_on_a_terminal(scene, arguments):
    """Of several possible files, the person sees which one was taken; a script sees nothing of it."""
    command, *rest = arguments
    call = [sys.executable, "-m", "dropscribe", command, "-c", str(scene.config), *rest]
    ours, theirs = pty.openpty()
    try:
        subprocess.run(call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, check=False)
        os.close(theirs)
        assert str(scene.config) in os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
    ran = subprocess.run(call, capture_output=True, text=True, check=False)
    assert f"config: {scene.config}" not in ran.stderr
