"""An inbox on a real folder with a queue in memory, driven by a manual clock or by its own thread."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
import time
from dataclasses import replace

from dropscribe.config.model import FolderRule
from dropscribe.core.errors import StoreFull
from dropscribe.core.model import LiveRow, Submitted
from dropscribe.core.rules import DEFAULT_INCLUDE
from dropscribe.intake.inbox import Inbox


def wav(data_bytes=1000, *, declared_bytes=None):
    """A WAV file of 8 kHz; *declared_bytes* is what its header says, where that is not the truth."""
    declared = data_bytes if declared_bytes is None else declared_bytes
    head = struct.pack(
        *("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + declared & 0xFFFFFFFF, b"WAVE", b"fmt ", 16),
        *(1, 1, 8000, 16000, 2, 16, b"data", declared),
    )
    return head + b"\0" * data_bytes


def split(path):
    """Directory and name of a relative path."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def link_unnamed(descriptor, path):
    """Give a file opened with O_TMPFILE its name: linkat(2) with AT_SYMLINK_FOLLOW, which os.link lacks."""
    source = b"/proc/self/fd/%d" % descriptor
    if ctypes.CDLL(None, use_errno=True).linkat(-100, source, -100, path, 0x400):
        raise OSError(ctypes.get_errno(), "linkat")


class MemoryQueue:
    """A queue that keeps live jobs by identity, as the real one does; see ``InboxQueue``."""

    def __init__(self):
        self.jobs = {}  # (directory, name) → {identity: job}
        self.by_identity = {}
        self.taken, self.withdrawn, self.relocated, self.moved = [], [], [], []
        self.taken_at = {}
        self.is_full = False
        self.calls = 0
        self.lock = threading.Lock()

    def submit(self, jobs):
        self.calls += 1
        if self.is_full:
            raise StoreFull("state", "No space left on device")
        with self.lock:
            return [self._submit(job) for job in jobs]

    def _submit(self, job):
        twin = self.by_identity.get(job.identity)
        if twin is not None:
            return Submitted(is_new=False, live_path=twin.path)
        self._add(job)
        self.taken.append(job)
        self.taken_at[job.path] = time.monotonic()
        return Submitted(is_new=True)

    def relocate(self, renamed, old_path):
        self.relocated.append((old_path, renamed.path))
        job = self.by_identity[renamed.identity]
        self._remove(job)
        self._add(replace(job, path=renamed.path))

    def _add(self, job):
        self.by_identity[job.identity] = job
        self.jobs.setdefault(split(job.path)[0], {})[job.identity] = job

    def live(self, folder, directory):
        return [
            LiveRow(
                split(job.path)[1],
                job.snapshot.inode,
                job.snapshot.device,
                job.stable_inodes,
            )
            for job in list(self.jobs.get(directory, {}).values())
        ]

    def directories(self, folder):
        return [directory for directory, jobs in self.jobs.items() if jobs]

    def withdraw(self, folder, paths, reason):
        self.withdrawn.extend(paths)
        for path in paths:
            self.end(path)

    def moved_device(self, folder, directory, device):
        self.moved.append((directory, device))
        for identity, job in self.jobs[directory].items():
            moved = replace(job, snapshot=replace(job.snapshot, device=device))
            self.jobs[directory][identity] = self.by_identity[identity] = moved

    def take_back_copied(self, folder):
        return ()

    def close_thread(self):
        pass

    def end(self, path):
        """The job at *path* ends."""
        for job in self._at(path):
            self._remove(job)

    def set_device(self, device):
        """As if the rows were written before a remount."""
        for directory in self.directories(""):
            self.moved_device("", directory, device)
        self.moved.clear()

    def _at(self, path):
        return [job for job in self.jobs.get(split(path)[0], {}).values() if job.path == path]

    def _remove(self, job):
        del self.jobs[split(job.path)[0]][job.identity]
        del self.by_identity[job.identity]

    @property
    def paths(self):
        """Paths of the live jobs, sorted."""
        return sorted(job.path for job in self.by_identity.values())


class Station:
    """An inbox without a thread: time passes only when a test says so."""

    def __init__(self, root, queue=None, *, open_source=None, **rule_keys):
        self.root = os.fsencode(root)
        self.now = 1000.0
        self.changes = 0
        self.queue = queue or MemoryQueue()
        keys = {"include": DEFAULT_INCLUDE, "providers": ("main",), **rule_keys}
        self.rule = FolderRule(
            name="calls", inbox=root, done=root.parent / "done", failed=root.parent / "failed", **keys
        )
        more = {"open_source": open_source} if open_source else {}
        self.inbox = Inbox(self.rule, self.queue, self._changed, clock=lambda: self.now, **more)

    def _changed(self):
        self.changes += 1

    def run(self, seconds=0.0):
        """Let *seconds* pass, doing each thing when it is due."""
        until = self.now + seconds
        while True:
            deadline = self.inbox.step(self.now)
            if deadline > until:
                self.now = until
                self.inbox.step(self.now)
                return self
            self.now = max(self.now, deadline)

    @property
    def state(self):
        return self.inbox.state()

    @property
    def device(self):
        """Device number of what is at the inbox now."""
        return os.stat(self.root).st_dev

    @property
    def waiting(self):
        """Path → what the file waits for."""
        return {file.path: file.describe(self.now) for file in self.state.waiting}

    @property
    def paths(self):
        """Live jobs' paths."""
        return self.queue.paths

    def write(self, name, content=None):
        """Write a file in one go; returns its absolute path."""
        path = self.root + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(wav() if content is None else content)
        return path

    def close(self):
        self.inbox._scanner.availability.release()
        self.inbox.stop()


@contextlib.contextmanager
def running(inbox, seconds=10.0):
    """The inbox's own thread at work."""
    inbox.start()
    inbox.begin()
    try:
        yield inbox
    finally:
        inbox.stop()
        wait_until(lambda: not inbox.is_alive(), seconds)


def wait_until(condition, seconds=20.0):
    """Return once *condition* holds; AssertionError if it does not within *seconds*."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)
