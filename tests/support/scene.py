"""Folders, a config and a queue for the commands, built by hand; and their output made comparable."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import time
import wave
from typing import TYPE_CHECKING

from dropscribe.cli.main import main
from dropscribe.core.model import AttemptEnd, FileSnapshot, Hold, NewJob, Scope, ScopeKind
from dropscribe.files.audio import snapshot_of
from dropscribe.queue.embedded.store import Store
from dropscribe.queue.model import Pause
from dropscribe.queue.sql import hold_rows
from dropscribe.service.status import write_live

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
state_dir: state
providers:
  main:
    type: openai
    url: http://127.0.0.1:9/v1
    price_per_minute: 0.006
folders:
  calls:
    inbox: inbox
    provider: main
"""

_inodes = itertools.count(10**9)


def wav_bytes(seconds: float = 2.0, rate: int = 8000) -> bytes:
    """A whole WAV file of silence."""
    target = io.BytesIO()
    with wave.open(target, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(rate)
        recording.writeframes(bytes(2 * int(seconds * rate)))
    return target.getvalue()


class Scene:
    """One config in *root*, its inbox, and shortcuts to what a test wants to be there."""

    def __init__(self, root: Path, config: str = CONFIG) -> None:
        self.root = root
        self.config = root / "dropscribe.yaml"
        self.config.write_text(config)
        self.config.chmod(0o600)
        for name in ("inbox", "done", "failed"):
            (root / name).mkdir()

    def run(self, command: str, *arguments: object) -> int:
        """One command on this config, in this process."""
        return main([command, "-c", str(self.config), *map(str, arguments)])

    def drop(self, path: str | bytes, content: bytes | None = None, part: str = "inbox") -> Path:
        """A file below a folder; its Path may hold surrogates."""
        file = self.root / part / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(wav_bytes() if content is None else content)
        return file

    @contextlib.contextmanager
    def queue(self):
        """The store, as a running daemon has it."""
        store = Store(self.root / "state")
        try:
            yield store
        finally:
            store.close()

    def write_live(self, next_starts=None, **folder) -> None:
        """Write live.json as a daemon does: the rule ``calls``, and starts that a rate limit delays."""
        state = {
            "available": True,
            "reason": None,
            "watch": "native",
            "settling": 0,
            "blocked": 0,
            "waiting": {},
        }
        live = {"folders": {"calls": state | folder}, "providers": {"main": 1}}
        write_live(self.root / "state", live | {"next_starts": next_starts or {}})


def json_of(scene, capsys, *arguments) -> dict:
    """The command's output with --json; the scene may be a node of a cluster."""
    scene.run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def add_job(store: Store, scene: Scene, path: str, **columns) -> int:
    """A queued job for the file at *path*, then *columns* of its row."""
    file = scene.root / "inbox" / path
    snapshot = snapshot_of(file.stat()) if file.exists() else FileSnapshot(1, next(_inodes), 100, 1)
    job = NewJob("calls", os.fsencode(path), snapshot, columns.pop("received_at", time.time()))
    directory, _, name = os.fsencode(path).rpartition(b"/")

    def write(db):
        values = {
            "folder": "calls",
            "directory": directory,
            "name": name,
            "identity": job.identity,
            "stable_inodes": 1,
            "device": snapshot.device,
            "inode": snapshot.inode,
            "size_bytes": snapshot.size_bytes,
            "mtime_ns": snapshot.mtime_ns,
            "state": "queued",
            "received_at": job.received_at,
            "due_at": job.received_at,
            **columns,
        }
        marks = ", ".join("?" * len(values))
        sql = f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks})"
        return db.execute(sql, tuple(values.values())).lastrowid

    return store.call(write).result()


def add_attempt(store: Store, job_id: int, at: float, ended: AttemptEnd, provider: str = "main") -> None:
    """One attempt of a job."""
    row = (job_id, at, provider, ended.seconds, ended.status, ended.code, ended.reason, ended.counted)
    sql = (
        "INSERT INTO attempts (job_id, at, provider, seconds, status, code, reason, counted)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    )
    store.call(lambda db: db.execute(sql, row)).result()


def add_hold(
    store: Store,
    *,
    kind=ScopeKind.PROVIDER,
    name="main",
    code="insufficient_quota",
    since: float,
    next_probe_at: float,
) -> None:
    """A hold, as an empty quota makes it."""
    hold = Hold(Scope(kind, name), code, "no credit is left", since, next_probe_at, 60.0)
    store.call(lambda db: hold_rows.write_hold(db, hold)).result()


def add_pause(store: Store, until: float) -> None:
    """A pause of the provider ``main``, as a 429 with Retry-After makes it."""
    store.call(lambda db: hold_rows.write_pause(db, Pause("main", time.time(), until))).result()


_PLACEHOLDER = "/srv/dropscribe/recorder"
_CLOCK = re.compile(r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(?= \()")
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def comparable(text: str, root: Path) -> str:
    """*text* without what differs from run to run; columns stay as wide as they are."""
    placeholder = _PLACEHOLDER.ljust(len(str(root)), "x")[: len(str(root))]
    text = text.replace(str(root), placeholder)
    text = _CLOCK.sub("12:34:56", text)
    text = _DATE.sub("2026-01-01 12:34:56", text)
    text = re.sub(r"\b\d s(?=  )", "0 s", text)
    text = re.sub(r"on \w+$", "on ext4", text, flags=re.MULTILINE)
    return re.sub(r"\w+, [\d.]+ [kMGT]?B free", "ext4, 100 GB free", text)
