"""An inbox whose file system hangs costs its own folder only: a real FUSE mount whose server is stopped."""

from __future__ import annotations

import asyncio
import time

import pytest

from dropscribe.config.model import FolderRule
from dropscribe.core.rules import DEFAULT_INCLUDE
from dropscribe.intake import inbox as intake_inbox
from dropscribe.intake import inboxes as app_inboxes
from dropscribe.intake.inboxes import Inboxes
from support.fuse_mirror import mirrored
from support.inboxes import MemoryQueue, wav

pytestmark = pytest.mark.slow


class Folders:
    """What the inboxes tell the queue about folders."""

    def __init__(self):
        self.closed = {}

    def open(self, name, why):
        self.closed.pop(name, None)

    def close(self, name, why, reason):
        self.closed[name] = reason


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(intake_inbox, "HANGS_SECONDS", 1.0)
    monkeypatch.setattr(app_inboxes, "_HANG_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(app_inboxes, "_FIRST_LOOK_SECONDS", 1.0)
    monkeypatch.setattr(app_inboxes, "_STOP_SECONDS", 1.0)


@pytest.fixture
def mirror(tmp_path):
    """The inbox of the rule `far`."""
    with mirrored(tmp_path / "server", tmp_path / "far") as mounted:
        yield mounted


def rules_of(tmp_path, **keys):
    """One rule on the mount, one on a local disk."""
    (tmp_path / "near").mkdir(exist_ok=True)
    return {
        name: FolderRule(
            name=name,
            inbox=tmp_path / name,
            done=tmp_path / f"{name}-done",
            failed=tmp_path / f"{name}-failed",
            include=DEFAULT_INCLUDE,
            providers=("main",),
            **keys,
        )
        for name in ("far", "near")
    }


async def until(condition, seconds=30.0):
    """Return once *condition* holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # it may depend on threads and the disk
            await asyncio.sleep(0.02)


async def test_a_mount_that_hangs_is_named_and_disturbs_nobody(tmp_path, mirror):
    """The other folder is taken, the hung one is closed with its reason, and both go on once it answers."""
    folders, queue = Folders(), MemoryQueue()
    inboxes = Inboxes(folders, queue, lambda: None, None)
    inboxes.commit(await inboxes.prepare(rules_of(tmp_path)))
    await until(lambda: not folders.closed)
    mirror.freeze()
    await until(lambda: "not answered" in folders.closed.get("far", ""))
    (tmp_path / "near" / "a.wav").write_bytes(wav())
    await until(lambda: b"a.wav" in queue.paths)
    assert list(inboxes.unavailable()) == ["far"]
    assert inboxes.live()["far"]["available"] is False
    mirror.thaw()
    await until(lambda: not folders.closed)
    await inboxes.stop()
    await inboxes.release()


async def test_start_reload_and_stop_do_not_wait_for_it(tmp_path, mirror):
    """Each ends in bounded time while the mount hangs, and names the folder."""
    mirror.freeze()
    folders, queue = Folders(), MemoryQueue()
    inboxes = Inboxes(folders, queue, lambda: None, None)
    began = time.monotonic()
    inboxes.commit(await inboxes.prepare(rules_of(tmp_path)))
    (tmp_path / "near" / "a.wav").write_bytes(wav())
    await until(lambda: b"a.wav" in queue.paths)
    inboxes.commit(await inboxes.prepare(rules_of(tmp_path, min_age_seconds=0.5)))
    await until(lambda: "not answered" in folders.closed.get("far", ""))
    assert not inboxes.is_settling()
    await inboxes.stop()
    await inboxes.release()
    assert time.monotonic() - began < 30
    mirror.thaw()
