"""``dropscribe search``: finds words in finished transcripts, and shows each hit in its sentence."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterator

from dropscribe.cli import exit_codes
from dropscribe.cli.messages import say
from dropscribe.cli.options import act_as_owner, named, read_reporting_config
from dropscribe.core.errors import StoreError
from dropscribe.core.text.printing import one_line, path_text, plural, utc_text
from dropscribe.reports.wording import clock_words, moment_words, show_path, terminal_width, wrap
from dropscribe.search.finding import SearchPage, search
from dropscribe.search.indexer import catch_up

_CATCH_UP_SECONDS = 3.0  # limit of the indexing before the search


def execute(options: argparse.Namespace) -> int:
    """Print the files that have all words, newest first, as text or as one JSON object."""
    config = read_reporting_config(options)
    if options.folder:
        named(config.folders, "folder", options.folder, config)
    if not config.search:
        say("dropscribe: search is off in the config (search: false)")
        return exit_codes.CONFIG
    act_as_owner(config)
    trouble = ""
    try:
        if not catch_up(config, _CATCH_UP_SECONDS):
            trouble = "the index is still being built"
    except (StoreError, sqlite3.Error) as error:
        trouble = str(error)
    if trouble:
        say(f"dropscribe: {trouble}: newer transcripts may be missing")
    # The shell takes the quotes of "two words" away.
    query = " ".join(f'"{word}"' if " " in word and '"' not in word else word for word in options.words)
    found = search(config, query, folder=options.folder or "", limit=options.limit)
    sys.stdout.write(_document(found) if options.json else "".join(_lines(found)))
    return exit_codes.OK


def _document(found: SearchPage) -> str:
    files = [
        {
            "at": utc_text(file.job.ended_at),
            "folder": file.job.folder,
            "file": path_text(file.job.path),
            "place": path_text(file.job.filed),
            "sentences": [
                {"start": each.start, "text": each.text, "words": [each.text[a:b] for a, b in each.spans]}
                for each in file.sentences
            ],
        }
        for file in found.files
    ]
    document = {"schema": "dropscribe.search/1", "more": found.older_than is not None, "files": files}
    return json.dumps(document, indent=2) + "\n"


def _lines(found: SearchPage) -> Iterator[str]:
    if not found.files:
        yield "nothing found\n"
    for file in found.files:
        place, ended = show_path(file.job.filed), moment_words(file.job.ended_at)
        yield f"{place}  ({file.job.folder}, {ended})\n"
        for sentence in file.sentences:
            clock = "" if sentence.start is None else clock_words(sentence.start)
            yield wrap(f"{clock:>9}  {one_line(sentence.text)}", terminal_width(), " " * 11) + "\n"
    if found.older_than is not None:
        yield f"The newest {plural(len(found.files), 'file')}; more with --limit.\n"
