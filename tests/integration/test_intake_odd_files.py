"""Files that are unusual: odd dates, endless writers, downloads, files that the queue cannot store."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dropscribe.core.settling import Cause, Completeness, Lease, QuietTimes, Seen, Signs, decide
from dropscribe.files import mounts
from dropscribe.files.audio import snapshot_of
from dropscribe.files.mounts import LeaseSupport, lease_support
from dropscribe.intake.availability import TAKEN, TAKEN_BY_US, InboxRoot
from dropscribe.intake.inbox import Inbox
from dropscribe.intake.probe import ProbeResult
from support.inboxes import Station, running, wait_until, wav

DAY = 86_400.0
INT64 = range(-(2**63), 2**63)


@pytest.fixture
def inbox_dir(tmp_path):
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def station(inbox_dir):
    """A polled inbox under a manual clock."""
    made = Station(inbox_dir)
    yield made
    made.close()


# Numbers from outside


@pytest.mark.parametrize("year", [1601, 1677, 1970, 2106, 2262, 2300, 2446])
def test_no_date_of_a_file_exceeds_the_database(year):
    """Each time that a file system may report becomes a number of 64 bits."""
    nanoseconds = (year - 1970) * 31_556_952 * 10**9
    seen = snapshot_of(_Status(nanoseconds))
    assert seen.mtime_ns in INT64
    assert seen.ctime_ns in INT64


class _Status:
    """What stat says of a file with this date."""

    def __init__(self, nanoseconds):
        self.st_dev, self.st_ino, self.st_size = 1, 2**64 - 1, 10
        self.st_mtime_ns = self.st_ctime_ns = nanoseconds


def test_a_file_of_the_year_2300_does_not_stop_its_inbox(station, inbox_dir):
    """It is taken, and so are its neighbours."""
    station.write("odd.wav")
    station.write("good.wav")
    os.utime(inbox_dir / "odd.wav", ns=(10_413_792_000 * 10**9,) * 2)
    station.run(6)
    assert station.paths == [b"good.wav", b"odd.wav"]
    assert all(job.snapshot.mtime_ns in INT64 for job in station.queue.taken)


def test_a_file_that_the_queue_cannot_store_waits_alone(station):
    """Its neighbours of the same batch are taken; it is named with its reason, and taken once it can be."""
    submit = station.queue.submit

    def refuse(jobs):
        if any(job.path == b"odd.wav" for job in jobs):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        return submit(jobs)

    station.queue.submit = refuse
    for number in range(20):
        station.write(f"{number:02}.wav")
    station.write("odd.wav")
    with capture_logs() as logs:
        station.run(600)
    assert len(station.paths) == 20
    assert "too large" in station.waiting[b"odd.wav"]
    assert [line["event"] for line in logs].count("file.refused") == 1
    station.queue.submit = submit
    station.run(60)
    assert b"odd.wav" in station.paths


def test_a_bug_in_one_look_holds_up_no_other_file(station, monkeypatch):
    """The file waits with the reason, the others of its batch are taken."""
    from dropscribe.intake import probe

    examine = probe.examine

    def broken(read_at, size_bytes, suffix):
        if suffix == ".flac":
            raise ZeroDivisionError("division by zero")
        return examine(read_at, size_bytes, suffix)

    monkeypatch.setattr(probe, "examine", broken)
    station.write("a.flac")
    station.write("b.wav")
    station.run(60)
    assert station.paths == [b"b.wav"]
    assert "division by zero" in station.waiting[b"a.flac"]


# Waits without end


@given(st.sampled_from(Lease), st.sampled_from(Completeness), st.sampled_from(Seen), st.integers(0, 2**40))
def test_no_number_of_looks_breaks_the_decision(lease, completeness, seen, looks):
    """After a writer of a year or a million late changes the wait still is a number of seconds."""
    verdict = decide(
        Signs(10, lease, completeness, seen), 0.0, QuietTimes(), writer_looks=looks, late_changes=looks
    )
    assert 0 <= getattr(verdict, "seconds", 0) <= 900


def _pass_days(station, days):
    """So many days in looks of ten minutes, as on a machine that sleeps in between."""
    for _ in range(int(days * DAY / 600)):
        station.now += 600
        station.inbox.step(station.now)


def test_a_writer_of_a_week_holds_up_no_other_file(station):
    """It is looked at once a minute; a file that comes after days is taken at once."""
    with open(station.write("open.wav"), "ab"):
        _pass_days(station, 7)
        station.write("late.wav")
        station.run(10)
        assert station.paths == [b"late.wav"]


@pytest.mark.parametrize("kind", ["unreadable", "twin"])
def test_a_file_that_waits_for_days_holds_up_no_other(station, inbox_dir, monkeypatch, kind):
    """Neither a file that may not be read nor a second name of a waiting one."""
    path = station.write("a.wav")
    if kind == "twin":
        station.run(1)
        os.link(path, inbox_dir / "b.wav")
    else:
        monkeypatch.setattr("dropscribe.intake.probe.open_with_status", _refuse_open(b"a.wav"))
    _pass_days(station, 3)
    station.write("late.wav")
    station.run(10)
    assert b"late.wav" in station.paths
    assert len(station.waiting) == 1


def _refuse_open(refused):
    from dropscribe.files import beneath

    def open_with_status(folder, name, *flags):
        if name == refused:
            raise PermissionError(13, "Permission denied")
        return beneath.open_with_status(folder, name, *flags)

    return open_with_status


def test_a_writer_that_never_writes_is_named(station):
    """After five minutes without a change the state says so, with the way out."""
    with open(station.write("open.wav"), "ab"):
        station.run(200)
        assert not station.state.waiting[0].is_idle_writer(station.now)
        station.run(200)
        assert station.state.waiting[0].is_idle_writer(station.now)
        assert "settle: ignore_writers" in station.waiting[b"open.wav"]


def test_a_rule_may_ignore_writers(inbox_dir):
    """A file server that never closes: the file is taken after five minutes without a change, not before."""
    station = Station(inbox_dir, settle_ignores_writers=True)
    with open(station.write("a.wav"), "ab") as file:
        station.run(200)
        os.write(file.fileno(), b"\0\0")
        station.run(290)
        assert station.paths == []
        assert "after 300 s without a change" in station.waiting[b"a.wav"]
        station.run(120)
        assert station.paths == [b"a.wav"]
    station.close()


def test_min_age_delays_even_a_whole_file(inbox_dir):
    """A sender that reads its upload back finds it where it was."""
    station = Station(inbox_dir, min_age_seconds=60.0)
    path = station.write("a.wav")
    station.run(50)
    os.utime(path)
    station.run(55)
    assert station.paths == []
    assert station.waiting[b"a.wav"].startswith("it is younger than min_age: it is taken in ")
    station.run(20)
    assert station.paths == [b"a.wav"]
    station.close()


def test_min_age_counts_from_the_last_change_before_the_start_too(inbox_dir, monkeypatch):
    """A file that has been there for longer waits no more, after a restart and in each ``run --once``."""
    (inbox_dir / "old.wav").write_bytes(wav())
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    station = Station(inbox_dir, min_age_seconds=600.0)
    station.run(10)
    assert station.paths == [b"old.wav"]
    station.close()
    (inbox_dir / "younger.wav").write_bytes(wav())
    station = Station(inbox_dir, min_age_seconds=4200.0)
    station.run(590)
    assert station.paths == []
    station.run(20)
    assert sorted(station.paths) == [b"old.wav", b"younger.wav"]
    station.close()


def test_min_age_counts_no_time_twice(inbox_dir, monkeypatch):
    """The time between a file's discovery and the first look that could open it is a part of its age."""
    real, station = time.time, Station(inbox_dir, min_age_seconds=600.0)
    monkeypatch.setattr(time, "time", lambda: real() + station.now - 1000.0)
    station.write("a.wav")
    with monkeypatch.context() as patch:
        patch.setattr("dropscribe.intake.probe.open_with_status", _refuse_open(b"a.wav"))
        station.run(350)
    station.run(240)
    assert station.paths == []
    station.run(20)
    assert station.paths == [b"a.wav"]
    station.close()


def test_a_wait_of_an_old_file_that_is_moved_in_counts_from_then(inbox_dir, monkeypatch):
    """A folder of recordings that is moved into the inbox keeps their times, which are weeks ago."""
    monkeypatch.setattr(ProbeResult, "age_seconds", 3600.0)
    station = Station(inbox_dir)
    station.run(10)
    (inbox_dir.parent / "tape").mkdir()
    (inbox_dir.parent / "tape/old.wav").write_bytes(wav())
    (inbox_dir.parent / "tape").rename(inbox_dir / "tape")
    station.run(300)
    (job,) = station.queue.taken
    assert job.received_at == pytest.approx(time.time(), abs=30)
    station.close()


def test_a_wait_counts_from_the_arrival_also_after_a_restart(inbox_dir, monkeypatch):
    """The oldest waiting file is no younger because the daemon looks at it for the first time."""
    path = inbox_dir / "old.wav"
    path.write_bytes(wav())
    arrived_at = time.time() - 3600.0
    monkeypatch.setattr(ProbeResult, "age_seconds", 3600.0)
    station = Station(inbox_dir, min_age_seconds=7200.0)
    station.run(10)
    assert station.state.oldest_settling_at == pytest.approx(arrived_at, abs=30)
    os.utime(path)  # it came before it was touched
    station.run(10)
    assert station.state.oldest_settling_at == pytest.approx(arrived_at, abs=30)
    station.run(7200)
    (job,) = station.queue.taken
    assert job.received_at == pytest.approx(arrived_at, abs=30)
    station.close()


def _append(path):
    with path.open("ab") as file:
        file.write(bytes(8))


def _open_and_close(path):
    path.open("ab").close()


@pytest.mark.parametrize("is_watched", [True, False])
@pytest.mark.parametrize("touch", [_append, _open_and_close])
def test_a_change_ends_the_age_that_a_file_had_when_it_was_found(inbox_dir, monkeypatch, touch, is_watched):
    """From then on it must be quiet for the whole of min_age, whether a hint or a look notices the change."""
    path = inbox_dir / "old.wav"
    path.write_bytes(wav())
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    source = {} if is_watched else {"open_source": lambda *_: None}
    station = Station(inbox_dir, min_age_seconds=4200.0, **source)
    station.run(300)
    if touch is _open_and_close and not is_watched:
        with path.open("ab"):
            station.run(300)  # a look finds the writer
    else:
        touch(path)
    station.run(4100)
    assert station.paths == []
    station.run(300)
    assert station.paths == [b"old.wav"]
    station.close()


@pytest.mark.parametrize("leases", LeaseSupport)
def test_a_file_has_an_age_only_where_this_machine_sets_its_times(tmp_path, leases):
    """A server's clock may be hours off, and min_age would be over before the file has arrived."""
    (tmp_path / "a.wav").write_bytes(wav())
    snapshot = replace(snapshot_of(os.stat(tmp_path / "a.wav")), mtime_ns=0, ctime_ns=0)
    mount = replace(mounts.MountCache().of(os.stat(tmp_path).st_dev, os.fsencode(tmp_path)), leases=leases)
    probe = ProbeResult(snapshot, Lease.FREE, Completeness.COMPLETE, mount)
    assert (probe.age_seconds > 0) == (leases is LeaseSupport.FULL)


# Downloads


@pytest.mark.parametrize("suffix", [".aria2", ".part", ".!qB", ".crdownload", ".filepart", ".st"])
def test_a_download_that_has_not_finished_waits(station, inbox_dir, suffix):
    """Its final name has its final size from the start; the program's own file beside it tells."""
    station.write("a.wav")
    (inbox_dir / f"a.wav{suffix}").write_bytes(b"state")
    station.write("b.wav")
    station.run(3600)
    assert station.paths == [b"b.wav"]
    assert f"a.wav{suffix}" in station.waiting[b"a.wav"]
    (inbox_dir / f"a.wav{suffix}").unlink()
    station.run(65)
    assert station.paths == [b"a.wav", b"b.wav"]


def test_a_torrent_of_several_files_waits(station, inbox_dir):
    """There the control file is beside the folder."""
    station.write("album/disc/a.wav")
    (inbox_dir / "album.aria2").write_bytes(b"state")
    station.run(600)
    assert station.paths == []
    (inbox_dir / "album.aria2").unlink()
    station.run(65)
    assert station.paths == [b"album/disc/a.wav"]


def test_the_longest_name_has_no_control_file(station):
    """A name to which nothing can be appended is taken."""
    name = "x" * 251 + ".wav"
    station.write(name)
    assert station.run(6).paths == [name.encode()]


# Leases


def test_no_lease_is_asked_for_where_a_server_decides(inbox_dir, monkeypatch):
    """There a refusal means a missing delegation or oplock, and says nothing of writers."""
    monkeypatch.setattr(mounts, "lease_support", lambda _: LeaseSupport.NONE)
    path = inbox_dir / "a.wav"
    path.write_bytes(wav())
    with open(path, "ab"), open(path, "rb") as reader:
        assert mounts.probe_lease(reader.fileno()) is Lease.UNKNOWN
        assert mounts.hold_lease(reader.fileno()) is Lease.UNKNOWN


@pytest.mark.parametrize(
    ("magic", "support"),
    [
        (0xEF53, LeaseSupport.FULL),
        (0x01021994, LeaseSupport.FULL),
        (0x4D44, LeaseSupport.LOCAL_WRITERS),
        (0x65735546, LeaseSupport.LOCAL_WRITERS),
        (0x6969, LeaseSupport.NONE),
        (0xFF534D42, LeaseSupport.NONE),
        (0xFE534D42, LeaseSupport.NONE),
        (0x01021997, LeaseSupport.NONE),
        (0x12345678, LeaseSupport.NONE),
    ],
)
def test_lease_support_goes_by_the_file_system(monkeypatch, magic, support):
    """Local file systems, FUSE, and network or unknown ones."""
    monkeypatch.setattr("dropscribe.files.mounts._magic_of", lambda _: magic)
    assert lease_support(0) is support


def test_a_mount_without_a_source_is_known(inbox_dir, monkeypatch):
    """mount(2) takes "" as the source; the kernel shows nothing between the two spaces then."""
    device = inbox_dir.stat().st_dev
    line = f"44 27 {os.major(device)}:{os.minor(device)} / /mnt rw - tmpfs  rw,noatime\n"
    monkeypatch.setattr(mounts, "open", lambda *_: io.BytesIO(line.encode()), raising=False)
    assert mounts.mount_of(bytes(inbox_dir)).name == "tmpfs"


@pytest.mark.parametrize("take", [mounts.probe_lease, mounts.hold_lease])
def test_a_lease_ends_with_its_file(inbox_dir, take):
    """Until the file is closed no writer can open it; then it can at once."""
    path = inbox_dir / "a.wav"
    path.write_bytes(wav())
    with open(path, "rb") as reader:
        assert take(reader.fileno()) is Lease.FREE
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def test_no_lease_is_taken_while_sigio_would_end_the_process(inbox_dir):
    """Nothing is said of writers then."""
    path = inbox_dir / "a.wav"
    path.write_bytes(wav())
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    try:
        with open(path, "rb") as reader:
            assert mounts.probe_lease(reader.fileno()) is Lease.UNKNOWN
            assert mounts.hold_lease(reader.fileno()) is Lease.UNKNOWN
    finally:
        mounts.ignore_sigio()


# The lock


def _root(inbox_dir):
    return InboxRoot(os.fsencode(inbox_dir))


def _abstract_names(inbox_dir):
    status = inbox_dir.stat()
    return [b"\0dropscribe/inbox/%d:%d/%d" % (status.st_dev, status.st_ino, each) for each in range(4)]


@pytest.fixture
def stranger(inbox_dir):
    """Binds names as another user; its process ends with the test."""
    if os.geteuid() != 0:
        pytest.skip("needs another user")
    children = []

    def bind(count, kind=socket.SOCK_STREAM):
        readable, writable = os.pipe()
        names = _abstract_names(inbox_dir)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            held = [socket.socket(socket.AF_UNIX, kind) for _ in range(count)]
            for sock, name in zip(held, names, strict=False):
                sock.bind(name)
                if kind == socket.SOCK_STREAM:
                    sock.listen()
            os.write(writable, b"x")
            signal.pause()
            os._exit(0)
        children.append(child)
        os.close(writable)
        assert os.read(readable, 1) == b"x"
        os.close(readable)

    yield bind
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("count", [1, 3])
def test_another_user_cannot_take_the_lock(inbox_dir, stranger, kind, count):
    """Its socket is passed over, and two daemons still exclude each other."""
    stranger(count, kind)
    first, second = _root(inbox_dir), _root(inbox_dir)
    assert first.check() == ""
    assert second.check() == TAKEN_BY_US
    first.unlock()
    assert second.check() == ""
    second.unlock()


def test_another_process_of_the_same_user_is_another_daemon(inbox_dir):
    """The listener's process tells it from a thread of this daemon that has not ended yet."""
    code = "import sys; from dropscribe.intake.availability import InboxRoot\n"
    code += "root = InboxRoot(sys.argv[1].encode()); print(repr(root.check()), flush=True); input()"
    command = [sys.executable, "-c", code, str(inbox_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "''\n"
        assert _root(inbox_dir).check() == TAKEN
        # A node of a cluster locks nothing, and leaves the inbox to a daemon with a queue of its own.
        node = InboxRoot(os.fsencode(inbox_dir), exclusive=False)
        assert (node.check(), node.identity) == (TAKEN, None)
        other.communicate("\n")
    assert node.check() == ""
    root = _root(inbox_dir)
    assert root.check() == ""
    root.unlock()


def test_a_stranger_who_holds_all_names_does_not_stop_the_daemon(inbox_dir, stranger):
    """The inbox is used, and the log says that it is not guarded."""
    stranger(4)
    root = _root(inbox_dir)
    with capture_logs() as logs:
        assert root.check() == ""
    assert [line["event"] for line in logs] == ["inbox.unguarded"]
    root.unlock()


def test_a_stranger_who_leaves_changes_nothing(inbox_dir, stranger):
    """A daemon behind a stranger's name is found by one that gets the freed name."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    held.bind(_abstract_names(inbox_dir)[0])  # no listener: nobody of ours
    first, second = _root(inbox_dir), _root(inbox_dir)
    assert first.check() == ""
    held.close()
    assert second.check() == TAKEN_BY_US
    first.unlock()


def test_a_thousand_probes_do_not_fill_the_lock(inbox_dir):
    """Each leaves a connection, which the holder's next look removes."""
    first, second = _root(inbox_dir), _root(inbox_dir)
    assert first.check() == ""
    for _ in range(1000):
        assert second.check() == TAKEN_BY_US
        assert first.check() == ""
    first.unlock()


def test_probes_that_are_not_answered_free_no_lock(inbox_dir):
    """The holder's thread may be busy for minutes."""
    first, second = _root(inbox_dir), _root(inbox_dir)
    assert first.check() == ""
    assert {second.check() for _ in range(500)} == {TAKEN_BY_US}
    first.unlock()


# The thread


def _descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_a_stopped_inbox_leaves_no_descriptor(inbox_dir):
    """Each reload that changes a rule stops one, whether it had begun or not."""
    station = Station(inbox_dir, watch="native")
    station.close()
    before = _descriptors()
    for round_ in range(20):
        inbox = Inbox(station.rule, station.queue, lambda: None)
        if round_ % 2:
            with running(inbox):
                wait_until(lambda inbox=inbox: inbox.state().scanned_once)
        else:
            inbox.stop()
    wait_until(lambda: _descriptors() <= before)


def test_the_state_is_a_snapshot(inbox_dir):
    """Another thread may read it while a thousand files come and go."""
    station = Station(inbox_dir, watch="native")
    inbox = Inbox(station.rule, station.queue, lambda: None)
    is_over, failures, seen = threading.Event(), [], []

    def read():
        while not is_over.is_set():
            try:
                seen.append(state := inbox.state())
                [file.describe(0.0) for file in state.waiting]
                is_over.wait(0.001)
            except Exception as error:  # noqa: BLE001  # any at all is a failure
                failures.append(error)
                return

    with running(inbox):
        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for number in range(1000):
            (inbox_dir / f"{number}.mp3").write_bytes(b"\xff\xfb\x90\0" * 8)
            if number % 3 == 0:
                (inbox_dir / f"{number}.mp3").unlink()
        wait_until(lambda: len(station.queue.taken) > 100)
        is_over.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert seen
    station.close()


def test_every_cause_has_a_sentence(station):
    """Whatever a file waits for, `why` says it in words."""
    from dropscribe.intake.pending import WaitingFile

    for cause in Cause:
        assert WaitingFile(b"a.wav", cause, "note", 0.0, 10.0).describe(5.0)
