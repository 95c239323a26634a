"""SIGKILL at every step of a job that a provider works on by itself, then a start on what is left."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from support.benches import JOB_PATHS
from support.crash_points import REMOTE_POINTS
from support.daemon_process import Installation
from support.emulator import Emulator
from support.house import tree

pytestmark = pytest.mark.slow

POINTS = [*REMOTE_POINTS, "claimed", "answered", "kept", "audio_moved", "published"]
SENT_AGAIN = {("speechmatics", "uploaded"), *((kind, "job_created") for kind in (*JOB_PATHS, "http"))}
"""Where a kill makes a job twice: in the instant between the creation and the row."""


@pytest.fixture
def emulator():
    with Emulator() as running:
        yield running


DESCRIBED = {
    "type": "http",
    "key_header": "Authorization: {key}",
    "media_type": "application/octet-stream",
    "params": {"speech_models": ["universal-2"]},
    "answer": {"text": "text"},
    "poll": {
        "create": {"url": "/v2/transcript", "audio": "upload_url", "field": "audio_url"},
        "url": "/v2/transcript/{id}",
        "done": ["completed"],
        "delete": "/v2/transcript/{id}",
    },
}
"""The same vendor as the config describes it."""


def installation(tmp_path, emulator, kind="assemblyai") -> Installation:
    provider: dict[str, Any] = {"url": emulator.url + JOB_PATHS.get(kind, ""), "concurrency": 1}
    if kind == "http":
        provider |= DESCRIBED | {"url": f"{emulator.url}/v2/upload"}
    return Installation(tmp_path, emulator.url, provider={"type": kind, **provider})


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", [*JOB_PATHS, "http"])
def test_a_kill_at_any_step_of_a_polled_job_sends_nothing_twice(tmp_path, emulator, kind, point):
    """Once the provider's id is in the row, no kill makes a second job of the file."""
    site, desk = installation(tmp_path, emulator, kind), emulator.vendors.desk
    for name in ("one.wav", "two.wav"):
        site.drop(name, name.encode())
    assert site.run_once(point) == -signal.SIGKILL
    assert site.run_once() == 0
    assert {"one.wav", "one.txt", "two.wav", "two.txt"} <= tree(site.done)
    assert tree(site.inbox) == set()
    again = int((kind, point) in SENT_AGAIN)
    assert desk.paid_again() == again
    assert site.status()["maybe_paid_twice"] >= again
    assert len(desk.jobs) == again


def test_many_kills_while_the_provider_works_send_nothing_twice(tmp_path, emulator):
    """A job that takes long survives start after start; status and why name it meanwhile."""
    site, desk = installation(tmp_path, emulator), emulator.vendors.desk
    desk.polls = 6
    path = site.drop("long.wav", b"long")
    with site.start_ready() as process:
        process.until(lambda: desk.created and site.status()["at_provider"], "the job")
        process.kill()
    for _ in range(3):
        polls = _polls(emulator)
        with site.start_ready() as process:
            process.until(lambda before=polls: _polls(emulator) > before, "a poll")
            process.kill()
    why = site.ask("why", str(path))
    assert why["state"] == "at_provider"
    assert why["words"][0].startswith("it waits at the provider pulse since")
    (listed,) = site.ask("list")["files"]
    assert listed["state"] == "at_provider"
    assert listed["reason"].startswith("waiting at the provider since")
    desk.polls = 0
    for job in desk.jobs.values():
        job.polls_left = 0
    assert site.run_once() == 0
    assert len(desk.created) == 1
    assert site.status()["maybe_paid_twice"] == 0
    assert desk.jobs == {}


def _polls(emulator) -> int:
    return sum(request.method == "GET" for request in emulator.requests)
