"""Checks whether an inbox is available, locks it, and opens the source of its hints.

Guarantees: two daemons of one machine never work on one inbox. A missing inbox is never created and never
read as empty; it is checked for until it is back, and nothing is read from another folder in its place. No
descriptor in the inbox stays open, so that a share or a stick can be unmounted while the daemon runs.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import structlog

from dropscribe.config.model import FolderRule
from dropscribe.core.ignored_names import OWN_FOLDER
from dropscribe.core.rules import FilePatterns
from dropscribe.files.beneath import UnsafePathError, closing, open_listable_root
from dropscribe.files.mounts import Mount, MountCache, MountKind
from dropscribe.intake.hints import HintSource
from dropscribe.intake.inbox_queue import InboxQueue
from dropscribe.intake.owner_file import OwnerFile
from dropscribe.intake.pending import MOST_WAITING
from dropscribe.intake.probe import OpenInbox

log = structlog.get_logger()

AVAILABLE_SECONDS = 2.0  # Interval of the checks for the inbox, whether it is available or not
NOT_LOOKED_AT = "it has not been looked at yet"
TAKEN = "another dropscribe has it"
TAKEN_BY_US = "another rule of this daemon has it"  # during a reload, until that rule's thread has ended

_TAKEN_SECONDS = 0.25  # the other may be about to end
_MOST_PROBES = 4096  # that wait to be answered; any more would find no lock
_ROOT_GONE_SECONDS = 0.1
_SENTENCES = {
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "it is not a folder",
    errno.EACCES: "it may not be listed",
    errno.ESTALE: "its server has lost it",
    errno.ENOTCONN: "its server is not connected",
}
_LOCK_NAMES = 4
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


@dataclass(frozen=True, slots=True)
class InboxContext:
    """One inbox."""

    rule: FolderRule
    root: bytes  # The inbox, absolute
    patterns: FilePatterns  # Of the names that are taken and entered
    queue: InboxQueue
    open_source: Callable[[FolderRule, Mount], HintSource | None]  # Makes its hint source, if it has one
    owner_token: str | None  # See :class:`~dropscribe.intake.owner_file.OwnerFile`
    # Called when the file system has answered, so that a long step is distinguished from a hanging one.
    note_progress: Callable[[], None]
    asking_queue: Callable[[], AbstractContextManager[None]]  # Around a call that writes to the queue
    mounts: MountCache = field(default_factory=MountCache)


class Availability:
    """Availability of one inbox, checked every two seconds, with its lock and its hint source."""

    def __init__(self, context: InboxContext) -> None:
        self._context = context
        self._folder = context.rule.name
        self.root = InboxRoot(context.root, exclusive=context.owner_token is not None)
        self.owner = OwnerFile(self._folder, context.root, context.owner_token)
        self.reason = NOT_LOOKED_AT  # why it is not available, "" if it is
        self.mount: Mount | None = None  # while it is available
        self.hints: HintSource | None = None  # None while it is polled, or away
        self.next_check_at = 0.0  # monotonic
        self._watched: tuple[int, int] | None = None  # InboxRoot.identity of the folder that is watched

    def check(self, now: float) -> bool:
        """Look whether the inbox is there, if that is due; returns whether it is away or another folder."""
        if now < self.next_check_at:
            return False
        reason = self.root.check()
        self.next_check_at = now + (_TAKEN_SECONDS if reason in {TAKEN, TAKEN_BY_US} else AVAILABLE_SECONDS)
        identity = self.root.identity
        is_new = identity != self._watched
        if identity is None:
            self.owner.forget()
        elif is_new:
            reason = self._arm(now, identity)
        elif self._needs_owner_file:
            reason = self.owner.check(now)
        if reason:
            self._leave(reason)
        return is_new or bool(reason)

    @property
    def is_undecided(self) -> bool:
        """Whether another daemon or an old thread of this one has the inbox, perhaps for a moment only."""
        return self.owner.is_undecided or self.reason == TAKEN_BY_US

    @property
    def _needs_owner_file(self) -> bool:
        """Whether daemons of other machines can reach the inbox: its lock does not exclude them."""
        return self.mount is not None and self.mount.kind is not MountKind.LOCAL

    def _arm(self, now: float, identity: tuple[int, int]) -> str:
        """Watch the inbox, which is new or replaced; returns the reason if that is impossible, else ""."""
        self._disarm()
        mounts = self._context.mounts
        mounts.clear()
        try:
            with OpenInbox(self._context.root) as inbox:
                mount = mounts.of(identity[0], inbox.descriptor)
                if _is_bare_mount_point(self._context, inbox, mount.device):
                    return "another file system stands there, with none of the waiting files: is it mounted?"
            self.mount = mount
            if self._needs_owner_file and (reason := self.owner.check(now)):
                return reason
            self.hints = self._context.open_source(self._context.rule, mount)
        except OSError as error:
            return _describe(error)
        self._watched = identity
        mode = "native" if self.hints else "poll"
        log.info("watch.armed", folder=self._folder, mode=mode, file_system=mount.name)
        log.info("inbox.available", folder=self._folder)
        self.reason = ""
        return ""

    def _disarm(self) -> None:
        self._close_hints()
        self.mount = self._watched = None

    def _close_hints(self) -> None:
        hints, self.hints = self.hints, None
        if hints is not None:
            hints.close()

    def _leave(self, reason: str) -> None:
        if reason not in {self.reason, TAKEN_BY_US}:
            log.warning("inbox.unavailable", folder=self._folder, reason=reason)
        self.reason = reason
        self._disarm()

    def note_error(self, error: OSError, now: float) -> None:
        """Mark the inbox as unavailable, because it could not be listed."""
        self.next_check_at = now + AVAILABLE_SECONDS
        self._leave(_describe(error))

    def note_root_gone(self, now: float) -> None:
        """Check again soon, because the watched folder is gone; its replacement is then watched."""
        self._watched = None
        self.next_check_at = now + _ROOT_GONE_SECONDS

    def is_same_folder(self) -> bool:
        """Whether the inbox is still the folder that is watched."""
        return self.root.check() == "" and self.root.identity == self._watched

    def rest(self, now: float) -> float:
        """Stop watching but keep owning the inbox; returns the time of the next call."""
        self._close_hints()
        if not self._needs_owner_file:
            return float("inf")
        self.owner.check(now)
        return now + AVAILABLE_SECONDS

    def release(self) -> None:
        """Stop watching, and let other daemons have the inbox."""
        if self._needs_owner_file:
            self.owner.release()  # before the lock, which still makes our own next thread wait
        self._disarm()
        self.root.unlock()


def _is_bare_mount_point(context: InboxContext, inbox: OpenInbox, device: int) -> bool:
    """Whether this may be a bare mount point: the share with the waiting files is usually mounted over it.

    Then nothing may be read from it: its emptiness would end the jobs of every waiting file. A remount gives
    the device another number, so the number alone is no evidence.
    """
    with contextlib.suppress(OSError):
        if device != os.stat(b"..", dir_fd=inbox.descriptor).st_dev:
            return False
    queue, folder = context.queue, context.rule.name
    live = ((at, row) for at in queue.directories(folder) for row in queue.live(folder, at))
    some = list(itertools.islice(live, MOST_WAITING))
    if any(row.device == device or inbox.stat(os.path.join(at, row.name)) is not None for at, row in some):
        return False
    return bool(some) and set(os.listdir(inbox.descriptor)) <= {os.fsdecode(OWN_FOLDER)}


class InboxRoot:
    """One inbox's own folder: whether it is there and still the same one; locked for this daemon.

    It is not locked if not *exclusive*: several daemons share one queue and its inboxes. Such a daemon leaves
    it to one that has locked it, which has a queue of its own.
    """

    def __init__(self, path: bytes, *, exclusive: bool = True) -> None:
        self._path = path
        self._is_exclusive = exclusive
        self.identity: tuple[int, int] | None = None  # (st_dev, st_ino) of the folder that is locked now
        self.seen: tuple[int, int] | None = None  # of the folder that is there, whoever has locked it
        self._lock: socket.socket | None = None

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
        self._lock = self.identity = None

    def check(self) -> str:
        """Reason why the inbox is not available; "" if it is, and then it is locked."""
        try:
            with closing(open_listable_root(self._path)) as descriptor:
                status = os.fstat(descriptor)
        except OSError as error:
            self.unlock()
            self.seen = None
            return _describe(error)
        identity = self.seen = (status.st_dev, status.st_ino)
        trusted_uids = {os.geteuid(), 0, status.st_uid}
        if not self._is_exclusive and (reason := _taken_by(_lock_names(identity), trusted_uids)):
            self.identity = None
            return reason
        if identity == self.identity:
            if self._lock is not None:  # each daemon that probed it has left a connection there
                with contextlib.suppress(OSError):
                    while True:
                        self._lock.accept()[0].close()
            return ""
        self.unlock()
        if self._is_exclusive:
            try:
                self._lock = _lock(_lock_names(identity), trusted_uids)
            except BlockingIOError as error:
                return error.strerror or TAKEN
            if self._lock is None:
                reason = "other users hold all names of its lock"
                log.warning("inbox.unguarded", path=self._path, reason=reason)
        self.identity = identity
        return ""


def _describe(error: OSError) -> str:
    """Reason why an inbox is not available, for this error."""
    known = None if isinstance(error, UnsafePathError) else _SENTENCES.get(error.errno or 0)
    return known or error.strerror or str(error)


def _lock_names(identity: tuple[int, int]) -> list[bytes]:
    return [b"\0dropscribe/inbox/%d:%d/%d" % (*identity, number) for number in range(_LOCK_NAMES)]


def _lock(names: Sequence[bytes], trusted_uids: set[int]) -> socket.socket | None:
    """Listen on one of *names*, abstract sockets of the folder; None if only other users hold them.

    The kernel releases it when the process ends, however that happens. Any local user may bind such a name,
    so the listener's credentials decide: a daemon of ours, of root or of the folder's owner has the inbox;
    other users' sockets are skipped for the next name. flock(2) on the folder would work across network
    namespaces, but its open descriptor keeps the file system from being unmounted.

    Raises:
        BlockingIOError: A daemon has the inbox, or another thread of this one.
    """
    listening = ((lock, name) for name in names if (lock := _listen(name)))
    lock, own_name = next(listening, (None, b""))
    if reason := _taken_by([name for name in names if name != own_name], trusted_uids):
        if lock is not None:
            lock.close()
        raise BlockingIOError(errno.EAGAIN, reason)
    return lock


def _taken_by(names: Iterable[bytes], trusted_uids: set[int]) -> str:
    """TAKEN or TAKEN_BY_US if a process of *trusted_uids* listens on one of *names*, else ""."""
    pids = {pid for pid, uid in map(_holder, names) if uid in trusted_uids}
    return "" if not pids else TAKEN_BY_US if pids == {os.getpid()} else TAKEN


def _listen(name: bytes) -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        lock.bind(name)
        lock.listen(_MOST_PROBES)
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return lock


def _holder(name: bytes) -> tuple[int, int]:
    """Process (0: in another PID namespace) and user that listen on *name*; -1 where none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(name)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return -1, -1
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return pid, uid
