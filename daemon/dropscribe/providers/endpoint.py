"""One vendor's endpoint: what all adapters over HTTP have in common, so that they hold only the vendor.

Guarantees: :meth:`Endpoint.transcript_answer` returns nothing but a 2xx JSON object that does not call itself
an error; whatever else comes is a ProviderError of the right kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.core.errors import AudioRejected, ProviderUnusable
from dropscribe.providers.answers import parse_json
from dropscribe.providers.http import HttpTransport, Upload
from dropscribe.providers.redaction import Redactor, secrets_of
from dropscribe.providers.statuses import Classifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import ProviderConfig
    from dropscribe.providers.http import Answer
    from dropscribe.providers.statuses import Table

_TEXT_TYPES = frozenset({"text/plain", "text/vtt", "text/srt", "application/x-subrip"})


class Endpoint:
    """A provider's URL with its key, limits and table of errors.

    Args:
        config: The provider's part of the config.
        url: Where audio is sent, without parameters.
        scheme: The word before the key in Authorization.
        table: The vendor's own rows for :class:`Classifier`.
    """

    def __init__(self, config: ProviderConfig, url: str, *, scheme: str, table: Table) -> None:
        key = config.api_key.reveal() if config.api_key is not None else None
        self.url = url
        self._key = key
        self._scheme = scheme
        self._redactor = Redactor(secrets_of(url, key))
        self.classifier = Classifier(self._redactor, table)
        self._http = HttpTransport(timeout_seconds=config.timeout_seconds, redactor=self._redactor)
        self._max_upload_bytes = config.max_upload_bytes

    def __repr__(self) -> str:
        return f"<Endpoint {self._redactor.reason(self.url)}>"

    async def transcript_answer(
        self,
        upload: Upload,
        from_text: Callable[[str], dict[str, Any]] | None = None,
    ) -> tuple[Answer, dict[str, Any]]:
        """Send *upload*, whose headers lack only the key, and return the answer and its JSON object.

        Args:
            upload: The audio.
            from_text: Makes an object of a plain-text answer, where text was asked for.

        Raises:
            ProviderError: Any of its kinds; see providers.base.Provider.
        """
        self._check_size(upload)
        answer = await self._http.post(self._authorized(upload))
        if answer.status // 100 != 2:
            raise self.classifier.error(answer)
        if from_text is not None and answer.content_type in _TEXT_TYPES:
            return answer, self._read_text(answer, from_text)
        return answer, self._read_object(answer)

    async def ask(self, url: str, *, post: bool) -> Answer:
        """An empty request to *url*, for probes; the answer whatever its status."""
        empty = Upload(url, {"Content-Type": "application/octet-stream"})
        if post:
            return await self._http.post(self._authorized(empty))
        return await self._http.get(url, self._authorized(Upload(url, {})).headers)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def _check_size(self, upload: Upload) -> None:
        limit = self._max_upload_bytes
        size_bytes = upload.audio.size_bytes if upload.audio is not None else 0
        if limit is not None and size_bytes > limit:
            raise AudioRejected("too_large", f"{size_bytes} bytes; max_upload is {limit}")

    def _authorized(self, upload: Upload) -> Upload:
        headers = dict(upload.headers)
        if self._key is not None:
            if not (self._key.isascii() and self._key.isprintable()):
                raise ProviderUnusable("bad_key", "the key holds characters that no header can carry")
            headers["Authorization"] = f"{self._scheme} {self._key}"
        return Upload(upload.url, headers, upload.audio, upload.before, upload.after)

    def _read_object(self, answer: Answer) -> dict[str, Any]:
        try:
            parsed = parse_json(answer.body)
        except ValueError:
            kind = answer.content_type or "something"
            reason = f"{len(answer.body)} bytes of {kind} in place of JSON"
            raise self.classifier.bad_answer(answer, reason) from None
        if not isinstance(parsed, dict):
            raise self.classifier.bad_answer(answer, "JSON that is no object")
        if error := self.classifier.error_in_success(answer, parsed):
            raise error
        return parsed

    def _read_text(self, answer: Answer, from_text: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        try:
            return from_text(answer.body.decode("utf-8"))
        except UnicodeDecodeError:
            raise self.classifier.bad_answer(answer, "text that is not UTF-8") from None


def learnt(answer: Answer, classifier: Classifier) -> str:
    """What an empty POST shows: a 4xx about the missing audio means that the key was taken.

    Raises:
        ProviderError: The answer is about key, account, endpoint or the provider's health.
    """
    if answer.status // 100 == 2:
        return f"answers and takes the key (HTTP {answer.status})"
    error = classifier.error(answer)
    if isinstance(error, AudioRejected) or answer.status in {400, 422}:
        return f"answers and takes the key (HTTP {answer.status} to a request without audio)"
    raise error
