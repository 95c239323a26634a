"""The settings `language`, `vocabulary` and `speakers` as parameters of each type of provider. Pure.

A hint without a parameter at the provider is not sent; :func:`ignored_hints` names it, for `check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.requests.languages import base_language, language_tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.requests.params import ParamValue

Found = dict[str, "ParamValue | None"]  # by parameter; None removes one that was set further down


@dataclass(frozen=True, slots=True)
class SpeechHints:
    """Prior knowledge of the speech in a recording."""

    language: str | None = None  # a BCP 47 tag, "auto" to let the provider detect it, or None
    vocabulary: tuple[str, ...] = ()  # likely words and names
    speakers: bool | None = None  # whether speakers are to be told apart, or None


def hint_params(kind: str, model: str, hints: SpeechHints) -> Found:
    """The parameters that carry *hints* to a provider of type *kind*, which uses *model*."""
    found: Found = {}
    if hints.language is not None and kind != "http":
        name, value = _language(kind, model, hints.language)
        found[name] = value
    if hints.vocabulary:
        found |= _vocabulary(kind, model, hints.vocabulary)
    if hints.speakers is not None and (name := _speakers(kind, model)):
        found[name] = _SPEAKER_WORDS.get(kind, {}).get(hints.speakers, hints.speakers)
    return found


def ignored_hints(kind: str, model: str, hints: SpeechHints) -> list[str]:
    """The names of the settings for which such a provider has no parameter."""
    ignored = ["language"] if hints.language and kind == "http" else []  # set in `params` instead
    if hints.vocabulary and not _vocabulary(kind, model, hints.vocabulary):
        ignored.append("vocabulary")
    if hints.speakers and not _speakers(kind, model) and "diarize" not in model:
        ignored.append("speakers")
    return ignored


def _language(  # noqa: PLR0911 - one for each kind
    kind: str, model: str, language: str
) -> tuple[str, ParamValue | None]:
    """The parameter for the language and its value; None where the provider is to detect it."""
    tag, base = language_tag(language), base_language(language)
    code = base and _LANGUAGE_WORDS.get(kind, {}).get(base, base)
    match kind:
        case "azure":
            return "locales", [tag] if tag else None
        case "deepgram":
            return "language", tag  # it tells en-GB from en-US
        case "gladia":
            return "language_config.languages", [code] if code else None
        case "soniox":
            return "language_hints", [code] if code else None
        case "speechmatics" if model.startswith("melia"):  # its language is always "multi"
            return "transcription_config.language_hints", [code] if code else None
        case "speechmatics":
            return "transcription_config.language", code
        case "assemblyai" | "elevenlabs":
            return "language_code", base
    return "language", base


def _vocabulary(kind: str, model: str, words: tuple[str, ...]) -> Found:  # noqa: PLR0911 - as above
    """The parameters for *words*; none where the provider takes no such list.

    Pulse takes keywords over its WebSocket alone, Reson8 in custom models.
    """
    listed = list(words)
    match kind:
        case "openai" if "diarize" in model:
            return {}
        case "openai" if "voxtral" in model.lower():
            return {"context_bias[]": listed}
        case "speechmatics" if model.startswith("melia"):
            return {}
        case "deepgram" if model and not model.startswith(("nova-3", "flux")):
            return {"keywords": listed}  # keyterm came with nova-3
        case "gladia":
            return {"custom_vocabulary": True, "custom_vocabulary_config.vocabulary": listed}
        case "local" | "openai" | "whisper-asr":
            return {_VOCABULARY[kind]: ", ".join(words)}
    return {_VOCABULARY[kind]: listed} if kind in _VOCABULARY else {}


_LANGUAGE_WORDS: Mapping[str, Mapping[str, str]] = {
    "speechmatics": {"zh": "cmn", "nb": "no", "nn": "no"},
    "gladia": {"nb": "no", "jv": "jw"},
}
"""Language codes of some types that differ from ours."""

_VOCABULARY: Mapping[str, str] = {
    "local": "hotwords",
    "openai": "prompt",
    "deepgram": "keyterm",
    "elevenlabs": "keyterms",
    "azure": "phraseList.phrases",
    "whisper-asr": "initial_prompt",
    "assemblyai": "keyterms_prompt",
    "soniox": "context.terms",
    "speechmatics": "transcription_config.additional_vocab",
}
_SPEAKERS: Mapping[str, str] = {
    **dict.fromkeys(("pulse", "reson8", "deepgram", "elevenlabs", "whisper-asr"), "diarize"),
    "azure": "diarization.enabled",
    "assemblyai": "speaker_labels",
    "soniox": "enable_speaker_diarization",
    "speechmatics": "transcription_config.diarization",
    "gladia": "diarization",
}
_SPEAKER_WORDS: Mapping[str, Mapping[bool, str]] = {"speechmatics": {True: "speaker", False: "none"}}


def _speakers(kind: str, model: str) -> str:
    return "diarize" if kind == "openai" and "voxtral" in model.lower() else _SPEAKERS.get(kind, "")
