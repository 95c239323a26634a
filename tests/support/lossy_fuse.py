"""Mounts the tests' own file system that loses answers (support/lossy_file_system.py)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from ctypes.util import find_library
from typing import TYPE_CHECKING

import pytest

from support.waiting import until_true

if TYPE_CHECKING:
    from pathlib import Path

LOST_CALLS = "rename,link,unlink,mkdir,fsync,mknod,symlink"
"""All calls whose answers it can lose."""


@contextlib.contextmanager
def mounted_lossy(backing: Path, mountpoint: Path, *options: str):
    """The file system, mounted for the length of the block."""
    pytest.importorskip("mfusepy", exc_type=(ImportError, OSError))
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no FUSE here")
    backing.mkdir(exist_ok=True)
    mountpoint.mkdir(exist_ok=True)
    # Version 2, which the binding prefers, passes no flags of a rename on.
    library = find_library("fuse3") or pytest.skip("no libfuse3 here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FUSE_LIBRARY_PATH": library}
    command = [sys.executable, "-m", "support.lossy_file_system", str(backing), str(mountpoint), *options]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            until_true(lambda: os.path.ismount(mountpoint) or process.poll() is not None)
            if process.poll() is not None:
                pytest.skip(
                    f"FUSE cannot be mounted: {process.stderr.read().decode(errors='replace')[-200:]}"
                )
            yield mountpoint
        finally:
            subprocess.run(["umount", "-l", str(mountpoint)], capture_output=True, check=False)
            process.terminate()
            process.wait(10)
