"""Recordings of one rule that are opened in one visit of their folder."""

import os
from collections import Counter

import pytest

from dropscribe.core.naming import OutputPlan
from dropscribe.files import beneath
from dropscribe.files.capabilities import capabilities_of
from dropscribe.publish import places
from dropscribe.publish.places import Opened, OpenRequest, PlaceRefused, open_together


@pytest.fixture
def rule(tmp_path):
    """An inbox and its ``done``, whose mount is known."""
    inbox, done = tmp_path / "in", tmp_path / "done"
    for folder in (inbox, done):
        folder.mkdir()
    with beneath.closing(os.open(done, os.O_RDONLY)) as folder:
        capabilities_of(folder)
    return inbox, done


def _request(rule, path):
    inbox, done = map(os.fsencode, rule)
    return OpenRequest(inbox, path, done, OutputPlan(done, path, ("json", "txt")), None)


def test_each_folder_is_opened_once_for_all(rule, monkeypatch):
    """A flood of small files costs no walk to the same folders for each."""
    inbox, _ = rule
    (inbox / "sub").mkdir()
    paths = [b"a.wav", b"b.wav", b"sub/c.wav", b"sub/d.wav"]
    for path in paths:
        (inbox / os.fsdecode(path)).write_bytes(b"audio")
    opened = Counter()
    real = beneath.open_root

    def counted(path):
        opened[path] += 1
        return real(path)

    monkeypatch.setattr(places, "open_root", counted)
    before = set(os.listdir("/proc/self/fd"))
    outcomes = open_together([_request(rule, path) for path in paths])
    assert [outcome.free.number for outcome in outcomes] == [1] * 4
    assert opened == {os.fsencode(rule[1]): 3}  # for its files, for "sub", and again as that is not there
    for outcome in outcomes:
        outcome.audio.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_costs_one_call_for_its_status(rule, monkeypatch):
    """Folders are asked once; a call more for each small file is seen in files a second."""
    inbox, _ = rule
    paths = [b"%d.wav" % number for number in range(9)]
    for path in paths:
        (inbox / os.fsdecode(path)).write_bytes(b"audio")
    asked, real = [], os.fstat
    monkeypatch.setattr(os, "fstat", lambda descriptor: asked.append(descriptor) or real(descriptor))
    costs = []
    for count in (1, 9):
        asked.clear()
        for outcome in open_together([_request(rule, path) for path in paths[:count]]):
            outcome.audio.close()
        costs.append(len(asked))
    assert costs[1] - costs[0] == 8


def test_one_that_cannot_be_opened_spoils_no_other(rule):
    inbox, done = rule
    (inbox / "good.wav").write_bytes(b"audio")
    (inbox / "sub").mkdir()
    (inbox / "sub" / "bad.wav").write_bytes(b"audio")
    (done / "sub").write_bytes(b"a file in the way")
    (done / "good.json").write_bytes(b"another's")
    before = set(os.listdir("/proc/self/fd"))
    refused, missing, good = open_together(
        [_request(rule, path) for path in (b"sub/bad.wav", b"missing.wav", b"good.wav")]
    )
    assert isinstance(refused, PlaceRefused)
    assert not refused.is_of_rule
    assert type(missing).__name__ == "AudioMissing"
    assert isinstance(good, Opened)
    assert good.free.number == 2
    good.audio.close()
    assert set(os.listdir("/proc/self/fd")) == before
