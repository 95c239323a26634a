"""Speechmatics, batch: a form that creates the job, its transcript fetched (docs/design/providers.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody, error_of
from dropscribe.providers.jobs import JobVendor
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.requests import nested
from dropscribe.providers.words import segments_of
from dropscribe.transcripts.model import Transcript, Word

_UNKNOWN_SPEAKER = "UU"


class Speechmatics(JobVendor):
    """Speechmatics' API; see :class:`dropscribe.providers.jobs.JobVendor`."""

    type = "speechmatics"
    host = "https://eu1.asr.api.speechmatics.com"
    model_param = "transcription_config.model"
    upload_path = "/v2/jobs/"
    audio_field = "data_file"
    creates_in_upload = True
    jobs_path = "/v2/jobs"
    result_path = "{jobs}/{id}/transcript?format=json-v2"
    delete_path = "{jobs}/{id}?force=true"  # even if it is still running: its result is not needed
    state_field = "job.status"
    working = ("running",)
    done = ("done",)
    failed = ("rejected",)
    lost = ("deleted", "expired")
    errors = {
        (None, "format_not_supported"): Kind.REJECTED,
        (None, "job_rejected_due_to_invalid_audio"): Kind.REJECTED,
        (None, "malformed_request"): Kind.RULE,
        (None, "no_language_selected"): Kind.RULE,
        (None, "requested_product_not_available"): Kind.UNUSABLE,
    }

    def fields(self, params: values.Params) -> list[tuple[str, str]]:
        """The job's config as JSON; each word of a custom dictionary is an object there."""
        config: dict[str, Any] = {"type": "transcription", **nested(params)}
        words = config.get("transcription_config", {}).get("additional_vocab")
        if isinstance(words, list):
            config["transcription_config"]["additional_vocab"] = [{"content": str(word)} for word in words]
        return [("config", json.dumps(config))]

    def job_failure(self, polled: values.Item) -> ErrorBody:
        """The last of the job's errors: words alone."""
        errors = values.objects(values.mapping(polled.get("job")).get("errors"))
        return error_of(errors[-1] if errors else {})

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:  # noqa: ARG002
        """A flat list of words and punctuation marks. Times are seconds."""
        results = values.objects(parsed.get("results"))
        metadata = values.mapping(parsed.get("metadata"))
        config = values.mapping(metadata.get("transcription_config"))
        delimiter = values.mapping(metadata.get("language_pack_info")).get("word_delimiter")
        joint = delimiter if isinstance(delimiter, str) else " "
        words = _words(results)
        has_text = isinstance(parsed.get("results"), list)
        told = [_alternative(item).get("language") for item in results[:1]]
        return Transcript(
            values.told_text(joint.join(word.word for word in words) if has_text else None),
            language=values.language(*told, config.get("language")),
            duration=values.duration(values.mapping(parsed.get("job")).get("duration")),
            segments=segments_of(words, joint),
            words=words,
            model=values.word_or_none(config.get("model")),
        )


def _words(results: list[values.Item]) -> tuple[Word, ...]:
    """The words, each with its punctuation marks; other items are left out."""
    words: list[Word] = []
    before = ""
    for item in results:
        content = values.text_of(_alternative(item).get("content"))
        if values.text_of(item.get("type")) in {"word", "entity"}:
            words.append(_word(item, before + content))
            before = ""
        elif item.get("type") == "punctuation" and item.get("attaches_to") == "next":
            before += content
        elif item.get("type") == "punctuation" and words:
            words[-1] = replace(words[-1], word=words[-1].word + content)
    return tuple(words)


def _word(item: values.Item, text: str) -> Word:
    alternative = _alternative(item)
    start, end = values.span(item.get("start_time"), item.get("end_time"))
    told = alternative.get("speaker")
    speaker = None if told == _UNKNOWN_SPEAKER else values.counted_speaker(told, "S1")
    channel = values.speaker_label(item.get("channel"))
    return Word(text, start, end, values.probability(alternative.get("confidence")), speaker or channel)


def _alternative(item: values.Item) -> values.Item:
    """The most likely of an item's alternatives."""
    return next(iter(values.objects(item.get("alternatives"))), {})
