"""No command waits for ever for a file system that does not answer: a FUSE mount, its server stopped."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.fuse_mirror import FAR_AND_NEAR, mirrored
from support.scene import Scene

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """One rule on a mount that hangs, one on a local disk; a daemon has run."""
    root = tmp_path_factory.mktemp("site")
    scene = Scene(root, FAR_AND_NEAR)
    with scene.queue():
        pass
    scene.drop("a.wav")
    for name in ("inbox", "done", "failed"):
        (root / "server" / name).mkdir(parents=True)
    with mirrored(root / "server", root / "mount") as mirror:
        mirror.freeze()
        yield scene


def run(scene, command, *arguments):
    """The command as a process, within a minute."""
    call = [sys.executable, "-m", "dropscribe", command, "-c", str(scene.config), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=60, env=environment)


@pytest.mark.parametrize("command", ["status", "plan", "check"])
def test_the_folder_is_named_and_the_others_are_shown(scene, command):
    """What can be told is told."""
    ran = run(scene, command)
    assert ran.returncode == 0, ran.stderr
    assert "does not answer" in ran.stdout + ran.stderr
    assert str(scene.root / "mount/inbox") in ran.stdout + ran.stderr
    assert "near" in ran.stdout


def test_list_shows_the_other_folders_files(scene):
    """The rest of the list is there."""
    ran = run(scene, "list")
    assert "inbox/a.wav" in ran.stdout


@pytest.mark.parametrize("part", ["inbox", "done", "failed"])
def test_why_tells_what_it_knows(scene, part):
    """A file in a folder that hangs."""
    ran = run(scene, "why", str(scene.root / "mount" / part / "b.wav"))
    assert "does not answer" in ran.stdout, ran.stderr


def test_retry_names_the_folder(scene):
    """Nothing is moved, 74."""
    ran = run(scene, "retry", "--all")
    assert ran.returncode == 74
    assert "does not answer" in ran.stderr


@pytest.mark.parametrize("command", ["forget", "transcribe"])
def test_a_file_that_is_named_is_waited_for_a_bounded_time(scene, command):
    """74, with the path."""
    ran = run(scene, command, str(scene.root / "mount/inbox/b.wav"))
    assert ran.returncode == 74
    assert "does not answer" in ran.stderr
