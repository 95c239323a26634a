"""The whole JSON document of one finished file: a transcript's (CONTRACT.md §5) or an error's (§4).

Guarantees: pure; every key is always there and what is unknown is null; the same facts give the same
document, so publishing again after a crash writes the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dropscribe.transcripts.cues import cues_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dropscribe.core.model import Attempt
    from dropscribe.transcripts.model import Missing, Segment, Transcript, Word

TRANSCRIPT_SCHEMA = "dropscribe.transcript/1"
ERROR_SCHEMA = "dropscribe.error/1"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMED_OUTPUTS = frozenset({"srt", "vtt"})
_WARNINGS_OF_A_JOB = frozenset({"incomplete_audio", "no_timestamps"})


@dataclass(frozen=True, slots=True)
class TranscriptFacts:
    """What a transcript's document says beyond the provider's answer.

    Attributes:
        path: The audio's path below its inbox, bytes; a bare name for a file outside any folder.
        size_bytes: As uploaded.
        sha256: Hex digest of the audio as uploaded.
        modified_at: The audio's mtime, Unix seconds.
        provider_name: The user's name for the provider.
        provider_type: pulse, reson8, openai or local.
        params: What was sent, defaults included.
        folder: The rule's name, or None outside any folder.
        attempts: Attempts that counted, this one included.
        received_at: When intake first saw the file, Unix seconds.
        transcribed_at: When the answer was whole, Unix seconds.
        elapsed_seconds: From the first byte sent to the whole answer.
        refusals: (provider, code) of those who refused the file before, in order.
    """

    path: bytes
    size_bytes: int
    sha256: str
    modified_at: float
    provider_name: str
    provider_type: str
    params: Mapping[str, Any]
    folder: str | None
    attempts: int
    received_at: float
    transcribed_at: float
    elapsed_seconds: float
    refusals: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """Why one file was given up.

    Attributes:
        path: The audio's path below its inbox, bytes.
        folder: The rule's name.
        code: Why, as a stable word.
        reason: Why, in the provider's or the system's words; holds no secret.
        failed_at: Unix seconds.
        provider: The provider that had the last word; None when none was asked.
        attempts: Every attempt, oldest first; empty for what was never sent.
    """

    path: bytes
    folder: str
    code: str
    reason: str
    failed_at: float
    provider: str | None = None
    attempts: Sequence[Attempt] = ()


def transcript_document(
    transcript: Transcript,
    facts: TranscriptFacts,
    *,
    outputs: Iterable[str] = ("json",),
    warnings: Iterable[str] = (),
) -> dict[str, Any]:
    """The ``dropscribe.transcript/1`` document.

    Args:
        transcript: The provider's answer, normalised.
        facts: Source, provider and job.
        outputs: The formats asked for; srt or vtt with nothing timed adds ``no_timestamps``.
        warnings: The caller's own ("incomplete_audio").
    """
    found = [*transcript.warnings, *warnings]
    if not transcript.text:
        found.append("empty_transcript")
    document: dict[str, Any] = {
        "schema": TRANSCRIPT_SCHEMA,
        "text": transcript.text,
        "language": transcript.language,
        "duration": _rounded(transcript.duration),
        "segments": [_segment(number, segment) for number, segment in enumerate(transcript.segments)],
        "words": [_word(word) for word in transcript.words],
        "speakers": _speakers(transcript),
        "attributes": dict(transcript.attributes),
        "warnings": [],
        "missing": [_missing(gap) for gap in transcript.missing],
        "reused": False,
        "source": _source(facts),
        "provider": _provider(transcript, facts),
        "job": _job(facts),
        "raw": transcript.raw,
    }
    document["warnings"] = _warnings(document, found, outputs)
    return document


def reused_document(
    known: Mapping[str, Any],
    facts: TranscriptFacts,
    *,
    outputs: Iterable[str] = ("json",),
    warnings: Iterable[str] = (),
) -> dict[str, Any]:
    """The document of another file with the same content: *known*'s answer, this file's own facts.

    The provider stays the one that answered; warnings that were about the other job's file or outputs go.
    """
    found = [word for word in known["warnings"] if word not in _WARNINGS_OF_A_JOB]
    document = {
        **known,
        "reused": True,
        "source": _source(facts),
        "provider": {**known["provider"], "path": _path(facts)},
        "job": _job(facts),
    }
    document["warnings"] = _warnings(document, [*found, *warnings], outputs)
    return document


def _warnings(document: Mapping[str, Any], found: Iterable[str], outputs: Iterable[str]) -> list[str]:
    untimed = not _TIMED_OUTPUTS.isdisjoint(outputs) and not cues_of(document)
    return list(dict.fromkeys([*found, *(["no_timestamps"] if untimed else [])]))


def error_document(facts: ErrorFacts) -> dict[str, Any]:
    """The ``dropscribe.error/1`` document."""
    return {
        "schema": ERROR_SCHEMA,
        "file": name_text(facts.path),
        "folder": facts.folder,
        "provider": facts.provider,
        "code": facts.code,
        "reason": facts.reason,
        "failed_at": utc_text(facts.failed_at),
        "attempts": [_attempt(attempt) for attempt in facts.attempts],
    }


def name_text(path: bytes) -> str:
    r"""The last part of *path*; bytes that are not UTF-8 become ``\udcXX`` (CONTRACT.md §4)."""
    return path_text(path.rpartition(b"/")[2])


def path_text(path: bytes) -> str:
    r"""*path* as text; bytes that are not UTF-8 become ``\udcXX``."""
    return path.decode("utf-8", "surrogateescape")


def utc_text(unix_seconds: float) -> str | None:
    """ISO 8601 in UTC to the millisecond; None for what no calendar holds (a broken mtime)."""
    try:
        moment = _EPOCH + timedelta(seconds=unix_seconds)
    except (OverflowError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "start": _rounded(segment.start),
        "end": _rounded(segment.end),
        "text": segment.text,
        "speaker": segment.speaker,
        "confidence": _rounded(segment.confidence),
    }


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.word,
        "start": _rounded(word.start),
        "end": _rounded(word.end),
        "confidence": _rounded(word.confidence),
        "speaker": word.speaker,
    }


def _missing(gap: Missing) -> dict[str, Any]:
    return {"start": _rounded(gap.start), "end": _rounded(gap.end), "code": gap.code}


def _speakers(transcript: Transcript) -> list[str]:
    items: list[Segment | Word] = [*transcript.segments, *transcript.words]
    # By time, because a speaker may be known from words alone; untimed items keep their place at the end.
    items.sort(key=lambda item: float("inf") if item.start is None else item.start)
    return list(dict.fromkeys(item.speaker for item in items if item.speaker is not None))


def _source(facts: TranscriptFacts) -> dict[str, Any]:
    return {
        "file": name_text(facts.path),
        "path": path_text(facts.path),
        "bytes": facts.size_bytes,
        "sha256": facts.sha256,
        "modified_at": utc_text(facts.modified_at),
    }


def _provider(transcript: Transcript, facts: TranscriptFacts) -> dict[str, Any]:
    return {
        "name": facts.provider_name,
        "type": facts.provider_type,
        "model": transcript.model,
        "params": dict(facts.params),
        "request_id": transcript.request_id,
        "path": _path(facts),
    }


def _path(facts: TranscriptFacts) -> list[dict[str, str]]:
    return [{"provider": provider, "code": code} for provider, code in facts.refusals]


def _job(facts: TranscriptFacts) -> dict[str, Any]:
    return {
        "folder": facts.folder,
        "attempts": facts.attempts,
        "received_at": utc_text(facts.received_at),
        "transcribed_at": utc_text(facts.transcribed_at),
        "elapsed": _rounded(facts.elapsed_seconds),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": utc_text(attempt.at),
        "provider": attempt.provider,
        "status": attempt.status,
        "code": attempt.code,
        "reason": attempt.reason,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
