"""Servers that `type: http` describes in docs/providers.md, answered as strictly as their documents allow."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from support.forms import read_form
from support.received import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.received import Received

CLOUDFLARE_PATH = "/client/v4/accounts/ACCOUNT/ai/run/@cf/openai/whisper-large-v3-turbo"
_CLOUDFLARE_KEYS = {"audio", "task", "language", "vad_filter", "initial_prompt", "prefix"}
_WHISPER_CPP_FIELDS = {"response_format", "language", "temperature", "temperature_inc", "prompt", "translate"}


def cloudflare(key: str, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://developers.cloudflare.com/workers-ai/models/whisper-large-v3-turbo/, behind its REST API."""
    if request.headers.get("authorization") != f"Bearer {key}":
        raise _cloudflare_error(401, 10000, "Authentication error")
    try:
        given = json.loads(body)
        audio = base64.b64decode(given["audio"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise _cloudflare_error(400, 5006, "Error: required properties at '/' are 'audio'") from None
    if set(given) - _CLOUDFLARE_KEYS:
        raise _cloudflare_error(400, 5006, f"Error: unknown properties {sorted(given)}")
    request.audio_bytes, request.audio_sha256 = len(audio), hashlib.sha256(audio).hexdigest()
    heard = hear()
    segment = {"start": 0.0, "end": 0.4 * len(heard.split()), "text": heard, "avg_logprob": -0.25}
    segment["words"] = [
        {"word": f" {word}", "start": index * 0.4, "end": index * 0.4 + 0.3}
        for index, word in enumerate(heard.split())
    ]
    info = {"language": given.get("language", "en"), "language_probability": 0.9, "duration": segment["end"]}
    result = {"transcription_info": info, "text": heard, "segments": [segment] if heard else []}
    return {"success": True, "errors": [], "messages": [], "result": result}


def _cloudflare_error(status: int, code: int, message: str) -> Refused:
    errors = [{"code": code, "message": message}]
    return Refused(status, {"success": False, "errors": errors, "messages": [], "result": None})


def whisper_cpp(_: str, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://github.com/ggml-org/whisper.cpp, examples/server: an error is a 200; words are tokens."""
    if not read_form(request, body, "file"):
        return {"error": "no 'file' field in the request"}
    given = dict(request.fields)
    if set(given) - _WHISPER_CPP_FIELDS:
        raise ValueError(f"no such field: {sorted(given)}")
    if b"RIFF" not in body:
        return {"error": "failed to read audio data"}
    heard = hear()
    if given.get("response_format") != "verbose_json":
        return {"text": f" {heard}\n"}
    seconds = 0.4 * len(heard.split())
    return {"task": "transcribe", "language": "english", "duration": seconds, "text": f" {heard}\n"} | {
        "segments": [{"id": 0, "text": f" {heard}", "start": 0.0, "end": seconds, "avg_logprob": -0.2}]
    }


def vosk(_: str, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://github.com/solyarisoftware/voskJs, its HTTP server: Vosk's own result under `vosk`."""
    if request.headers.get("content-type") != "audio/wav" or not request.body_bytes:
        raise Refused(415, {"error": "id 1620060067830 transcript function Error: not a WAV file"})
    heard = hear()
    words = [
        {"conf": 0.98, "end": index * 0.4 + 0.3, "start": index * 0.4, "word": word}
        for index, word in enumerate(heard.split())
    ]
    result = ({"result": words} if words else {}) | {"text": heard}
    return {"id": 1620060067830, "latency": 583, "vosk": result}


DESCRIBED = {
    ("POST", CLOUDFLARE_PATH): cloudflare,
    ("POST", "/inference"): whisper_cpp,
    ("POST", "/transcript"): vosk,
}
"""The function that answers a request, by its method and path."""
