"""Threads for blocking calls that may never return."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(Executor):
    """A pool of daemon threads.

    The interpreter joins the threads of a ``ThreadPoolExecutor`` at its exit, so that one call into a hanging
    mount would keep the process from ending. It does not join daemon threads.

    Args:
        most: Threads at most; they are started when they are needed.
        name: Prefix of the threads' names.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls: deque[tuple[Future[object], Callable[[], object]]] = deque()
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_shut = False

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See :class:`concurrent.futures.Executor`."""
        future: Future[T] = Future()
        with self._wake:
            if self._is_shut:
                raise RuntimeError("the pool is shut down")
            self._calls.append((future, lambda: call(*args, **kwargs)))  # type: ignore[arg-type]  # Future is invariant
            if len(self._calls) > self._idle and len(self._threads) < self._most:
                name = f"{self._name}-{len(self._threads) + 1}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no thread can be started: a running one takes the call later
                    if not self._threads:
                        self._calls.pop()
                        raise
                else:
                    self._threads.append(thread)
                    self._idle += 1
            else:
                self._wake.notify()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:  # the base's
        """Take no more calls; queued ones are cancelled. By default nothing is waited for."""
        with self._wake:
            self._is_shut = True
            while cancel_futures and self._calls:
                self._calls.popleft()[0].cancel()
            self._wake.notify_all()
        for thread in self._threads if wait else ():
            thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._calls and not self._is_shut:
                    self._wake.wait()
                if not self._calls:
                    return
                future, call = self._calls.popleft()
                self._idle -= 1
            result, error = _outcome(future, call)
            with self._wake:
                self._idle += 1  # before the result is set: the caller's next call can then use this thread
            if error is not None:
                future.set_exception(error)
            elif not future.cancelled():
                future.set_result(result)
            del future, call, result, error  # an idle thread keeps nothing alive


def _outcome(future: Future[object], call: Callable[[], object]) -> tuple[object, BaseException | None]:
    """The result of *call*, or its exception; nothing is done for a cancelled *future*."""
    if not future.set_running_or_notify_cancel():
        return None, None
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001  # the caller gets it
        return None, error
