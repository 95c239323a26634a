"""A sidecar or a copy is never more open than its audio."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import struct
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from dropscribe.files.mounts import ignore_sigio
from dropscribe.publish.filing import publish
from support.faults import let_others_pass, mounted, run_as_nobody
from support.publications import publication_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")


@pytest.fixture
def audio(tmp_path):
    """A recording in an inbox."""
    ignore_sigio()
    (tmp_path / "inbox").mkdir()
    path = tmp_path / "inbox/call.wav"
    path.write_bytes(b"audio")
    return path


def sidecar_of(tmp_path, audio):
    publish(publication_of(audio, tmp_path / "done"))
    status = (tmp_path / "done/call.json").stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o600, 0o600), (0o640, 0o640), (0o777, 0o644), (0o6775, 0o644), (0o060, 0o040)]
)
def test_its_mode_less_execute_and_others_write_bits(tmp_path, audio, mode, expected):
    """With the audio's own owner and group."""
    os.chown(audio, 1234, 2345)
    audio.chmod(mode)
    assert sidecar_of(tmp_path, audio) == (expected, 1234, 2345)


def test_a_daemon_that_may_give_files_away_and_no_more_files_them(tmp_path, audio):
    """With CAP_CHOWN alone: what is another user's can be neither linked nor changed any more."""
    os.chown(audio, 1234, 2345)
    audio.chmod(0o644)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # capset(2), version 3: effective, permitted and inheritable, bits 0 to 31 and 32 to 63.
            chown_alone = struct.pack("6I", 1, 1, 0, 0, 0, 0)
            assert ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), chown_alone) == 0
            publish(publication_of(audio, tmp_path / "done"))
            code = 0
        except BaseException:  # noqa: BLE001 - the child must end here, and say why
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    status = (tmp_path / "done/call.json").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o644, 2345)
    assert (tmp_path / "done/call.wav").exists()


@pytest.mark.parametrize(("mode", "expected"), [(0o664, 0o604), (0o604, 0o600)])
def test_no_group_bits_where_the_group_is_another_one(tmp_path, audio, mode, expected):
    """A daemon that may not give a file to the audio's group lets its own group read nothing.

    Nor do the others read a sidecar where the audio shuts out its group, whose members are others there.
    """
    os.chown(audio, 1234, 2345)
    audio.chmod(mode)

    async def steps():
        publish(publication_of(audio, tmp_path / "done"))

    for folder in (tmp_path, tmp_path / "inbox"):
        folder.chmod(0o777)
    assert run_as_nobody(tmp_path, steps) == 0
    status = (tmp_path / "done/call.json").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (expected, 65534)


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs setfacl")
@pytest.mark.parametrize(("group", "expected"), [("---", 0o600), ("r--", 0o640), ("rw-", 0o640)])
def test_the_mask_of_an_access_control_list_is_not_taken_for_the_groups_rights(
    tmp_path, audio, group, expected
):
    """stat shows the mask where the group's bits stand: the daemon's own entry says nothing of the group."""
    audio.chmod(0o600)
    command = ["setfacl", "-m", f"u:daemon:rwx,g::{group},o::---", str(audio)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no access control lists here")
    assert audio.stat().st_mode & 0o070 == 0o070
    assert sidecar_of(tmp_path, audio)[0] == expected


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs setfacl")
@pytest.mark.parametrize(
    ("entry", "expected"), [("u:daemon:---", 0o600), ("g:daemon:-w-", 0o600), ("u:daemon:r--", 0o644)]
)
def test_a_user_whom_the_list_shuts_out_does_not_read_the_sidecar(tmp_path, audio, entry, expected):
    """Everybody else may read the audio: the mode of a sidecar can only shut out all of them."""
    audio.chmod(0o644)
    command = ["setfacl", "-m", entry, str(audio)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no access control lists here")
    assert sidecar_of(tmp_path, audio)[0] == expected


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs setfacl")
def test_what_a_folder_gives_to_new_files_is_not_given_to_a_sidecar(tmp_path, audio):
    """Its default entries are for people whom the audio may not be for."""
    audio.chmod(0o640)
    (tmp_path / "done").mkdir()
    command = ["setfacl", "-d", "-m", "u:daemon:rwx", str(tmp_path / "done")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no access control lists here")
    assert sidecar_of(tmp_path, audio)[0] == 0o640
    told = subprocess.run(
        ["getfacl", "-pc", str(tmp_path / "done/call.json")], capture_output=True, text=True, check=True
    )
    assert "daemon" not in told.stdout


def list_of(path):
    """The access control list of a file, as getfacl prints it."""
    return subprocess.run(["getfacl", "-pcn", str(path)], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs setfacl")
def test_a_copy_on_another_mount_has_the_list_and_the_attributes_of_the_audio(tmp_path, audio):
    """As a rename keeps them: the mode alone would let the group read where its entry shuts it out.

    The entries that the folder gives to new files are not for people without access to the audio.
    """
    audio.chmod(0o600)
    (tmp_path / "disk/done").mkdir(parents=True)
    for arguments in (["-m", "u:1234:r"], ["-d", "-m", "u:2345:rwx"]):
        place = tmp_path / "disk/done" if "-d" in arguments else audio
        if subprocess.run(["setfacl", *arguments, str(place)], capture_output=True, check=False).returncode:
            pytest.skip("no access control lists here")
    os.setxattr(audio, "user.origin", b"door 3")
    expected = list_of(audio)
    with mounted(tmp_path / "done", "--bind", tmp_path / "disk/done"):
        publish(publication_of(audio, tmp_path / "done"))
        assert not audio.exists()
        assert list_of(tmp_path / "done/call.wav") == expected
        assert os.getxattr(tmp_path / "done/call.wav", "user.origin") == b"door 3"
        plain = audio.with_name("plain.wav")
        plain.write_bytes(b"more")
        plain.chmod(0o640)
        publish(publication_of(plain, tmp_path / "done"))
        assert "2345" not in list_of(tmp_path / "done/plain.wav")


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs setfacl")
def test_a_copy_that_can_have_no_list_shuts_out_whom_the_list_does(tmp_path, audio):
    """On a file system without lists the group's bits are those of its entry, not the mask."""
    audio.chmod(0o600)
    if subprocess.run(["setfacl", "-m", "u:1234:r", str(audio)], capture_output=True, check=False).returncode:
        pytest.skip("no access control lists here")
    with mounted(tmp_path / "done", "-t", "ramfs", "none"):
        publish(publication_of(audio, tmp_path / "done"))
        assert stat.S_IMODE((tmp_path / "done/call.wav").stat().st_mode) == 0o600


@pytest.mark.slow
def test_another_run_of_the_tests_closes_no_folder_of_this_one(tmp_path):
    """A test that has become another user was refused its own folders in the middle of its work."""
    let_others_pass(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/test_backoff.py"]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=120, capture_output=True)
    assert [folder for folder in tmp_path.parents if not folder.stat().st_mode & 0o001] == []
