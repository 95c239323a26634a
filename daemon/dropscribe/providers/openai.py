"""OpenAI's transcription API, and the many servers that speak it: a multipart form (PROVIDERS.md §3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from dropscribe.core.errors import AudioRejected, RuleRejected
from dropscribe.providers.answers import HAS_FILE_PARAM, HAS_PARAM, request_id_of
from dropscribe.providers.endpoint import Endpoint
from dropscribe.providers.formats import media_type, upload_name
from dropscribe.providers.forms import fields_of, multipart, multipart_of_fields
from dropscribe.providers.http import Upload
from dropscribe.providers.openai_answer import transcript_of
from dropscribe.providers.params import effective_params
from dropscribe.providers.statuses import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.statuses import Table
    from dropscribe.transcripts.model import Transcript

URL = "https://api.openai.com/v1"
OPENAI_BODY_BYTES = 26_214_400
"""OpenAI's limit on the whole form, not on the file (PROVIDERS.md §3.4)."""

ERRORS: Table = {
    (400, HAS_FILE_PARAM): Kind.REJECTED,
    (400, HAS_PARAM): Kind.RULE,
    (400, "invalid_value"): Kind.REJECTED,  # longer than the model takes; with a param it is the rule's
}
"""PROVIDERS.md §3.3; what is not here is the common table's."""

_PATH = "/audio/transcriptions"
_WHOLE_PATHS = (_PATH, "/inference")  # whisper.cpp's server has the second
_NO_FILE = re.compile(
    r"\bfile\b.*\b(?:required|missing|provide)|\b(?:required|missing|no)\b.*\bfile\b", re.IGNORECASE
)
_TEXT_FORMATS = {"text", "srt", "vtt"}


class OpenAIProvider:
    """One account at OpenAI, or one server that speaks its API; the key is optional."""

    def __init__(self, config: ProviderConfig) -> None:
        url = endpoint_url(config.url or URL)
        self._endpoint = Endpoint(config, url, scheme="Bearer", table=ERRORS)
        at_openai = urlsplit(url).hostname == "api.openai.com"
        self._max_body_bytes = OPENAI_BODY_BYTES if at_openai else None

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """See :class:`dropscribe.providers.base.Provider`."""
        sent = effective_params("openai", params)
        return await self._transcript(self._upload(audio, sent), sent)

    async def transcribe_link(self, url: str, params: Mapping[str, ParamValue]) -> Transcript:
        """See :class:`dropscribe.providers.base.LinkProvider`; the field ``url`` (PROVIDERS.md §3.1).

        OpenAI itself has no such field. A server without it says that the file is missing.
        """
        sent = effective_params("openai", params)
        content_type, body = multipart_of_fields([*fields_of(sent), ("url", url)])
        upload = Upload(self._endpoint.url, {"Content-Type": content_type}, before=body)
        try:
            return await self._transcript(upload, sent)
        except (AudioRejected, RuleRejected) as error:
            if error.status in {400, 422} and _NO_FILE.search(error.reason):
                raise AudioRejected("links_not_supported", error.reason, status=error.status) from error
            raise

    async def _transcript(self, upload: Upload, sent: Mapping[str, ParamValue]) -> Transcript:
        wants_text = sent.get("response_format") in _TEXT_FORMATS
        from_text = _object_of_text if wants_text else None
        answer, parsed = await self._endpoint.transcript_answer(upload, from_text)
        transcript = transcript_of(parsed, sent, request_id_of(answer, parsed))
        if transcript is None:
            raise self._endpoint.classifier.bad_answer(answer, "a success without a text")
        return transcript

    def _upload(self, audio: AudioFile, sent: Mapping[str, ParamValue]) -> Upload:
        form = multipart(
            fields_of(sent),
            filename=upload_name(audio.suffix, audio.head),
            content_type=media_type(audio.suffix, audio.head),
        )
        headers = {"Content-Type": form.content_type}
        upload = Upload(self._endpoint.url, headers, audio, form.before, form.after)
        if self._max_body_bytes is not None and upload.size_bytes > self._max_body_bytes:
            reason = f"{upload.size_bytes} bytes with the form; {self._max_body_bytes} are taken"
            raise AudioRejected("too_large", reason)
        return upload

    async def probe(self) -> str:
        """See :class:`dropscribe.providers.base.Provider`: asks for the list of models."""
        answer = await self._endpoint.ask(models_url(self._endpoint.url), post=False)
        if answer.status // 100 == 2:
            return f"answers and takes the key (HTTP {answer.status} for its models)"
        if answer.status in {404, 405}:
            return f"answers, but lists no models (HTTP {answer.status}): the key was not tried"
        raise self._endpoint.classifier.error(answer)

    async def close(self) -> None:
        """See :class:`dropscribe.providers.base.Provider`."""
        await self._endpoint.close()


def endpoint_url(url: str) -> str:
    """Where audio is posted, from a base URL or from the whole one, with or without a slash."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(_WHOLE_PATHS) else path + _PATH))


def models_url(url: str) -> str:
    """The list of models beside the endpoint *url*."""
    parts = urlsplit(url)
    base = next(parts.path.removesuffix(end) for end in _WHOLE_PATHS if parts.path.endswith(end))
    return urlunsplit(parts._replace(path=f"{base}/models"))


def _object_of_text(text: str) -> dict[str, Any]:
    return {"text": text.strip()}
