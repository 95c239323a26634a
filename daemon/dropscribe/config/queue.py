"""The section ``queue``: the PostgreSQL that several machines share, and which folders this one serves.

Guarantees: no problem reported here holds any part of the dsn. psycopg is loaded only for a queue in
PostgreSQL.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropscribe.config.credentials import find_named, given_keys
from dropscribe.config.model import QueueConfig
from dropscribe.config.quantities import is_loopback
from dropscribe.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.credentials import Surroundings
    from dropscribe.config.model import Config, FolderRule
    from dropscribe.config.queue_keys import QueueKeys
    from dropscribe.config.yaml_document import Document

_PATH = ("queue",)
_PACKAGES = ("procrastinate", "psycopg", "psycopg_pool")
_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})
_NOT_INSTALLED = ("PostgreSQL needs procrastinate and psycopg", "pip install 'dropscribe[cluster]'")


def build_queue(keys: QueueKeys, document: Document, around: Surroundings) -> QueueConfig | None:
    """Make the daemon's section of the file's; None is the embedded engine. What is wrong is reported."""
    if keys.type == "embedded":
        for key in sorted(keys.model_fields_set - {"type"}):
            document.report(
                (*_PATH, key), "nothing comes of it with type: embedded", on_key=True, warning=True
            )
        return None
    if not has_cluster():
        document.report((*_PATH, "type"), *_NOT_INSTALLED)
    dsn = find_named(keys, "dsn", _PATH, document, around)
    if dsn is None and not document.has_problem_below(_PATH):
        document.report(_PATH, "there is no dsn", "write dsn: ${NAME}, or dsn_file: PATH", on_key=True)
    return QueueConfig(
        type=keys.type,
        dsn=dsn or Secret("", "nowhere"),
        password=_check_dsn(dsn, keys, document, around) if dsn and has_cluster() else None,
        role=keys.role,
        roots=_roots(keys, document, around),
        node=keys.node or socket.gethostname(),
    )


def has_cluster() -> bool:
    """Whether the extra ``cluster`` is installed; nothing of it is loaded."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


def check_queue(config: Config, document: Document) -> None:
    """Report the rules that this node leaves to others, and a node that would have none."""
    queue = config.queue
    if queue is None or document.has_problem_below((*_PATH, "roots")):
        return
    left = [rule for rule in config.folders.values() if not queue.serves(rule)]
    if left and len(left) == len(config.folders):
        hint = "a folder's inbox, done and failed must all lie beneath roots"
        document.report((*_PATH, "roots"), "no folder lies beneath a root", hint, on_key=True)
        return
    for rule in left:
        key, path = _part_elsewhere(queue, rule)
        message = f"left to other nodes: its {key} {path} lies beneath no root of the queue"
        document.report(("folders", rule.name, key), message, on_key=True, warning=True)


def _part_elsewhere(queue: QueueConfig, rule: FolderRule) -> tuple[str, Path]:
    parts = (("inbox", rule.inbox), ("done", rule.done), ("failed", rule.failed))
    return next((key, path) for key, path in parts if queue.root_of(path) is None)


def _check_dsn(dsn: Secret, keys: QueueKeys, document: Document, around: Surroundings) -> Secret | None:
    """Report a dsn that libpq cannot read, and one that goes unencrypted to another machine.

    Returns:
        The password in it, if there is one.
    """
    path = (*_PATH, given_keys(keys, "dsn")[0])
    try:
        import psycopg  # noqa: PLC0415 - the extra `cluster`, loaded only where it is asked for
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - as above
    except ImportError:
        document.report((*_PATH, "type"), *_NOT_INSTALLED)
        return None
    try:
        parts = conninfo_to_dict(dsn.reveal())
    except (psycopg.Error, UnicodeError):
        hint = "write postgresql://USER:PASSWORD@HOST/DATABASE, with a password's special characters as %XX"
        document.report(path, "libpq cannot read this dsn", hint)
        return None
    if not _is_safe_way(parts, around.environ):
        message = "the queue lies on another machine, and nothing makes the way there encrypted"
        hint = "add sslmode=verify-full (and sslrootcert=PATH for a CA of your own)"
        document.report(path, message, hint, warning=True)
    password = parts.get("password")
    return Secret(str(password), dsn.origin) if password else None


def _is_safe_way(parts: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Whether TLS is demanded, or no other machine is meant. What a service file says is not looked at."""
    if parts.get("service") or (parts.get("sslmode") or environ.get("PGSSLMODE")) in _ENCRYPTED:
        return True
    hosts = parts.get("hostaddr") or parts.get("host") or environ.get("PGHOSTADDR") or environ.get("PGHOST")
    return all(not host or host[0] in "/@" or is_loopback(host) for host in str(hosts or "").split(","))


def _roots(keys: QueueKeys, document: Document, around: Surroundings) -> dict[str, Path]:
    """The roots as absolute paths; none may lie inside another, where they lead to."""
    path = (*_PATH, "roots")
    roots = {name: Path(os.path.normpath(around.absolute(text))) for name, text in keys.roots.items()}
    if not roots and not document.has_problem_below(path):
        hint = "write roots: {share: /mnt/share}, the same names on every node"
        document.report(path, "there is no root", hint, on_key=True)
    real = {name: Path(os.path.realpath(root)) for name, root in roots.items()}
    for first, second in combinations(roots, 2):
        if real[first].is_relative_to(real[second]) or real[second].is_relative_to(real[first]):
            message = f"the roots '{first}' and '{second}' are one, or one lies inside the other"
            document.report((*path, second), message, "a file must have one name alone")
    return roots
