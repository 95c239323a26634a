"""The states of listed files as ``status`` counts them, with the reason of a hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.model import JobState
from dropscribe.core.routing import BACKLOG
from dropscribe.queue.sql.hold_rows import read_holds
from dropscribe.reports.queued_words import BACKLOG_WORDS, holds_on

if TYPE_CHECKING:
    from dropscribe.config.model import Config
    from dropscribe.queue.sql.file_list import ListedFile
    from dropscribe.reports.queue_reader import QueueView


@dataclass(frozen=True, slots=True)
class ListedState:
    """The state of one listed file.

    Attributes:
        word: As ``status`` counts it: queued, deferred, held, transcribing, at_provider, publishing, done
            or failed.
        code: Of the hold that a held file waits for; otherwise of its last failure, or "".
        reason: The same in words.
    """

    word: str
    code: str
    reason: str


class ListedStates:
    """States of the files of one list, by the holds and the clock at the time of construction."""

    def __init__(self, config: Config, view: QueueView) -> None:
        self._rules = config.folders
        found = [*view.stops, *(read_holds(view.db) if view.db else ())]
        self._holds = {hold.scope: hold for hold in found}
        self._now = view.now()

    def of(self, job: ListedFile) -> ListedState:
        """The state of *job*."""
        if job.state is JobState.QUEUED:
            return self._queued(job)
        word = job.state.value
        if job.at_provider_since is not None:
            word = "at_provider"
        elif job.state in {JobState.TRANSCRIBED, JobState.REJECTED}:
            word = "publishing"
        return ListedState(word, job.code, job.reason)

    def _queued(self, job: ListedFile) -> ListedState:
        if job.pin == BACKLOG:
            return ListedState("held", "", BACKLOG_WORDS)
        rule = self._rules.get(job.folder)
        if holds := holds_on(job.pin, rule, self._holds) if rule else []:
            return ListedState("held", holds[0].code, holds[0].reason)
        return ListedState("deferred" if job.due_at > self._now else "queued", job.code, job.reason)
