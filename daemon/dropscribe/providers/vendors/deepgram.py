"""Deepgram, pre-recorded: raw bytes up, parameters in the query (docs/design/providers.md)."""

from __future__ import annotations

from dropscribe.providers import values
from dropscribe.providers.statuses import Kind
from dropscribe.providers.vendor import Vendor
from dropscribe.providers.words import Reading, by_time, segments_of
from dropscribe.transcripts.model import Transcript

_WORD = Reading(("punctuated_word", "word"), speaker=())
_UTTERANCE = Reading(("transcript",), speaker=())


class Deepgram(Vendor):
    """Deepgram's API; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "deepgram"
    host = "https://api.deepgram.com"
    path = "/v1/listen"
    key_header = "Authorization: Token {key}"  # `Bearer` is for short-lived tokens
    query = None
    link_field = "url"
    errors = {
        (400, "remote_content_error"): Kind.REJECTED,  # a link that could not be fetched
        (400, "invalid_query_parameter"): Kind.RULE,
        (422, None): Kind.TEMPORARY,  # an upload that did not arrive whole
    }

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Times are seconds, confidences probabilities; each channel has its alternatives."""
        results, metadata = values.mapping(parsed.get("results")), values.mapping(parsed.get("metadata"))
        channels = values.objects(results.get("channels"))
        found = [next(iter(values.objects(channel.get("alternatives"))), {}) for channel in channels]
        heard = [values.objects(each.get("words")) for each in found]
        speakers = _Speakers(heard)
        words = by_time(
            *(
                [_WORD.word(item, speakers.label(item, channel)) for item in items]
                for channel, items in enumerate(heard)
            )
        )
        utterances = tuple(
            _UTTERANCE.segment(item, speakers.label(item, values.number(item.get("channel"))))
            for item in values.objects(results.get("utterances"))
        )
        lines = values.text_lines(each.get("transcript") for each in found)
        told = [channel.get("detected_language") for channel in channels]
        return Transcript(
            values.told_text(lines, parts=utterances or words),
            language=values.language(*told, params.get("language")),
            duration=values.duration(metadata.get("duration")),
            segments=utterances or segments_of(words),
            words=words,
            request_id=values.word_or_none(metadata.get("request_id")),
        )


class _Speakers:
    """The speakers' labels in an answer, of which *channels* are the words.

    Of several channels each has a speaker of its own; one with several speakers has labels for each of them.
    """

    def __init__(self, channels: list[list[values.Item]]) -> None:
        self._is_split = len(channels) > 1
        self._several = {n for n, items in enumerate(channels) if len({*map(_speaker, items)} - {None}) > 1}

    def label(self, item: values.Item, channel: float | None) -> str | None:
        label, name = _speaker(item), values.channel_label(channel)
        if not self._is_split or name is None:
            return label
        return f"{name}_{label}" if label is not None and channel in self._several else name


def _speaker(item: values.Item) -> str | None:
    return values.speaker_label(item.get("speaker"))
