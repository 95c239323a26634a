"""Checks whether an inbox is available, locks it, and opens the source of its hints.

Guarantees: a missing inbox is checked for until it is back, and nothing is read from another folder in its
place.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.ignored_names import OWN_FOLDER
from dropscribe.files.mounts import MountKind
from dropscribe.intake.owner_file import OwnerFile
from dropscribe.intake.probe import OpenInbox
from dropscribe.intake.root import TAKEN, InboxRoot, describe
from dropscribe.intake.state import MOST_WAITING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import FolderRule
    from dropscribe.files.mounts import Mount
    from dropscribe.intake.context import InboxContext
    from dropscribe.intake.watch.hints import HintSource

log = structlog.get_logger()

AVAILABLE_SECONDS = 2.0
"""Interval of the checks for the inbox, whether it is available or not."""

_TAKEN_SECONDS = 0.25  # another daemon may be about to end
_ROOT_GONE_SECONDS = 0.1


class Availability:
    """Availability of one inbox, checked every two seconds, with its lock and its hint source.

    Args:
        rule: The folder rule.
        context: The inbox.
        open_source: Makes its hint source; None if it must be polled.
        owner_token: See :class:`~dropscribe.intake.owner_file.OwnerFile`.

    Attributes:
        reason: Why the inbox is not available, "" if it is.
        mount: The file system it is on, while it is available.
        hints: Its hint source; None while it is polled, or away.
        next_check_at: Monotonic time of the next look.
    """

    def __init__(
        self,
        rule: FolderRule,
        context: InboxContext,
        open_source: Callable[[FolderRule, Mount], HintSource | None],
        owner_token: str | None,
    ) -> None:
        self._rule = rule
        self._context = context
        self._open_source = open_source
        self.root = InboxRoot(context.root, exclusive=owner_token is not None)
        self.owner = OwnerFile(rule.name, context.root, owner_token)
        self.reason = "it has not been looked at yet"
        self.mount: Mount | None = None
        self.hints: HintSource | None = None
        self.next_check_at = 0.0
        self._watched: tuple[int, int] | None = None  # InboxRoot.identity of the folder that is watched

    def check(self, now: float) -> bool:
        """Look whether the inbox is there, if that is due.

        Returns:
            Whether all knowledge of its files is invalid: it is away, or another folder is in its place.
        """
        if now < self.next_check_at:
            return False
        reason = self.root.check()
        self.next_check_at = now + (_TAKEN_SECONDS if reason == TAKEN else AVAILABLE_SECONDS)
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
            self.hints = self._open_source(self._rule, mount)
        except OSError as error:
            return describe(error)
        self._watched = identity
        mode = "native" if self.hints else "poll"
        log.info("watch.armed", folder=self._rule.name, mode=mode, file_system=mount.name)
        log.info("inbox.available", folder=self._rule.name)
        self.reason = ""
        return ""

    def _disarm(self) -> None:
        if self.hints is not None:
            self.hints.close()
        self.hints = self.mount = self._watched = None

    def _leave(self, reason: str) -> None:
        if reason != self.reason:
            log.warning("inbox.unavailable", folder=self._rule.name, reason=reason)
        self.reason = reason
        self._disarm()

    def note_error(self, error: OSError, now: float) -> None:
        """Mark the inbox as unavailable, because it could not be listed."""
        self.next_check_at = now + AVAILABLE_SECONDS
        self._leave(describe(error))

    def note_root_gone(self, now: float) -> None:
        """Check again soon, because the watched folder is gone; its replacement is then watched."""
        self._watched = None
        self.next_check_at = now + _ROOT_GONE_SECONDS

    def is_same_folder(self) -> bool:
        """Whether the inbox is still the folder that is watched."""
        return self.root.check() == "" and self.root.identity == self._watched

    def watch(self, directory: bytes, descriptor: int) -> bool:
        """Watch *directory*, which is open as *descriptor*; whether hints will come from it."""
        return self.hints is not None and self.hints.watch(directory, descriptor)

    def rest(self, now: float) -> float:
        """Stop watching but keep owning the inbox; returns the time of the next call."""
        if self.hints is not None:
            self.hints.close()
            self.hints = None
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
    if _is_mount_point(inbox.descriptor):
        return False
    missing = 0
    for directory in context.queue.directories(context.folder):
        for row in context.queue.live(context.folder, directory):
            if row.device == device or inbox.stat(os.path.join(directory, row.name)) is not None:
                return False
            missing += 1
            if missing >= MOST_WAITING:
                break
    return missing > 0 and set(os.listdir(inbox.descriptor)) <= {os.fsdecode(OWN_FOLDER)}


def _is_mount_point(descriptor: int) -> bool:
    try:
        return os.fstat(descriptor).st_dev != os.stat(b"..", dir_fd=descriptor).st_dev
    except OSError:
        return False
