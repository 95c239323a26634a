"""Hooks with `retry: true`: an event stays stored until its command has ended well."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import pytest
from structlog.testing import capture_logs

from dropscribe.app.monitoring import build_hooks, build_notifications
from dropscribe.config.load import parse_config
from dropscribe.core.model import FileSnapshot, Job, JobState, OutputNames
from dropscribe.queue.embedded.store import Store
from dropscribe.service import notifications as module
from dropscribe.service.reporter import Reporter
from support.waiting import until

CONFIG = """
providers: {{local: {{type: local}}}}
folders: {{calls: {{inbox: inbox, provider: local}}}}
hooks: {{on_done: {command}, retry: {retry}}}
"""

COUNT_DOWN = """
import json, os, sys
out = sys.argv[1]
with open(out, "a") as file:
    file.write(sys.stdin.read())
sys.exit(len(open(out).readlines()) < int(sys.argv[2]))
"""

DONE = (
    Job(
        id=1,
        folder="calls",
        path=b"2026/call.wav",
        snapshot=FileSnapshot(0, 1, 10, 0, 0),
        stable_inodes=True,
        incomplete=False,
        state=JobState.TRANSCRIBED,
        received_at=0.0,
        due_at=0.0,
        attempts=1,
        provider="local",
    ),
    b"/srv/done/2026/call.wav",
    {"schema": "dropscribe.transcript/1", "duration": None, "recorded_at": "2026-01-02T03:04:05"},
    OutputNames(
        b"/srv/done",
        b"2026",
        b"call.wav",
        (("json", b"call.json"), ("template:minutes.txt", b"call.minutes.txt")),
    ),
)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    """The first retry after some 50 ms."""
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.05)


def config_of(folder, out, good_after, retry="true"):
    """A hook that ends well at its *good_after*th run, and writes each event into *out*."""
    script = folder / "hook.py"
    script.write_text(COUNT_DOWN)
    command = json.dumps([sys.executable, str(script), str(out), str(good_after)])
    text = CONFIG.format(command=command, retry=retry)
    return parse_config(text, folder=folder, environ={})[0]


def events(out):
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


@contextlib.asynccontextmanager
async def running(notifications):
    task = asyncio.create_task(notifications.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def left(store):
    return await store.do(lambda db: db.execute("SELECT count(*) FROM outbox").fetchone()[0])


async def test_a_command_that_fails_is_run_again(tmp_path):
    """With the same event, until it ends well; then never again."""
    out = tmp_path / "out"
    config = config_of(tmp_path, out, good_after=3)
    assert build_hooks(config) is None
    with contextlib.closing(Store(tmp_path / "state")) as store, capture_logs() as lines:
        notifications = build_notifications(config, store)
        async with running(notifications):
            Reporter(notifications=notifications).filed(*DONE)
            async with asyncio.timeout(20):
                while await left(store) or not out.exists():  # noqa: ASYNC110 - a file has no Event
                    await asyncio.sleep(0.01)
    assert len(events(out)) == 3
    assert len({event["id"] for event in events(out)}) == 1
    undelivered = [line for line in lines if line["event"] == "notification.undelivered"]
    assert [(line["recipient"], line["reason"]) for line in undelivered] == [("hook:done", "exit 1")] * 2


async def test_an_event_survives_the_daemon(tmp_path):
    """Told while the daemon ends: the next start runs the command."""
    out = tmp_path / "out"
    config = config_of(tmp_path, out, good_after=1)
    store = Store(tmp_path / "state")
    Reporter(notifications=build_notifications(config, store)).filed(*DONE)
    store.close()
    assert events(out) == []
    with contextlib.closing(Store(tmp_path / "state")) as store:
        async with running(build_notifications(config, store)):
            await until(lambda: events(out))
    assert [event["event"] for event in events(out)] == ["done"]


@pytest.mark.parametrize("retry", ["true", "false"])
async def test_a_command_gets_all_that_a_second_step_needs(tmp_path, retry):
    """The paths of all outputs, the transcript's, and when the recording was made."""
    out = tmp_path / "out"
    config = config_of(tmp_path, out, good_after=1, retry=retry)
    with contextlib.closing(Store(tmp_path / "state")) as store:
        hooks, notifications = build_hooks(config), build_notifications(config, store)
        assert (hooks is None) == (notifications is not None) == (retry == "true")
        async with running(notifications) if notifications else contextlib.nullcontext():
            Reporter(hooks=hooks, notifications=notifications).filed(*DONE)
            await until(lambda: events(out))
        if hooks:
            await hooks.close(grace_seconds=20)
    (event,) = events(out)
    assert event["outputs"] == {
        "json": "/srv/done/2026/call.json",
        "minutes.txt": "/srv/done/2026/call.minutes.txt",
    }
    assert event["transcript"] == "/srv/done/2026/call.json"
    assert event["recorded_at"] == "2026-01-02T03:04:05"
