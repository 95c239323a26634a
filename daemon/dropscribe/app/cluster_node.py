"""This machine as a node of a cluster; needs the extra ``cluster``."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from dropscribe import __version__
from dropscribe.queue.cluster.engine import ClusterEngine
from dropscribe.queue.cluster.mount_map import MountMap
from dropscribe.queue.cluster.nodes import Node
from dropscribe.queue.cluster.store import ClusterStore
from dropscribe.queue.cluster.worker_pool import WorkerPool

if TYPE_CHECKING:
    from dropscribe.config.model import QueueConfig
    from dropscribe.core.retry import RetryLimits


def open_node(queue: QueueConfig, limits: RetryLimits) -> ClusterEngine:
    """The engine, its store open, under the node's name.

    Raises:
        StoreAway: The database cannot be had now.
        StoreInUse: Another process of the cluster has the name.
        StoreError: The database refuses us.
    """
    dsn = queue.dsn.reveal()
    store = ClusterStore(dsn, MountMap(queue.roots), queue.node)
    node = Node(queue.node, socket.gethostname(), queue.role, __version__)
    engine = ClusterEngine(store, WorkerPool(dsn, queue.node), limits, node)
    try:
        engine.take_name()
    except BaseException:
        store.close()
        raise
    return engine
