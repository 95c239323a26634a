"""Owner and mode of the files that dropscribe makes, taken over from the audio.

Guarantees: a sidecar is never more open than its audio. It has no execute bits and no write bits but its
owner's, and group bits only if it has the audio's own group. If the audio has an access control list, the
group bits come from its entries, because stat shows the list's mask instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from dataclasses import dataclass

_NOT_ALLOWED = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_NO_ACL = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOENT})
_ACL = "system.posix_acl_access"
_ACL_ENTRY = struct.Struct("<HHI")  # tag, permissions, id: acl_ea.h
_ACL_HEADER_BYTES = 4
_GROUP_OBJECT, _MASK = 0x04, 0x10
_CAP_FOWNER = 1 << 3  # capabilities(7)


def may_act_as_owner() -> bool:
    """Whether this process may change files of other users as their owner could."""
    try:
        with open("/proc/self/status") as status:
            found = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return os.geteuid() == 0
    return bool(int(found, 16) & _CAP_FOWNER)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Owner and mode for a new file."""

    mode: int
    owner: tuple[int, int]  # (uid, gid), taken where the system allows it
    is_audio: bool = False  # A copy of audio keeps its mode as it is

    @classmethod
    def of_audio(cls, status: os.stat_result) -> Permissions:
        """The audio's own."""
        return cls(stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), is_audio=True)

    @classmethod
    def of_sidecar(cls, folder: int, name: bytes, status: os.stat_result) -> Permissions:
        """A sidecar's, for the audio *name* in the open *folder*, which has *status*."""
        mode = stat.S_IMODE(status.st_mode) & 0o644
        group = _group_rights(folder, name) if mode & 0o070 else None
        if group is not None:
            mode &= ~0o070 | (group << 3)
        return cls(mode, (status.st_uid, status.st_gid))

    def apply(self, descriptor: int) -> None:
        """Give an open new file its owner, where allowed, and its mode.

        A file that keeps our own owner never becomes set-user-ID: a program dropped under an
        audio's name would run as us.
        """
        mode = self.mode
        if not self.is_audio:  # a new file may get an access control list from its folder
            with contextlib.suppress(OSError):
                os.removexattr(descriptor, _ACL)  # it may grant access to users without access to the audio
        found = self._give_owner(descriptor)
        if (found.st_uid, found.st_gid) != self.owner:
            mode &= 0o777
        if not self.is_audio and found.st_gid != self.owner[1]:
            mode &= ~0o070
        try:
            if stat.S_IMODE(found.st_mode) != mode:
                os.fchmod(descriptor, mode)
        except OSError as error:
            if error.errno not in _NOT_ALLOWED:
                raise

    def _give_owner(self, descriptor: int) -> os.stat_result:
        """Give the file its owner and its group as far as that is allowed; returns its status then."""
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) == self.owner:
            return found
        for owner in (self.owner, (-1, self.owner[1])):
            try:
                os.fchown(descriptor, *owner)
            except OSError as error:
                if error.errno not in _NOT_ALLOWED:
                    raise
            else:
                break
        return os.fstat(descriptor)


def _group_rights(folder: int, name: bytes) -> int | None:
    """Rights of the group by the access control list of a file (0 to 7); None if it has no list."""
    try:
        # *name* is one component: no link is followed on the way.
        acl = os.getxattr(b"/proc/self/fd/%d/%s" % (folder, name), _ACL, follow_symlinks=False)
    except OSError as error:
        # Where the list cannot be read (rclone answers EIO) it may forbid all.
        return None if error.errno in _NO_ACL else 0
    entries = _ACL_ENTRY.iter_unpack(acl[_ACL_HEADER_BYTES:])
    rights: dict[int, int] = {tag: allowed for tag, allowed, _ in entries}
    return rights.get(_GROUP_OBJECT, 0) & rights.get(_MASK, 7)
