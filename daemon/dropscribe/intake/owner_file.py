"""The owner file of an inbox on a network or FUSE file system: ``.dropscribe/owner``.

A local lock does not exclude other machines, and two queues on one inbox would pay for its files twice. The
owner writes a heartbeat counter into the file once a minute. A daemon that finds another's file compares no
clocks: it watches whether the counter changes, and takes over if it does not for :data:`STALE_SECONDS`.
Two daemons that start in the same instant find no file, and both write theirs; so may one whose mount
has cached the folder. Its first heartbeats follow soon, and show the record that won.

Guarantees: this is a guard, not a distributed lock. An owner that is frozen or cut off for STALE_SECONDS is
replaced; it notices that at its next heartbeat and stops, and its files in flight may be paid for twice. The
record has a fixed length and is rewritten in place, so that on NFS it stays the same file; a reader that sees
half of a write sees a change, which counts as a heartbeat. Only a file of our own user, of root or of the
inbox's owner counts. Links are not followed: the record must be a regular file in a real folder.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import time
from typing import Any

import structlog

from dropscribe import __version__
from dropscribe.core.ignored_names import OWN_FOLDER
from dropscribe.core.retry import backoff_seconds
from dropscribe.core.text.printing import utc_text
from dropscribe.files.beneath import closing, make_folder, open_file, open_folder, open_root

log = structlog.get_logger()

FIRST_BEAT_SECONDS = 5.0
"""Less than a file's quiet time there, so nothing is sent yet; a rule's own `settle` may be shorter."""
BEAT_SECONDS = 60.0
STALE_SECONDS = 150.0
WATCH_SECONDS = 15.0
REMEDY = (
    "stop the other daemon, give each its own inbox, or give both one queue: "
    "`queue: {type: postgres}` (docs/cluster.md)"
)

_NAME = b"owner"
_RECORD_BYTES = 1024
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OwnerFile:
    """One inbox's owner file, used by the inbox's thread.

    Args:
        token: Identifies the queue: its state directory is locked, so a file with this token is our own. None
            if several daemons share the queue: they write no file, but respect the file of any other daemon.
    """

    def __init__(self, folder: str, inbox: bytes, token: str | None) -> None:
        self._folder, self._inbox, self._token = folder, inbox, token
        self._record: dict[str, Any] = {
            "schema": "dropscribe.owner/2",
            "token": token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "since": utc_text(time.time()) or "",
            "beat": 0,
        }
        self._complaint = ""
        self.forget()

    def forget(self) -> None:
        """Forget the owner while the inbox is away; it is read again when the inbox is back."""
        self._seen: bytes | None = None
        self._silent: bytes | None = None
        self._silent_seconds = 0.0
        self._is_alive = False
        self._looked_at = float("-inf")
        self._reason = ""

    @property
    def is_undecided(self) -> bool:
        """Another daemon's file is there, and it is not known yet whether that daemon lives."""
        return bool(self._reason) and not self._is_alive

    def check(self, now: float) -> str:
        """Claim the inbox, write a heartbeat, or watch another owner, as due at the monotonic time *now*.

        Returns:
            Why the inbox is not ours, or "" if it is, or if it cannot be guarded at all.
        """
        now += _suspended_seconds()  # in which another daemon may have taken it over
        beat_seconds = BEAT_SECONDS
        if self._token is not None:  # else it writes none, and only looks
            beat_seconds = backoff_seconds(FIRST_BEAT_SECONDS, self._record["beat"], BEAT_SECONDS)
        if now < self._looked_at + (WATCH_SECONDS if self._reason else beat_seconds):
            return self._reason
        open_own = open_folder if self._token is None else make_folder
        try:
            with closing(open_root(self._inbox)) as root, closing(open_own(root, OWN_FOLDER)) as folder:
                self._reason = self._check(folder, {0, os.geteuid(), os.fstat(root).st_uid}, now)
        except FileNotFoundError:  # no owner file, and this daemon writes none
            self._reason = ""
        except OSError as error:
            reason = error.strerror or str(error)
            if not self._reason and reason != self._complaint:
                self._complaint = reason
                log.warning("inbox.unguarded", folder=self._folder, reason=reason)
        self._looked_at = now
        return self._reason

    def release(self) -> None:
        """Remove our file, so that another daemon need not wait."""
        with contextlib.suppress(OSError), closing(open_root(self._inbox)) as root:
            with closing(open_folder(root, OWN_FOLDER)) as folder:
                if self._token is not None and _parsed(_read(folder)).get("token") == self._token:
                    os.unlink(_NAME, dir_fd=folder)
            os.rmdir(OWN_FOLDER, dir_fd=root)
        self.forget()

    def _check(self, folder: int, trusted_uids: set[int], now: float) -> str:
        content = _read(folder)
        is_ours = content is None or _parsed(content).get("token") == self._token
        if content is not None and not is_ours:
            status = os.stat(_NAME, dir_fd=folder, follow_symlinks=False)
            is_trusted = stat.S_ISREG(status.st_mode) and status.st_uid in trusted_uids
            if is_trusted and content != self._silent:
                return self._watch(folder, content, now)
        self._seen = None
        if self._token is not None:
            self._record["beat"] += is_ours
            if content is not None and is_ours:
                self._beat(folder)
            else:
                self._replace(folder)
        return ""

    def _watch(self, folder: int, content: bytes, now: float) -> str:
        found = _parsed(content)
        words = f"host {found.get('host')}, pid {found.get('pid')}, since {found.get('since')}"
        # One short printable line: others may write in an inbox too.
        owner = "".join(letter for letter in words[:200] if letter.isprintable())
        if content == self._seen:
            # Time in which this daemon did not look is not silence of the owner.
            self._silent_seconds += min(now - self._looked_at, 2 * WATCH_SECONDS)
        else:
            self._silent_seconds, self._is_alive = 0.0, self._seen is not None
            if self._seen is None and self._record["beat"]:
                log.error("inbox.lost", folder=self._folder, owner=owner)
        self._seen = content
        if self._silent_seconds >= STALE_SECONDS:
            log.warning("inbox.taken_over", folder=self._folder, owner=owner)
            self._silent, self._is_alive = content, False
            if self._token is None:
                return ""
            self._replace(folder)
            # Another newcomer may have done the same: the next look shows the record that won.
            return f"another dropscribe had it ({owner})"
        if self._is_alive:
            return f"another dropscribe has it ({owner}): {REMEDY}"
        return f"another dropscribe may have it ({owner}): watched for {STALE_SECONDS:.0f} s"

    def _replace(self, folder: int) -> None:
        """Put our record in its place in one step, also in the place of another owner's."""
        name, flags = b"owner-%d" % os.getpid(), os.O_CREAT | os.O_EXCL | os.O_WRONLY | _OPEN
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        with closing(os.open(name, flags, 0o644, dir_fd=folder)) as descriptor:
            os.write(descriptor, self._rendered())
        os.rename(name, _NAME, src_dir_fd=folder, dst_dir_fd=folder)
        self._complaint = ""

    def _beat(self, folder: int) -> None:
        try:
            with closing(os.open(_NAME, os.O_RDWR | _OPEN, dir_fd=folder)) as descriptor:
                if _parsed(os.pread(descriptor, _RECORD_BYTES, 0)).get("token") == self._token:
                    os.pwrite(descriptor, self._rendered(), 0)
        except FileNotFoundError:
            self._replace(folder)

    def _rendered(self) -> bytes:
        return json.dumps(self._record).encode().ljust(_RECORD_BYTES - 1) + b"\n"


def _suspended_seconds() -> float:
    """Seconds since the start of the machine in which it slept; the monotonic clock leaves them out."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def _read(folder: int) -> bytes | None:
    """Content of the owner file; None if there is none, b"?" if it cannot be read."""
    try:
        with closing(open_file(folder, _NAME)) as descriptor:
            return os.pread(descriptor, _RECORD_BYTES, 0) or b"?"
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.ELOOP, errno.ENXIO}:
            raise
        return b"?"


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
