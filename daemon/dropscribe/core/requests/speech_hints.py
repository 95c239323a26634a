"""The settings `language`, `vocabulary` and `speakers` as parameters of each type of provider. Pure.

A hint without a parameter at the provider is not sent; :func:`ignored_hints` names it, for `check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dropscribe.core.requests.languages import base_language, language_tag
from dropscribe.core.requests.params import ParamValue

ParamChanges = dict[str, "ParamValue | None"]  # None removes a parameter that was set further down


@dataclass(frozen=True, slots=True)
class SpeechHints:
    """Prior knowledge of the speech in a recording."""

    language: str | None = None  # a BCP 47 tag, "auto" to let the provider detect it, or None
    vocabulary: tuple[str, ...] = ()  # likely words and names
    speakers: bool | None = None  # whether speakers are to be told apart, or None


class _Names(NamedTuple):
    """The parameters of one type of provider; "" where it takes no such hint."""

    language: str = "language"
    vocabulary: str = ""
    speakers: str = ""


# Pulse takes keywords over its WebSocket alone, Reson8 in custom models.
_NAMES: Mapping[str, _Names] = {
    "pulse": _Names(speakers="diarize"),
    "reson8": _Names(speakers="diarize"),
    "deepgram": _Names("language", "keyterm", "diarize"),
    "elevenlabs": _Names("language_code", "keyterms", "diarize"),
    "azure": _Names("locales", "phraseList.phrases", "diarization.enabled"),
    "whisper-asr": _Names("language", "initial_prompt", "diarize"),
    "http": _Names(language=""),  # set in `params` instead
    "assemblyai": _Names("language_code", "keyterms_prompt", "speaker_labels"),
    "soniox": _Names("language_hints", "context.terms", "enable_speaker_diarization"),
    "speechmatics": _Names(
        "transcription_config.language",
        "transcription_config.additional_vocab",
        "transcription_config.diarization",
    ),
    "gladia": _Names("language_config.languages", "custom_vocabulary_config.vocabulary", "diarization"),
    "local": _Names(vocabulary="hotwords"),
}
# Parameters for the language that take a list.
_LISTS = {"locales", "language_hints", "transcription_config.language_hints", "language_config.languages"}
_TEXTS = frozenset({"prompt", "initial_prompt", "hotwords"})  # parameters for the vocabulary that take a text
_WITH_REGION = frozenset({"azure", "deepgram"})  # these tell en-GB from en-US
_LANGUAGE_WORDS: Mapping[str, Mapping[str, str]] = {
    "speechmatics": {"zh": "cmn", "nb": "no", "nn": "no"},
    "gladia": {"nb": "no", "jv": "jw"},
}
"""Language codes of some types that differ from ours."""

_SPEAKER_WORDS: Mapping[str, Mapping[bool, str]] = {"speechmatics": {True: "speaker", False: "none"}}


def hint_params(kind: str, model: str, hints: SpeechHints) -> ParamChanges:
    """The parameters that carry *hints* to a provider of type *kind*, which uses *model*."""
    names, found = _names_for(kind, model), ParamChanges()
    if hints.language is not None and names.language:
        base = base_language(hints.language)
        code = base and _LANGUAGE_WORDS.get(kind, {}).get(base, base)
        value = language_tag(hints.language) if kind in _WITH_REGION else code
        found[names.language] = [value] if value and names.language in _LISTS else value
    if hints.vocabulary and names.vocabulary:
        words = list(hints.vocabulary)
        found[names.vocabulary] = ", ".join(words) if names.vocabulary in _TEXTS else words
        if kind == "gladia":
            found["custom_vocabulary"] = True
    if hints.speakers is not None and names.speakers:
        found[names.speakers] = _SPEAKER_WORDS.get(kind, {}).get(hints.speakers, hints.speakers)
    return found


def ignored_hints(kind: str, model: str, hints: SpeechHints) -> list[str]:
    """The names of the settings for which such a provider has no parameter."""
    names = _names_for(kind, model)
    ignored = [name for name in names._fields if getattr(hints, name) and not getattr(names, name)]
    return [name for name in ignored if name != "speakers" or "diarize" not in model]


def _names_for(kind: str, model: str) -> _Names:
    """The parameters of type *kind* with *model*, as far as they differ between models."""
    names = _NAMES.get(kind, _Names())
    match kind:
        case "openai":
            is_voxtral = "voxtral" in model.lower()
            vocabulary = "" if "diarize" in model else "context_bias[]" if is_voxtral else "prompt"
            return _Names("language", vocabulary, "diarize" if is_voxtral else "")
        case "speechmatics" if model.startswith("melia"):  # its language is always "multi"
            return names._replace(language="transcription_config.language_hints", vocabulary="")
        case "deepgram" if model and not model.startswith(("nova-3", "flux")):
            return names._replace(vocabulary="keywords")  # keyterm came with nova-3
    return names
