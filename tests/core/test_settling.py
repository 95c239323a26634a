"""When a file is settled: every row of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.core.settling import (
    Cause,
    Completeness,
    Lease,
    QuietTimes,
    Seen,
    Settled,
    Signs,
    Wait,
    decide,
)

AUTO = QuietTimes()
COMPLETE, INCOMPLETE = Completeness.COMPLETE, Completeness.INCOMPLETE
NEARLY, UNKNOWN = Completeness.NEARLY, Completeness.UNKNOWN

TABLE = [
    # lease, trusted, cached, container, seen → quiet seconds
    (Lease.FREE, True, False, COMPLETE, Seen.FOUND, 0),
    (Lease.FREE, True, False, UNKNOWN, Seen.MOVED, 0),
    (Lease.FREE, True, False, UNKNOWN, Seen.CLOSED, 2),
    (Lease.FREE, True, False, UNKNOWN, Seen.FOUND, 5),
    (Lease.FREE, True, False, NEARLY, Seen.CLOSED, 10),
    (Lease.FREE, True, False, NEARLY, Seen.MOVED, 10),
    (Lease.FREE, True, False, INCOMPLETE, Seen.MOVED, 60),
    (Lease.FREE, False, False, COMPLETE, Seen.MOVED, 10),
    (Lease.FREE, False, False, UNKNOWN, Seen.MOVED, 30),
    (Lease.UNKNOWN, True, False, COMPLETE, Seen.CLOSED, 10),
    (Lease.UNKNOWN, False, False, UNKNOWN, Seen.FOUND, 30),
    (Lease.UNKNOWN, False, True, UNKNOWN, Seen.FOUND, 60),
    (Lease.UNKNOWN, False, False, INCOMPLETE, Seen.FOUND, 300),
]


@pytest.mark.parametrize(("lease", "trusted", "cached", "container", "seen", "seconds"), TABLE)
def test_each_row_asks_for_its_quiet_time(lease, trusted, cached, container, seen, seconds):
    """A file is settled when its row's quiet time has passed, and not a moment before."""
    signs = Signs(10, lease, container, seen, trusted, cached)
    assert decide(signs, seconds, AUTO) == Settled(incomplete=container is INCOMPLETE)
    if seconds:
        early = decide(signs, seconds - 0.5, AUTO)
        assert isinstance(early, Wait)
        assert early.seconds == pytest.approx(0.5)


def test_a_waiting_file_is_looked_at_on_the_way():
    """It may become whole or change unseen: looks come at 5, 10, 20, 40 seconds of quiet, then at the end."""
    signs = Signs(10, Lease.FREE, INCOMPLETE, Seen.FOUND)
    waits = [decide(signs, quiet, AUTO).seconds for quiet in (0, 5, 10, 20, 40)]
    assert waits == [5, 5, 10, 20, 20]


@given(
    st.sampled_from(Completeness),
    st.sampled_from(Seen),
    st.booleans(),
    st.floats(0, 1e9),
    st.integers(0, 2**40),
)
def test_an_open_file_is_never_settled(container, seen, trusted, quiet, size):
    """However long it has been quiet, a file that a writer has open waits."""
    verdict = decide(Signs(size, Lease.WRITER, container, seen, trusted), quiet, AUTO)
    assert isinstance(verdict, Wait)
    assert verdict.cause is Cause.WRITER


def test_a_writer_is_looked_for_less_and_less_often():
    """5 seconds, doubling to 60."""
    signs = Signs(10, Lease.WRITER, UNKNOWN, Seen.FOUND)
    waits = [decide(signs, 0, AUTO, writer_looks=looks).seconds for looks in range(6)]
    assert waits == [5, 10, 20, 40, 60, 60]


@pytest.mark.parametrize(("settle", "seconds"), [(None, 60), (3.0, 3), (0.0, 0)])
def test_an_empty_file_waits_for_the_settle_time(settle, seconds):
    """Size 0: nothing but its age says anything, so it is handed over after `settle`, or 60 s."""
    signs = Signs(0, Lease.FREE, UNKNOWN, Seen.MOVED)
    times = QuietTimes(settle_seconds=settle)
    assert decide(signs, seconds, times) == Settled()
    if seconds:
        assert decide(signs, seconds - 1, times) == Wait(1, Cause.EMPTY, seconds)


@pytest.mark.parametrize(
    ("signs", "settle", "seconds"),
    [
        (Signs(9, Lease.FREE, COMPLETE, Seen.FOUND), 20.0, 0),
        (Signs(9, Lease.FREE, UNKNOWN, Seen.MOVED), 20.0, 0),
        (Signs(9, Lease.FREE, UNKNOWN, Seen.CLOSED), 20.0, 20),
        (Signs(9, Lease.UNKNOWN, UNKNOWN, Seen.FOUND), 1.0, 1),
        (Signs(9, Lease.UNKNOWN, COMPLETE, Seen.FOUND), 1.0, 1),
        (Signs(9, Lease.UNKNOWN, COMPLETE, Seen.FOUND), 90.0, 10),
        (Signs(9, Lease.FREE, INCOMPLETE, Seen.FOUND), 1.0, 60),
    ],
)
def test_settle_replaces_the_time_where_nothing_proves_more(signs, settle, seconds):
    """The rule's own quiet time holds for files that nothing proves complete sooner."""
    verdict = decide(signs, 0, QuietTimes(settle_seconds=settle))
    assert (verdict.needed_seconds if isinstance(verdict, Wait) else 0) == seconds


def test_settle_incomplete_replaces_its_own_row_alone():
    """`settle_incomplete` holds where the header says that more is to come."""
    times = QuietTimes(incomplete_seconds=7.0)
    for lease in (Lease.FREE, Lease.UNKNOWN):
        assert decide(Signs(9, lease, INCOMPLETE, Seen.FOUND), 7, times) == Settled(incomplete=True)
    assert decide(Signs(9, Lease.FREE, UNKNOWN, Seen.FOUND), 0, times) == Wait(5, Cause.QUIET, 5)


def test_each_late_change_doubles_the_quiet_time():
    """A file that changed after its hand-over proves that its signs lie; the doubling is bounded."""
    signs = Signs(9, Lease.FREE, COMPLETE, Seen.MOVED)
    needed = [decide(signs, 0, AUTO, late_changes=times).needed_seconds for times in (1, 2, 3, 50)]
    assert needed == [10, 20, 40, 900]
