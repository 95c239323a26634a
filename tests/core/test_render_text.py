"""What the text, SubRip and WebVTT sidecars promise."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.transcripts.document import transcript_document
from dropscribe.transcripts.model import Segment, Transcript, Word
from dropscribe.transcripts.render import DEFAULT_LAYOUT, RENDERERS, Layout
from support.transcripts import facts

SRT_TIMES = re.compile(r"^(\d{2,}):([0-5]\d):([0-5]\d),(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d),(\d{3})$")


def _rendered(kind: str, transcript: Transcript) -> str | None:
    made = RENDERERS[kind](transcript_document(transcript, facts()))
    return None if made is None else made.decode()


def _milliseconds(hours, minutes, seconds, rest):
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest)


def parsed_srt(text: str) -> list[tuple[int, int, str]]:
    """A strict reader of SubRip: numbered blocks, a line of times, text without blank lines."""
    cues = []
    for number, block in enumerate(text.removesuffix("\n").split("\n\n"), 1):
        first, times, *lines = block.split("\n")
        assert first == str(number)
        assert lines
        assert all(line.strip() for line in lines)
        found = SRT_TIMES.match(times)
        assert found
        cues.append(
            (_milliseconds(*found.groups()[:4]), _milliseconds(*found.groups()[4:]), "\n".join(lines))
        )
    return cues


def test_txt_is_the_text_and_a_newline():
    """Without speakers the text stands as the provider gave it."""
    assert _rendered("txt", Transcript("Hello,\nworld.")) == "Hello,\nworld.\n"
    assert _rendered("txt", Transcript("")) == "\n"


def test_txt_has_a_line_a_turn():
    """With speakers each turn is a line, speaker 0 included; neighbouring segments of one are joined."""
    transcript = Transcript(
        "x",
        segments=(
            Segment(" Hi.", 0, 1, "speaker_0"),
            Segment("How\nare you?", 1, 2, "speaker_0"),
            Segment("Fine.", 2, 3, "speaker_1"),
            Segment("(noise)", 3, 4),
            Segment("", 4, 5, "speaker_1"),
            Segment("(more noise)", 5, 6),
        ),
    )
    lines = ("speaker_0: Hi. How are you?", "speaker_1: Fine.", "(noise) (more noise)")
    assert _rendered("txt", transcript) == "\n".join((*lines, ""))


def test_txt_takes_turns_from_words_where_only_words_have_speakers():
    """Speakers known from words alone make turns too."""
    words = tuple(Word(word, speaker=name) for word, name in [("a", "A"), ("b", "A"), ("c", "B")])
    assert _rendered("txt", Transcript("a b c", words=words)) == "A: a b\nB: c\n"


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_nothing_timed_means_no_file(kind):
    """Where nothing has both times, there is no file."""
    transcript = Transcript("x", segments=(Segment("x", 1.0),), words=(Word("x", end=2.0),))
    assert _rendered(kind, transcript) is None


def test_srt_bytes():
    """SubRip, byte for byte, with an hour in its times."""
    segments = (Segment("Hello.", 0.48, 3.76), Segment("Bye.", 3661.5, 3662.0, "speaker_0"))
    assert _rendered("srt", Transcript("x", segments=segments)) == (
        "1\n00:00:00,480 --> 00:00:03,760\nHello.\n\n2\n01:01:01,500 --> 01:01:02,300\nspeaker_0: Bye.\n"
    )


def test_vtt_bytes():
    """WebVTT, byte for byte: header, voices, and nothing in the text that could be markup."""
    segments = (Segment("a --> b & <c>", 0.0, 1.0), Segment("x\n\ny", 1.0, 2.0, "A>B\n&"))
    assert _rendered("vtt", Transcript("x", segments=segments)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na --&gt; b &amp; &lt;c&gt;\n\n"
        "00:00:01.000 --> 00:00:02.000\n<v A&gt;B &amp;>x y\n"
    )


def test_srt_text_cannot_end_or_open_a_cue():
    """Blank lines, control characters and arrows in the text leave the file readable."""
    text = "one\n\n2\n00:00:00,000 --> 00:00:01,000\r\n\x00two"
    (cue,) = parsed_srt(_rendered("srt", Transcript("x", segments=(Segment(text, 0.0, 1.0),))))
    assert "-->" not in cue[2]


def test_long_segments_are_cut_at_their_words():
    """A segment of a minute becomes readable cues with the segment's own punctuation."""
    tokens = [f"word{number}{'.' if number % 10 == 9 else ''}" for number in range(100)]
    words = tuple(Word(f"word{n}", n * 0.6, n * 0.6 + 0.5) for n in range(100))
    transcript = Transcript("x", segments=(Segment(" ".join(tokens), 0.0, 60.0),), words=words)
    cues = parsed_srt(_rendered("srt", transcript))
    assert " ".join(text.replace("\n", " ") for _, _, text in cues) == " ".join(tokens)
    assert all(end - start <= 7000 for start, end, _ in cues)
    assert all(len(line) <= 42 for _, _, text in cues for line in text.split("\n"))
    assert all(len(text.split("\n")) <= 2 for _, _, text in cues)
    assert cues[0][2].endswith("word9.")


def _cues(*segments: Segment, layout: Layout = DEFAULT_LAYOUT) -> list[str]:
    document = transcript_document(Transcript("x", segments=segments), facts())
    return [text for _, _, text in parsed_srt(RENDERERS["srt"](document, layout).decode())]


def test_no_word_is_left_alone():
    """A last word that does not fit is not a cue of its own, and neither is a segment of one word."""
    tokens = " ".join(["fourteen-chars"] * 6)
    assert [len(cue.split()) for cue in _cues(Segment(tokens, 0.0, 6.0))] == [3, 3]
    assert _cues(Segment("We went to the old", 0.0, 2.0), Segment("house.", 2.0, 2.5)) == [
        "We went to the old house."
    ]
    assert _cues(Segment("Are you there?", 0.0, 2.0), Segment("Yes.", 4.0, 4.5)) == ["Are you there?", "Yes."]


def test_cues_of_a_long_segment_are_about_equally_long():
    """A text of one and a half cues becomes two of the same length, not a full one and a rest."""
    text = " ".join(f"word{number:02d}" for number in range(18))
    first, second = _cues(Segment(text, 0.0, 9.0))
    assert len(first.split()) == len(second.split()) == 9


def test_cues_end_at_a_comma_rather_than_within_a_clause():
    """A comma near the middle is where a long sentence is cut."""
    text = "When the rain had finally stopped for good that evening, everybody went out to look at the river"
    first, second = _cues(Segment(text, 0.0, 8.0))
    assert first.endswith("evening,")
    assert second.startswith("everybody")


def test_a_layout_sets_lines_and_time():
    """`subtitles` of a rule bounds the line, the lines of a cue, and the time of one."""
    tokens = [f"token{number}" for number in range(60)]
    words = tuple(Word(token, n * 0.5, n * 0.5 + 0.5) for n, token in enumerate(tokens))
    layout = Layout(line_characters=20, cue_lines=3, cue_seconds=3.0)
    document = transcript_document(Transcript("x", words=words), facts())
    cues = parsed_srt(RENDERERS["srt"](document, layout).decode())
    assert " ".join(text.replace("\n", " ") for _, _, text in cues) == " ".join(tokens)
    assert all(len(line) <= 20 for _, _, text in cues for line in text.split("\n"))
    assert all(end - start <= 3000 for start, end, _ in cues)
    assert max(len(text.split("\n")) for _, _, text in cues) == 3


def test_words_that_do_not_match_their_segment_do_not_cut_it():
    """Tokens that are not the segment's words are not used to cut it; no cue stays longer than 7 s."""
    words = tuple(Word(part, n * 1.0, n + 0.9) for n, part in enumerate([" Hel", "lo", " there"]))
    transcript = Transcript("x", segments=(Segment("Hello there", 0.0, 30.0),), words=words)
    assert parsed_srt(_rendered("srt", transcript)) == [(0, 7000, "Hello there")]


@pytest.mark.parametrize(("count", "start"), [(2, "0:03"), (20_000, "0:00")])
def test_words_far_more_than_a_segment_s_text_say_nothing_about_its_time(count, start):
    """All words and segments of a broken answer may have one time: each segment looked at all words."""
    segment, words = Segment("Hm yes.", 0.5, 5.0), (Word("hm", 3.0, 3.1),) * count
    rendered = _rendered("md", Transcript("Hm yes.", segments=(segment,) * count, words=words))
    assert f"**{start}** Hm yes." in rendered


def test_cues_have_the_times_of_their_own_speaker_s_words():
    """Where two speakers talk at once, the other one's words say nothing about a cue's time."""
    text = "I was saying that we should go home now because it is late and dark outside, and cold too"
    starts = [0.2 * number if number < 10 else 7.0 + 0.2 * number for number in range(19)]
    said = zip(text.split(), starts, strict=True)
    words = [Word(word, start, start + 0.2, speaker="A") for word, start in said]
    words += [Word("Yes,", 1.05, 1.2, speaker="B"), Word("yes.", 1.25, 1.4, speaker="B")]
    segments = (Segment(text, 0.0, 10.8, "A"), Segment("Yes, yes.", 1.05, 1.4, "B"))
    transcript = Transcript("x", segments=segments, words=tuple(words))
    starts = [start for start, _, text in parsed_srt(_rendered("srt", transcript)) if text.startswith("A")]
    assert starts == [0, 9000]


def test_a_word_of_another_label_within_a_segment_costs_no_times():
    """A segment's speaker may be that of most of its words."""
    text = "One two three four. Five six seven eight."
    starts = (0.0, 0.4, 0.8, 1.2, 6.0, 6.4, 6.8, 7.2)
    words = tuple(
        Word(word, start, start + 0.3, speaker="B" if word == "three" else "A")
        for word, start in zip(text.split(), starts, strict=True)
    )
    transcript = Transcript("x", segments=(Segment(text, 0.0, 7.5, "A"),), words=words)
    assert [start for start, _, _ in parsed_srt(_rendered("srt", transcript))] == [0, 6000]


def test_long_segments_without_words_are_cut_by_their_text():
    """A segment of a minute without timed words: readable parts, spread over its time, nothing lost."""
    tokens = [f"token{number}" for number in range(100)]
    cues = parsed_srt(_rendered("srt", Transcript("x", segments=(Segment(" ".join(tokens), 0.0, 60.0),))))
    assert " ".join(text.replace("\n", " ") for _, _, text in cues) == " ".join(tokens)
    assert all(len(text.split("\n")) <= 2 for _, _, text in cues)
    assert cues[-1][0] > 50_000
    assert cues[-1][1] <= 60_000


JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で"
    "ニャーニャー泣いていた事だけは記憶している。しかもあとで聞くとそれは「書生」という人間であったそうだ。"
)
CHINESE = "他說“你好”，然後用 Python 3.13 寫了一個程式。今天天氣很好，我們一起去公園散步吧！好不好？"  # noqa: RUF001 - full-width marks


@pytest.mark.parametrize("text", [JAPANESE, CHINESE])
def test_text_without_spaces_has_lines_of_the_layout(text):
    """Chinese and Japanese are broken between characters; marks stay with what they belong to."""
    cues = _cues(Segment(text, 0.0, 30.0), layout=Layout(line_characters=16))
    lines = [line for cue in cues for line in cue.split("\n")]
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= 16 for line in lines)
    assert all(len(cue.split("\n")) <= 2 for cue in cues)
    assert not [line for line in lines if line[0] in "。，、！？」”ー" or line[-1] in "「“"]  # noqa: RUF001


def test_text_without_spaces_has_the_times_of_its_words():
    """A cue that begins within a word of the provider begins with its share of the word's time."""
    words = tuple(Word(JAPANESE[at : at + 4], at * 0.2, at * 0.2 + 0.8) for at in range(0, len(JAPANESE), 4))
    document = transcript_document(
        Transcript("x", segments=(Segment(JAPANESE, 0.0, 60.0),), words=words), facts()
    )
    spoken = 0
    for start, _, text in parsed_srt(RENDERERS["srt"](document, Layout(line_characters=16)).decode()):
        assert start == pytest.approx(200 * spoken, abs=1)
        spoken += len(text.replace("\n", ""))


def test_words_without_spaces_are_joined_without():
    """Words alone: Chinese ones are not set apart, others are."""
    words = [("你好", 0.0), ("世界", 0.5), ("hello", 1.0), ("world", 1.5)]
    transcript = Transcript("x", words=tuple(Word(word, start, start + 0.4) for word, start in words))
    assert [text for *_, text in parsed_srt(_rendered("srt", transcript))] == ["你好世界 hello world"]


def test_short_cues_stay_on_where_there_is_room():
    """0.8 s at least, and no more than 21 characters a second, up to the next cue."""
    segments = (
        Segment("Yes.", 0.0, 0.2),
        Segment("A sentence of forty-two characters, spoken", 5.0, 5.5),
        Segment("No.", 6.0, 6.3),
        Segment("Oh.", 6.5, 6.6),
    )
    assert [
        (start, end) for start, end, _ in parsed_srt(_rendered("srt", Transcript("x", segments=segments)))
    ] == [
        (0, 800),
        (5000, 6000),
        (6000, 6800),
        (6800, 7600),
    ]


def test_two_lines_are_about_equally_long():
    """A cue of two lines breaks near its middle, not at the end of the first line."""
    text = "This is one sentence that needs two lines to be shown."
    (cue,) = parsed_srt(_rendered("srt", Transcript("x", segments=(Segment(text, 0.0, 4.0),))))
    assert cue[2] == "This is one sentence that\nneeds two lines to be shown."


def test_words_alone_are_grouped():
    """Words break at pauses and changes of speaker; no word stands alone that was not said alone."""
    words = (
        Word("One.", 0.0, 0.5, speaker="A"),
        Word("Two", 0.5, 1.0, speaker="A"),
        Word("three", 3.0, 3.5, speaker="A"),
        Word("four", 3.5, 4.0, speaker="B"),
    )
    cues = parsed_srt(_rendered("srt", Transcript("x", words=words)))
    assert [text for _, _, text in cues] == ["A: One. Two", "A: three", "B: four"]


def _texts(words=(), segments=()) -> str:
    made = _rendered("srt", Transcript("x", words=tuple(words), segments=tuple(segments)))
    return " ".join(text.replace("\n", " ") for _, _, text in parsed_srt(made))


@pytest.mark.parametrize("untimed", [0, 2, 4])
def test_words_without_times_are_in_the_cues(untimed):
    """whisperX does not time numbers: they stand beside their neighbours."""
    text = ["It", "costs", "5", "new", "dollars"]
    words = [
        Word(word) if at == untimed else Word(word, at * 0.5, at * 0.5 + 0.4, speaker="A")
        for at, word in enumerate(text)
    ]
    assert _texts(words) == "A: It costs 5 new dollars"
    assert _texts(words, [Segment("It costs 5 new dollars.", 0, 2.5)]) == "It costs 5 new dollars."


def test_segments_without_times_are_in_the_cues():
    """An untimed segment joins the one before it, or the next one where that has its speaker."""
    segments = [
        Segment("Zero.", None, None, "B"),
        Segment("One.", 0.0, 1.0, "A"),
        Segment("Two.", 1.0, None, "A"),
        Segment("Three.", None, None, "B"),
        Segment("Four.", 4.0, 5.0, "B"),
        Segment("Five.", None, None, "A"),
    ]
    assert _texts(segments=segments) == "A: Zero. One. Two. B: Three. Four. Five."
    assert _texts(segments=[Segment("你好", 0.0, 1.0), Segment("世界")]) == "你好世界"


def test_blank_segments_hide_no_words():
    """Where the segments have no text, the words have it."""
    words = [Word("one", 0.0, 0.5), Word("two", 0.5, 1.0)]
    assert _texts(words, [Segment("", 0.0, 1.0)]) == "one two"


times = st.none() | st.floats(0, 4e5)
segments = st.lists(st.builds(Segment, st.text(max_size=300), times, times), max_size=6)
words = st.lists(st.builds(Word, st.text(max_size=12), times, times), max_size=30)


@given(segments, words)
def test_any_srt_can_be_read_back(some_segments, some_words):
    """Whatever the provider says, each cue has text and ends after it starts."""
    made = _rendered("srt", Transcript("x", segments=tuple(some_segments), words=tuple(some_words)))
    if made:
        cues = parsed_srt(made)
        assert all(0 < end - start <= 7001 for start, end, _ in cues)
        assert all(after[0] >= before[1] for before, after in itertools.pairwise(cues))


@given(segments, words)
def test_any_vtt_has_one_arrow_a_cue(some_segments, some_words):
    """No text can pass for a line of times, a tag or a second cue."""
    made = _rendered("vtt", Transcript("x", segments=tuple(some_segments), words=tuple(some_words)))
    for block in made.removesuffix("\n").split("\n\n")[1:] if made else []:
        times_line, *lines = block.split("\n")
        assert times_line.count("-->") == 1
        assert lines
        assert not any("-->" in line or "<" in line for line in lines)


def test_letters_without_width_stay_in_every_output():
    """Persian words, Hindi and emoji are read otherwise without them, and are not cut into words there."""
    text = "می‌خواهم क्‍ष 👨‍👩‍👧"
    segment = Segment(text, 0.0, 5.0, "speaker_0")
    made = Transcript(text, segments=(segment,))
    for kind in ("txt", "srt", "vtt", "md"):
        assert text in (_rendered(kind, made) or "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("שלום\u200f. (\u200fעד\u200f)", "שלום. (עד)"),
        ("\ufeffעד\u061c!", "עד!"),
        ("🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f x", None),
        ("\U0001fae8 new", None),
        ("pay \u202e001\u202c now\u2028then\x07", "pay 001 now then"),
    ],
)
def test_marks_make_no_spaces_and_new_letters_stay(text, shown):
    """Direction marks are left out; the flag of England and emoji of a later Unicode than Python's stay."""
    segment = Segment(text, 0.0, 5.0, "A")
    for kind in ("txt", "srt", "md"):
        assert (shown or text) in (_rendered(kind, Transcript("x", segments=(segment,))) or "")


def test_text_has_no_spaces_between_words_of_scripts_without_them():
    """Chinese words with speakers, and segments in paragraphs, are joined as Chinese is written."""
    said = ("你", "好", "世", "界", "ok")
    words = tuple(Word(word, number, number + 1.0, speaker="A") for number, word in enumerate(said))
    assert _rendered("txt", Transcript("x", words=words)) == "A: 你好世界 ok\n"
    segments = (Segment("你好。", 0.0, 1.0), Segment("世界。", 1.0, 2.0), Segment("And so on.", 2.0, 3.0))
    document = transcript_document(Transcript("x", segments=segments), facts())
    text = RENDERERS["txt"](document, Layout(paragraphs=True)).decode()
    assert text == "你好。世界。 And so on.\n"
