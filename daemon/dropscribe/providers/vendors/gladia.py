"""Gladia, pre-recorded: a form up, a job on its URL, its document polled (docs/design/providers.md)."""

from __future__ import annotations

from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody
from dropscribe.providers.jobs import SERVER_ERROR, JobVendor
from dropscribe.providers.statuses import Kind
from dropscribe.providers.words import Reading
from dropscribe.transcripts.model import Transcript

_UTTERANCE = Reading(said=values.stripped)
_WORD = Reading(("word",), said=values.stripped)


class Gladia(JobVendor):
    """Gladia's API; see :class:`dropscribe.providers.jobs.JobVendor`."""

    type = "gladia"
    host = "https://api.gladia.io"
    key_header = "x-gladia-key: {key}"
    upload_path = "/v2/upload"
    audio_field = "audio"
    file_name = ("audio_url", "audio_url")
    jobs_path = "/v2/pre-recorded"
    done = ("done",)
    errors = {
        (None, SERVER_ERROR): Kind.TEMPORARY,
        (None, "job_failed_429"): Kind.SLOW_DOWN,
        # The account's, though the job was taken
        **{(None, f"job_failed_{status}"): Kind.UNUSABLE for status in (401, 402, 403)},
    }

    def job_failure(self, polled: values.Item) -> ErrorBody:
        """A number alone: the HTTP status that the failure would have as an answer."""
        status = values.number(polled.get("error_code")) or 0
        code = SERVER_ERROR if status >= 500 else f"job_failed_{status:.0f}"
        return ErrorBody(code, (code,), f"the job failed with error_code {status:.0f}")

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:  # noqa: ARG002
        """Times are seconds. Words stand in the utterances, which have the speaker."""
        result = values.mapping(parsed.get("result"))
        transcription = values.mapping(result.get("transcription"))
        utterances = values.objects(transcription.get("utterances"))
        segments = tuple(map(_UTTERANCE.segment, utterances))
        return Transcript(
            values.told_text(transcription.get("full_transcript"), parts=segments),
            language=values.language(*values.elements(transcription.get("languages"))),
            duration=values.duration(values.mapping(result.get("metadata")).get("audio_duration")),
            segments=segments,
            words=_WORD.words_within(utterances, segments),
        )
