"""Request parameters: the type's own, the provider's over them, the rule's over both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dropscribe.config.document import Document, KeyPath
from dropscribe.config.extras import install_hint, is_installed
from dropscribe.config.keys import MISSING, SectionRead
from dropscribe.config.notation.field_types import PARAMS
from dropscribe.core.requests.languages import base_language
from dropscribe.core.requests.params import (
    AWAY_PARAMS,
    AWAY_WORDS,
    LOCAL_PARAMS,
    ParamValue,
    is_finite,
    local_param_problem,
)
from dropscribe.core.requests.speech_hints import ParamChanges, SpeechHints, hint_params, ignored_hints
from dropscribe.core.text.printing import did_you_mean

_FORMAT_PARAMS = {"openai": "response_format", "whisper-asr": "output"}
_SUBTITLE_FORMATS = frozenset({"srt", "vtt", "tsv"})


class Target(NamedTuple):
    """The provider that gets parameters."""

    kind: str  # its type
    model: str  # of the embedded engine, else ""
    own: Mapping[str, ParamValue]  # parameters that its preset sends; `language: auto` returns to them


def written_params(read: SectionRead) -> Iterator[tuple[str, KeyPath, ParamChanges]]:
    """The rule's own parameters for each of its providers, by name, with their place in the file.

    They are keyed by provider if the file lists its providers.
    """
    path, providers = (*read.path, "params"), read.values["providers"]
    values, is_keyed = read.values.get("params", {}), isinstance(read.data["provider"], list)
    for name in values.keys() - providers if is_keyed else ():
        message = "with a list of providers, params are keyed by their names"
        read.document.report((*path, name), message, did_you_mean(name, providers), on_key=True)
    for name in providers:
        here = (*path, name) if is_keyed else path
        found = read.reader.value(PARAMS, here, values.get(name, {}) if is_keyed else values)
        yield name, here, {} if found is MISSING else found


def layered_params(
    read: SectionRead, target: Target, below: Mapping[str, ParamValue], written: ParamChanges, path: KeyPath
) -> dict[str, ParamValue]:
    """The parameters of a section as *target* gets them; reports what it does not take.

    Those *written* at *path* win over `language`, `vocabulary` and `speakers`, and all of these over *below*.
    A removed parameter becomes an empty list: it is not sent, and the provider's adapter does not add its own
    default. For the embedded engine it is left out.
    """
    document, kind = read.document, target.kind
    if kind == "local":
        _check_local_params(written, path, document)
    for name in [] if kind == "local" else written:
        if not is_finite(written[name]):
            document.refuse((*path, name), written[name], "cannot be sent", "write a finite number")
    for name in filter(written.get, AWAY_PARAMS.get(kind, ())):
        document.report((*path, name), f"{name}: {AWAY_WORDS}", "remove it", on_key=True)
    name = _FORMAT_PARAMS.get(kind, "")
    asked = written.get(name)
    if isinstance(asked, str) and asked in _SUBTITLE_FORMATS:
        said = "gives transcripts with the numbers and times of subtitles in their text"
        hint = "remove it; `outputs: [srt]` in the rule writes subtitles"
        document.report((*path, name), f"{name}: {asked} {said}", hint, warning=True)
    hints = _hint_params(read, kind, {**below, **written})
    hints |= {name: target.own.get(name) for name, value in hints.items() if value is None}
    above = hints | written
    merged = {**below, **above}
    if kind != "local":
        return {name: [] if value is None else value for name, value in merged.items()}
    if "language" in above:
        _warn_of_language(read, target.model, above["language"])
    return {name: value for name, value in merged.items() if value is not None}


def _check_local_params(values: Mapping[str, Any], path: KeyPath, document: Document) -> None:
    """Report parameters and values that the embedded engine does not take."""
    for name, value in values.items():
        if name not in LOCAL_PARAMS:
            message = f"the embedded engine has no parameter '{name}'"
            document.report((*path, name), message, did_you_mean(name, LOCAL_PARAMS), on_key=True)
        elif value is not None and (problem := local_param_problem(name, value)):
            message = f"{name} {problem}, not {document.shown((*path, name), value)}"
            document.report((*path, name), message)


def _hint_params(read: SectionRead, kind: str, given: Mapping[str, Any]) -> ParamChanges:
    """Parameters for a section's `language`, `vocabulary` and `speakers`; *given* has the others."""
    names = ("model", "model_id", "transcription_config.model")
    model = next((str(given[name]) for name in names if given.get(name)), "")
    values = read.values
    hints = SpeechHints(values.get("language"), values.get("vocabulary", ()), values.get("speakers"))
    for name in ignored_hints(kind, model, hints):
        with_model = f" with the model {model}" if model else ""
        message = f"a provider of type {kind} takes no '{name}'{with_model}"
        read.report(name, message, "it is not sent", warning=True)
    return hint_params(kind, model, hints)


def _warn_of_language(read: SectionRead, model: str, language: ParamValue | None) -> None:
    """Report a *language* other than English if the embedded engine's *model* knows only English."""
    code = base_language(language) if isinstance(language, str) else None
    if code not in {None, "en"} and is_english_model(model):
        name = "language" if read.line_of("language") else "params"
        message = f"the model '{model}' knows only English, not '{language}': its files would be refused"
        read.report(name, message, install_hint("local-multilingual"), on_key=True, warning=True)


def is_english_model(model: str) -> bool:
    """Whether the local engine's *model* knows only English; ``auto`` is multilingual where installed."""
    if model != "auto":
        return model.rstrip("/").endswith(".en")
    return not is_installed("local-multilingual")
