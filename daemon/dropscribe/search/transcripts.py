"""The files of finished jobs, as far as search reads them. No call waits without end for a file system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import structlog

from dropscribe.core.errors import AudioError
from dropscribe.core.naming import split_name
from dropscribe.files.audio import open_beneath
from dropscribe.reports.patience import ask_disk
from dropscribe.reports.transcript_reader import read_document
from dropscribe.search.passages import passages_of, passages_of_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import Config
    from dropscribe.queue.sql.history import DoneJob
    from dropscribe.search.passages import Passage

T = TypeVar("T")

log = structlog.get_logger()

MOST_TEXT_BYTES = 16 * 1024 * 1024
"""Of a longer plain transcript the beginning is indexed."""


class DoneFolders:
    """Looks into the done folders of a config; a folder that does not answer is not asked again."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._silent: set[bytes] = set()

    def has(self, job: DoneJob) -> bool | None:
        """Whether the audio of *job* is in its rule's done folder; None where that cannot be told now."""
        return self._ask(job, _is_there, otherwise=False)

    def read(self, job: DoneJob) -> list[Passage] | None:
        """The transcript of *job*, empty where there is none; None where the audio is not there."""
        return self._ask(
            job, lambda root, path: _passages(root, path) if _is_there(root, path) else None, otherwise=None
        )

    def _ask(self, job: DoneJob, look: Callable[[bytes, bytes], T | None], otherwise: T | None) -> T | None:
        rule = self._config.folders.get(job.folder)
        root = os.fsencode(rule.done) if rule else b""
        if job.filed.startswith(b"//") or root in self._silent:  # on a mount that this node lacks, or hangs
            return None
        if not rule or not job.filed.startswith(root + b"/"):
            return otherwise
        try:
            return ask_disk(root, lambda: look(root, job.filed[len(root) + 1 :]))
        except OSError:
            self._silent.add(root)
            return None


def _is_there(root: bytes, path: bytes) -> bool | None:
    if not os.path.isdir(root):
        return None  # a share that is not mounted is not an empty folder
    try:
        os.close(open_beneath(root, path))
    except AudioError:
        return False
    return True


def _passages(root: bytes, path: bytes) -> list[Passage]:
    try:
        return _read(root, path)
    except OSError:
        raise
    except Exception:  # anybody may write there; only the malformed transcript is not found
        log.exception("search.bug", path=path)
        return []


def _read(root: bytes, path: bytes) -> list[Passage]:
    bases = (split_name(path)[0], path)
    for base in bases:
        if document := read_document(root, base + b".json"):
            return passages_of(document)
    for name in (base + form for form in (b".vtt", b".srt", b".txt", b".md") for base in bases):
        try:
            with open(open_beneath(root, name), "rb") as file:
                return passages_of_text(file.read(MOST_TEXT_BYTES).decode("utf-8", "replace"))
        except AudioError:
            continue
    return []
