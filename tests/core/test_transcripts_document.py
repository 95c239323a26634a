"""The JSON documents of finished files: keys, types and stability."""

import json
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dropscribe.core.model import Attempt
from dropscribe.core.text.printing import utc_text
from dropscribe.providers.build import BUILDERS
from dropscribe.transcripts.document import error_document, transcript_document
from dropscribe.transcripts.model import Segment, Transcript, Word
from dropscribe.transcripts.render import RENDERERS
from support.transcripts import facts, failed_job


@cache
def _schema(name: str) -> jsonschema.Draft202012Validator:
    text = (files("dropscribe.transcripts") / "schema" / f"{name}.schema.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


def test_every_key_is_always_there():
    """An empty answer still has every key, nulls for what is unknown, and is a result."""
    document = transcript_document(Transcript(""), facts())
    _schema("transcript").validate(document)
    assert document["warnings"] == ["empty_transcript"]
    assert document["language"] is None
    assert document["segments"] == document["words"] == document["speakers"] == []
    assert document["provider"]["request_id"] is None


def test_params_are_those_that_were_sent():
    """Defaults of the type are among them, removed parameters are not."""
    given = replace(facts(), provider_type="openai", params={"response_format": [], "language": "de"})
    sent = transcript_document(Transcript("hi"), given)["provider"]["params"]
    assert sent == {"model": "whisper-1", "language": "de"}


def test_a_key_among_the_params_is_not_shown():
    """Some APIs take it there; words that are likely to be said are no key."""
    params = {"token": "sk-1", "X-Api-Key": "sk-2", "keyterm": "sk", "max_tokens": 5, "use_key": True}
    given = replace(facts(), provider_type="http", params=params)
    sent = transcript_document(Transcript("hi"), given)["provider"]["params"]
    assert sent == params | {"token": "***", "X-Api-Key": "***"}


def test_an_infinite_parameter_of_the_engine_can_be_written():
    """JSON has no infinite numbers; YAML has them, and they switch checks of the engine off."""
    given = replace(facts(), provider_type="local", params={"no_speech_threshold": float("inf")})
    document = transcript_document(Transcript("hi"), given)
    assert json.loads(RENDERERS["json"](document))["provider"]["params"] == {"no_speech_threshold": "inf"}


@pytest.mark.parametrize("kind", [*BUILDERS, "of-a-package"])
def test_the_schema_takes_every_type(kind):
    """A transcript of each provider is valid, also of a type that another package adds."""
    given = replace(facts(), provider_type=kind)
    _schema("transcript").validate(transcript_document(Transcript("hi"), given))


def test_times_are_rounded_and_ids_given():
    """Floats have three places; segments are numbered from 0."""
    transcript = Transcript(
        "a b",
        duration=1.23456,
        segments=(Segment("a", 0.0004, 0.9996, confidence=0.98765), Segment("b")),
        words=(Word("a", 0.1 + 0.2, 1.00049),),
    )
    document = transcript_document(transcript, facts())
    _schema("transcript").validate(document)
    assert document["duration"] == 1.235
    assert [item["id"] for item in document["segments"]] == [0, 1]
    assert document["segments"][0]["end"] == 1.0
    assert document["segments"][0]["confidence"] == 0.988
    assert document["words"][0]["start"] == 0.3
    assert document["job"]["elapsed"] == 3.2


def test_speakers_in_order_of_first_appearance():
    """A speaker known from words alone is listed where it first speaks, each once."""
    transcript = Transcript(
        "x",
        segments=(Segment("x", 1.0, 2.0, "speaker_1"), Segment("y", 3.0, 4.0, "speaker_1")),
        words=(Word("x", 0.0, 0.5, speaker="speaker_0"), Word("?", speaker="Ann")),
    )
    assert transcript_document(transcript, facts())["speakers"] == ["speaker_0", "speaker_1", "Ann"]


def test_speakers_without_times_keep_the_order_of_the_answer():
    """Untimed turns list their speakers as they come."""
    transcript = Transcript("x", segments=(Segment("x", speaker="B"), Segment("y", speaker="A")))
    assert transcript_document(transcript, facts())["speakers"] == ["B", "A"]


@pytest.mark.parametrize(
    ("outputs", "segments", "expected"),
    [
        (("json", "srt"), (), ["no_timestamps"]),
        (("vtt",), (Segment("x", 1.0, None),), ["no_timestamps"]),
        (("json", "srt"), (Segment("x", 0.0, 1.0),), []),
        (("json", "txt"), (), []),
    ],
)
def test_no_timestamps_is_said_where_cues_were_asked_for(outputs, segments, expected):
    """The warning comes exactly when a cue format was asked for and nothing is timed."""
    transcript = Transcript("x", segments=segments)
    assert transcript_document(transcript, facts(outputs=outputs))["warnings"] == expected


def test_warnings_of_provider_and_caller_are_kept_once():
    """Warnings keep their order, each once."""
    transcript = Transcript("", warnings=("odd", "empty_transcript"))
    document = transcript_document(transcript, facts(warnings=["incomplete_audio", "odd"]))
    assert document["warnings"] == ["odd", "empty_transcript", "incomplete_audio"]


def test_names_outside_utf8_are_escaped_and_come_back():
    r"""A byte that is not UTF-8 stands as \udcXX in the file, and reads back to the same name."""
    document = transcript_document(Transcript("Grüße, мир"), facts(b"d\xe9/caf\xe9.wav"))
    written = RENDERERS["json"](document)
    assert rb"caf\udce9.wav" in written
    assert "Grüße, мир".encode() in written
    assert json.loads(written)["source"]["path"].encode("utf-8", "surrogateescape") == b"d\xe9/caf\xe9.wav"
    assert json.loads(written)["source"]["file"] == "caf\udce9.wav"


def test_json_reads_back_as_it_was():
    """What is written is the document, indented, ending in a newline, the raw answer untouched."""
    raw = {"words": [{"w": "half a pair \ud800"}], "n": 1e-9}
    document = transcript_document(Transcript("hi", raw=raw), facts())
    written = RENDERERS["json"](document)
    assert json.loads(written) == document
    assert written.endswith(b"}\n")
    assert b'\n  "schema"' in written


def test_json_has_a_line_for_each_key_and_each_word():
    """A person finds a word by its line, and an hour's file is not six times as long."""
    words = [Word("one", 0.0, 0.5), Word("two", 0.5, 1.0)]
    lines = RENDERERS["json"](transcript_document(Transcript("one two", words=words), facts())).splitlines()
    assert sum(line.startswith(b'    {"word": ') for line in lines) == len(words)
    assert b'  "speakers": [],' in lines
    assert any(line.startswith(b'  "source": {"file": ') for line in lines)


@example(["}, {", "},\n{", ",\n"])
@given(st.lists(st.text(st.sampled_from('{}[],:"\\\n ab'), max_size=8), min_size=1, max_size=6))
def test_a_word_s_line_is_json_whatever_the_word_is(words):
    """Braces, commas and line breaks within a word neither begin nor end a line."""
    document = transcript_document(Transcript("", words=tuple(map(Word, words))), facts())

    lines = RENDERERS["json"](document).decode().splitlines()

    begin = lines.index('  "words": [') + 1
    written = [json.loads(line.removesuffix(",")) for line in lines[begin : begin + len(words)]]
    assert written == document["words"]
    assert lines[begin + len(words)] == "  ],"


def test_error_document_has_the_keys_of_the_contract():
    """The error file has exactly the contract's keys, attempts oldest first."""
    attempts = [Attempt(1.5, "mine", 0.1, 400, "http_400", "no", counted=True), Attempt(9.0, "mine")]
    document = error_document(
        failed_job(b"a/b.wav", provider="mine"), "http_400", "no", 1_790_000_000.0, attempts
    )
    _schema("error").validate(document)
    assert document["file"] == "b.wav"
    assert document["attempts"][0] == {
        "at": "1970-01-01T00:00:01.500Z",
        "provider": "mine",
        "status": 400,
        "code": "http_400",
        "reason": "no",
    }


def test_error_without_a_provider():
    """A file that was never sent has no provider and no attempts."""
    document = error_document(failed_job(b"b.wav"), "empty_file", "0 bytes", 0.0)
    _schema("error").validate(document)
    assert document["provider"] is None
    assert document["attempts"] == []


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e18, -1e18])
def test_a_broken_time_is_null(seconds):
    """A time that no calendar holds is unknown, not an error."""
    assert utc_text(seconds) is None


@given(st.floats(-1e9, 4e9))
def test_times_are_utc_with_milliseconds(seconds):
    """Every instant has the schema's shape."""
    assert len(utc_text(seconds)) == len("1970-01-01T00:00:00.000Z")


text = st.text(max_size=40)
seconds = st.none() | st.floats(0, 1e5)
speaker = st.none() | st.sampled_from(["speaker_0", "speaker_1", ""])
confidence = st.none() | st.floats(0, 1)


@given(
    st.builds(
        Transcript,
        text=text,
        duration=seconds,
        segments=st.lists(st.builds(Segment, text, seconds, seconds, speaker, confidence), max_size=5).map(
            tuple
        ),
        words=st.lists(st.builds(Word, text, seconds, seconds, confidence, speaker), max_size=5).map(tuple),
    )
)
@example(
    Transcript(
        "",
        segments=(*[Segment("")] * 4, Segment("0", 0.0, 0.0)),
        words=(Word(""), Word("", 0.0, 0.0), Word("0", 0.0, 0.0)),
    )
)
def test_any_transcript_fits_the_schema_and_renders(transcript):
    """Whatever a provider says, the document is valid and every renderer gives the same bytes twice."""
    document = transcript_document(transcript, facts(outputs=("json", "txt", "srt", "vtt")))
    _schema("transcript").validate(document)
    for render in RENDERERS.values():
        assert render(document) == render(json.loads(json.dumps(document)))


def test_the_docs_name_every_key():
    """docs/transcript.md has a row for each key of a transcript."""
    page = (Path(__file__).parents[2] / "docs/transcript.md").read_text()
    document = transcript_document(Transcript(""), facts())
    assert [key for key in document if f"| `{key}` |" not in page] == []
    nested = [key for part in ("source", "provider", "job") for key in document[part]]
    assert [key for key in nested if f"`{key}`" not in page] == []
