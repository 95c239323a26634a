"""The documented contracts of Pulse, Reson8 and OpenAI (docs/design/providers.md), answered strictly.

Each answer holds the size and the digest of the audio that was received.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from support.described_servers import DESCRIBED
from support.forms import read_form
from support.job_desk import JobDesk
from support.job_vendors import JOB_CONTRACTS
from support.more_vendors import CONTRACTS
from support.received import Received, Refused

KEY = "sk_emulator_key"
PULSE_LIMIT_BYTES = 250_000_000
OPENAI_LIMIT_BYTES = 26_214_400

PULSE_PATHS = {"/api/v1/pulse/get_text", "/waves/v1/pulse/get_text", "/waves/v1/stt/"}
RESON8_PATH = "/v1/speech-to-text/prerecorded"
OPENAI_PATH = "/v1/audio/transcriptions"

PULSE_PARAMS = {
    "model",
    "language",
    "word_timestamps",
    "diarize",
    "gender_detection",
    "emotion_detection",
    "redact_pii",
    "redact_pci",
    "format",
    "punctuate",
    "capitalize",
    "encoding",
    "sample_rate",
    "webhook_url",
    "webhook_method",
    "webhook_extra",
}
RESON8_PARAMS = {
    "encoding",
    "sample_rate",
    "channels",
    "language",
    "custom_model_id",
    "include_timestamps",
    "include_words",
    "include_confidence",
    "include_language",
    "diarize",
    "max_speakers",
    "patterns",
    "model",
}
RESON8_ENCODINGS = {"auto", "m4a", "m4v", "mp4", "mov", "3gp", "3g2", "pcm_s16le", "mulaw", "alaw"}
OPENAI_FIELDS = {
    "model",
    "language",
    "prompt",
    "response_format",
    "timestamp_granularities[]",
    "temperature",
    "chunking_strategy",
    "include[]",
    "stream",
}


@dataclass
class Vendors:
    """The vendors behind one key.

    Attributes:
        key: The key that they accept.
        text: The text that they "hear"; None derives it from the audio.
        takes_url: Whether the OpenAI path takes a field ``url`` in place of the file, as Groq does.
        words: The words that they "hear", by the digest of the audio.
        desk: The uploads and jobs of the vendors with jobs.
    """

    key: str = KEY
    text: str | None = None
    takes_url: bool = False
    words: dict[str, str] = field(default_factory=dict)
    desk: JobDesk = field(default_factory=JobDesk)

    def documented(self, request: Received, body: bytes) -> tuple[int, Any]:
        """Status and JSON that the vendor of the request's path documents for it."""
        try:
            answer = self._answer(request, body)
            return answer if isinstance(answer, tuple) else (200, answer)
        except Refused as refusal:
            return refusal.status, refusal.body
        except ValueError as error:
            return 400, {"error": str(error)}

    def authorized(self, given: str, *schemes: str) -> bool:
        """Whether *given* is the key after one of *schemes*."""
        return given in {f"{scheme} {self.key}" for scheme in schemes}

    def _answer(self, request: Received, body: bytes) -> Any:
        if request.path in PULSE_PATHS:
            return _pulse(self, request, body)
        if request.path == RESON8_PATH:
            return _reson8(self, request)
        if request.path == OPENAI_PATH:
            return _openai(self, request, body)
        if request.path == "/v1/models" and request.method == "GET":
            _openai_key(self, request)
            return {"object": "list", "data": [{"id": "whisper-1", "object": "model"}]}
        if (request.method, request.path) in CONTRACTS | DESCRIBED:
            contract = (CONTRACTS | DESCRIBED)[request.method, request.path]
            return contract(self.key, request, body, lambda: _heard(self, request))
        for beginning, contract in JOB_CONTRACTS.items():
            if request.path.startswith(beginning):
                return contract(self.key, self.desk, request, body, lambda: _heard(self, request))
        raise Refused(404, {"error": "Not Found"})


def _pulse(vendors: Vendors, request: Received, kept: bytes) -> Any:
    if request.method != "POST":
        raise Refused(404, {"error": "Not Found"})
    given = request.headers.get("authorization", "")
    if not given:
        raise Refused(401, {"message": "Unauthorized: No tokens provided"})
    if not vendors.authorized(given, "Bearer"):
        raise Refused(401, {"error": "unauthorized"})
    kind = request.headers.get("content-type", "")
    if kind == "application/json":
        request.link = _pulse_link(kept)
    elif not (kind.startswith(("audio/", "video/")) or kind == "application/octet-stream"):
        raise _pulse_audio("Invalid file format. Supported formats: audio/*")
    params = dict(request.params)
    if unknown := set(params) - PULSE_PARAMS:
        raise Refused(400, {"error": f"Unknown query param: {sorted(unknown)}", "details": sorted(unknown)})
    if request.path.endswith("/stt/") and not {"model", "language"} <= set(params):
        raise Refused(400, {"error": "Missing required query param: model.", "details": ["model"]})
    if request.body_bytes > PULSE_LIMIT_BYTES:
        raise _pulse_audio("Audio data too large")
    if not request.body_bytes:
        raise _pulse_audio("No audio data received")
    return _pulse_success(vendors, request, params)


def _pulse_link(body: bytes) -> str:
    match json.loads(body):
        case {"url": str(url), **rest} if not rest:
            return url
    raise Refused(400, {"error": "Missing url", "details": ["url"]})


def _pulse_audio(why: str) -> Refused:
    return Refused(400, {"errors": why, "status": "error", "message": "Error handling audio data"})


def _pulse_success(vendors: Vendors, request: Received, params: dict[str, str]) -> Any:
    heard = _heard(vendors, request)
    speaker = {"speaker": 0} if params.get("diarize") == "true" else {}
    words: list[Any] = []
    if params.get("word_timestamps") == "true":
        words = [
            {"word": word, "start": index * 0.4, "end": index * 0.4 + 0.3, "confidence": 0.99, **speaker}
            for index, word in enumerate(heard.split())
        ]
    turns = [{"start": 0.0, "end": words[-1]["end"], "text": heard, **speaker}] if words else []
    metadata = {"duration": max(len(heard.split()) * 0.4, 0.1), "fileSize": request.body_bytes}
    return {
        "status": "success",
        "transcription": heard,
        "words": words,
        "utterances": turns,
        "metadata": metadata,
    }


def _reson8(vendors: Vendors, request: Received) -> Any:
    if request.method != "POST":
        raise Refused(404, {"code": "NOT_FOUND"})
    if not vendors.authorized(request.headers.get("authorization", ""), "ApiKey", "Bearer"):
        raise Refused(401, {"code": "UNAUTHORIZED"})
    params = dict(request.params)
    is_octets = request.headers.get("content-type") == "application/octet-stream"
    is_known = set(params) <= RESON8_PARAMS and params.get("encoding", "auto") in RESON8_ENCODINGS
    if not (is_octets and is_known and request.body_bytes):
        raise Refused(400, {"code": "INVALID_REQUEST"})
    if params.get("custom_model_id") == "unknown":
        raise Refused(404, {"code": "NOT_FOUND"})
    return _reson8_success(vendors, request, {name for name, value in params.items() if value == "true"})


def _reson8_success(vendors: Vendors, request: Received, on: set[str]) -> Any:
    heard = _heard(vendors, request)
    timed, rated = "include_timestamps" in on, "include_confidence" in on
    answer: dict[str, Any] = {"text": heard}
    if timed:
        answer |= {"start_ms": 0, "duration_ms": 400 * len(heard.split())}
    if "include_words" in on:
        answer["words"] = [
            {"text": word}
            | ({"start_ms": 400 * index, "duration_ms": 300} if timed else {})
            | ({"confidence": -0.041} if rated else {})
            for index, word in enumerate(heard.split())
        ]
    return answer


def _openai(vendors: Vendors, request: Received, kept: bytes) -> Any:
    _openai_key(vendors, request)
    if request.method != "POST":
        raise _openai_error(405, "Not allowed", None)
    if request.body_bytes > OPENAI_LIMIT_BYTES:
        raise _openai_error(413, f"Maximum content size limit ({OPENAI_LIMIT_BYTES}) exceeded", None)
    try:
        has_file = read_form(request, kept, "file")
    except ValueError as error:
        raise _openai_error(400, str(error), None, None) from None
    fields_given = dict(request.fields)
    if not has_file and vendors.takes_url and "url" in fields_given:
        request.link = fields_given["url"]
        return {"text": _heard(vendors, request)}
    if not has_file:
        raise _openai_error(400, "no file", "file", None)
    _check_fields(request)
    heard = _heard(vendors, request)
    if fields_given.get("response_format", "json") == "json":
        return {"text": heard}
    if fields_given["response_format"] == "diarized_json":
        segment = {"type": "transcript.text.segment", "id": "seg_0", "start": 0.0, "end": 1.0}
        return {"task": "transcribe", "duration": 1.0, "text": heard} | {
            "segments": [segment | {"text": heard, "speaker": "A"}]
        }
    return _verbose(heard, [value for name, value in request.fields if name.startswith("timestamp")])


def _verbose(heard: str, granularities: list[str]) -> Any:
    answer: dict[str, Any] = {"task": "transcribe", "language": "english", "text": heard}
    answer["duration"] = 0.4 * len(heard.split())
    if "segment" in granularities or not granularities:
        text = {"text": f" {heard}", "avg_logprob": -0.2, "no_speech_prob": 0.01}
        answer["segments"] = [{"id": 0, "start": 0.0, "end": answer["duration"], **text}] if heard else []
    if "word" in granularities:
        answer["words"] = [
            {"word": word, "start": index * 0.4, "end": index * 0.4 + 0.3}
            for index, word in enumerate(heard.split())
        ]
    return answer


def _openai_key(vendors: Vendors, request: Received) -> None:
    given = request.headers.get("authorization", "")
    if not vendors.authorized(given, "Bearer"):
        raise _openai_error(401, f"Incorrect API key provided: {given}", None, "invalid_api_key")


def _check_fields(request: Received) -> None:
    names = {name for name, _ in request.fields}
    if unknown := names - OPENAI_FIELDS:
        raise _openai_error(400, "Unknown parameter", min(unknown), "unknown_parameter")
    given = dict(request.fields)
    if "model" not in given:
        raise _openai_error(400, "you must provide a model parameter", "model", None)
    if given["model"].startswith("gpt-4o") and given.get("response_format") == "verbose_json":
        raise _openai_error(400, "response_format is not compatible", "response_format", "unsupported_value")
    if "diarize" in given["model"] and "chunking_strategy" not in given:
        raise _openai_error(400, "chunking_strategy is required", "chunking_strategy", "invalid_value")
    suffix = request.filename.rpartition(".")[2]
    if suffix not in {"flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm"}:
        raise _openai_error(400, "Invalid file format.", None, None)


def _openai_error(status: int, message: str, param: str | None, code: str | None = None) -> Refused:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Refused(status, {"error": error})


def heard_text(size_bytes: int, sha256: str) -> str:
    """The text that the vendors hear in audio of that size and digest."""
    return f"Heard {size_bytes} bytes with digest {sha256[:16]}."


def _heard(vendors: Vendors, request: Received) -> str:
    if vendors.text is not None:
        return vendors.text
    if request.link:
        return f"Heard what is at {request.link}"
    derived = heard_text(request.audio_bytes, request.audio_sha256)
    return vendors.words.get(request.audio_sha256, derived)
