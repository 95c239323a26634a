"""Reson8, pre-recorded: raw bytes up, parameters in the query (docs/design/providers.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.formats import OCTETS, reson8_encoding
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.forms import with_query
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.vendor import Vendor
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.vendor import Params

ERRORS: Table = {
    (400, "invalid_request"): Kind.REJECTED_OR_RULE,
    (404, "not_found"): Kind.RULE,  # an unknown custom_model_id
}

_MILLISECONDS = 0.001


class Reson8(Vendor):
    """Reson8's API, by a key or by an access token; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "reson8"
    host = "https://api.reson8.dev/v1/speech-to-text/prerecorded"
    errors = ERRORS

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        if config.auth != "bearer":
            self.key_header = "Authorization: ApiKey {key}"

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """The audio as it is, with its encoding named."""
        sent = {"encoding": reson8_encoding(audio.suffix, audio.head), **params}
        return Upload(with_query(self.url, sent), {"Content-Type": OCTETS}, audio)

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times are milliseconds, as start and length.

        The top ``duration_ms`` is the span of the speech, not the audio's length, which stays unknown.
        """
        turns = values.objects(parsed.get("segments"))
        words, odd = _words(parsed, turns)
        text = values.told_text(parsed.get("text"), parts=turns or words)
        if text is None:
            return None
        return Transcript(
            text=text,
            language=values.language(parsed.get("language"), params.get("language")),
            segments=tuple(_turn(turn) for turn in turns) or _whole(parsed, text, words),
            words=words,
            warnings=("odd_confidence",) if odd else (),
            model=values.word_or_none(params.get("model")),
            request_id=request_id,
            raw=parsed,
        )


def _words(parsed: Mapping[str, Any], turns: list[Mapping[str, Any]]) -> tuple[tuple[Word, ...], bool]:
    # Words stand at the top, in the turns, or in both: never twice here. Only the turns know speakers.
    spoken = [(item, turn) for turn in turns for item in values.objects(turn.get("words"))]
    items = spoken or [(item, {}) for item in values.objects(parsed.get("words"))]
    words = tuple(_word(item, turn.get("speaker_id")) for item, turn in items)
    odd = any((values.number(item.get("confidence")) or 0.0) > 1.0 for item, _ in items)
    return words, odd


def _word(item: Mapping[str, Any], speaker: Any) -> Word:
    start, end = _span(item)
    label = values.speaker_label(item.get("speaker_id")) or values.speaker_label(speaker)
    return Word(values.text_of(item.get("text")), start, end, _confidence(item.get("confidence")), label)


def _confidence(value: Any) -> float | None:
    # A natural log-probability; an older crawl of the glossary says 0..1.
    found = values.probability_of_log(value)
    return values.probability(value) if found is None else found


def _turn(item: Mapping[str, Any]) -> Segment:
    start, end = _span(item)
    words = [_word(word, None) for word in values.objects(item.get("words"))]
    label = values.speaker_label(item.get("speaker_id"))
    return Segment(values.text_of(item.get("text")), start, end, label, _mean(words))


def _whole(parsed: Mapping[str, Any], text: str, words: tuple[Word, ...]) -> tuple[Segment, ...]:
    start, end = _span(parsed)
    if start is None or end is None or not text:
        return ()
    return (Segment(text, start, end, confidence=_mean(words)),)


def _mean(words: list[Word] | tuple[Word, ...]) -> float | None:
    return values.mean([word.confidence for word in words])


def _span(item: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return values.span_of_length(item.get("start_ms"), item.get("duration_ms"), _MILLISECONDS)
