"""Several files published at once: shared syncs, and nobody suffers for a neighbour."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from dropscribe.core.errors import AudioChanged, AudioMissing, PublishError
from dropscribe.files import beneath, own_file
from dropscribe.files.mounts import ignore_sigio
from dropscribe.publish import filing
from dropscribe.publish.filing import publish, publish_together
from dropscribe.publish.publication import CopyNeeded, NameTaken
from support.faults import WAYS, Faults
from support.house import tree
from support.publications import publication_of

STEMS = ("a", "b", "c")
WHOLE = {f"{stem}.{suffix}" for stem in STEMS for suffix in ("wav", "json", "txt")}


@pytest.fixture(autouse=True)
def _leases():
    ignore_sigio()


@pytest.fixture
def publications(tmp_path):
    """Three files of one inbox on their way to one folder."""
    return _drop(tmp_path, tmp_path / "done")


def _drop(root, done):
    (root / "inbox").mkdir(parents=True, exist_ok=True)
    found = []
    for stem in STEMS:
        audio = root / "inbox" / f"{stem}.wav"
        audio.write_bytes(b"audio of " + stem.encode())
        found.append(replace(publication_of(audio, done), token=f"token-{stem}"))
    return found


def _assert_whole(root):
    assert tree(root / "inbox") == set()
    assert tree(root / "done") == WHOLE
    for stem in STEMS:
        assert (root / "done" / f"{stem}.wav").read_bytes() == b"audio of " + stem.encode()


def test_all_are_filed(tmp_path, publications):
    """Each group stands whole, and each caller is told its own place."""
    assert publish_together(publications) == [publication.audio for publication in publications]
    _assert_whole(tmp_path)


def test_no_audio_moves_before_every_sidecar_beside_it_is_durable(tmp_path, publications, monkeypatch):
    """One sync of done with all sidecars and no audio in it, one with all, and one of the inbox."""
    synced = []

    def sync(descriptor):
        folder = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((os.path.basename(folder), {name for name in os.listdir(folder) if name[0] != "."}))

    (tmp_path / "done").mkdir()
    monkeypatch.setattr(filing, "sync", sync)
    publish_together(publications)

    sidecars = {name for name in WHOLE if not name.endswith(".wav")}
    assert synced == [("done", sidecars), ("done", WHOLE), ("inbox", set())]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_file_that_cannot_be_filed_leaves_its_neighbours_alone(tmp_path, publications, which):
    """Gone, changed, or its name taken: told to it alone, its own sidecars taken back, the others whole."""
    stem = STEMS[which]
    audio, others = tmp_path / "inbox" / f"{stem}.wav", {name for name in WHOLE if name[0] != stem}

    audio.unlink()
    outcomes = publish_together(publications)
    assert isinstance(outcomes[which], AudioMissing)
    assert sum(isinstance(outcome, bytes) for outcome in outcomes) == 2
    assert tree(tmp_path / "done") == others

    audio.write_bytes(b"another recording")
    assert isinstance(publish_together(publications)[which], AudioChanged)

    publications = _drop(tmp_path, tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / f"{stem}.txt").write_bytes(b"somebody else's")
    outcomes = publish_together(publications)
    assert isinstance(outcomes[which], NameTaken)
    assert tree(tmp_path / "other") == others | {f"{stem}.txt"}
    assert (tmp_path / "other" / f"{stem}.txt").read_bytes() == b"somebody else's"
    assert tree(tmp_path / "inbox") == {f"{stem}.wav"}


def test_each_sidecar_is_durable_before_it_has_its_name(tmp_path, publications, monkeypatch):
    """A power cut must not leave a named sidecar without its words, nor audio beside one."""
    synced = set()
    fsync, link = os.fsync, os.link

    def record(descriptor):
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def check(source, target, *, src_dir_fd, **others):
        inode = os.stat(source, dir_fd=src_dir_fd).st_ino
        assert source == b"taken" or inode in synced  # "taken" is the trial of what the mount can do
        link(source, target, src_dir_fd=src_dir_fd, **others)

    monkeypatch.setattr(own_file.os, "fsync", record)
    monkeypatch.setattr(own_file.os, "link", check)
    assert publish_together(publications) == [publication.audio for publication in publications]
    _assert_whole(tmp_path)


def test_the_sidecars_of_a_batch_are_synced_before_the_first_is_named(tmp_path, publications, monkeypatch):
    """A name given in between would have each further sync write the folder again."""
    calls = []
    fsync, link = os.fsync, os.link

    def record_sync(descriptor):
        calls.append("sync")
        fsync(descriptor)

    def record_link(source, target, **folders):
        if source != b"taken":  # the trial of what the mount can do
            calls.append("link")
        link(source, target, **folders)

    monkeypatch.setattr(own_file.os, "fsync", record_sync)
    monkeypatch.setattr(own_file.os, "link", record_link)
    publish_together(publications)
    first_link, last_link = calls.index("link"), len(calls) - 1 - calls[::-1].index("link")
    assert calls[:first_link].count("sync") >= sum(len(each.files) for each in publications)
    assert "sync" not in calls[first_link:last_link]


def test_no_sidecar_ever_stands_beside_another_file_of_the_audios_name(tmp_path, publications, monkeypatch):
    """A name that was free when it was chosen, hours ago, may have been taken since."""
    named = []
    real = os.link

    def link(source, target, **folders):
        if source != b"taken":  # the trial of what the mount can do
            named.append(target)
        real(source, target, **folders)

    monkeypatch.setattr(own_file.os, "link", link)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "b.wav").write_bytes(b"somebody else's")
    outcomes = publish_together(publications)
    assert isinstance(outcomes[1], NameTaken)
    assert (tmp_path / "done" / "b.wav").read_bytes() == b"somebody else's"
    assert sorted(named) == [b"a.json", b"a.txt", b"c.json", b"c.txt"]


def test_a_bug_in_one_files_way_is_told_to_it_alone(tmp_path, publications):
    """Whatever is raised, its neighbours are filed."""
    broken = replace(publications[1], files=((b"b.json", None),))
    outcomes = publish_together([publications[0], broken, publications[2]])
    assert isinstance(outcomes[1], TypeError)
    assert tree(tmp_path / "done") == {name for name in WHOLE if name[0] != "b"}
    assert tree(tmp_path / "inbox") == {"b.wav"}


@pytest.mark.parametrize("failing_sync", [1, 2])
def test_a_sync_that_fails_fails_for_all_who_needed_it(tmp_path, publications, monkeypatch, failing_sync):
    """Nobody is told that his files are durable; the next try finds what is there and ends well."""
    real, calls = os.fsync, []

    def fsync(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path / "done"):
            calls.append(descriptor)
            if len(calls) == failing_sync:
                raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    (tmp_path / "done").mkdir()
    elsewhere = _drop(tmp_path / "elsewhere", tmp_path / "elsewhere" / "done")
    (tmp_path / "elsewhere" / "done").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(beneath.os, "fsync", fsync)
        outcomes = publish_together([*publications, *elsewhere])

    assert [type(outcome) for outcome in outcomes] == [PublishError] * 3 + [bytes] * 3
    assert outcomes[0].code == "EIO"
    _assert_whole(tmp_path / "elsewhere")
    assert publish_together(publications) == [publication.audio for publication in publications]
    _assert_whole(tmp_path)


def test_a_file_that_must_be_copied_goes_alone(tmp_path, publications, monkeypatch):
    """Its neighbours do not wait for the copy; alone it is copied, and finds its sidecars there."""
    faults = Faults(monkeypatch)
    faults.always.update(WAYS["copy"])
    outcomes = publish_together(publications)
    assert [type(outcome) for outcome in outcomes] == [CopyNeeded] * 3
    assert tree(tmp_path / "inbox") == {"a.wav", "b.wav", "c.wav"}
    assert [publish(publication) for publication in publications] == [each.audio for each in publications]
    _assert_whole(tmp_path)


class PowerCut(BaseException):
    """The process ends here."""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["rename", "plain"])
def test_a_crash_before_any_call_is_repaired_by_the_next_try(tmp_path, monkeypatch, way):
    """Before each system call in turn: then no audio stands without its sidecars, and the same three
    published again, together or alone, end whole, each once.
    """
    faults = Cuttable(monkeypatch)
    faults.always.update(WAYS[way])
    # A process that has gone takes nothing back; what is closed behind it is closed by the kernel.
    monkeypatch.setattr(filing, "_withdraw", lambda _: None)
    for number in range(500):
        root = tmp_path / str(number)
        publications = _drop(root, root / "done")
        has_ended = faults.publish_until(number, publications)
        for stem in STEMS:
            if (root / "done" / f"{stem}.wav").exists():
                assert (root / "done" / f"{stem}.json").read_bytes() == b"{}"
                assert (root / "done" / f"{stem}.txt").read_bytes() == b"text\n"
        again = publish_together(publications) if number % 2 else [publish(each) for each in publications]
        assert again == [each.audio for each in publications]
        _assert_whole(root)
        if has_ended:
            assert number > 40
            return
    raise AssertionError("the way has no end")


class Cuttable(Faults):
    """System calls up to a power cut; none runs after it."""

    left = None

    def publish_until(self, number, publications):
        """Publish, with power for *number* calls; whether that was enough."""
        self.left = number
        try:
            publish_together(publications)
        except PowerCut:
            return False
        finally:
            self.left = None
        return True

    def around(self, name, real):
        """See :class:`Faults`."""
        inner = super().around(name, real)

        def call(*arguments, **keywords):
            if self.left is not None:
                if not self.left:
                    raise PowerCut
                self.left -= 1
            return inner(*arguments, **keywords)

        return call
