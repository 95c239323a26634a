"""Folders of rules that take no files: nothing of theirs is claimed until they do."""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import AudioError
from dropscribe.core.retry import backoff_seconds
from dropscribe.pipeline.disk_threads import FolderHangs, error_words
from dropscribe.publish.places import PlaceRefused, check_places

if TYPE_CHECKING:
    from dropscribe.pipeline.disk_threads import DiskThreads
    from dropscribe.pipeline.handler import Claim
    from dropscribe.queue.engine import Engine

log = structlog.get_logger()

FIRST_CHECK_SECONDS = 1.0
LONGEST_CHECK_SECONDS = 15.0  # longest wait between two checks of a folder that takes no files
_UNWRITABLE = "unwritable"


@dataclass(slots=True)
class PlaceChecks:
    """Closes folders that take no files, and opens them when a check finds a way for files."""

    queue: Engine
    disks: DiskThreads
    _checks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def close_until_writable(self, claim: Claim, reason: str) -> None:
        """Have nothing of a job's folder claimed until its files could be published.

        ``status`` shows *reason*, and then those of later checks.
        """
        folder = claim.job.folder
        self.queue.folders.close(folder, _UNWRITABLE, reason)
        if folder not in self._checks:
            self._checks[folder] = asyncio.create_task(self._check_until_writable(claim))

    async def _check_until_writable(self, claim: Claim) -> None:
        folder = claim.job.folder
        check = partial(check_places, claim.inbox, os.fsencode(claim.rule.done), claim.job.path)
        for count in itertools.count(1):
            await asyncio.sleep(backoff_seconds(FIRST_CHECK_SECONDS, count, LONGEST_CHECK_SECONDS))
            try:
                await self.disks.run(folder, check)
            except FolderHangs:
                continue
            except OSError as error:
                if isinstance(error, PlaceRefused) and not error.is_of_rule:
                    break
                self.queue.folders.close(folder, _UNWRITABLE, error_words(error))
            except AudioError:  # its file has gone: the next one shows whether the trouble is over
                break
            except Exception:
                log.exception("folder.not_checked", folder=folder)
                break
            else:
                log.info("folder.writable", folder=folder)
                break
        self.reopen(folder)

    def reopen(self, folder: str) -> None:
        """End :meth:`close_until_writable`; the next file is checked anew."""
        if check := self._checks.pop(folder, None):
            check.cancel()
            self.queue.folders.open(folder, _UNWRITABLE)

    def close(self) -> None:
        """Check nothing more."""
        for check in self._checks.values():
            check.cancel()
