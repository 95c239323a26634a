"""Worker processes as the daemon sees them: started on demand, one request at a time, ended when idle.

Guarantees: if a worker crashes, hangs or sends nonsense, the caller gets an exception in bounded time and
the worker is gone; no worker outlives the daemon; a worker's messages are data, never code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dropscribe import __version__
from dropscribe.core import errors
from dropscribe.native.messages import ConnectionLost, Message, receive, send

START_SECONDS = 180.0  # For loading the native libraries, on a slow disk as well
_END_SECONDS = 5.0
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_PREFIXES = ("CUDA_", "NVIDIA_", "CT2_", "MKL_", "DYLD_", "LC_", "COVERAGE_")
_RAISED = ("AudioRejected", "RuleRejected", "ProviderUnusable", "TemporaryFailure")


class WorkerBug(Exception):
    """Raised for an unexpected exception in the worker; holds its traceback as text."""


def error_of_death(phase: str, cause: str) -> errors.ProviderError:
    """Error of the recording or of the machine for a worker that ended by *cause* before it had answered.

    The *phase* is the last one that it reported: "starting", "loading", "decoding", "recognising".
    """
    if cause == "SIGKILL":
        reason = "the system ended the worker process, probably because memory ran out"
        return errors.TemporaryFailure("out_of_memory", reason)
    if phase == "starting":
        return errors.TemporaryFailure("worker_failed", f"the worker process did not start: {cause}")
    if phase == "loading":
        reason = f"the engine crashed before it had read anything ({cause}): it may not suit this machine"
        return errors.ProviderUnusable("engine_crashed", reason)
    if cause == "SIGXCPU":
        return errors.AudioRejected("undecodable", "it takes more processor time than a recording may")
    return errors.AudioRejected("undecodable", f"the decoder crashed on it ({cause})")


class Worker:
    """One worker process."""

    def __init__(self, folders: Sequence[str], *, has_gpu: bool) -> None:
        """Start the process; it may read *folders* beside Python's own.

        Raises TemporaryFailure where it does not start, and ProviderUnusable ("engine_missing") where its
        libraries, or Python itself, are not there, or are of another version of dropscribe by now.
        """
        self._phase = "starting"
        self._connection, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(int(has_gpu)), *folders]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    [sys.executable, "-P", "-m", "dropscribe.native.worker", *arguments],
                    stdin=subprocess.PIPE,  # nothing is written: the worker ends when the pipe is closed
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # a Ctrl-C on the terminal is the daemon's to handle
                    env=child_environment(),
                    cwd="/",
                )
        except OSError as error:
            self._connection.close()
            if isinstance(error, FileNotFoundError | PermissionError):
                reason = f"{error.strerror}: Python was replaced, so dropscribe must be restarted"
                raise errors.ProviderUnusable("engine_missing", f"{sys.executable}: {reason}") from error
            raise error_of_death(self._phase, error.strerror or str(error)) from error
        try:
            self._await_start()
        except BaseException:
            self.close()
            raise

    def _await_start(self) -> None:
        if self._answer(START_SECONDS).body.get("version") != __version__:
            reason = "dropscribe was replaced by another version, so it must be restarted"
            raise errors.ProviderUnusable("engine_missing", reason)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def request(
        self, operation: str, arguments: Mapping[str, Any], descriptor: int, *, silence_seconds: float
    ) -> Iterator[Message]:
        """Messages of one operation on an open file as they come; the last one is of kind "result".

        The worker is ended if it sends nothing for *silence_seconds*. Raises the errors that it answers, and
        AudioRejected, ProviderUnusable or TemporaryFailure for its end.
        """
        try:
            send(self._connection, Message(operation, dict(arguments)), descriptor)
        except ConnectionLost:
            raise self._death() from None
        while True:
            message = self._answer(silence_seconds)
            yield message
            if message.kind == "result":
                return

    def kill(self) -> None:
        """End the process without waiting for its end, from any thread; safe to call twice."""
        self._process.kill()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the process, wait for its end in bounded time, and free the descriptors; safe to call twice."""
        self.kill()
        # A process that hangs in a system call on a dead mount ends when the kernel lets it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _answer(self, seconds: float) -> Message:
        self._connection.settimeout(seconds)
        while True:
            try:
                message = receive(self._connection)
            except TimeoutError:
                self.close()
                raise errors.TemporaryFailure("worker_stalled", f"no progress for {seconds:.0f} s") from None
            except ConnectionLost:
                raise self._death() from None
            if message.kind == "error":
                raise _error(message.body)
            if message.kind != "phase":
                return message
            self._phase = str(message.body.get("phase"))[:40]

    def _death(self) -> errors.ProviderError:
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.close()
            return error_of_death(self._phase, "it sent an invalid message")
        names = {-number: number.name for number in signal.Signals}
        return error_of_death(self._phase, names.get(status, f"exit status {status}"))


class Cancellation:
    """Ends the work on one recording, from any thread."""

    def __init__(self) -> None:
        self._workers: set[Worker] = set()
        self._lock = threading.Lock()
        self.is_requested = False

    def request(self) -> None:
        """End the workers that are at work on the recording, and begin nothing more with it."""
        with self._lock:
            self.is_requested = True
            for worker in self._workers:
                worker.kill()

    @contextlib.contextmanager
    def covers(self, worker: Worker) -> Iterator[None]:
        """Inside the block a cancellation ends *worker*; raises TemporaryFailure after a cancellation."""
        with self._lock:
            if self.is_requested:
                raise interrupted()
            self._workers.add(worker)
        try:
            yield
        finally:
            with self._lock:  # from now on the worker may be another recording's
                self._workers.discard(worker)


def interrupted() -> errors.TemporaryFailure:
    """The error of work that was cancelled."""
    return errors.TemporaryFailure("interrupted", "the attempt was ended")


class WorkerPool:
    """Workers of one kind, kept for a while after their last request."""

    def __init__(self, folders: Sequence[str] = (), *, idle_seconds: float, has_gpu: bool = False) -> None:
        self._folders = tuple(folders)
        self._idle_seconds = idle_seconds
        self._has_gpu = has_gpu
        self._idle: dict[Worker, threading.Timer] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def worker(self, cancellation: Cancellation) -> Iterator[Worker]:
        """A worker for some requests; an exception ends it, a cancellation as a TemporaryFailure."""
        try:
            worker = self._take() or Worker(self._folders, has_gpu=self._has_gpu)
            try:
                with cancellation.covers(worker):
                    yield worker
            except (errors.AudioRejected, errors.RuleRejected):
                self._give_back(worker)  # a refusal is a normal answer: the worker is reusable
                raise
            except BaseException:
                worker.close()
                raise
        except errors.ProviderError as error:
            if cancellation.is_requested:  # this ended the worker, whatever its end looks like
                raise interrupted() from error
            raise
        self._give_back(worker)

    def close(self) -> None:
        """End the idle workers; those at work are ended when they are done. Safe to call twice."""
        self._idle_seconds = 0.0
        for worker in tuple(self._idle):
            self._end(worker)

    def _take(self) -> Worker | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                worker, timer = self._idle.popitem()
            timer.cancel()
            if worker.is_alive:
                return worker
            worker.close()

    def _give_back(self, worker: Worker) -> None:
        with self._lock:
            is_kept = self._idle_seconds > 0 and worker.is_alive
            if is_kept:
                timer = self._idle[worker] = threading.Timer(self._idle_seconds, self._end, [worker])
                timer.daemon = True
                timer.start()
        if not is_kept:
            worker.close()

    def _end(self, worker: Worker) -> None:
        """End an idle worker; nothing if it is at work again."""
        with self._lock:
            timer = self._idle.pop(worker, None)
        if timer is not None:
            timer.cancel()
            worker.close()


def child_environment() -> dict[str, str]:
    """The environment of a process that is to run our code: no keys and tokens, which it does not need."""
    names = [name for name in os.environ if name in _PASSED_ON or name.startswith(_PREFIXES)]
    inherited = {name: os.environ[name] for name in names}
    if path := inherited.get("PYTHONPATH"):  # the child's working directory is another one
        inherited["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    return {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", **inherited}


def _error(body: Mapping[str, Any]) -> Exception:
    name, code, reason = str(body.get("type")), str(body.get("code"))[:100], str(body.get("reason"))[:500]
    if name == "OSError":
        number = body.get("errno")
        return OSError(number if isinstance(number, int) else 0, reason)
    if name == "MemoryError":
        return MemoryError()
    if name in _RAISED:
        error: Exception = getattr(errors, name)(code, reason)
        return error
    return WorkerBug(str(body.get("trace"))[:20_000])
