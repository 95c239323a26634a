"""Guards that stand behind one another: each alone, so that one taken away is noticed by a test."""

from __future__ import annotations

import asyncio
import os

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AudioChanged, AudioUnsafe
from dropscribe.files.audio import open_beneath
from dropscribe.files.own_file import OwnFile
from dropscribe.publish.filing import publish, publish_together
from dropscribe.publish.publication import CopyNeeded, NameTaken
from support.house import House, make_config, tree
from support.publications import publication_of
from support.scripted import ScriptedProvider


def gated_house(root, concurrency=1):
    """A house whose provider waits for the test."""
    script = ScriptedProvider(gate=asyncio.Event())
    providers = {"main": ProviderConfig(name="main", type="openai", concurrency=concurrency)}
    return House(make_config(root, providers=providers), {"main": script}), script


async def test_a_file_that_changed_while_it_waited_is_not_sent(tmp_path):
    """What is opened for the upload is not what settled: its job ends unsent."""
    house, script = gated_house(tmp_path)
    async with house:
        await house.drop("first.wav")
        await house.until(lambda: script.in_flight == 1)
        waiting = await house.drop("second.wav", b"RIFF settled")
        waiting.write_bytes(b"RIFF settled, and then went on")
        script.gate.set()
        await house.rest()
        assert script.calls == [b"first.wav"]
        assert house.lookout.late_changes == [("calls", b"second.wav")]
        assert (await house.stats()).queued == 0
    assert tree(tmp_path / "inbox") == {"second.wav"}


async def test_nothing_is_published_for_audio_that_changed_while_it_was_sent(tmp_path):
    """The transcript of the first take is never filed beside the second."""
    house, script = gated_house(tmp_path)
    async with house:
        path = await house.drop("call.wav", b"RIFF the first take")
        await house.until(lambda: script.in_flight == 1)
        path.write_bytes(b"RIFF the second take, which is longer")
        script.gate.set()
        await house.rest()
    assert script.calls == [b"call.wav"]
    assert tree(tmp_path / "done") == set()
    assert tree(tmp_path / "inbox") == {"call.wav"}


@pytest.mark.parametrize("taken", ["call.wav", "call.json", "call.txt"])
@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["renamed", "copied"])
def test_a_name_that_somebody_took_in_the_last_instant_stays_his(
    tmp_path, other_file_system, taken, is_elsewhere
):
    """Looked for, free, and then taken: nothing is overwritten, ours are withdrawn, the audio stays."""
    done = other_file_system if is_elsewhere else tmp_path / "done"
    done.mkdir(exist_ok=True)
    audio = tmp_path / "inbox/call.wav"
    audio.parent.mkdir()
    audio.write_bytes(b"RIFF")
    (done / taken).write_bytes(b"somebody else's")
    with pytest.raises(NameTaken):
        publish(publication_of(audio, done))
    assert {path.name: path.read_bytes() for path in done.iterdir()} == {taken: b"somebody else's"}
    assert audio.read_bytes() == b"RIFF"


def test_a_copy_that_is_not_what_was_transcribed_is_taken_back(tmp_path, other_file_system):
    """Other bytes of the same size and times: a copy is read back, its digest tells, the original stays."""
    audio, done = tmp_path / "inbox/call.wav", other_file_system / "done"
    audio.parent.mkdir()
    audio.write_bytes(b"RIFF one")
    publication = publication_of(audio, done)
    status = audio.stat()
    with audio.open("r+b") as file:
        file.write(b"RIFF two")
    os.utime(audio, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(AudioChanged):
        publish(publication)
    assert tree(done) == set()
    assert audio.read_bytes() == b"RIFF two"


def test_no_transcript_comes_and_goes_before_a_copy_alone(tmp_path, other_file_system, monkeypatch):
    """A batch leaves long copies to others: what it wrote before would be withdrawn, and written again."""
    audio, done = tmp_path / "inbox/call.wav", other_file_system / "done"
    audio.parent.mkdir()
    audio.write_bytes(b"RIFF")
    place, placed = OwnFile.place, []
    monkeypatch.setattr(OwnFile, "place", lambda file: (placed.append(file.name.name), place(file)))
    (outcome,) = publish_together([publication_of(audio, done)])
    assert type(outcome) is CopyNeeded
    assert not placed
    publish(publication_of(audio, done))
    assert tree(done) == {"call.wav", "call.json", "call.txt"}


def refused(root, path):
    """Whether opening *path* below *root* is refused as unsafe."""
    try:
        os.close(open_beneath(os.fsencode(root), os.fsencode(path)))
    except AudioUnsafe:
        return True
    return False


def test_a_symlink_is_never_followed_below_the_inbox(tmp_path):
    """Neither as the file nor as a folder on the way to it, though it leads to the very same file."""
    inbox, outside = tmp_path / "inbox", tmp_path / "outside"
    (inbox / "real").mkdir(parents=True)
    outside.mkdir()
    (inbox / "real/call.wav").write_bytes(b"RIFF")
    os.link(inbox / "real/call.wav", outside / "call.wav")
    (inbox / "file.wav").symlink_to(outside / "call.wav")
    (inbox / "folder").symlink_to(outside)
    assert not refused(inbox, "real/call.wav")
    assert refused(inbox, "file.wav")
    assert refused(inbox, "folder/call.wav")


def test_nothing_but_a_regular_file_is_opened(tmp_path):
    """A pipe, a socket's name, a folder: refused, and a pipe without a writer does not block."""
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "device.wav").symlink_to("/dev/zero")
    assert all(refused(tmp_path, name) for name in ("pipe.wav", "folder.wav", "device.wav"))


async def test_names_of_an_answer_that_waits_are_nobody_elses(tmp_path):
    """While done is out of order nothing stands there: the names are reserved all the same."""
    house, script = gated_house(tmp_path, concurrency=2)
    async with house:
        await house.drop("call.wav", b"RIFF one")
        await house.drop("call.mp3", b"RIFF two")
        await house.until(lambda: script.in_flight == 2)
        (tmp_path / "done").write_text("in the way")
        script.gate.set()

        async def both_kept():
            return (await house.stats()).publishing == 2

        await house.until(both_kept)
        reserved = await house.store.do(lambda db: db.execute("SELECT path FROM reservations").fetchall())
        names = sorted(os.path.basename(path).decode() for (path,) in reserved)
        assert len(names) == 6
        assert {name for name in names if name.endswith((".json", ".txt"))} == {
            *("call.json", "call.txt"),
            *("call-2.json", "call-2.txt"),
        }
