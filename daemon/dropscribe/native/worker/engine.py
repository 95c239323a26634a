"""Loads the speech engine and proves that it works on this machine."""

from __future__ import annotations

import importlib
import mmap
import os
from typing import Any

import numpy as np

from dropscribe.core.errors import ProviderUnusable
from dropscribe.native.recording import SAMPLE_RATE_HZ
from dropscribe.native.speech_model import NO_TELEMETRY

FORBIDDEN = (
    "the system forbids machine code written at run time, which the engine needs (MemoryDenyWriteExecute): "
    "install the drop-in dropscribe.service.d/local-engine.conf, then restart the service"
)


def load_model(folder: str, device: str, compute_type: str, cpu_threads: int) -> Any:
    """A model that has just recognised a second of noise, and so works here.

    A processor that lacks an instruction, a system that forbids machine code written at run time, or a
    graphics card without memory is detected here, before a recording can fail because of it.

    Args:
        folder: With the model's files.
        device: "cpu", "cuda", or "auto": the graphics card if there is one.
        compute_type: CTranslate2's name; "auto" is "int8" on the processor, the fastest on a card.
        cpu_threads: 0 lets the engine choose.

    Raises:
        ProviderUnusable: Codes "engine_missing", "engine_forbidden" and "model_unloadable".
    """
    for name in NO_TELEMETRY:
        os.environ.setdefault(name, "1")
    try:
        return _proven(importlib.import_module("faster_whisper"), folder, device, compute_type, cpu_threads)
    except MemoryError:
        raise
    except ImportError as error:
        raise ProviderUnusable("engine_missing", str(error)[:500]) from error
    except Exception as error:  # the engine and its loader raise anything, RuntimeError included
        if not _may_write_code():
            raise ProviderUnusable("engine_forbidden", FORBIDDEN) from error
        raise ProviderUnusable("model_unloadable", f"{os.path.basename(folder)}: {error}"[:500]) from error


def _proven(whisper: Any, folder: str, device: str, compute_type: str, cpu_threads: int) -> Any:
    if device == "auto":
        device = "cuda" if importlib.import_module("ctranslate2").get_cuda_device_count() else "cpu"
    if compute_type == "auto" and device == "cpu":
        compute_type = "int8"
    model = whisper.WhisperModel(
        folder, device=device, compute_type=compute_type, cpu_threads=cpu_threads, local_files_only=True
    )
    noise = np.random.default_rng(1).normal(0.0, 0.01, SAMPLE_RATE_HZ).astype(np.float32)
    # Once for the voice detector, which finds nothing in noise, and once for the model.
    for vad_filter in (True, False):
        segments, _ = model.transcribe(
            noise, language="en", vad_filter=vad_filter, beam_size=1, max_new_tokens=1, temperature=0.0
        )
        list(segments)
    return model


def _may_write_code() -> bool:
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True
