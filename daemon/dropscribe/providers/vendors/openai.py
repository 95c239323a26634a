"""OpenAI's transcription API and the servers that speak it: a multipart form (docs/design/providers.md).

A value that differs from OpenAI's documentation is read in its server's known sense, or is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AudioRejected, ProviderError
from dropscribe.core.requests.params import GRANULARITIES, ParamValue
from dropscribe.files.audio import AudioFile
from dropscribe.providers import values
from dropscribe.providers.answers import HAS_FILE_PARAM, HAS_PARAM
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.http import Answer
from dropscribe.providers.transport.requests import Upload
from dropscribe.providers.vendor import Vendor
from dropscribe.providers.words import Reading
from dropscribe.transcripts.model import Transcript

OPENAI_BODY_BYTES = 26_214_400  # OpenAI's limit on the whole form, not on the file

_PATH = "/audio/transcriptions"
_WHOLE_PATHS = (_PATH, "/inference")  # whisper.cpp's server has the second
_NO_FILE = re.compile(
    r"\bfile\b.*\b(?:required|missing|provide)|\b(?:required|missing|no)\b.*\bfile\b", re.IGNORECASE
)
_NANOSECONDS = 1e-9
_LONGEST_SECONDS = 1e6  # No recording lasts 11 days: a larger time is LocalAI's nanoseconds
_SPEAKER = ("speaker", "speaker_id")  # Mistral has the second
# whisper.cpp's words are tokens: a leading space says where a word begins, so it stays.
_WORD = Reading(("word", "text"), confidence=("probability", "confidence"), speaker=_SPEAKER)
_SEGMENT = Reading(
    confidence=("avg_logprob",),
    probability=values.probability_of_log,
    speaker=_SPEAKER,
    said=values.stripped,
    inner=_WORD,
)


class OpenAI(Vendor):
    """OpenAI's API; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "openai"
    host = "https://api.openai.com/v1"
    audio_field = "file"
    link_field = "url"  # of some servers; OpenAI itself has none
    text_formats = ("response_format", ("text", "srt", "vtt"))
    errors = {
        (400, HAS_FILE_PARAM): Kind.REJECTED,
        (400, HAS_PARAM): Kind.RULE,
        (400, "invalid_value"): Kind.REJECTED,  # longer than the model takes; with a param it is the rule's
    }

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.url = endpoint_url(self.url)
        at_openai = urlsplit(self.url).hostname == "api.openai.com"
        self._max_body_bytes = OPENAI_BODY_BYTES if at_openai else None
        self._plain_models: set[str] = set()

    def params(self, given: Mapping[str, ParamValue]) -> values.Params:
        """With the richest format that the model takes."""
        sent = super().params(given)
        if "response_format" not in given and str(sent["model"]) in self._plain_models:
            return _plain(sent)
        return sent

    def upload(self, audio: AudioFile, params: values.Params) -> Upload:
        """A form, which is limited at OpenAI."""
        upload = super().upload(audio, params)
        if self._max_body_bytes is not None and upload.size_bytes > self._max_body_bytes:
            reason = f"{upload.size_bytes} bytes with the form; {self._max_body_bytes} are taken"
            raise AudioRejected("too_large", reason)
        return upload

    def link_error(self, error: ProviderError) -> ProviderError:
        """A server without the field ``url`` says that the file is missing."""
        if error.status in {400, 422} and _NO_FILE.search(error.reason):
            return AudioRejected("links_not_supported", error.reason, status=error.status)
        return error

    def simpler(
        self, given: Mapping[str, ParamValue], params: values.Params, error: ProviderError
    ) -> values.Params | None:
        """Plain ``json``, where the model refused a ``response_format`` with times."""
        is_about_format = error.status in {400, 422} and "response_format" in error.reason
        if not is_about_format or "response_format" in given or params["response_format"] == "json":
            return None
        self._plain_models.add(str(params["model"]))
        return _plain(params)

    def probe(self) -> tuple[str, str]:
        """The list of models."""
        return "GET", models_url(self.url)

    def probed(self, answer: Answer) -> str | None:
        """Some servers have no such list."""
        if answer.status // 100 == 2:
            return f"answers and takes the key (HTTP {answer.status} for its models)"
        if answer.status in {404, 405}:
            return f"answers, but lists no models (HTTP {answer.status}): the key was not tried"
        return None

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Words stand at the top or in their segments."""
        items, top = values.objects(parsed.get("segments")), values.objects(parsed.get("words"))
        found = top or [word for item in items for word in values.objects(item.get("words"))]
        last = max((values.number(item.get("end")) or 0.0 for item in (*items, *found)), default=0.0)
        scale = _NANOSECONDS if last > _LONGEST_SECONDS else 1.0
        word, segment = replace(_WORD, scale=scale), replace(_SEGMENT, scale=scale)
        segments = tuple(map(segment.segment, items))
        told = (
            *map(parsed.get, ("detected_language", "language")),
            *values.elements(parsed.get("languages")),
        )
        # OpenAI's name in `usage`, then Mistral's.
        usage = values.first_of(values.mapping(parsed.get("usage")), "seconds", "prompt_audio_seconds")
        return Transcript(
            values.told_text(parsed.get("text"), parts=found or items),
            language=values.language(*told, params.get("language")),
            duration=values.duration(parsed.get("duration"), usage),
            segments=segments,
            words=word.words(top) if top else word.words_within(items, segments),
            model=values.word_or_none(parsed.get("model")),
        )


def endpoint_url(url: str) -> str:
    """URL to post audio to, from a base URL or the whole one, with or without a final slash."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(_WHOLE_PATHS) else path + _PATH))


def models_url(url: str) -> str:
    """The list of models beside the endpoint *url*."""
    parts = urlsplit(url)
    base = next(parts.path.removesuffix(end) for end in _WHOLE_PATHS if parts.path.endswith(end))
    return urlunsplit(parts._replace(path=f"{base}/models"))


def _plain(params: values.Params) -> values.Params:
    others = {name: value for name, value in params.items() if name not in GRANULARITIES}
    return {**others, "response_format": "json"}
