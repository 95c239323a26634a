"""The JSON document of one finished file: its transcript or its error.

Guarantees: pure; every key is always there, unknown values are null; the same facts give the same
document, so publishing again after a crash writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dropscribe.core.model import Attempt, Job
from dropscribe.core.requests.params import effective_params, shown_params
from dropscribe.core.text.printing import name_text, one_line, path_text, utc_text
from dropscribe.transcripts.cues import is_timed
from dropscribe.transcripts.dates import recording_date
from dropscribe.transcripts.model import Missing, Segment, Transcript, Word

TRANSCRIPT_SCHEMA = "dropscribe.transcript/1"
ERROR_SCHEMA_PREFIX = "dropscribe.error/"
ERROR_SCHEMA = f"{ERROR_SCHEMA_PREFIX}1"

_TIMED_OUTPUTS = frozenset({"srt", "vtt"})
COMPANION_MISSING = "companion_missing"
_WARNINGS_OF_A_JOB = frozenset({"incomplete_audio", "no_timestamps", COMPANION_MISSING})
_HARMLESS_WARNINGS = frozenset({"no_timestamps", "no_speech", COMPANION_MISSING})

WARNING_WORDS = {  # Sentences for the warnings that dropscribe itself adds; others are shown as they are
    "answer_truncated": "The provider's answer was too long: its end is missing.",
    COMPANION_MISSING: "A file that belongs to the recording did not come in time.",
    "empty_transcript": "The provider heard no words in this recording.",
    "incomplete_audio": "The recording was incomplete when it was sent: its own header promises more.",
    "missing_audio": "Parts of the recording are missing in this transcript.",
    "no_speech": "The recording is silent; it was not sent to the provider.",
    "no_timestamps": "The provider gave no times, so there are no subtitles.",
    "other_tracks": "The file has more audio tracks, which were not transcribed.",
    "speakers_per_piece": "The recording was sent in pieces; each piece names its speakers anew.",
    "template_failed": "The rule's template could not be rendered.",
}


@dataclass(frozen=True, slots=True)
class TranscriptFacts:
    """The facts in a transcript's document beyond the provider's answer."""

    path: bytes  # below its inbox; a bare name for a file outside any folder
    size_bytes: int  # as uploaded
    sha256: str  # hex digest of the audio as uploaded
    modified_at: float  # the audio's mtime, Unix seconds
    provider_name: str  # the user's name for it
    provider_type: str  # `type` in the config
    params: Mapping[str, Any]  # of the config; an empty list stands for a removed one
    folder: str | None  # the rule's name; None outside any folder
    attempts: int  # attempts that counted, this one included
    received_at: float  # as ``NewJob.received_at``
    transcribed_at: float  # when the answer was whole, Unix seconds
    elapsed_seconds: float  # from the first byte sent to the whole answer
    refusals: Sequence[tuple[str, str]] = ()  # (provider, code) of earlier refusals, in order
    speaker_names: Mapping[str, str] = field(default_factory=dict)  # the rule's, by the provider's labels
    date_pattern: str | None = None  # of the date in file names
    outputs: Sequence[str] = ("json",)  # the formats asked for
    warnings: Sequence[str] = ()  # the caller's own ("incomplete_audio")


def transcript_document(transcript: Transcript, facts: TranscriptFacts) -> dict[str, Any]:
    """The ``dropscribe.transcript/1`` document of a provider's normalised answer.

    Where srt or vtt is asked for and nothing is timed, it has the warning ``no_timestamps``.
    """
    warnings = [*transcript.warnings, *facts.warnings, *([] if transcript.text else ["empty_transcript"])]
    document: dict[str, Any] = {
        "schema": TRANSCRIPT_SCHEMA,
        "text": transcript.text,
        "language": transcript.language,
        "duration": _rounded(transcript.duration),
        **_parts(transcript),
        "speaker_names": {},
        "recorded_at": None,
        "recorded_by": None,
        "companion": None,
        "attributes": dict(transcript.attributes),
        "warnings": [],
        "missing": [{**_span(gap), "code": gap.code} for gap in transcript.missing],
        "reused": False,
        "source": {},
        "provider": {
            "name": facts.provider_name,
            "type": facts.provider_type,
            "model": transcript.model,
            "params": shown_params(effective_params(facts.provider_type, facts.params)),
            "request_id": transcript.request_id,
            "path": [],
        },
        "job": {},
        "raw": transcript.raw,
    }
    return _with_facts(document, facts, warnings)


def reused_document(known: Mapping[str, Any], facts: TranscriptFacts) -> dict[str, Any]:
    """The document of another file with the same content: *known*'s answer, this file's own facts.

    The provider stays the one that answered; warnings about the other job's file or outputs are dropped.
    """
    warnings = [word for word in known["warnings"] if word not in _WARNINGS_OF_A_JOB]
    labels = {name: label for label, name in reversed(known.get("speaker_names", {}).items())}
    document = {**_with_speakers(known, labels), "speaker_names": {}, "reused": True}
    return _with_facts(document, facts, [*warnings, *facts.warnings])


def _with_facts(document: dict[str, Any], facts: TranscriptFacts, warnings: Iterable[str]) -> dict[str, Any]:
    """*document* with *warnings* and the facts of its own file, job and rule; companions come later."""
    document |= {
        "source": {
            "file": name_text(facts.path),
            "path": path_text(facts.path),
            "bytes": facts.size_bytes,
            "sha256": facts.sha256,
            "modified_at": utc_text(facts.modified_at),
        },
        "provider": {
            **document["provider"],
            "path": [{"provider": provider, "code": code} for provider, code in facts.refusals],
        },
        "job": {
            "folder": facts.folder,
            "attempts": facts.attempts,
            "received_at": utc_text(facts.received_at),
            "transcribed_at": utc_text(facts.transcribed_at),
            "elapsed": _rounded(facts.elapsed_seconds),
        },
        "companion": None,
    }
    document |= recording_date(document, facts.date_pattern)
    names = {label: one_line(name) for label, name in facts.speaker_names.items()}
    if names := {label: names[label] for label in document["speakers"] if names.get(label)}:
        document = {**_with_speakers(document, names), "speaker_names": names}
    untimed = not _TIMED_OUTPUTS.isdisjoint(facts.outputs) and not is_timed(document)
    document["warnings"] = list(dict.fromkeys([*warnings, *(["no_timestamps"] if untimed else [])]))
    return document


def merges_speakers(document: Mapping[str, Any], transcript: Transcript) -> bool:
    """Whether the rule's names in *document*, made of *transcript*, are fewer than the provider's labels."""
    return len(document["speakers"]) < len(_speakers(transcript))


def unnamed_document(document: Mapping[str, Any], transcript: Transcript) -> dict[str, Any]:
    """*document*, made of *transcript*, with the provider's labels instead of the rule's names."""
    return {**document, **_parts(transcript), "speaker_names": {}}


def renamed_document(document: Mapping[str, Any], path: bytes, date_pattern: str | None) -> dict[str, Any]:
    """A transcript's *document* for a file that got another path inside its inbox."""
    renamed = {**document, "source": {**document["source"], "file": name_text(path), "path": path_text(path)}}
    return renamed | recording_date(renamed, date_pattern)


def with_companions(
    document: Mapping[str, Any], companions: Mapping[str, Any], date_pattern: str | None, *, is_missing: bool
) -> dict[str, Any]:
    """A transcript's *document* with the JSON files that belong to the recording, by name, and their date.

    *is_missing* says that one of them did not come in time.
    """
    warnings = [word for word in document["warnings"] if word != COMPANION_MISSING]
    warnings += [COMPANION_MISSING] if is_missing else []
    document = {**document, "companion": dict(companions) or None, "warnings": warnings}
    return document | recording_date(document, date_pattern)


def _with_speakers(document: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    def with_name(item: Mapping[str, Any]) -> dict[str, Any]:
        return {**item, "speaker": names.get(item["speaker"], item["speaker"])}

    return {
        **document,
        "segments": [with_name(segment) for segment in document["segments"]],
        "words": [with_name(word) for word in document["words"]],
        "speakers": list(dict.fromkeys(names.get(speaker, speaker) for speaker in document["speakers"])),
    }


def is_error(document: Mapping[str, Any]) -> bool:
    """Whether *document* describes a failure."""
    return str(document["schema"]).startswith(ERROR_SCHEMA_PREFIX)


def is_document(value: object) -> bool:
    """Whether *value* has the keys that publishing a transcript or an error needs."""
    match value:
        case {"schema": str(schema), "code": str(), "reason": str()}:
            return schema.startswith(ERROR_SCHEMA_PREFIX)
        case {"schema": str(), "source": {"path": str()}, "warnings": list(), "duration": duration}:
            return duration is None or isinstance(duration, int | float)
    return False


def doubts_of(document: Mapping[str, Any]) -> list[str]:
    """The warnings of a transcript that speak against its text."""
    found = [str(warning) for warning in document.get("warnings") or ()]
    harmless = _HARMLESS_WARNINGS | ({"empty_transcript"} if "no_speech" in found else set())
    return [warning for warning in found if warning not in harmless]


def error_document(
    job: Job, code: str, reason: str, failed_at: float, attempts: Iterable[Attempt] = ()
) -> dict[str, Any]:
    """The ``dropscribe.error/1`` document of a *job* that failed at some Unix time, with all its *attempts*.

    The *code* is a stable word, the *reason* the provider's or the system's, without a secret.
    """
    return {
        "schema": ERROR_SCHEMA,
        "file": name_text(job.path),
        "folder": job.folder,
        "provider": job.provider or None,
        "code": code,
        "reason": reason,
        "failed_at": utc_text(failed_at),
        "attempts": [
            {"at": utc_text(attempt.at)}
            | {key: getattr(attempt, key) for key in ("provider", "status", "code", "reason")}
            for attempt in attempts
        ],
    }


def _parts(transcript: Transcript) -> dict[str, Any]:
    return {
        "segments": [
            {
                "id": number,
                **_span(segment),
                "text": segment.text,
                "speaker": segment.speaker,
                "confidence": _rounded(segment.confidence),
            }
            for number, segment in enumerate(transcript.segments)
        ],
        "words": [
            {
                "word": word.word,
                **_span(word),
                "confidence": _rounded(word.confidence),
                "speaker": word.speaker,
            }
            for word in transcript.words
        ],
        "speakers": _speakers(transcript),
    }


def _span(item: Segment | Word | Missing) -> dict[str, float | None]:
    return {"start": _rounded(item.start), "end": _rounded(item.end)}


def _speakers(transcript: Transcript) -> list[str]:
    items: list[Segment | Word] = [*transcript.segments, *transcript.words]
    # By time, because a speaker may be known from words alone; untimed items keep their place at the end.
    items.sort(key=lambda item: float("inf") if item.start is None else item.start)
    return list(dict.fromkeys(item.speaker for item in items if item.speaker is not None))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
