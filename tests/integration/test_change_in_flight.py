"""What is done to a file while it is sent, or between the answer and the publishing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os

import pytest
from structlog.testing import capture_logs

from dropscribe.config.model import ProviderConfig
from dropscribe.files import audio
from dropscribe.files.audio import find_content
from dropscribe.pipeline import publisher
from dropscribe.publish.publication import NameTaken
from dropscribe.queue.sql import intake_queries
from support.faults import Faults, run_as_nobody
from support.house import House, digest, make_config, read_json, tree
from support.scripted import ScriptedProvider

ENDS = ("wav", "json", "txt")
OLD, NEW = b"RIFF the first take", b"RIFF the second take, which is longer"


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(publisher, "MISSING_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(publisher, "LONGEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(publisher, "LONGEST_OWN_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(publisher, "WRITER_WAIT_SECONDS", 0.01)


def replace(path):
    """A new file is renamed over it."""
    other = path.with_name(".incoming")
    other.write_bytes(NEW)
    os.rename(other, path)


def replace_by_twin(path):
    """A new file of the same size and time is renamed over it: only its inode tells."""
    status = path.stat()
    other = path.with_name(".incoming")
    other.write_bytes(OLD.swapcase())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.rename(other, path)


def append(path):
    """A recorder goes on."""
    with path.open("ab") as file:
        file.write(b" and more")


def overwrite(path):
    """The same length, other bytes."""
    with path.open("r+b") as file:
        file.write(OLD.swapcase())
    os.utime(path, ns=(1, 1))


def overwrite_and_set_back(path):
    """Other bytes of the same length, and the old time: metaflac --preserve-modtime does so."""
    status = path.stat()
    overwrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path):
    """Somebody writes it anew from its start."""
    path.write_bytes(b"RIFF")


CHANGES = [replace, replace_by_twin, append, overwrite, overwrite_and_set_back, truncate]


class Gated(House):
    """A house whose provider, or whose done folder, waits for the test."""

    def __init__(self, root, moment):
        self.script = ScriptedProvider(gate=asyncio.Event())
        self.root, self.moment = root, moment
        super().__init__(make_config(root), {"main": self.script})

    async def drop_and_wait(self):
        """A dropped file that is at the moment of the test: being sent, or answered and not filed."""
        done = self.root / "done"
        path = await self.drop("call.wav", OLD)
        await self.until(lambda: self.script.in_flight == 1)
        if self.moment == "answered":
            done.write_text("in the way")
            self.script.gate.set()
            await self.until(lambda: self.engine.folders.closed_reason("calls"))
        return path

    async def go_on(self):
        """Let what waited come to its end."""
        if self.moment == "answered":
            (self.root / "done").unlink()
        self.script.gate.set()
        await self.until(self._is_idle)

    async def _is_idle(self):
        stats = await self.stats()
        return stats.queued + stats.deferred + stats.transcribing + stats.publishing == 0


moments = pytest.mark.parametrize("moment", ["sent", "answered"])


@moments
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_changed_audio_is_not_filed_under_a_stale_transcript(tmp_path, moment, change):
    """The transcript is thrown away, nothing of it stays in done; settled again, the file is taken again."""
    async with Gated(tmp_path, moment) as house:
        path = await house.drop_and_wait()
        change(path)
        content = path.read_bytes()
        await house.go_on()
        assert tree(tmp_path / "done") == set()
        assert path.read_bytes() == content
        assert house.lookout.late_changes == [("calls", b"call.wav")]
        await house.submit("call.wav")
        await house.until(house._is_idle)

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert (tmp_path / "done/call.wav").read_bytes() == content
    assert read_json(tmp_path / "done/call.json")["source"]["sha256"] == digest(content)
    assert len(house.script.calls) == 2


def move_out(path):
    """To a folder beside the inbox."""
    path.rename(path.parent.parent / "taken.wav")


def delete(path):
    """For good."""
    path.unlink()


@moments
@pytest.mark.parametrize("change", [delete, move_out, replace], ids=lambda change: change.__name__)
async def test_a_file_that_has_left_its_inbox_is_dropped_at_once(tmp_path, moment, monkeypatch, change):
    """Nothing is filed for it; its job ends at once, with a line of the log: one listing proves it."""
    monkeypatch.setattr(publisher, "MISSING_WAIT_SECONDS", 3600.0)
    async with Gated(tmp_path, moment) as house:
        change(await house.drop_and_wait())
        with capture_logs() as lines:
            await house.go_on()
        assert (await house.stats()).done == 0
        assert [line["path"] for line in lines if line["event"] == "job.withdrawn"] == [b"call.wav"]

    assert tree(tmp_path) & {"done/call.json", "done/call.txt", "done/call.wav"} == set()
    assert len(house.script.calls) == 1


async def test_a_file_that_may_be_in_a_closed_folder_is_looked_for_again(tmp_path, monkeypatch):
    """A listing that is not complete proves nothing: the job ends after a few searches."""
    monkeypatch.setattr(audio, "open_listable_folder", refuse)
    async with Gated(tmp_path, "sent") as house:
        path = await house.drop_and_wait()
        path.unlink()
        house.script.gate.set()
        await house.until(lambda: _code_of(house) == "missing")
        await house.until(house._is_idle)
        assert (await house.stats()).done == 0


def refuse(*_):
    """The system's answer for a folder that is closed to this process."""
    raise PermissionError(errno.EACCES, "Permission denied")


@moments
async def test_a_file_renamed_in_the_inbox_is_filed_under_its_new_name(tmp_path, moment):
    """Its answer goes with it, paid once, and says its new name."""
    async with Gated(tmp_path, moment) as house:
        path = await house.drop_and_wait()
        (tmp_path / "inbox/2026").mkdir()
        os.rename(path, tmp_path / "inbox/2026/renamed.wav")
        await house.relocate("2026/renamed.wav")
        await house.go_on()

    assert tree(tmp_path / "done") == {f"2026/renamed.{suffix}" for suffix in ("wav", "json", "txt")}
    assert read_json(tmp_path / "done/2026/renamed.json")["source"]["path"] == "2026/renamed.wav"
    assert len(house.script.calls) == 1


@moments
@pytest.mark.parametrize(
    "content", [b"RIFF another, longer recording", OLD.swapcase()], ids=["other", "same size"]
)
async def test_a_file_renamed_in_flight_keeps_its_answer_though_another_takes_its_name(
    tmp_path, moment, content
):
    """The inbox hears of the rename after the answer has come: both are filed, each sent once."""
    async with Gated(tmp_path, moment) as house:
        path = await house.drop_and_wait()
        path.rename(tmp_path / "inbox/renamed.wav")
        path.write_bytes(content)
        if moment == "answered":
            (tmp_path / "done").unlink()
        house.script.gate.set()
        await house.until(lambda: house.lookout.looked)
        await house.relocate("renamed.wav")
        await house.until(lambda: len(house.listener.files) == 1)
        await house.submit("call.wav")
        await house.until(lambda: len(house.listener.files) == 2)

    assert tree(tmp_path / "done") == {f"{stem}.{end}" for stem in ("call", "renamed") for end in ENDS}
    assert (tmp_path / "done/renamed.wav").read_bytes() == OLD
    assert read_json(tmp_path / "done/call.json")["source"]["sha256"] == digest(content)
    assert len(house.script.calls) == 2


def change_mode(path):
    """Without its content."""
    path.chmod(0o750)


def link(path):
    """A backup by hard links."""
    os.link(path, path.with_name(".backup"))


def move_there_and_back(path):
    """By rename."""
    path.rename(path.with_name(".elsewhere"))
    path.with_name(".elsewhere").rename(path)


@moments
@pytest.mark.parametrize("change", [change_mode, link, move_there_and_back], ids=lambda each: each.__name__)
async def test_a_change_of_the_metadata_is_no_change(tmp_path, monkeypatch, moment, change):
    """Mode and links are not content: sent once, hashed once more, and the sidecars take the mode of now."""
    hashed = count_hashings(monkeypatch)
    async with Gated(tmp_path, moment) as house:
        path = await house.drop_and_wait()
        change(path)
        mode = path.stat().st_mode & 0o777
        await house.go_on()

    assert (tmp_path / "done/call.wav").stat().st_mode & 0o777 == mode
    assert (tmp_path / "done/call.json").stat().st_mode & 0o777 == mode & 0o644
    assert len(house.script.calls) == 1
    assert hashed == [b"call.wav"]


def test_a_file_that_may_not_be_read_any_more_is_filed(tmp_path):
    """Its mode was changed in flight: size, time and inode are the same, and it may be moved."""

    async def steps():
        async with Gated(tmp_path, "sent") as house:
            path = await house.drop_and_wait()
            path.chmod(0)
            await house.go_on()

    assert run_as_nobody(tmp_path, steps) == 0
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


def count_hashings(monkeypatch):
    """The paths whose files are hashed again at publishing, in order."""
    hashed = []

    def find(inbox, path, *rest):
        hashed.append(path)
        return find_content(inbox, path, *rest)

    monkeypatch.setattr(publisher, "find_content", find)
    return hashed


@moments
async def test_an_untouched_file_is_not_hashed_again(tmp_path, monkeypatch, moment):
    """Also where it waits for its place in done."""
    hashed = count_hashings(monkeypatch)
    async with Gated(tmp_path, moment) as house:
        await house.drop_and_wait()
        await house.go_on()

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert hashed == []


def touch(path):
    """SFTP and rclone clients set a file's times after its last byte."""
    os.utime(path, ns=(5, 5))


def replace_by_same(path):
    """A second upload of the same bytes is renamed over the first."""
    other = path.with_name(".incoming")
    other.write_bytes(OLD)
    os.rename(other, path)


@moments
@pytest.mark.parametrize("change", [touch, replace_by_same], ids=lambda change: change.__name__)
async def test_the_same_bytes_are_the_same_recording(tmp_path, moment, change):
    """Another time or inode is told from another recording by the content: sent once, also when the inbox
    is listed meanwhile.
    """
    async with Gated(tmp_path, moment) as house:
        path = await house.drop_and_wait()
        change(path)
        submitted = await house.submit("call.wav")
        assert submitted.is_in_flight
        await house.go_on()

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert (tmp_path / "done/call.wav").read_bytes() == OLD
    assert len(house.script.calls) == 1
    assert house.lookout.late_changes == []


async def test_an_answer_counts_though_its_file_has_changed(tmp_path):
    """It was paid for: budget and cache have it under the digest that was sent before it is discarded."""
    account = {"main": ProviderConfig(name="main", type="openai", price_per_minute=0.6)}
    script = ScriptedProvider(gate=asyncio.Event())
    config = make_config(tmp_path, providers=account, ledger_keep_seconds=9e6)
    async with House(config, {"main": script}) as house:
        path = await house.drop("call.wav", OLD)
        await house.until(lambda: script.in_flight == 1)
        path.write_bytes(NEW)
        script.gate.set()
        await house.until(lambda: house.lookout.looked)
        rows = "SELECT sum(money) FROM spending WHERE kind = 'provider'"
        spent = house.store.call(lambda db: db.execute(rows).fetchone()[0]).result()
        assert spent == pytest.approx(0.01)
        path.write_bytes(OLD)
        await house.submit("call.wav")
        await house.until(lambda: house.listener.files)

    assert len(script.calls) == 1
    assert read_json(tmp_path / "done/call.json")["source"]["sha256"] == digest(OLD)


@pytest.mark.parametrize("change", [truncate, append], ids=lambda change: change.__name__)
async def test_both_states_of_a_file_answered_at_once_need_one_name(tmp_path, change):
    """The answer to the older state, which is withdrawn, does not keep the name from the newer one."""
    async with Gated(tmp_path, "sent") as house:
        path = await house.drop_and_wait()
        change(path)
        content = path.read_bytes()
        await house.submit("call.wav")
        await house.until(lambda: house.script.in_flight == 2)
        await house.go_on()

    assert tree(tmp_path / "done") == {f"call.{end}" for end in ENDS}
    assert (tmp_path / "done/call.wav").read_bytes() == content
    assert read_json(tmp_path / "done/call.json")["source"]["sha256"] == digest(content)


@moments
async def test_a_file_opened_for_writing_waits_for_its_writer(tmp_path, moment):
    """While somebody has it open it is not moved; closed unchanged it is filed, paid once."""
    async with Gated(tmp_path, moment) as house:
        path = await house.drop_and_wait()
        writer = path.open("ab")
        try:
            if moment == "answered":
                (tmp_path / "done").unlink()
            house.script.gate.set()
            await house.until(lambda: _code_of(house) == "writer")
            assert tree(tmp_path / "done") == set()
            assert path.read_bytes() == OLD
        finally:
            writer.close()
        await house.until(house._is_idle)

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert len(house.script.calls) == 1


async def test_a_file_written_by_the_writer_that_came_back_is_taken_again(tmp_path):
    """What was opened while the answer waited, and written, is not filed under the old transcript."""
    async with Gated(tmp_path, "answered") as house:
        path = await house.drop_and_wait()
        with path.open("ab") as writer:
            (tmp_path / "done").unlink()
            await house.until(lambda: _code_of(house) == "writer")
            writer.write(b" and more")
        await house.until(house._is_idle)
        assert tree(tmp_path / "done") == set()
        await house.submit("call.wav")
        await house.until(house._is_idle)

    assert (tmp_path / "done/call.wav").read_bytes() == OLD + b" and more"


async def test_half_a_group_is_taken_back_when_the_audio_goes(tmp_path, monkeypatch):
    """A sidecar that stood already when the disk filled up does not stay behind without its audio."""
    monkeypatch.setattr(publisher, "MISSING_WAIT_SECONDS", 0.01)
    faults = Faults(monkeypatch)
    async with Gated(tmp_path, "sent") as house:
        path = await house.drop_and_wait()
        faults.before["link"] = lambda: faults.before.update(link=lambda: _fill(faults, path))
        house.script.gate.set()
        await house.until(lambda: house.lookout.looked)
        await house.until(house._is_idle)

    assert tree(tmp_path / "done") == set()


async def test_half_a_group_does_not_wait_in_done_for_a_full_disk(tmp_path, monkeypatch):
    """The sidecar that found room goes when the next one does not; with room again all stand."""
    faults = Faults(monkeypatch)
    async with Gated(tmp_path, "sent") as house:
        await house.drop_and_wait()
        faults.before["link"] = lambda: faults.before.update(
            link=lambda: faults.always.update(link=errno.ENOSPC)
        )
        house.script.gate.set()
        await house.until(lambda: house.engine.folders.closed_reason("calls"))
        assert tree(tmp_path / "done") == set()
        faults.lift()
        await house.until(house._is_idle)

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def test_a_listing_that_misses_a_file_while_a_slow_disk_files_it_ends_nothing(tmp_path, monkeypatch):
    """The row was withdrawn between the move and its end: the group stands whole, the next file goes on."""
    faults = Faults(monkeypatch)
    async with Gated(tmp_path, "sent") as house:
        await house.drop_and_wait()

        def withdraw():
            places = [(b"", b"call.wav")]
            house.store.call(lambda db: intake_queries.withdraw(db, "calls", places, "missing")).result()

        faults.before["renameat2"] = lambda: faults.before.update(fsync=withdraw)
        await house.go_on()
        await house.until((tmp_path / "done/call.wav").exists)
        await house.drop("next.wav")
        await house.until(house._is_idle)

    ends = ("wav", "json", "txt")
    assert tree(tmp_path / "done") == {f"{stem}.{end}" for stem in ("call", "next") for end in ends}


def _fill(faults, path):
    path.unlink()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _code_of(house):
    row = house.store.call(
        lambda db: db.execute("SELECT code FROM jobs ORDER BY id DESC LIMIT 1").fetchone()
    ).result()
    return row[0]


async def test_a_recording_is_closed_before_it_is_moved(tmp_path, monkeypatch):
    """Some FUSE file systems rename no open file, and others keep it under a hidden name."""
    real, still_open = publisher.publish_together, []

    def publish(requests):
        targets = []
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                targets.append(os.readlink(f"/proc/self/fd/{number}"))
        still_open.extend(name for name in targets if name.startswith(str(tmp_path)) and ".wav" in name)
        return real(requests)

    monkeypatch.setattr(publisher, "publish_together", publish)
    async with House(make_config(tmp_path)) as house:
        for number in range(10):
            await house.drop(f"{number}.wav", b"%d" % number)
            await house.until(lambda: len(house.listener.files) == number + 1)  # noqa: B023  # awaited here
    assert still_open == []


async def test_a_rule_that_gets_another_name_while_its_file_gets_one(tmp_path, monkeypatch):
    """A reload gives the job to the new name just when its names are taken: it is filed as it began."""
    loop, publish, renamed = asyncio.get_running_loop(), publisher.publish_together, []

    def rename_first(requests):
        if renamed:
            return publish(requests)
        renaming = house.engine.begin_folders({"renamed": False}, {"renamed": "inbox"})
        renamed.append(asyncio.run_coroutine_threadsafe(renaming, loop).result(10))
        return [NameTaken(b"call.wav") for _ in requests]

    monkeypatch.setattr(publisher, "publish_together", rename_first)
    with capture_logs() as logs:
        async with House(make_config(tmp_path)) as house:
            await house.engine.begin_folders({"calls": False}, {"calls": "inbox"})
            await house.drop("call.wav")
            await house.until((tmp_path / "done/call.wav").exists)
            await house.until(lambda: not house.engine.in_flight)
    assert renamed
    assert not [line for line in logs if line["event"] == "job.bug"]
