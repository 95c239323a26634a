"""The daemon keeps the config that it runs on."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from dropscribe.config.running import load_running_config, pointed_state_dirs


def test_a_daemon_keeps_the_config_it_runs_on(tmp_path):
    """After a run its config can be had although the file was broken since; a reload is kept likewise."""
    path = tmp_path / "dropscribe.yaml"
    path.write_text(
        "state_dir: state\n"
        "providers: {p: {type: openai, url: 'http://127.0.0.1:9/v1'}}\n"
        "folders: {calls: {inbox: inbox, provider: p, exclude: '${SKIPPED}'}}\n"
    )
    (tmp_path / "inbox").mkdir()
    program = [sys.executable, "-m", "dropscribe", "run", "--once", "-c", str(path)]
    ran = subprocess.run(
        program, env=os.environ | {"SKIPPED": "draft-*"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    path.write_text("state_dir: state\nfolders: [")

    running = load_running_config(path, environ={})

    assert running is not None
    assert running.folders["calls"].inbox == tmp_path / "inbox"
    assert running.folders["calls"].exclude == ("draft-*",)


def test_a_daemon_points_to_its_state_directory_while_it_runs(tmp_path, monkeypatch):
    """Empty the file, and the pointer leads to its queue; at the daemon's end it is removed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    path, state = tmp_path / "dropscribe.yaml", tmp_path / "elsewhere/queue"
    path.write_text(
        "state_dir: elsewhere/queue\n"
        "providers: {p: {type: openai, url: 'http://127.0.0.1:9/v1'}}\n"
        "folders: {calls: {inbox: inbox, provider: p}}\n"
    )
    (tmp_path / "inbox").mkdir()
    program = [sys.executable, "-m", "dropscribe", "run", "-c", str(path)]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + 60
            while not list(pointed_state_dirs(path, os.environ)) and time.monotonic() < deadline:
                time.sleep(0.1)
            path.write_text("")
            running = load_running_config(path)
            assert running is not None
            assert running.state_dir == state
        finally:
            daemon.terminate()
    assert daemon.returncode == 0
    assert list((tmp_path / "xdg/dropscribe").iterdir()) == []
