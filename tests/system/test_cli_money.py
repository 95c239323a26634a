"""What ``status``, ``why`` and ``plan`` say about providers in a list, budgets and a backlog."""

from __future__ import annotations

import json
import time

import pytest

from dropscribe.core.model import AttemptEnd
from support.scene import Scene, add_attempt, add_job, wav_bytes

CHAIN = """\
state_dir: state
providers:
  main: {type: openai, url: "http://127.0.0.1:9/v1", max_upload: 1KB, price_per_minute: 0.6}
  other: {type: openai, url: "http://127.0.0.1:9/v1", price_per_minute: 6}
folders:
  calls: {inbox: inbox, provider: [main, other], fallback: both}
"""


@pytest.fixture
def scene(tmp_path):
    """One rule `calls` on one provider, unless a test makes its own."""
    return Scene(tmp_path)


def json_of(scene, capsys, *arguments) -> dict:
    """What the command prints with --json."""
    scene.run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_why_names_who_refused_a_file_that_waits(tmp_path, capsys):
    """The refusal, the turn in the queue, and the attempt are told."""
    scene = Scene(tmp_path, CHAIN)
    file = scene.drop("call.wav")
    with scene.queue() as store:
        job_id = add_job(store, scene, "call.wav", pin="other", code="too_large", reason="too large")
        refusal = AttemptEnd(0.0, code="too_large", reason="too large", counted=False)
        add_attempt(store, job_id, time.time(), refusal)
        store.call(lambda db: db.execute("UPDATE attempts SET refused = 1")).result()
        scene.write_live()
        tale = json_of(scene, capsys, "why", file)
    assert tale["state"] == "queued"
    assert "main refused it (too_large)" in tale["words"]
    assert "it is the next in the queue" in tale["words"]


def test_plan_counts_with_the_provider_that_takes_the_file(tmp_path, capsys):
    """A file too large for the first is planned with the second."""
    scene = Scene(tmp_path, CHAIN)
    scene.drop("large.wav", wav_bytes(60))
    scene.drop("small.wav", b"small")
    files = {file["path"]: file for file in json_of(scene, capsys, "plan")["folders"]["calls"]["files"]}
    assert files["large.wav"]["provider"] == "other"
    assert files["large.wav"]["reason"] != "it goes to failed, unsent"
    assert files["small.wav"]["provider"] == "main"
