"""One inbox's thread, with its interface for other parts of the daemon.

Guarantees: nothing here blocks the event loop, and a mount that hangs stops this inbox alone and is reported.
No error of a disk or of the queue ends the thread. Other threads only ever see immutable snapshots.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreBusy
from dropscribe.core.settling import Cause
from dropscribe.intake.root import TAKEN
from dropscribe.intake.scanner import Scanner
from dropscribe.intake.sources import open_hints
from dropscribe.intake.state import MOST_WAITING, InboxState, WaitingFile, summarize

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import FolderRule
    from dropscribe.files.mounts import Mount
    from dropscribe.intake.hints import HintSource
    from dropscribe.intake.job_sink import JobSink

log = structlog.get_logger()

HANGS_SECONDS = 10.0
"""A step that has not ended after so long hangs in the inbox's file system, or waits for the queue."""

_AFTER_ERROR_SECONDS = 1.0
_REPORT_SECONDS = 0.1
_LONGEST_SLEEP_SECONDS = 3600.0
_FEW_FILES = 500  # so many are summarized at every step; more only now and then


class Inbox:
    """Turns the files of one rule's inbox into jobs.

    Args:
        rule: The folder rule.
        queue: Called from the inbox's thread only.
        on_change: Called from the inbox's thread when :meth:`state` has changed.
        clock: Monotonic seconds.
        open_source: Makes the hint source of an inbox; tests pass another.
        owner_token: See :class:`~dropscribe.intake.owner_file.OwnerFile`.
    """

    def __init__(
        self,
        rule: FolderRule,
        queue: JobSink,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        open_source: Callable[[FolderRule, Mount], HintSource | None] = open_hints,
        *,
        owner_token: str | None = "",
    ) -> None:
        self.rule = rule
        self._on_change = on_change
        self._clock = clock
        self._queue = queue
        self._scanner = Scanner(rule, queue, self._note_progress, open_source, owner_token)
        self._changed: collections.deque[bytes] = collections.deque()
        self._is_poked = threading.Event()
        self._may_take = threading.Event()
        self._has_looked = threading.Event()
        self._is_resting = threading.Event()
        self._has_rested = threading.Event()
        self._is_stopping = threading.Event()
        self._wake_lock = threading.Lock()
        self._wake: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=f"inbox {rule.name}", daemon=True)
        self._state = InboxState(available=False, reason=self._scanner.reason)
        self._step_began_at: float | None = None
        self._reported: tuple[object, ...] = ()
        self._reported_at = float("-inf")
        self._queue_trouble = ""

    def start(self) -> None:
        """Start the thread. It locks the inbox if it is there, and takes no file before :meth:`begin`."""
        self._thread.start()

    def begin(self) -> None:
        """Start to take files."""
        self._may_take.set()
        self._wake_up()

    def has_scanned(self) -> bool:
        """Whether the first look at the inbox has ended; false for as long as its mount hangs."""
        return self._has_looked.is_set()

    def is_taken(self) -> bool:
        """Whether another daemon on this machine has the inbox."""
        return self._state.reason == TAKEN

    def rest(self) -> None:
        """Ask the thread to take nothing more, and to keep the inbox locked until :meth:`stop`."""
        self._is_resting.set()
        self._wake_up()

    def has_rested(self) -> bool:
        """Whether nothing more is taken; false for as long as the thread hangs in a mount."""
        return self._thread.ident is None or self._has_rested.is_set()

    def stop(self) -> None:
        """Ask the thread to end; returns at once."""
        self._is_stopping.set()
        self._may_take.set()
        self._wake_up()
        if self._thread.ident is None:
            self._close()

    def is_alive(self) -> bool:
        """Whether the thread has not ended yet."""
        return self._thread.is_alive()

    def poke(self) -> None:
        """List the inbox soon."""
        self._is_poked.set()
        self._wake_up()

    def changed(self, path: bytes) -> None:
        """The file changed after it had been handed over: take it again, after a longer quiet time."""
        self._changed.append(path)
        self._wake_up()

    def _wake_up(self) -> None:
        with self._wake_lock:
            if self._wake is not None:
                with contextlib.suppress(BlockingIOError):  # it will wake up anyway
                    os.eventfd_write(self._wake, 1)

    def _note_progress(self) -> None:
        """Note that the file system has answered; the time limit of this step begins anew."""
        if self._step_began_at is not None:
            self._step_began_at = self._clock()

    def state(self) -> InboxState:
        """The newest snapshot; never blocked by a mount, and safe to call from any thread."""
        state, seconds = self._state, self._waited_seconds()
        if seconds < HANGS_SECONDS:
            return state
        reason = f"its file system has not answered for {seconds:.0f} s"
        return replace(state, available=False, reason=reason)

    def is_hanging(self) -> bool:
        """Whether the thread has been waiting for the file system for too long."""
        return self._waited_seconds() >= HANGS_SECONDS

    def _waited_seconds(self) -> float:
        began_at = self._step_began_at
        return 0.0 if began_at is None else self._clock() - began_at

    def describe_waiting(self) -> dict[bytes, str]:
        """Reasons of up to 200 waiting files, by path."""
        return dict(self._state.describe_waiting(self._clock()))

    def idle_writers(self) -> tuple[bytes, ...]:
        """Files that a process keeps open for writing without writing."""
        return self._state.idle_writers(self._clock())

    def _run(self) -> None:
        try:
            self._step_began_at = self._clock()
            self._look_first()
            self._may_take.wait()
            while not self._is_stopping.is_set():
                self._wait_until(self._step_safely())
        finally:
            self._has_looked.set()
            self._has_rested.set()
            self._scanner.release()
            self._queue.close_thread()
            self._close()

    def _look_first(self) -> None:
        reason = self._scanner.root.check()
        self._step_began_at = None
        if reason:
            self._state = replace(self._state, reason=reason)
        self._has_looked.set()

    def _close(self) -> None:
        with self._wake_lock:
            if self._wake is not None:
                os.close(self._wake)
                self._wake = None

    def _step_safely(self) -> float:
        now = self._clock()
        self._step_began_at = now
        try:
            deadline = self.step(now)
        except StoreBusy as error:
            self._note_queue(error.reason)
        except Exception:
            log.exception("inbox.failed", folder=self.rule.name)
        else:
            self._note_queue("")
            return deadline
        finally:
            self._step_began_at = None
        self._scanner.recover(now)
        self._is_stopping.wait(_AFTER_ERROR_SECONDS)
        return now

    def _note_queue(self, trouble: str) -> None:
        if trouble and not self._queue_trouble:
            log.warning("inbox.waiting", folder=self.rule.name, reason=trouble)
        self._queue_trouble = trouble

    def _wait_until(self, deadline: float) -> None:
        wake = self._wake
        assert wake is not None  # noqa: S101  # closed only when this thread ends
        seconds = deadline - self._clock()
        if seconds > 0:
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            if self._scanner.hints is not None:
                poll.register(self._scanner.hints.fileno(), select.POLLIN)
            # Rounded up: a poll that ends a fraction early would spin.
            poll.poll(int(min(seconds, _LONGEST_SLEEP_SECONDS) * 1000) + 1)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(wake)

    def step(self, now: float) -> float:
        """Run the steps that are due at the monotonic time *now*; returns the time of the next one."""
        if self._is_resting.is_set():
            self._has_rested.set()
            return self._scanner.rest(now)
        if self._is_poked.is_set():
            self._is_poked.clear()
            self._scanner.schedule.ask(now, full=True)
        changed = [self._changed.popleft() for _ in range(len(self._changed))]
        deadline = report_at = now
        try:
            deadline = self._scanner.step(now, changed)
        finally:
            report_at = self._report(now)
        return min(deadline, report_at)

    def _report(self, now: float) -> float:
        """Publish a snapshot if there is news, in a burst only now and then; returns when to do so again."""
        scanner = self._scanner
        pending = scanner.settler.pending
        turn = (scanner.reason, scanner.scanned_once, len(pending) == 0)
        news = (
            *turn,
            *(len(pending), scanner.settler.looks, scanner.settler.files_seen, scanner.overflows),
            *(len(scanner.lister.unlistable), scanner.owner.is_undecided, scanner.hints is None),
        )
        if news == self._reported:
            return float("inf")
        is_soon = now < self._reported_at + _REPORT_SECONDS
        if turn == self._reported[:3] and is_soon and len(pending) > _FEW_FILES:
            return self._reported_at + _REPORT_SECONDS
        self._state = self._snapshot()
        if turn != self._reported[:3] or not is_soon:
            self._reported, self._reported_at = news, now
            self._on_change()
            return float("inf")
        return self._reported_at + _REPORT_SECONDS

    def _snapshot(self) -> InboxState:
        scanner = self._scanner
        unlistable = tuple(
            WaitingFile(path, Cause.TROUBLE, f"may not be listed: {why}")
            for path, why in list(scanner.lister.unlistable.items())[:MOST_WAITING]
        )
        stats = summarize(scanner.settler.pending.items())
        mount = scanner.mount
        return InboxState(
            available=not scanner.reason,
            reason=scanner.reason,
            is_undecided=scanner.owner.is_undecided,
            watch="native" if scanner.hints else "poll",
            settling=stats.settling,
            blocked=stats.blocked + len(scanner.lister.unlistable),
            waiting=unlistable + stats.waiting,
            scanned_once=scanner.scanned_once,
            quiet_deadline=stats.quiet_deadline,
            found_without_hint=scanner.found_without_hint,
            overflows=scanner.overflows,
            files_seen=scanner.settler.files_seen,
            last_scan_seconds=scanner.schedule.last_work_seconds,
            file_system=mount.name if mount else "",
            device=mount.device if mount else 0,
            oldest_settling_at=stats.oldest_at,
        )
