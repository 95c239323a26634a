"""Is the inbox ours alone, also among machines that share it? Two queues on one inbox pay for it twice.

The owner writes a beat into the inbox (``files/owner_file.py``). A newcomer does not compare clocks of two
machines: it looks whether the beat goes on, by its own monotonic clock, and takes over from an owner that
has been silent for :data:`STALE_SECONDS`. Only an owner that held the very lock which we hold now is dead
for certain, and is followed at once.

Guarantees: a guard, not a distributed lock. An owner that was frozen, or cut off from its server, for as long
as a newcomer waits is taken over; it notices at its next beat and lets go, and what it had in flight by then
may be paid for twice. Two newcomers at one stale owner are told apart by a second look. It needs a share
on which an opened file is what the server has: NFS with close-to-open consistency (not ``nocto``) and SMB
with ``cache=strict``, the defaults of both. One that cannot be written to is not guarded, and says so.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from dropscribe import __version__
from dropscribe.files.owner_file import (
    Owner,
    Sighting,
    create_owner,
    name_lock,
    read_owner,
    refresh_owner,
    remove_owner,
    replace_owner,
)
from dropscribe.transcripts.document import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

BEAT_SECONDS = 10.0
STALE_SECONDS = 30.0
START_SECONDS = 12.0
"""How long a start waits for a beat of the inbox's owner: a little longer than two beats are apart."""

REMEDY = (
    "stop the other daemon, give each its own inbox, or give both one queue: "
    "`queue: {type: postgres}` (docs/cluster.md)"
)

_MOST_GAP_SECONDS = 4.0
_START_LOOK_SECONDS = 0.25
_NEW_OWNER = "another dropscribe has just taken it"


@dataclass(slots=True)
class Watch:
    """A strange owner, watched for signs of life.

    Attributes:
        is_live: Its beat was seen to go on.
        silent_seconds: For how long it has not, by looks of ours that were prompt.
    """

    seen: Sighting
    looked_at: float
    is_live: bool = False
    silent_seconds: float = 0.0

    def look(self, seen: Sighting, now: float) -> None:
        """Take note of what stands there at the monotonic time *now*."""
        if seen != self.seen:
            self.seen, self.is_live, self.silent_seconds = seen, True, 0.0
        else:
            # While we were frozen, or the server away, the owner could not beat either.
            self.silent_seconds += min(now - self.looked_at, _MOST_GAP_SECONDS)
        self.looked_at = now

    def __str__(self) -> str:
        if self.is_live:
            return f"another dropscribe has it ({self.seen}): {REMEDY}"
        return f"another dropscribe may have it ({self.seen}): watched for {STALE_SECONDS:.0f} s"


class Ownership:
    """One inbox's owner file, as the inbox's thread keeps it.

    Args:
        folder: Name of the folder rule, for the log.
        inbox: Its path.
        exclusive: False where several daemons share one queue: then no file is written, and only an
            owner who does not share it is respected.
        wall: The time of day.

    Attributes:
        is_undecided: Somebody's file is there, and it is not known yet whether he lives.
    """

    def __init__(
        self, folder: str, inbox: bytes, *, exclusive: bool = True, wall: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._inbox = inbox
        self._is_exclusive = exclusive
        self._me = Owner(
            host=socket.gethostname(),
            pid=os.getpid(),
            token=secrets.token_hex(8),
            version=__version__,
            started_at=utc_text(wall()) or "",
        )
        self._identity: tuple[int, int] | None = None
        self._watch: Watch | None = None
        self._silent: Sighting | None = None  # judged dead, and could not be replaced
        self._may_work = False
        self._was_ours = False
        self._beat_at = 0.0
        self._complaint = ""
        self.is_undecided = False

    def look(self, now: float, identity: tuple[int, int]) -> str:
        """Claim, beat or watch, whatever is due at the monotonic time *now*.

        Args:
            now: Asked again every two seconds or so.
            identity: (st_dev, st_ino) of the inbox; its lock is ours.

        Returns:
            Why the inbox is not ours, or "" where it is, or cannot be claimed at all.
        """
        if identity != self._identity:
            self.forget()
            self._identity = identity
            self._me = replace(self._me, lock=name_lock(identity) if self._is_exclusive else "")
        if self._may_work and now < self._beat_at:
            return ""
        self._beat_at = now + BEAT_SECONDS
        reason = self._try(now)
        self._may_work = not reason
        self.is_undecided = bool(reason) and not (self._watch and self._watch.is_live)
        return reason

    def keep(self, now: float) -> float:
        """Beat on, no more than that, while what is in flight ends; returns when to be asked again."""
        if self._was_ours and now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS
            with contextlib.suppress(OSError):
                self._was_ours = self._beat()
        return self._beat_at if self._was_ours else float("inf")

    def forget(self) -> None:
        """The inbox is away: whoever has it then is seen when it is back."""
        self._watch = self._silent = None
        self._may_work = self._was_ours = self.is_undecided = False

    def release(self) -> None:
        """Let others have it at once."""
        with contextlib.suppress(OSError):
            seen = read_owner(self._inbox) if self._is_exclusive else None
            if seen and _has_token(seen, self._me.token):
                remove_owner(self._inbox, seen)
        self.forget()

    def _try(self, now: float) -> str:
        try:
            seen = read_owner(self._inbox)
        except OSError as error:
            if self._watch is not None:
                return str(self._watch)
            self._complain(error)
            return ""
        try:
            reason = self._judge(seen, now)
        except FileExistsError:
            return _NEW_OWNER
        except OSError as error:
            self._complain(error)
            self._silent, self._watch = seen, None
            return ""
        if self._was_ours:
            self._complaint = ""
        return reason

    def _judge(self, seen: Sighting | None, now: float) -> str:
        if seen is None:
            self._watch = None
            self._claim()
        elif _has_token(seen, self._me.token):
            self._watch = None
            self._was_ours = self._beat()
            return "" if self._was_ours else _NEW_OWNER
        elif seen != self._silent:
            return self._face(seen, now)
        return ""

    def _face(self, seen: Sighting, now: float) -> str:
        """Somebody else's file stands there."""
        if self._was_ours:
            self._was_ours = False
            log.error("inbox.lost", folder=self._folder, owner=str(seen))
        self._silent = None
        if self._me.lock and seen.owner and seen.owner.lock == self._me.lock:
            self._take_over(seen, 0.0)
            self._was_ours = True
            return ""
        if self._watch is None:
            self._watch = Watch(seen, now)
        else:
            self._watch.look(seen, now)
        reason = str(self._watch)
        if self._watch.silent_seconds < STALE_SECONDS:
            return reason
        self._take_over(seen, self._watch.silent_seconds)
        self._watch = None
        # Whether it stays ours is seen at the next look: another newcomer may do the same now.
        return reason if self._is_exclusive else ""

    def _take_over(self, seen: Sighting, silent_seconds: float) -> None:
        if self._is_exclusive:
            replace_owner(self._inbox, self._me)
        else:
            remove_owner(self._inbox, seen)
        log.warning(
            "inbox.taken_over",
            folder=self._folder,
            host=seen.owner.host if seen.owner else None,
            owner=str(seen),
            silent_seconds=round(silent_seconds),
        )

    def _claim(self) -> None:
        if self._is_exclusive:
            create_owner(self._inbox, self._me)
            self._was_ours = True

    def _beat(self) -> bool:
        self._me = replace(self._me, beat=self._me.beat + 1)
        return refresh_owner(self._inbox, self._me)

    def _complain(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self._complaint:
            self._complaint = reason
            log.warning("inbox.unguarded", folder=self._folder, reason=reason)


def find_live_owner(
    inbox: bytes,
    *,
    trusts_lock: bool = True,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sighting | None:
    """Wait for a beat of *inbox*'s owner, before a start; at once where there is no owner file.

    Args:
        inbox: Its path; it may be missing.
        trusts_lock: The inbox is locked next, which tells whether an owner lives who holds that lock.

    Returns:
        The owner, seen to live within :data:`START_SECONDS`; else None, and the inbox's thread watches on.
    """
    try:
        first = read_owner(inbox)
        status = os.stat(inbox)
        until = clock() + START_SECONDS
        while first is not None and clock() < until:
            lock = first.owner.lock if first.owner else ""
            if trusts_lock and lock and lock == name_lock((status.st_dev, status.st_ino)):
                return None
            sleep(_START_LOOK_SECONDS)
            seen = read_owner(inbox)
            if seen is None or seen != first:
                return seen
    except OSError:
        pass
    return None


def _has_token(seen: Sighting, token: str) -> bool:
    return seen.owner is not None and seen.owner.token == token
