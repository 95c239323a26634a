"""The daemon keeps the config that it runs on."""

from __future__ import annotations

import os
import subprocess
import sys

from dropscribe.config.running import load_running_config


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
