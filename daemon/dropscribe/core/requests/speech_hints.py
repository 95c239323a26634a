"""The settings `language`, `vocabulary` and `speakers` as parameters of each type of provider. Pure.

A hint without a parameter at the provider is not sent; :func:`ignored_hints` names it, for `check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.requests.languages import base_language, language_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        name, spell = _language(kind, model)
        found[name] = spell(hints.language)
    if hints.vocabulary and (send_words := _vocabulary(kind, model)) is not None:
        found |= send_words(hints.vocabulary)
    if hints.speakers is not None and (name := _speakers(kind, model)):
        found[name] = _SPEAKER_WORDS.get(kind, {}).get(hints.speakers, hints.speakers)
    return found


def ignored_hints(kind: str, model: str, hints: SpeechHints) -> list[str]:
    """The names of the settings for which such a provider has no parameter."""
    ignored = ["language"] if hints.language and kind == "http" else []  # set in `params` instead
    if hints.vocabulary and _vocabulary(kind, model) is None:
        ignored.append("vocabulary")
    if hints.speakers and not _speakers(kind, model) and "diarize" not in model:
        ignored.append("speakers")
    return ignored


def _language(kind: str, model: str) -> tuple[str, Callable[[str], ParamValue | None]]:
    if kind == "azure":
        return "locales", _as_list
    if kind in {"soniox", "gladia"}:
        name = "language_hints" if kind == "soniox" else "language_config.languages"
        return name, lambda language: _as_base_list(kind, language)
    if kind == "deepgram":
        return "language", language_tag  # it tells en-GB from en-US
    if kind == "speechmatics" and model.startswith("melia"):  # its language is always "multi"
        return "transcription_config.language_hints", lambda language: _as_base_list(kind, language)
    if kind == "speechmatics":
        return "transcription_config.language", lambda language: _base(kind, language)
    return ("language_code" if kind in {"elevenlabs", "assemblyai"} else "language"), base_language


def _base(kind: str, language: str) -> str | None:
    base = base_language(language)
    return None if base is None else _LANGUAGE_WORDS.get(kind, {}).get(base, base)


def _as_base_list(kind: str, language: str) -> list[str] | None:
    base = _base(kind, language)
    return None if base is None else [base]


def _as_list(language: str) -> list[str] | None:
    tag = language_tag(language)
    return None if tag is None else [tag]


def _vocabulary(kind: str, model: str) -> Callable[[tuple[str, ...]], Found] | None:
    if kind == "openai" and "diarize" in model:
        return None
    if kind == "openai" and "voxtral" in model.lower():
        return _repeated("context_bias[]")
    if kind == "speechmatics" and model.startswith("melia"):
        return None
    if kind == "deepgram" and not model.startswith(("nova-3", "flux")) and model:
        return _repeated("keywords")  # keyterm came with nova-3
    return _VOCABULARY.get(kind)  # Pulse takes keywords over its WebSocket alone, Reson8 in custom models


def _repeated(name: str) -> Callable[[tuple[str, ...]], Found]:
    return lambda words: {name: list(words)}


def _joined(name: str) -> Callable[[tuple[str, ...]], Found]:
    return lambda words: {name: ", ".join(words)}


def _custom_vocabulary(words: tuple[str, ...]) -> Found:
    return {"custom_vocabulary": True, "custom_vocabulary_config.vocabulary": list(words)}


_LANGUAGE_WORDS: Mapping[str, Mapping[str, str]] = {
    "speechmatics": {"zh": "cmn", "nb": "no", "nn": "no"},
    "gladia": {"nb": "no", "jv": "jw"},
}
"""Language codes of some types that differ from ours."""

_VOCABULARY: Mapping[str, Callable[[tuple[str, ...]], Found]] = {
    "local": _joined("hotwords"),
    "openai": _joined("prompt"),
    "deepgram": _repeated("keyterm"),
    "elevenlabs": _repeated("keyterms"),
    "azure": _repeated("phraseList.phrases"),
    "whisper-asr": _joined("initial_prompt"),
    "assemblyai": _repeated("keyterms_prompt"),
    "soniox": _repeated("context.terms"),
    "speechmatics": _repeated("transcription_config.additional_vocab"),
    "gladia": _custom_vocabulary,
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
