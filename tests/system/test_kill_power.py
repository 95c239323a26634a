"""A power cut, simulated: what may be on disk must never come before what has to be there with it.

SIGKILL leaves the page cache alone, so it cannot tell a missing fsync. Here the calls that name, unname
and sync are watched, and the worst disk is kept: of names and contents only what was synced is surely
there, while a call that was made may be there at once.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dropscribe.core.naming import Companion
from dropscribe.files import capabilities, moves
from dropscribe.files.audio import snapshot_of
from dropscribe.publish.filing import publish
from dropscribe.queue.embedded.store import Store
from support.publications import publication_of

AUDIO = b"audio" * 1000
SIDECARS = ("call.json", "call.txt")
COMPANION = "call.xml"


class WorstDisk:
    """What is surely on disk, and each call that would be a breach if the power went right after it.

    Attributes:
        broken: What came too early.
    """

    def __init__(self, patch, inbox: Path, done: Path, before_audio=SIDECARS):
        self._done, self._before_audio = done, before_audio
        self._whole: set[int] = set()
        self._named: set[Path] = set(inbox.iterdir())
        self.broken: list[str] = []
        self._fsync, self._unlink = os.fsync, os.unlink
        self._link, self._rename = os.link, moves.rename_noreplace
        patch.setattr(os, "fsync", self.fsync)
        patch.setattr(os, "unlink", self.unlink)
        patch.setattr(os, "link", self.link)
        patch.setattr(moves, "rename_noreplace", self.rename)

    def is_named(self, path: Path) -> bool:
        """Whether the name is surely on disk."""
        return path in self._named

    def is_whole(self, path: Path) -> bool:
        """Whether the content is surely on disk."""
        return path.stat().st_ino in self._whole

    def fsync(self, descriptor):
        self._fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._named = {named for named in self._named if named.parent != path} | set(path.iterdir())
        else:
            self._whole.add(os.fstat(descriptor).st_ino)

    def link(self, source, target, *, src_dir_fd, dst_dir_fd, **keys):
        inode = os.stat(source, dir_fd=src_dir_fd).st_ino
        self._link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **keys)
        self._named_in(dst_dir_fd, target, inode, is_new=True)

    def rename(self, source, name, target, new_name):
        inode = os.stat(name, dir_fd=source).st_ino
        self._rename(source, name, target, new_name)
        self._named_in(target, new_name, inode, is_new=name.startswith(b"."))

    def _named_in(self, folder, name, inode, *, is_new):
        path = Path(os.readlink(f"/proc/self/fd/{folder}")) / os.fsdecode(name)
        if path.parent == self._done and not path.name.startswith("."):
            self._appeared(path, inode, is_new=is_new)

    def unlink(self, path, *rest, **keys):
        size = os.stat(path, **keys).st_size
        for copy in (self._done / "call.wav", self._done / COMPANION):
            is_original = os.path.lexists(copy) and size == copy.stat().st_size
            if is_original and not (self.is_named(copy) and self.is_whole(copy)):
                self.broken.append(f"the original of {copy.name} was removed before its copy was on disk")
            if is_original and not self.is_named(self._done / "call.wav"):
                self.broken.append(f"{copy.name} was removed from the inbox before the audio was in done")
        self._unlink(path, *rest, **keys)

    def _appeared(self, path: Path, inode: int, *, is_new: bool) -> None:
        if is_new and inode not in self._whole:
            self.broken.append(f"{path.name} was named before its content was on disk")
        if not self.is_named(path.parent):
            self.broken.append(f"{path.name} was named in a folder that may not be there")
        if path.suffix == ".wav":
            missing = [name for name in self._before_audio if not self.is_named(path.parent / name)]
            self.broken += [f"the audio arrived before {name} was on disk" for name in missing]


@pytest.mark.parametrize("is_far", [False, True])
def test_a_companion_outlives_the_power_cut(inbox, tmp_path, other_file_system, monkeypatch, is_far):
    """Its copy is on disk before the audio arrives, and the audio before its original goes."""
    done = (other_file_system if is_far else tmp_path) / "done"
    original = inbox / COMPANION
    original.write_bytes(b"companion" * 77)
    request = publication_of(inbox / "call.wav", done)
    companion = Companion(b"", os.fsencode(COMPANION), snapshot_of(original.stat()), os.fsencode(COMPANION))
    disk = WorstDisk(monkeypatch, inbox, done, (*SIDECARS, COMPANION))
    publish(replace(request, output_names=replace(request.output_names, companions=(companion,))))
    assert disk.broken == []
    assert all(disk.is_named(done / name) for name in ("call.wav", COMPANION))
    assert disk.is_whole(done / COMPANION)
    assert not disk.is_named(original)


@pytest.fixture
def inbox(tmp_path):
    """An inbox with one file."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "call.wav").write_bytes(AUDIO)
    return folder


def test_the_audios_arrival_says_that_all_is_there_after_a_power_cut(tmp_path, inbox, monkeypatch):
    """Sidecars are on disk, name and content, before the audio is renamed; the rename before the row ends."""
    done = tmp_path / "far" / "done"
    disk = WorstDisk(monkeypatch, inbox, done)
    publish(publication_of(inbox / "call.wav", done))
    assert disk.broken == []
    assert all(disk.is_named(done / name) for name in ("call.wav", "call.json", "call.txt"))
    assert all(disk.is_whole(done / name) for name in ("call.json", "call.txt"))
    assert not disk.is_named(inbox / "call.wav")


def test_an_original_outlives_the_power_cut_until_its_copy_is_on_disk(inbox, other_file_system, monkeypatch):
    """To another file system: the copy's content and name are synced before the original goes."""
    done = other_file_system / "done"
    disk = WorstDisk(monkeypatch, inbox, done)
    publish(publication_of(inbox / "call.wav", done))
    assert disk.broken == []
    assert disk.is_named(done / "call.wav")
    assert disk.is_whole(done / "call.wav")
    assert not disk.is_named(inbox / "call.wav")
    assert list(inbox.iterdir()) == []


def test_without_hard_links_the_order_is_the_same(tmp_path, inbox, monkeypatch):
    """On file systems without hard links a sidecar is whole under its hidden name before it gets its own."""
    done = tmp_path / "done"
    monkeypatch.setattr(capabilities, "_known", {})
    disk = WorstDisk(monkeypatch, inbox, done)
    monkeypatch.setattr(os, "link", refuse_to_link)
    publish(publication_of(inbox / "call.wav", done))
    assert disk.broken == []
    assert all(disk.is_named(done / name) for name in ("call.wav", "call.json", "call.txt"))
    assert all(disk.is_whole(done / name) for name in SIDECARS)


def refuse_to_link(*_arguments, **_keywords):
    """Answer as FAT does."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_row_is_on_disk_when_its_transaction_returns(tmp_path):
    """The queue is written ahead and synced in full, so what was kept survives a power cut."""
    store = Store(tmp_path / "state")
    try:
        asked = store.call(
            lambda db: [
                db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
            ]
        )
        assert asked.result() == ["wal", 2]
    finally:
        store.close()
