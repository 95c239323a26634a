"""Opens this machine's queue as a node of a cluster."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from dropscribe import __version__
from dropscribe.queue.cluster.dispatcher import ClusterDispatcher
from dropscribe.queue.cluster.intake import ClusterIntake
from dropscribe.queue.cluster.mount_map import MountMap
from dropscribe.queue.cluster.nodes import Heartbeats, NodeStats
from dropscribe.queue.cluster.store import ClusterStore
from dropscribe.queue.cluster.worker_pool import WorkerPool
from dropscribe.queue.engine import Engine

if TYPE_CHECKING:
    from dropscribe.config.model import QueueConfig
    from dropscribe.queue.engine import QueueState


def open_node(queue: QueueConfig) -> Engine:
    """The engine under the node's name; raises as :func:`dropscribe.queue.build.open_engine`."""
    store = ClusterStore(queue.dsn.reveal(), MountMap(queue.roots), queue.node)
    now = store.now()
    node = NodeStats(queue.node, socket.gethostname(), queue.role, __version__, now, now, in_flight=0)

    def make_backend(state: QueueState) -> tuple[ClusterDispatcher, ClusterIntake]:
        workers = WorkerPool(queue.dsn.reveal(), queue.node)
        return ClusterDispatcher(state, node, Heartbeats(store, node), workers), ClusterIntake(state, store)

    return Engine(store, make_backend)
