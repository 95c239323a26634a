"""Reads an inbox for a command: its files, those that the rule takes, and whether one is complete.

Guarantees: nothing is changed; no symlink is followed below the inbox; a folder that cannot be listed
is reported, never read as empty; a file system that does not answer is waited for a bounded time.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import stat
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from dropscribe.core.ignored_names import OWN_FOLDER
from dropscribe.core.model import identity
from dropscribe.core.rules import reason_not_a_file
from dropscribe.core.settling import Cause, Completeness, Lease, Seen, Wait, decide
from dropscribe.core.text.printing import path_text, shell_word
from dropscribe.files.audio import describe_forbidden, snapshot_of
from dropscribe.files.beneath import (
    UnsafePathError,
    closing,
    open_folder,
    open_listable_folder,
    open_root,
    stat_at,
)
from dropscribe.files.mounts import MountCache, ignore_sigio
from dropscribe.intake.pending import UNLISTABLE_WORDS, describe_age
from dropscribe.queue.sql.history import read_live_states
from dropscribe.queue.sql.stats import has_live_job
from dropscribe.reports.timed_calls import LISTING_SECONDS, ask_disk, ask_disk_or

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dropscribe.config.model import FolderRule
    from dropscribe.intake.probe import ProbeResult
    from dropscribe.reports.queue_reader import QueueView

T = TypeVar("T")

_AT_ONCE = 1000  # the number of entries that one thread inspects


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """One name in an inbox."""

    path: bytes  # Relative to the inbox
    status: os.stat_result | None  # From ``lstat``; None where it could not be had
    reason: str | None  # Why the rule does not take it; None for a regular file that it takes
    is_unlistable: bool = False  # It is a folder that cannot be listed

    def identities(self) -> tuple[bytes, ...]:
        """Keys under which the queue may know the file: with and without its inode."""
        if self.status is None:
            return ()
        snapshot = snapshot_of(self.status)
        return tuple(identity(self.path, snapshot, stable_inodes=stable) for stable in (True, False))

    @property
    def size_bytes(self) -> int | None:
        """Size of a regular file; None for anything else."""
        return self.status.st_size if self.status and stat.S_ISREG(self.status.st_mode) else None


def _look_in(
    rule: FolderRule,
    folder: bytes,
    look: Callable[[int], T],
    *,
    lists: bool = False,
    seconds: float | None = None,
) -> T:
    """The result of *look*, called with the open *folder* below the inbox, or its error.

    With *lists* a folder that may be passed through, but not listed, is an error.
    """

    def open_and_look() -> T:
        open_it = open_listable_folder if lists else open_folder
        with closing(open_root(os.fsencode(rule.inbox))) as inbox, closing(open_it(inbox, folder)) as opened:
            return look(opened)

    return ask_disk(rule.inbox, open_and_look, seconds=seconds)


def _try_listing(folder: int) -> None:
    with os.scandir(folder):
        os.stat(b".", dir_fd=folder)  # a folder may show its names and refuse what they stand for


def unavailable_reason(rule: FolderRule) -> str | None:
    """Reason why the inbox cannot be listed, with the remedy; None if it can."""
    try:
        _look_in(rule, b"", _try_listing, lists=True)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return f"{rule.inbox} is not there; mount it or make it (mkdir -p {shell_word(str(rule.inbox))})"
        if error.errno == errno.ENOTDIR:
            return f"{rule.inbox} is not a folder"
        if error.errno in {errno.EACCES, errno.EPERM}:
            inbox = shell_word(str(rule.inbox))
            remedy = f"give it access (setfacl -m u:{os.geteuid()}:rwx {inbox}, or a common group)"
            return f"{rule.inbox} may not be listed by uid {os.geteuid()}; {remedy}"
        return f"{rule.inbox}: {error.strerror or os.strerror(error.errno or 0)}"
    return None


def unlistable_words(rule: FolderRule, path: bytes) -> str:
    """Reason why *path*, or a folder on the way to it, cannot be listed, with the remedy; or ""."""
    for folder in itertools.accumulate(path.split(b"/"), lambda above, name: above + b"/" + name):
        if not rule.patterns.enters(os.path.basename(folder)):
            break
        try:
            _look_in(rule, folder, _try_listing, lists=True)
        except (FileNotFoundError, UnsafePathError):
            break
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                break
            return f"the folder {path_text(folder)} {_unlistable(rule, folder, error)}"
    return ""


def _unlistable(rule: FolderRule, folder: bytes, error: OSError) -> str:
    if isinstance(error, PermissionError):
        root = os.fsencode(rule.inbox)
        return UNLISTABLE_WORDS + ask_disk_or("", root, lambda: describe_forbidden(root, folder))
    return UNLISTABLE_WORDS + (error.strerror or str(error))


def walk_inbox(rule: FolderRule) -> Iterator[InboxEntry]:
    """Every name in the inbox, ordered by folder and name; folders not entered are reported once."""
    patterns = rule.patterns
    waiting: list[tuple[bytes, os.stat_result | None]] = [(b"", None)]
    while waiting:
        folder, folder_status = waiting.pop()
        try:
            entries = list(_entries(rule, folder))
        except OSError as error:
            words = f"the folder {_unlistable(rule, folder, error)}"
            yield InboxEntry(folder or b".", folder_status, words, is_unlistable=True)
            continue
        below: list[tuple[bytes, os.stat_result | None]] = []
        for name, status in entries:
            if name == OWN_FOLDER:
                continue
            path = folder + b"/" + name if folder else name
            if not stat.S_ISDIR(status.st_mode):
                yield _entry(rule, path, status)
            elif patterns.enters(name):
                below.append((path, status))
            else:
                yield InboxEntry(path + b"/", None, patterns.reason_not_taken(path + b"/any.wav"))
        waiting.extend(reversed(below))


def _entries(rule: FolderRule, folder: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """The names in one folder, which is waited for piece by piece."""

    def look_at(names: list[bytes], opened: int) -> list[tuple[bytes, os.stat_result]]:
        return [(name, status) for name in names if (status := stat_at(opened, name))]

    listed = _look_in(rule, folder, os.listdir, lists=True, seconds=LISTING_SECONDS)
    names = sorted(map(os.fsencode, listed))
    for start in range(0, len(names), _AT_ONCE):
        look = partial(look_at, names[start : start + _AT_ONCE])
        yield from _look_in(rule, folder, look, seconds=LISTING_SECONDS)


def entry_at(rule: FolderRule, path: bytes) -> InboxEntry | None:
    """The file at *path*, or None; OSError where it cannot be looked at and the rule would take it."""
    folder, _, name = path.rpartition(b"/")
    try:
        status = _look_in(rule, folder, lambda opened: os.stat(name, dir_fd=opened, follow_symlinks=False))
    except (FileNotFoundError, UnsafePathError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        reason = rule.patterns.reason_not_taken(path)
        if reason is None:
            raise
        return InboxEntry(path, None, reason)
    return _entry(rule, path, status)


def _entry(rule: FolderRule, path: bytes, status: os.stat_result) -> InboxEntry:
    reason = reason_not_a_file(status.st_mode) or rule.patterns.reason_not_taken(path)
    return InboxEntry(path, status, reason)


def may_read(rule: FolderRule, path: bytes) -> bool:
    """Whether this process may open the file for reading; False where its file system does not answer."""
    folder, _, name = path.rpartition(b"/")
    with contextlib.suppress(OSError):
        return _look_in(rule, folder, lambda at: os.access(name, os.R_OK, dir_fd=at, effective_ids=True))
    return False


def files_without_job(rule: FolderRule, view: QueueView) -> Iterator[tuple[InboxEntry, bool]]:
    """Files to be taken that have no job, and unlistable folders; with each, whether it is blocked."""
    live = read_live_states(view.db, rule.name) if view.db else {}
    for found in walk_inbox(rule):
        if found.is_unlistable:
            yield found, True
        elif found.reason is None and live.keys().isdisjoint(found.identities()):
            # Its job waits for the file as it was, and counts until the changed one takes its place.
            if view.db and has_live_job(view.db, rule.name, found.path):
                continue
            is_forbidden = bool(view.forbidden_words(rule.name, found.path))
            yield found, is_forbidden or not may_read(rule, found.path)


def unsettled_words(rule: FolderRule, path: bytes) -> str | None:
    """Reason why the file is not taken even when its quiet time is over; None if there is none.

    Raises AudioError if it may not be read, is gone or is no regular file any more, and OSError.
    """
    from dropscribe.intake.probe import OpenInbox  # noqa: PLC0415 - status does not load it

    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        ignore_sigio()

    def look() -> tuple[ProbeResult, tuple[bytes, str] | None]:
        with OpenInbox(os.fsencode(rule.inbox)) as inbox:
            return inbox.probe(path, MountCache()), inbox.find_download_file(path)

    seen, download = ask_disk(rule.inbox, look)
    verdict = decide(seen.signs(Seen.FOUND), 0.0, rule.quiet_times, age_seconds=seen.age_seconds)
    seconds = verdict.needed_seconds if isinstance(verdict, Wait) else 0.0
    if seen.lease is Lease.WRITER:
        when = f"after {seconds:.0f} s without a change" if seconds else "when they close it"
        return f"somebody has it open for writing: it is taken {when}"
    if download is not None:
        return f"{os.fsdecode(download[0])!r} beside it says that {download[1]} has not finished"
    if seen.snapshot.size_bytes == 0:
        return f"it is empty: if it stays so for {seconds:.0f} s it goes to failed, unsent"
    if seen.completeness is Completeness.INCOMPLETE:
        return (
            f"its header says that more is to come: it is taken after {seconds:.0f} s of quiet, as incomplete"
        )
    if isinstance(verdict, Wait) and verdict.cause is Cause.AGE:
        return describe_age(seconds)
    return None
