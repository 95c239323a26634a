"""Where long recordings are cut, and how the answers to their parts are joined."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.media.fitting import decide_cuts
from dropscribe.media.joining import Answered, join
from dropscribe.native.decoder import Source
from dropscribe.native.recording import Piece
from dropscribe.transcripts.model import Transcript, Word

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


def call_of(*answers):
    """The joined transcript of a call of ten seconds with so many channels."""
    parts = [
        Answered(Piece(number, 0.0, 10.0), Source(0, number, f"channel_{number}"), answer)
        for number, answer in enumerate(answers)
    ]
    return join(parts, 10.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Hello. Yes, please.", "Hello. Yes, please."), ("Hello. Yes, ple ase.", "hello yes please")],
)
def test_words_without_segments_are_cut_into_turns(text, expected):
    """The other speaker comes between; the text has its punctuation where words can be told apart."""
    words = (Word("hello", 0.0, 1.0), Word("yes", 8.0, 8.4), Word("please", 8.5, 9.0))
    other = Transcript("May I help?", words=(Word("may", 3.0, 3.4), Word("I", 3.5, 4), Word("help", 4, 5)))
    first, rest = expected.split(maxsplit=1)
    joined = call_of(Transcript(text, words=words), other)
    assert joined.text == f"{first}\nMay I help?\n{rest}"
    assert [(turn.start, turn.end) for turn in joined.segments] == [(0.0, 1.0), (3.0, 5.0), (8.0, 9.0)]
    assert [turn.speaker for turn in joined.segments] == ["channel_0", "channel_1", "channel_0"]


def test_words_that_are_not_all_of_the_text_hide_nothing_of_it():
    """Some servers time only words that they are sure of: the text was paid for whole."""
    words = (Word("Your", 0.0, 0.3), Word("number", 0.4, 0.8), Word("is", 0.9, 1.0))
    text = "Your number is 1,234.50 euros. Thank you, goodbye."
    joined = call_of(Transcript(text, words=words), Transcript("Bye.", words=(Word("Bye.", 9.0, 9.4),)))
    assert joined.text == f"{text}\nBye."


def test_a_channel_without_times_is_one_turn():
    """Its words have no place among the others."""
    joined = call_of(Transcript("Well, no.", words=(Word("well"), Word("no"))), Transcript("Yes."))
    assert joined.text == "Well, no.\nYes."


def test_untimed_words_of_a_channel_stay_in_their_place():
    """A number that the provider does not time is said between its neighbours, not at the end."""
    words = (Word("costs", 0.0, 0.4), Word("5"), Word("dollars", 1.0, 1.5))
    joined = call_of(
        Transcript("costs 5 dollars", words=words), Transcript("really", words=(Word("really", 2.0, 2.5),))
    )
    assert [word.word for word in joined.words] == ["costs", "5", "dollars", "really"]
    assert joined.text == "costs 5 dollars\nreally"


def test_a_word_that_ends_at_a_jump_of_the_clock_is_not_stretched():
    """The pause of a recorder comes between the words, not into the first of them."""
    words = (Word("before", 1.0, 2.0), Word("after", 2.0, 3.0), Word("instant", 2.0, 2.0))
    answer = Transcript("before after", words=words)
    joined = join([Answered(Piece(0, 0.0, 63.0, [(2.0, 60.0)]), Source(), answer)], 63.0)
    spans = [(word.start, word.end) for word in joined.words]
    assert spans == [(1.0, 2.0), (62.0, 63.0), (62.0, 62.0)]
