"""Kills at random, the short version; tests/system/kill_trial.py is the long one."""

from __future__ import annotations

import os
import secrets

import pytest

from support.kill_trial import Trial, run_trial

SEED = int(os.environ.get("KILL_SEED") or secrets.randbelow(1_000_000))


@pytest.mark.slow
def test_random_kills_lose_nothing_tear_nothing_and_pay_again_only_what_was_in_flight(tmp_path, capsys):
    """Outcomes equal inputs after many kills; each answer paid for again is counted and named.

    KILL_SEED=N repeats a run's files, weather and kills, as far as the machine's own timing allows.
    """
    with capsys.disabled():
        print(f" KILL_SEED={SEED}", end=" ", flush=True)  # noqa: T201  # with it a failure is repeated
    report = run_trial(Trial(seed=SEED, files=120, kills=12, large_bytes=5_000_000), tmp_path)
    assert not report.breaches(), report
    assert report.done + report.failed == report.files
    assert report.kills == 12
