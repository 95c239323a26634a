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
    from dropscribe.config.model import Config, QueueConfig
    from dropscribe.core.retry import RetryLimits


def open_node(config: Config, queue: QueueConfig, limits: RetryLimits) -> ClusterEngine:
    """The engine, its store open.

    Raises:
        StoreAway: The database cannot be had now.
        StoreError: It refuses us.
    """
    dsn = queue.dsn.reveal()
    store = ClusterStore(dsn, Roots(queue.roots), queue.node)

    def serves(folder: str) -> bool:
        rule = config.folders.get(folder)
        return rule is not None and queue.serves(rule)

    node = Node(queue.node, socket.gethostname(), queue.role, __version__)
    return ClusterEngine(store, Draws(dsn, queue.node), limits, node, serves)
