"""OpenAI's transcription API and the servers that speak it: a multipart form (docs/design/providers.md)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from dropscribe.core.errors import AudioRejected
from dropscribe.providers.answers import HAS_FILE_PARAM, HAS_PARAM
from dropscribe.providers.params import GRANULARITIES
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.forms import fields_of, multipart_of_fields
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.vendor import Vendor, form_upload
from dropscribe.providers.vendors.openai_answer import transcript_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.errors import ProviderError
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.transport.http import Answer
    from dropscribe.providers.vendor import Params
    from dropscribe.transcripts.model import Transcript

OPENAI_BODY_BYTES = 26_214_400
"""OpenAI's limit on the whole form, not on the file."""

ERRORS: Table = {
    (400, HAS_FILE_PARAM): Kind.REJECTED,
    (400, HAS_PARAM): Kind.RULE,
    (400, "invalid_value"): Kind.REJECTED,  # longer than the model takes; with a param it is the rule's
}

_PATH = "/audio/transcriptions"
_WHOLE_PATHS = (_PATH, "/inference")  # whisper.cpp's server has the second
_NO_FILE = re.compile(
    r"\bfile\b.*\b(?:required|missing|provide)|\b(?:required|missing|no)\b.*\bfile\b", re.IGNORECASE
)
_TEXT_FORMATS = {"text", "srt", "vtt"}


class OpenAI(Vendor):
    """OpenAI's API; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "openai"
    host = "https://api.openai.com/v1"
    errors = ERRORS

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.url = endpoint_url(self.url)
        at_openai = urlsplit(self.url).hostname == "api.openai.com"
        self._max_body_bytes = OPENAI_BODY_BYTES if at_openai else None
        self._plain_models: set[str] = set()

    def params(self, given: Mapping[str, ParamValue]) -> Params:
        """With the richest format that the model takes."""
        sent = super().params(given)
        if "response_format" not in given and str(sent["model"]) in self._plain_models:
            return _plain(sent)
        return sent

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """A form with the file at its end."""
        upload = form_upload(self.url, audio, fields_of(params))
        if self._max_body_bytes is not None and upload.size_bytes > self._max_body_bytes:
            reason = f"{upload.size_bytes} bytes with the form; {self._max_body_bytes} are taken"
            raise AudioRejected("too_large", reason)
        return upload

    def link(self, url: str, params: Params) -> Upload:
        """The field ``url``, which some servers have and OpenAI itself has not."""
        content_type, body = multipart_of_fields([*fields_of(params), ("url", url)])
        return Upload(self.url, {"Content-Type": content_type}, before=body)

    def wants_text(self, params: Params) -> bool:
        """Whether the user chose a format that is plain text."""
        return params.get("response_format") in _TEXT_FORMATS

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """See :mod:`dropscribe.providers.vendors.openai_answer`."""
        return transcript_of(parsed, params, request_id)

    def simpler(self, given: Mapping[str, ParamValue], params: Params, error: ProviderError) -> Params | None:
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

    def link_error(self, error: ProviderError) -> ProviderError:
        """A server without the field ``url`` says that the file is missing."""
        if error.status in {400, 422} and _NO_FILE.search(error.reason):
            return AudioRejected("links_not_supported", error.reason, status=error.status)
        return error


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


def _plain(params: Params) -> Params:
    others = {name: value for name, value in params.items() if name not in GRANULARITIES}
    return {**others, "response_format": "json"}
