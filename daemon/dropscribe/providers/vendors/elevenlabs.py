"""ElevenLabs Scribe: a multipart form with all parameters but one (docs/design/providers.md)."""

from __future__ import annotations

from collections.abc import Iterator

from dropscribe.providers import values
from dropscribe.providers.statuses import Kind
from dropscribe.providers.vendor import Vendor
from dropscribe.providers.words import Reading, by_time, segments_of
from dropscribe.transcripts.model import Transcript

_WORD = Reading(confidence=("logprob",), probability=values.probability_of_log, speaker=("speaker_id",))


class ElevenLabs(Vendor):
    """Scribe's API; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "elevenlabs"
    host = "https://api.elevenlabs.io"
    path = "/v1/speech-to-text"
    query = ("enable_logging",)
    audio_field = "file"
    link_field = "source_url"
    key_header = "xi-api-key: {key}"
    model_param = "model_id"
    errors = {
        (401, "quota_exceeded"): Kind.UNUSABLE,
        (400, "quota_exceeded"): Kind.UNUSABLE,
        (400, "invalid_api_key"): Kind.UNUSABLE,
        (400, "invalid_parameters"): Kind.RULE,
        (429, "too_many_concurrent_requests"): Kind.SLOW_DOWN,
        (429, "system_busy"): Kind.SLOW_DOWN,
    }

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Times are seconds, `logprob` is a natural logarithm.

        Of several channels each has its own transcript, or all have one whose words name their channel.
        """
        channels = values.objects(parsed.get("transcripts")) or [parsed]
        heard = [list(_spoken(channel, number)) for number, channel in enumerate(channels)]
        is_split = len(channels) > 1 or len({label for run in heard for label, _ in run}) > 1
        words = by_time(
            *([_WORD.word(item, label if is_split else None) for label, item in run] for run in heard)
        )
        told = [channel.get("language_code") for channel in channels]
        return Transcript(
            values.told_text(values.text_lines(each.get("text") for each in channels), parts=words),
            language=values.language(*told, params.get("language_code")),
            duration=values.duration(parsed.get("audio_duration_secs")),
            segments=segments_of(words),
            words=words,
            request_id=values.word_or_none(parsed.get("transcription_id")),
        )


def _spoken(channel: values.Item, number: int) -> Iterator[tuple[str, values.Item]]:
    """The words in a transcript, each with its channel's label."""
    for item in values.objects(channel.get("words")):
        if item.get("type", "word") != "spacing":
            yield values.channel_label(item.get("channel_index")) or f"channel_{number}", item
