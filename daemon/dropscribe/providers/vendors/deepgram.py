"""Deepgram, pre-recorded: raw bytes up, parameters in the query (docs/design/providers.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.statuses import Kind
from dropscribe.providers.turns import by_time, segments_of
from dropscribe.providers.vendor import QueryVendor
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dropscribe.providers.statuses import Table
    from dropscribe.providers.vendor import Params

    _Namer = Callable[[Mapping[str, Any], float | None], str | None]

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
        name_of = _namer([values.objects(each.get("words")) for each in found])
        words = by_time(*(_words(each, channel, name_of) for channel, each in enumerate(found)))
        utterances = values.objects(results.get("utterances"))
        lines = values.text_lines(each.get("transcript") for each in found)
        text = values.told_text(lines, parts=utterances or words)
        if text is None:
            return None
        told = [channel.get("detected_language") for channel in channels]
        return Transcript(
            text=text,
            language=values.language(*told, params.get("language")),
            duration=values.duration(metadata.get("duration")),
            segments=tuple(_segment(item, name_of) for item in utterances) or segments_of(words),
            words=words,
            model=values.word_or_none(params.get("model")),
            request_id=values.word_or_none(metadata.get("request_id")) or request_id,
            raw=parsed,
        )


def _namer(channels: list[list[Mapping[str, Any]]]) -> _Namer:
    """The speaker's label for an item of one of *channels*, which are lists of words.

    Of several channels each has a speaker of its own; one with several speakers has labels for each of them.
    """
    if len(channels) < 2:
        return lambda item, _: _label(item)
    several = {number for number, words in enumerate(channels) if len({*map(_label, words)} - {None}) > 1}

    def name_of(item: Mapping[str, Any], channel: float | None) -> str | None:
        label = _label(item)
        if channel is None:
            return label
        is_one_of_several = label is not None and channel in several
        return f"channel_{channel:g}_{label}" if is_one_of_several else f"channel_{channel:g}"

    return name_of


def _label(item: Mapping[str, Any]) -> str | None:
    return values.speaker_label(item.get("speaker"))


def _words(alternative: Mapping[str, Any], channel: int, name_of: _Namer) -> Iterator[Word]:
    for item in values.objects(alternative.get("words")):
        start, end = values.span(item.get("start"), item.get("end"))
        yield Word(
            values.text_of(item.get("punctuated_word")) or values.text_of(item.get("word")),
            start,
            end,
            values.probability(item.get("confidence")),
            name_of(item, channel),
        )


def _segment(item: Mapping[str, Any], name_of: _Namer) -> Segment:
    start, end = values.span(item.get("start"), item.get("end"))
    speaker = name_of(item, values.number(item.get("channel")))
    confidence = values.probability(item.get("confidence"))
    return Segment(values.text_of(item.get("transcript")), start, end, speaker, confidence)
