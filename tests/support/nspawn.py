"""Boots a real systemd in a container made of this machine's own /usr, runs one script in it, ends.

An empty /etc and /var, so sysusers.d and tmpfiles.d are tried as well; no image is built.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import structlog

import dropscribe

ROOT = Path(__file__).parents[2]
GUEST_PYTHON = "/usr/bin/python3"
BOOT_SECONDS = 240

COMMAND = f"""#!{GUEST_PYTHON}
import sys
sys.path[:0] = ["/opt/dropscribe/source", "/opt/dropscribe/site"]
from dropscribe.cli.main import main
sys.exit(main())
"""

SCENARIO = f"""[Unit]
Description=The test's script
After=systemd-journald.service dbus.service
[Service]
Type=oneshot
ExecStart={GUEST_PYTHON} /opt/dropscribe/tests/support/systemd_guest.py /results
ExecStopPost=/usr/bin/systemctl poweroff --no-block
[Install]
WantedBy=multi-user.target
"""

# Shorter waits, and the watched folder; all else is the unit as shipped.
DROP_IN = """[Service]
ReadWritePaths=-/srv/recordings
WatchdogSec=4
RestartSec=1
"""


def find_obstacle() -> str:
    """Why no machine can be booted here, or ""."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is not installed (Debian: systemd-container)"
    if not stat.S_ISCHR(os.stat("/dev/null").st_mode):  # a device, not a path of ours
        return "/dev/null is not a device here"
    version = subprocess.run(
        [GUEST_PYTHON, "-c", "import sys; print(sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    )
    if version.stdout.strip() != str(sys.version_info[:2]):
        return f"{GUEST_PYTHON} is another version than the tests' own, whose packages it would need"
    return ""


def boot(folder: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Boot, run the guest's script, power off; its results are in ``folder/results``."""
    units, etc, opt = _lay_out(folder, key)
    binds = {
        folder / "results": "/results",
        etc: "/etc/dropscribe",
    }
    read_only = {
        units: "/etc/systemd/system",
        opt: "/opt/dropscribe",
        Path(dropscribe.__file__).parents[1]: "/opt/dropscribe/source",
        Path(structlog.__file__).parents[1]: "/opt/dropscribe/site",
        ROOT / "tests": "/opt/dropscribe/tests",
        ROOT / "systemd/sysusers.d/dropscribe.conf": "/etc/sysusers.d/dropscribe.conf",
        ROOT / "systemd/tmpfiles.d/dropscribe.conf": "/etc/tmpfiles.d/dropscribe.conf",
        Path("/etc/hosts"): "/etc/hosts",
        Path("/etc/nsswitch.conf"): "/etc/nsswitch.conf",
        Path("/etc/ssl"): "/etc/ssl",
    }
    command = [
        *("timeout", "--kill-after=10", str(BOOT_SECONDS)),
        *("systemd-nspawn", "-q", "-D", "/", "--volatile=yes", f"--machine=dropscribe-{os.getpid()}"),
        *("--register=no", "--keep-unit", "--private-network"),  # the guests of two tests have one port
        *(f"--bind={source}:{target}" for source, target in binds.items()),
        *(f"--bind-ro={source}:{target}" for source, target in read_only.items() if source.exists()),
        *("-b", "systemd.firstboot=off"),
    ]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _lay_out(folder: Path, key: str) -> tuple[Path, Path, Path]:
    units, etc, opt = folder / "units", folder / "etc", folder / "opt"
    for path in (
        folder / "results",
        units / "multi-user.target.wants",
        units / "dropscribe.service.d",
        etc / "credentials",
        *(opt / name for name in ("bin", "source", "site", "tests")),
    ):
        path.mkdir(parents=True)
    shutil.copy(ROOT / "systemd/dropscribe.service", units)
    (units / "dropscribe.service.d/test.conf").write_text(DROP_IN)
    (units / "scenario.service").write_text(SCENARIO)
    (units / "multi-user.target.wants/scenario.service").symlink_to("../scenario.service")
    (etc / "credentials/mine").write_text(key + "\n")
    (opt / "bin/dropscribe").write_text(COMMAND)
    (opt / "bin/dropscribe").chmod(0o755)
    return units, etc, opt
