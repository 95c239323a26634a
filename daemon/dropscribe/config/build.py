"""Builds :class:`Config` from the file's data, with the steps that need several keys.

Guarantees: every problem is reported to the document; the answer is whole only if there was no error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dropscribe.config.credentials import find_api_key
from dropscribe.config.errors import did_you_mean
from dropscribe.config.extras import install_hint, is_installed
from dropscribe.config.keys import keys_of
from dropscribe.config.model import Config, FolderRule
from dropscribe.config.reading import MISSING, Reader
from dropscribe.config.sections import params
from dropscribe.config.sections.presets import PRESETS
from dropscribe.config.sections.provider import ProviderConfig
from dropscribe.config.sections.provider_types import PROVIDER_TYPES, SPECIAL_KEYS, facts_of
from dropscribe.config.sections.services import is_unencrypted
from dropscribe.core.requests.params import WHISPER_MODELS
from dropscribe.core.requests.speech_hints import SpeechHints, hint_params, ignored_hints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.credentials import Surroundings
    from dropscribe.config.keys import Key
    from dropscribe.config.sections.provider_types import ProviderFacts
    from dropscribe.config.yaml.document import Document
    from dropscribe.config.yaml.document import Path as KeyPath

_PATHS = (".", "/", "~")
"""Beginnings of a model's directory; "OWNER/NAME" is a model of the hub."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
OPENAI_UPLOAD_BYTES = 25 * 2**20 - 4096
"""Largest file at api.openai.com, whose limit of 25 MiB holds for the whole form."""


def build_config(document: Document, around: Surroundings, path: Path | None) -> Config:
    """The config in *document*; problems are reported to it, and their keys are left out."""
    builder = _Builder(Reader(document, around))
    data = {name: value for name, value in document.data.items() if value is not None}
    values = builder.reader.section((), data, Config) or {}
    values.setdefault("state_dir", default_state_dir(around))
    return Config(path=path, source=document.without_secrets(), **values)


def keys_of_type(kind: str) -> dict[str, Key]:
    """The keys of a provider of this type, by name."""
    own = facts_of(kind).own
    return {
        name: key for name, key in keys_of(ProviderConfig).items() if name in own or name not in SPECIAL_KEYS
    }


def default_state_dir(around: Surroundings) -> Path:
    """The default: systemd's folder, the system's for a config in /etc/dropscribe, else the user's."""
    given = around.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if around.folder == Path("/etc/dropscribe"):
        return Path("/var/lib/dropscribe")
    state_home = around.environ.get("XDG_STATE_HOME", "")
    home = Path(state_home) if state_home.startswith("/") else around.absolute("~/.local/state")
    return home / "dropscribe"


@dataclass
class _Builder:
    """Makes the sections of one document.

    Attributes:
        providers: Those that were made so far; the file's order of sections does not matter, because
            sections are made in the order of :class:`Config`'s fields.
    """

    reader: Reader
    providers: dict[str, ProviderConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reader.makers |= {ProviderConfig: self._provider, FolderRule: self._folder}

    def _provider(self, path: KeyPath, data: Any) -> Any:
        data = {} if data is None else data
        kind = self._type_of_provider(path, data)
        values = kind and self.reader.section(path, data, ProviderConfig, keys_of_type(kind))
        if not kind or not values:
            return MISSING
        facts = facts_of(kind)
        if preset := PRESETS.get(values.get("preset", "")):
            values.setdefault("url", preset.url)
            facts = preset.applied_to(facts)
        for group in facts.needs:
            if not any(data.get(name) for name in group):
                message = f"a provider of type {kind} needs {' or '.join(map(repr, group))}"
                self.reader.document.report(path, message, "write it", on_key=True)
        document, model = self.reader.document, str(values.get("model", "auto"))
        written = params.check_params(values.get("params", {}), (*path, "params"), document)
        below = dict(facts.params)
        if kind == "local":
            self._check_local(path, written, model)
            if model.startswith(_PATHS):
                values["model"] = str(self.reader.around.absolute(model))
            if params.is_english_model(model):
                below["language"] = "en"
        else:
            self._complete_remote(path, data, values, facts)
        hints = self._hints(path, values, kind, {**below, **written})
        merged = params.lay_over(kind, below, hints | written)
        params.warn_of_language(kind, model, merged, path, document)
        made = ProviderConfig(name=str(path[-1]), **{**facts.defaults, **values, "params": merged})
        self.providers[made.name] = made
        return made

    def _complete_remote(
        self, path: KeyPath, data: Any, values: dict[str, Any], facts: ProviderFacts
    ) -> None:
        """Find the key that the file does not give, and check how it travels."""
        document, url = self.reader.document, values.get("url")
        if not any(data.get(name) for name in keys_of(ProviderConfig)["api_key"].names):
            values["api_key"] = find_api_key(facts, url, path, self.reader)
        if is_unencrypted(url):
            message = "key and audio travel unencrypted"
            document.report((*path, "url"), message, "use https", warning=True)
        if values["type"] == "openai" and _is_openai_itself(url):
            values.setdefault("max_upload_bytes", OPENAI_UPLOAD_BYTES)

    def _type_of_provider(self, path: KeyPath, data: Any) -> str:
        if isinstance(data, dict) and "type" not in data:
            hint = f"one of {', '.join(PROVIDER_TYPES)}"
            self.reader.document.report(path, "the key 'type' is missing", hint, on_key=True)
            return ""
        if not isinstance(data, dict):
            self.reader.refuse(path, data, "must be a mapping", "write its keys below it, indented")
            return ""
        found = self.reader.value(keys_of(ProviderConfig)["type"].type, (*path, "type"), data["type"])
        return "" if found is MISSING else str(found)

    def _check_local(self, path: KeyPath, written: Mapping[str, Any], model: str) -> None:
        if not is_installed("local"):
            hint = install_hint("local")
            self.reader.document.report((*path, "type"), "the embedded engine is not installed", hint)
        is_known = model in {"auto", *WHISPER_MODELS} or _HUB_NAME.fullmatch(model) is not None
        if not is_known and not model.startswith(_PATHS):
            hint = did_you_mean(model, WHISPER_MODELS)
            hint = hint if hint.startswith("did") else f"write ./{model} for a directory"
            self.reader.refuse((*path, "model"), model, "is not a Whisper model", hint)
        params.check_local_params(written, (*path, "params"), self.reader.document)

    def _folder(self, path: KeyPath, data: Any) -> Any:
        data = {} if data is None else data
        values = self.reader.section(path, data, FolderRule)
        if values is None:
            return MISSING
        inbox: Path = values["inbox"]
        values.setdefault("done", inbox.parent / "done")
        values.setdefault("failed", inbox.parent / "failed")
        if values.get("settle_seconds") == float("inf"):
            values |= {"settle_seconds": None, "settle_ignores_writers": True}
        self._check_media(path, values)
        values["params"] = self._params_of_rule(path, values, is_keyed=isinstance(data["provider"], list))
        return FolderRule(name=str(path[-1]), **values)

    def _check_media(self, path: KeyPath, values: Mapping[str, Any]) -> None:
        """Report keys that need PyAV if it is missing; it is looked for only if a rule has such a key."""
        plain = {"prepare": "never", "silence": "send", "channels": "mix", "tracks": "default"}
        for name, value in plain.items():
            if values.get(name, value) != value and not is_installed("media"):
                hint = install_hint("media")
                self.reader.document.report(
                    (*path, name), f"'{name}' needs PyAV, which is not installed", hint
                )

    def _params_of_rule(
        self, path: KeyPath, values: Mapping[str, Any], *, is_keyed: bool
    ) -> dict[str, dict[str, Any]]:
        document = self.reader.document
        here = (*path, "params")
        own = params.check_rule_params(
            values.get("params", {}), values["providers"], here, document, is_keyed=is_keyed
        )
        found = {}
        for name in values["providers"]:
            provider = self.providers.get(name)
            if provider is None:
                continue
            if provider.type == "local":
                params.check_local_params(own.get(name, {}), (*here, name) if is_keyed else here, document)
            written = own.get(name, {})
            hints = self._hints(path, values, provider.type, {**provider.params, **written})
            found[name] = params.lay_over(provider.type, provider.params, hints | written)
            if "language" in hints | written:
                model = provider.model or ""
                params.warn_of_language(provider.type, model, found[name], path, document)
        return found

    def _hints(
        self, path: KeyPath, values: Mapping[str, Any], kind: str, given: Mapping[str, Any]
    ) -> params.Written:
        """Parameters for `language`, `vocabulary` and `speakers`; reports settings that cannot be sent."""
        names = ("model", "model_id", "transcription_config.model")
        model = next((str(given[name]) for name in names if given.get(name)), "")
        hints = SpeechHints(values.get("language"), values.get("vocabulary", ()), values.get("speakers"))
        for name in ignored_hints(kind, model, hints):
            message = f"a provider of type {kind} takes no '{name}'" + (f" with {model}" if model else "")
            self.reader.document.report((*path, name), message, "it is not sent", warning=True)
        return hint_params(kind, model, hints)


def _is_openai_itself(url: str | None) -> bool:
    return url is None or urlsplit(url).hostname == "api.openai.com"
