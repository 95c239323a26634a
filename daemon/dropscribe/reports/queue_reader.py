"""Reads the queue and the state of its daemons, on this machine or in the config's cluster.

Modules of the cluster are imported only if the config has one: the extra may be missing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dropscribe.config.model import Config, QueueConfig
from dropscribe.core.budget import stops_of
from dropscribe.core.errors import StoreError
from dropscribe.core.model import Hold, Scope
from dropscribe.core.text.printing import path_text
from dropscribe.intake.pending import BLOCKED_WORDS, UNLISTABLE_WORDS
from dropscribe.queue.embedded import store
from dropscribe.queue.model import NodeStats, Plan, build_plan
from dropscribe.queue.sql.budget_usage import read_accounts
from dropscribe.queue.sql.database import Connection
from dropscribe.queue.sql.hold_rows import read_holds
from dropscribe.queue.sql.stats import read_nodes
from dropscribe.service.status import read_live

T = TypeVar("T")

_ONE_INSTANT = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
    " SET LOCAL idle_in_transaction_session_timeout TO '10min'"
)
"""Begins a transaction in a cluster that sees the queue as it stood at its first query.

A command may list an inbox meanwhile; a node's transactions have ten seconds."""

NOT_MOUNTED = "left to other nodes: it lies beneath none of this node's queue.roots"
"""Reason shown for a rule whose folders are not mounted on this node."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """Snapshot of the queue and of the daemons that work on it."""

    db: Connection | None  # Read-only; None where no daemon has run yet
    is_running: bool  # Whether a daemon works on the queue; in a cluster, on any node
    is_here: bool  # Whether a daemon has this config's state directory
    live: dict[str, Any]  # The status file of this machine's daemon; {} if there is none
    now: float  # Unix seconds by the queue's clock
    plan: Plan  # Of the config
    holds: Mapping[Scope, Hold]  # Everything that is held now, spent budgets included
    nodes: Sequence[NodeStats] | None = None  # Of the cluster; None for this machine's own queue
    ahead_seconds: float = 0.0  # How far the queue's clock is ahead of this machine's
    # Names of the rules whose folders this node of a cluster does not have.
    not_mounted: frozenset[str] = frozenset()

    def has_running(self, role: str) -> bool:
        """Whether a daemon that does the work of *role* (``watch`` or ``work``) runs, on any node."""
        if self.nodes is None:
            return self.is_running
        return any(node.role in {"all", role} and not node.is_silent(self.now) for node in self.nodes)

    def live_of(self, folder: str) -> dict[str, Any]:
        """The state of one inbox as reported by the daemon on this machine; {} while it is down."""
        return dict(self.live.get("folders", {}).get(folder, {})) if self.is_here else {}

    def waiting_of(self, folder: str) -> dict[str, str]:
        """Path → reason, for files and folders without a job, ``intake.pending.MOST_WAITING`` at most."""
        return dict(self.live_of(folder).get("waiting", {}))

    def forbidden_words(self, folder: str, path: bytes) -> str:
        """Reason why the running daemon cannot read the file, or list a folder on its way, or ""."""
        waiting = self.waiting_of(folder)
        said = waiting.get(path_text(path), "")
        if said.startswith(BLOCKED_WORDS):
            return said.removeprefix(BLOCKED_WORDS)
        for above in itertools.accumulate(path_text(path).split("/"), "{}/{}".format):
            said = waiting.get(above, "")
            if said.startswith(UNLISTABLE_WORDS):
                return f"the folder {above} {said}"
        return ""

    def next_starts(self) -> dict[str, float]:
        """Unix seconds until which a pause or its rate limit stops a provider's next request, by provider."""
        if self.nodes is None:
            return dict(self.live.get("next_starts", {})) if self.is_running else {}
        from dropscribe.queue.cluster.ticket_rows import read_next_starts  # noqa: PLC0415 - see above

        return read_next_starts(self.db) if self.db else {}

    def freeze(self) -> None:
        """Begin a transaction, so that all later reads see one snapshot."""
        if self.db is not None:
            self.db.execute("BEGIN" if self.nodes is None else _ONE_INSTANT)


def view_queue(config: Config) -> AbstractContextManager[QueueView]:
    """Open the queue for reading, or raise a StoreError with the remedy; nothing is created."""
    return _cluster_view(config, config.queue) if config.queue else _own_view(config)


def write_queue_once(config: Config, work: Callable[[Connection], T]) -> T | None:
    """Run *work* in one short transaction, or raise StoreError; None where no daemon has ever run."""
    if config.queue is None:
        with _naming_owner(config.state_dir):
            return store.write_once(config.state_dir, work)
    from dropscribe.queue.cluster.postgres import write_cluster  # noqa: PLC0415 - see above

    return write_cluster(config.queue, work)


def is_anybody_running(config: Config) -> bool:
    """Whether a daemon works on the queue, here or on another node; StoreError if it cannot be read."""
    with view_queue(config) as view:
        return view.is_running


def is_running_here(config: Config) -> bool | None:
    """Whether a daemon has the state directory; None if it may not be read."""
    try:
        return store.is_running(config.state_dir)
    except OSError:
        return None


@contextlib.contextmanager
def _own_view(config: Config) -> Iterator[QueueView]:
    state_dir = config.state_dir
    with _naming_owner(state_dir):
        running = store.is_running(state_dir)
        db = store.open_for_reading(state_dir)
    with (
        contextlib.closing(db) if db else contextlib.nullcontext(),
        store.store_errors(state_dir / store.DATABASE_NAME),
    ):
        now, live = time.time(), read_live(state_dir)
        if running and (full := store.trouble_of_disk(state_dir)):
            live["trouble"] = f"{full.reason}: {full.path}"  # the daemon may have no room to write so
        plan = build_plan(config)
        yield QueueView(db, running, running, live, now, plan, _read_holds(db, plan, now))


@contextlib.contextmanager
def _naming_owner(state_dir: Path) -> Iterator[None]:
    """Turn errors of a directory that this user may not use into a StoreError that names the owner."""
    try:
        yield
    except PermissionError as error:
        place = str(state_dir)
        if error.filename and os.access(state_dir, os.X_OK, effective_ids=True):
            place = str(error.filename)
        raise StoreError(place, error.strerror or str(error), _remedy(place)) from error
    except OSError as error:
        raise StoreError(str(state_dir), error.strerror or str(error)) from error
    except StoreError as error:
        if not os.access(state_dir, os.R_OK | os.X_OK, effective_ids=True):
            raise StoreError(
                str(state_dir), "may not be read by this user", _remedy(str(state_dir))
            ) from error
        raise


@contextlib.contextmanager
def _cluster_view(config: Config, queue: QueueConfig) -> Iterator[QueueView]:
    from dropscribe.queue.cluster.postgres import open_cluster, read_ahead_seconds  # noqa: PLC0415

    is_here = bool(is_running_here(config))
    with open_cluster(queue) as db:
        ahead_seconds = read_ahead_seconds(db) if db else 0.0
        now = time.time() + ahead_seconds
        nodes, plan = read_nodes(db) if db else [], build_plan(config)
        yield QueueView(
            db=db,
            is_running=is_here or any(not node.is_silent(now) for node in nodes),
            is_here=is_here,
            live=read_live(config.state_dir),
            now=now,
            plan=plan,
            holds=_read_holds(db, plan, now),
            nodes=nodes,
            ahead_seconds=ahead_seconds,
            not_mounted=frozenset(name for name, rule in config.folders.items() if not queue.serves(rule)),
        )


def _read_holds(db: Connection | None, plan: Plan, now: float) -> dict[Scope, Hold]:
    if db is None:
        return {}
    stops = stops_of(read_accounts(db, plan.budgets, plan.zone, now))
    return {hold.scope: hold for hold in [*stops, *read_holds(db)]}


def _remedy(place: str) -> str:
    """Advice to run the command as the owner of the file or directory, which is private."""
    try:
        owner = pwd.getpwuid(os.stat(place).st_uid).pw_name
    except (OSError, KeyError):
        owner = "root"
    as_owner = "sudo" if owner == "root" else f"sudo -u {owner}"
    return f"only {owner} may read it, because it holds transcripts; run: {as_owner} dropscribe …"
