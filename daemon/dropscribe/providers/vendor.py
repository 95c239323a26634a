"""Interface of one vendor's HTTP API, and the provider that all vendors share.

A vendor only builds requests and reads answers: no network, no key, no file system. HttpProvider adds the
key, the limits, one upload, the table of errors, bounds on the answer, and the masking of secrets.
"""

from __future__ import annotations

import asyncio
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AudioRejected, ProviderError, ProviderUnusable, RuleRejected
from dropscribe.core.requests.params import ParamValue, effective_params
from dropscribe.files.audio import AudioFile
from dropscribe.native.decoder import probe_seconds
from dropscribe.providers.answers import TooLarge, is_html, page_words, parse_json, request_id_of
from dropscribe.providers.redaction import cleaned, redactor_of
from dropscribe.providers.statuses import Classifier, Table
from dropscribe.providers.transport import requests
from dropscribe.providers.transport.http import Answer, HttpTransport, too_large
from dropscribe.providers.values import BadAnswer, Item, Params, word_or_none
from dropscribe.providers.words import with_text
from dropscribe.transcripts.model import Transcript

ANSWER_SECONDS_A_SECOND = 3.0
"""A long recording may take this many times its length, where that is more than ``timeout``."""

LONG_RECORDING_SECONDS = 60.0
_LEAST_BYTES_A_SECOND = 1_000
"""Of any usable recording: a smaller file is not long enough for ANSWER_SECONDS_A_SECOND to count."""

_WITHOUT_AUDIO = frozenset({400, 413, 415, 422})
"""Answers to a request without audio if nothing else is wrong; some vendors refuse a key with a 400 too."""

_LARGE_ANSWER_BYTES = 128 * 1024  # Reading a larger answer would hold up the event loop for milliseconds


class Vendor(ABC):
    """One vendor's API, with the parts that most vendors share.

    Methods are pure, so that a test needs no server.
    """

    type: ClassVar[str] = ""  # By it ``core.requests.params`` has the default parameters; "" has none
    host: ClassVar[str] = ""  # The URL where the config has none, with ``{region}`` for the config's
    path: ClassVar[str] = ""  # Added to a URL without a path
    key_header = "Authorization: Bearer {key}"  # The header with the key, as in the config
    query: Collection[str] | None = ()  # The parameters in the URL's query; None for all
    audio_field = ""  # The field with the audio, where the request is a form; "" where its body is the audio
    media_type: str | None = None  # The audio's; None for that of its content and name
    link_field = ""  # The field with a link to the audio, of the form or else of a JSON object; "" for none
    model_param = "model"  # The parameter with the model's name
    # A parameter, and its values that ask for a plain text in place of JSON
    text_formats: tuple[str, tuple[str, ...]] = ("", ())
    errors: Table = {}  # The vendor's own rows for :class:`Classifier`

    def __init__(self, config: ProviderConfig) -> None:
        url = urlsplit(config.url or self.host.format(region=config.region))
        # To which audio is sent, without parameters
        self.url = urlunsplit(url if url.path.strip("/") else url._replace(path=self.path or url.path))

    @classmethod
    def build(cls, config: ProviderConfig) -> HttpProvider:
        """The provider of *config* at this vendor."""
        return HttpProvider(config, cls(config))

    def params(self, given: Mapping[str, ParamValue]) -> Params:
        """The parameters to be sent: the type's defaults with *given* laid over them."""
        return effective_params(self.type, given)

    def endpoint(self, params: Params) -> str:
        """URL to which audio is sent, with those of *params* that belong into its query."""
        names = params if self.query is None else self.query
        return requests.with_query(self.url, {name: params[name] for name in names if name in params})

    def fields(self, params: Params) -> list[tuple[str, str]]:
        """The form's fields beside the audio: by default the parameters that are not in the query."""
        names = params.keys() - (params if self.query is None else self.query)
        return requests.fields_of({name: value for name, value in params.items() if name in names})

    def upload(self, audio: AudioFile, params: Params) -> requests.Upload:
        """The request for *audio*, without the key; raises AudioRejected if the vendor takes no such file."""
        url, field, kind = self.endpoint(params), self.audio_field, self.media_type
        if not field:
            return requests.raw_request(url, audio, kind)
        return requests.form_request(url, self.fields(params), audio, field=field, kind=kind)

    def link(self, url: str, params: Params) -> requests.Upload:
        """The request for the audio at *url*; called only for the types that core.links names."""
        if not self.audio_field:
            return requests.json_request(self.endpoint(params), {self.link_field: url})
        return requests.form_request(self.endpoint(params), [*self.fields(params), (self.link_field, url)])

    def link_error(self, error: ProviderError) -> ProviderError:
        """The error to report for *error*, the answer to :meth:`link`."""
        return error

    def failure(self, parsed: Item) -> str | None:  # noqa: ARG002
        """This vendor's own form of an error in a success's JSON object, in its words; else None."""
        return None

    def checked(self, parsed: Item) -> Item:
        """The part of a success's JSON object in which the usual signs of an error count."""
        return parsed

    @abstractmethod
    def transcript(self, parsed: Item, params: Params) -> Transcript:
        """The transcript in an answer's JSON object; raises BadAnswer if that holds no text."""

    def simpler(self, given: Mapping[str, ParamValue], params: Params, error: ProviderError) -> Params | None:  # noqa: ARG002
        """Parameters that avoid *error* and are worth one more request; else None."""
        return None

    def probe(self) -> tuple[str, str]:
        """Method and URL of a request that costs nothing and proves the key: by default one without audio."""
        return "POST", self.endpoint(self.params({}))

    def probed(self, answer: Answer) -> str | None:
        """Result of the answer to :meth:`probe`; None for an error that the table classifies."""
        if answer.status // 100 == 2:
            return f"answers and takes the key (HTTP {answer.status})"
        if answer.status in _WITHOUT_AUDIO:
            return f"answers and takes the key (HTTP {answer.status} to a request without audio)"
        return None


class HttpProvider:
    """One account at one vendor; see :class:`dropscribe.providers.base.Provider`."""

    def __init__(self, config: ProviderConfig, vendor: Vendor) -> None:
        self.vendor = vendor
        key = config.api_key.reveal() if config.api_key is not None else None
        self._redactor = redactor_of(vendor.url, key, config.params)
        self._classifier = Classifier(self._redactor, vendor.errors)
        name, _, value = vendor.key_header.partition(": ")
        headers = {} if key is None else {name: value.replace("{key}", key)}
        self._http = HttpTransport(redactor=self._redactor, headers=headers)
        self._timeout_seconds = config.timeout_seconds
        self._max_upload_bytes = config.max_upload_bytes
        self._url_params = dict(parse_qsl(urlsplit(vendor.url).query))  # sent with each request, too

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """See :class:`dropscribe.providers.base.Provider`."""
        self._check_size(audio)
        seconds = await self._answer_seconds(audio)
        sent = self.vendor.params(params)
        try:
            return await self._transcribed(self.vendor.upload(audio, sent), sent, seconds)
        except (AudioRejected, RuleRejected) as error:
            simpler = self.vendor.simpler(params, sent, error)
            if simpler is None:
                raise
        transcript = await self._transcribed(self.vendor.upload(audio, simpler), simpler, seconds)
        return dataclasses.replace(transcript, warnings=(*transcript.warnings, "simpler_format"))

    def _check_size(self, audio: AudioFile) -> None:
        limit = self._max_upload_bytes
        if limit is not None and audio.size_bytes > limit:
            raise AudioRejected("too_large", f"{audio.size_bytes} bytes; max_upload is {limit}")

    async def transcribe_link(self, url: str, params: Mapping[str, ParamValue]) -> Transcript:
        """Have the audio at *url* fetched and transcribed, once; raises as :meth:`transcribe`.

        Only for the types that ``core.links.why_no_links`` lets through.
        """
        sent = self.vendor.params(params)
        try:
            return await self._transcribed(self.vendor.link(url, sent), sent, self._timeout_seconds)
        except (AudioRejected, RuleRejected) as error:
            raise self.vendor.link_error(error) from error

    async def probe(self) -> str:
        """See :class:`dropscribe.providers.base.Provider`: sends no audio, so nothing is paid."""
        method, url = self.vendor.probe()
        answer = await self._http.send(method, requests.Upload(url), timeout_seconds=self._timeout_seconds)
        if answer.status // 100 == 2 and is_html(answer):
            raise self._classifier.bad_answer(answer, "")
        learned, error = self.vendor.probed(answer), self._classifier.error(answer)
        is_refused = answer.status in _WITHOUT_AUDIO and isinstance(error, ProviderUnusable)
        if learned is None or is_refused:
            raise error
        if is_html(answer):  # of a server or proxy before the provider, which may not have seen the key
            return self._redactor.reason(f"answers, with HTTP {answer.status} and {page_words(answer)}")
        return learned

    async def close(self) -> None:
        """See :class:`dropscribe.providers.base.Provider`."""
        await self._http.close()

    async def _transcribed(
        self, upload: requests.Upload, params: Params, seconds: float | None
    ) -> Transcript:
        answer = await self._accepted(upload, seconds)
        if len(answer.body) < _LARGE_ANSWER_BYTES:
            return self._read(answer, params)
        return await asyncio.to_thread(self._read, answer, params)

    async def _accepted(self, upload: requests.Upload, seconds: float | None) -> Answer:
        """The answer to a POST, if it is a success."""
        answer = await self._http.send("POST", upload, timeout_seconds=seconds)
        if answer.status // 100 != 2:
            raise self._classifier.error(answer)
        return answer

    async def _answer_seconds(self, audio: AudioFile) -> float | None:
        """``timeout``, or more for a long recording."""
        limit = self._timeout_seconds
        if limit is None:
            return None
        least_seconds = max(LONG_RECORDING_SECONDS, limit / ANSWER_SECONDS_A_SECOND)
        if audio.size_bytes < least_seconds * _LEAST_BYTES_A_SECOND:
            return limit
        seconds = await asyncio.to_thread(probe_seconds, audio.fileno()) or 0.0
        return seconds * ANSWER_SECONDS_A_SECOND if seconds > least_seconds else limit

    def _read(self, answer: Answer, params: Params) -> Transcript:
        name, formats = self.vendor.text_formats
        parsed = self._object(answer, wants_text=params.get(name) in formats)
        if failure := self._classifier.error_in_success(answer, self.vendor.checked(parsed)):
            raise failure
        if words := self.vendor.failure(parsed):
            raise self._classifier.failure_in_success(answer, words)
        return self._transcript(answer, parsed, params, request_id_of(answer, parsed))

    def _transcript(
        self, answer: Answer, parsed: dict[str, Any], params: Params, request_id: str | None
    ) -> Transcript:
        asked = self._url_params | {name: value for name, value in params.items() if value != []}
        try:
            told = self.vendor.transcript(parsed, asked)
        except BadAnswer as error:
            raise self._classifier.bad_answer(answer, str(error)) from None
        model = told.model or word_or_none(asked.get(self.vendor.model_param))
        request_id = told.request_id or request_id
        whole = dataclasses.replace(told, model=model, request_id=request_id, raw=parsed)
        return with_text(cleaned(whole, self._redactor))

    def _object(self, answer: Answer, *, wants_text: bool = False) -> dict[str, Any]:
        """The JSON object in an answer; a plain text, where one is wanted, as its ``text``."""
        parsed, reason = None, "JSON that is not an object"
        try:
            parsed = parse_json(answer.body)
        except TooLarge as error:
            raise too_large(str(error), answer.status) from None
        except ValueError:
            kind = answer.content_type or "no declared type"
            reason = f"{len(answer.body)} bytes of {kind} in place of JSON"
        if isinstance(parsed, dict):
            return parsed
        # A server may send the text as a JSON string; a text may also happen to be a JSON number.
        text = parsed if isinstance(parsed, str) else _text_of(answer)
        if not wants_text or text is None:
            raise self._classifier.bad_answer(answer, reason)
        return {"text": text}


def _text_of(answer: Answer) -> str | None:
    """A plain text of any declared type; None for a page of HTML or for bytes."""
    try:
        text = answer.body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if is_html(answer) or "\x00" in text else text
