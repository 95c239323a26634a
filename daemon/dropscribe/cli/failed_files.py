"""What lies in the failed folders, and under which name it was dropped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.naming import split_name
from dropscribe.core.rules import taking_of
from dropscribe.publish.error_file import error_files_of, read_error
from dropscribe.reports.locations import Place, find_places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.config.model import Config, FolderRule

_ERROR_ENDING = b".error.json"


@dataclass(frozen=True, slots=True)
class FailedFile:
    """One audio in ``failed``.

    Attributes:
        path: Relative to the rule's failed folder.
        name: What it was called in the inbox: the error file's word, else its name now.
        error_file: Absolute path of the error file that dropscribe wrote, or None.
    """

    rule: FolderRule
    path: bytes
    name: bytes
    error_file: bytes | None

    @property
    def audio(self) -> bytes:
        """Absolute path."""
        return os.fsencode(self.rule.failed) + b"/" + self.path


def find_failed(config: Config, file: bytes) -> FailedFile | str:
    """The failed audio that *file* names, by itself or by its error file; else in words why there is none."""
    places = [place for place in find_places(config, file) if place.part == "failed"]
    if not places:
        return "is in no failed folder of the config"
    audio = _audio_of_error_file(places[0]) if file.endswith(_ERROR_ENDING) else places[0].path
    if audio is None or not os.path.lexists(places[0].root + b"/" + audio):
        return "there is no such file" if audio is None else "its audio is not there any more"
    candidates = [_failed_file(place.rule, audio) for place in places if place.root == places[0].root]
    # Where rules share a failed folder, the error file tells whose file it is.
    return next((failed for failed in candidates if failed is not None), None) or FailedFile(
        places[0].rule, audio, os.path.basename(audio), None
    )


def find_failed_in(config: Config, rule: FolderRule) -> Iterator[FailedFile]:
    """Every failed audio of *rule*, in the order of paths."""
    root = os.fsencode(rule.failed)
    is_shared = any(other.failed == rule.failed for other in config.folders.values() if other is not rule)
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), root)
            if not name.endswith(_ERROR_ENDING) and (failed := _of_rule(rule, path, is_shared=is_shared)):
                yield failed


def _of_rule(rule: FolderRule, path: bytes, *, is_shared: bool) -> FailedFile | None:
    """A file without an error file counts where it can only be this rule's, and is audio to it."""
    failed = _failed_file(rule, path)
    if failed or is_shared or not taking_of(rule).takes(path) or _has_error_file(rule, path):
        return failed
    return FailedFile(rule, path, os.path.basename(path), None)


def _failed_file(rule: FolderRule, path: bytes) -> FailedFile | None:
    """The audio with its error file, where that is this rule's."""
    audio = os.fsencode(rule.failed) + b"/" + path
    for error_file in error_files_of(audio):
        error = read_error(error_file)
        if error is None or error.get("folder") != rule.name:
            continue
        name = _original_name(error)
        if name is None or split_name(name)[1] == split_name(path)[1]:
            return FailedFile(rule, path, name or os.path.basename(path), error_file)
    return None


def _has_error_file(rule: FolderRule, path: bytes) -> bool:
    audio = os.fsencode(rule.failed) + b"/" + path
    return any(read_error(error_file) for error_file in error_files_of(audio))


def _original_name(error: dict[str, object]) -> bytes | None:
    """The error file's word, where it is a name: nothing that leads elsewhere, nothing hidden."""
    written = error.get("file")
    if not isinstance(written, str) or not written or "/" in written or "\0" in written:
        return None
    return None if written.startswith(".") else written.encode("utf-8", "surrogateescape")


def _audio_of_error_file(place: Place) -> bytes | None:
    """The audio beside an error file: by its full name, else by its stem and the original's suffix."""
    error = read_error(place.absolute)
    if error is None:
        return None
    base = place.path.removesuffix(_ERROR_ENDING)
    if os.path.lexists(place.root + b"/" + base):
        return base
    return base + split_name(_original_name(error) or b"")[1]
