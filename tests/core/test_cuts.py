"""Where long recordings are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.media.fitting import decide_cuts

WINDOW_SECONDS = 0.1


def cuts_of(loudness, longest):
    """The cuts of a recording of so many windows."""
    return decide_cuts(loudness, WINDOW_SECONDS, len(loudness) * WINDOW_SECONDS, longest)


def test_what_is_short_enough_is_not_cut():
    """Not even where it is exactly as long as a piece may be."""
    assert cuts_of([1.0] * 100, 10.0) == []


def test_a_cut_falls_into_the_pause():
    """Half a second of quiet is found, a tenth is not mistaken for it."""
    loudness = [1.0] * 200
    loudness[95:100] = [0.0] * 5
    loudness[105] = 0.0
    assert cuts_of(loudness, 15.0) == [pytest.approx(9.75)]


@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.5]), min_size=1, max_size=2000),
    st.floats(5.0, 60.0),
)
def test_no_piece_is_too_long_and_none_is_lost(loudness, longest):
    """Cuts go up, within the recording; every piece is short enough and none is empty."""
    seconds = len(loudness) * WINDOW_SECONDS
    edges = [0.0, *cuts_of(loudness, longest), seconds]
    lengths = [end - start for start, end in itertools.pairwise(edges)]
    assert max(lengths) <= longest + 1e-6
    assert min(lengths) > 0
    assert len(lengths) <= 2 * seconds / longest + 1
