"""AssemblyAI, pre-recorded: octets up, a job on their URL, its document polled (docs/design/providers.md)."""

from __future__ import annotations

from dataclasses import replace

from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody, error_of
from dropscribe.providers.formats import OCTETS
from dropscribe.providers.jobs import SERVER_ERROR, JobVendor
from dropscribe.providers.statuses import Kind
from dropscribe.providers.words import Reading, segments_of
from dropscribe.transcripts.model import Transcript

_SERVER_WORDS = ("internal server error", "server error", "please try again", "resubmit")
_SPOKEN = Reading(scale=0.001, speaker=())


class AssemblyAI(JobVendor):
    """AssemblyAI's API; see :class:`dropscribe.providers.jobs.JobVendor`."""

    type = "assemblyai"
    host = "https://api.assemblyai.com"
    key_header = "Authorization: {key}"
    upload_path = "/v2/upload"
    media_type = OCTETS
    file_name = ("upload_url", "audio_url")
    jobs_path = "/v2/transcript"
    errors = {(None, SERVER_ERROR): Kind.TEMPORARY, (None, "upload failed"): Kind.TEMPORARY}

    def job_failure(self, polled: values.Item) -> ErrorBody:
        """The error's text; after failures of its own servers AssemblyAI asks for the same file again."""
        said = error_of({"error": polled.get("error")})
        if any(words in said.message.lower() for words in _SERVER_WORDS):
            return replace(said, code=SERVER_ERROR, signs=(SERVER_ERROR,))
        return said

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Times of words are milliseconds, the duration is seconds; silence has null for text and words."""
        text = parsed.get("text")
        is_split = bool(parsed.get("multichannel") or params.get("multichannel"))
        # Without speakers the answer has no utterances.
        spoken, uttered = map(values.objects, map(parsed.get, ("words", "utterances")))
        words = tuple(_SPOKEN.word(item, _speaker(item, is_split=is_split)) for item in spoken)
        turns = tuple(_SPOKEN.segment(item, _speaker(item, is_split=is_split)) for item in uttered)
        return Transcript(
            values.told_text("" if text is None else text),
            language=values.language(parsed.get("language_code"), params.get("language_code")),
            duration=values.duration(parsed.get("audio_duration")),
            segments=turns or segments_of(words),
            words=words,
            model=values.word_or_none(values.first_of(parsed, "speech_model_used", "speech_model")),
        )


def _speaker(item: values.Item, *, is_split: bool) -> str | None:
    # Of several channels "1" is a channel, which words name in `channel` alone; "1A" is a speaker in it.
    if is_split and values.first_of(item, "speaker", "channel") == item.get("channel"):
        return values.channel_label(item.get("channel"))
    return values.counted_speaker(item.get("speaker"), "A")
