"""The shipped systemd files, as systemd's own tools judge them."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "dropscribe.service"
USER_UNIT = SYSTEMD / "user" / "dropscribe.service"
CONTAINER_UNIT = SYSTEMD / "dropscribe.container"
DROP_INS = sorted((SYSTEMD / "dropscribe.service.d").glob("*.example"))

ENGINE = SYSTEMD / "dropscribe.service.d" / "local-engine.conf.example"
CAPABILITIES = SYSTEMD / "dropscribe.service.d" / "capabilities.conf.example"
HIGHEST_EXPOSURE = {None: 1.2, ENGINE: 1.3, CAPABILITIES: 1.7}


def needs(tool: str) -> pytest.MarkDecorator:
    """Skips where *tool* is not installed."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def run(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """The command's result, its output in one."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_PAGER": "cat"}
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def installed(unit: Path, tmp_path: Path) -> Path:
    """A copy whose command exists on this machine, which verify wants."""
    text = unit.read_text().replace("/opt/dropscribe/bin/dropscribe", "/bin/true")
    copy = tmp_path / "dropscribe.service"
    copy.write_text(text.replace("%h/.local/bin/dropscribe", "/bin/true"))
    return copy


def with_drop_in(tmp_path: Path, drop_in: Path | None) -> Path:
    """The installed unit, with a drop-in beside it."""
    unit = installed(UNIT, tmp_path)
    if drop_in:
        folder = tmp_path / "dropscribe.service.d"
        folder.mkdir()
        (folder / drop_in.name.removesuffix(".example")).write_text(drop_in.read_text())
    return unit


@needs("systemd-analyze")
@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda path: path.name if path else "plain")
def test_the_unit_is_clean(tmp_path, drop_in):
    """Systemd reads the unit, alone and with each drop-in example, without a word of complaint."""
    unit = with_drop_in(tmp_path, drop_in)
    result = run(tmp_path, "systemd-analyze", "verify", "--man=no", str(unit))
    assert (result.stdout, result.returncode) == ("", 0)


@needs("systemd-analyze")
def test_the_user_unit_is_clean(tmp_path):
    """The same of the unit for one's own folders."""
    unit = installed(USER_UNIT, tmp_path)
    result = run(tmp_path, "systemd-analyze", "--user", "verify", "--man=no", str(unit))
    assert (result.stdout, result.returncode) == ("", 0)


@needs("systemd-analyze")
@pytest.mark.parametrize(
    ("drop_in", "highest"), HIGHEST_EXPOSURE.items(), ids=["plain", "engine", "capabilities"]
)
def test_the_exposure_is_low(tmp_path, drop_in, highest):
    """At most 1.2 of 10, 1.3 with the embedded engine, 1.7 with capabilities: few daemons are as closed."""
    unit = with_drop_in(tmp_path, drop_in)
    threshold = str(round(highest * 10))
    command = ("systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", str(unit))
    result = run(tmp_path, *command)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", [UNIT, ENGINE], ids=["plain", "engine"])
def test_memory_is_limited(path):
    """A leak ends the service, which starts again, and not another program of the machine."""
    (most,) = [line for line in path.read_text().splitlines() if line.startswith("MemoryMax=")]
    assert most.removeprefix("MemoryMax=").rstrip("G").isdecimal()


def test_the_user_unit_leaves_the_state_directory_to_the_default():
    """A command in a shell finds the daemon: where StateDirectory= lies differs by version."""
    assert not [line for line in USER_UNIT.read_text().splitlines() if line.startswith("StateDirectory")]


@needs("systemd-sysusers")
@needs("systemd-tmpfiles")
def test_user_and_folders_come_from_an_empty_root(tmp_path):
    """sysusers.d makes the user, tmpfiles.d the folder for keys, readable by root alone."""
    for kind in ("sysusers", "tmpfiles"):
        folder = tmp_path / "usr/lib" / f"{kind}.d"
        folder.mkdir(parents=True)
        shutil.copy(SYSTEMD / f"{kind}.d" / "dropscribe.conf", folder)
    (tmp_path / "etc").mkdir()
    users = run(tmp_path, "systemd-sysusers", f"--root={tmp_path}", "dropscribe.conf")
    assert users.returncode == 0, users.stdout
    if os.geteuid() != 0:
        pytest.skip("only root may give folders away")
    folders = run(tmp_path, "systemd-tmpfiles", "--create", f"--root={tmp_path}", "dropscribe.conf")
    assert folders.returncode == 0, folders.stdout
    passwd = (tmp_path / "etc/passwd").read_text().split(":")
    assert (passwd[0], passwd[5], passwd[6].strip()) == (
        "dropscribe",
        "/var/lib/dropscribe",
        "/usr/sbin/nologin",
    )
    keys = (tmp_path / "etc/dropscribe/credentials").stat()
    assert (keys.st_mode & 0o777, keys.st_uid) == (0o700, 0)


@pytest.mark.parametrize("unit", [UNIT, USER_UNIT], ids=["system", "user"])
def test_reload_is_checked_before_the_signal(unit):
    """ExecReload= checks the config first, so that a broken one fails the reload and signals nobody."""
    reloads = [
        line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith("ExecReload=")
    ]
    assert [" check " in reloads[0], reloads[1]] == [True, "/bin/sh -c 'kill -HUP $MAINPID'"]


@pytest.mark.parametrize("unit", [UNIT, USER_UNIT, CONTAINER_UNIT], ids=["system", "user", "container"])
def test_no_limit_of_starts_forbids_what_max_crashes_needs(unit):
    """A file that ends the daemon again and again is found by starting it again, however often that takes."""
    assert "StartLimitIntervalSec=0" in unit.read_text().splitlines()


@pytest.mark.parametrize("unit", [UNIT, USER_UNIT], ids=["system", "user"])
def test_both_units_live_alike(unit):
    """Notify, watchdog, no restart after a config error: the two units do not drift apart."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str
    parser.read(unit)
    service = parser["Service"]
    assert service["Type"] == "notify"
    assert service["NotifyAccess"] == "main"
    assert "78" in service["RestartPreventExitStatus"].split()
    assert int(service["WatchdogSec"]) >= 30
    assert service["LimitCORE"] == "0"
