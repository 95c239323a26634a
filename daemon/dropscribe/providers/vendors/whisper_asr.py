"""whisper-asr-webservice on a server of one's own: a form with the file alone (docs/design/providers.md)."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from dropscribe.providers import values
from dropscribe.providers.transport.http import Answer
from dropscribe.providers.vendor import Vendor
from dropscribe.providers.words import Reading, mean_confidence
from dropscribe.transcripts.model import Segment, Transcript

_WORD = Reading(("word",), confidence=("probability", "score"), said=values.stripped)
_SEGMENT = Reading(confidence=("avg_logprob",), probability=values.probability_of_log, said=values.stripped)


class WhisperAsr(Vendor):
    """The service's API; see :class:`dropscribe.providers.vendor.Vendor`.

    It needs no key; a configured one is sent as a bearer token, for a proxy in front of it.
    """

    type = "whisper-asr"
    path = "/asr"
    query = None
    audio_field = "audio_file"
    text_formats = ("output", ("txt", "vtt", "srt", "tsv"))

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Times are seconds; whisperX has no `text` and calls a probability `score`."""
        items = values.objects(parsed.get("segments"))
        segments = tuple(map(_segment, items))
        is_heard = isinstance(parsed.get("segments"), list)
        return Transcript(
            values.told_text(parsed.get("text"), "" if is_heard else None),
            language=values.language(parsed.get("language"), params.get("language")),
            segments=segments,
            words=_WORD.words_within(items, segments),
        )

    def probe(self) -> tuple[str, str]:
        """The description of its API."""
        parts = urlsplit(self.url)
        return "GET", urlunsplit(parts._replace(path=f"{parts.path.removesuffix(self.path)}/openapi.json"))

    def probed(self, answer: Answer) -> str | None:
        """A key is only asked for by a proxy in front of it."""
        return f"answers (HTTP {answer.status})" if answer.status // 100 == 2 else None


def _segment(item: values.Item) -> Segment:
    segment, confidence = _SEGMENT.segment(item), mean_confidence(_WORD.words(item.get("words")))
    return segment if confidence is None else replace(segment, confidence=confidence)
