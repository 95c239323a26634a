"""One inbox's thread, and what the rest of the house may ask of it.

Guarantees: nothing here blocks the event loop, and a mount that hangs stops this inbox alone; no error of
a disk or of the queue ends the thread.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreBusy
from dropscribe.intake.scanner import Scanner
from dropscribe.intake.sources import open_hints
from dropscribe.intake.state import MOST_WAITING, InboxState, count, describe_wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import FolderRule
    from dropscribe.files.mounts import Mount
    from dropscribe.intake.hints import HintSource
    from dropscribe.intake.job_sink import JobSink

log = structlog.get_logger()

_AFTER_ERROR_SECONDS = 1.0
_TELL_SECONDS = 0.1
_LONGEST_SLEEP_SECONDS = 3600.0
_TRICKLE_SECONDS = 0.02
_TOGETHER_SECONDS = 0.005
_IDLE_SECONDS = 0.0003
"""Hints that come one by one, each soon after the last, are read together: while files are filed, each that
leaves the inbox is one, and every turn of this thread takes the interpreter from those that file. In a
flood, where this thread has no idle moment between them, it does not rest."""


class Inbox:
    """Turns the files of one rule's inbox into jobs.

    Args:
        rule: The folder rule.
        queue: Called from the inbox's thread alone.
        on_change: Called from the inbox's thread when :meth:`state` has news.
        clock: Monotonic seconds.
        open_source: Makes the hint source of an inbox; tests give another.
        exclusive: See :class:`~dropscribe.intake.ownership.Ownership`.
    """

    def __init__(
        self,
        rule: FolderRule,
        queue: JobSink,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        open_source: Callable[[FolderRule, Mount], HintSource | None] = open_hints,
        *,
        exclusive: bool = True,
    ) -> None:
        self.rule = rule
        self._on_change = on_change
        self._clock = clock
        self._queue = queue
        self._rounds = Scanner(rule, queue, time.time, open_source, exclusive=exclusive)
        self._changed: collections.deque[bytes] = collections.deque()
        self._is_poked = threading.Event()
        self._is_resting = threading.Event()
        self._has_rested = threading.Event()
        self._is_stopping = threading.Event()
        self._readable, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=f"inbox {rule.name}", daemon=True)
        self._told: tuple[object, ...] = ()
        self._woken_at = 0.0
        self._told_at = float("-inf")
        self._queue_away = ""

    def lock(self) -> None:
        """Lock the inbox before :meth:`start`; a missing one is locked when it comes.

        Raises:
            StoreInUse: Another daemon has it.
        """
        self._rounds.root.lock()

    def unlock(self) -> None:
        """Undo :meth:`lock` where :meth:`start` will not follow."""
        self._rounds.root.unlock()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def rest(self) -> None:
        """Ask the thread to take nothing more, and to keep the inbox ours until :meth:`stop`."""
        self._is_resting.set()
        self._wake_up()

    def wait_for_rest(self, timeout_seconds: float) -> bool:
        """Wait until nothing more is taken; False where the thread hangs in a mount."""
        return self._thread.ident is None or self._has_rested.wait(timeout_seconds)

    def stop(self) -> None:
        """Ask the thread to end; returns at once."""
        self._is_stopping.set()
        self._wake_up()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread's end; False where it hangs in a mount, and is left behind."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def poke(self) -> None:
        """List the inbox soon."""
        self._is_poked.set()
        self._wake_up()

    def changed(self, path: bytes) -> None:
        """The file changed after it had been handed over: take it again, once quiet for longer."""
        self._changed.append(path)
        self._wake_up()

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake; closed: it has ended
            os.write(self._wake, b"x")

    def state(self) -> InboxState:
        """What there is to say now; cheap, and never blocked by a mount."""
        now = self._clock()
        rounds = self._rounds
        entries = rounds.settler.pending.items()
        unlistable = dict(rounds.lister.unlistable)
        waiting = {path: f"may not be listed: {why}" for path, why in unlistable.items()}
        waiting.update((path, describe_wait(entry, now)) for path, entry in entries[:MOST_WAITING])
        crowd = count(entries)
        mount = rounds.mount
        return InboxState(
            available=not rounds.reason,
            reason=rounds.reason,
            is_undecided=rounds.owner.is_undecided,
            watch="native" if rounds.hints else "poll",
            settling=crowd.settling,
            blocked=crowd.blocked + len(unlistable),
            waiting=waiting,
            scanned_once=rounds.scanned_once,
            quiet_deadline=crowd.quiet_deadline,
            found_without_hint=rounds.found_without_hint,
            overflows=rounds.overflows,
            files_seen=rounds.settler.files_seen,
            last_scan_seconds=rounds.schedule.last_work_seconds,
            file_system=mount.name if mount else "",
            device=mount.device if mount else 0,
            oldest_settling_at=crowd.oldest_at,
        )

    def _run(self) -> None:
        try:
            while not self._is_stopping.is_set():
                self._wait_until(self._step_safely())
        finally:
            self._has_rested.set()
            self._rounds.release()
            self._queue.close_thread()

    def _step_safely(self) -> float:
        now = self._clock()
        try:
            deadline = self.step(now)
        except StoreBusy as error:
            self._note_queue(error.reason)
        except Exception:
            log.exception("inbox.failed", folder=self.rule.name)
        else:
            self._note_queue("")
            return deadline
        self._rounds.recover(now)
        self._is_stopping.wait(_AFTER_ERROR_SECONDS)
        return now

    def _note_queue(self, away: str) -> None:
        if away and not self._queue_away:
            log.warning("inbox.waiting", folder=self.rule.name, reason=away)
        self._queue_away = away

    def _wait_until(self, deadline: float) -> None:
        seconds = deadline - self._clock()
        if seconds > 0:
            poll = select.poll()
            poll.register(self._readable, select.POLLIN)
            if self._rounds.hints is not None:
                poll.register(self._rounds.hints.fileno(), select.POLLIN)
            idle_at = self._clock()
            # Rounded up: a poll that ends a fraction early would spin.
            is_woken = bool(poll.poll(int(min(seconds, _LONGEST_SLEEP_SECONDS) * 1000) + 1))
            self._rest_in_trickle(idle_at, is_woken=is_woken)
        with contextlib.suppress(BlockingIOError):
            os.read(self._readable, 4096)

    def _rest_in_trickle(self, idle_at: float, *, is_woken: bool) -> None:
        now = self._clock()
        was_idle = now - idle_at > _IDLE_SECONDS
        if is_woken and was_idle and now - self._woken_at < _TRICKLE_SECONDS:
            time.sleep(_TOGETHER_SECONDS)
        self._woken_at = now

    def step(self, now: float) -> float:
        """Do what is due at the monotonic time *now*; returns the time of the next step."""
        if self._is_resting.is_set():
            self._has_rested.set()
            return self._rounds.rest(now)
        if self._is_poked.is_set():
            self._is_poked.clear()
            self._rounds.schedule.ask(now, full=True)
        changed = [self._changed.popleft() for _ in range(len(self._changed))]
        deadline = now
        try:
            deadline = self._rounds.step(now, changed)
        finally:
            tell_at = self._tell(now)
        return min(deadline, tell_at)

    def _tell(self, now: float) -> float:
        """Say that there is news, in a burst only now and then; returns when to say the rest."""
        rounds = self._rounds
        turn = (rounds.reason, rounds.scanned_once, len(rounds.settler.pending) == 0)
        news = (*turn, rounds.settler.files_seen, len(rounds.settler.pending))
        if news == self._told:
            return float("inf")
        if turn == self._told[:3] and now < self._told_at + _TELL_SECONDS:
            return self._told_at + _TELL_SECONDS
        self._told, self._told_at = news, now
        self._on_change()
        return float("inf")
