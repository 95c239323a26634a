"""Opens this machine's queue as a node of a cluster."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from dropscribe import __version__
from dropscribe.queue.cluster.dispatcher import ClusterDispatcher
from dropscribe.queue.cluster.intake import ClusterIntake
from dropscribe.queue.cluster.mount_map import MountMap
from dropscribe.queue.cluster.nodes import NodeRegistration, NodeStats
from dropscribe.queue.cluster.store import ClusterStore
from dropscribe.queue.cluster.worker_pool import WorkerPool
from dropscribe.queue.engine import Engine

if TYPE_CHECKING:
    from dropscribe.config.model import QueueConfig
    from dropscribe.queue.engine import QueueState


def open_node(queue: QueueConfig) -> Engine:
    """The engine under the node's name; raises as :func:`dropscribe.queue.build.open_engine`."""
    dsn = queue.dsn.reveal()
    store = ClusterStore(dsn, MountMap(queue.roots), queue.node)
    now = store.now()
    node = NodeStats(queue.node, socket.gethostname(), queue.role, __version__, now, now, in_flight=0)
    try:
        registration = NodeRegistration(store, node)
    except BaseException:
        store.close()
        raise

    def make_backend(state: QueueState) -> tuple[ClusterDispatcher, ClusterIntake]:
        dispatcher = ClusterDispatcher(state, node, registration, WorkerPool(dsn, queue.node))
        return dispatcher, ClusterIntake(state, store)

    return Engine(store, make_backend)
