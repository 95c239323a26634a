"""This machine as a node of a cluster; needs the extra ``cluster``."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from dropscribe import __version__
from dropscribe.jobs.cluster import ClusterEngine
from dropscribe.jobs.cluster_store import ClusterStore
from dropscribe.jobs.draws import Draws
from dropscribe.jobs.nodes import Node
from dropscribe.jobs.roots import Roots

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
    store = ClusterStore(dsn, Roots(queue.roots), queue.node)
    node = Node(queue.node, socket.gethostname(), queue.role, __version__)
    engine = ClusterEngine(store, Draws(dsn, queue.node), limits, node)
    try:
        engine.take_name()
    except BaseException:
        store.close()
        raise
    return engine
