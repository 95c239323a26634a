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
from collections.abc import Callable, Iterator
from dataclasses import replace

import structlog

from dropscribe.config.model import FolderRule
from dropscribe.core.errors import StoreBusy, StoreFull
from dropscribe.files.mounts import Mount
from dropscribe.intake.availability import InboxContext
from dropscribe.intake.hints import HintSource, open_hints
from dropscribe.intake.inbox_queue import InboxQueue
from dropscribe.intake.pending import InboxState
from dropscribe.intake.scanner import Scanner

log = structlog.get_logger()

HANGS_SECONDS = 10.0
"""A step that has not ended after so long hangs in the inbox's file system, or waits for the queue."""

_AFTER_ERROR_SECONDS = 1.0
_FEW_FILES = 500  # up to so many are summarized at every step, more only at intervals
_REPORT_SECONDS = 0.2
_LONGEST_SLEEP_SECONDS = 3600.0


class Inbox:
    """Turns the files of one rule's inbox into jobs.

    Args:
        queue: Called from the inbox's thread only.
        on_change: Called from the inbox's thread when :meth:`state` has changed.
        owner_token: See :class:`~dropscribe.intake.owner_file.OwnerFile`.
    """

    def __init__(
        self,
        rule: FolderRule,
        queue: InboxQueue,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        open_source: Callable[[FolderRule, Mount], HintSource | None] = open_hints,
        *,
        owner_token: str | None = "",
    ) -> None:
        self.rule = rule
        self._clock = clock
        self._queue = queue
        self._step_timer = _StepTimer(clock)
        root, timer = os.fsencode(rule.inbox), self._step_timer
        waits = timer.note_progress, timer.asking_queue
        context = InboxContext(rule, root, rule.patterns, queue, open_source, owner_token, *waits)
        self._scanner = Scanner(context)
        self._on_change = on_change
        self._state = InboxState(available=False, reason=self._scanner.availability.reason)
        self._reported: tuple[object, ...] = ()
        self._report_at = float("-inf")
        self._asked: collections.deque[bytes | None] = collections.deque()
        self._is_resting = False
        self._failure = ""  # Why the last step failed
        self.has_looked = False  # the first look has ended; false for as long as its mount hangs
        self.has_rested = False  # nothing more is taken; the same
        self._may_take = threading.Event()
        self._is_stopping = threading.Event()
        self._wake_up = _WakeUp()
        self._thread = threading.Thread(target=self._run, name=f"inbox {rule.name}", daemon=True)

    def start(self) -> None:
        """Start the thread. It locks the inbox if it is there, and takes no file before :meth:`begin`."""
        self._thread.start()

    def begin(self) -> None:
        """Start to take files."""
        self._may_take.set()
        self._wake_up.set()

    def rest(self) -> None:
        """Ask the thread to take nothing more, and to keep the inbox locked until :meth:`stop`."""
        self._is_resting = True
        self._wake_up.set()

    def stop(self) -> None:
        """Ask the thread to end; returns at once."""
        self._is_stopping.set()
        self.begin()
        if self._thread.ident is None:
            self._wake_up.close()

    def is_alive(self) -> bool:
        """Whether the thread has not ended yet."""
        return self._thread.is_alive()

    @property
    def seen_folder(self) -> tuple[int, int] | None:
        """Device and inode of the folder that the last look found, locked or not; None if there was none."""
        return self._scanner.availability.root.seen

    def look_again(self, changed: bytes | None = None) -> None:
        """List the inbox soon; a file that *changed* after it had been handed over waits longer now."""
        self._asked.append(changed)
        self._wake_up.set()

    def state(self) -> InboxState:
        """The newest snapshot; never blocked by a mount, and safe to call from any thread."""
        state, seconds = self._state, self._step_timer.waited_seconds()
        if seconds < HANGS_SECONDS:
            return replace(state, reason=self._failure or state.reason)
        reason = f"{self._step_timer.waits_for} has not answered for {seconds:.0f} s"
        return replace(state, available=False, reason=reason)

    def is_hanging(self) -> bool:
        """Whether the thread has been waiting for the file system for too long."""
        return self._step_timer.waited_seconds() >= HANGS_SECONDS

    def _run(self) -> None:
        availability = self._scanner.availability
        try:
            with self._step_timer.step():
                reason = availability.root.check()
            if reason:
                self._state = replace(self._state, reason=reason)
            self.has_looked = True
            self._may_take.wait()
            while not self._is_stopping.is_set():
                deadline = self._step_safely()
                self._wake_up.wait(deadline - self._clock(), availability.hints)
        finally:
            self.has_looked = self.has_rested = True
            availability.release()
            self._queue.close_thread()
            self._wake_up.close()

    def _step_safely(self) -> float:
        now = self._clock()
        try:
            with self._step_timer.step():
                deadline = self.step(now)
        except (StoreBusy, StoreFull) as error:
            if not self._failure:
                log.warning("inbox.waiting", folder=self.rule.name, reason=error.reason)
            self._note_failure(f"the queue cannot be used now: {error.reason}")
        except Exception as error:
            reason = f"an internal error, which is in the log: {error!r}"
            if self._failure != reason:
                log.exception("inbox.failed", folder=self.rule.name)
            self._note_failure(reason)
        else:
            self._note_failure("")
            return deadline
        self._scanner.recover(now)
        self._is_stopping.wait(_AFTER_ERROR_SECONDS)
        return now

    def _note_failure(self, reason: str) -> None:
        before, self._failure = self._failure, reason
        if before != reason:
            self._on_change()

    def step(self, now: float) -> float:
        """Run the steps that are due at the monotonic time *now*; returns the time of the next one."""
        if self._is_resting:
            self.has_rested = True
            return self._scanner.availability.rest(now)
        if asked := [self._asked.popleft() for _ in range(len(self._asked))]:
            self._scanner.ask(now)
        try:
            deadline = self._scanner.step(now, [path for path in asked if path is not None])
        finally:
            report_at = self._report(now)
        return min(deadline, report_at)

    def _report(self, now: float) -> float:
        """Publish a new snapshot if the state has changed; returns the time of the next call."""
        scanner = self._scanner
        availability, settler, lister = scanner.availability, scanner.settler, scanner.lister
        waiting = len(settler.pending.entries)
        urgent = (availability.reason, scanner.scanned_once, lister.has_unconfirmed, waiting == 0)
        changing = (
            *urgent,
            *(availability.is_undecided, availability.hints is None),
            *(scanner.overflows, len(lister.unlistable), waiting, settler.looks),
        )
        if changing == self._reported:
            return float("inf")
        is_early = now < self._report_at and urgent == self._reported[: len(urgent)]
        # A snapshot goes through all waiting files: too much work for each hint of one file.
        if not is_early or waiting <= _FEW_FILES:
            self._state = scanner.snapshot()
        if is_early:
            return self._report_at
        self._reported, self._report_at = changing, now + _REPORT_SECONDS
        self._on_change()
        return float("inf")


class _StepTimer:
    """How long the thread's step has waited for the file system or the queue; read from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self.waits_for = "its file system"

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Measure the step that runs inside the block."""
        self._since = self._clock()
        try:
            yield
        finally:
            self._since = None

    @contextlib.contextmanager
    def asking_queue(self) -> Iterator[None]:
        """The block waits for the queue alone, which another program may have locked."""
        before, self.waits_for = self.waits_for, "the queue"
        self.note_progress()
        try:
            yield
        finally:
            self.note_progress()
            self.waits_for = before

    def note_progress(self) -> None:
        """The file system has answered; the time limit of this step begins anew."""
        if self._since is not None:
            self._since = self._clock()

    def waited_seconds(self) -> float:
        """Seconds since the step began, or since the last answer; 0 between steps."""
        since = self._since
        return 0.0 if since is None else self._clock() - since


class _WakeUp:
    """Lets an inbox's thread sleep until hints come, time is over, or another thread wakes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        """Wake the thread up; safe to call from any thread, and after :meth:`close`."""
        with self._lock:
            if self._event is not None:
                with contextlib.suppress(BlockingIOError):  # it will wake up anyway
                    os.eventfd_write(self._event, 1)

    def wait(self, seconds: float, hints: HintSource | None) -> None:
        """Sleep; called by the thread, which alone closes this."""
        event = self._event
        assert event is not None  # noqa: S101
        if seconds <= 0:
            return
        poll = select.poll()
        poll.register(event, select.POLLIN)
        if hints is not None:
            poll.register(hints.fileno(), select.POLLIN)
        # Rounded up: a poll that ends a fraction early would spin.
        ready = poll.poll(int(min(seconds, _LONGEST_SLEEP_SECONDS) * 1000) + 1)
        if (event, select.POLLIN) in ready:
            os.eventfd_read(event)

    def close(self) -> None:
        """Free the descriptor; safe to call twice."""
        with self._lock:
            if self._event is not None:
                os.close(self._event)
                self._event = None
