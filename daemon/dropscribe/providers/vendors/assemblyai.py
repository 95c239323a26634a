"""AssemblyAI, pre-recorded: octets up, a job on their URL, its document polled (docs/design/providers.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.answers import error_of
from dropscribe.providers.jobs import SERVER_ERROR, JobApi, JobVendor
from dropscribe.providers.turns import segments_of
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.providers.answers import ErrorBody
    from dropscribe.providers.vendor import Params

_MILLISECONDS = 0.001
_SERVER_WORDS = ("internal server error", "server error", "please try again", "resubmit")


class AssemblyAI(JobVendor):
    """AssemblyAI's API; see :class:`dropscribe.providers.jobs.JobVendor`."""

    type = "assemblyai"
    host = "https://api.assemblyai.com"
    key_header = "Authorization: {key}"
    api = JobApi(upload="/v2/upload", file_name=("upload_url", "audio_url"), jobs="/v2/transcript")

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """The error's text; after failures of its own servers AssemblyAI asks for the same file again."""
        said = error_of({"error": polled.get("error")})
        if any(words in said.message.lower() for words in _SERVER_WORDS):
            return replace(said, code=SERVER_ERROR, signs=(SERVER_ERROR,))
        return said

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times of words are milliseconds, the duration is seconds; silence has null for text and words."""
        text = parsed.get("text")
        if text is not None and not isinstance(text, str):
            return None
        is_split = bool(parsed.get("multichannel") or params.get("multichannel"))
        words = tuple(_word(item, is_split=is_split) for item in values.objects(parsed.get("words")))
        # Without speakers the answer has no utterances.
        turns = tuple(_segment(item, is_split=is_split) for item in values.objects(parsed.get("utterances")))
        return Transcript(
            text=text or "",
            language=values.language(parsed.get("language_code"), params.get("language_code")),
            duration=values.duration(parsed.get("audio_duration")),
            segments=turns or segments_of(words),
            words=words,
            model=values.word_or_none(values.first_of(parsed, "speech_model_used", "speech_model")),
            request_id=request_id,
            raw=parsed,
        )


def _word(item: Mapping[str, Any], *, is_split: bool) -> Word:
    start, end = values.span(item.get("start"), item.get("end"), _MILLISECONDS)
    confidence = values.probability(item.get("confidence"))
    return Word(values.text_of(item.get("text")), start, end, confidence, _speaker(item, is_split=is_split))


def _segment(item: Mapping[str, Any], *, is_split: bool) -> Segment:
    start, end = values.span(item.get("start"), item.get("end"), _MILLISECONDS)
    confidence, speaker = values.probability(item.get("confidence")), _speaker(item, is_split=is_split)
    return Segment(values.text_of(item.get("text")), start, end, speaker, confidence)


def _speaker(item: Mapping[str, Any], *, is_split: bool) -> str | None:
    # Of several channels "1" is a channel, which words name in `channel` alone; "1A" is a speaker in it.
    if is_split and values.first_of(item, "speaker", "channel") == item.get("channel"):
        return values.speaker_or_channel({"channel": item.get("channel")}, is_split=True)
    return values.counted_speaker(item.get("speaker"), "A")
