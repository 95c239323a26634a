"""PUID, PGID and UMASK in a container, seen from the process that took them on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = """
import json, os
from dropscribe.core.errors import ConfigError
from dropscribe.service.process import switch_user
try:
    switch_user(os.environ)
except ConfigError as error:
    print(json.dumps([problem.message for problem in error.problems]))
else:
    mask = os.umask(0)
    try:
        os.setuid(0)
        back = True
    except PermissionError:
        back = False
    print(json.dumps({"ids": [*os.getresuid(), *os.getresgid()], "groups": os.getgroups(),
                      "umask": mask, "root_again": back}))
"""

# What a container's init does: start the program, pass a signal on, wait.
INIT = """
import signal, subprocess, sys
program = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
program.stdout.readline()
program.send_signal(signal.SIGTERM)
sys.exit(-program.wait())
"""
PROGRAM = """
import os, signal, time
from dropscribe.service.process import switch_user
switch_user(os.environ)
print(os.getuid(), flush=True)
signal.pause()
"""
COMPOSE = Path(__file__).parents[2] / "compose.example.yaml"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def with_capabilities(*names):
    """The start of a command that runs as root of a container which has these capabilities alone."""
    kept = ",".join(["-all", *(f"+{name.lower()}" for name in names)])
    return ["setpriv", "--no-new-privs", f"--bounding-set={kept}", "--inh-caps=-all"]


def told(extra_groups=None, prefix=(), **environ):
    """What a process started with this environment has become."""
    command = [*prefix, sys.executable, "-c", SCRIPT]
    result = subprocess.run(
        command,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.defpath, **environ},
        extra_groups=extra_groups,
        capture_output=True,
        check=True,
        umask=0o027,
    )
    return json.loads(result.stdout)


@needs_root
def test_root_becomes_the_user_for_good():
    """All three user and group ids are the asked ones, and root is out of reach."""
    became = told(DROPSCRIBE_CONTAINER="1", PUID="1026", PGID="100", extra_groups=[0, 4711])

    assert became["ids"] == [1026, 1026, 1026, 100, 100, 100]
    assert became["groups"] == [4711]
    assert became["root_again"] is False


@needs_root
def test_a_user_alone_brings_a_group_of_its_number():
    """PUID without PGID never leaves files to root's group."""
    assert told(DROPSCRIBE_CONTAINER="1", PUID="1026")["ids"] == [1026] * 6


def test_the_mask_is_taken_in_octal():
    """UMASK=002 lets a NAS's group write what arrives in done."""
    assert told(DROPSCRIBE_CONTAINER="1", UMASK="002")["umask"] == 0o002


def test_on_a_host_the_variables_mean_nothing():
    """An admin who exports PUID for other containers keeps identity and mask."""
    became = told(PUID="1026", PGID="100", UMASK="002")

    assert became["ids"] == [*os.getresuid(), *os.getresgid()]
    assert became["umask"] == 0o027


needs_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv(1)")


@needs_root
@needs_setpriv
def test_a_container_without_the_right_to_switch_is_told_what_to_give_it():
    """Both ways out are named: the capabilities, and a container that never is root."""
    [message] = told(prefix=with_capabilities("kill"), DROPSCRIBE_CONTAINER="1", PUID="1026")

    assert "PUID" in message
    assert "SETUID" in message
    assert "user:" in message


@needs_root
@needs_setpriv
def test_the_init_of_the_compose_example_stops_the_daemon():
    """It stays root while the daemon becomes PUID: without a capability of its own it may not signal it."""
    example = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["dropscribe"]
    assert example["init"]
    assert example["cap_drop"] == ["ALL"]
    init = [*with_capabilities(*example["cap_add"]), sys.executable, "-c", INIT]
    environ = {"PYTHONPATH": os.pathsep.join(sys.path), "DROPSCRIBE_CONTAINER": "1", "PUID": "1026"}

    stopped = subprocess.run([*init, sys.executable, "-c", PROGRAM], env=environ, check=False, timeout=60)

    assert stopped.returncode == signal.SIGTERM


@needs_root
@pytest.mark.parametrize(
    ("name", "value"),
    [("PUID", "alice"), ("PUID", "-1"), ("PGID", "4294967295"), ("UMASK", "088"), ("UMASK", "1777")],
)
def test_what_is_no_number_is_named(name, value):
    """A mistake is one problem that names variable and value, before anything has changed."""
    [message] = told(**{"DROPSCRIBE_CONTAINER": "1", "PUID": "1026", name: value})

    assert name in message
    assert value in message
