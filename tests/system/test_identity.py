"""PUID, PGID and UMASK in a container, seen from the process that took them on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

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

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def told(extra_groups=None, **environ):
    """What a process started with this environment has become."""
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(
        command,
        env={"PYTHONPATH": os.pathsep.join(sys.path), **environ},
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
