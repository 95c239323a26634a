"""Smallest AI Pulse, pre-recorded: raw bytes up, parameters in the query (docs/design/providers.md)."""

from __future__ import annotations

from dataclasses import replace

from dropscribe.providers import values
from dropscribe.providers.answers import HAS_DETAILS, HAS_ERRORS
from dropscribe.providers.statuses import Kind
from dropscribe.providers.vendor import Vendor
from dropscribe.providers.words import Reading, mean_confidence, words_of_each
from dropscribe.transcripts.model import Transcript

_ATTRIBUTES = ("gender", "emotions", "age")
_WORD, _UTTERANCE = Reading(("word", "text")), Reading()


class Pulse(Vendor):
    """Pulse's API; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "pulse"
    host = "https://waves-api.smallest.ai/api/v1/pulse/get_text"
    query = None
    link_field = "url"
    errors = {
        (400, "language_not_enabled_in_region"): Kind.RULE,
        (400, HAS_DETAILS): Kind.RULE,
        (400, HAS_ERRORS): Kind.REJECTED,
        **{(status, "nosuchkey"): Kind.TEMPORARY for status in (400, None)},  # its storage lost the upload
    }

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Times are seconds, confidences probabilities; `text` is an older name of `transcription`."""
        words = _WORD.words(parsed.get("words"))
        utterances = _UTTERANCE.segments(parsed.get("utterances"))
        segments = tuple(
            replace(utterance, confidence=mean_confidence(own))
            for utterance, own in zip(utterances, words_of_each(utterances, words), strict=True)
        )
        told = [parsed.get("language"), *values.elements(parsed.get("languages")), params.get("language")]
        metadata = values.mapping(parsed.get("metadata"))
        return Transcript(
            values.told_text(parsed.get("transcription"), parsed.get("text"), parts=segments or words),
            language=values.language(*told),
            duration=values.duration(metadata.get("duration"), parsed.get("audio_length")),
            segments=segments,
            words=words,
            attributes={key: parsed[key] for key in _ATTRIBUTES if parsed.get(key) is not None},
        )
