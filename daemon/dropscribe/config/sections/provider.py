"""The keys of a provider, and in what the types of providers differ.

A new type takes an entry in :data:`PROVIDER_TYPES`, and for each key of its own a field of
:class:`ProviderConfig` with ``is_special``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from dropscribe.config.keys import key
from dropscribe.config.notation import field_types as t
from dropscribe.config.sections.http_api import (
    ANSWER,
    ERRORS,
    KEY_HEADER,
    MEDIA_TYPE,
    POLL,
    AnswerKeys,
    ErrorKeys,
    PollKeys,
)
from dropscribe.config.sections.presets import PRESETS
from dropscribe.core.limits import Budget, Limit
from dropscribe.core.requests.params import FIXED_PARAMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.notation.field_types import FieldType
    from dropscribe.config.notation.secret import Secret
    from dropscribe.core.requests.params import ParamValue

LANGUAGE = "The spoken language: `en`, `pt-BR`; by default the provider detects it. `params` wins."
VOCABULARY = "Words and names that are likely to be said, for providers that take such a list."
VOCABULARY_FILE = "A text file with more of them, one on each line; lines that begin with `#` are ignored."
SPEAKERS = "`true`: the provider separates the speakers (diarization)."
BUDGET_WORDS = "What may be spent: `{per_day: 5.00, per_month: 600min}`, money or minutes of audio."


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetKeys:
    """The keys of `budget`; the config has a :class:`~dropscribe.core.limits.Budget` instead."""

    per_day: Limit | None = key(t.LIMIT, "From midnight to midnight, in `time_zone`.", default=None)
    per_month: Limit | None = key(t.LIMIT, "From the first of a month to the next.", default=None)


def _budget(keys: BudgetKeys) -> Budget | None:
    return Budget(keys.per_day, keys.per_month) if keys.per_day or keys.per_month else None


BUDGET: FieldType[Any] = t.section(BudgetKeys, _budget)


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """In what one type of provider differs from the others.

    Attributes:
        words: What it is, for the reference.
        own: The special keys that it has.
        defaults: Of keys, by attribute, where they are not the common ones.
        params: The request parameters that are sent where the user gives none.
        key_variable: The vendor's usual environment variable for the key; "" where there is no key.
        key_domain: The only domain that may be sent that variable's value.
        is_key_needed: Whether there is no use without a key, wherever the endpoint is.
        needs: Groups of keys of which one must be given.
    """

    words: str
    own: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    key_variable: str = ""
    key_domain: str = ""
    is_key_needed: bool = False
    needs: tuple[tuple[str, ...], ...] = ()


_REMOTE = ("url", "api_key")

PROVIDER_TYPES: Mapping[str, ProviderFacts] = MappingProxyType(
    {
        "pulse": ProviderFacts(
            "Smallest AI Pulse.",
            _REMOTE,
            {
                "concurrency": 2,
                "requests_per_minute": 20.0,
                "timeout_seconds": 300.0,
                "max_upload_bytes": 250_000_000,
            },
            FIXED_PARAMS["pulse"],
            "SMALLEST_API_KEY",
            "smallest.ai",
            is_key_needed=True,
        ),
        "reson8": ProviderFacts(
            "Reson8, prerecorded.",
            (*_REMOTE, "auth"),
            {"timeout_seconds": 300.0, "auth": "apikey"},
            FIXED_PARAMS["reson8"],
            "RESON8_API_KEY",
            "reson8.dev",
            is_key_needed=True,
        ),
        "openai": ProviderFacts(
            "OpenAI, and every server with its `/audio/transcriptions`. At api.openai.com the default of "
            "`max_upload` is 25MiB less the form.",
            (*_REMOTE, "preset"),
            {"concurrency": 2, "timeout_seconds": 600.0},
            key_variable="OPENAI_API_KEY",
            key_domain="openai.com",
        ),
        "deepgram": ProviderFacts(
            "Deepgram, prerecorded. In the EU: `url: https://api.eu.deepgram.com`.",
            _REMOTE,
            {"concurrency": 4, "timeout_seconds": 660.0, "max_upload_bytes": 2_000_000_000},
            FIXED_PARAMS["deepgram"],
            "DEEPGRAM_API_KEY",
            "deepgram.com",
            is_key_needed=True,
        ),
        "elevenlabs": ProviderFacts(
            "ElevenLabs Scribe. In the EU: `url: https://api.eu.residency.elevenlabs.io`.",
            _REMOTE,
            {
                "concurrency": 2,
                "timeout_seconds": 900.0,
                "max_upload_bytes": 3_000_000_000,
            },
            FIXED_PARAMS["elevenlabs"],
            "ELEVENLABS_API_KEY",
            "elevenlabs.io",
            is_key_needed=True,
        ),
        "azure": ProviderFacts(
            "Azure Speech, fast transcription, in the `region` of your resource or at its own `url`.",
            (*_REMOTE, "region"),
            {
                "concurrency": 4,
                "requests_per_minute": 300.0,
                "timeout_seconds": 600.0,
                "max_upload_bytes": 200_000_000,
            },
            FIXED_PARAMS["azure"],
            "AZURE_SPEECH_KEY",
            "microsoft.com",
            is_key_needed=True,
            needs=(("region", "url"),),
        ),
        "whisper-asr": ProviderFacts(
            "whisper-asr-webservice on a server of your own; a key is for a proxy in front of it.",
            _REMOTE,
            {"timeout_seconds": 3600.0},
            FIXED_PARAMS["whisper-asr"],
            needs=(("url",),),
        ),
        "http": ProviderFacts(
            "Any API that takes the audio and answers with JSON, at once or in jobs, described here.",
            (
                *_REMOTE,
                "key_header",
                "body",
                "file_field",
                "media_type",
                "params_in",
                "answer",
                "errors",
                "poll",
            ),
            {"timeout_seconds": 600.0},
            needs=(("url",), ("answer",)),
        ),
        "assemblyai": ProviderFacts(
            "AssemblyAI, pre-recorded, in jobs. In the EU: `url: https://api.eu.assemblyai.com`.",
            _REMOTE,
            {
                "concurrency": 4,
                "timeout_seconds": 300.0,
                "max_upload_bytes": 2_200_000_000,
            },
            FIXED_PARAMS["assemblyai"],
            "ASSEMBLYAI_API_KEY",
            "assemblyai.com",
            is_key_needed=True,
        ),
        "soniox": ProviderFacts(
            "Soniox, async, in jobs. In the EU: `url: https://api.eu.soniox.com`.",
            _REMOTE,
            {"concurrency": 4, "timeout_seconds": 300.0},
            FIXED_PARAMS["soniox"],
            "SONIOX_API_KEY",
            "soniox.com",
            is_key_needed=True,
        ),
        "local": ProviderFacts(
            "The embedded engine: faster-whisper on this machine; no key, and no audio leaves the machine.",
            ("model", "device", "compute_type", "cpu_threads", "idle_unload"),
            {"model": "auto"},
        ),
    }
)


_OF_OTHER_PACKAGES = ProviderFacts("A type of another package.", _REMOTE)


def facts_of(kind: str) -> ProviderFacts:
    """In what the type *kind* differs; those of other packages are all alike."""
    return PROVIDER_TYPES.get(kind, _OF_OTHER_PACKAGES)


_BUILT_IN = t.one_of(*PROVIDER_TYPES)


def _type(value: object) -> str:
    """A type that is built in, or that an installed package adds by an entry point; it is not loaded."""
    if isinstance(value, str) and value not in PROVIDER_TYPES:
        from importlib.metadata import entry_points  # noqa: PLC0415 - only for types that are not built in

        if value in entry_points(group="dropscribe.providers").names:
            return value
    return str(_BUILT_IN.parse(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """One account at one vendor, or the engine on this machine.

    Attributes:
        name: The user's own name for it.
        url: None means the provider's documented endpoint.
        api_key: None for `local`, and for `openai` if the server asks for none.
        requests_per_minute: None means no limit.
        timeout_seconds: None means no limit.
        max_upload_bytes: None means no limit.
        max_duration_seconds: None means no limit.
        price_per_minute: In a currency of the user's choice; or None.
        params: The type's defaults included.
        auth: None for all types but reson8.
        model: `auto`, a model's name or a directory for local, else None.
        cpu_threads: 0 lets the engine choose.
    """

    name: str
    type: str = key(
        dataclasses.replace(_BUILT_IN, parse=_type),
        "The kind of provider; it sets defaults.",
        example="local",
    )
    url: str | None = key(
        t.URL,
        "The endpoint; without it the provider's documented one.",
        default=None,
        example="https://…",
        is_special=True,
    )
    api_key: Secret | None = key(
        t.SECRET,
        "The key, best as `${NAME}` of an environment variable.",
        default=None,
        also={
            "_file": "A file that holds the key and nothing else; a newline at its end is dropped.",
            "_credential": "The systemd credential (`LoadCredential=`) that holds the key.",
        },
        example="${NAME}",
        is_special=True,
    )
    auth: str | None = key(
        t.one_of("apikey", "bearer"),
        "How the key is sent: `ApiKey`, or `Bearer` for an access token.",
        default=None,
        is_special=True,
    )
    key_header: str = key(
        KEY_HEADER,
        "The header that carries the key, with `{key}` in its place.",
        default="Authorization: Bearer {key}",
        example='"Authorization: Bearer {key}"',
        is_special=True,
    )
    body: Literal["raw", "multipart", "json"] = key(
        t.one_of("raw", "multipart", "json"),
        "The audio as it is, in a form, or as base64 in a JSON object.",
        default="raw",
        is_special=True,
    )
    file_field: str = key(
        t.TEXT,
        "The field with the audio, in a form or in JSON; there a name with dots is in an object inside.",
        default="file",
        is_special=True,
    )
    media_type: str | None = key(
        MEDIA_TYPE,
        "The `Content-Type` of the audio, for an API that does not take the audio's own.",
        default=None,
        example="application/octet-stream",
        is_special=True,
    )
    params_in: Literal["form", "query"] = key(
        t.one_of("form", "query"),
        "Where the `params` of a form or of JSON go: beside the audio, or into the query.",
        default="form",
        is_special=True,
    )
    answer: AnswerKeys | None = key(
        ANSWER,
        "Where the answer has what: [JMESPath](https://jmespath.org) expressions.",
        default=None,
        example="{text: text}",
        is_special=True,
    )
    errors: ErrorKeys | None = key(
        ERRORS,
        "Statuses and codes that mean something else than usual.",
        default=None,
        example="{account: [no_credit], file: [415]}",
        is_special=True,
    )
    poll: PollKeys | None = key(
        POLL,
        "Jobs: the answer to the request is not the transcript, but a job that is asked for.",
        default=None,
        example="{url: /v1/jobs/{id}, done: [completed], failed: [error]}",
        is_special=True,
    )
    region: str | None = key(
        t.NAME, "The region of the resource.", default=None, example="westeurope", is_special=True
    )
    preset: str | None = key(
        t.one_of(*PRESETS),
        "A known service with this interface; sets `url`, the key's variable, the model and limits.",
        default=None,
        example="groq",
        is_special=True,
    )
    model: str | None = key(
        t.TEXT,
        "`auto` (the best that is installed), a Whisper model's name, or its directory.",
        default=None,
        is_special=True,
    )
    device: Literal["auto", "cpu", "cuda"] = key(
        t.one_of("auto", "cpu", "cuda"),
        "Where the model runs; `auto`: on a CUDA GPU if there is one.",
        default="auto",
        is_special=True,
    )
    compute_type: str = key(
        t.TEXT, "CTranslate2's number format, such as `int8` or `float16`.", default="auto", is_special=True
    )
    cpu_threads: int = key(
        t.COUNT, "Threads of one transcription; 0: the engine chooses.", default=0, is_special=True
    )
    idle_unload_seconds: float = key(
        t.DURATION, "After this time without a file the model leaves memory.", default=600.0, is_special=True
    )
    concurrency: int = key(t.POSITIVE_COUNT, "Requests in flight at once.", default=1)
    requests_per_minute: float | None = key(
        t.RATE, "At most so many requests begin in one minute; or `none`.", default=None
    )
    timeout_seconds: float | None = key(
        t.DURATION_OR_NONE,
        "From the last byte sent to the whole answer; or `none`. A long recording may take three times its "
        "length. "
        "While sending: 60 s without progress end the request.",
        default=None,
    )
    max_upload_bytes: int | None = key(
        t.SIZE_OR_NONE, "Larger files are failed before they are sent; or `none`.", default=None
    )
    max_duration_seconds: float | None = key(
        t.DURATION_OR_NONE,
        "Longer recordings are cut at pauses and sent in pieces, by rules with `prepare`.",
        default=None,
    )
    price_per_minute: float | None = key(
        t.NUMBER,
        "What a minute of audio costs, for `plan`, `status` and budgets.",
        default=None,
        example="0.005",
    )
    budget: Budget | None = key(
        BUDGET, BUDGET_WORDS, default=None, example="{per_day: 5.00, per_month: 100.00}"
    )
    language: str | None = key(t.LANGUAGE, LANGUAGE, default=None, example="en")
    vocabulary: tuple[str, ...] = key(
        t.TEXTS, VOCABULARY, default=(), also={"_file": VOCABULARY_FILE}, example="[Dropscribe]"
    )
    speakers: bool | None = key(t.BOOLEAN, SPEAKERS, default=None, example="true")
    params: Mapping[str, ParamValue] = key(
        t.PARAMS,
        "Request parameters, passed through unchanged over the type's own; null removes one.",
        default={},
        example="{temperature: 0}",
    )
