"""The daemon's parts from the queue to the files, joined as the daemon joins them, without intake."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

from dropscribe.config.model import (
    Config,
    FolderRule,
    HoldConfig,
    LogConfig,
    ProviderConfig,
    QueueConfig,
)
from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import StoreAway
from dropscribe.core.model import NewJob
from dropscribe.core.retry import RetryLimits
from dropscribe.files.audio import snapshot_of
from dropscribe.media.fitted import FittedProvider
from dropscribe.media.spool import Spool
from dropscribe.pipeline.claims import build_runtime
from dropscribe.pipeline.handler import Handler
from dropscribe.queue.embedded.store import Store
from dropscribe.queue.engine import open_engine
from dropscribe.queue.model import build_plan
from dropscribe.queue.sql import intake_queries
from support.scripted import ScriptedProvider

CLUSTER_DSN: list[str] = []
"""Set by a test's fixture: every House that it builds is a node on this database."""


class Listener:
    """Records the events that the pipeline reports."""

    def __init__(self):
        self.attempts, self.files, self.holds, self.releases, self.warned = [], [], [], [], []

    def attempt_ended(self, job, ended):
        self.attempts.append(job)

    def filed(self, job, filed, document, names):
        self.files.append(SimpleNamespace(job=job, document=document, names=names))

    def held(self, hold):
        self.holds.append(hold)

    def released(self, hold):
        self.releases.append(hold)

    def budget_low(self, account):
        self.warned.append(account)


class Lookout:
    """Records the calls of the pipeline to the intake."""

    def __init__(self):
        self.looked, self.late_changes = [], []

    def look_again(self, folder, changed=None):
        self.looked.append(folder)
        if changed is not None:
            self.late_changes.append((folder, changed))


def make_config(
    root: Path,
    *,
    rules=None,
    providers=None,
    retry=None,
    hold=(0.05, 0.2),
    ledger_keep_seconds=0.0,
    time_zone=None,
    **rule_keys,
) -> Config:
    """One rule `calls` on provider `main` unless told otherwise; quick retries.

    The ledger is off: most tests drop the same few bytes again and again.
    """
    providers = providers or {"main": ProviderConfig(name="main", type="openai", concurrency=4)}
    rules = rules or {
        "calls": FolderRule(
            name="calls",
            inbox=root / "inbox",
            done=root / "done",
            failed=root / "failed",
            **{"providers": tuple(providers), **rule_keys},
        )
    }
    for rule in rules.values():
        rule.inbox.mkdir(parents=True, exist_ok=True)
    retry = retry or {}
    return Config(
        path=None,
        state_dir=root / "state",
        providers=providers,
        folders=rules,
        retry=RetryLimits(
            **{
                "first_seconds": 0.01,
                "max_seconds": 0.05,
                "give_up_after_seconds": 60.0,
                "max_ambiguous": 3,
                "max_crashes": 10,
                **retry,
            }
        ),
        hold=HoldConfig(first_seconds=hold[0], max_seconds=hold[1]),
        shutdown_grace_seconds=1.0,
        log=LogConfig(),
        ledger_keep_seconds=ledger_keep_seconds,
        time_zone=time_zone,
        queue=_queue(root),
    )


def _queue(root: Path) -> QueueConfig | None:
    if not CLUSTER_DSN:
        return None
    return QueueConfig(type="postgres", dsn=Secret(CLUSTER_DSN[-1], "test"), roots={"here": root}, node="one")


class House:
    """Open with ``async with``; drop files, submit them, wait until the queue rests."""

    def __init__(self, config: Config, scripts: dict[str, ScriptedProvider] | None = None):
        self.config = config
        self.providers = scripts or {name: ScriptedProvider() for name in config.providers}
        self.listener, self.lookout = Listener(), Lookout()

    async def __aenter__(self):
        self.own_store = Store(self.config.state_dir)
        self.engine = open_engine(self.config.queue, self.own_store)
        self.store = self.engine.store
        self.handler = Handler(
            build_runtime(self.config, self.providers, self.engine),
            self.engine,
            self.lookout,
            self.listener,
            token=self.store.token,
            jitter=lambda: 1.0,
        )
        plan = build_plan(self.config)
        self.engine.replan(plan)
        await self.handler.budgets.audit()
        self.feeding = asyncio.create_task(self.engine.run(plan, self.handler.attempt, self.handler.publish))
        return self

    async def __aexit__(self, *_):
        self.feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.feeding
        self.handler.close()
        if self.store is not self.own_store:
            self.store.close()
        self.own_store.close()

    def rule(self, folder="calls") -> FolderRule:
        return self.config.folders[folder]

    async def drop(self, name, content=b"RIFF some audio", folder="calls", **job_keys) -> Path:
        """Write a file into the inbox and submit it as settled."""
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.rule(folder).inbox), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        await self.submit(name, folder, **job_keys)
        return path

    async def submit(self, name, folder="calls", **job_keys):
        job = self.new_job(name, folder, **job_keys)
        while True:
            with contextlib.suppress(StoreAway):  # the intake tries again, too
                (submitted,) = await asyncio.to_thread(self.engine.intake.submit, [job])
                self.engine.signals.wake.set()
                return submitted

    def new_job(self, name, folder="calls", **job_keys) -> NewJob:
        """The file as the intake sees it once it has settled."""
        path = os.path.join(os.fsencode(self.rule(folder).inbox), os.fsencode(name))
        return NewJob(folder, os.fsencode(name), snapshot_of(os.stat(path)), time.time(), **job_keys)

    async def relocate(self, name, old_name="call.wav", folder="calls"):
        """Tell the queue that the file of a live job is called *name* now, as the intake does."""
        job = self.new_job(name, folder)
        await self.store.do(lambda db: intake_queries.relocate(db, job, os.fsencode(old_name)))

    async def rest(self, timeout_seconds=10.0):
        """Wait until nothing is in flight or due within a second."""

        async def resting():
            while await self.engine.can_go_on(1.0):
                if self.feeding.done():
                    self.feeding.result()
                await asyncio.sleep(0.005)

        await asyncio.wait_for(resting(), timeout_seconds)

    async def until(self, condition, timeout_seconds=10.0):
        """Wait until *condition* (may be async) holds."""

        async def holding():
            while True:
                held = condition()
                if asyncio.iscoroutine(held):
                    held = await held
                if held:
                    return
                if self.feeding.done():
                    self.feeding.result()
                await asyncio.sleep(0.005)

        await asyncio.wait_for(holding(), timeout_seconds)

    async def stats(self, folder="calls"):
        return (await stats_of(self.engine)).folders[folder]


async def stats_of(engine):
    """The engine's counts, once all that was posted before is written: readers do not wait for the writer."""
    await engine.store.do(lambda _: None)
    return await engine.stats()


def prepared(config: Config, provider):
    """*provider*, wrapped with the preparation of the rule `calls`."""

    async def at_once(_: str) -> None:
        """No rate limit."""

    rule, spool = config.folders["calls"], Spool(config.state_dir)
    return FittedProvider(provider, config.providers["main"], rule, spool, at_once)


def tree(folder: Path) -> set[str]:
    """Every file below *folder*, relative."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def read_json(path: Path):
    return json.loads(path.read_text("utf-8"))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
