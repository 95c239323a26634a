"""Azure Speech, fast: a form with a JSON definition and the file (docs/design/providers.md)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.forms import with_query
from dropscribe.providers.vendor import Vendor, form_upload, nested
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.transport.http import Upload
    from dropscribe.providers.vendor import Params

API_VERSION = "api-version"

ERRORS: Table = {(400, "invalidlocale"): Kind.RULE, (404, "resourcenotfound"): Kind.UNUSABLE}

_MILLISECONDS = 0.001


class Azure(Vendor):
    """The fast transcription API; see :class:`dropscribe.providers.vendor.Vendor`.

    A parameter with dots in its name is a value in an object of the definition: `diarization.maxSpeakers`.
    """

    type = "azure"
    host = "https://{region}.api.cognitive.microsoft.com"
    path = "/speechtotext/transcriptions:transcribe"
    key_header = "Ocp-Apim-Subscription-Key: {key}"
    errors = ERRORS

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """A form with the file at its end."""
        definition = json.dumps(definition_of(params))
        return form_upload(self._at(params), audio, [("definition", definition)], field="audio")

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times are milliseconds, as start and length; each channel has a combined phrase of its own."""
        combined = values.objects(parsed.get("combinedPhrases"))
        phrases = values.objects(parsed.get("phrases"))
        if not isinstance(parsed.get("combinedPhrases"), list) and not phrases:
            return None
        is_split = len(combined) > 1
        told = [item.get("locale") for item in phrases]
        locales = params.get("locales")
        return Transcript(
            text=values.text_lines(item.get("text") for item in combined) or "",
            language=values.language(*told, *(locales if isinstance(locales, list) else ())),
            duration=values.duration(parsed.get("durationMilliseconds"), _MILLISECONDS),
            segments=tuple(_segment(item, is_split=is_split) for item in phrases),
            words=tuple(word for item in phrases for word in _words(item, is_split=is_split)),
            request_id=request_id,
            raw=parsed,
        )

    def probe(self) -> tuple[str, str]:
        """A request without audio."""
        return "POST", self._at(self.params({}))

    def _at(self, params: Params) -> str:
        return with_query(self.url, {name: params[name] for name in (API_VERSION,) if name in params})


def definition_of(params: Params) -> dict[str, Any]:
    """The `definition`: names with dots as nested objects, an empty list left out."""
    return nested({name: _number_list(value) for name, value in params.items() if name != API_VERSION})


def _number_list(value: ParamValue) -> Any:
    # The config makes a list's items strings; `channels` is the one list of numbers.
    is_numbers = isinstance(value, list) and all(item.isdecimal() for item in value)
    return list(map(int, value)) if isinstance(value, list) and is_numbers else value


def _segment(item: Mapping[str, Any], *, is_split: bool) -> Segment:
    start, end = _span(item)
    speaker = values.speaker_or_channel(item, is_split=is_split)
    confidence = values.probability(item.get("confidence"))
    return Segment(values.text_of(item.get("text")), start, end, speaker, confidence or None)


def _words(item: Mapping[str, Any], *, is_split: bool) -> list[Word]:
    speaker = values.speaker_or_channel(item, is_split=is_split)
    return [
        Word(values.text_of(word.get("text")), *_span(word), speaker=speaker)
        for word in values.objects(item.get("words"))
    ]


def _span(item: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return values.span_of_length(
        item.get("offsetMilliseconds"), item.get("durationMilliseconds"), _MILLISECONDS
    )
