"""The documented contracts of vendors with jobs, answered strictly: upload, create, poll, result, delete."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from support.forms import read_form
from support.received import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.job_desk import JobDesk, VendorJob
    from support.received import Received


ASSEMBLYAI_TYPES: dict[str, type | tuple[type, ...]] = {
    "audio_url": str,
    "speech_models": list,
    "language_code": str,
    "language_detection": bool,
    "speaker_labels": bool,
    "speakers_expected": int,
    "multichannel": bool,
    "keyterms_prompt": list,
    "prompt": str,
    "punctuate": bool,
    "format_text": bool,
    "filter_profanity": bool,
    "disfluencies": bool,
    "speech_threshold": float,
    "redact_pii": bool,
}


def assemblyai(key: str, desk: JobDesk, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://www.assemblyai.com/docs/api-reference/transcripts/submit and its neighbours."""
    if request.headers.get("authorization") != key:
        raise Refused(401, {"error": "Authentication error, API token missing/invalid"})
    if (request.method, request.path) == ("POST", "/v2/upload"):
        if request.headers.get("content-type") != "application/octet-stream" or not request.body_bytes:
            raise Refused(422, {"error": "Upload failed, please try again"})
        return {"upload_url": f"https://cdn.assemblyai.com/upload/{desk.keep(hear(), request.audio_sha256)}"}
    if (request.method, request.path) == ("POST", "/v2/transcript"):
        return _assemblyai_view(_assemblyai_create(desk, body), "queued")
    if (request.method, request.path) == ("GET", "/v2/transcript"):
        return {"page_details": {"limit": 1, "result_count": 0}, "transcripts": []}
    return _assemblyai_job(desk, request)


def _assemblyai_job(desk: JobDesk, request: Received) -> dict[str, Any]:
    job = desk.job(request.path.removeprefix("/v2/transcript/"), {"error": "transcript id not found"})
    if request.method == "DELETE":
        desk.delete(job.id)
        return _assemblyai_view(job, "completed")
    if desk.is_working(job):
        return _assemblyai_view(job, "processing")
    if desk.failure:
        return _assemblyai_view(job, "error") | {"error": desk.failure}
    return _assemblyai_done(job)


def _assemblyai_create(desk: JobDesk, body: bytes) -> VendorJob:
    if desk.refusal is not None:
        raise Refused(*desk.refusal)
    options = json.loads(body)
    for name, value in options.items():
        if not isinstance(value, ASSEMBLYAI_TYPES.get(name, ())):
            raise Refused(400, {"error": f"Invalid endpoint schema: {name}"})
    upload = options.get("audio_url", "").removeprefix("https://cdn.assemblyai.com/upload/")
    if "speech_models" not in options or upload not in desk.uploads:
        raise Refused(400, {"error": "speech_models and audio_url are required"})
    if "language_code" in options and options.get("language_detection"):
        raise Refused(400, {"error": "language_code and language_detection exclude each other"})
    return desk.create(upload, options)


def _assemblyai_view(job: VendorJob, status: str) -> dict[str, Any]:
    empty = {"text": None, "words": None, "utterances": None, "audio_duration": None, "error": None}
    return {"id": job.id, "status": status, "audio_url": job.options["audio_url"], **empty}


def _assemblyai_done(job: VendorJob) -> dict[str, Any]:
    speaker = "A" if job.options.get("speaker_labels") else None
    words = [
        {"text": word, "start": index * 400, "end": index * 400 + 300, "confidence": 0.97, "speaker": speaker}
        for index, word in enumerate(job.heard.split())
    ]
    turn = {"text": job.heard, "start": 0, "end": 400 * len(words), "confidence": 0.97, "speaker": speaker}
    return _assemblyai_view(job, "completed") | {
        "text": job.heard or None,
        "words": words or None,
        "utterances": [turn | {"words": words}] if speaker and words else None,
        "audio_duration": max(1, len(words) * 2 // 5),
        "language_code": job.options.get("language_code", "en_us"),
        "speech_model_used": job.options["speech_models"][0],
    }


SONIOX_TYPES: dict[str, type] = {
    "model": str,
    "file_id": str,
    "language_hints": list,
    "language_hints_strict": bool,
    "enable_speaker_diarization": bool,
    "enable_language_identification": bool,
    "context": dict,
    "client_reference_id": str,
}


def soniox(key: str, desk: JobDesk, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://soniox.com/docs/stt/api-reference."""
    if request.headers.get("authorization") != f"Bearer {key}":
        raise _soniox_error(401, "unauthenticated", "Incorrect API key provided.")
    if (request.method, request.path) == ("POST", "/v1/files"):
        if not read_form(request, body, "file") or not request.audio_bytes:
            raise _soniox_error(400, "invalid_request", "file is required")
        return 201, {"id": desk.keep(hear(), request.audio_sha256), "size": request.audio_bytes}
    if request.method == "DELETE" and request.path.startswith("/v1/files/"):
        if desk.uploads.pop(request.path.removeprefix("/v1/files/"), None) is None:
            raise _soniox_error(404, "file_not_found", "Not found")
        return 204, None
    if (request.method, request.path) == ("POST", "/v1/transcriptions"):
        return 201, _soniox_view(_soniox_create(desk, body), "queued")
    return _soniox_job(desk, request)


def _soniox_create(desk: JobDesk, body: bytes) -> VendorJob:
    if desk.refusal is not None:
        raise Refused(*desk.refusal)
    options = json.loads(body)
    for name, value in options.items():
        if not isinstance(value, SONIOX_TYPES.get(name, ())):
            raise _soniox_error(400, "invalid_request", f"{name} is unknown or of another type")
    if "model" not in options or options.get("file_id") not in desk.uploads:
        raise _soniox_error(400, "invalid_request", "model and file_id are required")
    return desk.create(options["file_id"], options)


def _soniox_job(desk: JobDesk, request: Received) -> Any:
    name, _, part = request.path.removeprefix("/v1/transcriptions/").partition("/")
    job = desk.job(name, _soniox_error(404, "transcription_not_found", "Not found").body)
    if request.method == "DELETE":
        desk.delete(job.id)
        return 204, None
    if part == "transcript":
        return _soniox_transcript(job)
    if desk.is_working(job):
        return _soniox_view(job, "processing")
    if desk.failure:
        failure = {"error_type": "invalid_audio_file", "error_message": desk.failure}
        return _soniox_view(job, "error") | failure
    return _soniox_view(job, "completed") | {"audio_duration_ms": 1000}


def _soniox_transcript(job: VendorJob) -> dict[str, Any]:
    """Each word in two tokens, as the vendor's own parts of words."""
    speaker = {"speaker": "1"} if job.options.get("enable_speaker_diarization") else {}
    tokens: list[dict[str, Any]] = []
    for index, word in enumerate(job.heard.split()):
        half, start = (len(word) + 1) // 2, 400 * index
        about = {"confidence": 0.97, "language": "en", **speaker}
        space = " " if index else ""
        tokens.append({"text": space + word[:half], "start_ms": start, "end_ms": start + 150, **about})
        if word[half:]:
            tokens.append({"text": word[half:], "start_ms": start + 150, "end_ms": start + 300, **about})
    return {"id": job.id, "text": job.heard, "tokens": tokens}


def _soniox_view(job: VendorJob, status: str) -> dict[str, Any]:
    about = {"id": job.id, "status": status, "model": job.options["model"], "file_id": job.upload}
    return about | {"error_type": None, "error_message": None, "audio_duration_ms": None}


def _soniox_error(status: int, kind: str, words: str) -> Refused:
    about = {"validation_errors": [], "request_id": "b1d0f3d4"}
    return Refused(status, {"status_code": status, "error_type": kind, "message": words, **about})


SPEECHMATICS_SUFFIXES = {".wav", ".mp3", ".aac", ".ogg", ".mpeg", ".amr", ".m4a", ".mp4", ".flac"}
SPEECHMATICS_TYPES: dict[str, dict[str, type]] = {
    "transcription_config": {
        "language": str,
        "language_hints": list,
        "model": str,
        "additional_vocab": list,
        "diarization": str,
        "output_locale": str,
    },
    "language_identification_config": {"low_confidence_action": str, "default_language": str},
}


def speechmatics(key: str, desk: JobDesk, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://docs.speechmatics.com/api-ref/batch/create-a-new-job and its neighbours."""
    if request.headers.get("authorization") != f"Bearer {key}":
        raise _speechmatics_error(401, "Permission Denied")
    if request.path.rstrip("/") == "/v2/jobs":
        if request.method == "GET":
            return {"jobs": []}
        return 201, {"id": _speechmatics_create(desk, request, body, hear).id}
    return _speechmatics_job(desk, request)


def _speechmatics_job(desk: JobDesk, request: Received) -> dict[str, Any]:
    name, _, part = request.path.removeprefix("/v2/jobs/").partition("/")
    job = desk.job(name, _speechmatics_error(404, "Job not found").body)
    if request.method == "DELETE":
        if job.polls_left > 0 and ("force", "true") not in request.params:
            raise _speechmatics_error(423, "Resource Locked")
        desk.delete(job.id)
        return {"job": _speechmatics_view(job, "deleted")}
    if part == "transcript":
        return _speechmatics_transcript(job)
    if desk.is_working(job):
        return {"job": _speechmatics_view(job, "running")}
    if desk.failure:
        errors = [{"timestamp": "2026-01-01T00:00:00Z", "message": desk.failure}]
        return {"job": _speechmatics_view(job, "rejected") | {"errors": errors}}
    return {"job": _speechmatics_view(job, "done")}


def _speechmatics_create(desk: JobDesk, request: Received, body: bytes, hear: Callable[[], str]) -> VendorJob:
    if not read_form(request, body, "data_file") or not request.audio_bytes:
        raise _speechmatics_error(400, "Missing data_file")
    if desk.refusal is not None:
        raise Refused(*desk.refusal)
    if PurePath(request.filename).suffix not in SPEECHMATICS_SUFFIXES:
        raise _speechmatics_error(400, "Format Not Supported")
    config = json.loads(dict(request.fields)["config"])
    invalid = config.pop("type", "") != "transcription" or not config["transcription_config"].get("language")
    for section, options in config.items():
        types = SPEECHMATICS_TYPES.get(section, {})
        invalid |= any(not isinstance(value, types.get(name, ())) for name, value in options.items())
    words = config["transcription_config"].get("additional_vocab", [])
    if invalid or any(not isinstance(word, dict) or set(word) != {"content"} for word in words):
        raise _speechmatics_error(400, "Job rejected", "Job config JSON is invalid")
    return desk.create(desk.keep(hear(), request.audio_sha256), config)


def _speechmatics_view(job: VendorJob, status: str) -> dict[str, Any]:
    about = {"created_at": "2026-01-01T00:00:00Z", "data_name": "upload", "duration": 1}
    return {"id": job.id, "status": status, "config": job.options, **about}


def _speechmatics_transcript(job: VendorJob) -> dict[str, Any]:
    """Each word, and the full stop after it where it has one as an item of its own."""
    speaker = "S1" if job.options["transcription_config"].get("diarization") == "speaker" else "UU"
    results: list[dict[str, Any]] = []
    for index, word in enumerate(job.heard.split()):
        about = {"confidence": 0.97, "language": "en", "speaker": speaker}
        start, end = 0.4 * index, 0.4 * index + 0.3
        plain = word.rstrip(".,?!")
        item = {"type": "word", "start_time": start, "end_time": end}
        results.append(item | {"alternatives": [{"content": plain, **about}]})
        for mark in word[len(plain) :]:
            item = {"type": "punctuation", "start_time": end, "end_time": end, "attaches_to": "previous"}
            results.append(item | {"alternatives": [{"content": mark, **about}]})
    metadata = {"type": "transcription", "transcription_config": job.options["transcription_config"]}
    info = {"language_pack_info": {"word_delimiter": " "}}
    job_info = {"id": job.id, "duration": 1, "data_name": "upload"}
    return {"format": "2.9", "job": job_info, "metadata": metadata | info, "results": results}


def _speechmatics_error(status: int, error: str, detail: str | None = None) -> Refused:
    return Refused(status, {"code": status, "error": error} | ({"detail": detail} if detail else {}))


GLADIA = "/gladia"
"""The prefix of Gladia's paths at the emulator: one of them is also AssemblyAI's."""
GLADIA_TYPES: dict[str, type] = {
    "audio_url": str,
    "model": str,
    "language_config": dict,
    "diarization": bool,
    "diarization_config": dict,
    "custom_vocabulary": bool,
    "custom_vocabulary_config": dict,
    "sentences": bool,
    "punctuation_enhanced": bool,
}
GLADIA_FILES = "https://api.gladia.io/file/"


def gladia(key: str, desk: JobDesk, request: Received, body: bytes, hear: Callable[[], str]) -> Any:
    """https://docs.gladia.io/api-reference/v2/pre-recorded/init and its neighbours."""
    if request.headers.get("x-gladia-key") != key:
        raise _gladia_error(401, "gladia key not found")
    path = request.path.removeprefix(GLADIA)
    if (request.method, path) == ("POST", "/v2/upload"):
        if not read_form(request, body, "audio") or not request.audio_bytes:
            raise _gladia_error(400, "audio is required")
        name = desk.keep(hear(), request.audio_sha256)
        metadata = {"id": name, "size": request.audio_bytes, "audio_duration": 1.0, "number_of_channels": 1}
        return {"audio_url": GLADIA_FILES + name, "audio_metadata": metadata}
    if (request.method, path) == ("POST", "/v2/pre-recorded"):
        job = _gladia_create(desk, body)
        return 201, {"id": job.id, "result_url": f"https://api.gladia.io/v2/pre-recorded/{job.id}"}
    if (request.method, path) == ("GET", "/v2/pre-recorded"):
        return {"first": "", "current": "", "next": None, "items": []}
    return _gladia_job(desk, request.method, path)


def _gladia_job(desk: JobDesk, method: str, path: str) -> Any:
    job = desk.job(path.removeprefix("/v2/pre-recorded/"), _gladia_error(404, "Not found").body)
    if method == "DELETE":
        desk.delete(job.id)
        return 202, None
    if desk.is_working(job):
        return _gladia_view(job, "processing")
    if desk.failure:
        return _gladia_view(job, "error") | {"error_code": 500 if "server" in desk.failure else 400}
    return _gladia_view(job, "done") | {"result": _gladia_result(job)}


def _gladia_create(desk: JobDesk, body: bytes) -> VendorJob:
    if desk.refusal is not None:
        raise Refused(*desk.refusal)
    options = json.loads(body)
    wrong = [name for name, value in options.items() if not isinstance(value, GLADIA_TYPES.get(name, ()))]
    if options.get("custom_vocabulary") and not options.get("custom_vocabulary_config", {}).get("vocabulary"):
        wrong.append("custom_vocabulary_config")
    if wrong:
        raise _gladia_error(422, "Invalid parameter", [f'Field "{name}" is wrong' for name in wrong])
    upload = options.get("audio_url", "").removeprefix(GLADIA_FILES)
    if upload not in desk.uploads:
        raise _gladia_error(400, "audio_url is not a valid URL")
    return desk.create(upload, options)


def _gladia_view(job: VendorJob, status: str) -> dict[str, Any]:
    about = {"request_id": f"G-{job.id}", "version": 2, "kind": "pre-recorded", "error_code": None}
    return {"id": job.id, "status": status, "request_params": job.options, "result": None, **about}


def _gladia_result(job: VendorJob) -> dict[str, Any]:
    words = [
        {"word": f" {word}", "start": index * 0.4, "end": index * 0.4 + 0.3, "confidence": 0.97}
        for index, word in enumerate(job.heard.split())
    ]
    utterance = {"start": 0.0, "end": 0.4 * len(words), "confidence": 0.97, "channel": 0, "language": "en"}
    utterance |= {"text": job.heard, "words": words} | (
        {"speaker": 0} if job.options.get("diarization") else {}
    )
    transcription = {
        "full_transcript": job.heard,
        "languages": ["en"],
        "utterances": [utterance] if words else [],
    }
    metadata = {"audio_duration": 1.0, "number_of_distinct_channels": 1, "billing_time": 1.0}
    return {"metadata": metadata, "transcription": transcription}


def _gladia_error(status: int, message: str, errors: list[str] | None = None) -> Refused:
    about = {"timestamp": "2026-01-01T00:00:00.000Z", "path": "/v2", "request_id": "G-821fe9df"}
    listed = {"validation_errors": errors} if errors else {}
    return Refused(status, {"statusCode": status, "message": message, **about, **listed})


JOB_CONTRACTS = {
    GLADIA: gladia,
    "/v2/jobs": speechmatics,
    "/v2/upload": assemblyai,
    "/v2/transcript": assemblyai,
    "/v1/files": soniox,
    "/v1/transcriptions": soniox,
}
"""The function that answers a request, by the beginning of its path."""
