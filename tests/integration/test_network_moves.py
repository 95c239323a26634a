"""Publishing on file systems that lack this or that, and on which answers get lost after the call.

A pass-through of the tests' own stands for sshfs, rclone, bindfs and others: no links, no RENAME_NOREPLACE,
two inode numbers for two names, closes that are written back late.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import pytest

from dropscribe.core.errors import AudioChanged, AudioMissing, PublishError
from dropscribe.files import beneath, capabilities, moves
from dropscribe.files.capabilities import Move
from dropscribe.files.mounts import ignore_sigio, mount_of
from dropscribe.publish import moving
from dropscribe.publish.filing import publish
from dropscribe.publish.publication import NameTaken
from support.house import tree
from support.lossy_fuse import mounted_lossy
from support.publications import publication_of
from support.scene import Scene

KINDS = {
    "noreplace": (("--flags",), Move.NOREPLACE),
    "links": (("--one-inode",), Move.LINK),
    "links, two inodes": ((), Move.PLACEHOLDER),
    "no links": (("--no-links",), Move.PLACEHOLDER),
    "no links, late closes": (("--no-links", "--late"), Move.PLACEHOLDER),
    "nothing": (("--no-links", "--no-symlinks"), Move.CHECKED),
    "nothing, late closes": (("--no-links", "--no-symlinks", "--late"), Move.CHECKED),
}
LOST = ["", "rename", "link", "unlink", "mkdir", "fsync", "rename,link,unlink,mkdir,fsync"]
FILES = 3


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    ignore_sigio()
    monkeypatch.setattr(capabilities, "_known", {})


@pytest.fixture(scope="module")
def mounts(tmp_path_factory):
    """One mount for each set of options, for as long as these tests run."""
    with ExitStack() as opened:

        @cache
        def mount(*options):
            folder = tmp_path_factory.mktemp("mounts")
            return opened.enter_context(mounted_lossy(folder / "backing", folder / "mount", *options))

        yield mount


@pytest.fixture
def root_on(mounts):
    """A new folder on a mount with these options; *lost* calls below it get no answer."""

    def make(options, lost=""):
        mount = mounts(*options)
        name = f"{uuid.uuid4().hex} loses {lost}"
        (mount.with_name("backing") / name).mkdir()
        return mount / name

    return make


def drop(root, number, content):
    """A file that is ready to be published within the mount *root*."""
    inbox = root / "inbox"
    inbox.mkdir(exist_ok=True)
    # Written beneath the file system, whose late close would change its time.
    beneath_it = root.parent.with_name("backing") / root.name
    (beneath_it / "inbox" / f"{number}.wav").write_bytes(content)
    audio = inbox / f"{number}.wav"
    request = publication_of(audio, root / "done")
    return replace(request, stable_inodes=False, token=f"token-{number}")


def publish_until_done(request):
    """As the daemon does: the same call again after each trouble; how often."""
    for number in range(1, 40):
        try:
            publish(request)
        except PublishError:
            continue
        return number
    raise AssertionError("it is never published")


def assert_whole(root, contents):
    assert tree(root / "inbox") == set()
    stems = {str(number) for number in contents}
    expected = {f"{stem}.{suffix}" for stem in stems for suffix in ("wav", "json", "txt")}
    assert set(os.listdir(root / "done")) == expected
    for number, content in contents.items():
        assert (root / "done" / f"{number}.wav").read_bytes() == content
        assert (root / "done" / f"{number}.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("options", "move", "lost"),
    [
        pytest.param(
            *kind, lost, id=f"{name}-{lost or 'none'}", marks=[pytest.mark.slow] if "late" in name else []
        )
        for name, kind in KINDS.items()
        for lost in LOST
    ],
)
def test_a_lost_answer_costs_nothing(root_on, options, move, lost):
    """Whichever call was carried out without an answer: every file ends whole, once; nothing else stays."""
    root = root_on(options, lost)
    contents = {number: b"audio %d" % number for number in range(FILES)}
    tries = [publish_until_done(drop(root, number, content)) for number, content in contents.items()]
    assert sum(tries) > FILES or "mkdir" not in lost
    if "--late" in options:
        time.sleep(0.5)  # the file system's own delay, which nothing tells the end of
    assert_whole(root, contents)
    with beneath.closing(beneath.open_root(os.fsencode(root / "done"))) as done:
        assert capabilities.capabilities_of(done).move is move


class Crash(BaseException):
    """The end of the process at some point."""


@pytest.mark.parametrize(("options", "_move"), KINDS.values(), ids=KINDS)
def test_a_copy_from_before_a_crash_is_known_as_ours(tmp_path, monkeypatch, root_on, options, _move):
    """The inbox is on another mount; killed before the original is removed, nothing is doubled."""
    (tmp_path / "inbox").mkdir()
    root = root_on(options)
    contents = {}
    for number, point in enumerate(("copy_linked", "copy_verified", "copy_set_aside")):
        audio = tmp_path / "inbox" / f"{number}.wav"
        contents[number] = b"audio %d" % number
        audio.write_bytes(contents[number])
        request = replace(publication_of(audio, root / "done"), token=f"token-{number}")

        def crash(reached, point=point):
            if reached == point:
                raise Crash

        with monkeypatch.context() as patch, pytest.raises(Crash):
            for module in (moving, moves):
                patch.setattr(module, "reached", crash)
            publish(request)
        publish(request)
    if "--late" in options:
        time.sleep(0.5)  # as above
    assert tree(tmp_path / "inbox") == set()
    (root / "inbox").mkdir()
    assert_whole(root, contents)


@pytest.mark.parametrize(("options", "_move"), KINDS.values(), ids=KINDS)
def test_a_name_that_is_taken_is_left_alone(root_on, options, _move):
    """With our very bytes or with others, as a file or as a link: nothing of it is replaced or removed."""
    root = root_on(options, "rename,link")
    (root / "done").mkdir()
    for number, name in enumerate(("0.wav", "1.json", "2.txt")):
        content = {"0.wav": b"audio", "1.json": b"{}", "2.txt": b"text\n"}[name]
        (root / "done" / name).write_bytes(content)
        request = drop(root, number, b"audio")
        for _ in range(3):
            with pytest.raises(NameTaken):
                publish_until_done(request)
    assert set(os.listdir(root / "done")) == {"0.wav", "1.json", "2.txt"}
    assert tree(root / "inbox") == {"0.wav", "1.wav", "2.wav"}


@pytest.mark.parametrize(("options", "_move"), KINDS.values(), ids=KINDS)
def test_audio_that_was_replaced_or_taken_away_leaves_nothing_of_ours(root_on, options, _move):
    """After a move that the mount refused for a while."""
    root = root_on(options)
    request = drop(root, 0, b"audio")
    (root / "inbox/0.wav").unlink()
    with pytest.raises(AudioMissing):
        publish(request)
    (root / "inbox/0.wav").write_bytes(b"another recording")
    with pytest.raises(AudioChanged):
        publish(request)
    assert not (root / "done").exists()
    assert tree(root / "inbox") == {"0.wav"}


def test_files_are_published_where_libc_has_neither_statx_nor_renameat2(tmp_path, monkeypatch):
    """As in Alpine: musl has had statx since 1.2.5, and renameat2 for an even shorter time."""
    for module in (capabilities, moves):
        monkeypatch.setattr(module, "_libc", object())
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "call.wav").write_bytes(b"audio")
    publish(publication_of(tmp_path / "inbox" / "call.wav", tmp_path / "done"))
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert tree(tmp_path / "inbox") == set()


@pytest.mark.parametrize("name", ["cifs", "smb3"])
def test_a_rename_of_the_kernels_smb_client_is_not_trusted(tmp_path, monkeypatch, name):
    """It checks RENAME_NOREPLACE by itself and overwrites a name that was taken on the server meanwhile."""
    monkeypatch.setattr(capabilities, "mount_of", lambda file: replace(mount_of(file), name=name))
    with beneath.closing(beneath.open_root(os.fsencode(tmp_path))) as folder:
        assert capabilities.capabilities_of(folder).move is Move.LINK


@pytest.mark.parametrize(("options", "warned"), [(("--one-inode",), False), (KINDS["nothing"][0], True)])
def test_check_tells_of_a_mount_without_a_safe_move(tmp_path, capsys, options, warned):
    """By trying there what publishing will do."""
    scene = Scene(tmp_path)
    with mounted_lossy(tmp_path / "backing", tmp_path / "done", *options):
        scene.run("check")
    said = "".join(capsys.readouterr())
    assert ("has no move that never overwrites" in said) == warned
    assert os.listdir(tmp_path / "backing") == []


TRIAL = """
import os, signal, sys
from dropscribe.files import beneath, capabilities

def stop(*_):
    print("in the trial", flush=True)
    signal.pause()

capabilities._works = stop
with beneath.closing(beneath.open_root(os.fsencode(sys.argv[1]))) as folder:
    capabilities.capabilities_of(folder)
"""


def test_what_a_killed_trial_left_is_removed_by_the_next_one_and_a_running_trial_is_let_be(
    tmp_path, monkeypatch
):
    """At once, not only when it is old: the next trial on the mount may be months away."""
    with ExitStack() as stack:
        trials = []
        for _ in range(2):
            command = [sys.executable, "-c", TRIAL, str(tmp_path)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout.readline() == "in the trial\n"
            trials.append(process)
        killed, running = trials
        # Another user's process may be hidden there (hidepid).
        monkeypatch.setattr(os.path, "exists", lambda _: False)
        killed.kill()
        killed.wait()
        try_out(tmp_path)
        (left,) = (tmp_path / ".dropscribe-trial").iterdir()
        assert f".{running.pid}." in left.name
    capabilities._known.clear()
    try_out(tmp_path)
    assert os.listdir(tmp_path) == []


def try_out(folder):
    with beneath.closing(beneath.open_root(os.fsencode(folder))) as opened:
        assert capabilities.capabilities_of(opened).is_safe
