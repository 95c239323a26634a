"""What this machine's own queue keeps that was paid for goes along into the cluster that its config names.

Guarantees: an answer is let go of here once it stands there, and is taken in once, whatever dies in between.
What cannot go along stops the start: it is never left behind to be paid for again.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreBusy, StoreError, StoreUnusable
from dropscribe.files.crashpoint import reached
from dropscribe.queue.portable import last_answer_gone, read_records, write_last_answer_gone
from dropscribe.queue.taking_in import bring, let_go_of_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dropscribe.config.model import Config
    from dropscribe.queue.embedded.store import Store
    from dropscribe.queue.portable import Record
    from dropscribe.queue.sql.database import Connection, Database

log = structlog.get_logger()


def take_along(config: Config, own: Store, cluster: Database) -> None:
    """Move what *own* keeps into *cluster*; blocking. What has gone before does not go again.

    Raises:
        StoreBusy: The cluster's database cannot be had now.
        StoreUnusable: A kept answer belongs to a place that no root has.
    """
    ids: list[int] = []
    with contextlib.closing(own.open_reader()) as reader:
        last = last_answer_gone(reader, cluster.token)
        records = _noted(read_records(reader, answers_after=last), ids)
        try:
            taken = bring(cluster, records, own.token, places_of(config))
        except (StoreBusy, StoreUnusable):
            raise
        except StoreError as error:
            raise StoreUnusable(
                str(own.path),
                f"keeps answers that cannot go along into the cluster: {error.path} {error.reason}",
                "name its mount in queue.roots, or start once without queue: so that they are filed",
            ) from error

    reached("taken_along")

    def let_go(db: Connection) -> None:
        let_go_of_jobs(db, ids, "its answer went along into the cluster's queue")
        write_last_answer_gone(db, cluster.token)

    own.call(let_go).result()
    if taken.jobs or taken.answers or taken.spending:
        log.info("queue.taken_along", jobs=taken.jobs, answers=taken.answers, spending=taken.spending)


def places_of(config: Config) -> Callable[[str, bool], bytes | None]:
    """(folder, rejected) → where *config* has its files put; None for a folder that it does not know."""

    def place(folder: str, rejected: bool) -> bytes | None:
        rule = config.folders.get(folder)
        return None if rule is None else os.fsencode(rule.failed if rejected else rule.done)

    return place


def _noted(records: Iterable[Record], ids: list[int]) -> Iterator[Record]:
    for record in records:
        if record["kind"] == "job":
            ids.append(record["id"])
        yield record
