"""Reson8, pre-recorded: raw bytes up, parameters in the query (docs/design/providers.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dropscribe.config.model import ProviderConfig
from dropscribe.files.audio import AudioFile
from dropscribe.providers import values
from dropscribe.providers.formats import OCTETS, reson8_encoding
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.requests import Upload
from dropscribe.providers.vendor import Vendor
from dropscribe.providers.words import Reading, mean_confidence
from dropscribe.transcripts.model import Transcript


def _probability(value: Any) -> float | None:
    # A natural log-probability; an older crawl of the glossary says 0..1.
    found = values.probability_of_log(value)
    return values.probability(value) if found is None else found


_SPOKEN = Reading(
    times=("start_ms", "duration_ms"),
    has_lengths=True,
    scale=0.001,
    probability=_probability,
    speaker=("speaker_id",),
)
_TURN = replace(_SPOKEN, confidence=(), inner=_SPOKEN)


class Reson8(Vendor):
    """Reson8's API, by a key or by an access token; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "reson8"
    host = "https://api.reson8.dev/v1/speech-to-text/prerecorded"
    query = None
    media_type = OCTETS
    errors = {
        (400, "invalid_request"): Kind.REJECTED_OR_RULE,
        (404, "not_found"): Kind.RULE,  # an unknown custom_model_id
    }

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        if config.auth != "bearer":
            self.key_header = "Authorization: ApiKey {key}"

    def upload(self, audio: AudioFile, params: values.Params) -> Upload:
        """The audio as it is, with its encoding named."""
        return super().upload(audio, {"encoding": reson8_encoding(audio.suffix, audio.head), **params})

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Times are milliseconds, as start and length.

        The top ``duration_ms`` is the span of the speech, not the audio's length, which stays unknown. Words
        stand at the top, in the turns, or in both: never twice here. Only the turns know speakers.
        """
        turns = values.objects(parsed.get("segments"))
        spoken = [item for turn in turns for item in values.objects(turn.get("words"))]
        items = spoken or values.objects(parsed.get("words"))
        segments = tuple(map(_TURN.segment, turns))
        words = _SPOKEN.words_within(turns, segments) or _SPOKEN.words(items)
        text = values.told_text(parsed.get("text"), parts=turns or words)
        whole = replace(_SPOKEN.segment(parsed), text=text, confidence=mean_confidence(words), speaker=None)
        is_whole = bool(text) and whole.start is not None and whole.end is not None
        is_odd = any((values.number(item.get("confidence")) or 0.0) > 1.0 for item in items)
        return Transcript(
            text,
            language=values.language(parsed.get("language"), params.get("language")),
            segments=segments or ((whole,) if is_whole else ()),
            words=words,
            warnings=("odd_confidence",) if is_odd else (),
        )
