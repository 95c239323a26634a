"""Gladia, pre-recorded: a form up, a job on its URL, its document polled (docs/design/providers.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody
from dropscribe.providers.jobs import SERVER_ERROR, JobApi, JobVendor
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.providers.vendor import Params


class Gladia(JobVendor):
    """Gladia's API; see :class:`dropscribe.providers.jobs.JobVendor`."""

    type = "gladia"
    host = "https://api.gladia.io"
    key_header = "x-gladia-key: {key}"
    api = JobApi(
        upload="/v2/upload",
        form_field="audio",
        file_name=("audio_url", "audio_url"),
        jobs="/v2/pre-recorded",
        done="done",
    )

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """A number alone: the HTTP status that the failure would have as an answer."""
        status = values.number(polled.get("error_code")) or 0
        code = SERVER_ERROR if status >= 500 else f"job_failed_{status:.0f}"
        return ErrorBody(code, (code,), f"the job failed with error_code {status:.0f}")

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times are seconds. Words stand in the utterances, which have the speaker."""
        result = values.mapping(parsed.get("result"))
        transcription = values.mapping(result.get("transcription"))
        utterances = values.objects(transcription.get("utterances"))
        text = values.told_text(transcription.get("full_transcript"), parts=utterances)
        if text is None:
            return None
        languages = transcription.get("languages")
        return Transcript(
            text=text,
            language=values.language(*(languages if isinstance(languages, list) else ())),
            duration=values.duration(values.mapping(result.get("metadata")).get("audio_duration")),
            segments=tuple(map(_segment, utterances)),
            words=tuple(word for utterance in utterances for word in _words(utterance)),
            model=values.word_or_none(params.get("model")),
            request_id=request_id,
            raw=parsed,
        )


def _segment(utterance: Mapping[str, Any]) -> Segment:
    start, end = values.span(utterance.get("start"), utterance.get("end"))
    text = values.text_of(utterance.get("text")).strip()
    return Segment(text, start, end, _speaker(utterance), values.probability(utterance.get("confidence")))


def _words(utterance: Mapping[str, Any]) -> list[Word]:
    speaker = _speaker(utterance)
    return [
        Word(
            values.text_of(item.get("word")).strip(),
            *values.span(item.get("start"), item.get("end")),
            values.probability(item.get("confidence")),
            speaker,
        )
        for item in values.objects(utterance.get("words"))
    ]


def _speaker(utterance: Mapping[str, Any]) -> str | None:
    return values.speaker_label(utterance.get("speaker"))
