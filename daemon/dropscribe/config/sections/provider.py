"""The keys of a provider.

A new type takes an entry in PROVIDER_TYPES (provider_types.py). Each key of its own is a field of
:class:`ProviderConfig`, and is listed by name in the entry.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from dropscribe.config.credentials import find_api_key
from dropscribe.config.document import KeyPath
from dropscribe.config.extras import install_hint, is_installed
from dropscribe.config.keys import MISSING, REQUIRED, Key, Reader, Section, SectionRead, key, keys_of
from dropscribe.config.notation import field_types as t
from dropscribe.config.notation.secret import Secret
from dropscribe.config.sections import params
from dropscribe.config.sections.http_api import KEY_HEADER, MEDIA_TYPE, AnswerKeys, ErrorKeys, PollKeys
from dropscribe.config.sections.provider_types import (
    PRESETS,
    PROVIDER_TYPES,
    SPECIAL_KEYS,
    ProviderFacts,
    facts_of,
)
from dropscribe.config.sections.services import warn_of_plain_http
from dropscribe.core.budget import Budget, Limit
from dropscribe.core.requests.params import COMPUTE_TYPES, FIXED_PARAMS, WHISPER_MODELS, ParamValue
from dropscribe.core.text.printing import did_you_mean

LANGUAGE = "The spoken language: `en`, `pt-BR`; by default the provider detects it. `params` wins."
VOCABULARY = "Words and names that are likely to be said, for providers that take such a list."
VOCABULARY_FILE = "A text file with more of them, one on each line; lines that begin with `#` are ignored."
SPEAKERS = "`true`: the provider separates the speakers (diarization)."
BUDGET_WORDS = "Limits of the cost: `{per_day: 5.00, per_month: 600min}`, money or minutes of audio."

OPENAI_UPLOAD_BYTES = 25 * 2**20 - 4096
"""Largest file at api.openai.com: its limit of 25 MiB is for the whole form."""

SHORTEST_PIECE_SECONDS = 5.0
"""Shorter pieces would split sentences: a limit that needs them is too low."""

_PATHS = (".", "/", "~")  # beginnings of a model's directory; "OWNER/NAME" is a model of the hub
_SCHEME = re.compile(r"(?:bearer|token|apikey) ", re.IGNORECASE)
"""The beginning of a key that was copied together with its header; `key_header` of type http may want it."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetKeys(Section):
    """The keys of `budget`; the config has a :class:`~dropscribe.core.budget.Budget` instead."""

    per_day: Limit | None = key("From midnight to midnight, in `time_zone`.", t.LIMIT)
    per_month: Limit | None = key("From the first of a month to the next.", t.LIMIT)

    @classmethod
    def build(cls, read: SectionRead) -> Budget | None:
        """The budget; None if it has no limit."""
        return Budget(**read.values) if any(read.values.values()) else None


_BUILT_IN = t.one_of(*PROVIDER_TYPES)


def _type(value: object) -> str:
    """A type that is built in, or that an installed package adds by an entry point; it is not loaded."""
    if isinstance(value, str) and value not in PROVIDER_TYPES:
        from importlib.metadata import entry_points  # noqa: PLC0415 - only for types that are not built in

        if value in entry_points(group="dropscribe.providers").names:
            return value
    return str(_BUILT_IN.parse(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig(Section):
    """One account at one vendor, or the engine on this machine.

    A limit of None is no limit, and each key of other types is None. `params` has the type's defaults too.
    """

    name: str  # the user's own name for it
    type: str = key(
        "The kind of provider; it sets defaults.",
        dataclasses.replace(_BUILT_IN, parse=_type),
        default=REQUIRED,
        example="local",
    )
    url: str | None = key(
        "The endpoint; without it the provider's documented one.", t.URL, example="https://…"
    )
    api_key: Secret | None = key(
        "The key, best as `${NAME}` of an environment variable.",
        also={
            "_file": "A file that holds the key and nothing else; a newline at its end is dropped.",
            "_credential": "The systemd credential (`LoadCredential=`) that holds the key.",
        },
        example="${NAME}",
    )
    auth: str | None = key(
        "How the key is sent: `ApiKey`, or `Bearer` for an access token.", t.one_of("apikey", "bearer")
    )
    key_header: str = key(
        "The header that carries the key, with `{key}` in its place.",
        KEY_HEADER,
        default="Authorization: Bearer {key}",
        example='"Authorization: Bearer {key}"',
    )
    body: Literal["raw", "multipart", "json"] = key(
        "The audio as it is, in a form, or as base64 in a JSON object.", default="raw"
    )
    file_field: str = key(
        "The field with the audio, in a form or in JSON; there a name with dots is in an object inside.",
        default="file",
    )
    media_type: str | None = key(
        "The `Content-Type` of the audio, for an API that does not take the audio's own.",
        MEDIA_TYPE,
        example="application/octet-stream",
    )
    params_in: Literal["form", "query"] = key(
        "Where the `params` of a form or of JSON go: beside the audio, or into the query.", default="form"
    )
    answer: AnswerKeys | None = key(
        "JMESPath expressions (https://jmespath.org) that find the transcript in the answer.",
        example="{text: text}",
    )
    errors: ErrorKeys | None = key(
        "Statuses and codes with another meaning than usual.", example="{account: [no_credit], file: [415]}"
    )
    poll: PollKeys | None = key(
        "The answer to the request is not the transcript but a job, which is polled.",
        example="{url: /v1/jobs/{id}, done: [completed], failed: [error]}",
    )
    region: str | None = key("The region of the resource.", t.NAME, example="westeurope")
    preset: str | None = key(
        "A known service with this interface; sets `url`, the key's variable, the model and limits.",
        t.one_of(*PRESETS),
        example="groq",
    )
    model: str | None = key(
        "`auto` (the best that is installed), a Whisper model's name, `OWNER/NAME` on the model hub, or a "
        "directory (`./…`, `/…`)."
    )
    device: Literal["auto", "cpu", "cuda"] = key(
        "The device of the model; `auto`: on a CUDA GPU if there is one.", default="auto"
    )
    compute_type: str = key(
        "CTranslate2's number format; `auto` is `int8` on the CPU.",
        t.one_of(*COMPUTE_TYPES),
        default="auto",
    )
    cpu_threads: int = key("Threads of one transcription; 0: the engine chooses.", t.COUNT, default=0)
    idle_unload_seconds: float = key("After this time without a file the model leaves memory.", default=600.0)
    concurrency: int = key("Requests in flight at once.", default=1)
    requests_per_minute: float | None = key(
        "At most so many requests begin in one minute; or `none`.", t.RATE
    )
    timeout_seconds: float | None = key(
        "From the last byte sent to the whole answer; or `none`. A recording of more than a minute may take "
        "three times its length. While sending: 60 s without progress end the request.",
        t.DURATION_OR_NONE,
    )
    max_upload_bytes: int | None = key("Larger files fail without being sent; or `none`.", t.SIZE_OR_NONE)
    max_duration_seconds: float | None = key(
        "Longer recordings are cut at pauses and sent in pieces, by rules with `prepare`.", t.DURATION_OR_NONE
    )
    price_per_minute: float | None = key(
        "The price of a minute of audio, for `plan`, `status` and budgets.", t.NUMBER, example="0.005"
    )
    budget: Budget | None = key(
        BUDGET_WORDS, t.section(BudgetKeys), example="{per_day: 5.00, per_month: 100.00}"
    )
    language: str | None = key(LANGUAGE, t.LANGUAGE, example="en")
    vocabulary: tuple[str, ...] = key(
        VOCABULARY, default=(), also={"_file": VOCABULARY_FILE}, example="[Dropscribe]"
    )
    speakers: bool | None = key(SPEAKERS, example="true")
    params: Mapping[str, ParamValue] = key(
        "Request parameters, passed through unchanged over the type's own; null removes one.",
        t.PARAMS,
        default={},
        example="{temperature: 0}",
    )

    @classmethod
    def keys_for(cls, path: KeyPath, data: object, reader: Reader) -> Mapping[str, Key]:
        """The keys of its type; those of all types where it has none that is known."""
        if not isinstance(data, dict):
            return {}
        if "type" not in data:
            hint = f"one of {', '.join(PROVIDER_TYPES)}"
            reader.document.report((*path, "type"), "the key 'type' is missing", hint)
            return keys_of(cls)
        kind = reader.value(keys_of(cls)["type"].type, (*path, "type"), data["type"])
        return keys_of(cls) if kind is MISSING else keys_of_type(kind)

    @classmethod
    def build(cls, read: SectionRead) -> ProviderConfig:
        """The provider with the defaults of its type, its key and all its parameters."""
        kind: str = read.values["type"]
        facts = facts_of(kind, read.values.get("preset", ""))
        values = {**facts.defaults, **read.values}
        for group in facts.needs:
            if not any(read.data.get(name) for name in group):
                message = f"a provider of type {kind} needs {' or '.join(map(repr, group))}"
                read.report("", message, "write it", on_key=True)
        path = (*read.path, "params")
        written = values.get("params", {})
        model = values.get("model") or ""
        below = {**FIXED_PARAMS.get(kind, {}), **facts.params}
        if kind == "local":
            _check_local(read, model)
            if model.startswith(_PATHS):
                values["model"] = str(read.document.absolute(model))
            if params.is_english_model(model):
                below["language"] = "en"
        else:
            _complete_remote(read, values, facts)
            # What the url's query has already is not sent a second time, with the type's default.
            asked = parse_qs(urlsplit(values.get("url") or "").query)
            below |= {name: [] for name in below.keys() & asked.keys()}
        target = params.Target(kind, model, facts.params)
        values["params"] = params.layered_params(read, target, below, written, path)
        made = cls(name=str(read.path[-1]), **values)
        read.reader.providers[made.name] = made
        return made


def keys_of_type(kind: str) -> dict[str, Key]:
    """The keys of a provider of this type, by name."""
    others = SPECIAL_KEYS.difference(facts_of(kind).own)
    return {name: key for name, key in keys_of(ProviderConfig).items() if name not in others}


def _check_local(read: SectionRead, model: str) -> None:
    if not is_installed("local"):
        read.report("type", "the embedded engine is not installed", install_hint("local"))
    is_known = model in {"auto", *WHISPER_MODELS} or _HUB_NAME.fullmatch(model) is not None
    if not is_known and not model.startswith(_PATHS):
        hint = did_you_mean(model, WHISPER_MODELS)
        name = "NAME" if (*read.path, "model") in read.document.variables else model
        hint = hint if hint.startswith("did") else f"write ./{name} for a directory"
        read.document.refuse((*read.path, "model"), model, "is not a Whisper model", hint)


def _complete_remote(read: SectionRead, values: dict[str, Any], facts: ProviderFacts) -> None:
    """Find a key that the file does not give, warn of plain http, and limit uploads to OpenAI itself."""
    url: str | None = values.get("url")
    if not any(read.data.get(name) for name in keys_of(ProviderConfig)["api_key"].names):
        values["api_key"] = find_api_key(read, facts, url)
    secret: Secret | None = values.get("api_key")
    if secret and values["type"] != "http" and _SCHEME.match(secret.reveal()):
        read.report("api_key", "the key begins with a word that is sent before it", "write the key alone")
    warn_of_plain_http(read, "key and audio travel unencrypted")
    is_openai_itself = url is None or urlsplit(url).hostname == "api.openai.com"
    if values["type"] == "openai" and is_openai_itself and "max_upload_bytes" not in read.values:
        values["max_upload_bytes"] = OPENAI_UPLOAD_BYTES
