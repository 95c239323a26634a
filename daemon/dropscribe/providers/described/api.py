"""The vendor API of `type: http`, described in the config."""

from __future__ import annotations

import json
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from dropscribe.config.sections.http_api import AnswerKeys
from dropscribe.providers.answers import parse_json
from dropscribe.providers.described.answer import AnswerReader, mapped
from dropscribe.providers.formats import media_type
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.forms import fields_of, with_query
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.vendor import Vendor, form_upload, nested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.config.sections.http_api import ErrorKeys
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.base import Provider
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.transport.http import Answer
    from dropscribe.providers.vendor import Params
    from dropscribe.transcripts.model import Transcript

_KINDS = {"account": Kind.UNUSABLE, "file": Kind.REJECTED, "rule": Kind.RULE, "later": Kind.TEMPORARY}


def build(config: ProviderConfig) -> Provider:
    """A provider for *config*, whose url and answer the config requires."""
    if config.poll is None:
        return DescribedApi.build(config)
    from dropscribe.providers.described.jobs import DescribedJobs  # noqa: PLC0415 - only with `poll`

    return DescribedJobs.build(config)


class DescribedApi(Vendor):
    """The API of *config*; see :class:`dropscribe.providers.vendor.Vendor`."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.url = config.url or ""
        self.errors = _table(config.errors)
        self._body = config.body
        self._key_header = config.key_header
        self._media_type = config.media_type
        self._file_field = config.file_field
        self._is_beside = config.body != "raw" and config.params_in == "form"
        self._keys = config.answer or AnswerKeys(text="text")
        self._reader = AnswerReader(self._keys)

    def authorization(self, key: str) -> dict[str, str]:
        """The header of the config."""
        name, _, value = self._key_header.partition(": ")
        return {name: value.replace("{key}", key)}

    def params(self, given: Mapping[str, ParamValue]) -> Params:
        """The user's alone."""
        return dict(given)

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """The audio as the body, in a form, or in a JSON object."""
        beside = params if self._is_beside else {}
        url = with_query(self.url, {} if self._is_beside else params)
        kind = self._media_type or media_type(audio.suffix, audio.head)
        if self._body == "json":
            place = token_hex(16)  # nothing else in the object holds it
            before, after = (
                json.dumps(nested({**beside, self._file_field: place})).encode().split(place.encode())
            )
            return Upload(url, {"Content-Type": "application/json"}, audio, before, after, is_base64=True)
        if self._body == "raw":
            return Upload(url, {"Content-Type": kind}, audio)
        return form_upload(url, audio, fields_of(beside), field=self._file_field, kind=kind)

    def failure(self, parsed: dict[str, Any]) -> str | None:
        """Text that `answer.error` finds, if any."""
        return self._reader.error(parsed)

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Transcript of the values that the expressions find."""
        language, model = params.get("language"), params.get("model")
        return self._reader.transcript(parsed, language=language, model=model, request_id=request_id)

    def no_text(self, parsed: dict[str, Any]) -> str:
        """With the expression that found none."""
        return self._reader.no_text(parsed)

    def probe(self) -> tuple[str, str]:
        """A request without audio."""
        return "POST", self.url

    def probed(self, answer: Answer) -> str | None:
        """With the fields that are in the answer already."""
        learned = super().probed(answer)
        try:
            parsed = parse_json(answer.body)
        except ValueError:
            return learned
        fields = [each.field for each in mapped(self._keys, parsed) if each.value is not None]
        return f"{learned}; its answer has {', '.join(fields)}" if learned and fields else learned


def _table(keys: ErrorKeys | None) -> Table:
    rows: Table = {}
    for name, kind in _KINDS.items():
        for mark in getattr(keys, name, ()):
            rows[(mark, None) if isinstance(mark, int) else (None, mark.lower())] = kind
    return rows
