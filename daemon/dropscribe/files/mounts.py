"""Properties of a folder's file system: change events, reliable leases, stable inode numbers.

inotify and leases only see changes made through this machine's own system calls (inotify(7)), so network and
FUSE file systems are polled. A file system type that is on none of the lists counts as remote: that is
slower, but never wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
from dataclasses import dataclass


class LeaseSupport(enum.Enum):
    """Reliability of read leases as a sign of writers, by file system."""

    FULL = "full"  # this kernel sees every writer
    LOCAL_WRITERS = "local writers"  # a refusal is right; a grant does not exclude writers elsewhere
    NONE = "none"  # the server decides, by rules of its own


class MountKind(enum.Enum):
    """Whether all writers of a file system are on this machine."""

    LOCAL = "local"
    REMOTE = "remote"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system and how intake must treat it."""

    device: int
    kind: MountKind
    name: str  # For the log: "ext4", "nfs4", "fuse.sshfs", or the magic number in hex
    leases: LeaseSupport = LeaseSupport.NONE  # Reliability of its read leases as a sign of writers
    # An inode number names the same file for as long as it exists, remounts included.
    stable_inodes: bool = False
    caches_attributes: bool = False  # stat may be a minute old (NFS without noac)

    @property
    def has_reliable_leases(self) -> bool:
        """Whether a granted lease excludes every writer."""
        return self.leases is LeaseSupport.FULL

    @property
    def gives_events(self) -> bool:
        """Whether a watch on it sees every change."""
        return self.kind is MountKind.LOCAL


class MountCache:
    """Mounts by device number: every look at a file needs one, and there are few."""

    def __init__(self) -> None:
        self._mounts: dict[int, Mount] = {}

    def of(self, device: int, file: bytes | int) -> Mount:
        """The mount with this st_dev; *file*, a path or a descriptor, is on it. Raises OSError."""
        mount = self._mounts.get(device)
        if mount is None:
            mount = mount_of(file)
            self._mounts[mount.device] = mount
        return mount

    def clear(self) -> None:
        """Empty the cache: a device number that was free may have been given to another mount."""
        self._mounts.clear()


# Magic numbers: linux/magic.h and the file systems' own sources. The second list has local file systems
# with inode numbers that are made up at mount time (FAT), or with leases that have not been tested.
_LEASES = {
    0xEF53: "ext",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0xF2F52010: "f2fs",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
}
_LOCAL = {0x4D44: "vfat", 0x2011BAB0: "exfat", 0x7366746E: "ntfs3", 0x3153464A: "jfs", 0x52654973: "reiserfs"}
_REMOTE = {
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x517B: "smb",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x6B414653: "kafs",
    0x65735546: "fuse",
    0x73757245: "coda",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x786F4256: "vboxsf",
    0xBACBACBC: "vmhgfs",
    0x7C7C6673: "prl_fs",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x19830326: "fhgfs",
    0xAAD7AAEA: "panfs",
    0x013111A8: "ibrix",
    0x61756673: "aufs",
}
_NFS = 0x6969
_FUSE = 0x65735546
_UNSTABLE_INODES = frozenset({0x4D44, 0x2011BAB0})  # vfat, exfat


def mount_of(file: bytes | int) -> Mount:
    """The file system that *file*, a path or a descriptor, is on. Raises OSError."""
    device = os.stat(file).st_dev
    magic = _magic_of(file)
    name, options = _described(device)
    is_local = magic in _LEASES or magic in _LOCAL
    return Mount(
        device,
        MountKind.LOCAL if is_local else MountKind.REMOTE if magic in _REMOTE else MountKind.UNKNOWN,
        name or (_LEASES | _LOCAL | _REMOTE).get(magic) or hex(magic),
        leases=_lease_support(magic),
        # NFS carries the server's inode numbers, which stay; FUSE and SMB often make them up.
        stable_inodes=magic == _NFS or (is_local and magic not in _UNSTABLE_INODES),
        caches_attributes=magic == _NFS and b"noac" not in options,
    )


def lease_support(descriptor: int) -> LeaseSupport:
    """Lease support of the open file's file system; NONE if it cannot be determined."""
    try:
        return _lease_support(_magic_of(descriptor))
    except OSError:
        return LeaseSupport.NONE


def _lease_support(magic: int) -> LeaseSupport:
    if magic in _LEASES:
        return LeaseSupport.FULL
    # FUSE leaves leases to the kernel, which knows the writers that came through this mount.
    return LeaseSupport.LOCAL_WRITERS if magic in _LOCAL or magic == _FUSE else LeaseSupport.NONE


_libc = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES = 256  # struct statfs is 120 bytes on 64-bit Linux; f_type, a long, comes first


def _magic_of(file: bytes | int) -> int:
    """``f_type`` of statfs(2), which os.statvfs leaves out; *file* is a path or a descriptor."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    statfs = _libc.fstatfs if isinstance(file, int) else _libc.statfs
    if statfs(file, buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), file if isinstance(file, int) else os.fsdecode(file))
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF


def require_proc(place: str = "/proc/self/fd") -> None:
    """Raise OSError where open files cannot be named by descriptors (proc_pid_fd(5)), as in a bare chroot."""
    if not os.path.isdir(place):
        reason = "is not there, and files are reached through it; mount it: mount -t proc proc /proc"
        raise OSError(errno.ENOENT, reason, place)


def _described(device: int) -> tuple[str, list[bytes]]:
    """Type and options of the mount with this device number (proc_pid_mountinfo(5)), else "" and none."""
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    lines: list[bytes] = []
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as table:
        lines = [line for line in table if line.split(b" ", 3)[2] == wanted]
    if not lines:
        return "", []
    # Spaces in a field are escaped; between two there may be no source.
    name, _, options = lines[-1].rstrip().partition(b" - ")[2].split(b" ")[:3]
    return name.decode(errors="replace"), options.split(b",")
