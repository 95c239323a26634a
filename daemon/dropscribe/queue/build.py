"""Opens the queue that a config asks for: this machine's own, or a cluster's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.errors import StoreUnusable
from dropscribe.queue.embedded.dispatcher import EmbeddedDispatcher
from dropscribe.queue.embedded.intake import EmbeddedIntake
from dropscribe.queue.engine import Engine
from dropscribe.queue.sql import result_rows

if TYPE_CHECKING:
    from dropscribe.config.model import QueueConfig
    from dropscribe.queue.embedded.store import Store


def open_engine(queue: QueueConfig | None, own: Store) -> Engine:
    """The engine on *own* or on a cluster's database; the caller closes ``engine.store``.

    Raises:
        StoreAway: The cluster's database is unavailable now.
        StoreInUse: Another process of the cluster has this node's name.
        StoreUnusable: *own* holds answers that were paid for and not yet published, or the server refuses us.
    """
    if queue is None:
        return Engine(own, lambda state: (EmbeddedDispatcher(state, own.path.parent), EmbeddedIntake(state)))
    # The extra is installed where a config asks for it, and costs memory.
    from dropscribe.queue.cluster.build import open_node  # noqa: PLC0415

    _refuse_unpublished(own)
    return open_node(queue)


def _refuse_unpublished(own: Store) -> None:
    """An answer that was paid for stays in the queue that holds it, where a cluster would not find it."""
    counts = own.call(result_rows.count_stored_results).result()
    if counts:
        raise StoreUnusable(
            str(own.path),
            f"holds {sum(counts.values())} transcripts of {', '.join(counts)} that are not published yet",
            "remove `queue:` from the config, run `dropscribe run --once` with these folders in it, "
            "then add it again",
        )
