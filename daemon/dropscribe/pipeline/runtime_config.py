"""What the handler works with, swapped whole at a reload."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from dropscribe.pipeline.batching import BatchExecutor, run_each

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.core.model import Job
    from dropscribe.core.retry import RetryLimits
    from dropscribe.providers.base import Provider

T = TypeVar("T")

DISK_THREADS = 8
"""A folder: its inbox and its done. A mount that hangs holds up its own folder's threads and no other's."""


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """One config and the providers built for it.

    A job that is under way keeps the setup it began with.

    Attributes:
        decorated: (folder, provider) → the provider with what the rule wants done around it; only where
            a rule wants something.
        digests: (folder, provider) → the digest of what shapes an answer, once it was made (reuse.py).
    """

    config: Config
    providers: Mapping[str, Provider]
    limits: RetryLimits
    decorated: Mapping[tuple[str, str], Provider] = field(default_factory=dict)
    digests: dict[tuple[str, str], str] = field(default_factory=dict, compare=False)

    def rule(self, folder: str) -> FolderRule:
        """The rule by name; KeyError is a bug: the engine feeds no folder that has none."""
        return self.config.folders[folder]

    def provider(self, job: Job) -> Provider:
        """Whom *job* goes to, with what its rule wants done around it."""
        return self.decorated.get((job.folder, job.provider)) or self.providers[job.provider]

    def inbox(self, folder: str) -> bytes:
        """The rule's inbox as bytes."""
        return os.fsencode(self.rule(folder).inbox)


class IntakeSide(Protocol):
    """What the work tells the intake."""

    def look_again(self, folder: str) -> None:
        """A file is not where its row says: list the inbox soon."""
        ...

    def distrust(self, folder: str, path: bytes) -> None:
        """The file changed after it had settled: give it twice the quiet time."""
        ...


class DiskThreads:
    """Threads for blocking disk calls, a small pool a folder."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._together: dict[str, BatchExecutor[Callable[[], Any], Any]] = {}

    def of(self, folder: str) -> ThreadPoolExecutor:
        """The folder's pool; threads are made when they are needed."""
        if folder not in self._pools:
            self._pools[folder] = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix=f"disk {folder}")
        return self._pools[folder]

    async def run(self, folder: str, call: Callable[[], T]) -> T:
        """Make a short call in one of the folder's threads, together with those that wait as well."""
        together = self._together.get(folder)
        if together is None:
            together = self._together[folder] = BatchExecutor(self.of(folder), run_each)
        return cast("T", await together.do(call))

    def close(self) -> None:
        """Take no more work; do not wait for a mount that hangs."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
