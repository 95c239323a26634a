"""Finds the folder rules and folders that a path belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dropscribe.config.disk_reads import real_paths
from dropscribe.config.model import Config, FolderRule
from dropscribe.reports.timed_calls import ask_disk_or


@dataclass(frozen=True, slots=True)
class Place:
    """A path inside one of a rule's folders."""

    rule: FolderRule
    part: str  # The folder's key: inbox, done or failed
    path: bytes  # Relative to that folder, bytes; never empty

    @property
    def root(self) -> bytes:
        """The folder as the config has it."""
        return os.fsencode(self.rule.paths[self.part])

    @property
    def absolute(self) -> bytes:
        """The path as the queue writes it: the config's folder and the relative path."""
        return self.root + b"/" + self.path


def filed_place(rule: FolderRule, filed: bytes) -> Place | None:
    """The place of a file that *rule* has filed as *filed*; None outside its done and failed folder."""
    if filed.startswith(b"//"):  # beneath a root of a cluster that this node does not have
        return None
    roots = {part: os.fsencode(rule.paths[part]) for part in ("done", "failed")}
    if not any(_below({root}, [filed]) for root in roots.values()):
        # The config may have spelt the folder in another way then, which the file system has to tell.
        folder, name = os.path.split(filed)
        roots, filed = {part: _real(root) for part, root in roots.items()}, os.path.join(_real(folder), name)
    places = [Place(rule, part, path) for part, root in roots.items() if (path := _below({root}, [filed]))]
    return min(places, key=lambda place: len(place.path), default=None)


def _real(folder: bytes) -> bytes:
    """*folder* without links; as it is written where its file system does not answer."""
    return ask_disk_or(folder, folder, lambda: os.path.realpath(folder))


def find_places(config: Config, file: bytes) -> list[Place]:
    """Every rule's folder that *file* is in, the innermost first; the file itself need not exist.

    Symlinks on the way to the file's folder, or in the config's paths, are followed, unless their file
    system does not answer; the file is not.
    """
    written = os.path.abspath(file)
    folder, name = os.path.split(written)
    above = Path(os.fsdecode(folder))
    roots = [(rule, part, root) for rule in config.folders.values() for part, root in rule.paths.items()]
    real = real_paths([above, *(root for _, _, root in roots)])
    spellings = sorted({written, os.path.join(os.fsencode(real[above]), name)})
    found = [
        Place(rule, part, path)
        for rule, part, root in roots
        if (path := _below({os.path.normpath(os.fsencode(root)), os.fsencode(real[root])}, spellings))
    ]
    return sorted(found, key=lambda place: len(place.path))


def folder_at(config: Config, file: bytes) -> tuple[FolderRule, str] | None:
    """The rule, and its folder's key, whose inbox, done or failed folder *file* is itself."""
    written = Path(os.fsdecode(os.path.abspath(file)))
    folders = ((rule, part) for rule in config.folders.values() for part in rule.paths)
    return next(((rule, part) for rule, part in folders if rule.paths[part] == written), None)


def _below(roots: set[bytes], spellings: list[bytes]) -> bytes | None:
    """The part of the first of *spellings* that lies below one of *roots*, relative to it."""
    for spelling in spellings:
        for base in roots:
            if spelling.startswith(beginning := base.rstrip(b"/") + b"/"):
                return spelling.removeprefix(beginning)
    return None
