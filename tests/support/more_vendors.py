"""The documented contracts of Deepgram, ElevenLabs, Azure and whisper-asr-webservice, answered strictly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support.forms import read_form
from support.received import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.received import Received

DEEPGRAM_PATH = "/v1/listen"
ELEVENLABS_PATH = "/v1/speech-to-text"
AZURE_PATH = "/speechtotext/transcriptions:transcribe"
WHISPER_ASR_PATH = "/asr"

DEEPGRAM_PARAMS = {
    "callback", "callback_method", "custom_intent", "custom_topic", "detect_entities", "detect_language",
    "diarize", "diarize_model", "dictation", "encoding", "extra", "filler_words", "intents", "keyterm",
    "keywords", "language", "measurements", "mip_opt_out", "model", "multichannel", "numerals",
    "paragraphs", "profanity_filter", "punctuate", "redact", "replace", "search", "sentiment",
    "smart_format", "summarize", "tag", "topics", "utt_split", "utterances", "version",
}  # fmt: skip
ELEVENLABS_FIELDS = {
    "model_id", "language_code", "tag_audio_events", "num_speakers", "timestamps_granularity", "diarize",
    "diarization_threshold", "additional_formats", "file_format", "cloud_storage_url", "source_url",
    "webhook", "webhook_id", "temperature", "seed", "use_multi_channel", "webhook_metadata",
    "entity_detection", "keyterms",
}  # fmt: skip
AZURE_KEYS = {
    "locales": list, "diarization": dict, "channels": list, "profanityFilterMode": str, "phraseList": dict,
    "enhancedMode": dict,
}  # fmt: skip
WHISPER_ASR_PARAMS = {
    "encode", "task", "language", "initial_prompt", "vad_filter", "word_timestamps", "output", "diarize",
    "min_speakers", "max_speakers",
}  # fmt: skip


def deepgram(key: str, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded."""
    if request.headers.get("authorization") not in {f"Token {key}", f"Bearer {key}"}:
        raise _deepgram_error(401, "INVALID_AUTH", "Invalid credentials.")
    names = {name for name, _ in request.params}
    if unknown := names - DEEPGRAM_PARAMS:
        raise _deepgram_error(400, "Bad Request", f"Bad Request: unknown parameter {min(unknown)}")
    given = dict(request.params)
    if "keyterm" in names and not given.get("model", "").startswith("nova-3"):
        raise _deepgram_error(400, "Bad Request", "Bad Request: keyterm needs nova-3")
    if not request.body_bytes:
        raise _deepgram_error(400, "Bad Request", "failed to process audio: corrupt or unsupported data")
    if request.headers.get("content-type") == "application/json":
        request.link = json.loads(body)["url"]
    heard = hear()
    words = [
        {"word": word.lower(), "punctuated_word": word, "start": index * 0.4, "end": index * 0.4 + 0.3,
         "confidence": 0.98, **({"speaker": 0} if given.get("diarize") == "true" else {})}
        for index, word in enumerate(heard.split())
    ]  # fmt: skip
    seconds = 0.4 * len(words)
    results: dict[str, Any] = {
        "channels": [{"alternatives": [{"transcript": heard, "confidence": 0.98, "words": words}]}]
    }
    if given.get("detect_language") == "true":
        results["channels"][0] |= {"detected_language": "en", "language_confidence": 0.99}
    if given.get("utterances") == "true" and words:
        results["utterances"] = [
            {
                "start": 0.0,
                "end": seconds,
                "confidence": 0.98,
                "channel": 0,
                "transcript": heard,
                "words": words,
            }
        ]
    return {"metadata": {"request_id": "dg-1", "duration": seconds, "channels": 1}, "results": results}


def _deepgram_error(status: int, code: str, words: str) -> Refused:
    return Refused(status, {"err_code": code, "err_msg": words, "request_id": "dg-refused"})


def elevenlabs(key: str, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://elevenlabs.io/docs/api-reference/speech-to-text/convert."""
    if request.headers.get("xi-api-key") != key:
        raise _elevenlabs_error(401, "invalid_api_key", "Invalid API key")
    if {name for name, _ in request.params} - {"enable_logging"}:
        raise _elevenlabs_error(400, "invalid_parameters", "unknown query")
    has_file = read_form(request, body, "file")
    given = dict(request.fields)
    if "model_id" not in given:
        missing = {"type": "missing", "loc": ["body", "model_id"], "msg": "Field required"}
        raise Refused(422, {"detail": [missing]})
    if set(given) - ELEVENLABS_FIELDS or given["model_id"] not in {"scribe_v1", "scribe_v2"}:
        raise _elevenlabs_error(400, "invalid_parameters", "unknown field or model")
    request.link = given.get("source_url", "")
    if has_file == bool(request.link):
        raise _elevenlabs_error(400, "invalid_parameters", "exactly one of file and source_url")
    heard = hear()
    speaker = {"speaker_id": "speaker_0"} if given.get("diarize") == "true" else {}
    words: list[dict[str, Any]] = []
    for index, word in enumerate(heard.split()):
        start = index * 0.4
        if index:
            words.append(
                {
                    "text": " ",
                    "start": start - 0.1,
                    "end": start,
                    "type": "spacing",
                    "logprob": 0.0,
                    **speaker,
                }
            )
        words.append(
            {"text": word, "start": start, "end": start + 0.3, "type": "word", "logprob": -0.02, **speaker}
        )
    return {
        "language_code": "eng",
        "language_probability": 0.99,
        "text": heard,
        "words": words,
        "transcription_id": "el-1",
        "audio_duration_secs": 0.4 * len(heard.split()),
    }


def _elevenlabs_error(status: int, code: str, words: str) -> Refused:
    return Refused(status, {"detail": {"status": code, "message": words}})


def azure(key: str, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://learn.microsoft.com/azure/ai-services/speech-service/fast-transcription-create."""
    if request.headers.get("ocp-apim-subscription-key") != key:
        words = "Access denied due to invalid subscription key or wrong API endpoint."
        raise Refused(401, {"error": {"code": "401", "message": words}})
    if dict(request.params).get("api-version") not in {"2024-11-15", "2025-10-15"}:
        raise _azure_error("InvalidRequest", "the query parameter api-version is missing or unknown")
    if not read_form(request, body, "audio"):
        raise _azure_error("InvalidRequest", "the form has no audio")
    definition = json.loads(dict(request.fields)["definition"])
    if "phraseList" in definition and dict(request.params)["api-version"] == "2024-11-15":
        raise _azure_error("InvalidRequest", "phraseList is unknown")
    for name, value in definition.items():
        if not isinstance(value, AZURE_KEYS.get(name, ())):
            raise _azure_error("InvalidRequest", f"{name} is unknown or of another type")
    if any("-" not in locale for locale in definition.get("locales", ())):
        raise _azure_error("InvalidLocale", "a locale has a language and a region")
    heard = hear()
    words = [
        {"text": word, "offsetMilliseconds": 400 * index, "durationMilliseconds": 300}
        for index, word in enumerate(heard.split())
    ]
    length = 400 * len(words)
    speaker = {"speaker": 1} if definition.get("diarization", {}).get("enabled") else {}
    phrase = {"offsetMilliseconds": 0, "durationMilliseconds": length, "text": heard, "words": words}
    about = {"locale": "en-US", "confidence": 0.93}
    return {
        "durationMilliseconds": length,
        "combinedPhrases": [{"text": heard}],
        "phrases": [phrase | about | speaker] if words else [],
    }


def _azure_error(code: str, words: str) -> Refused:
    return Refused(400, {"error": {"code": code, "message": words}})


def whisper_asr(key: str, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://github.com/ahmetoner/whisper-asr-webservice, app/webservice.py, behind a proxy with a key."""
    if request.headers.get("authorization") != f"Bearer {key}":
        raise Refused(401, {"detail": "Unauthorized"})
    if request.path == "/openapi.json":
        return {"openapi": "3.1.0", "paths": {WHISPER_ASR_PATH: {}}}
    if not read_form(request, body, "audio_file") or request.fields:
        missing = {"type": "missing", "loc": ["body", "audio_file"], "msg": "Field required"}
        raise Refused(422, {"detail": [missing]})
    given = dict(request.params)
    if set(given) - WHISPER_ASR_PARAMS or given.get("output") != "json":
        raise Refused(422, {"detail": [{"type": "enum", "loc": ["query"], "msg": "unknown"}]})
    heard = hear()
    segment: dict[str, Any] = {"id": 0, "start": 0.0, "end": 0.4 * len(heard.split()), "text": f" {heard}"}
    if given.get("word_timestamps") == "true":
        segment["words"] = [
            {"word": f" {word}", "start": index * 0.4, "end": index * 0.4 + 0.3, "probability": 0.9}
            for index, word in enumerate(heard.split())
        ]
    return {"text": heard, "segments": [segment] if heard else [], "language": "en"}


CONTRACTS = {
    ("POST", DEEPGRAM_PATH): deepgram,
    ("POST", ELEVENLABS_PATH): elevenlabs,
    ("POST", AZURE_PATH): azure,
    ("POST", WHISPER_ASR_PATH): whisper_asr,
    ("GET", "/openapi.json"): whisper_asr,
}
"""The function that answers a request, by its method and path."""
