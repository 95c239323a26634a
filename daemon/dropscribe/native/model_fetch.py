"""Fetches a speech model from the model hub into the cache, with progress and checked hashes.

Guarantees: the hub's client, which loads the engine's native libraries, runs in a process of its own; a file
with another hash than the hub's is removed, and never loaded.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dropscribe.core.errors import ProviderUnusable
from dropscribe.native.speech_model import NO_TELEMETRY, cache_folder, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

FETCH_SECONDS = 3600.0
LOOK_SECONDS = 0.5

_FETCH = """
import os, sys
from faster_whisper.utils import download_model
try:
    folder = download_model(sys.argv[1], cache_dir=sys.argv[2], local_files_only=True)
except Exception:
    folder = ""
if not os.path.exists(os.path.join(folder, "model.bin")):
    folder = download_model(sys.argv[1], cache_dir=sys.argv[2])
print(folder)
"""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(name: str, progress: Callable[[int], None]) -> Path:
    """The folder of the model *name* in the cache, fetched if it is not there.

    Args:
        name: Name of a Whisper model, or OWNER/NAME on the hub.
        progress: Called twice a second with the received bytes; an exception in it ends the download.

    Raises:
        ProviderUnusable: Code "model_missing", or "model_altered" for a file that is not the hub's.
    """
    folder = Path(_downloaded(name, progress))
    for file in sorted(folder.iterdir()):
        stored = file.resolve()  # the client stores a large file under its SHA-256, and links to it
        if _SHA256.fullmatch(stored.name) and sha256_of((stored,)) != stored.name:
            stored.unlink()
            reason = f"{name}: {file.name} is not what the hub has; it is fetched again"
            raise ProviderUnusable("model_altered", reason)
    return folder


def _downloaded(name: str, progress: Callable[[int], None]) -> str:
    cache, environment = cache_folder(), {**os.environ, **dict.fromkeys(NO_TELEMETRY, "1")}
    command = [sys.executable, "-P", "-c", _FETCH, name, str(cache)]
    before, until = _size_of(cache), time.monotonic() + FETCH_SECONDS
    with subprocess.Popen(  # noqa: S603 - our own interpreter, and a name from the config as an argument
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as client:
        try:
            while (answer := _answer_of(client)) is None:
                progress(_size_of(cache) - before)
                if time.monotonic() > until:
                    raise _missing(name, f"it took longer than {FETCH_SECONDS:.0f} s")
        finally:
            client.kill()
    said, errors = answer
    if client.returncode != 0 or not said.strip():
        raise _missing(name, (errors.strip().splitlines() or ["no answer"])[-1])
    return said.splitlines()[-1]


def _answer_of(client: subprocess.Popen[str]) -> tuple[str, str] | None:
    """Standard output and error of *client* when it has ended; None while it works."""
    try:
        return client.communicate(timeout=LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _missing(name: str, why: str) -> ProviderUnusable:
    return ProviderUnusable("model_missing", f"{name} could not be fetched: {why}"[:500])


def _size_of(cache: Path) -> int:
    """Bytes in the hub's part of the cache, incomplete downloads included."""
    return sum(file.lstat().st_size for file in cache.glob("models--*/blobs/*"))
