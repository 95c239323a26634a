"""Owner, mode and attributes of the files that dropscribe makes, taken over from the audio.

A copy of the audio has them all, with its access control list. Guarantees: a sidecar is never more open than
its audio. It has no execute bits and no write bits but its owner's, and group bits only if it has the audio's
own group. If the audio has an access control list, the group bits come from its entries, because stat shows
the list's mask instead. Whom the audio shuts out while all others may read it (its group, or an entry of its
list) is shut out of the sidecar with all others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct

_NOT_ALLOWED = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_NO_ACL = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOENT})
_ACL = "system.posix_acl_access"
_ACL_ENTRY = struct.Struct("<HHI")  # tag, permissions, id: acl_ea.h
_ACL_HEADER_BYTES = 4
_NAMED_USER, _GROUP_OBJECT, _NAMED_GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_READ = 4
_CAP_FOWNER = 1 << 3  # capabilities(7)
_NO_FLAGS = bytes(struct.calcsize("l"))
_GET_FLAGS = 0x80006601 | len(_NO_FLAGS) << 16  # FS_IOC_GETFLAGS, ioctl_iflags(2)
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20


def may_act_as_owner() -> bool:
    """Whether this process may change files of other users as their owner could."""
    try:
        with open("/proc/self/status") as status:
            found = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return os.geteuid() == 0
    return bool(int(found, 16) & _CAP_FOWNER)


def is_kept_in_place(descriptor: int) -> bool:
    """Whether nobody can move the open file, or any file of the open folder: ``chattr +i`` or ``+a``."""
    try:
        flags = fcntl.ioctl(descriptor, _GET_FLAGS, _NO_FLAGS)
    except OSError:  # its file system has no such flags
        return False
    return bool(struct.unpack_from("=I", flags)[0] & (_IMMUTABLE | _APPEND_ONLY))


def keep_permissions(source: int, target: int) -> None:
    """Give *target*, an open copy of the open *source*, its mode and, where allowed, owner and attributes.

    The attributes are the access control list and those of users. A copy that keeps our own owner never
    becomes set-user-ID: a program dropped under an audio's name would run as us.
    """
    audio = os.fstat(source)
    found = _give_owner(target, audio)
    is_owners = (found.st_uid, found.st_gid) == (audio.st_uid, audio.st_gid)
    mode = stat.S_IMODE(audio.st_mode) & (0o7777 if is_owners else 0o777)
    with contextlib.suppress(OSError):
        for name in os.listxattr(source):
            if name.startswith("user."):
                _give_attribute(target, name, os.getxattr(source, name))
    _give_mode(target, os.fstat(target), mode & _give_list(source, target))


def _give_attribute(descriptor: int, name: str, value: bytes) -> bool:
    """Set an attribute; returns whether the file system could."""
    try:
        os.setxattr(descriptor, name, value)
    except OSError:
        return False
    return True


def _give_list(source: int, target: int) -> int:
    """Give *target* the access control list of *source*, or none; returns the mode bits it may have then."""
    try:
        acl = os.getxattr(source, _ACL)
    except OSError:
        with contextlib.suppress(OSError):
            os.removexattr(target, _ACL)  # from the default list of its folder
        return 0o7777
    return 0o7777 if _give_attribute(target, _ACL, acl) else 0o7000 | _limit_by_list(acl)


def sidecar_mode(folder: int, name: bytes, audio: os.stat_result) -> int:
    """Mode of a sidecar, for the audio *name* in the open *folder*, which has the status *audio*."""
    mode = stat.S_IMODE(audio.st_mode) & 0o644
    return mode & _limit_at(folder, name) if mode & 0o077 else mode


def mode_of_empty(mode: int) -> int:
    """Mode at creation: a user who can open the file before it has its *mode* can read all later content."""
    return mode & (0o666 if mode & 0o044 == 0o044 else 0o600)


def give_sidecar_permissions(descriptor: int, mode: int, audio: os.stat_result) -> None:
    """Give an open new sidecar the owner of *audio*, where allowed, and its *mode*."""
    with contextlib.suppress(OSError):
        # The folder's default list may grant access to users without access to the audio.
        os.removexattr(descriptor, _ACL)
    found = _give_owner(descriptor, audio)
    if found.st_gid != audio.st_gid:
        # To this file the audio's group are others.
        mode &= 0o604 if mode & 0o040 else 0o600
    _give_mode(descriptor, found, mode)


def _give_owner(descriptor: int, audio: os.stat_result) -> os.stat_result:
    """Give the file the owner and group of *audio* as far as that is allowed; returns its status then."""
    found = os.fstat(descriptor)
    if (found.st_uid, found.st_gid) == (audio.st_uid, audio.st_gid):
        return found
    # Without CAP_FOWNER another user's file can neither be linked (fs.protected_hardlinks) nor get its mode.
    for uid in (audio.st_uid, -1) if may_act_as_owner() else (-1,):
        try:
            os.fchown(descriptor, uid, audio.st_gid)
            break
        except OSError as error:
            if error.errno not in _NOT_ALLOWED:
                raise
    return os.fstat(descriptor)


def _give_mode(descriptor: int, found: os.stat_result, mode: int) -> None:
    try:
        if stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise


def _limit_at(folder: int, name: bytes) -> int:
    """The mode bits that the access control list of a file, if it has one, leaves to a file without."""
    try:
        # *name* is one component: no link is followed on the way.
        acl = os.getxattr(b"/proc/self/fd/%d/%s" % (folder, name), _ACL, follow_symlinks=False)
    except OSError as error:
        # Where the list cannot be read (rclone answers EIO) it may forbid all.
        return 0o777 if error.errno in _NO_ACL else 0o707
    return _limit_by_list(acl)


def _limit_by_list(acl: bytes) -> int:
    """The mode bits that the access control list *acl* leaves to a file without one."""
    entries = list(_ACL_ENTRY.iter_unpack(acl[_ACL_HEADER_BYTES:]))
    rights: dict[int, int] = {tag: allowed for tag, allowed, _ in entries}
    mask = rights.get(_MASK, 7)
    if any(tag in {_NAMED_USER, _NAMED_GROUP} and not allowed & mask & _READ for tag, allowed, _ in entries):
        return 0o700
    return 0o707 | (rights.get(_GROUP_OBJECT, 0) & mask) << 3
