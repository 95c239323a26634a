"""Recordings of one rule that are opened in one visit of their folder."""

import os
from functools import partial

import pytest

from dropscribe.core.naming import OutputPlan
from dropscribe.files import beneath
from dropscribe.files.batching import call_each
from dropscribe.files.capabilities import capabilities_of
from dropscribe.publish.places import Opened, PlaceRefused, open_recording


@pytest.fixture
def rule(tmp_path):
    """An inbox and its ``done``, whose mount is known."""
    inbox, done = tmp_path / "in", tmp_path / "done"
    for folder in (inbox, done):
        folder.mkdir()
    with beneath.closing(os.open(done, os.O_RDONLY)) as folder:
        capabilities_of(folder)
    return inbox, done


def _opening(rule, path):
    inbox, done = map(os.fsencode, rule)
    plan = OutputPlan(done, path, ("json", "txt"))
    return partial(open_recording, inbox, path, done, plan, None)


def test_one_that_cannot_be_opened_spoils_no_other(rule):
    inbox, done = rule
    (inbox / "good.wav").write_bytes(b"audio")
    (inbox / "sub").mkdir()
    (inbox / "sub" / "bad.wav").write_bytes(b"audio")
    (done / "sub").write_bytes(b"a file in the way")
    (done / "good.json").write_bytes(b"another's")
    before = set(os.listdir("/proc/self/fd"))
    refused, missing, good = call_each(
        [_opening(rule, path) for path in (b"sub/bad.wav", b"missing.wav", b"good.wav")]
    )
    assert isinstance(refused, PlaceRefused)
    assert not refused.is_of_rule
    assert type(missing).__name__ == "AudioMissing"
    assert isinstance(good, Opened)
    assert good.free.number == 2
    good.audio.close()
    assert set(os.listdir("/proc/self/fd")) == before
