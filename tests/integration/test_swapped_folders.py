"""A dropper swaps folders for links while files are published and taken back: nothing outside is touched."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal

import pytest

from dropscribe.cli.commands.retry import FailedFiles
from dropscribe.config.model import FolderRule
from dropscribe.core.errors import DropscribeError
from dropscribe.core.model import OutputNames
from dropscribe.core.naming import OutputPlan
from dropscribe.files.audio import snapshot_of
from dropscribe.files.beneath import closing
from dropscribe.files.mounts import ignore_sigio
from dropscribe.publish.filing import publish
from dropscribe.publish.places import find_free_names
from dropscribe.publish.publication import PublishRequest
from dropscribe.publish.return_to_inbox import remove_error_file, return_to_inbox
from support.house import make_config

TRIES = int(os.environ.get("DROPSCRIBE_SWAP_TRIES", "400"))
NAMES = ("call.wav", "call.json", "call.txt", "call.error.json")

_EXCHANGE, _HERE = 2, -100


def _swap_for_ever(folders):
    """Exchange each folder ``sub`` with a link, again and again, as a user without rights."""
    with contextlib.suppress(PermissionError):
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    libc = ctypes.CDLL(None)
    while True:
        for folder in folders:
            libc.renameat2(_HERE, folder + b"/sub", _HERE, folder + b"/.link", _EXCHANGE)


@pytest.fixture
def outside(tmp_path):
    """Somebody else's folder, with files of the very names."""
    folder = tmp_path / "outside"
    folder.mkdir(mode=0o711)
    for name in NAMES:
        content = {"schema": "dropscribe.error/1", "file": "call.wav", "folder": "calls"}
        (folder / name).write_text(json.dumps(content) if name.endswith("json") else "somebody else's")
        (folder / name).chmod(0o604)
    return folder


def look(folder):
    """All that may be seen of a folder and what is in it."""
    paths = [folder, *sorted(folder.iterdir())]
    return [(path.name, tuple(path.lstat())[:7], path.lstat().st_mtime_ns) for path in paths]


@contextlib.contextmanager
def dropper(folders, outside):
    """An unprivileged process that swaps a folder of its own in each of *folders* for a link to *outside*."""
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / "sub").mkdir()
        (folder / ".link").symlink_to(outside)
        folder.chmod(0o777)
        (folder / "sub").chmod(0o777)
    for above in outside.parents[:-2]:
        above.chmod(above.stat().st_mode | 0o711)
    child = os.fork()
    if child == 0:
        try:
            _swap_for_ever([os.fsencode(folder) for folder in folders])
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def put(folder, name, content):
    """A file in the real folder, wherever its name is now."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    with closing(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644, dir_fd=folder)) as descriptor:
        os.write(descriptor, content)


def test_nothing_outside_is_touched_by_publishing(tmp_path, outside):
    """Neither read, written, moved, removed nor given another mode."""
    ignore_sigio()
    inbox, done = tmp_path / "inbox", tmp_path / "done"
    before = look(outside)
    published = 0
    with dropper([inbox, done], outside), contextlib.ExitStack() as opened:
        real = [opened.enter_context(closing(_real(folder, outside))) for folder in (inbox, done)]
        for number in range(TRIES):
            put(real[0], "call.wav", b"ours")
            status = os.stat("call.wav", dir_fd=real[0])
            with contextlib.suppress(OSError, DropscribeError):
                find_free_names(OutputPlan(os.fsencode(done), b"sub/call.wav", ("json", "txt")), ())
                publish(_request(inbox, done, status, number))
                published += 1
            for name in os.listdir(real[1]):
                os.unlink(name, dir_fd=real[1])
    assert look(outside) == before
    assert published > 0


def _real(folder, outside):
    """The real folder, open: under one of the two names."""
    while True:
        for name in ("sub", ".link"):
            with contextlib.suppress(OSError):
                return os.open(folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _request(inbox, done, status, number):
    return PublishRequest(
        inbox=os.fsencode(inbox),
        path=b"sub/call.wav",
        snapshot=snapshot_of(status),
        stable_inodes=True,
        sha256="",
        output_names=OutputNames(
            os.fsencode(done), b"sub", b"call.wav", (("json", b"call.json"), ("txt", b"call.txt"))
        ),
        files=((b"call.json", b"{}"), (b"call.txt", b"text")),
        token=f"token-{number}",
    )


def test_nothing_outside_is_touched_by_taking_back(tmp_path, outside):
    """By retry, and by the daemon that removes the error file of what was taken back."""
    inbox, failed = tmp_path / "inbox", tmp_path / "failed"
    config = make_config(tmp_path)
    rule = config.folders["calls"]
    assert isinstance(rule, FolderRule)
    before = look(outside)
    moved = 0
    error = json.dumps({"schema": "dropscribe.error/1", "file": "call.wav", "folder": "calls"}).encode()
    with dropper([inbox, failed], outside), contextlib.ExitStack() as opened:
        real = [opened.enter_context(closing(_real(folder, outside))) for folder in (inbox, failed)]
        for _ in range(TRIES):
            put(real[1], "call.wav", b"ours")
            put(real[1], "call.error.json", error)
            with contextlib.suppress(OSError, DropscribeError):
                list(FailedFiles(config, None).of_rule(rule))
                return_to_inbox(rule, b"sub/call.wav", b"call.wav")
                moved += 1
            remove_error_file(os.fsencode(failed), b"sub/call.wav")
            for name in os.listdir(real[0]):
                os.unlink(name, dir_fd=real[0])
    assert look(outside) == before
    assert moved > 0


def test_an_error_file_of_a_dropper_is_not_believed(tmp_path):
    """It may say neither whose the file is nor under which name it goes back."""
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    config = make_config(tmp_path)
    failed = tmp_path / "failed"
    failed.mkdir()
    (failed / "call.wav").write_bytes(b"audio")
    forged = {"schema": "dropscribe.error/1", "file": "authorized_keys.wav", "folder": "calls"}
    (failed / "call.error.json").write_text(json.dumps(forged))
    os.chown(failed / "call.error.json", 1234, 1234)
    ((_, name),) = FailedFiles(config, None).of_rule(config.folders["calls"])
    assert name == b"call.wav"
    os.chown(failed / "call.error.json", 0, 0)
    ((_, name),) = FailedFiles(config, None).of_rule(config.folders["calls"])
    assert name == b"authorized_keys.wav"


def test_a_pipe_or_a_device_in_place_of_an_error_file_blocks_nobody(tmp_path):
    """Nor is a link followed to one."""
    config = make_config(tmp_path)
    failed = tmp_path / "failed"
    failed.mkdir()
    for name in ("a", "b"):
        (failed / f"{name}.wav").write_bytes(b"audio")
    os.mkfifo(failed / "a.error.json")
    (failed / "b.error.json").symlink_to("/dev/zero")
    found = FailedFiles(config, None).of_rule(config.folders["calls"])
    assert [place.path for place, _ in found] == [b"a.wav", b"b.wav"]
