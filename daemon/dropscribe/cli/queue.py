"""``dropscribe queue export|import``: what a queue keeps that was paid for moves with its files to another.

From this machine's own queue into a cluster's, or back; into another state directory as well.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from dropscribe.app.taking_along import places_of
from dropscribe.cli import exit_codes
from dropscribe.cli.messages import printable, say
from dropscribe.cli.options import read_config
from dropscribe.cli.queue_file import open_queue_file, write_queue_file
from dropscribe.cli.queue_reader import QueueLook, look_at_queue, opened_queue
from dropscribe.cli.tables import plural
from dropscribe.core.errors import StoreInUse
from dropscribe.queue.embedded.store import DATABASE_NAME
from dropscribe.queue.portable import read_records, token_of
from dropscribe.queue.taking_in import bring

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from dropscribe.config.model import Config
    from dropscribe.queue.portable import Record
    from dropscribe.queue.sql.database import Connection


def execute(options: argparse.Namespace) -> int:
    """Do it; 69 while a daemon would change what is exported, 74 where there is nothing, or it fails."""
    config = read_config(options)
    return _export(config, options.file) if options.action == "export" else _import(config, options.file)


def _export(config: Config, file: str) -> int:
    with _at_rest(config) as db:
        if db is None:
            say("dropscribe: there is nothing to export: dropscribe has never been started with this queue")
            return exit_codes.IO_ERROR
        counts: Counter[str] = Counter()
        write_queue_file(os.fsencode(file), _counted(read_records(db), counts), token_of(db), time.time())
    words = _words(counts["job"], counts["answer"], counts["spending"])
    sys.stdout.write(f"{printable(file)}: {words}\n")
    return exit_codes.OK


@contextlib.contextmanager
def _at_rest(config: Config) -> Iterator[Connection | None]:
    """The queue, while nobody works on it; None where there is none.

    Raises:
        StoreInUse: Somebody does.
    """
    if config.queue is not None:
        with look_at_queue(config) as look:
            _refuse_running(look)
            look.freeze()
            yield look.db
    elif not (config.state_dir / DATABASE_NAME).exists():
        yield None
    else:
        with opened_queue(config) as store, contextlib.closing(store.open_reader()) as db:
            yield db


def _refuse_running(look: QueueLook) -> None:
    if look.is_running:
        names = [node.name for node in look.nodes or () if not node.is_silent(look.now())]
        who = f"nodes work on it: {', '.join(names)}" if names else "this node works on it"
        raise StoreInUse("the cluster's queue", who, "stop dropscribe on every node first")


def _counted(records: Iterable[Record], counts: Counter[str]) -> Iterator[Record]:
    for record in records:
        counts[record["kind"]] += 1
        yield record


def _import(config: Config, file: str) -> int:
    found = open_queue_file(file)
    with opened_queue(config) as queue:
        taken = bring(queue, found.records(), found.source, places_of(config))
    known = f"; {plural(taken.known, 'record')} changed nothing" if taken.known else ""
    sys.stdout.write(
        f"{printable(file)}: {_words(taken.jobs, taken.answers, taken.spending)} taken in{known}\n"
    )
    return exit_codes.OK


def _words(jobs: int, answers: int, spending: int) -> str:
    parts = (
        plural(jobs, "file") + " with a kept answer",
        plural(answers, "answer") + " of the ledger",
        plural(spending, "amount") + " spent",
    )
    return ", ".join(parts)
