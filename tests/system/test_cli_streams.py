"""Commands whose standard output is closed, full, or cannot encode what they print."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.scene import Scene


@pytest.fixture
def scene(tmp_path):
    """One rule with a file whose name is neither ASCII nor UTF-8."""
    scene = Scene(tmp_path)
    scene.drop(b"caf\xe9.wav")
    scene.drop("通话.wav")
    return scene


def run(scene, shell: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """``dropscribe`` as a process, through a shell that redirects."""
    command = f'exec "$0" -m dropscribe {shell}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable],
        cwd=scene.root,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("command", ["plan", "list", "status", "why inbox/通话.wav", "check"])
def test_an_encoding_that_lacks_the_letters_is_no_error(scene, command):
    """What ASCII lacks is printed as escapes."""
    done = run(scene, command, PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")

    assert b"Traceback" not in done.stderr
    assert done.returncode == 0
    assert done.stdout.isascii()


@pytest.mark.parametrize("command", ["plan", "list", "status", "why inbox/通话.wav", "schema"])
def test_output_that_cannot_be_written_is_an_input_output_error(scene, command):
    """74 and one line, whatever the command prints."""
    done = run(scene, f"{command} >/dev/full")

    assert done.returncode == 74
    assert done.stderr == b"dropscribe: standard output: No space left on device\n"


def test_a_closed_standard_output_is_an_input_output_error(scene):
    """Whatever a command opens does not get its number."""
    done = run(scene, "list >&-")

    assert done.returncode == 74
    assert done.stderr == b"dropscribe: standard output: Bad file descriptor\n"


def test_all_streams_closed(scene):
    """Nothing can be said, but the exit code tells."""
    done = run(scene, "status >&- 2>&- <&-")

    assert (done.returncode, done.stdout, done.stderr) == (74, b"", b"")


@pytest.mark.parametrize(
    ("arguments", "stdout"), [("--help", ">&-"), ("--version", ">/dev/full"), ("transcribe --help", ">&-")]
)
def test_help_that_cannot_be_written_is_an_input_output_error(scene, arguments, stdout):
    """One line names standard output; Python says nothing at its exit."""
    done = run(scene, f"{arguments} {stdout}")

    assert done.returncode == 74
    assert done.stderr.startswith(b"dropscribe: standard output: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("command", "code", "stderr"),
    [
        ("nonsense", 2, "2>&-"),
        ("list --limit x", 2, "2>/dev/full"),
        ("status -c nope", 78, "2>&-"),
        ("status -c nope", 78, "2>/dev/full"),
        ("schema", 0, "2>&-"),
    ],
)
def test_messages_that_cannot_be_written_change_no_exit_code(scene, command, code, stderr):
    """The exit code is the one that the command has with a usable standard error."""
    assert run(scene, f"{command} {stderr}").returncode == code


def test_a_closed_standard_input_is_an_input_output_error(scene):
    """It is named, and nothing is sent."""
    done = run(scene, "transcribe - <&-")

    assert done.returncode == 74
    assert done.stderr == b"dropscribe: standard input: Bad file descriptor\n"
