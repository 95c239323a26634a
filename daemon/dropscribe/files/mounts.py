"""Properties of a folder's file system: change events, stable inode numbers, read leases.

inotify and leases only see changes made through this machine's own system calls (inotify(7)), so network and
FUSE file systems are polled. A file system type that is on none of the lists counts as remote: that is
slower, but never wrong.

A read lease (``F_SETLEASE``, fcntl(2)) is granted only if no process of this machine has the file open or
mapped for writing, under any of its names. Leases are asked for only where this kernel itself decides them
(docs/design/watching.md). A lease ends when its file is closed, soon: until then a writer's open waits, at
most 45 s (/proc/sys/fs/lease-break-time).

Guarantees: no lease is requested while SIGIO would end the process: the kernel sends it when a writer's open
breaks a lease, and its default action is to terminate.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import fcntl
import os
import signal
from dataclasses import dataclass

from dropscribe.core.settling import Lease

_BUSY = frozenset({errno.EAGAIN, errno.EBUSY})


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
    leases: LeaseSupport = LeaseSupport.NONE
    stable_inodes: bool = False  # A number names the same file for as long as that exists, remounts included
    caches_attributes: bool = False  # stat may be a minute old (NFS without noac)

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
        if device not in self._mounts:
            self._mounts[device] = mount_of(file)
        return self._mounts[device]

    def clear(self) -> None:
        """Empty the cache: a device number that was free may have been given to another mount."""
        self._mounts.clear()


def _by_magic(table: str) -> dict[int, str]:
    """Names of file systems by magic number: linux/magic.h and the file systems' own sources."""
    return {int(magic, 16): name for magic, name in map(str.split, table.split(","))}


_LEASES = _by_magic(
    "EF53 ext, 58465342 xfs, 9123683E btrfs, 01021994 tmpfs, F2F52010 f2fs, 2FC12FC1 zfs, CA451A4E bcachefs,"
    "858458F6 ramfs, 794C7630 overlay"
)
# With inode numbers that are made up at mount time (FAT), or with leases that have not been tested.
_LOCAL = _by_magic("4D44 vfat, 2011BAB0 exfat, 7366746E ntfs3, 3153464A jfs, 52654973 reiserfs")
_REMOTE = _by_magic(
    "6969 nfs, FF534D42 cifs, FE534D42 smb2, 517B smb, 01021997 9p, 00C36400 ceph, 5346414F afs,"
    "6B414653 kafs, 65735546 fuse, 73757245 coda, 0BD00BD0 lustre, 47504653 gpfs, 786F4256 vboxsf,"
    "BACBACBC vmhgfs, 7C7C6673 prl_fs, 01161970 gfs2, 7461636F ocfs2, 19830326 fhgfs, AAD7AAEA panfs,"
    "013111A8 ibrix, 61756673 aufs"
)
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


def require_proc() -> None:
    """Raise OSError where open files cannot be named by descriptors (proc_pid_fd(5)), as in a bare chroot."""
    place = "/proc/self/fd"
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


_found_on: dict[bytes, tuple[int | None, bytes]] = {}
"""Folder → its device and the mount point above it, as they were found last."""


def require_mount(folder: bytes) -> None:
    """Raise OSError if the file system that *folder* was found on before is not mounted any more.

    What is written then goes below the mount point, where nobody sees it once the file system is back. Other
    troubles, such as a server that is gone, raise their own errors.
    """
    try:
        device = os.stat(os.path.join(folder, b"")).st_dev  # the slash has it mounted on demand (autofs, NFS)
    except (FileNotFoundError, NotADirectoryError):
        device = None
    found_device, point = _found_on.get(folder, (None, b"/"))
    if device is not None and device == found_device:
        return
    real = os.path.realpath(folder)
    if not os.path.ismount(point) and (real + b"/").startswith(point + b"/"):
        advice = "mount it, or restart dropscribe to use the folder without it"
        words = f"nothing is mounted on {os.fsdecode(point)} any more; {advice}"
        raise OSError(errno.ENODEV, words, os.fsdecode(folder))
    while not os.path.ismount(real):
        real = os.path.dirname(real)
    _found_on[folder] = device, real


def ignore_sigio() -> None:
    """Make lease probes safe. Called once, from the main thread, before any thread starts."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def probe_lease(descriptor: int, support: LeaseSupport | None = None) -> Lease:
    """Whether a local process has the open file open for writing; *descriptor* was opened read-only.

    UNKNOWN if the file belongs to another user and CAP_LEASE is missing, or if the file system's leases say
    nothing about local writers. FREE excludes remote writers only where *support* is FULL.
    """
    is_none = (support or lease_support(descriptor)) is LeaseSupport.NONE
    return Lease.UNKNOWN if is_none else _acquire(descriptor)


def hold_lease(descriptor: int | None, support: LeaseSupport | None = None) -> Lease:
    """As :func:`probe_lease`, so that no writer can open the file between a check and a rename.

    Where a writer's open would wait for another machine, no lease is held: UNKNOWN there, and for None, a
    file that may not be opened.
    """
    if descriptor is None or (support or lease_support(descriptor)) is not LeaseSupport.FULL:
        return Lease.UNKNOWN
    return _acquire(descriptor)


def _acquire(descriptor: int) -> Lease:
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        return Lease.UNKNOWN
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Lease.WRITER if error.errno in _BUSY else Lease.UNKNOWN
    return Lease.FREE
