"""Where paths lead to through links, without waiting for a file system that does not answer."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_THREADS = 4
WAIT_SECONDS = 2.0


def real_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """Each of *paths* without links and ``..``; by its name alone if its file system does not answer in time.

    Returns after at most :data:`WAIT_SECONDS`. A thread that waits for a dead mount is left behind.
    """
    found = {path: os.path.normpath(path) for path in paths}
    waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[Path, str]] = queue.SimpleQueue()
    for each in [*found, *[None] * _THREADS]:
        waiting.put(each)

    def resolve() -> None:
        while (path := waiting.get()) is not None:
            answers.put((path, os.path.realpath(path)))

    for _ in range(min(_THREADS, len(found))):
        threading.Thread(target=resolve, name="real-paths", daemon=True).start()
    deadline = time.monotonic() + WAIT_SECONDS
    for _ in range(len(found)):
        try:
            path, real = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[path] = real
    return found
