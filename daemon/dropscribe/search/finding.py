"""Finds words in finished transcripts, page by page, the newest file first."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.errors import StoreError
from dropscribe.queue.sql.history import read_done
from dropscribe.reports.queue_reader import look_at_queue
from dropscribe.search.index import INDEX_NAME, ClusterIndex, open_index
from dropscribe.search.transcripts import DoneFolders
from dropscribe.search.words import find_phrases, parse_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dropscribe.config.model import Config
    from dropscribe.queue.sql.history import DoneJob
    from dropscribe.reports.queue_reader import QueueLook
    from dropscribe.search.index import IndexedTranscript, TranscriptIndex
    from dropscribe.search.passages import Passage
    from dropscribe.search.words import Phrase

PAGE_FILES = 20
MOST_LOOKED_AT = 200
"""Transcripts that one page looks at, when many have the words but not the phrase, or are gone."""
MOST_SENTENCES = 3


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that has some of the words.

    Attributes:
        start: Seconds from the begin of the audio to the first of them; None where nothing is timed.
        spans: Where the words are: (first letter, past the last letter), in order and apart.
    """

    text: str
    start: float | None
    spans: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file whose transcript has all the words."""

    job: DoneJob
    sentences: list[Sentence]


@dataclass(frozen=True, slots=True)
class Found:
    """One page of a search.

    Attributes:
        older_than: Where the next page begins, for *before_id* of :func:`search`; None on the last page.
    """

    files: list[FoundFile]
    older_than: int | None = None


def search(
    config: Config, query: str, *, folder: str = "", before_id: int = 2**62, limit: int = PAGE_FILES
) -> Found:
    """Files in done whose transcripts have all words and phrases of *query*.

    Raises:
        StoreError: The queue or the index cannot be read.
    """
    phrases = parse_query(query)
    if not phrases or not config.search:
        return Found([])
    try:
        with look_at_queue(config) as look, _index_of(config, look) as index:
            if look.db is None:
                return Found([])
            page = _Page(config, look, phrases, folder)
            found = page.fill(index, before_id, limit)
            with contextlib.suppress(sqlite3.Error), index.transaction():
                index.remove(page.gone)
            return found
    except sqlite3.Error as error:
        raise StoreError(str(config.state_dir / INDEX_NAME), str(error)) from error


@contextlib.contextmanager
def _index_of(config: Config, look: QueueLook) -> Iterator[TranscriptIndex]:
    if config.queue is None or look.db is None:
        with open_index(config.state_dir) as index:
            yield index
    else:
        yield ClusterIndex(look.db)


class _Page:
    """Fills one page, and notices transcripts that are gone from their done folder."""

    def __init__(self, config: Config, look: QueueLook, phrases: Sequence[Phrase], folder: str) -> None:
        self._look = look
        self._phrases = phrases
        self._folder = folder
        self._folders = DoneFolders(config)
        self.gone: list[int] = []

    def fill(self, index: TranscriptIndex, before_id: int, limit: int) -> Found:
        words = list(dict.fromkeys(word for phrase in self._phrases for word in phrase))
        files: list[FoundFile] = []
        for _ in range(MOST_LOOKED_AT // PAGE_FILES):
            candidates = index.find(words, before_id, PAGE_FILES)
            jobs = read_done(self._look.db, [each.job_id for each in candidates]) if candidates else {}  # type: ignore[arg-type]  # not None here
            for candidate in candidates:
                before_id = candidate.job_id
                files += self._found(candidate, jobs.get(candidate.job_id))
                if len(files) == limit:
                    return Found(files, before_id)
            if len(candidates) < PAGE_FILES:
                return Found(files)
        return Found(files, before_id)

    def _found(self, candidate: IndexedTranscript, job: DoneJob | None) -> Iterator[FoundFile]:
        if job is None or job.ended_at != candidate.ended_at:
            self.gone.append(candidate.job_id)
        elif self._folder in {"", job.folder} and (found := sentences(candidate.passages(), self._phrases)):
            if self._folders.has(job) is False:
                self.gone.append(job.id)
            else:
                yield FoundFile(job, found)


def sentences(passages: Sequence[Passage], phrases: Sequence[Phrase]) -> list[Sentence]:
    """The passages that have the most of *phrases*, in order; none where one of these is in no passage."""
    missing = set(phrases)
    hits: list[tuple[int, int, Sentence]] = []
    for number, passage in enumerate(passages):
        found = find_phrases(passage.text, phrases)
        missing -= found.keys()
        if found:
            spans = _apart(sorted(span for spans in found.values() for span in spans))
            sentence = Sentence(passage.text, passage.start_at(spans[0][0]), spans)
            hits.append((-len(found), number, sentence))
    best = sorted(hits, key=lambda hit: hit[:2])[:MOST_SENTENCES]
    return [] if missing else [sentence for _, _, sentence in sorted(best, key=lambda hit: hit[1])]


def _apart(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted *spans* without those that begin within the one before."""
    apart: list[tuple[int, int]] = []
    for span in spans:
        if not apart or span[0] >= apart[-1][1]:
            apart.append(span)
    return apart
