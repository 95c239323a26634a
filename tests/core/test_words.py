"""Words and segments: which belong together, and where a sentence ends."""

from __future__ import annotations

import cProfile
import pstats

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.providers.vendors.pulse import Pulse
from dropscribe.providers.words import segments_of, words_of_each
from dropscribe.transcripts.model import Segment, Word
from dropscribe.transcripts.paragraphs import LONG_PARAGRAPH, paragraphs_of


def test_the_words_of_the_next_channel_are_in_segments_of_their_own():
    """A list may have all words of one channel before those of the next; words that overlap stay together."""
    first, second = [
        [Word(text, at, at + 0.6) for at, text in ((0.0, one), (0.5, two))] for one, two in ("ab", "cd")
    ]
    segments = segments_of([*first, Word("late", 8.0, 8.5), *second])
    told = [(segment.text, segment.start, segment.end) for segment in segments]
    assert told == [("a b", 0.0, 1.1), ("late", 8.0, 8.5), ("c d", 0.0, 1.1)]


def test_a_pause_is_heard_behind_a_word_whose_end_alone_is_known():
    """Some vendors leave a time out."""
    words = [Word("one", None, 1.0), Word("two", 9.0, 9.5)]
    assert [segment.text for segment in segments_of(words)] == ["one", "two"]


def test_a_word_belongs_to_the_segments_in_which_it_begins():
    """Segments of two speakers may overlap; without times nothing can be told."""
    words = [Word("c", 2.0, 9.0), Word("x"), Word("a", 0.0, 0.5), Word("b", 1.0, None)]
    segments = [Segment("", 0.0, 2.0), Segment("", 0.5, 3.0), Segment("", None, 3.0), Segment("", 5.0, 9.0)]
    told = [[word.word for word in own] for own in words_of_each(segments, words)]
    assert told == [["a", "b"], ["b", "c"], [], []]


def test_reading_a_long_answer_takes_as_long_as_it_is():
    """Not the square of it: two hours of speech took seconds, in which nothing else was done."""
    vendor = Pulse(ProviderConfig(name="x", type="pulse"))

    def calls(count):
        words = [{"word": "a", "start": at, "end": at + 0.5, "confidence": 0.5} for at in range(count)]
        utterances = [{"text": "a", "start": at, "end": at + 1} for at in range(count)]
        answer = {"transcription": "a", "words": words, "utterances": utterances}
        with cProfile.Profile() as profile:
            transcript = vendor.transcript(answer, {})
        assert {segment.confidence for segment in transcript.segments} == {0.5}
        return pstats.Stats(profile).total_calls

    assert calls(400) < 3 * calls(200)


@pytest.mark.parametrize(
    "sentence",
    ["Well…", "ہاں۔", "كيف حالك؟", "हाँ।", "Այո։", "እሺ።", "စကား။", "បាទ។"],  # noqa: RUF001 - other scripts
)
def test_a_sentence_ends_as_its_script_ends_it(sentence):
    """In segments made of words, and in paragraphs."""
    words = [Word(sentence, at, at + 0.5) for at in (0.0, 0.6)]
    assert len(segments_of(words)) == 2
    count = 2 * LONG_PARAGRAPH // len(sentence)
    segments = [{"text": sentence, "start": at, "end": at + 0.5, "speaker": None} for at in range(count)]
    assert len(paragraphs_of({"text": "", "segments": segments, "words": []})) > 1
