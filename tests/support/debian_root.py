"""A bare Debian 13, unpacked from the tar that packaging/make_root.sh makes, to install and run things in."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

VARIABLE = "DROPSCRIBE_TRIXIE_ROOT"
TAR = Path(os.environ.get(VARIABLE) or "/nonexistent")  # read here: tests get a clean environment

_ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" sh -c "$1"'


def find_obstacle() -> str:
    """Why there is none here, or ""."""
    if not TAR.is_file():
        return (
            f"no bare Debian 13: sh packaging/make_root.sh OUT.tar python3-venv, then set {VARIABLE}=OUT.tar"
        )
    return "" if os.geteuid() == 0 else "only root can change into another root"


class DebianRoot:
    """An unpacked root; commands run in it by chroot, with a /proc and this machine's network."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(TAR) as tar:
            # The devices of /dev too; Python 3.11.2 of Debian 12 has no argument for it.
            tar.extraction_filter = lambda member, _: member
            tar.extractall(path)
        resolv = path / "etc/resolv.conf"
        resolv.unlink(missing_ok=True)
        shutil.copyfile("/etc/resolv.conf", resolv)
        self.path = path

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run *command* by the root's shell; both outputs in one."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", _ENTER, str(self.path), command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
