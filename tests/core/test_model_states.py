"""The states of a job, and the identity of a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.core.model import LIVE_STATES, TRANSITIONS, FileSnapshot, JobState, OutputNames, identity

SNAPSHOT = FileSnapshot(device=1, inode=22, size_bytes=333, mtime_ns=4444, ctime_ns=5555)


def test_every_state_has_its_ways_and_only_ended_ones_have_none():
    """A live job can always go on; a file that is back in an inbox is a new job."""
    assert set(TRANSITIONS) == set(JobState)
    assert {state for state, ways in TRANSITIONS.items() if ways} == LIVE_STATES
    assert {state for state in JobState if state.is_live} == LIVE_STATES


def test_every_live_state_leads_to_an_end():
    """Nothing goes round for ever for want of a way out."""
    for state in LIVE_STATES:
        reached, last = {state}, set()
        while reached != last:
            last = set(reached)
            reached |= {way for each in last for way in TRANSITIONS[each]}
        assert {JobState.DONE, JobState.FAILED, JobState.WITHDRAWN} <= reached


@pytest.mark.parametrize("state", JobState)
def test_done_comes_from_an_answer_that_was_kept(state):
    """No way around the kept answer leads to done or failed."""
    assert (JobState.DONE in TRANSITIONS[state]) == (state is JobState.TRANSCRIBED)
    assert (JobState.FAILED in TRANSITIONS[state]) == (state is JobState.REJECTED)


@pytest.mark.parametrize("change", [{"device": 9}, {"ctime_ns": 9}])
def test_a_remount_or_a_chmod_is_no_other_audio(change):
    """Neither the device nor the time of the last chmod is part of what a file is."""
    other = replace(SNAPSHOT, **change)
    assert SNAPSHOT.same_audio(other)
    assert identity(b"a", SNAPSHOT, stable_inodes=True) == identity(b"a", other, stable_inodes=True)


@pytest.mark.parametrize("change", [{"size_bytes": 9}, {"mtime_ns": 9}, {"inode": 9}])
def test_another_size_time_or_inode_is_other_audio(change):
    """As far as metadata can tell; a recorder that uses a name again makes new files."""
    other = replace(SNAPSHOT, **change)
    assert not SNAPSHOT.same_audio(other)
    assert identity(b"a", SNAPSHOT, stable_inodes=True) != identity(b"a", other, stable_inodes=True)


def test_where_inodes_are_not_stable_the_path_stands_for_them():
    """On FUSE and SMB a rename is a new file, and a new inode is none."""
    other = replace(SNAPSHOT, inode=9)
    assert SNAPSHOT.same_audio(other, stable_inodes=False)
    assert identity(b"a", SNAPSHOT, stable_inodes=False) == identity(b"a", other, stable_inodes=False)
    assert identity(b"a", SNAPSHOT, stable_inodes=False) != identity(b"b", SNAPSHOT, stable_inodes=False)
    assert identity(b"a", SNAPSHOT, stable_inodes=True) == identity(b"b", SNAPSHOT, stable_inodes=True)


numbers = st.integers(0, 1 << 62)
snapshots = st.builds(FileSnapshot, numbers, numbers, numbers, numbers)


@given(st.binary(min_size=1), snapshots, st.binary(min_size=1), snapshots, st.booleans())
def test_two_identities_are_equal_only_for_one_file(path, one, other_path, other, stable):
    """No two files share an identity by an accident of its spelling."""
    same = identity(path, one, stable_inodes=stable) == identity(other_path, other, stable_inodes=stable)
    who = one.inode == other.inode if stable else path == other_path
    assert same == (who and (one.size_bytes, one.mtime_ns) == (other.size_bytes, other.mtime_ns))


def test_a_group_stands_in_one_folder():
    """Names are the audio's first; a path never has a double or a trailing slash."""
    names = OutputNames(b"/done", b"", b"a.wav", (("json", b"a.json"),))
    deep = replace(names, directory=b"x/y")
    assert names.all_names == (b"a.wav", b"a.json")
    assert (names.path(b"a.wav"), deep.path(b"a.json")) == (b"/done/a.wav", b"/done/x/y/a.json")
