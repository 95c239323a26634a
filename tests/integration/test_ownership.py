"""Two daemons at one inbox, each with its own queue, seen through the owner file; time under control."""

from __future__ import annotations

import itertools
import json
import os
import threading
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from dropscribe.files import owner_file
from dropscribe.files.owner_file import OWN_FOLDER, create_owner, name_lock, read_owner
from dropscribe.intake import ownership
from dropscribe.intake.ownership import Ownership, find_live_owner
from support.inboxes import Station, running, wait_until

LOOK_SECONDS = 2.0
STRANGE_INODES = itertools.count(1)


class Elsewhere:
    """A daemon on another machine: its locks mean nothing here. Driven by a clock of its own."""

    def __init__(self, inbox, *, exclusive=True):
        self.inbox = os.fsencode(inbox)
        self.now = 50_000.0
        self.ownership = Ownership("calls", self.inbox, exclusive=exclusive)
        self.identity = (0, next(STRANGE_INODES))  # no folder's: its lock is nobody else's

    def look(self, seconds=0.0):
        """Let *seconds* pass in looks of two seconds; the last look's reason."""
        reason = self._look()
        until = self.now + seconds
        while self.now < until:
            self.now += LOOK_SECONDS
            reason = self._look()
        return reason

    def _look(self):
        return self.ownership.look(self.now, self.identity)


@pytest.fixture
def inbox(tmp_path):
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def other(inbox):
    """Who has the inbox on another machine."""
    made = Elsewhere(inbox)
    assert made.look() == ""
    return made


def owner_of(inbox):
    """What stands in the owner file."""
    return json.loads((inbox / ".dropscribe" / "owner").read_text())


def run_beside(station, other, seconds):
    """Both live for so long."""
    for _ in range(int(seconds / LOOK_SECONDS)):
        other.look(LOOK_SECONDS)
        station.run(LOOK_SECONDS)


def test_an_inbox_is_claimed_and_let_go(inbox):
    """The file says who and counts up; a clean stop leaves nothing, so that a move elsewhere is instant."""
    station = Station(inbox).run()
    first = owner_of(inbox)
    station.run(25)
    second = owner_of(inbox)
    station.close()
    assert (first["pid"], first["schema"]) == (os.getpid(), "dropscribe.owner/1")
    assert (first["beat"], second["beat"]) == (0, 2)
    assert {**first, "beat": 2} == second
    assert list(inbox.iterdir()) == []
    assert Elsewhere(inbox).look() == ""


def test_an_owner_that_lives_is_respected(inbox, other):
    """Nothing is taken beside it, for as long as it beats; said once, with what to do."""
    station = Station(inbox)
    station.write("a.wav")
    with capture_logs() as logs:
        station.run()
        assert station.state.is_undecided
        run_beside(station, other, 200)
    state = station.state
    assert (station.paths, state.available, state.is_undecided) == ([], False, False)
    assert f"pid {os.getpid()}" in state.reason
    assert "queue: {type: postgres}" in state.reason
    assert "docs/cluster.md" in state.reason
    assert [line["event"] for line in logs].count("inbox.unavailable") == 2  # unsure, then sure
    assert other.look(20) == ""
    station.close()


def test_a_silent_owner_is_taken_over(inbox, other):
    """After thirty seconds by the newcomer's own clock, and not before; the log says whose it was."""
    station = Station(inbox)
    station.write("a.wav")
    station.run(29)
    assert not station.state.available
    with capture_logs() as logs:
        station.run(6)
    (line,) = [line for line in logs if line["event"] == "inbox.taken_over"]
    assert (line["host"], line["silent_seconds"]) == (os.uname().nodename, 30)
    assert (station.state.available, station.paths) == (True, [b"a.wav"])
    station.close()


def test_who_left_is_followed_at_once(inbox, other):
    """A clean stop elsewhere is seen at the next look."""
    station = Station(inbox)
    run_beside(station, other, 40)
    other.ownership.release()
    assert station.run(2.1).state.available
    station.close()


def test_an_owner_that_was_taken_over_lets_go(inbox):
    """Frozen for too long, it sees the other's token at its next beat, and takes nothing more."""
    station = Station(inbox).run()
    newcomer = Elsewhere(inbox)
    assert newcomer.look(34) == ""
    station.write("a.wav")
    station.now += 34
    with capture_logs() as logs:
        station.run()
    assert "inbox.lost" in [line["event"] for line in logs]
    assert (station.paths, station.state.available) == ([], False)
    run_beside(station, newcomer, 100)
    assert station.paths == []
    newcomer.ownership.release()
    assert station.run(3).paths == [b"a.wav"]
    station.close()


def test_of_two_newcomers_one_gets_it(inbox, other):
    """Both find the owner silent at the same instant: the second look tells them apart."""
    one, two = Elsewhere(inbox), Elsewhere(inbox)
    for _ in range(20):
        reasons = one.look(LOOK_SECONDS), two.look(LOOK_SECONDS)
        assert reasons != ("", "")
    assert min(reasons) == ""
    assert "another dropscribe has it" in max(reasons)


def test_a_newcomers_own_freeze_is_no_silence(inbox, other):
    """While the newcomer was frozen, or the server away, the owner could not be seen to beat."""
    newcomer = Elsewhere(inbox)
    newcomer.look(10)
    newcomer.now += 3600
    assert newcomer.look() != ""
    other.look(20)
    assert "another dropscribe has it" in newcomer.look()


@pytest.mark.parametrize("content", [b"", b'{"host": "na', b"[" * 4000, b'{"host": 1}', b"\xff\0" * 99])
def test_what_cannot_be_understood_is_watched_like_an_owner(inbox, content):
    """Torn or foreign, it may be in the middle of being written: taken over only when it stays as it is."""
    (inbox / ".dropscribe").mkdir()
    (inbox / ".dropscribe" / "owner").write_bytes(content)
    newcomer = Elsewhere(inbox)
    assert newcomer.look(28) != ""
    assert newcomer.look(6) == ""
    assert owner_of(inbox)["pid"] == os.getpid()


@pytest.mark.parametrize("kind", ["symlink", "pipe", "link"])
def test_nothing_is_written_through_what_others_put_there(inbox, tmp_path, kind):
    """Whoever may write in the inbox may not make us write elsewhere, nor wait for a reader."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    own, path = inbox / ".dropscribe", inbox / ".dropscribe" / "owner"
    own.mkdir()
    {"symlink": path.symlink_to, "pipe": lambda _: os.mkfifo(path), "link": path.hardlink_to}[kind](precious)
    newcomer = Elsewhere(inbox)
    newcomer.look(34)
    assert newcomer.look(60) == ""
    assert precious.read_text() == "mine"
    assert owner_of(inbox)["beat"] > 3


def test_our_folder_may_not_lead_elsewhere(inbox, tmp_path):
    """A symlink under our folder's name is not followed; the inbox is used unguarded, and that is said."""
    (tmp_path / "elsewhere").mkdir()
    (inbox / ".dropscribe").symlink_to(tmp_path / "elsewhere")
    with capture_logs() as logs:
        assert Elsewhere(inbox).look(60) == ""
    assert [line["event"] for line in logs] == ["inbox.unguarded"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_inbox_that_cannot_be_written_is_used_unguarded(inbox, monkeypatch):
    """A read-only share: the reason is logged once; a claim is tried again with every beat."""
    failing = True
    mkdir = os.mkdir

    def read_only(path, *args):
        if failing:
            raise OSError(30, "Read-only file system")
        mkdir(path, *args)

    monkeypatch.setattr(owner_file.os, "mkdir", read_only)
    with capture_logs() as logs:
        station = Station(inbox).run(60)
        assert station.state.available
    assert [line["reason"] for line in logs if line["event"] == "inbox.unguarded"] == [
        "Read-only file system"
    ]
    failing = False
    station.run(12)
    assert owner_of(inbox)["pid"] == os.getpid()
    station.close()


def test_a_living_owner_is_respected_on_a_share_that_cannot_be_written(inbox, other, monkeypatch):
    """Only to claim it, it must be writable; a silent owner's is then used unguarded, until he speaks."""

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    station = Station(inbox)
    run_beside(station, other, 40)
    monkeypatch.setattr(ownership, "replace_owner", read_only)
    assert not station.run(28).state.available
    assert station.run(6).state.available
    other.look(LOOK_SECONDS)
    other.look(10)
    assert not station.run(12).state.available
    station.close()


def test_a_disk_error_does_not_make_a_strange_inbox_ours(inbox, other, monkeypatch):
    """Who was seen there is there until a look says otherwise."""
    newcomer = Elsewhere(inbox)
    reason = newcomer.look()

    def broken(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ownership, "read_owner", broken)
        assert newcomer.look(100) == reason


def test_a_killed_owner_with_our_lock_is_followed_at_once(inbox):
    """Its lock is ours now, of the same boot, namespace and folder: nobody can be alive who had it."""
    station = Station(inbox).run(20)
    station.inbox.unlock()  # as the kernel does at its death; its file stands
    again = Station(inbox)
    with capture_logs() as logs:
        assert again.run().state.available
    assert "inbox.taken_over" in [line["event"] for line in logs]
    again.close()


@pytest.mark.parametrize("part", range(3))
def test_a_lock_of_another_boot_namespace_or_mount_proves_nothing(inbox, part):
    """Two containers with networks of their own share host name and boot: the beat decides."""
    status = inbox.stat()
    words = name_lock((status.st_dev, status.st_ino)).split("/")
    words[part] = "other"
    other = Elsewhere(inbox)
    owner = replace(other.ownership._me, lock="/".join(words))
    create_owner(os.fsencode(inbox), owner)
    station = Station(inbox).run(28)
    assert not station.state.available
    assert station.run(6).state.available
    station.close()


def test_an_owner_file_that_is_removed_is_made_again(inbox):
    """Somebody tidied up: the next beat claims the inbox anew."""
    station = Station(inbox).run()
    (inbox / ".dropscribe" / "owner").unlink()
    (inbox / ".dropscribe").rmdir()
    station.run(12)
    assert owner_of(inbox)["pid"] == os.getpid()
    station.close()


def test_an_unmounted_share_is_not_claimed(inbox):
    """The folder below the mount stays as it is, and our own folder in it is no sign of a mount."""
    station = Station(inbox)
    path = station.write("a.wav")
    station.run(6)
    queue = station.queue
    station.close()
    os.unlink(path)
    queue.set_device(999_999)
    again = Station(inbox, queue).run(20)
    assert "is it mounted?" in again.state.reason
    assert list(inbox.iterdir()) == []
    (inbox / ".dropscribe").mkdir()
    assert "is it mounted?" in again.run(20).state.reason
    again.close()


def test_beats_are_no_hints_and_never_audio(inbox):
    """The owner file is not taken, makes no listing and no hint count."""
    station = Station(inbox, watch="native", include=("*",)).run(200)
    assert station.paths == []
    assert station.state.found_without_hint == 0
    assert station.state.settling == 0
    station.close()


def test_a_node_of_a_cluster_writes_no_file_and_respects_one(inbox):
    """Nodes share their queue; an embedded daemon that comes to their inbox makes them wait."""
    node, embedded = Elsewhere(inbox, exclusive=False), Elsewhere(inbox)
    assert node.look(20) == ""
    assert list(inbox.iterdir()) == []
    assert embedded.look() == ""
    assert node.look(12) != ""
    embedded.look(10)
    assert "another dropscribe has it" in node.look(2)
    embedded.ownership.release()
    assert node.look(2) == ""
    node.ownership.release()


def test_a_node_removes_what_a_dead_embedded_daemon_left(inbox, other):
    """After the same time, so that the next start of a node need not watch again."""
    station = Station(inbox)
    station.inbox._rounds.owner = Ownership("calls", station.root, exclusive=False)
    assert not station.run(28).state.available
    assert station.run(6).state.available
    assert read_owner(station.root) is None
    station.close()


def test_at_rest_it_beats_and_takes_nothing(inbox):
    """While uploads end, files come and stay; the owner file goes with the thread."""
    station = Station(inbox, watch="native")
    inbox_thread = station.inbox
    with running(inbox_thread):
        wait_until(lambda: inbox_thread.state().scanned_once)
        inbox_thread.rest()
        assert inbox_thread.wait_for_rest(10)
        station.write("late.wav")
        inbox_thread.poke()
        assert owner_of(inbox)["pid"] == os.getpid()
    assert station.paths == []
    assert not os.path.lexists(station.root + b"/" + OWN_FOLDER)


def test_at_rest_the_beat_goes_on(inbox):
    """A long grace looks alive to others."""
    station = Station(inbox).run()
    station.inbox.rest()
    beats = {owner_of(inbox)["beat"]}
    for _ in range(30):
        station.run(LOOK_SECONDS)
        beats.add(owner_of(inbox)["beat"])
    assert len(beats) >= 6
    station.close()


def test_a_start_waits_for_nothing_where_nobody_is(inbox):
    """No owner file, no inbox, or one whose lock decides: no time passes."""

    def sleep(_):
        raise AssertionError

    root = os.fsencode(inbox)
    assert find_live_owner(root, sleep=sleep) is None
    assert find_live_owner(root + b"/missing", sleep=sleep) is None
    station = Station(inbox).run()
    assert find_live_owner(root, sleep=sleep) is None
    station.close()


def test_a_start_sees_who_beats_and_who_does_not(inbox, other):
    """The first beat ends the wait; without one it ends after twelve seconds."""
    now, beats = 0.0, True

    def sleep(seconds):
        nonlocal now
        now += seconds
        if beats and now > 7:
            other.look(10)

    root = os.fsencode(inbox)
    found = find_live_owner(root, clock=lambda: now, sleep=sleep)
    assert found is not None
    assert found.owner.pid == os.getpid()
    assert 7 < now < 8
    beats, now = False, 0.0
    assert find_live_owner(root, clock=lambda: now, sleep=sleep) is None
    assert 12 <= now < 13


def test_claims_at_the_same_instant_have_one_winner(inbox):
    """The kernel refuses the second name."""
    daemons = [Elsewhere(inbox) for _ in range(8)]
    reasons = []
    threads = [threading.Thread(target=lambda each=each: reasons.append(each.look())) for each in daemons]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons.count("") == 1
    assert len(reasons) == len(daemons)
