"""A FUSE file system that shows another folder; its process can be stopped and let go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

FAR_AND_NEAR = """\
state_dir: state
providers:
  main: {type: openai, url: "http://127.0.0.1:9/v1"}
folders:
  far: {inbox: mount/inbox, done: mount/done, failed: mount/failed, provider: main}
  near: {inbox: inbox, provider: main}
"""
"""A config with one rule on a mirror, and one on the local disk."""


class Mirror:
    """A mounted mirror of *source* at *target*."""

    def __init__(self, source, target):
        self.target = target
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, __file__, str(source), str(target)]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        until = time.monotonic() + 20
        while not os.path.ismount(target):
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                pytest.skip(f"no FUSE here: {self.process.communicate()[1].decode()[-200:]}")
            time.sleep(0.02)

    def freeze(self):
        """Every call on the mount hangs from now on."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """The calls that hang are answered."""
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        """Unmount; calls that hang fail."""
        self.process.kill()
        self.process.communicate()
        subprocess.run(["fusermount3", "-u", "-z", str(self.target)], check=False, capture_output=True)


@contextlib.contextmanager
def mirrored(source, target):
    """The folder *source*, shown at *target* for the length of the block."""
    pytest.importorskip("mfusepy")
    source.mkdir(exist_ok=True)
    target.mkdir(exist_ok=True)
    mirror = Mirror(source, target)
    try:
        yield mirror
    finally:
        mirror.close()


def _serve(source, target):  # noqa: C901  # a method a system call
    import mfusepy

    def at(path):
        return source + path

    class Operations(mfusepy.Operations):
        use_ns = True

        def getattr(self, path, fh=None):
            status = os.fstat(fh) if fh is not None else os.lstat(at(path))
            names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino")
            times = {f"st_{kind}time": getattr(status, f"st_{kind}time_ns") for kind in "amc"}
            return {**{name: getattr(status, name) for name in names}, **times}

        def readdir(self, path, fh):
            return [".", "..", *os.listdir(at(path))]

        def open(self, path, flags):
            return os.open(at(path), flags & ~os.O_CREAT)

        def create(self, path, mode, fi=None):
            return os.open(at(path), os.O_RDWR | os.O_CREAT, mode)

        def read(self, path, size, offset, fh):
            return os.pread(fh, size, offset)

        def write(self, path, data, offset, fh):
            return os.pwrite(fh, data, offset)

        def truncate(self, path, length, fh=None):
            os.truncate(at(path) if fh is None else fh, length)

        def release(self, path, fh):
            os.close(fh)

        def fsync(self, path, datasync, fh):
            os.fsync(fh)

        def mkdir(self, path, mode):
            os.mkdir(at(path), mode)

        def rmdir(self, path):
            os.rmdir(at(path))

        def unlink(self, path):
            os.unlink(at(path))

        def rename(self, old, new, *flags):
            os.rename(at(old), at(new))

        def link(self, target, source):
            os.link(at(source), at(target))

        def chmod(self, path, mode):
            os.chmod(at(path), mode)

        def chown(self, path, uid, gid):
            os.chown(at(path), uid, gid)

        def utimens(self, path, times=None):
            os.utime(at(path), ns=times)

    mfusepy.FUSE(Operations(), target, foreground=True, nothreads=True, fsname="mirror", attr_timeout=0)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
