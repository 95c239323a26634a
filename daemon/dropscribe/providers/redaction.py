"""Makes a provider's words fit for logs and files: secrets masked, control characters removed, sizes bounded.

Guarantees: pure. The size of the documents and sidecars made of a cleaned transcript is at most some twenty
times that of the answer, which providers/transport/http.py bounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from dropscribe.core.requests.params import ParamValue, is_secret_param, secret_params
from dropscribe.core.text.printing import one_line, plain_text
from dropscribe.core.text.redaction import SecretMask
from dropscribe.transcripts.model import Segment, Transcript, Word

REASON_CHARACTERS = 500

MOST_WORDS = 500_000  # Some 50 hours of speech
MOST_SEGMENTS = 100_000
WORD_CHARACTERS = 1_000
LABEL_CHARACTERS = 100
"""Limit for a speaker's label, a language or a model's name: a label is repeated with every word and cue."""
MOST_SECONDS = 1e7  # Four months; a later time is not one
TOO_MUCH = "answer_truncated"  # the warning where words or segments are left out


class Redactor:
    """Masks secrets, as they are and percent-encoded.

    Args:
        secrets: Masked in reasons; ordinary words among them (a query's language) do no harm there.
        credentials: Masked in transcripts too, where an ordinary word must stay.
    """

    def __init__(self, secrets: Iterable[str], credentials: Iterable[str] = ()) -> None:
        self._mask = SecretMask(secrets)
        self._credentials = SecretMask(secret for secret in credentials if _is_no_word(secret))

    def reason(self, text: str) -> str:
        """*text* in one printable line of at most REASON_CHARACTERS, its secrets masked."""
        line = one_line(self._mask.mask(text))
        return line if len(line) <= REASON_CHARACTERS else line[: REASON_CHARACTERS - 1] + "…"

    def text(self, text: str) -> str:
        """*text* of a transcript with its credentials masked."""
        return self._credentials.mask(text)

    def value(self, value: Any) -> Any:
        """A JSON value with the credentials masked in every string, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        return value


def redactor_of(url: str, api_key: str | None, params: Mapping[str, ParamValue]) -> Redactor:
    """A redactor for the key, secret *params*, and the values of a URL's query.

    Credentials are all but those values whose name does not say that they are secret.
    """
    query = parse_qsl(urlsplit(url).query)
    credentials = [value for name, value in query if is_secret_param(name)]
    credentials += [*secret_params(params).values(), *([api_key] if api_key else [])]
    return Redactor([*(value for _, value in query), *credentials], credentials)


def _is_no_word(secret: str) -> bool:
    """Whether *secret* cannot be a spoken word: masking a word of speech would falsify the transcript."""
    return len(secret) >= 8 or (len(secret) >= 6 and not secret.isalpha() and not secret.isdigit())


def cleaned(transcript: Transcript, redactor: Redactor) -> Transcript:
    """*transcript* as it may be stored, printed and rendered."""
    words = tuple(
        Word(
            plain_text(redactor.text(word.word))[:WORD_CHARACTERS],
            _seconds(word.start),
            _seconds(word.end),
            word.confidence,
            _label(word.speaker, redactor),
        )
        for word in transcript.words[:MOST_WORDS]
    )
    segments = tuple(
        Segment(
            plain_text(redactor.text(segment.text)),
            _seconds(segment.start),
            _seconds(segment.end),
            _label(segment.speaker, redactor),
            segment.confidence,
        )
        for segment in transcript.segments[:MOST_SEGMENTS]
    )
    is_cut = len(words) < len(transcript.words) or len(segments) < len(transcript.segments)
    return dataclasses.replace(
        transcript,
        text=plain_text(redactor.text(transcript.text)),
        language=_label(transcript.language, redactor),
        duration=_seconds(transcript.duration),
        segments=segments,
        words=words,
        attributes=redactor.value(transcript.attributes),
        warnings=(*transcript.warnings, TOO_MUCH) if is_cut else transcript.warnings,
        model=_label(transcript.model, redactor),
        request_id=transcript.request_id and redactor.text(transcript.request_id),
        raw=redactor.value(transcript.raw),
    )


def _label(text: str | None, redactor: Redactor) -> str | None:
    return one_line(plain_text(redactor.text(text or "")))[:LABEL_CHARACTERS] or None


def _seconds(value: float | None) -> float | None:
    return value if value is None or value <= MOST_SECONDS else None
