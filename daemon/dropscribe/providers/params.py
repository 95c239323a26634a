"""The default request parameters of each type of provider.

Guarantees: pure, and imports no vendor: the config and ``plan`` can ask it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.requests.params import FIXED_PARAMS, SPEECHMATICS_DETECTION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.requests.params import ParamValue

OPENAI_MODEL = "whisper-1"

GRANULARITIES = ("timestamp_granularities[]", "timestamp_granularities")


def effective_params(provider_type: str, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    """Parameters to send: the type's defaults, overridden by *params*. An empty list drops a default."""
    return {**default_params(provider_type, params), **params}


def default_params(provider_type: str, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    """The type's defaults; some depend on the parameters that the user has set in *params*."""
    if provider_type == "openai":
        return _openai_defaults(params)
    if provider_type == "deepgram" and not params.get("language") and "detect_language" not in params:
        # Without either, Deepgram assumes English.
        return {**FIXED_PARAMS["deepgram"], "detect_language": True}
    if provider_type == "assemblyai" and not params.get("language_code"):
        # Without either, AssemblyAI assumes English.
        return {**FIXED_PARAMS["assemblyai"], "language_detection": True}
    if provider_type == "speechmatics" and not params.get("transcription_config.language"):
        # Without a language, Speechmatics refuses the job; Melia is multilingual and knows no "auto".
        is_melia = str(params.get("transcription_config.model", "")).startswith("melia")
        return {"transcription_config.language": "multi"} if is_melia else dict(SPEECHMATICS_DETECTION)
    return dict(FIXED_PARAMS.get(provider_type, {}))


def _openai_defaults(params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    model = str(params.get("model", OPENAI_MODEL))
    defaults: dict[str, ParamValue] = {"model": OPENAI_MODEL, "response_format": _richest_format(model)}
    if "diarize" in model:
        defaults["chunking_strategy"] = "auto"  # required for more than 30 s
    asked = params.get("response_format", defaults["response_format"])
    if asked == "verbose_json" and not any(name in params for name in GRANULARITIES):
        defaults[GRANULARITIES[0]] = ["word", "segment"]
    return defaults


def _richest_format(model: str) -> str:
    # Behind a gateway a model's name has the vendor before it: openai/gpt-4o-transcribe, azure/whisper-1.
    name = model.rpartition("/")[2].lower()
    if "diarize" in name:
        return "diarized_json"
    # OpenAI's gpt transcribers and Mistral's Voxtral refuse verbose_json with a 400.
    return "json" if name.startswith("gpt-") or "voxtral" in name else "verbose_json"
