"""The documented contracts of vendors with jobs, answered strictly: upload, create, poll, result, delete."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.forms import read_form
from support.received import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.received import Received


@dataclass
class VendorJob:
    """One job as the vendor has it."""

    id: str
    upload: str
    heard: str
    sha256: str
    options: dict[str, Any]
    polls_left: int


@dataclass
class JobDesk:
    """What was uploaded to the vendors with jobs, and which jobs they have.

    Attributes:
        polls: Polls that find a new job still in work.
        failure: Why new jobs fail; "" lets them succeed.
        refusal: Status and body with which a creation is refused, or None.
        created: Every job that was ever created, oldest first: each is paid for.
    """

    polls: int = 1
    failure: str = ""
    refusal: tuple[int, Any] | None = None
    uploads: dict[str, tuple[str, str]] = field(default_factory=dict)
    jobs: dict[str, VendorJob] = field(default_factory=dict)
    created: list[VendorJob] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def paid_again(self) -> int:
        """Jobs on audio that an earlier job had."""
        return len(self.created) - len({job.sha256 for job in self.created})

    def keep(self, heard: str, sha256: str) -> str:
        """Take an upload in; returns its id."""
        name = f"up-{len(self.uploads) + 1}"
        self.uploads[name] = (heard, sha256)
        return name

    def create(self, upload: str, options: dict[str, Any]) -> VendorJob:
        """A new job on an upload."""
        heard, sha256 = self.uploads[upload]
        job = VendorJob(f"job-{len(self.created) + 1}", upload, heard, sha256, options, self.polls)
        self.jobs[job.id] = job
        self.created.append(job)
        return job

    def job(self, job_id: str, missing: Any) -> VendorJob:
        """The job of that id; *missing* is the body of the 404 where there is none."""
        if job_id not in self.jobs:
            raise Refused(404, missing)
        return self.jobs[job_id]

    def is_working(self, job: VendorJob) -> bool:
        """Whether *job* needs more time; each call is one poll."""
        job.polls_left -= 1
        return job.polls_left >= 0

    def delete(self, job_id: str) -> None:
        """Forget a job."""
        del self.jobs[job_id]
        self.deleted.append(job_id)


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
        return {"id": desk.keep(hear(), request.audio_sha256), "size": request.audio_bytes}
    if (request.method, request.path) == ("POST", "/v1/transcriptions"):
        return _soniox_view(_soniox_create(desk, body), "queued")
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


def _soniox_job(desk: JobDesk, request: Received) -> dict[str, Any]:
    name, _, part = request.path.removeprefix("/v1/transcriptions/").partition("/")
    missing = {"status_code": 404, "error_type": "transcription_not_found", "message": "Not found"}
    job = desk.job(name, missing)
    if request.method == "DELETE":
        desk.delete(job.id)
        return {}
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
    return Refused(status, {"status_code": status, "error_type": kind, "message": words})


JOB_CONTRACTS = {
    "/v2/upload": assemblyai,
    "/v2/transcript": assemblyai,
    "/v1/files": soniox,
    "/v1/transcriptions": soniox,
}
"""What answers a request, by the beginning of its path."""
