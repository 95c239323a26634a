"""``check`` of a queue in PostgreSQL: its roots on this node, and with --online the server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dropscribe.reports.patience import ask_disk_or

if TYPE_CHECKING:
    from dropscribe.cli.checking import Findings
    from dropscribe.config.model import Config, QueueConfig

_PATIENCE_SECONDS = 10
_HAS_TABLES_OR_MAY_MAKE_THEM = """
    SELECT to_regclass('dropscribe.procrastinate_jobs') IS NOT NULL
        OR CASE WHEN to_regnamespace('dropscribe') IS NULL
            THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege('dropscribe', 'CREATE') END
"""


def check_queue(config: Config, findings: Findings) -> dict[str, Any] | None:
    """The object ``queue`` of ``check --json``; None for the embedded engine.

    It holds the origin of the dsn, never the dsn itself.
    """
    queue = config.queue
    if queue is None:
        return None
    roots = {
        name: {"path": str(path), "exists": ask_disk_or(False, path, path.is_dir)}
        for name, path in queue.roots.items()
    }
    for name, root in roots.items():
        if not root["exists"]:
            findings.warnings.append(
                f"queue: the root {name}, {root['path']}, is not there; mount it: until then its files wait"
            )
    return {
        "type": queue.type,
        "role": queue.role,
        "node": queue.node,
        "dsn_from": queue.dsn.origin,
        "roots": roots,
        "left_to_others": [rule.name for rule in config.folders.values() if not queue.serves(rule)],
        "online": None,
        "answer": None,
    }


def ask_queue(queue: QueueConfig) -> tuple[bool, str]:
    """Whether this node can log in to the server, with the server's version or libpq's error."""
    import psycopg  # noqa: PLC0415 - the extra `cluster`, loaded only where it is asked for

    try:
        with psycopg.connect(queue.dsn.reveal(), connect_timeout=_PATIENCE_SECONDS) as connection:
            version = connection.info.parameter_status("server_version")
            is_ready = connection.execute(_HAS_TABLES_OR_MAY_MAKE_THEM).fetchone() == (True,)
    except psycopg.Error as error:
        return False, _one_line(error, queue)
    if not is_ready:
        return (
            False,
            f"PostgreSQL {version}, where this user may create no tables: docs/cluster.md says what to grant",
        )
    return True, f"PostgreSQL {version}"


def queue_rows(queue: dict[str, Any]) -> list[list[str]]:
    """The rows of the first table: the queue, then each root."""
    words = f"role {queue['role']}, node {queue['node']}"
    if queue["online"] is not None:
        words += f"; {'answers' if queue['online'] else 'NO ANSWER'}: {queue['answer']}"
    rows = [["queue", f"PostgreSQL, dsn from {queue['dsn_from']}", words]]
    for name, root in queue["roots"].items():
        rows.append([f"root {name}", root["path"], "there" if root["exists"] else "NOT there"])
    return rows


def _one_line(error: Exception, queue: QueueConfig) -> str:
    """The message of *error* on one line; libpq names host, port and user in it, and a password is masked."""
    said = " ".join(str(error).split()) or type(error).__name__
    for secret in (queue.dsn, queue.password):
        if secret is not None and secret.reveal():
            said = said.replace(secret.reveal(), str(secret))
    return os.fsencode(said).decode("utf-8", "replace")
