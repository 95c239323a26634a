"""A file in done is ours because this job made it, never because its content equals ours."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropscribe.core.errors import AudioChanged, AudioMissing
from dropscribe.core.naming import Companion, OutputPlan, first_free, number_names
from dropscribe.files import beneath, capabilities
from dropscribe.files.audio import snapshot_of
from dropscribe.files.mounts import ignore_sigio
from dropscribe.files.moves import FileName, remove_aside, remove_if
from dropscribe.publish import filing, moving
from dropscribe.publish.filing import publish, withdraw
from dropscribe.publish.publication import NameTaken
from support.faults import WAYS, Faults, tmpfs
from support.house import House, make_config, read_json, tree
from support.publications import publication_of
from support.scripted import ScriptedProvider, transcript_of


@pytest.fixture(autouse=True)
def _leases():
    ignore_sigio()


async def test_recordings_of_one_stem_and_the_same_words_keep_their_own_transcripts(tmp_path):
    """Formats of one recording, answered one after another: each group stands whole at the end."""
    suffixes = ("wav", "flac", "mp3", "ogg", "m4a", "opus")
    script = ScriptedProvider([lambda _: transcript_of("the same words")] * len(suffixes))
    async with House(make_config(tmp_path, outputs=("txt",)), {"main": script}) as house:
        for suffix in suffixes:
            await house.drop(f"jfk.{suffix}", b"RIFF " + suffix.encode())
        await house.rest()

    audio = {path.stem for path in (tmp_path / "done").iterdir() if path.suffix != ".txt"}
    assert len(audio) == len(suffixes)
    assert {path.stem for path in (tmp_path / "done").glob("*.txt")} == audio


async def test_silent_recordings_of_two_rules_with_one_done_keep_their_own_transcripts(tmp_path):
    """Equal names, equal words, two inboxes: nothing that is done is withdrawn for the other."""
    from dropscribe.config.model import FolderRule

    rules = {
        name: FolderRule(
            name=name,
            inbox=tmp_path / name,
            done=tmp_path / "done",
            failed=tmp_path / "failed",
            providers=("main",),
            outputs=("json", "txt"),
        )
        for name in ("one", "two")
    }
    script = ScriptedProvider([lambda _: transcript_of("")] * 20)
    async with House(make_config(tmp_path, rules=rules), {"main": script}) as house:
        for number in range(10):
            await house.drop("rec.wav", b"silence %d" % number, folder="one" if number % 2 else "two")
            await house.rest()

    stems = {path.stem for path in (tmp_path / "done").glob("*.wav")}
    assert len(stems) == 10
    for stem in stems:
        assert read_json(tmp_path / "done" / f"{stem}.json")["source"]["bytes"] == len("silence 0")
        assert (tmp_path / "done" / f"{stem}.txt").read_text() == "\n"


def names_of(root, audio, number):
    """The names for *audio*, which has a companion, with a collision number."""
    companion = audio.with_suffix(".xml")
    found = Companion(b"{stem}.xml", os.fsencode(companion.name), snapshot_of(companion.stat()))
    plan = OutputPlan(os.fsencode(root / "done"), audio.name.encode(), ("json", "txt"), companions=(found,))
    return number_names(plan, number)


class PowerCut(BaseException):
    """The process ends here."""


class Cuttable(Faults):
    """System calls up to a power cut; none runs after it."""

    left = None

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


class Filing:
    """Jobs that are published one try at a time, as a daemon does that is killed at any call."""

    def __init__(self, root, faults):
        self.root, self.faults = root, faults
        self.requests, self.finished = [], {}
        (root / "inbox").mkdir()

    def drop(self, name, content, words):
        audio = self.root / "inbox" / f"{len(self.requests)}" / name
        audio.parent.mkdir()
        audio.write_bytes(content)
        audio.with_suffix(".xml").write_bytes(b"companion of " + content)
        request = replace(publication_of(audio, self.root / "done"), token=f"token-{len(self.requests)}")
        names = names_of(self.root, audio, 1).sidecars
        files = tuple((name, words) for _, name in names)
        self.requests.append(replace(request, output_names=names_of(self.root, audio, 1), files=files))

    def rename(self, index):
        """The next names that nothing has, as the queue would choose them."""
        request = self.requests[index]
        audio = Path(os.fsdecode(request.inbox), os.fsdecode(request.path))
        reserved = {name for other in self.unfinished() if other != index for name in self.names(other)}

        def is_free(number):
            names = [os.fsdecode(name) for name in names_of(self.root, audio, number).all_names]
            return not any(name in reserved or (self.root / "done" / name).exists() for name in names)

        names = names_of(self.root, audio, first_free(is_free))
        files = tuple((name, request.files[0][1]) for _, name in names.sidecars)
        self.requests[index] = replace(request, output_names=names, files=files)

    def names(self, index):
        return [os.fsdecode(name) for name in self.requests[index].output_names.all_names]

    def unfinished(self):
        return [index for index in range(len(self.requests)) if index not in self.finished]

    def attempt(self, index, calls):
        """One try, with power for *calls* system calls."""
        self.faults.left = calls
        try:
            publish(self.requests[index])
            self.finished[index] = self.look(index)
        except NameTaken:
            self.faults.left = None
            self.rename(index)
        except PowerCut:
            pass
        finally:
            self.faults.left = None

    def look(self, index):
        folder = self.root / "done"
        return {name: (folder / name).read_bytes() for name in self.names(index)}

    def assert_whole(self):
        names = [name for found in self.finished.values() for name in found]
        assert len(names) == len(set(names)), "two groups share a file"
        for index, found in self.finished.items():
            assert self.look(index) == found
        left = {name for index in self.unfinished() for name in self.names(index)}
        visible = {name for name in tree(self.root / "done") if not name.startswith(".")}
        assert visible - set(names) <= left


def _memory():
    """A folder in memory, where there is one: these tests sync thousands of times."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


FILES = st.tuples(st.sampled_from(["a.wav", "a.mp3", "a.json", "b.wav"]), st.sampled_from([b"one", b"two"]))
TRIES = st.lists(st.tuples(st.integers(0, 5), st.one_of(st.integers(0, 140), st.just(10_000))), max_size=14)


@pytest.mark.parametrize("way", ["rename", "plain", "bare", "copy"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dropped=st.lists(FILES, min_size=2, max_size=4), tries=TRIES)
def test_a_finished_group_stays_whole_whatever_happens_to_others(way, dropped, tries):
    """Equal and different words, stems and suffixes, any order, a crash before any call: nothing that was
    finished changes, no two groups share a file, and at the end every group is whole, with its companion.
    """
    with tempfile.TemporaryDirectory(dir=_memory()) as folder, pytest.MonkeyPatch.context() as patch:
        faults = Cuttable(patch)
        faults.always.update(WAYS[way])
        filed = Filing(Path(folder), faults)
        for name, words in dropped:
            filed.drop(name, b"audio " + words, words)
        for index in filed.unfinished():
            filed.rename(index)
        for index, calls in [*tries, *((index, 10_000) for index in range(len(dropped)) for _ in range(9))]:
            if index in filed.unfinished():
                filed.attempt(index, calls)
                filed.assert_whole()
        assert filed.unfinished() == []
        assert {name for name in os.listdir(filed.root / "done") if name[0] == "."} <= {".dropscribe-trial"}
        assert tree(filed.root / "inbox") == set()


def test_what_equals_ours_is_not_ours(tmp_path):
    """Files that somebody put under our names, with our very bytes, are neither used nor removed."""
    audio = tmp_path / "inbox/call.wav"
    audio.parent.mkdir()
    audio.write_bytes(b"audio")
    request = publication_of(audio, tmp_path / "done")
    (tmp_path / "done").mkdir()
    (tmp_path / "done/call.json").write_bytes(dict(request.files)[b"call.json"])
    for call in (publish, publish):
        with pytest.raises(NameTaken):
            call(request)
    withdraw(request)
    assert tree(tmp_path / "done") == {"call.json"}
    assert audio.exists()


def test_an_audio_that_was_taken_away_leaves_no_file_of_others_withdrawn(tmp_path, monkeypatch):
    """Half a group of ours goes; what somebody put in place of one of our files meanwhile stays."""
    audio = tmp_path / "inbox/call.wav"
    audio.parent.mkdir()
    audio.write_bytes(b"audio")
    request = publication_of(audio, tmp_path / "done")

    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(filing.PublishOperation, "move_audio", broken)
        with pytest.raises(filing.PublishError):
            publish(request)
    (tmp_path / "done/call.txt").unlink()
    (tmp_path / "done/call.txt").write_bytes(dict(request.files)[b"call.txt"])
    audio.unlink()
    with pytest.raises(AudioMissing):
        publish(request)
    assert set(os.listdir(tmp_path / "done")) == {"call.txt"}


@pytest.mark.parametrize("way", ["rename", "plain", "bare", "plainest"])
def test_a_file_that_is_not_the_expected_one_goes_back_to_its_name(tmp_path, monkeypatch, way):
    """Whatever the mount can do; where somebody has taken the name meanwhile it keeps the hidden one."""
    Faults(monkeypatch).always.update(WAYS[way])
    (tmp_path / "call.wav").write_bytes(b"another recording")
    with beneath.closing(beneath.open_root(os.fsencode(tmp_path))) as folder:
        name = FileName(folder, b"call.wav")
        assert not remove_if(name, b".aside", lambda _: False)
        assert os.listdir(tmp_path) == ["call.wav"]
        os.rename(tmp_path / "call.wav", tmp_path / ".aside")
        (tmp_path / "call.wav").write_bytes(b"a third one")
        assert not remove_aside(name, b".aside", lambda _: False)
    assert (tmp_path / "call.wav").read_bytes() == b"a third one"
    assert (tmp_path / ".aside").read_bytes() == b"another recording"


def test_a_full_disk_keeps_no_recording_under_its_hidden_name(tmp_path, monkeypatch):
    """A file that is not the expected one goes back, also where the trial of the mount finds no room."""
    (tmp_path / "call.wav").write_bytes(b"another recording")
    monkeypatch.setattr(capabilities, "_known", {})
    Faults(monkeypatch).always["mkdir"] = errno.ENOSPC
    with beneath.closing(beneath.open_root(os.fsencode(tmp_path))) as folder:
        with pytest.raises(OSError, match="No space"):
            capabilities.capabilities_of(folder)
        assert not remove_if(FileName(folder, b"call.wav"), b".aside", lambda _: False)
    assert os.listdir(tmp_path) == ["call.wav"]


def test_a_file_that_took_the_place_of_a_copied_one_goes_back_as_its_own_mount_allows(tmp_path, monkeypatch):
    """The inbox's mount has no links, which ``done`` has."""
    audio = tmp_path / "inbox/call.wav"
    audio.parent.mkdir()
    audio.write_bytes(b"audio")
    inbox, real_link = audio.parent.stat().st_dev, os.link

    def link(*names, src_dir_fd, **options):
        if os.fstat(src_dir_fd).st_dev == inbox:
            raise OSError(errno.EPERM, "Operation not permitted")
        real_link(*names, src_dir_fd=src_dir_fd, **options)

    def replace_original(step):
        if step == "copy_verified":
            (tmp_path / "other.wav").write_bytes(b"another recording")
            os.rename(tmp_path / "other.wav", audio)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(capabilities, "_known", {})
    monkeypatch.setattr(moving, "reached", replace_original)
    with tmpfs(tmp_path / "done"), pytest.raises(AudioChanged):
        publish(publication_of(audio, tmp_path / "done"))
    assert os.listdir(audio.parent) == ["call.wav"]
    assert audio.read_bytes() == b"another recording"
