"""Azure Speech, fast: a form with a JSON definition and the file (docs/design/providers.md)."""

from __future__ import annotations

import json

from dropscribe.providers import values
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.requests import nested
from dropscribe.providers.vendor import Vendor
from dropscribe.providers.words import Reading, by_time
from dropscribe.transcripts.model import Transcript

API_VERSION = "api-version"

_MILLISECONDS = 0.001
_SPOKEN = Reading(
    times=("offsetMilliseconds", "durationMilliseconds"),
    has_lengths=True,
    scale=_MILLISECONDS,
    probability=lambda value: values.probability(value) or None,  # some models give 0 in place of none
)


class Azure(Vendor):
    """The fast transcription API; see :class:`dropscribe.providers.vendor.Vendor`.

    A parameter with dots in its name is a value in an object of the definition: `diarization.maxSpeakers`.
    """

    type = "azure"
    host = "https://{region}.api.cognitive.microsoft.com"
    path = "/speechtotext/transcriptions:transcribe"
    query = (API_VERSION,)
    audio_field = "audio"
    key_header = "Ocp-Apim-Subscription-Key: {key}"
    errors = {(400, "invalidlocale"): Kind.RULE, (404, "resourcenotfound"): Kind.UNUSABLE}

    def fields(self, params: values.Params) -> list[tuple[str, str]]:
        """The parameters as one JSON document."""
        definition = nested({name: value for name, value in params.items() if name != API_VERSION})
        return [("definition", json.dumps(definition))]

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Times are milliseconds, as start and length; each channel has a combined phrase of its own."""
        combined = values.objects(parsed.get("combinedPhrases"))
        phrases = values.objects(parsed.get("phrases"))
        is_split = len(combined) > 1
        segments = tuple(
            _SPOKEN.segment(item, values.channel_label(item.get("channel")) if is_split else None)
            for item in phrases
        )
        has_text = isinstance(parsed.get("combinedPhrases"), list)
        lines = values.text_lines(item.get("text") for item in combined)
        return Transcript(
            values.told_text(lines, "" if has_text else None, parts=phrases),
            language=values.language(
                *(item.get("locale") for item in phrases), *values.elements(params.get("locales"))
            ),
            duration=values.duration(parsed.get("durationMilliseconds"), scale=_MILLISECONDS),
            segments=by_time(segments),
            words=by_time(_SPOKEN.words_within(phrases, segments)),
        )
