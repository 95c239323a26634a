"""Both hint sources keep one promise; and what each does when the system has had enough."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
import time
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from dropscribe.intake import listing
from dropscribe.intake.hints import HintKind, HintsUnavailable, InotifyHints, WatchdogHints, open_hints
from support.inboxes import Station, running, wait_until, wav

CREATED, CLOSED, MOVED = HintKind.CREATED, HintKind.CLOSED, HintKind.MOVED
LIMITS = "/proc/sys/fs/inotify/"


class Ear:
    """Collects hints until those that a test waits for have come."""

    def __init__(self, source):
        self.source, self.heard = source, []

    def wait_for(self, *hints, seconds=10.0):
        until = time.monotonic() + seconds
        while not set(hints) <= set(self.heard):
            self.heard += self.source.read()
            left = until - time.monotonic()
            assert left > 0, f"waited for {hints}, heard {self.heard}"
            select.select([self.source], [], [], min(left, 0.2))
        return self.heard


def watch(source, folder, name=""):
    """Watch a folder of the inbox, as a listing does: open, by its descriptor."""
    descriptor = os.open(folder / name, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return source.watch(os.fsencode(name), descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def folder(tmp_path):
    """An inbox."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


@pytest.fixture(params=[InotifyHints, WatchdogHints])
def ear(request, folder):
    """Each of the sources on the inbox."""
    source = InotifyHints() if request.param is InotifyHints else WatchdogHints(os.fsencode(folder))
    watch(source, folder)
    yield Ear(source)
    source.close()


@pytest.fixture
def limit():
    """Sets an inotify limit of the kernel for one test."""
    before = {}

    def set_limit(name, value):
        if not os.access(LIMITS + name, os.W_OK):
            pytest.skip("the kernel's limits cannot be changed here")
        with open(LIMITS + name, "r+") as file:
            before.setdefault(name, file.read())
            file.seek(0)
            file.write(str(value))

    yield set_limit
    for name, value in before.items():
        with open(LIMITS + name, "w") as file:
            file.write(value)


def test_a_written_file_is_closed(ear, folder):
    """Its close is hinted under its name."""
    (folder / "a.wav").write_bytes(wav())
    ear.wait_for((CLOSED, b"a.wav"))


def test_a_file_moved_in_is_hinted(ear, folder, tmp_path):
    """From outside: as a move, or at least as a new name."""
    (tmp_path / "a.wav").write_bytes(wav())
    os.rename(tmp_path / "a.wav", folder / "a.wav")
    (folder / "end.wav").write_bytes(b"")
    heard = ear.wait_for((CLOSED, b"end.wav"))
    assert {(CREATED, b"a.wav"), (MOVED, b"a.wav")} & set(heard)


def test_a_rename_is_a_move_to_the_new_name(ear, folder):
    """Which is how uploads commit."""
    (folder / "a.part").write_bytes(wav())
    os.rename(folder / "a.part", folder / "a.wav")
    ear.wait_for((MOVED, b"a.wav"))


def test_a_link_is_a_new_name(ear, folder, tmp_path):
    """A hard link is never closed."""
    (tmp_path / "a.wav").write_bytes(wav())
    os.link(tmp_path / "a.wav", folder / "a.wav")
    ear.wait_for((CREATED, b"a.wav"))


def test_any_bytes_are_a_name(ear, folder):
    """Names come back as the bytes they are."""
    name = b"\xff\n'\xfe.wav"
    with open(os.fsencode(folder) + b"/" + name, "wb"):
        pass
    ear.wait_for((CLOSED, name))


def test_a_new_folder_is_hinted_and_then_watched(ear, folder):
    """Its watch comes before its listing; files in it are hinted from then on."""
    (folder / "new").mkdir()
    ear.wait_for((HintKind.FOLDER, b"new"))
    watch(ear.source, folder, "new")
    (folder / "new" / "a.wav").write_bytes(wav())
    ear.wait_for((CLOSED, b"new/a.wav"))


def test_a_renamed_folder_tells_its_new_name(ear, folder):
    """What was known below the old name is void."""
    (folder / "old").mkdir()
    ear.wait_for((HintKind.FOLDER, b"old"))
    watch(ear.source, folder, "old")
    os.rename(folder / "old", folder / "new")
    ear.wait_for((HintKind.FOLDER_GONE, b"old"), (HintKind.FOLDER, b"new"))
    watch(ear.source, folder, "new")
    (folder / "new" / "a.wav").write_bytes(wav())
    ear.wait_for((CLOSED, b"new/a.wav"))


def test_the_end_of_the_watched_folder_is_told(folder):
    """Deleted, nothing more will come from it."""
    source = InotifyHints()
    watch(source, folder)
    shutil.rmtree(folder)
    assert (HintKind.ROOT_GONE, b"") in source.read()
    source.close()


def test_reading_never_blocks_and_closing_twice_is_safe(ear):
    """With nothing to tell there is nothing to wait for."""
    assert ear.source.read() == []
    ear.source.close()
    ear.source.close()


def test_a_folder_moved_out_is_not_listened_to(folder, tmp_path):
    """Its watch would go on telling names that are not in the inbox any more."""
    (folder / "day").mkdir()
    source = InotifyHints()
    watch(source, folder)
    watch(source, folder, "day")
    os.rename(folder / "day", tmp_path / "day")
    assert source.read() == [(HintKind.FOLDER_GONE, b"day"), (HintKind.FOLDER, b"day")]
    (tmp_path / "day" / "a.wav").write_bytes(wav())
    assert source.read() == []
    source.close()


def test_a_folder_listed_before_its_move_is_heard_of_is_listed_again(folder):
    """The event of its new name comes first; it is watched under that by then, and stays so."""
    (folder / "old").mkdir()
    source = InotifyHints()
    watch(source, folder, "old")
    os.rename(folder / "old", folder / "new")
    watch(source, folder, "new")
    assert source.read() == [(HintKind.FOLDER_GONE, b"new"), (HintKind.FOLDER, b"new")]
    watch(source, folder, "new")
    (folder / "new" / "a.wav").write_bytes(wav())
    assert (CLOSED, b"new/a.wav") in source.read()
    source.close()


def test_a_file_that_leaves_wakes_nobody(folder, tmp_path):
    """Every recording leaves when it is filed; its inbox has nothing to do then."""
    (folder / "a.wav").write_bytes(wav())
    source = InotifyHints()
    watch(source, folder)
    os.rename(folder / "a.wav", tmp_path / "a.wav")
    assert select.select([source], [], [], 0.1)[0] == []
    source.close()


def test_an_overflow_is_told(folder, limit):
    """More events than the kernel keeps, while nobody reads."""
    limit("max_queued_events", 16)
    source = InotifyHints()
    watch(source, folder)
    for number in range(60):
        (folder / f"{number}.wav").write_bytes(b"")
    assert (HintKind.LOST, b"") in source.read()
    source.close()


def test_what_an_overflow_lost_is_found(folder, limit):
    """The inbox is listed again, within a second, and nothing is missed."""
    limit("max_queued_events", 16)
    station = Station(folder, watch="native").run()
    for number in range(500):
        station.write(f"{number}.wav")
    station.run(1.1)
    assert len(station.paths) == 500
    assert station.state.overflows > 0
    station.close()


def test_without_watches_the_listing_comes_more_often(folder, monkeypatch):
    """Where the limit of watches is reached, what is unwatched is polled."""

    class Limited(InotifyHints):
        def watch(self, directory, descriptor):
            if len(self._paths) == 3:
                self._libc = SimpleNamespace(inotify_add_watch=_refuse_watch)
            return super().watch(directory, descriptor)

    for number in range(9):
        (folder / str(number)).mkdir()
    with capture_logs() as logs:
        station = Station(folder, open_source=lambda _rule, _mount: Limited()).run()
    for number in range(9):
        station.write(f"{number}/a.wav")
    station.run(5.5)
    assert len(station.paths) == 9
    assert [line["watches"] for line in logs if line["event"] == "watch.limit_reached"] == [3]
    station.close()


def _refuse_watch(*_):
    ctypes.set_errno(errno.ENOSPC)
    return -1


def test_a_folder_that_is_renamed_to_and_fro_is_listed_once(folder, monkeypatch):
    """Its many hints cost no listing and no memory each."""
    station = Station(folder).run()
    listed = []
    real = listing.open_listable_folder
    monkeypatch.setattr(
        listing, "open_listable_folder", lambda root, path: listed.append(path) or real(root, path)
    )
    (folder / "one").mkdir()
    for _ in range(100):
        (folder / "one").rename(folder / "other")
        (folder / "other").rename(folder / "one")
    station.run()
    assert sorted(listed) == [b"one", b"other"]
    station.close()


def test_without_an_instance_the_library_is_asked_then_the_inbox_polled(folder, limit):
    """The limit of inotify instances is no reason to fail."""
    limit("max_user_instances", 1)
    held = []
    with pytest.raises(HintsUnavailable):
        held.extend(InotifyHints() for _ in range(200))
    station = Station(folder, watch="native").run()
    assert station.state.watch == "poll"
    station.write("a.wav")
    assert station.run(5.1).paths == [b"a.wav"]
    station.close()
    for source in held:
        source.close()


def test_where_inotify_is_missing_the_library_watches(folder, monkeypatch):
    """A system without inotify gets the library's own choice."""

    class NoInotify:
        def __init__(self, *_names, **_options):
            pass

    WatchdogHints(os.fsencode(folder)).close()  # the library looks for inotify when it is loaded
    monkeypatch.setattr("dropscribe.intake.hints.ctypes.CDLL", NoInotify)
    station = Station(folder, watch="native")
    source = open_hints(station.rule, None)
    assert isinstance(source, WatchdogHints)
    source.close()


def test_what_the_library_loses_is_found_as_soon_as_without_hints(folder):
    """It tells of no loss, so its inbox is listed every five seconds."""

    class Deaf(WatchdogHints):
        def dispatch(self, event):
            del event

    station = Station(folder, open_source=lambda rule, _mount: Deaf(os.fsencode(rule.inbox))).run()
    station.write("a.wav")
    assert station.run(5.1).paths == [b"a.wav"]
    station.close()


def test_with_the_library_nothing_is_missed_either(folder, tmp_path):
    """Written, moved in, in new trees, moved with their tree: all are taken through the other source too."""
    (tmp_path / "out" / "tree").mkdir(parents=True)
    (tmp_path / "out" / "tree" / "d.wav").write_bytes(wav())
    (tmp_path / "out" / "b.wav").write_bytes(wav())
    station = Station(folder, open_source=lambda rule, _mount: WatchdogHints(os.fsencode(rule.inbox)))
    station.inbox._clock = time.monotonic
    with running(station.inbox):
        wait_until(lambda: station.inbox.state().scanned_once)
        station.write("a.wav")
        os.rename(tmp_path / "out" / "b.wav", folder / "b.wav")
        station.write("x/y/z/c.wav")
        os.rename(tmp_path / "out" / "tree", folder / "tree")
        wait_until(lambda: station.paths == [b"a.wav", b"b.wav", b"tree/d.wav", b"x/y/z/c.wav"])


# Mounts


@pytest.fixture
def mount(tmp_path):
    """Mounts a tmpfs, where the test may; all are gone in the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = []

    def mount_at(path):
        if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, None):
            pytest.skip("mounting is not allowed here")
        mounted.append(path)

    def unmount(path):
        assert libc.umount2(os.fsencode(path), 2) == 0  # MNT_DETACH
        mounted.remove(path)

    mount_at.undo = unmount
    yield mount_at
    while mounted:
        unmount(mounted[-1])


def test_an_unmounted_share_is_away_until_it_is_mounted(folder, tmp_path, mount):
    """Its bare mount point is not an empty inbox, and nothing on it has vanished."""
    mount(folder)
    station = Station(folder).run()
    station.write("a.wav")
    station.run()
    device = station.device
    mount.undo(folder)
    station.run(200)
    assert "is it mounted?" in station.state.reason
    assert station.queue.withdrawn == []
    for number in range(20):  # until one takes the device number that has become free, or another process has
        other = tmp_path / f"other-{number}"
        other.mkdir()
        mount(other)
        if other.stat().st_dev == device:
            break
    mount(folder)
    station.run(3)
    assert station.state.available
    assert station.device != device
    station.write("b.wav")
    station.run(200)
    assert station.paths == [b"a.wav", b"b.wav"]
    station.close()


def test_what_is_mounted_over_the_inbox_is_watched(folder, mount):
    """No event tells of it; the folder's identity does."""
    station = Station(folder, watch="native").run()
    mount(folder)
    station.run(2.1)
    station.write("a.wav")
    assert station.run().paths == [b"a.wav"]
    station.close()


def test_a_share_mounted_within_the_inbox_is_treated_by_its_own_kind(folder, mount):
    """Sub-mounts are watched where events come from them, and files on them are files of their device."""
    (folder / "share").mkdir()
    mount(folder / "share")
    station = Station(folder, watch="native").run()
    station.write("share/a.wav")
    station.run()
    assert station.paths == [b"share/a.wav"]
    assert station.queue.taken[0].snapshot.device != station.device
    mount.undo(folder / "share")
    station.inbox.look_again()
    station.run(200)
    assert station.queue.withdrawn == []
    station.close()
