"""A pass-through file system that carries calls out and loses their answers, as a network may.

A program: ``python -m support.lossy_file_system BACKING MOUNTPOINT [--lose rename,link] [--no-links]
[--no-symlinks] [--one-inode] [--flags] [--late] [--fat ERROR]``. Below a folder ``NAME loses rename,link``
at the top those are lost too.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import threading

import mfusepy

LATE_SECONDS = 0.3


class Lossy(mfusepy.Operations):
    """Loses the first answer to each listed call on each path."""

    use_ns = True

    def __init__(self, options):
        self.options = options
        self.lost = set()

    def _path(self, path):
        return self.options.backing + path

    def _answer(self, call, path):
        """After the call was carried out: its answer, the first time none."""
        loses = path.split("/")[1].partition(" loses ")[2].split(",")
        if (
            (call in self.options.lose or call in loses)
            and (call, path) not in self.lost
            and ".dropscribe-trial" not in path
        ):
            self.lost.add((call, path))
            raise mfusepy.FuseOSError(errno.EIO)

    def getattr(self, path, fh=None):
        status = os.lstat(self._path(path))
        keys = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino")
        found = {key: getattr(status, key) for key in keys}
        times = {f"st_{each}time": getattr(status, f"st_{each}time_ns") for each in "amc"}
        return {**found, **times}

    def readdir(self, path, fh):
        with os.scandir(self._path(path)) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        own = os.stat(self._path(path))
        return [
            (name, {"st_ino": status.st_ino, "st_mode": status.st_mode}, 0)
            for name, status in ((".", own), ("..", own), *found)
        ]

    def access(self, path, mode):
        return 0

    def open(self, path, flags):
        return os.open(self._path(path), flags & ~os.O_NOFOLLOW)

    def _refuse(self, path):
        """FAT for another user, without utf8: no such names, and times are set by their owner alone."""
        if self.options.fat and not path.isascii():
            raise mfusepy.FuseOSError(getattr(errno, self.options.fat))

    def create(self, path, mode, fi=None):
        return os.open(self._path(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)

    def mknod(self, path, mode, dev):
        os.mknod(self._path(path), mode, dev)
        self._answer("mknod", path)
        return 0

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def fsync(self, path, datasync, fh):
        os.fsync(fh)
        self._answer("fsync", path)
        return 0

    def release(self, path, fh):
        size = os.fstat(fh).st_size
        is_written = fcntl.fcntl(fh, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        os.close(fh)
        if self.options.late and is_written:
            threading.Timer(LATE_SECONDS, self._write_back, (self._path(path), size)).start()
        return 0

    def _write_back(self, path, size):
        """A client that uploads under the name that was opened, long after the close."""
        with contextlib.suppress(OSError):
            os.truncate(path, size)

    def truncate(self, path, length, fh=None):
        os.truncate(self._path(path), length)

    def chmod(self, path, mode):
        os.chmod(self._path(path), mode)
        return 0

    def chown(self, path, uid, gid):
        os.lchown(self._path(path), uid, gid)
        return 0

    def utimens(self, path, times=None):
        if self.options.fat:
            raise mfusepy.FuseOSError(errno.EPERM)
        os.utime(self._path(path), ns=times, follow_symlinks=False)
        return 0

    def mkdir(self, path, mode):
        os.mkdir(self._path(path), mode)
        self._answer("mkdir", path)
        return 0

    def rmdir(self, path):
        os.rmdir(self._path(path))
        return 0

    def unlink(self, path):
        os.unlink(self._path(path))
        self._answer("unlink", path)
        return 0

    def link(self, target, source):
        self._refuse(target)
        if self.options.no_links:
            raise mfusepy.FuseOSError(errno.EIO)
        os.link(self._path(source), self._path(target))
        self._answer("link", target)
        return 0

    def symlink(self, target, source):
        if self.options.no_symlinks:
            raise mfusepy.FuseOSError(errno.EPERM)
        os.symlink(source, self._path(target))
        self._answer("symlink", target)
        return 0

    def readlink(self, path):
        return os.readlink(self._path(path))

    def rename(self, old, new):
        self._refuse(new)
        os.rename(self._path(old), self._path(new))
        if ".fuse_hidden" not in new:  # libfuse's own way to remove an open file
            self._answer("rename", old)
        return 0

    def statfs(self, path):
        found = os.statvfs(self._path(path))
        known = {key: getattr(found, key) for key in ("f_bsize", "f_blocks", "f_bavail", "f_namemax")}
        return known | ({"f_namemax": 1530} if self.options.fat else {})


class Served(mfusepy.FUSE):
    """The binding, which drops the flags of a rename otherwise."""

    def rename_fuse_3(self, old, new, flags):
        return -errno.EINVAL if flags and not self.operations.options.flags else self.rename_fuse_2(old, new)


def main():
    """Serve until unmounted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backing")
    parser.add_argument("mountpoint")
    parser.add_argument("--lose", type=lambda names: set(names.split(",")), default=set())
    for flag in ("--no-links", "--no-symlinks", "--one-inode", "--flags", "--late"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--fat", metavar="ERROR", help="what it refuses a name with")
    os.umask(0)
    options = parser.parse_args()
    Served(
        Lossy(options),
        options.mountpoint,
        foreground=True,
        nothreads=True,
        use_ino=options.one_inode,
        default_permissions=True,
    )


if __name__ == "__main__":
    main()
