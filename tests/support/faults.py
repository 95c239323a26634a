"""Faults at the system call: errno where the code touches users' files, and real file systems that are
full, read-only or other mounts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import importlib
import os
import pkgutil
import shutil
import subprocess
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

import pytest

import dropscribe
from dropscribe.files import audio, beneath, capabilities, moves, own_file, permissions
from dropscribe.publish import filing, moving, places
from support.house import House, make_config

CALLS = frozenset(
    {"open", "write", "pread", "fsync", "link", "unlink", "rename", "mkdir", "symlink", "rmdir"}
    | {"stat", "lstat", "fstat", "utime", "fchown", "fchmod", "renameat2"}
)
"""The system calls that may fail, by their names in ``os`` and ``renameat2``."""


class _FaultyOs:
    """``os`` as one module sees it: calls go through the faults, the rest is as ever."""

    def __init__(self, faults):
        self._faults = faults

    def __getattr__(self, name):
        real = getattr(os, name)
        return self._faults.around(name, real) if name in CALLS else real


class _FaultyLibc:
    def __init__(self, faults, libc):
        self._faults, self._libc = faults, libc

    def renameat2(self, *arguments):
        try:
            return self._faults.around("renameat2", self._libc.renameat2)(*arguments)
        except OSError as error:
            ctypes.set_errno(error.errno)
            return -1


class Faults:
    """The system calls of ``files`` and ``publish``, counted; some of them fail.

    Attributes:
        seen: Names of the calls so far, in order.
        always: Call name → errno: every such call fails, as on a file system that does not know it.
        before: Call name → something to do right before the next such call, once.
    """

    def __init__(self, monkeypatch):
        self.seen = []
        self.always = {}
        self.before = {}
        self._errno, self._from, self._count = 0, 0, 0
        self._lock = threading.Lock()
        for module in (
            audio,
            beneath,
            capabilities,
            moves,
            own_file,
            permissions,
            filing,
            places,
            moving,
        ):
            monkeypatch.setattr(module, "os", _FaultyOs(self))
        monkeypatch.setattr(capabilities, "_libc", _FaultyLibc(self, capabilities._libc))
        monkeypatch.setattr(capabilities, "_known", {})

    def arm(self, number, after, count=1):
        """Let *count* calls fail with errno *number*, *after* so many more have gone well."""
        with self._lock:
            self._errno, self._from, self._count = number, len(self.seen) + after, count

    def lift(self):
        """No more faults."""
        self._count = 0
        self.always.clear()

    @property
    def has_hit(self):
        """Whether the armed fault's first call has come."""
        return len(self.seen) > self._from

    def around(self, name, real):
        """*real*, unless it is its turn to fail."""

        def call(*arguments, **keywords):
            with self._lock:
                number = len(self.seen)
                self.seen.append(name)
                act = self.before.pop(name, None)
            if act is not None:
                act()
            if self._from <= number < self._from + self._count:
                raise OSError(self._errno, os.strerror(self._errno))
            if name in self.always and _concerns(name, self.always[name], arguments):
                raise OSError(self.always[name], os.strerror(self.always[name]))
            return real(*arguments, **keywords)

        return call


def _concerns(name, number, arguments):
    if name == "renameat2" and number == errno.EXDEV:
        # Within one folder nothing is ever on another mount.
        return not os.path.samestat(os.fstat(arguments[0]), os.fstat(arguments[2]))
    return True


WAYS = {
    "rename": {},
    "copy": {"renameat2": errno.EXDEV},
    "plain": {"renameat2": errno.EINVAL},
    "bare": {"renameat2": errno.EINVAL, "link": errno.EPERM},
    "plainest": {"renameat2": errno.EINVAL, "link": errno.EPERM, "symlink": errno.EPERM},
}
"""The ways of a file to done, by the calls that fail: by renameat2; copied; on a file system without
RENAME_NOREPLACE; on one that has no links either; on one without symbolic links."""


def mount(*arguments):
    """Mount something, or skip the test where that may not be done."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root and mount(8)")
    result = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    if result.returncode:
        pytest.skip(f"may not mount here: {result.stderr.decode(errors='replace').strip()}")


def unmount(target):
    """Run umount(8), lazily: what is open goes on."""
    subprocess.run(["umount", "-l", str(target)], capture_output=True, check=True)


@contextlib.contextmanager
def mounted(target, *arguments):
    """Something mounted at *target*, a folder that is made, for the length of the block."""
    target.mkdir(parents=True, exist_ok=True)
    mount(*arguments, target)
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", str(target)], capture_output=True, check=False)


@contextlib.contextmanager
def with_attribute(letter, place):
    """*place* has this attribute of chattr(1) for the length of the block; else the test is skipped."""
    if not (command := shutil.which("chattr")):
        pytest.skip("needs chattr")
    if subprocess.run([command, f"+{letter}", place], capture_output=True, check=False).returncode:
        pytest.skip("needs root and a file system with attributes")
    try:
        yield
    finally:
        subprocess.run([command, f"-{letter}", place], capture_output=True, check=True)


def tmpfs(target, size="1m"):
    """A file system of its own, *size* long."""
    return mounted(target, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


@contextlib.contextmanager
def filled(folder, leave_bytes=0):
    """*folder*'s file system is full, *leave_bytes* aside; the ballast goes when the block ends."""
    ballast = os.path.join(folder, ".ballast")
    block = b"\0" * 4096
    with open(ballast, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(block)
        if leave_bytes:
            file.truncate(max(0, file.tell() - leave_bytes))
    try:
        yield
    finally:
        os.unlink(ballast)


async def file_one(root):
    """One file's whole way in a house at *root*."""
    async with House(make_config(root)) as house:
        await house.drop("call.wav", b"RIFF to warm up")
        await house.rest()


def let_others_pass(folder):
    """Let other users reach *folder*: pytest's own folders above it are private. Nothing else is touched."""
    for place in folder.parents:
        if place == Path(tempfile.gettempdir()) or len(place.parts) <= 2:
            return
        place.chmod(place.stat().st_mode & 0o7777 | 0o111)


@cache
def _load_all():
    """Import all that a file's way needs: a child may not be able to read modules that are imported late."""
    for module in pkgutil.walk_packages(dropscribe.__path__, "dropscribe."):
        if not module.name.startswith(("dropscribe.native", "dropscribe.__main__")):
            importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(file_one(Path(folder)))


def run_as_nobody(root, steps):
    """Run the coroutine function *steps* in a child of uid 65534, to which *root* is given; its exit code."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    if not all(folder.stat().st_mode & 0o001 for folder in Path(dropscribe.__file__).parents):
        pytest.skip("another user cannot read the program here: it lies below a private folder")
    _load_all()
    let_others_pass(root)
    os.chown(root, 65534, 65534)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            asyncio.run(steps())
            code = 0
        except BaseException:  # noqa: BLE001 - the child must end here, and say why
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
