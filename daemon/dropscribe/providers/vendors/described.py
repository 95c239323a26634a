"""An API that the config describes: how audio goes up, and JMESPath expressions for what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jmespath
from jmespath.exceptions import JMESPathError

from dropscribe.providers import values
from dropscribe.providers.formats import media_type, upload_name
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.forms import fields_of, multipart, with_query
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.turns import segments_of
from dropscribe.providers.vendor import HttpProvider, VendorDefaults
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.config.sections.http_api import AnswerKeys, ErrorKeys
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.base import Provider
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.vendor import Params

MOST_ITEMS = 1_000_000
"""Of words and of segments: an expression can give more than the answer holds."""

_EXPRESSIONS = ("text", "words", "segments", "language", "duration", "request_id", "error")
_KINDS = {"account": Kind.UNUSABLE, "file": Kind.REJECTED, "rule": Kind.RULE, "later": Kind.TEMPORARY}


def build(config: ProviderConfig) -> Provider:
    """A provider for *config*, whose url and answer the config requires."""
    return HttpProvider(config, DescribedApi(config))


class DescribedApi(VendorDefaults):
    """The API of *config*; see :class:`dropscribe.providers.vendor.Vendor`."""

    def __init__(self, config: ProviderConfig) -> None:
        self.url = config.url or ""
        self.errors = _table(config.errors)
        self._key_header = config.key_header
        self._file_field = config.file_field if config.body == "multipart" else None
        self._is_in_form = config.body == "multipart" and config.params_in == "form"
        self._read = _Reading(config.answer)

    def authorization(self, key: str) -> dict[str, str]:
        """The header of the config."""
        name, _, value = self._key_header.partition(": ")
        return {name: value.replace("{key}", key)}

    def params(self, given: Mapping[str, ParamValue]) -> Params:
        """The user's alone."""
        return dict(given)

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """The audio as the body, or in a form."""
        kind = media_type(audio.suffix, audio.head)
        if self._file_field is None:
            return Upload(with_query(self.url, params), {"Content-Type": kind}, audio)
        form = multipart(
            fields_of(params) if self._is_in_form else (),
            field=self._file_field,
            filename=upload_name(audio.suffix, audio.head),
            content_type=kind,
        )
        url = self.url if self._is_in_form else with_query(self.url, params)
        return Upload(url, {"Content-Type": form.content_type}, audio, form.before, form.after)

    def failure(self, parsed: dict[str, Any]) -> str | None:
        """What `answer.error` finds."""
        found = self._read.found("error", parsed)
        return None if found is None or found is False or found == "" else str(found)

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Whatever the expressions find."""
        read = self._read
        text = read.found("text", parsed)
        if not isinstance(text, str):
            return None
        words = tuple(map(read.word, read.items("words", parsed)))
        return Transcript(
            text=text,
            language=values.language(values.text_of(read.found("language", parsed)), params.get("language")),
            duration=values.seconds(read.found("duration", parsed), read.scale),
            segments=tuple(map(read.segment, read.items("segments", parsed))) or segments_of(words),
            words=words,
            model=values.word_or_none(params.get("model")),
            request_id=values.word_or_none(read.found("request_id", parsed)) or request_id,
            raw=parsed,
        )

    def probe(self) -> tuple[str, str]:
        """A request without audio."""
        return "POST", self.url


class _Reading:
    """Compiled expressions, and what their values mean."""

    def __init__(self, keys: AnswerKeys | None) -> None:
        written = {name: getattr(keys, name, None) for name in _EXPRESSIONS}
        self._compiled = {name: jmespath.compile(text) for name, text in written.items() if text}
        self.scale = 0.001 if keys is not None and keys.unit == "ms" else 1.0
        self._has_length = keys is not None and keys.times == "start_duration"
        is_log = keys is not None and keys.confidence == "logprob"
        self._confidence = values.probability_of_log if is_log else values.probability

    def found(self, name: str, parsed: dict[str, Any]) -> Any:
        """The value of an expression; None where there is none or it does not fit the answer."""
        try:
            return self._compiled[name].search(parsed) if name in self._compiled else None
        except (JMESPathError, RecursionError, TypeError, ValueError):
            return None

    def items(self, name: str, parsed: dict[str, Any]) -> list[Mapping[str, Any]]:
        """The objects that an expression finds."""
        return values.objects(self.found(name, parsed))[:MOST_ITEMS]

    def word(self, item: Mapping[str, Any]) -> Word:
        """One word."""
        return Word(values.text_of(item.get("word")).strip(), *self._span(item), *self._rest(item))

    def segment(self, item: Mapping[str, Any]) -> Segment:
        """One segment."""
        confidence, speaker = self._rest(item)
        return Segment(values.text_of(item.get("text")).strip(), *self._span(item), speaker, confidence)

    def _span(self, item: Mapping[str, Any]) -> tuple[float | None, float | None]:
        start, end = item.get("start"), item.get("end")
        if self._has_length:
            first, length = values.number(start), values.number(item.get("duration"))
            end = None if first is None or length is None else first + length
        return values.span(start, end, self.scale)

    def _rest(self, item: Mapping[str, Any]) -> tuple[float | None, str | None]:
        return self._confidence(item.get("confidence")), values.speaker_label(item.get("speaker"))


def _table(keys: ErrorKeys | None) -> Table:
    rows: Table = {}
    for name, kind in _KINDS.items():
        for mark in getattr(keys, name, ()):
            rows[(mark, None) if isinstance(mark, int) else (None, mark.lower())] = kind
    return rows
