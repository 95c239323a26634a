"""The keys of a provider.

A new type takes an entry in PROVIDER_TYPES (provider_types.py), and for each key of its own a field of
:class:`ProviderConfig`, whose name the entry lists.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
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
from dropscribe.config.sections.provider_types import PROVIDER_TYPES
from dropscribe.core.limits import Budget, Limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.notation.field_types import FieldType
    from dropscribe.config.notation.secret import Secret
    from dropscribe.config.reading import SectionRead
    from dropscribe.core.requests.params import ParamValue

LANGUAGE = "The spoken language: `en`, `pt-BR`; by default the provider detects it. `params` wins."
VOCABULARY = "Words and names that are likely to be said, for providers that take such a list."
VOCABULARY_FILE = "A text file with more of them, one on each line; lines that begin with `#` are ignored."
SPEAKERS = "`true`: the provider separates the speakers (diarization)."
BUDGET_WORDS = "Limits of the cost: `{per_day: 5.00, per_month: 600min}`, money or minutes of audio."


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetKeys:
    """The keys of `budget`; the config has a :class:`~dropscribe.core.limits.Budget` instead."""

    per_day: Limit | None = key(t.LIMIT, "From midnight to midnight, in `time_zone`.", default=None)
    per_month: Limit | None = key(t.LIMIT, "From the first of a month to the next.", default=None)


def _budget(read: SectionRead) -> Budget | None:
    return Budget(**read.values) if any(read.values.values()) else None


BUDGET: FieldType[Any] = t.section(BudgetKeys, _budget)


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
        t.URL, "The endpoint; without it the provider's documented one.", default=None, example="https://…"
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
    )
    auth: str | None = key(
        t.one_of("apikey", "bearer"),
        "How the key is sent: `ApiKey`, or `Bearer` for an access token.",
        default=None,
    )
    key_header: str = key(
        KEY_HEADER,
        "The header that carries the key, with `{key}` in its place.",
        default="Authorization: Bearer {key}",
        example='"Authorization: Bearer {key}"',
    )
    body: Literal["raw", "multipart", "json"] = key(
        t.one_of("raw", "multipart", "json"),
        "The audio as it is, in a form, or as base64 in a JSON object.",
        default="raw",
    )
    file_field: str = key(
        t.TEXT,
        "The field with the audio, in a form or in JSON; there a name with dots is in an object inside.",
        default="file",
    )
    media_type: str | None = key(
        MEDIA_TYPE,
        "The `Content-Type` of the audio, for an API that does not take the audio's own.",
        default=None,
        example="application/octet-stream",
    )
    params_in: Literal["form", "query"] = key(
        t.one_of("form", "query"),
        "Where the `params` of a form or of JSON go: beside the audio, or into the query.",
        default="form",
    )
    answer: AnswerKeys | None = key(
        ANSWER,
        "JMESPath expressions (https://jmespath.org) that find the transcript in the answer.",
        default=None,
        example="{text: text}",
    )
    errors: ErrorKeys | None = key(
        ERRORS,
        "Statuses and codes with another meaning than usual.",
        default=None,
        example="{account: [no_credit], file: [415]}",
    )
    poll: PollKeys | None = key(
        POLL,
        "The answer to the request is not the transcript but a job, which is polled.",
        default=None,
        example="{url: /v1/jobs/{id}, done: [completed], failed: [error]}",
    )
    region: str | None = key(t.NAME, "The region of the resource.", default=None, example="westeurope")
    preset: str | None = key(
        t.one_of(*PRESETS),
        "A known service with this interface; sets `url`, the key's variable, the model and limits.",
        default=None,
        example="groq",
    )
    model: str | None = key(
        t.TEXT,
        "`auto` (the best that is installed), a Whisper model's name, `OWNER/NAME` on the model hub, or a "
        "directory (`./…`, `/…`).",
        default=None,
    )
    device: Literal["auto", "cpu", "cuda"] = key(
        t.one_of("auto", "cpu", "cuda"),
        "The device of the model; `auto`: on a CUDA GPU if there is one.",
        default="auto",
    )
    compute_type: str = key(
        t.TEXT, "CTranslate2's number format, such as `int8` or `float16`.", default="auto"
    )
    cpu_threads: int = key(t.COUNT, "Threads of one transcription; 0: the engine chooses.", default=0)
    idle_unload_seconds: float = key(
        t.DURATION, "After this time without a file the model leaves memory.", default=600.0
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
        t.SIZE_OR_NONE, "Larger files fail without being sent; or `none`.", default=None
    )
    max_duration_seconds: float | None = key(
        t.DURATION_OR_NONE,
        "Longer recordings are cut at pauses and sent in pieces, by rules with `prepare`.",
        default=None,
    )
    price_per_minute: float | None = key(
        t.NUMBER,
        "The price of a minute of audio, for `plan`, `status` and budgets.",
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
