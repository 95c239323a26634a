"""What Markdown notes, paragraphs, speakers' names and recording dates promise."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.transcripts.dates import name_date
from dropscribe.transcripts.document import (
    renamed_document,
    reused_document,
    transcript_document,
    with_companions,
)
from dropscribe.transcripts.model import Missing, Segment, Transcript, Word
from dropscribe.transcripts.render import RENDERERS, Layout
from support.transcripts import facts

CALL = Transcript(
    "Hello. How are you? Fine.",
    language="en",
    duration=3723.4,
    segments=(
        Segment("Hello.", 0.0, 1.0, "channel_0"),
        Segment("How are you?", 5.0, 6.0, "channel_0"),
        Segment("Fine.", 6.2, 7.0, "channel_1"),
    ),
    words=(Word("Hello.", 0.0, 1.0, speaker="channel_0"),),
)
NAMES = {"channel_0": "Agent", "channel_1": "Caller", "channel_7": "Nobody"}


def _markdown(document) -> tuple[dict, str]:
    text = RENDERERS["md"](document).decode()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body.lstrip("\n")


def test_a_note_has_front_matter_and_paragraphs():
    """Front matter that YAML reads, a title, and a paragraph for each speaker's turn and long pause."""
    document = transcript_document(
        CALL, facts(b"2026/call-20260102-030405.wav", date_pattern="%Y%m%d-%H%M%S")
    )
    front, body = _markdown(document)
    assert front == {
        "title": "call-20260102-030405",
        "date": document["recorded_at"] and front["date"],
        "date_from": "name",
        "duration": "1:02:03",
        "folder": "calls",
        "provider": "mine",
        "model": None,
        "language": "en",
        "speakers": ["channel_0", "channel_1"],
        "source": "2026/call-20260102-030405.wav",
        "tags": ["transcript"],
    }
    assert front["date"].isoformat() == "2026-01-02T03:04:05"
    assert body == (
        "# call-20260102-030405\n\n**0:00 channel\\_0:** Hello.\n\n"
        "**0:05 channel\\_0:** How are you?\n\n**0:06 channel\\_1:** Fine.\n"
    )


def test_bytes_of_a_name_that_are_no_utf8_have_a_mark_of_their_own():
    """In the title and the path alike; in the path they were spaces, as of another file."""
    front, _ = _markdown(transcript_document(CALL, facts(b"M\xe4rz/Gespr\xe4ch.wav")))
    assert (front["title"], front["source"]) == ("Gespr\ufffdch", "M\ufffdrz/Gespr\ufffdch.wav")


def test_a_note_warns_of_what_is_missing():
    """Warnings and gaps stand before the text, as sentences."""
    gap = Missing(60.0, 125.0, "too_large")
    transcript = Transcript("a", missing=(gap,), warnings=("missing_audio",))
    front, body = _markdown(transcript_document(transcript, facts()))
    assert front["warnings"] == ["missing_audio"]
    assert "> Parts of the recording are missing in this transcript." in body
    assert "> Missing from 1:00 to 2:05 (too\\_large)." in body


@given(st.text(max_size=200), st.text(min_size=1, max_size=30))
def test_no_text_leaves_its_paragraph_or_breaks_the_front_matter(text, speaker):
    """Whatever is said and by whom: the front matter is YAML, and no line begins a block of Markdown."""
    transcript = Transcript(text, segments=(Segment(text, 0.0, 1.0, speaker),))
    front, body = _markdown(transcript_document(transcript, facts()))
    assert set(front) >= {"title", "date", "speakers", "tags"}
    for line in body.splitlines()[1:]:
        assert not line or line.startswith(("**", "> "))


@pytest.mark.parametrize(
    "text",
    ["# title", "- item", "1. item", "> quote", "* item", "<b>", "[[link]]", "`x`", "---", "a&lt;b", "&#60;"],
)
def test_text_is_not_read_as_markup(text):
    """Text that looks like Markdown is escaped."""
    _, body = _markdown(transcript_document(Transcript(text), facts()))
    assert "\\" in body.splitlines()[-1]


def test_text_has_paragraphs_where_the_rule_wants_them():
    """`paragraphs: true`: a blank line at each change of speaker and each long pause, in `txt`."""
    document = transcript_document(CALL, facts(speaker_names=NAMES))
    assert RENDERERS["txt"](document, Layout(paragraphs=True)) == (
        b"Agent: Hello.\n\nAgent: How are you?\n\nCaller: Fine.\n"
    )
    plain = transcript_document(Transcript("One.\n\nTwo\nlines."), facts())
    assert RENDERERS["txt"](plain, Layout(paragraphs=True)) == b"One.\n\nTwo lines.\n"


def test_another_speaker_s_words_do_not_lengthen_a_paragraph():
    """A segment that lasts until the next one begins ends with its own words, so that its pause is seen."""
    words = (
        Word("One.", 0.0, 0.5, speaker="A"),
        Word("Hm.", 3.0, 3.5, speaker="B"),
        Word("Two.", 5.0, 5.5, speaker="A"),
    )
    segments = (Segment("One.", 0.0, 5.0, "A"), Segment("Two.", 5.0, 5.5, "A"))
    document = transcript_document(Transcript("x", segments=segments, words=words), facts())
    made = RENDERERS["txt"](document, Layout(paragraphs=True)).decode()
    assert made == "A: One.\n\nA: Two.\n"


def test_a_long_monologue_has_paragraphs_too():
    """Someone who never pauses gets a paragraph at the end of a sentence now and then; nothing is lost."""
    segments = tuple(Segment(f"This is sentence number {n}.", n * 2.0, n * 2.0 + 2.0) for n in range(200))
    made = RENDERERS["txt"](
        transcript_document(Transcript("x", segments=segments), facts()), Layout(paragraphs=True)
    )
    paragraphs = made.decode().strip().split("\n\n")
    assert len(paragraphs) > 2
    assert max(map(len, paragraphs)) < 1600
    assert " ".join(paragraphs) == " ".join(segment.text for segment in segments)


@pytest.mark.parametrize("form", ["json", "txt", "srt", "vtt", "md"])
def test_speakers_have_their_names_in_every_output(form):
    """`speaker_names` replaces the labels everywhere."""
    made = RENDERERS[form](transcript_document(CALL, facts(speaker_names=NAMES))).decode()
    assert "Agent" in made
    assert "Caller" in made
    assert "Nobody" not in made


def test_names_are_those_of_the_rule_also_for_a_reused_answer():
    """A reused answer has the names of its own rule, not of the one it was made for."""
    first = transcript_document(CALL, facts(speaker_names=NAMES))
    assert first["speakers"] == ["Agent", "Caller"]
    assert first["speaker_names"] == {"channel_0": "Agent", "channel_1": "Caller"}
    again = reused_document(first, facts(speaker_names={"channel_1": "Customer"}))
    assert again["speakers"] == ["channel_0", "Customer"]
    assert [segment["speaker"] for segment in again["segments"]] == ["channel_0", "channel_0", "Customer"]
    assert again["words"][0]["speaker"] == "channel_0"


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("call-20260102-030405.wav", "%Y%m%d-%H%M%S", "2026-01-02T03:04:05"),
        ("20260102.wav", "%Y%m%d", "2026-01-02T00:00:00"),
        ("REC_02.01.26_3h04.wav", "%d.%m.%y_%Hh%M", "2026-01-02T03:04:00"),
        ("x 2026-01-02T03:04:05+0200.wav", "%Y-%m-%dT%H:%M:%S%z", "2026-01-02T01:04:05Z"),
        ("920260102.wav", "%Y%m%d", None),
        ("20261302.wav", "%Y%m%d", None),
        ("call.wav", "%Y%m%d", None),
        ("18991231.wav", "%Y%m%d", None),
        ("00010101-20260102.wav", "%Y%m%d", "2026-01-02T00:00:00"),
    ],
)
def test_a_date_is_found_in_a_name(name, pattern, expected):
    """The pattern is looked for anywhere in the name; digits around it are another number."""
    assert name_date(name, pattern) == expected


def test_the_first_source_of_a_date_counts():
    """The container's own date, a companion, the name, the mtime: in this order, and it is said which."""
    name, pattern = b"20260102.wav", "%Y%m%d"
    container = Transcript("x", attributes={"recorded_at": "2025-05-05T05:05:05Z"})
    companion = {"call.json": {"start_time": 1_780_000_000}}

    def date(transcript, companion=None, **more):
        document = transcript_document(transcript, facts(name, **more))
        document = with_companions(document, companion or {}, more.get("date_pattern"), is_missing=False)
        return document["recorded_at"], document["recorded_by"]

    told = {"date_pattern": pattern, "companion": companion}
    assert date(container, **told) == ("2025-05-05T05:05:05Z", "container")
    assert date(Transcript("x"), **told) == ("2026-05-28T20:26:40Z", "companion")
    assert date(Transcript("x"), date_pattern=pattern) == ("2026-01-02T00:00:00", "name")
    assert date(Transcript("x")) == ("2026-09-21T14:13:20Z", "mtime")


def test_a_file_renamed_in_flight_has_the_date_of_its_new_name():
    """The name that the transcript gets is the one that the date is taken from."""
    document = transcript_document(Transcript("x"), facts(b"20260102.wav", date_pattern="%Y%m%d"))
    renamed = renamed_document(document, b"20260304.wav", "%Y%m%d")
    assert renamed["recorded_at"] == "2026-03-04T00:00:00"
    assert json.loads(RENDERERS["json"](renamed))["source"]["file"] == "20260304.wav"
