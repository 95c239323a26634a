"""Two daemons of two machines at one inbox, each with its own queue; time under control."""

from __future__ import annotations

import json
import os

import pytest
from structlog.testing import capture_logs

from dropscribe.files import mounts
from dropscribe.files.mounts import Mount, MountKind
from dropscribe.intake import owner_file
from dropscribe.intake.owner_file import OwnerFile
from support.inboxes import Station

LOOK_SECONDS = 2.0


class Daemon:
    """The owner file as a daemon of another machine keeps it, by a clock of its own."""

    def __init__(self, inbox, token="elsewhere"):
        self.now = 50_000.0
        self.file = OwnerFile("calls", os.fsencode(inbox), token)

    def look(self, seconds=0.0):
        """Let *seconds* pass in looks of two seconds; the last look's reason."""
        reason = self.file.check(self.now)
        until = self.now + seconds
        while self.now < until:
            self.now += LOOK_SECONDS
            reason = self.file.check(self.now)
        return reason


@pytest.fixture
def inbox(tmp_path):
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def other(inbox):
    """The daemon that has the inbox."""
    made = Daemon(inbox)
    assert made.look() == ""
    return made


@pytest.fixture
def network(monkeypatch):
    """Every file system seems to be on a network."""

    def remote(file):
        return Mount(os.stat(file).st_dev, MountKind.REMOTE, "nfs4")

    monkeypatch.setattr(mounts, "mount_of", remote)


def owner_of(inbox):
    """What the owner file says."""
    return json.loads((inbox / ".dropscribe" / "owner").read_text())


def test_a_local_inbox_has_no_owner_file(inbox):
    """The machine's lock decides there; nothing is written, so no disk wakes up."""
    station = Station(inbox).run(600)
    assert station.state.available
    assert list(inbox.iterdir()) == []
    station.close()


def test_an_inbox_on_a_network_is_claimed_and_released(inbox, network):
    """The file names the daemon and counts up, soon once a minute; a clean stop removes it."""
    station = Station(inbox).run()
    first = owner_of(inbox)
    station.run(240)
    second = owner_of(inbox)
    station.close()
    assert (first["pid"], first["schema"]) == (os.getpid(), "dropscribe.owner/2")
    assert (first["beat"], second["beat"]) == (1, 7)
    assert list(inbox.iterdir()) == []
    assert Daemon(inbox).look() == ""


def test_a_living_owner_is_respected(inbox, other, network):
    """Nothing is taken for as long as its counter changes, and the reason says what to do."""
    station = Station(inbox)
    station.write("a.wav")
    station.run()
    assert station.state.is_undecided
    for _ in range(200):
        other.look(LOOK_SECONDS)
        station.run(LOOK_SECONDS)
    state = station.state
    assert (station.paths, state.available, state.is_undecided) == ([], False, False)
    assert f"pid {os.getpid()}" in state.reason
    assert "queue: {type: postgres}" in state.reason
    station.close()


def test_a_silent_owner_is_taken_over(inbox, other, network):
    """After 150 seconds by the newcomer's own clock, and not before."""
    station = Station(inbox)
    station.write("a.wav")
    station.run(148)
    assert not station.state.available
    with capture_logs() as logs:
        station.run(60)
    assert "inbox.taken_over" in [line["event"] for line in logs]
    assert (station.state.available, station.paths) == (True, [b"a.wav"])
    station.close()


def test_a_killed_daemon_has_its_inbox_back_at_once(inbox, other):
    """The token is its queue's, and a queue has one daemon."""
    assert Daemon(inbox).look() == ""


def test_an_owner_that_was_taken_over_stops(inbox, network):
    """Frozen for too long, it sees another's record at its next beat, and takes nothing more."""
    station = Station(inbox).run()
    newcomer = Daemon(inbox)
    assert newcomer.look(200) == ""
    station.write("a.wav")
    station.now += 200
    with capture_logs() as logs:
        station.run()
    assert "inbox.lost" in [line["event"] for line in logs]
    assert (station.paths, station.state.available) == ([], False)
    newcomer.file.release()
    assert station.run(60).paths == [b"a.wav"]
    station.close()


def test_an_owner_looks_as_soon_as_its_machine_wakes_up(inbox, network, monkeypatch):
    """The monotonic clock stood still while it slept: by that, no heartbeat is due yet."""
    station = Station(inbox).run(100)
    newcomer = Daemon(inbox)
    assert newcomer.look(200) == ""
    station.write("a.wav")
    monkeypatch.setattr(owner_file, "_suspended_seconds", lambda: 200.0)
    station.run(4)
    assert (station.paths, station.state.available) == ([], False)
    station.close()


def test_of_two_newcomers_one_gets_it(inbox, other):
    """Both find the owner silent at the same instant: the next look tells them apart."""
    one, two = Daemon(inbox, "one"), Daemon(inbox, "two")
    for _ in range(120):
        reasons = one.look(LOOK_SECONDS), two.look(LOOK_SECONDS)
        assert reasons != ("", "")
    assert min(reasons) == ""


def test_two_that_start_in_one_instant_are_told_apart_before_a_file_settles(inbox, monkeypatch):
    """Neither sees a file, or one's mount has cached the folder: its first heartbeat shows who won."""
    one, two = Daemon(inbox, "one"), Daemon(inbox, "two")
    with monkeypatch.context() as patch:
        patch.setattr(owner_file, "_read", lambda _: None)
        assert (one.look(), two.look()) == ("", "")
    reasons = one.look(8), two.look(8)
    assert ("another dropscribe may have it" in reasons[0], reasons[1]) == (True, "")


def test_a_newcomers_own_freeze_is_no_silence(inbox, other):
    """While the newcomer was frozen, or the server away, the owner could not be seen."""
    newcomer = Daemon(inbox, "new")
    newcomer.look(20)
    newcomer.now += 3600
    assert newcomer.look() != ""


@pytest.mark.parametrize("content", [b"", b'{"host": "na', b"[" * 1000, b'{"host": 1}', b"\xff\0" * 99])
def test_a_record_that_cannot_be_understood_is_watched(inbox, content):
    """Torn or foreign, it may be in the middle of being written: replaced only when it stays as it is."""
    (inbox / ".dropscribe").mkdir()
    (inbox / ".dropscribe" / "owner").write_bytes(content)
    newcomer = Daemon(inbox)
    assert newcomer.look(140) != ""
    assert newcomer.look(40) == ""
    assert owner_of(inbox)["pid"] == os.getpid()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_a_strangers_file_is_not_believed(inbox):
    """Whoever may write in the inbox cannot shut the daemon out by an owner file of his own."""
    newcomer = Daemon(inbox)
    (inbox / ".dropscribe").mkdir()
    (inbox / ".dropscribe" / "owner").write_text(json.dumps({"token": "x", "host": "h"}))
    os.chown(inbox / ".dropscribe" / "owner", 65534, 65534)
    assert newcomer.look() == ""
    assert owner_of(inbox)["token"] == "elsewhere"


@pytest.mark.parametrize("kind", ["symlink", "pipe", "link"])
def test_nothing_is_written_through_a_planted_name(inbox, tmp_path, kind):
    """Whoever may write in the inbox may not make the daemon write elsewhere, nor wait for a reader."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    own, path = inbox / ".dropscribe", inbox / ".dropscribe" / "owner"
    own.mkdir()
    {"symlink": path.symlink_to, "pipe": lambda _: os.mkfifo(path), "link": path.hardlink_to}[kind](precious)
    newcomer = Daemon(inbox)
    newcomer.look(200)
    assert newcomer.look(120) == ""
    assert precious.read_text() == "mine"
    assert owner_of(inbox)["beat"] >= 1


def test_the_own_folder_may_not_lead_elsewhere(inbox, tmp_path):
    """A link under the folder's name is not followed; the inbox is used unguarded, and that is logged."""
    (tmp_path / "elsewhere").mkdir()
    (inbox / ".dropscribe").symlink_to(tmp_path / "elsewhere")
    with capture_logs() as logs:
        assert Daemon(inbox).look(300) == ""
    assert [line["event"] for line in logs] == ["inbox.unguarded"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_cluster_node_writes_no_file_and_respects_one(inbox, other):
    """Nodes share their queue; an embedded daemon at their inbox makes them wait."""
    node = Daemon(inbox, None)
    assert node.look() != ""
    for _ in range(100):
        other.look(LOOK_SECONDS)
        reason = node.look(LOOK_SECONDS)
    assert "another dropscribe has it" in reason
    other.file.release()
    assert node.look(20) == ""
    assert list(inbox.iterdir()) == []


def test_at_rest_the_beat_goes_on(inbox, network):
    """While uploads end, the daemon looks alive to others."""
    station = Station(inbox).run()
    station.inbox.rest()
    beats = set()
    for _ in range(150):
        station.run(LOOK_SECONDS)
        beats.add(owner_of(inbox)["beat"])
    assert len(beats) >= 5
    station.close()
