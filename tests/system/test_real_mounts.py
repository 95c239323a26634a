"""Inbox and done on real mounts: disks of sticks and NAS boxes, rclone, sshfs whose connection breaks."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import threading
from dataclasses import replace

import pytest

from dropscribe.core.errors import PublishError
from dropscribe.files import capabilities
from dropscribe.files.beneath import closing, open_root
from dropscribe.files.moves import FileName, has_gone
from dropscribe.publish import filing, moving
from dropscribe.publish.filing import publish
from support.billing import billing_emulator
from support.daemon_process import Installation
from support.house import tree
from support.publications import publication_of
from support.waiting import until_true

pytestmark = pytest.mark.slow

SFTP_SERVER = "/usr/lib/openssh/sftp-server"
RENAME, EXTENDED = 18, 200  # SSH_FXP_RENAME, SSH_FXP_EXTENDED
FILES = 4


def needs(*programs):
    missing = [name for name in programs if shutil.which(name) is None]
    can_mount = os.access("/dev/fuse", os.W_OK)
    return pytest.mark.skipif(bool(missing) or not can_mount, reason=f"needs FUSE and {', '.join(programs)}")


@contextlib.contextmanager
def mounted(process, mountpoint):
    """*process* serves *mountpoint*, for the length of the block."""
    try:
        until_true(lambda: os.path.ismount(mountpoint) or process.poll() is not None)
        assert process.poll() is None
        yield
    finally:
        subprocess.run(["umount", "-l", mountpoint], check=False)
        process.terminate()
        process.wait(10)


@needs("rclone")
@pytest.mark.parametrize("mode", ["off", "writes", "full"])
def test_files_on_an_rclone_mount_end_once(tmp_path, mode):
    """Filed and paid for once each, though the mount has no links and renames no open file."""
    backing, mountpoint = tmp_path / "backing", tmp_path / "mount"
    for path in (backing / "inbox", mountpoint, tmp_path / "house"):
        path.mkdir(parents=True)
    command = ["rclone", "mount", backing, mountpoint, f"--vfs-cache-mode={mode}", "--dir-cache-time=1s"]
    command += [f"--cache-dir={tmp_path / 'cache'}", "--config=/dev/null", "--vfs-write-back=1s"]
    emulator, till = billing_emulator()
    rule = {part: str(mountpoint / part) for part in ("inbox", "done", "failed")}
    contents = {f"{number}.wav": os.urandom(5000) for number in range(FILES)}
    with emulator, subprocess.Popen(command) as rclone, mounted(rclone, mountpoint):
        site = Installation(tmp_path / "house", emulator.url, rule=rule)
        for name, content in contents.items():
            (backing / "inbox" / name).write_bytes(content)
        assert site.run_once() == 0
        until_true(lambda: len(tree(backing / "done")) == 3 * FILES)  # written back after a second
    stems = range(FILES)
    assert tree(backing / "done") == {f"{stem}.{end}" for stem in stems for end in ("wav", "json", "txt")}
    assert tree(backing / "inbox") == set()
    assert all((backing / "done" / name).read_bytes() == content for name, content in contents.items())
    assert sorted(till.paid.values()) == [1] * FILES


class Sftp:
    """sshfs on an SFTP server of this machine, through a relay that can cut the connection.

    Attributes:
        cuts: Whether the next rename is carried out, and its answer never arrives.
    """

    def __init__(self, backing, mountpoint, *options):
        self.cuts = False
        self._cut_id = b""
        pipe = subprocess.PIPE
        self._server = subprocess.Popen([SFTP_SERVER], stdin=pipe, stdout=pipe)
        command = ["sshfs", f"host:{backing}", mountpoint, "-f", "-o", "passive", *options]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
        ways = (
            (self.process.stdout, self._server.stdin, self._hear_request),
            (self._server.stdout, self.process.stdin, self._hear_answer),
        )
        self._threads = [threading.Thread(target=self._relay, args=way, daemon=True) for way in ways]
        for thread in self._threads:
            thread.start()

    def _relay(self, source, target, hear):
        with contextlib.suppress(OSError, ValueError):
            while head := source.read(4):
                packet = source.read(struct.unpack(">I", head)[0])
                if not hear(packet):
                    self.process.kill()
                    break
                target.write(head + packet)
                target.flush()
        with contextlib.suppress(OSError):
            target.close()

    def _hear_request(self, packet):
        is_rename = packet[0] == RENAME or (packet[0] == EXTENDED and b"rename" in packet[5:40])
        is_link = packet[0] == EXTENDED and b"hardlink" in packet[5:40]
        if self.cuts and (is_rename or is_link):
            self._cut_id = packet[1:5]
        return True

    def _hear_answer(self, packet):
        return not self._cut_id or packet[1:5] != self._cut_id

    def close(self):
        self._server.terminate()
        self._server.wait(10)
        for thread in self._threads:
            thread.join(10)
        for process in (self._server, self.process):
            process.stdout.close()


@contextlib.contextmanager
def sshfs(backing, mountpoint, *options):
    """An :class:`Sftp`, mounted."""
    sftp = Sftp(backing, mountpoint, *options)
    try:
        with mounted(sftp.process, mountpoint):
            yield sftp
    finally:
        sftp.close()


@needs("sshfs", SFTP_SERVER)
@pytest.mark.parametrize("options", [(), ("-o", "disable_hardlink")], ids=["links", "no links"])
def test_a_connection_that_breaks_in_a_rename_costs_nothing(tmp_path, monkeypatch, options):
    """The server renamed or linked, and nobody heard: after the next mount each file is whole, once."""
    backing, mountpoint = tmp_path / "backing", tmp_path / "mount"
    (backing / "inbox").mkdir(parents=True)
    mountpoint.mkdir()
    contents = {f"{number}.wav": b"audio %d" % number for number in range(FILES)}
    for name, content in contents.items():
        (backing / "inbox" / name).write_bytes(content)
        with sshfs(backing, mountpoint, *options) as sftp:
            monkeypatch.setattr(capabilities, "_known", {})
            request = replace(
                publication_of(mountpoint / "inbox" / name, mountpoint / "done"), stable_inodes=False
            )
            _try_out(mountpoint)
            sftp.cuts = True
            with pytest.raises(PublishError):
                publish(request)
        with sshfs(backing, mountpoint, *options):
            publish(request)
    stems = range(FILES)
    assert tree(backing / "inbox") == set()
    assert tree(backing / "done") == {f"{stem}.{end}" for stem in stems for end in ("wav", "json", "txt")}
    assert all((backing / "done" / name).read_bytes() == content for name, content in contents.items())


class Crash(BaseException):
    """The end of the process at some point."""


@needs("sshfs", SFTP_SERVER)
@pytest.mark.parametrize("point", ["sidecars_synced", "copy_linked"])
def test_files_from_before_a_crash_are_known_in_spite_of_the_cache_of_sshfs(tmp_path, monkeypatch, point):
    """It has the status of a file for 20 seconds, and of two names of one file for each apart."""
    (tmp_path / "inbox").mkdir()
    audio = tmp_path / "inbox" / "call.wav"
    audio.write_bytes(b"audio")

    def crash(reached):
        if reached == point:
            raise Crash

    monkeypatch.setattr(capabilities, "_known", {})
    with contextlib.ExitStack() as mount:
        for path in (tmp_path / "backing" / "done", tmp_path / "mount"):
            path.mkdir(parents=True)
        mount.enter_context(sshfs(tmp_path / "backing", tmp_path / "mount"))
        request = publication_of(audio, tmp_path / "mount" / "done")
        with monkeypatch.context() as patch, pytest.raises(Crash):
            for module in (filing, moving):
                patch.setattr(module, "reached", crash)
            publish(request)
        publish(request)
    assert tree(tmp_path / "backing" / "done") == {"call.wav", "call.json", "call.txt"}
    assert tree(tmp_path / "inbox") == set()


@needs("sshfs", SFTP_SERVER)
def test_a_name_that_has_gone_is_known_in_spite_of_the_cache_of_sshfs(tmp_path):
    """It had the file before the file was moved, and would have it for 20 seconds."""
    for path in (tmp_path / "backing" / "done", tmp_path / "mount"):
        path.mkdir(parents=True)
    (tmp_path / "backing" / "call.wav").write_bytes(b"audio")
    with (
        sshfs(tmp_path / "backing", tmp_path / "mount"),
        closing(open_root(os.fsencode(tmp_path / "mount"))) as folder,
    ):
        name = FileName(folder, b"call.wav")
        assert name.status() is not None
        assert not has_gone(name)
        (tmp_path / "backing" / "call.wav").rename(tmp_path / "backing" / "done" / "call.wav")
        assert name.status() is not None
        assert has_gone(name)


def _try_out(mountpoint):
    """What the mount can do is found out before the connection breaks."""
    (mountpoint / "done").mkdir(exist_ok=True)
    folder = os.open(mountpoint / "done", os.O_RDONLY)
    try:
        capabilities.capabilities_of(folder)
    finally:
        os.close(folder)


DISKS = {
    "btrfs": (("mkfs.btrfs", "-q"), ("mount", "-o", "loop")),
    "xfs": (("mkfs.xfs", "-q"), ("mount", "-o", "loop")),
    "vfat": (("mkfs.vfat", "-F", "32"), ("mount", "-o", "loop,utf8")),
    "exfat": (("mkfs.exfat",), ("mount", "-t", "exfat", "-o", "loop")),
    "f2fs": (("mkfs.f2fs", "-q"), ("mount", "-o", "loop")),
    "ntfs-3g": (("mkntfs", "-q", "-F", "-Q"), ("ntfs-3g", "-o", "windows_names")),
}
LONGEST = "L" * 251


def run_or_skip(*command):
    """Run *command*; the test is skipped with its reason where it is missing or fails."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"{command[0]}: {done.stderr.decode(errors='replace')[-200:]}")


@contextlib.contextmanager
def disk(name, image, mountpoint):
    """The file system *name* in *image*, made where it is new, mounted for the length of the block."""
    make, mount = DISKS[name]
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(400_000_000)
        run_or_skip(*make, image)
    run_or_skip(*mount, image, mountpoint)
    try:
        yield
    finally:
        until_true(
            lambda: subprocess.run(["umount", mountpoint], capture_output=True, check=False).returncode == 0
        )


@pytest.mark.parametrize("name", DISKS)
@pytest.mark.parametrize("part", ["there", "done alone"])
def test_files_on_a_disk_end_once(tmp_path, name, part):
    """Killed and mounted again on the way: filed once each, by names that differ in case too.

    Paid again are at most those whose upload the kill cut off, and these are counted.
    """
    mountpoint, image = tmp_path / "mount", tmp_path / "image"
    inbox = (mountpoint if part == "there" else tmp_path) / "inbox"
    for path in (mountpoint, tmp_path / "house"):
        path.mkdir()
    rule = {"inbox": str(inbox)} | {part: str(mountpoint / part) for part in ("done", "failed")}
    contents = {f"{stem}.wav": os.urandom(5000) for stem in ("a", "café", LONGEST, "2026/b")}
    emulator, till = billing_emulator()
    with emulator:
        with disk(name, image, mountpoint):
            site = Installation(tmp_path / "house", emulator.url, rule=rule)
            (inbox / "2026").mkdir()
            for path, content in contents.items():
                (inbox / path).write_bytes(content)
            if not (inbox / "A.wav").exists():
                contents["A.wav"] = os.urandom(5000)
                (inbox / "A.wav").write_bytes(contents["A.wav"])
            assert site.run_once(crash_at="sidecars_synced") == -9
        with disk(name, image, mountpoint):
            assert site.run_once() == 0
            found = [path.read_bytes() for path in site.done.rglob("*.wav")]
            assert sorted(found) == sorted(contents.values())
            assert len(tree(site.done)) == 3 * len(contents)
            assert not list(inbox.rglob("*.wav"))
            assert len(till.paid) == len(contents)
            assert till.paid_again() <= site.status()["maybe_paid_twice"]
