"""The section ``queue``: the PostgreSQL that several machines share, and which folders this one serves.

Guarantees: no problem reported here holds any part of the dsn. psycopg is loaded only for a queue in
PostgreSQL.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from dropscribe.config.document import SectionPlace
from dropscribe.config.extras import install_hint, is_installed
from dropscribe.config.keys import MISSING, REQUIRED, Section, SectionRead, key, keys_of
from dropscribe.config.notation import field_types as t
from dropscribe.config.notation.secret import Secret
from dropscribe.core.hosts import is_loopback

if TYPE_CHECKING:
    from dropscribe.config.document import Document
    from dropscribe.config.model import Config, FolderRule

_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})
_NOT_INSTALLED = "PostgreSQL needs procrastinate and psycopg"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig(Section):
    """The queue in PostgreSQL, which several nodes share.

    The dsn is empty only in a config that was loaded without it (:func:`dropscribe.config.load.load_config`).
    There is at least one root, and none lies inside another.
    """

    type: Literal["postgres"] = key(
        "`embedded`: in the state directory, for this machine alone; `postgres`: shared by several machines, "
        "needs the extra `cluster`. Changed by a restart, not by a reload.",
        t.one_of("embedded", "postgres"),
        default=REQUIRED,
        example="postgres",
    )
    dsn: Secret = key(
        "The database, as libpq takes it, best as `${NAME}`: "
        "`postgresql://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full`.",
        also={
            "_file": "A file that holds the dsn and nothing else.",
            "_credential": "The systemd credential (`LoadCredential=`) that holds the dsn.",
        },
        example="${DROPSCRIBE_DSN}",
    )
    role: Literal["all", "watch", "work"] = key(
        "The task of this node: `watch` the inboxes, `work` on queued files, or both.", default="all"
    )
    roots: Mapping[str, Path] = key(
        "The folders that nodes share: `{share: /mnt/share}`, the same names on every node. "
        "A rule with inbox, done or failed elsewhere is left to other nodes.",
        t.map_of(t.PATH, t.ROOT_NAME),
        default={},
        example="{share: /srv}",
    )
    node: str = key(
        "This node's name, unique in the cluster; default: the host's name (give containers one).",
        t.NAME,
        default="",
        example="recorder-1",
    )
    password: Secret | None = field(default=None, compare=False)  # the dsn's, to be masked in log lines

    def root_of(self, path: Path) -> tuple[str, PurePath] | None:
        """The name of the root that *path* lies beneath, and its path there; None beneath no root.

        Only the names are compared: links are not followed, and ``..`` removes the name before it.
        """
        plain = PurePath(os.path.normpath(path))
        for name, root in self.roots.items():
            if plain.is_relative_to(root):
                return name, plain.relative_to(root)
        return None

    def serves(self, rule: FolderRule) -> bool:
        """Whether this node can reach all of *rule*: each of its folders lies beneath a root."""
        return all(self.root_of(path) is not None for path in rule.paths.values())

    def watches(self, rule: FolderRule) -> bool:
        """Whether this node watches *rule*'s inbox; if not, other nodes do."""
        return self.role != "work" and self.serves(rule)

    @classmethod
    def build(cls, read: SectionRead) -> Any:
        """The cluster's queue; MISSING for the embedded engine."""
        values = read.values
        if values["type"] == "embedded":
            for name in sorted(set(read.data) - {"type"}):
                read.report(name, "has no effect with type: embedded", on_key=True, warning=True)
            return MISSING
        if not is_installed("cluster"):
            read.report("type", _NOT_INSTALLED, install_hint("cluster"))
        dsn: Secret | None = values.get("dsn")
        if dsn is None and not read.has_problem_in():
            read.report("", "there is no dsn", "write dsn: ${NAME}, or dsn_file: PATH", on_key=True)
        values.setdefault("node", os.uname().nodename)
        values |= {"dsn": dsn or Secret("", "nowhere"), "roots": _roots(read)}
        return cls(password=_check_dsn(read, dsn) if dsn and is_installed("cluster") else None, **values)


def check_queue(config: Config, document: Document) -> None:
    """Report the rules that this node leaves to others, and a node without any rule."""
    queue, place = config.queue, SectionPlace(document, ("queue",))
    if queue is None or place.has_problem_in("roots"):
        return
    left = [rule for rule in config.folders.values() if not queue.serves(rule)]
    if left and len(left) == len(config.folders):
        hint = "a folder's inbox, done and failed must all lie beneath roots"
        place.report("roots", "no folder lies beneath a root", hint, on_key=True)
        return
    for rule in left:
        key, path = next((key, path) for key, path in rule.paths.items() if queue.root_of(path) is None)
        message = f"left to other nodes: its {key} {path} lies beneath no root of the queue"
        document.report(("folders", rule.name, key), message, on_key=True, warning=True)


def _check_dsn(read: SectionRead, dsn: Secret) -> Secret | None:
    """The password in *dsn*; reports one that libpq cannot read, or that goes unencrypted to another host."""
    given = next(name for name in keys_of(QueueConfig)["dsn"].names if read.data.get(name) is not None)
    try:
        import psycopg  # noqa: PLC0415 - the extra `cluster`, loaded only where it is asked for
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - as above
    except ImportError:
        read.report("type", _NOT_INSTALLED, install_hint("cluster"))
        return None
    try:
        parts = conninfo_to_dict(dsn.reveal())
    except (psycopg.Error, UnicodeError):
        hint = "write postgresql://USER:PASSWORD@HOST/DATABASE, with a password's special characters as %XX"
        read.report(given, "libpq cannot read this dsn", hint)
        return None
    if not _is_safe_way(parts, read.document.environ):
        message = "the connection to the queue on another machine is not encrypted"
        hint = "add sslmode=verify-full (and sslrootcert=PATH for a CA of your own)"
        read.report(given, message, hint, warning=True)
    password = parts.get("password")
    return Secret(str(password), dsn.origin) if password else None


def _is_safe_way(parts: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Whether TLS is required, or the server is on this machine. A service file is not read."""
    if parts.get("service") or (parts.get("sslmode") or environ.get("PGSSLMODE")) in _ENCRYPTED:
        return True
    hosts = parts.get("hostaddr") or parts.get("host") or environ.get("PGHOSTADDR") or environ.get("PGHOST")
    return all(not host or host[0] in "/@" or is_loopback(host) for host in str(hosts or "").split(","))


def _roots(read: SectionRead) -> dict[str, Path]:
    """The roots without ``..``; by their names alone, none may lie inside another."""
    roots = {name: Path(os.path.normpath(root)) for name, root in read.values.get("roots", {}).items()}
    if not roots and not read.has_problem_in("roots"):
        hint = "write roots: {share: /mnt/share}, the same names on every node"
        read.report("roots", "there is no root", hint, on_key=True)
    for first, second in combinations(roots, 2):
        if roots[first].is_relative_to(roots[second]) or roots[second].is_relative_to(roots[first]):
            message = f"the roots '{first}' and '{second}' are one, or one lies inside the other"
            read.document.report((*read.path, "roots", second), message, "a file must have only one name")
    return roots
