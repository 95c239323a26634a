"""Smallest AI Pulse, pre-recorded: raw bytes up, parameters in the query (PROVIDERS.md §1)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.answers import HAS_DETAILS, HAS_ERRORS, request_id_of
from dropscribe.providers.endpoint import Endpoint, learnt
from dropscribe.providers.formats import media_type
from dropscribe.providers.forms import with_query
from dropscribe.providers.http import Upload
from dropscribe.providers.params import effective_params
from dropscribe.providers.statuses import Kind
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.statuses import Table

URL = "https://waves-api.smallest.ai/api/v1/pulse/get_text"

ERRORS: Table = {
    (400, "language_not_enabled_in_region"): Kind.RULE,
    (400, HAS_DETAILS): Kind.RULE,
    (400, HAS_ERRORS): Kind.REJECTED,
    (None, "nosuchkey"): Kind.TEMPORARY,
}
"""PROVIDERS.md §1.3; what is not here is the common table's."""

_ATTRIBUTES = ("gender", "emotions", "age")


class PulseProvider:
    """One Smallest AI account."""

    def __init__(self, config: ProviderConfig) -> None:
        self._endpoint = Endpoint(config, config.url or URL, scheme="Bearer", table=ERRORS)

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """See :class:`dropscribe.providers.base.Provider`."""
        sent = effective_params("pulse", params)
        headers = {"Content-Type": media_type(audio.suffix, audio.head)}
        return await self._transcript(Upload(with_query(self._endpoint.url, sent), headers, audio), sent)

    async def transcribe_link(self, url: str, params: Mapping[str, ParamValue]) -> Transcript:
        """See :class:`dropscribe.providers.base.LinkProvider`; Pulse's method 2 (PROVIDERS.md §1.1)."""
        sent = effective_params("pulse", params)
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"url": url}).encode()
        return await self._transcript(
            Upload(with_query(self._endpoint.url, sent), headers, before=body), sent
        )

    async def _transcript(self, upload: Upload, sent: Mapping[str, ParamValue]) -> Transcript:
        answer, parsed = await self._endpoint.transcript_answer(upload)
        text = parsed.get("transcription", parsed.get("text"))
        if parsed.get("status", "success") != "success" or not isinstance(text, str):
            raise self._endpoint.classifier.bad_answer(answer, "a success without a transcription")
        return transcript_of(parsed, text, sent, request_id_of(answer, parsed))

    async def probe(self) -> str:
        """See :class:`dropscribe.providers.base.Provider`: sends no audio, so nothing is paid."""
        url = with_query(self._endpoint.url, effective_params("pulse", {}))
        return learnt(await self._endpoint.ask(url, post=True), self._endpoint.classifier)

    async def close(self) -> None:
        """See :class:`dropscribe.providers.base.Provider`."""
        await self._endpoint.close()


def transcript_of(
    parsed: dict[str, Any], text: str, params: Mapping[str, ParamValue], request_id: str | None
) -> Transcript:
    """Pulse's answer, normalised (PROVIDERS.md §1.2, §5)."""
    words = tuple(_word(item) for item in values.objects(parsed.get("words")))
    return Transcript(
        text=text,
        language=_language(parsed, params),
        duration=_duration(parsed),
        segments=tuple(_segment(item, words) for item in values.objects(parsed.get("utterances"))),
        words=words,
        attributes={key: parsed[key] for key in _ATTRIBUTES if parsed.get(key) is not None},
        model=values.word_or_none(params.get("model")),
        request_id=request_id,
        raw=parsed,
    )


def _duration(parsed: Mapping[str, Any]) -> float | None:
    metadata = parsed.get("metadata")
    duration = values.seconds(metadata.get("duration")) if isinstance(metadata, dict) else None
    return values.seconds(parsed.get("audio_length")) if duration is None else duration


def _language(parsed: Mapping[str, Any], params: Mapping[str, ParamValue]) -> str | None:
    told = values.word_or_none(parsed.get("language"))
    listed = parsed.get("languages")
    if told is None and isinstance(listed, list) and listed:
        told = values.word_or_none(listed[0])
    asked = values.word_or_none(params.get("language"))
    # "multi-eu" and the like name a choice, not a language.
    return told or (asked if asked and not asked.startswith("multi") else None)


def _word(item: Mapping[str, Any]) -> Word:
    start, end = values.span(item.get("start"), item.get("end"))
    word = values.text_of(item.get("word", item.get("text")))
    confidence = values.probability(item.get("confidence"))
    return Word(word, start, end, confidence, values.speaker_label(item.get("speaker")))


def _segment(item: Mapping[str, Any], words: tuple[Word, ...]) -> Segment:
    start, end = values.span(item.get("start"), item.get("end"))
    return Segment(
        values.text_of(item.get("text")),
        start,
        end,
        values.speaker_label(item.get("speaker")),
        _confidence(start, end, words),
    )


def _confidence(start: float | None, end: float | None, words: tuple[Word, ...]) -> float | None:
    if start is None or end is None:
        return None
    return values.mean(
        [word.confidence for word in words if word.start is not None and start <= word.start < end]
    )
