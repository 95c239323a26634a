"""One inbox on real files, with time under the test's control."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import threading

import pytest
from structlog.testing import capture_logs

from dropscribe.core.errors import StoreAway, StoreFull
from dropscribe.intake import pending
from dropscribe.intake.inbox import Inbox
from dropscribe.intake.scanner import Scanner
from support.faults import let_others_pass
from support.inboxes import Station, link_unnamed, running, wait_until, wav


@pytest.fixture
def inbox_dir(tmp_path):
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture(params=["native", "poll"])
def station(request, inbox_dir):
    """An inbox with hints, and one without."""
    made = Station(inbox_dir, watch=request.param)
    yield made
    made.close()


@pytest.fixture
def native(inbox_dir):
    """An inbox with hints, listed once."""
    made = Station(inbox_dir, watch="native").run()
    yield made
    made.close()


def test_what_stands_there_at_the_start_is_taken(station):
    """Whole files are taken at once, those without a length after their quiet time, in any sub-folder."""
    station.write("a.wav")
    station.write("2026/11/b.wav")
    station.write("c.mp3", b"\xff\xfb" * 99)
    assert station.run().paths == [b"2026/11/b.wav", b"a.wav"]
    assert station.waiting == {b"c.mp3": "quiet for 0 s of 5 s"}
    assert station.state.waits_for_quiet
    assert b"c.mp3" not in station.run(4.9).paths
    assert b"c.mp3" in station.run(0.2).paths
    assert (station.state.settling, station.state.waits_for_quiet) == (0, False)


def test_a_new_file_is_taken_at_once_where_hints_come(native):
    """Moved in, or closed and whole by its header: no time passes."""
    native.write("closed.wav")
    os.rename(native.write("../moved.mp3", b"\xff\xfb" * 99), native.root + b"/moved.mp3")
    assert native.run().paths == [b"closed.wav", b"moved.mp3"]
    assert native.state.found_without_hint == 0


def test_without_hints_the_listing_finds_it(inbox_dir):
    """Polled, a file is found within five seconds."""
    station = Station(inbox_dir, watch="poll").run()
    station.write("a.wav")
    assert station.paths == []
    assert station.run(5.1).paths == [b"a.wav"]
    station.close()


def test_an_open_file_is_never_taken(station):
    """While a writer has it open it waits, however long that lasts, also at the start."""
    with open(station.write("a.wav"), "ab"):
        station.run(600)
        assert station.paths == []
        assert station.waiting[b"a.wav"].startswith("a writer has it open")
        assert not station.state.waits_for_quiet
    station.run(61)
    assert station.paths == [b"a.wav"]


def test_a_file_mapped_for_writing_is_open(station):
    """Closing the descriptor of a mapping does not end the writing."""
    descriptor = os.open(station.write("a.wav"), os.O_RDWR)
    mapping = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    station.run(120)
    assert station.paths == []
    mapping.close()
    station.run(61)
    assert station.paths == [b"a.wav"]


def test_a_file_that_grows_by_reopening_is_taken_when_it_is_whole(native):
    """Append and close, again and again: the header says when it is enough."""
    whole = wav(1000)
    path = native.write("a.wav", whole[:100])
    for start in range(100, len(whole), 100):
        native.run(3)
        assert native.paths == []
        with open(path, "ab") as file:
            file.write(whole[start : start + 100])
    assert native.run().paths == [b"a.wav"]
    assert native.queue.taken[0].incomplete is False


def test_a_dropped_upload_is_taken_and_marked(station):
    """A header that promises more is waited for, for a minute; then the file goes with a flag."""
    station.write("a.wav", wav(100, declared_bytes=5000))
    station.run(59)
    assert "its header says that more is to come" in station.waiting[b"a.wav"]
    assert station.paths == []
    station.run(7)
    assert station.queue.taken[0].incomplete is True


def test_an_empty_file_is_taken_after_the_settle_time(station):
    """It is handed over, for the work to fail it unsent."""
    station.write("a.wav", b"")
    station.run(59)
    assert station.paths == []
    station.run(7)
    assert station.queue.taken[0].snapshot.size_bytes == 0


def test_the_files_own_times_do_not_matter(station):
    """A file from the future or from 1980 settles like any other."""
    for name, at in (("future.mp3", 4e9), ("past.mp3", 3e8)):
        os.utime(station.write(name, b"\xff\xfb" * 99), (at, at))
    station.run(4)
    assert station.paths == []
    station.run(7)
    assert station.paths == [b"future.mp3", b"past.mp3"]


def test_only_regular_files_are_taken(station, tmp_path):
    """Symlinks, to files and to folders, pipes, sockets and folders named x.wav are left alone."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "secret.wav").write_bytes(wav())
    os.symlink(target / "secret.wav", station.root + b"/link.wav")
    os.symlink(target, station.root + b"/folder")
    os.mkfifo(station.root + b"/pipe.wav")
    os.mkdir(station.root + b"/directory.wav")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as unix:
        unix.bind(os.fsdecode(station.root + b"/socket.wav"))
    assert station.run(70).paths == []
    assert station.state.settling == 0


def test_any_bytes_are_a_name(station):
    """Newlines, quotes, invalid UTF-8, 255 bytes: taken under exactly their names."""
    names = [b"\xff\xfe.wav", b"line\nbreak.wav", b"-rf $(x) '\".wav", b"x" * 251 + b".wav"]
    for name in names:
        station.write(name)
    assert station.run(6).paths == sorted(names)


def test_temporary_names_wait_for_their_rename(native):
    """x.part is nothing; its rename is the commit, also for a format without a length."""
    path = native.write("a.mp3.part", b"\xff\xfb" * 99)
    assert native.run(600).paths == []
    os.rename(path, native.root + b"/a.mp3")
    assert native.run().paths == [b"a.mp3"]


def test_a_rename_says_nothing_about_a_file_that_is_still_written(native):
    """Once a writer was met, only quiet time counts, if the hint of his close is lost."""
    path = native.write("a.mp3.part", b"\xff\xfb" * 99)
    with open(path, "ab"):
        os.rename(path, native.root + b"/a.mp3")
        native.run(1)
    native.inbox._scanner.availability.hints.read()
    assert native.run(5).paths == []
    assert native.run(5).paths == [b"a.mp3"]


def test_a_file_is_handed_over_once(station):
    """Late hints, pokes and listings do not hand it over again while its job lives."""
    path = station.write("a.wav")
    for _ in range(5):
        station.run(7)
        with open(path, "ab"):
            pass
        station.inbox.look_again()
    station.run(70)
    assert len(station.queue.taken) == 1


def test_a_name_used_again_is_a_new_file(native):
    """A recorder that uses one name again makes new files: by rename over it, or by rewriting."""
    native.write("a.wav", wav(100))
    native.run()
    os.rename(native.write("../b.wav", wav(200)), native.root + b"/a.wav")
    native.run()
    native.write("a.wav", wav(300))
    native.run()
    assert [job.snapshot.size_bytes for job in native.queue.taken] == [144, 244, 344]


def test_a_file_whose_job_has_ended_is_new(station):
    """A done file put back, or one whose job was withdrawn, is taken again."""
    station.write("a.wav")
    station.run()
    station.queue.end(b"a.wav")
    station.inbox.look_again()
    station.run(6)
    assert len(station.queue.taken) == 2


def test_a_rename_inside_the_inbox_moves_the_job(station):
    """Also into another folder, and by renaming the folder: the file keeps its job."""
    station.write("day/a.wav")
    station.write("b.wav")
    station.run(6)
    os.rename(station.root + b"/day", station.root + b"/night")
    os.rename(station.root + b"/b.wav", station.root + b"/night/c.wav")
    station.run(30)
    assert station.paths == [b"night/a.wav", b"night/c.wav"]
    assert len(station.queue.taken) == 2
    assert station.queue.withdrawn == []


def test_a_file_taken_away_is_withdrawn_after_two_listings(station):
    """One listing may have passed before a rename; two cannot both have."""
    for name in ("a.wav", "sub/b.wav", "keep.wav"):
        station.write(name)
    station.run(6)
    os.unlink(station.root + b"/a.wav")
    os.unlink(station.root + b"/sub/b.wav")
    os.rmdir(station.root + b"/sub")
    station.inbox.look_again()
    station.run()
    assert station.queue.withdrawn == []
    assert station.state.waits_for_listing
    station.run(10)
    assert sorted(station.queue.withdrawn) == [b"a.wav", b"sub/b.wav"]
    assert not station.state.waits_for_listing
    assert station.paths == [b"keep.wav"]


def test_a_folder_that_lost_files_is_not_skipped(native):
    """Even if it has not changed since: the second listing is what says that they are gone."""
    path = native.write("a.wav")
    native.run()
    os.unlink(path)
    os.utime(native.root, (1e9, 1e9))
    native.inbox.look_again()
    native.run(6)
    assert native.queue.withdrawn == [b"a.wav"]


def test_a_renamed_file_that_settles_is_not_withdrawn(station):
    """Under its new name somebody has it open: its job waits for it."""
    path = station.write("a.wav")
    station.run(6)
    with open(path, "r+b"):
        os.rename(path, station.root + b"/b.wav")
        station.run(130)
        assert station.queue.withdrawn == []
        assert not station.state.waits_for_listing  # run --once does not wait for a writer
    station.run(61)
    assert station.paths == [b"b.wav"]
    assert len(station.queue.taken) == 1


def test_nothing_vanishes_on_another_device(station):
    """Rows of a device that is not there are left alone; files seen again are told to the queue."""
    station.write("keep.wav")
    gone = station.write("sub/gone.wav")
    station.run(6)
    station.queue.set_device(999_999)
    os.unlink(gone)
    station.inbox.look_again()
    station.run(3)
    assert station.queue.moved == [(b"", station.device)]
    station.run(130)
    assert station.paths == [b"keep.wav", b"sub/gone.wav"]


def test_two_names_of_one_file_are_one_job_at_a_time(station):
    """The second hard link waits until the first is done, and is then a file like any other."""
    first = station.write("a.wav")
    station.run(6)
    os.link(first, station.root + b"/b.wav")
    station.run(6)
    assert station.paths == [b"a.wav"]
    assert station.waiting == {b"b.wav": "it is the same file as 'a.wav'"}
    os.unlink(first)
    station.queue.end(b"a.wav")
    station.run(61)
    assert station.paths == [b"b.wav"]


def test_an_unnamed_file_that_is_linked_in_is_taken(native):
    """O_TMPFILE and linkat: the name appears, and is never closed."""
    descriptor = os.open(native.root, os.O_TMPFILE | os.O_RDWR)
    os.write(descriptor, wav())
    link_unnamed(descriptor, native.root + b"/a.wav")
    os.close(descriptor)
    assert native.run(0.1).paths == [b"a.wav"]


def test_trees_are_taken_however_they_come(native, tmp_path):
    """Made and filled at once, filled elsewhere and moved in, filled under a temporary name."""
    native.write("made/at/once/a.wav")
    for name in ("tree/x/b.wav", "tree/c.wav"):
        native.write(b"../out/" + name.encode())
    os.rename(tmp_path / "out" / "tree", native.root + b"/tree")
    native.write("up.tmp/d.wav")
    native.run()
    os.rename(native.root + b"/up.tmp", native.root + b"/up")
    assert native.run().paths == [b"made/at/once/a.wav", b"tree/c.wav", b"tree/x/b.wav", b"up/d.wav"]


def test_a_folder_moved_away_tells_no_stale_names(native, tmp_path):
    """What happens in it out there is nothing to us; a new folder of its name is watched."""
    native.write("day/a.wav")
    native.run()
    os.rename(native.root + b"/day", tmp_path / "day")
    (tmp_path / "day" / "out.wav").write_bytes(wav())
    native.write("day/b.wav")
    native.run()
    native.write("day/c.wav")
    assert native.run().paths == [b"day/a.wav", b"day/b.wav", b"day/c.wav"]


def test_a_changed_file_is_distrusted(native):
    """What changed after the hand-over must then be quiet for twice the time, and more each time."""
    path = native.write("a.wav")
    native.run()
    for quiet in (10, 20):
        native.queue.end(b"a.wav")
        with open(path, "ab") as file:
            file.write(b"late")
        native.inbox.look_again(b"a.wav")
        native.run(quiet - 0.5)
        assert native.paths == []
        assert native.run(1).paths == [b"a.wav"]


def test_a_full_store_puts_off_and_goes_on(station):
    """While the queue cannot take files they settle on, and none is lost."""
    station.queue.is_full = True
    station.write("a.wav")
    station.run(20)
    assert "the queue cannot take it" in station.waiting[b"a.wav"]
    station.queue.is_full = False
    assert station.run(61).paths == [b"a.wav"]


def test_files_go_on_together_once_the_queue_is_well(native):
    """The first that the queue takes again says that the others need not wait for their own next try."""
    native.queue.is_full = True
    for name in ("a.wav", "b.wav"):
        native.write(name)
    native.run(100)
    native.queue.is_full = False
    native.write("c.wav")
    assert sorted(native.run(1).paths) == [b"a.wav", b"b.wav", b"c.wav"]


def test_more_files_than_memory_are_all_taken(inbox_dir, monkeypatch):
    """Beyond the bound on entries nothing is kept, and nothing is lost."""
    monkeypatch.setattr(pending, "MOST_ENTRIES", 10)
    station = Station(inbox_dir, watch="native")
    for number in range(35):
        station.write(f"{number % 3}/{number}.mp3", b"\xff\xfb" * 99)
    station.run(5)
    assert station.state.settling <= 10
    for _ in range(5):
        station.inbox.look_again()
        station.run(7)
    assert len(station.paths) == 35
    station.close()


# The inbox itself


def test_a_missing_inbox_is_not_created_and_comes_by_itself(tmp_path):
    """It is unavailable, with the reason; once there it is watched and listed."""
    station = Station(tmp_path / "inbox").run(20)
    assert not (tmp_path / "inbox").exists()
    assert (station.state.available, station.state.reason) == (False, "it is not there")
    station.write("a.wav")
    station.run(2.1)
    assert station.state.available
    assert station.paths == [b"a.wav"]
    station.close()


def test_a_file_is_no_inbox(tmp_path):
    """Something else at its place is said."""
    (tmp_path / "inbox").write_text("")
    assert Station(tmp_path / "inbox").run().state.reason == "it is not a folder"


def test_an_inbox_that_may_not_be_listed_is_unavailable(inbox_dir):
    """It says so once, and is available once it may be listed."""
    _as_plain_user(inbox_dir, _check_not_listable)


def _check_not_listable(inbox_dir):
    inbox = inbox_dir / "a"
    inbox.mkdir()
    (inbox / "a.wav").write_bytes(wav())
    inbox.chmod(0o300)
    station = Station(inbox)
    with capture_logs() as lines:
        station.run(9)
    assert (station.state.available, station.state.reason) == (False, "it may not be listed")
    assert [line["event"] for line in lines] == ["inbox.unavailable"]
    inbox.chmod(0o700)
    assert station.run(5).paths == [b"a.wav"]
    station.close()


def test_while_the_inbox_is_away_nothing_vanishes(station):
    """Away, back, re-created: jobs stay, and hints come from the folder that stands there."""
    station.write("a.wav")
    station.run(6)
    os.rename(station.root, station.root + b".away")
    station.run(200)
    assert station.state.available is False
    assert station.queue.withdrawn == []
    os.rename(station.root + b".away", station.root)
    station.run(20)
    assert station.state.available
    assert station.paths == [b"a.wav"]
    os.rename(station.root, station.root + b".old")
    station.write("b.wav")
    station.run(3)
    station.write("c.wav")
    station.run(6)
    assert {b"b.wav", b"c.wav"} <= set(station.paths)


def test_an_inbox_that_goes_while_its_files_settle_is_unavailable(station):
    """A file's next look comes before the inbox is looked for: it is no bug."""
    station.write("a.mp3", b"\xff\xfb" * 99)
    station.run(4.5)
    os.rename(station.root, station.root + b".away")
    with capture_logs() as lines:
        station.run(0.6)
    assert (station.state.available, station.state.reason) == (False, "it is not there")
    assert [line["event"] for line in lines] == ["inbox.unavailable"]
    os.rename(station.root + b".away", station.root)
    assert station.run(20).paths == [b"a.mp3"]


def test_an_empty_folder_on_another_device_is_an_unmounted_share(station):
    """None of the waiting files is there, nor anything else: it is not read as empty."""
    path = station.write("a.wav")
    station.run(6)
    queue = station.queue
    station.close()
    os.unlink(path)
    queue.set_device(999_999)
    again = Station(station.rule.inbox, queue).run(200)
    assert "is it mounted?" in again.state.reason
    assert queue.withdrawn == []
    again.write("new.wav")
    again.run(3)
    assert again.state.available
    again.close()


def test_a_hint_of_a_file_that_is_not_taken_costs_no_snapshot(inbox_dir, monkeypatch):
    """A snapshot looks at all waiting files."""
    station = Station(inbox_dir).run()
    with (inbox_dir / "a.wav").open("wb"):
        station.run(1)
        taken = []
        real = Scanner.snapshot
        monkeypatch.setattr(Scanner, "snapshot", lambda scanner: taken.append(1) or real(scanner))
        station.write("a.txt")
        station.inbox.step(station.now)
        assert not taken
        station.write("b.wav")
        station.inbox.step(station.now)
        assert taken
    station.close()


def test_two_daemons_never_share_an_inbox(inbox_dir):
    """The second one finds it unavailable until it is free."""
    first = Station(inbox_dir).run()
    second = Station(inbox_dir).run(5)
    assert second.state.reason == "another rule of this daemon has it"
    first.close()
    second.run(3)
    assert second.state.available
    second.close()


def test_nothing_in_the_inbox_is_kept_open(inbox_dir):
    """A share or a stick can be unmounted while it is watched: no descriptor leads into it."""
    station = Station(inbox_dir).run(2)
    assert station.state.available
    links = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if _is_open(each)]
    station.close()

    assert [link for link in links if link.startswith(str(inbox_dir))] == []


def _is_open(descriptor):
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def test_an_unreadable_file_is_blocked(inbox_dir):
    """It stays, it is named with its mode, and it is taken once it may be read."""
    _as_plain_user(inbox_dir, _check_blocked)


def _check_blocked(inbox_dir):
    station = Station(inbox_dir)
    path = station.write("a.wav")
    os.chmod(path, 0)
    station.run(6)
    state = station.state
    assert (state.blocked, state.settling, state.waits_for_quiet) == (1, 0, False)
    assert "mode 0000" in station.waiting[b"a.wav"]
    os.chmod(path, 0o400)
    assert station.run(61).paths == [b"a.wav"]
    station.close()


def test_a_sub_folder_that_cannot_be_listed_is_blocked(inbox_dir):
    """It is named with its mode, logged once, and its files are taken once it is open."""
    _as_plain_user(inbox_dir, _check_closed_folder)


def _check_closed_folder(inbox_dir):
    station = Station(inbox_dir)
    folder = os.path.dirname(station.write("2026/a.wav"))
    os.chmod(folder, 0)
    with capture_logs() as logs:
        station.run(200)
    (line,) = (line for line in logs if line["event"] == "folder.unlistable")
    assert (line["path"], "mode 0000: closed to uid" in line["reason"]) == (b"2026", True)
    assert station.state.blocked == 1
    assert "mode 0000: closed to uid" in station.waiting[b"2026"]
    os.chmod(folder, 0o700)
    assert station.run(200).paths == [b"2026/a.wav"]
    station.close()


def _as_plain_user(folder, check):
    """Run *check* without capabilities: where this is root, in a child of another user."""
    if os.geteuid() != 0:
        check(folder)
        return
    folder.chmod(0o777)
    let_others_pass(folder)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            check(folder)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# The thread


def test_the_thread_takes_files_and_ends_promptly(inbox_dir):
    """A moved-in file is handed over while the test waits; look_again and stop wake it."""
    changes = threading.Event()
    station = Station(inbox_dir, watch="native")
    inbox = Inbox(station.rule, station.queue, changes.set)
    with running(inbox):
        wait_until(lambda: inbox.state().scanned_once)
        changes.clear()
        station.write("a.wav")
        assert changes.wait(10)
        wait_until(lambda: station.paths == [b"a.wav"])
        station.queue.end(b"a.wav")
        inbox.look_again()
        wait_until(lambda: len(station.queue.taken) == 2)


def test_an_error_does_not_end_the_thread(inbox_dir):
    """Whatever the queue raises, the thread goes on and the file is taken in the end."""
    station = Station(inbox_dir, watch="native")
    submit, fails = station.queue.submit, [RuntimeError("broken"), OSError("broken")]

    def fail_first(jobs):
        if fails:
            raise fails.pop()
        return submit(jobs)

    station.queue.submit = fail_first
    station.write("a.wav")
    inbox = Inbox(station.rule, station.queue, lambda: None, clock=_hurried())
    with running(inbox):
        wait_until(lambda: station.paths == [b"a.wav"])


def test_an_inbox_whose_queue_cannot_be_read_says_so(inbox_dir):
    """Of a cluster's database one connection may be refused, where the daemon's others stand."""
    station, changes = Station(inbox_dir, watch="native"), threading.Event()
    live, is_away = station.queue.live, [True]

    def refused(*place):
        if is_away:
            raise StoreAway("db", "too many connections")
        return live(*place)

    station.queue.live = refused
    station.write("a.wav")
    inbox = Inbox(station.rule, station.queue, changes.set, clock=_hurried())
    with capture_logs() as told, running(inbox):
        wait_until(lambda: "too many connections" in inbox.state().reason)
        assert inbox.state().available
        assert changes.wait(10)
        is_away.clear()
        wait_until(lambda: station.paths == [b"a.wav"] and not inbox.state().reason)
    assert [line["event"] for line in told if line["log_level"] == "warning"] == ["inbox.waiting"]


def test_a_deletion_that_a_full_disk_lets_nobody_note_is_no_bug_and_no_listing_to_wait_for(
    inbox_dir, monkeypatch
):
    """``run --once`` would not end before somebody has made room."""
    station = Station(inbox_dir, watch="native")

    def refused(*_):
        raise StoreFull("state", "the disk is full")

    station.queue.withdraw = refused
    monkeypatch.setattr("dropscribe.intake.inbox._AFTER_ERROR_SECONDS", 0.01)
    path = station.write("a.wav")
    inbox = Inbox(station.rule, station.queue, lambda: None, clock=_hurried())
    with capture_logs() as told, running(inbox):
        wait_until(lambda: station.paths == [b"a.wav"])
        os.unlink(path)
        inbox.look_again()
        wait_until(lambda: "the disk is full" in inbox.state().reason)
        wait_until(lambda: not inbox.state().waits_for_listing)
    assert [line["event"] for line in told if line["log_level"] != "info"] == ["inbox.waiting"]


def test_a_bug_of_an_inbox_is_told_once_and_its_status_names_it(inbox_dir, monkeypatch):
    """A traceback a second buried all other lines."""
    station, steps, is_broken = Station(inbox_dir, watch="native"), [], [True]
    step = Scanner.step

    def fail(*given):
        steps.append(given)
        if is_broken:
            raise ZeroDivisionError
        return step(*given)

    monkeypatch.setattr(Scanner, "step", fail)
    monkeypatch.setattr("dropscribe.intake.inbox._AFTER_ERROR_SECONDS", 0.01)
    station.write("a.wav")
    inbox = Inbox(station.rule, station.queue, lambda: None, clock=_hurried())
    with capture_logs() as told, running(inbox):
        wait_until(lambda: len(steps) > 5)
        assert "ZeroDivisionError" in inbox.state().reason
        is_broken.clear()
        wait_until(lambda: station.paths == [b"a.wav"] and not inbox.state().reason)
    assert [line["event"] for line in told if line["log_level"] == "error"] == ["inbox.failed"]


def _hurried():
    """A clock that gains five seconds at each look, so that put-off files come soon."""
    now = [0.0]

    def clock():
        now[0] += 5.0
        return now[0]

    return clock


def test_a_folder_that_is_made_again_is_watched_again(native, inbox_dir):
    """Its new inode may have the old one's number; the watch went with the old folder."""
    folder = inbox_dir / "k"
    for number in range(12):
        folder.mkdir()
        native.run(0.5)
        path = native.write(f"k/{number}.wav")
        native.run(0.5)
        assert f"k/{number}.wav".encode() in native.paths, number
        os.unlink(path)
        native.queue.jobs.clear()
        native.queue.by_identity.clear()
        folder.rmdir()
