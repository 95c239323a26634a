"""`type: http`: an API that the config describes, its answers by JMESPath; with `poll`, one with jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from secrets import token_hex
from typing import Any
from urllib.parse import urljoin

import jmespath
from jmespath.exceptions import JMESPathError

from dropscribe.config.model import ProviderConfig
from dropscribe.config.sections.http_api import AnswerKeys, ErrorKeys
from dropscribe.core.errors import ProviderError, ProviderUnusable
from dropscribe.files.audio import AudioFile
from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody, error_of, parse_json
from dropscribe.providers.base import Provider
from dropscribe.providers.jobs import UNNAMED_STATE, JobVendor, Progress, quoted
from dropscribe.providers.statuses import Kind, Table
from dropscribe.providers.transport.http import Answer
from dropscribe.providers.transport.requests import Upload, json_request
from dropscribe.providers.vendor import Vendor
from dropscribe.providers.words import Reading, segments_of
from dropscribe.transcripts.model import Transcript

MOST_ITEMS = 1_000_000  # of words and of segments: an expression can give more than the answer holds
_SCALES = {"s": 1.0, "ms": 0.001}
_FAILED = ("failed", "failure", "error")  # states with one meaning, whether the config names them or not
_DONE = frozenset({"completed", "complete", "done", "finished", "succeeded", "success"})
_KINDS = {"account": Kind.UNUSABLE, "file": Kind.REJECTED, "rule": Kind.RULE, "later": Kind.TEMPORARY}


def build(config: ProviderConfig) -> Provider:
    """A provider for *config*, whose url and answer the config requires."""
    return DescribedApi.build(config) if config.poll is None else DescribedJobs.build(config)


def found_values(keys: AnswerKeys, parsed: values.Item) -> dict[str, Any]:
    """The value that each expression of *keys* finds in an answer, by key; None for nothing."""
    found = {field: _found(text, parsed) for field, text in keys.expressions().items()}
    return found | {field: _flat(found[field]) for field in ("words", "segments") if field in found}


class DescribedApi(Vendor):
    """The API of *config*; see :class:`dropscribe.providers.vendor.Vendor`."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.errors = _table(config.errors)
        self.key_header = config.key_header
        self.query = () if config.body != "raw" and config.params_in == "form" else None
        self.audio_field = config.file_field if config.body == "multipart" else ""
        self.media_type = config.media_type
        self._json_field = config.file_field if config.body == "json" else ""
        self._keys = keys = config.answer or AnswerKeys(text="text")
        self._word, self._segment = (
            Reading(
                (text,),
                times=("start", "duration" if keys.times == "start_duration" else "end"),
                has_lengths=keys.times == "start_duration",
                scale=_SCALES[keys.unit],
                probability=values.probability_of_log if keys.confidence == "logprob" else values.probability,
                said=_said,
            )
            for text in ("word", "text")
        )

    def upload(self, audio: AudioFile, params: values.Params) -> Upload:
        """The audio as the body, in a form, or in a JSON object."""
        if not self._json_field:
            return super().upload(audio, params)
        place = token_hex(16)  # nothing else in the object holds it
        beside = {} if self.query is None else params
        request = json_request(self.endpoint(params), {**beside, self._json_field: place})
        before, after = request.before.split(place.encode())
        return replace(request, audio=audio, before=before, after=after, is_base64=True)

    def failure(self, parsed: values.Item) -> str | None:
        """Text that `answer.error` finds, if any."""
        problem = self._value("error", parsed)
        return str(problem) if problem else None

    def checked(self, parsed: values.Item) -> values.Item:
        """Without a `status` beside a text, and without an `error` where `answer.error` has its own place."""
        text = self._value("text", parsed)
        if not isinstance(text, str) or (not text.strip() and isinstance(self._value("text", {}), str)):
            return parsed  # a blank that the expression itself supplies says nothing
        ignored = {"status"} if text.strip() else set()
        if self._keys.error:
            ignored.add("error")
        return {name: value for name, value in parsed.items() if name not in ignored}

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Transcript of the values that the expressions find."""
        found = found_values(self._keys, parsed)
        words = self._word.words(found.get("words"))
        segments = self._segment.segments(found.get("segments")) or segments_of(words)
        missing = f"a success without a text at '{self._keys.text}'; {values.names_in(parsed)}"
        duration_scale = _SCALES[self._keys.duration_unit or self._keys.unit]
        return Transcript(
            values.told_text(found.get("text"), parts=segments, missing=missing),
            language=values.language(values.text_of(found.get("language")), params.get("language")),
            duration=values.duration(found.get("duration"), scale=duration_scale),
            segments=segments,
            words=words,
            model=values.word_or_none(found.get("model")),
            request_id=values.word_or_none(found.get("request_id")),
        )

    def probed(self, answer: Answer) -> str | None:
        """Result of the probe, and the fields that the answer has already."""
        learned = super().probed(answer)
        try:
            parsed = parse_json(answer.body)
        except ValueError:
            return learned
        fields = [name for name, value in found_values(self._keys, parsed).items() if value is not None]
        return f"{learned}; its answer has {', '.join(fields)}" if learned and fields else learned

    def _value(self, field: str, parsed: values.Item) -> Any:
        return _found(text, parsed) if (text := getattr(self._keys, field)) else None


class DescribedJobs(JobVendor, DescribedApi):
    """The API of *config* with jobs, as its `poll` describes them."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        poll = config.poll
        assert poll is not None  # noqa: S101 - see build
        self.creates_in_upload = poll.create is None
        if poll.create is not None:
            self.jobs_path, self.file_name = poll.create.url, (poll.create.audio, poll.create.field)
        self.job_path, self.result_path, self.delete_path = poll.url, poll.result or "", poll.delete or ""
        self.id_field, self.state_field = poll.id, poll.state
        self.done, self.failed = (tuple(map(str.lower, states)) for states in (poll.done, poll.failed))
        self.poll_every_seconds = poll.every_seconds

    def at(self, path: str, name: str = "") -> str:
        """URL of the config, which may be relative to that of the audio."""
        return urljoin(self.url, path.replace("{id}", quoted(name)))

    def told(self, answer: values.Item, place: str) -> str:
        """The text, number or truth value that an expression finds."""
        found = _found(place, answer)
        return json.dumps(found) if isinstance(found, bool) else _said(found)

    def progress(self, polled: values.Item) -> Progress | None:
        """State of the job; one that the config does not name counts as working, unless it says an end."""
        state = self.told(polled, self.state_field).lower()
        if state in self.done:
            return Progress.DONE
        if state in (*self.failed, *_FAILED):
            return Progress.FAILED
        return None if not state or state in _DONE else Progress.WORKING

    def state_error(self, answer: Answer, polled: values.Item) -> ProviderError:
        """An end that the config does not name holds the provider: the job is polled once it does."""
        if not (state := self.told(polled, self.state_field)):
            return super().state_error(answer, polled)
        reason = f"a job is '{state}', which is not in the 'done' of its 'poll'"
        return ProviderUnusable(UNNAMED_STATE, reason, status=answer.status)

    def job_failure(self, polled: values.Item) -> ErrorBody:
        """Error of the text that `answer.error` finds, else of the body."""
        said = self.failure(polled)
        return error_of({"message": said} if said else polled)

    probe = Vendor.probe  # a request without audio


def _found(expression: str, parsed: values.Item) -> Any:
    """The value of an expression, which JMESPath compiles once; None where it does not fit the answer."""
    try:
        return jmespath.search(expression, parsed)
    except (JMESPathError, ArithmeticError, RecursionError, TypeError, ValueError):
        return None


def _said(value: Any) -> str:
    """A string, stripped, or a number as the JSON has it; "" for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return json.dumps(value) if is_number else values.stripped(value)


def _flat(items: Any) -> Any:
    """At most MOST_ITEMS of a list without the lists in it, which a filter inside a projection makes."""
    return list(islice(_leaves(items), MOST_ITEMS)) if isinstance(items, list) else None


def _leaves(items: list[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, list):
            yield from _leaves(item)
        else:
            yield item


def _table(keys: ErrorKeys | None) -> Table:
    rows: Table = {}
    for name, kind in _KINDS.items():
        for mark in getattr(keys, name, ()):
            rows[(mark, None) if isinstance(mark, int) else (None, mark.lower())] = kind
    return rows
