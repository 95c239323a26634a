"""Threads for blocking calls that may never return."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(Executor):
    """A pool of daemon threads.

    The interpreter joins the threads of a ``ThreadPoolExecutor`` at its exit, so that one call into a hanging
    mount would keep the process from ending. It does not join daemon threads. At most *most* are started, as
    they are needed; *name* begins their names.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls: SimpleQueue[tuple[Future[object], Callable[[], object]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0  # threads without a call; below zero, calls without a thread
        self._threads: list[threading.Thread] = []
        self._is_shut = False

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See :class:`concurrent.futures.Executor`."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("the pool is shut down")
            if self._idle <= 0 and len(self._threads) < self._most:
                self._start_thread()
            self._idle -= 1
            self._calls.put((future, lambda: call(*args, **kwargs)))  # type: ignore[arg-type]  # Future is invariant
        return future

    def _start_thread(self) -> None:
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started: a running one takes the call later
            if not self._threads:
                raise
        else:
            self._threads.append(thread)
            self._idle += 1

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:  # the base's
        """Take no more calls; queued ones are cancelled. By default nothing is waited for."""
        with self._lock:
            self._is_shut = True
            with contextlib.suppress(queue.Empty):
                while cancel_futures:
                    if item := self._calls.get_nowait():
                        item[0].cancel()
            for _ in self._threads:
                self._calls.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _work(self) -> None:
        while item := self._calls.get():
            future, call = item
            result: object = None
            error: BaseException | None = None
            if is_wanted := future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as caught:  # noqa: BLE001  # the caller gets it
                    error = caught
            with self._lock:
                self._idle += 1  # before the result is set: the caller's next call can then use this thread
            if error is not None:
                future.set_exception(error)
            elif is_wanted:
                future.set_result(result)
            del item, future, call, result, error  # an idle thread keeps nothing alive
