"""Finds words in finished transcripts, page by page, the newest file first."""

from __future__ import annotations

import contextlib
import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from dropscribe.config.model import Config
from dropscribe.core.errors import StoreError
from dropscribe.queue.sql.database import Connection
from dropscribe.queue.sql.history import DoneJob, read_done
from dropscribe.reports.queue_reader import view_queue
from dropscribe.search.index import INDEX_NAME, NEWEST, TranscriptIndex
from dropscribe.search.indexer import DoneFolders, index_of
from dropscribe.search.passages import Passage, UnusableIndex, end_of_phrase, unpack
from dropscribe.search.words import Phrase, find_phrases, parse_query
from dropscribe.transcripts.line_breaks import joint_of

PAGE_FILES = 20
MOST_LOOKED_AT = 200
"""Transcripts that one page of the web looks at, when many have the words but not the phrase, or are gone."""
MOST_SENTENCES = 3


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that has some of the words."""

    text: str
    start: float | None  # Seconds from the start of the audio to the first of them, where they are timed
    spans: list[tuple[int, int]]  # Places of the words: (first letter, past the last letter), in order, apart


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file whose transcript has all the words."""

    job: DoneJob
    sentences: list[Sentence]


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of a search."""

    files: list[FoundFile]
    older_than: int | None = None  # Where the next page begins, for *before_id*; None on the last page


def search(
    config: Config,
    query: str,
    *,
    folder: str = "",
    before_id: int = NEWEST,
    limit: int = PAGE_FILES,
    most_looked_at: int | None = None,
) -> SearchPage:
    """Files in done whose transcripts have all words and phrases of *query*.

    Looks at *most_looked_at* transcripts; None means as many as *limit* files need. Raises StoreError.
    """
    phrases = parse_query(query)
    if not phrases or not config.search:
        return SearchPage([])
    try:
        with view_queue(config) as view:
            if view.db is None:
                return SearchPage([])
            with index_of(config, view.db) as index:
                one = _Search(config, view.db, index, phrases, folder)
                return one.page(before_id, limit, most_looked_at)
    except sqlite3.Error as error:
        raise StoreError(str(config.state_dir / INDEX_NAME), str(error)) from error


class _Search:
    """One search; transcripts that turn out to be gone leave the index."""

    def __init__(
        self, config: Config, db: Connection, index: TranscriptIndex, phrases: Sequence[Phrase], folder: str
    ) -> None:
        self._db, self._index, self._phrases, self._folder = db, index, phrases, folder
        self._folders = DoneFolders(config)
        self._gone: list[int] = []

    def page(self, before_id: int, limit: int, most_looked_at: int | None) -> SearchPage:
        files: list[FoundFile] = []
        older_than: int | None = None
        for number, (job_id, file) in enumerate(self._candidates(before_id), 1):
            if file is not None:
                if len(files) == limit:
                    older_than = files[-1].job.id
                    break
                files.append(file)
            if number == most_looked_at:
                older_than = job_id
                break
        if self._gone:
            # A busy or full disk does not fail the search; a damaged index does, and is made anew.
            with contextlib.suppress(sqlite3.OperationalError), self._index.transaction():
                self._index.remove(self._gone)
        return SearchPage(files, older_than)

    def _candidates(self, before_id: int) -> Iterator[tuple[int, FoundFile | None]]:
        words = list(dict.fromkeys(word for phrase in self._phrases for word in phrase))
        while rows := self._index.find(words, before_id, PAGE_FILES):
            jobs = read_done(self._db, [row[0] for row in rows])
            for job_id, ended_at, packed in rows:
                job = jobs.get(job_id)
                found = self._sentences(job, packed) if job and job.ended_at == ended_at else None
                if found is None:
                    self._gone.append(job_id)
                yield job_id, FoundFile(job, found) if job and found else None
            before_id = rows[-1][0]

    def _sentences(self, job: DoneJob, packed: bytes) -> list[Sentence] | None:
        if self._folder not in {"", job.folder}:
            return []
        try:
            found = find_sentences(unpack(packed), self._phrases)
        except UnusableIndex:
            return None  # a cluster's sweep reads the transcript anew; see TranscriptIndex.remove for SQLite
        return None if found and self._folders.has(job) is False else found


def find_sentences(passages: Sequence[Passage], phrases: Sequence[Phrase]) -> list[Sentence]:
    """The passages with the most of *phrases*, in order; none if one phrase is nowhere.

    Passages that a phrase goes across are one sentence.
    """
    missing = set(phrases)
    hits: list[tuple[int, int, Sentence]] = []
    shown_to = 0
    for number, passage in enumerate(passages):
        end = max((end_of_phrase(phrase, passages, number) for phrase in phrases), default=0)
        if end == number + 1 <= shown_to:
            continue
        shown_to = max(shown_to, end)
        text = " ".join(part.text for part in passages[number:end])
        found = find_phrases(text, phrases)
        missing -= found.keys()
        if found:
            spans: list[tuple[int, int]] = []
            for span in sorted(chain.from_iterable(found.values())):
                if not spans or span[0] >= spans[-1][1]:  # none begins within the one before
                    spans.append(span)
            sentence = Sentence(text, passage.start_at(spans[0][0]), spans)
            hits.append((-len(found), number, sentence))
    best = sorted(hits, key=lambda hit: hit[:2])[:MOST_SENTENCES]
    if missing:
        return []
    return [_as_written(sentence) for _, _, sentence in sorted(best, key=lambda hit: hit[1])]


def _as_written(sentence: Sentence) -> Sentence:
    """*sentence* without the spaces that its script does not have between its words."""
    text = sentence.text
    kept = [n for n in range(len(text)) if text[n] != " " or joint_of(text[n - 1 : n], text[n + 1 : n + 2])]
    spans = [(bisect_left(kept, begin), bisect_left(kept, end)) for begin, end in sentence.spans]
    return Sentence("".join(text[n] for n in kept), sentence.start, spans)
