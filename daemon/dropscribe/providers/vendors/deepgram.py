"""Deepgram, pre-recorded: raw bytes up, parameters in the query (docs/design/providers.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.statuses import Kind
from dropscribe.providers.turns import by_time, segments_of
from dropscribe.providers.vendor import QueryVendor
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dropscribe.providers.statuses import Table
    from dropscribe.providers.vendor import Params

ERRORS: Table = {
    (400, "remote_content_error"): Kind.REJECTED,  # a link that could not be fetched
    (400, "invalid_query_parameter"): Kind.RULE,
    (422, None): Kind.TEMPORARY,  # an upload that did not arrive whole
}


class Deepgram(QueryVendor):
    """Deepgram's API; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "deepgram"
    host = "https://api.deepgram.com"
    path = "/v1/listen"
    key_header = "Authorization: Token {key}"  # `Bearer` is for short-lived tokens
    errors = ERRORS

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times are seconds, confidences probabilities; each channel has its alternatives."""
        results, metadata = values.mapping(parsed.get("results")), values.mapping(parsed.get("metadata"))
        channels = values.objects(results.get("channels"))
        found = [next(iter(values.objects(channel.get("alternatives"))), {}) for channel in channels]
        names = [f"channel_{number}" for number in range(len(found))] if len(found) > 1 else [None]
        words = by_time(*map(_words, found, names))
        utterances = values.objects(results.get("utterances"))
        lines = values.text_lines(each.get("transcript") for each in found)
        text = values.told_text(lines, parts=utterances or words)
        if text is None:
            return None
        is_split = len(channels) > 1
        told = [channel.get("detected_language") for channel in channels]
        return Transcript(
            text=text,
            language=values.language(*told, params.get("language")),
            duration=values.duration(metadata.get("duration")),
            segments=tuple(_segment(item, is_split=is_split) for item in utterances) or segments_of(words),
            words=words,
            model=values.word_or_none(params.get("model")),
            request_id=values.word_or_none(metadata.get("request_id")) or request_id,
            raw=parsed,
        )


def _words(alternative: Mapping[str, Any], channel: str | None) -> Iterator[Word]:
    for item in values.objects(alternative.get("words")):
        start, end = values.span(item.get("start"), item.get("end"))
        yield Word(
            values.text_of(item.get("punctuated_word")) or values.text_of(item.get("word")),
            start,
            end,
            values.probability(item.get("confidence")),
            values.speaker_label(item.get("speaker")) or channel,
        )


def _segment(item: Mapping[str, Any], *, is_split: bool) -> Segment:
    start, end = values.span(item.get("start"), item.get("end"))
    speaker = values.speaker_or_channel(item, is_split=is_split)
    confidence = values.probability(item.get("confidence"))
    return Segment(values.text_of(item.get("transcript")), start, end, speaker, confidence)
