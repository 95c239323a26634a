"""From a settled file to its place in done or failed: real SQLite, real files, a scripted provider."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest
from structlog.testing import capture_logs

from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.core.model import FileSnapshot, NewJob
from dropscribe.pipeline import attempts, disk_threads, publisher
from dropscribe.queue.sql.history import FileFilter, read_files
from dropscribe.queue.sql.rows import inode_of_row
from support.house import House, digest, make_config, read_json, tree
from support.scripted import ScriptedProvider


async def test_a_file_goes_from_inbox_to_done_with_its_sidecars(tmp_path):
    """A settled file ends in done, its sidecars beside it, its sub-folder kept, its bytes untouched."""
    async with House(make_config(tmp_path, outputs=("json", "txt", "srt", "vtt"))) as house:
        await house.drop("2026/call.wav", b"RIFF hello")
        await house.rest()

    names = {"2026/call.wav", "2026/call.json", "2026/call.txt", "2026/call.srt", "2026/call.vtt"}
    assert tree(tmp_path / "done") == names
    assert (tmp_path / "done/2026/call.wav").read_bytes() == b"RIFF hello"
    document = read_json(tmp_path / "done/2026/call.json")
    assert document["source"] == {
        "file": "call.wav",
        "path": "2026/call.wav",
        "bytes": 10,
        "sha256": digest(b"RIFF hello"),
        "modified_at": document["source"]["modified_at"],
    }
    assert document["job"]["attempts"] == 1
    assert tree(tmp_path / "inbox") == set()


async def test_sidecars_take_the_audios_mode_less_execute_bits(tmp_path):
    """A sidecar of a 0750 recording is 0640, and the recording keeps its mode and times."""
    async with House(make_config(tmp_path)) as house:
        path = tmp_path / "inbox/call.wav"
        path.write_bytes(b"audio")
        path.chmod(0o750)
        os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
        await house.submit("call.wav")
        await house.rest()

    assert stat.S_IMODE((tmp_path / "done/call.json").stat().st_mode) == 0o640
    moved = (tmp_path / "done/call.wav").stat()
    assert stat.S_IMODE(moved.st_mode) == 0o750
    assert moved.st_mtime_ns == 1_600_000_000_123_456_789


async def test_a_taken_name_gives_the_whole_group_the_next_number(tmp_path):
    """A sidecar name that somebody else has is never overwritten: audio and sidecars become -2."""
    async with House(make_config(tmp_path)) as house:
        (tmp_path / "done").mkdir()
        (tmp_path / "done/call.txt").write_text("somebody else's")
        await house.drop("call.wav")
        await house.rest()

    assert tree(tmp_path / "done") == {"call.txt", "call-2.wav", "call-2.json", "call-2.txt"}
    assert (tmp_path / "done/call.txt").read_text() == "somebody else's"


async def test_two_files_of_one_stem_do_not_share_a_sidecar(tmp_path):
    """a.wav beside a.mp3: each transcript stands under a name of its own."""
    async with House(make_config(tmp_path)) as house:
        await house.drop("a.wav", b"the wav")
        await house.drop("a.mp3", b"the mp3")
        await house.rest()

    assert len(tree(tmp_path / "done")) == 6
    for document in (tmp_path / "done").glob("*.json"):
        facts = read_json(document)
        audio = document.with_suffix(os.path.splitext(facts["source"]["file"])[1])
        assert facts["source"]["sha256"] == digest(audio.read_bytes())


async def test_full_sidecar_names_keep_the_audios_suffix(tmp_path):
    """With sidecar_name: full, a.wav and a.mp3 need no numbers."""
    async with House(make_config(tmp_path, sidecar_name="full", outputs=("json",))) as house:
        await house.drop("a.wav", b"the wav")
        await house.drop("a.mp3", b"the mp3")
        await house.rest()

    assert tree(tmp_path / "done") == {"a.wav", "a.wav.json", "a.mp3", "a.mp3.json"}


@pytest.mark.parametrize(
    "name",
    [b"new\nline.wav", b"-dash.wav", b"$(touch x).wav", b"'q\".wav", b"\xff\xfe.wav", b"x" * 251 + b".wav"],
    ids=["newline", "dash", "shell", "quotes", "not-utf8", "255-bytes"],
)
async def test_awkward_names_arrive(tmp_path, name):
    """Names with newlines, quotes, no UTF-8 or the longest length end in done with whole sidecars."""
    async with House(make_config(tmp_path)) as house:
        await house.drop(name, b"audio of " + name)
        await house.rest()

    done = os.fsencode(tmp_path / "done")
    names = os.listdir(done)
    assert len(names) == 3
    (audio,) = [each for each in names if each.endswith(b".wav")]
    with open(os.path.join(done, audio), "rb") as file:
        assert file.read() == b"audio of " + name
    assert audio == name or (len(name) == 255 and audio.startswith(b"xxx"))


async def test_a_rejected_file_ends_in_failed_with_its_reason(tmp_path):
    """What the provider will never take goes to failed with code, reason and every attempt."""
    script = ScriptedProvider(
        [
            TemporaryFailure("http_500", "oops", status=500),
            AudioRejected("bad_format", "no audio", status=415),
        ]
    )
    async with House(make_config(tmp_path), {"main": script}) as house:
        await house.drop("2026/call.wav")
        await house.rest()

    assert tree(tmp_path / "failed") == {"2026/call.wav", "2026/call.error.json"}
    document = read_json(tmp_path / "failed/2026/call.error.json")
    assert document["schema"] == "dropscribe.error/1"
    assert (document["code"], document["reason"]) == ("bad_format", "no audio")
    assert [(each["status"], each["code"]) for each in document["attempts"]] == [
        (500, "http_500"),
        (415, "bad_format"),
    ]


async def test_an_empty_file_fails_without_being_sent(tmp_path):
    """Nothing is paid for an empty file."""
    async with House(make_config(tmp_path)) as house:
        await house.drop("empty.wav", b"")
        await house.rest()

    document = read_json(tmp_path / "failed/empty.error.json")
    assert document["code"] == "empty_file"
    assert document["attempts"] == []
    assert house.providers["main"].calls == []


async def test_a_good_answer_after_bad_ones_is_counted(tmp_path):
    """Temporary failures are tried again, and the transcript says how often."""
    script = ScriptedProvider([TemporaryFailure("http_500", status=500)] * 2)
    async with House(make_config(tmp_path), {"main": script}) as house:
        await house.drop("call.wav")
        await house.rest()

    assert read_json(tmp_path / "done/call.json")["job"]["attempts"] == 3


async def test_ambiguous_failures_end_after_max_ambiguous(tmp_path):
    """A file whose answer never comes is not paid for without end; each attempt is counted, the last too."""
    script = ScriptedProvider([AmbiguousFailure("no_answer", "cut off")] * 9)
    async with House(make_config(tmp_path, retry={"max_ambiguous": 2}), {"main": script}) as house:
        await house.drop("call.wav")
        await house.rest()
        stats = await house.stats()

    assert (len(script.calls), stats.maybe_paid_twice) == (2, 2)
    assert read_json(tmp_path / "failed/call.error.json")["code"] == "no_answer"
    assert stats.failed == 1


async def test_time_up_gives_up(tmp_path):
    """After give_up_after of tries and waits the file ends in failed as given up."""
    script = ScriptedProvider([TemporaryFailure("http_500", status=500)] * 99)
    config = make_config(tmp_path, retry={"give_up_after_seconds": 0.1})
    async with House(config, {"main": script}) as house:
        await house.drop("call.wav")
        await house.until((tmp_path / "failed/call.wav").exists)

    error = read_json(tmp_path / "failed/call.error.json")
    assert error["code"] == "gave_up"
    assert error["reason"].startswith("no transcript after ")
    assert error["reason"].endswith("of attempts and waits; the last one: http_500")


async def test_an_account_in_trouble_holds_the_provider_and_not_the_files(tmp_path):
    """A bad key keeps every file in the inbox, probes with one, and lets all go when it is mended."""
    broken = [True]

    def answer(_audio):
        return ProviderUnusable("unauthorized", "bad key", status=401) if broken[0] else None

    script = ScriptedProvider([answer] * 999)
    async with House(make_config(tmp_path), {"main": script}) as house:
        for number in range(8):
            await house.drop(f"{number}.wav", b"audio %d" % number)
        await house.until(lambda: len(script.calls) >= 7)
        stats = await house.stats()
        assert (stats.held + stats.transcribing, stats.failed) == (8, 0)
        assert len(tree(tmp_path / "inbox")) == 8
        broken[0] = False
        await house.until(lambda: len(house.listener.files) == 8)

    assert len(house.listener.holds) == 1
    assert len(house.listener.releases) == 1
    assert read_json(tmp_path / "done/0.json")["job"]["attempts"] == 1


async def test_a_wrong_parameter_holds_the_rule_alone(tmp_path):
    """Another rule of the same provider never notices."""
    from dropscribe.config.model import FolderRule, ProviderConfig

    providers = {"main": ProviderConfig(name="main", type="openai", concurrency=1)}
    rules = {
        name: FolderRule(
            name=name,
            inbox=tmp_path / name,
            done=tmp_path / f"{name}-done",
            failed=tmp_path / f"{name}-failed",
            providers=("main",),
        )
        for name in ("bad", "good")
    }

    def answer(audio):
        return RuleRejected("bad_param", "no such language", status=400) if b"bad" in audio.name else None

    script = ScriptedProvider([answer] * 999)
    config = make_config(tmp_path, rules=rules, providers=providers, hold=(30.0, 60.0))
    async with House(config, {"main": script}) as house:
        await house.drop("bad.wav", b"1", folder="bad")
        await house.drop("good.wav", b"2", folder="good")
        await house.rest()
        bad, good = await house.stats("bad"), await house.stats("good")

    assert (bad.held, good.done) == (1, 1)
    assert tree(tmp_path / "bad") == {"bad.wav"}


async def test_a_hold_that_a_success_ends_at_once_is_not_begun_again(tmp_path):
    """A success between the beginning of a hold and its record ends it: the same failure begins no second."""
    script = ScriptedProvider([TemporaryFailure("connect_failed", "refused")] * 3, gate=asyncio.Event())
    async with House(make_config(tmp_path, hold=(0.05, 0.1)), {"main": script}) as house:
        hold = house.engine.holds.hold

        async def hold_and_release(new):
            await hold(new)
            await house.engine.holds.release(new.scope)

        house.engine.holds.hold = hold_and_release
        for number in range(3):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: script.in_flight == 3)  # each file fails once: none is tried again before
        script.gate.set()
        await house.until(lambda: len(house.listener.files) == 3)

    assert len(house.listener.holds) == 1


async def test_the_same_doubtful_refusal_of_three_files_holds_the_rule(tmp_path):
    """One 400 is the file's; the same for three different files in a row is the rule's."""
    refusal = AudioRejected("http_400", "what?", status=400, maybe_rule=True)
    script = ScriptedProvider([refusal] * 5)
    providers = None
    config = make_config(tmp_path, providers=providers, hold=(30.0, 60.0))
    async with House(config, {"main": script}) as house:
        for number in range(6):
            await house.drop(f"{number}.wav", b"%d" % number)
            await house.rest()
        stats = await house.stats()

    assert (stats.failed, stats.held) == (2, 4)


async def test_a_file_changed_while_it_is_sent_is_taken_again(tmp_path):
    """The transcript of what is no longer there is discarded, and the intake is told to look again."""

    def append(audio):
        with (tmp_path / "inbox/call.wav").open("ab") as file:
            file.write(b" more")

    script = ScriptedProvider([append])
    async with House(make_config(tmp_path), {"main": script}) as house:
        await house.drop("call.wav", b"first")
        await house.rest()
        assert house.lookout.late_changes == [("calls", b"call.wav")]
        await house.submit("call.wav")
        await house.rest()

    assert (tmp_path / "done/call.wav").read_bytes() == b"first more"
    assert read_json(tmp_path / "done/call.json")["source"]["sha256"] == digest(b"first more")


async def test_a_file_taken_away_in_flight_waits_for_the_listing(tmp_path, monkeypatch):
    """What vanished is not filed; the listing decides whether it was renamed or is gone."""
    monkeypatch.setattr(publisher, "MISSING_WAIT_SECONDS", 0.05)

    def rename(audio):
        os.rename(tmp_path / "inbox/call.wav", tmp_path / "inbox/other.wav")

    script = ScriptedProvider([rename])
    async with House(make_config(tmp_path), {"main": script}) as house:
        await house.drop("call.wav", b"content")
        await house.until(lambda: house.lookout.looked)
        await house.relocate("other.wav")
        await house.until(lambda: house.listener.files)

    assert tree(tmp_path / "done") == {"other.wav", "other.json", "other.txt"}
    assert read_json(tmp_path / "done/other.json")["source"]["file"] == "other.wav"
    assert len(script.calls) == 1


async def test_a_done_that_cannot_be_written_keeps_the_answer_and_pays_once(tmp_path):
    """While done cannot be written the answer waits in the store; then it is published, paid once."""
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(make_config(tmp_path), {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: script.in_flight == 1)
        (tmp_path / "done").write_text("a file where the folder should be")
        script.gate.set()
        await house.until(lambda: house.engine.folders.closed_reason("calls"))
        stats = await house.stats()
        assert stats.publishing == 1
        (tmp_path / "done").unlink()
        await house.until(lambda: house.listener.files)

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert len(house.providers["main"].calls) == 1


async def test_a_failed_file_is_listed_with_its_own_failure(tmp_path):
    """Not with that of the move: ``failed`` could not be written for a while."""
    script = ScriptedProvider([AudioRejected("bad_format", "not audio", status=415)])
    async with House(make_config(tmp_path), {"main": script}) as house:
        (tmp_path / "failed").write_text("a file where the folder should be")
        await house.drop("call.wav")
        await house.until(lambda: house.engine.folders.closed_reason("calls"))
        (tmp_path / "failed").unlink()
        await house.until(lambda: house.listener.files)
        await house.rest()
        (listed,) = await house.store.do(lambda db: read_files(db, FileFilter(folders=["calls"]), 3))
    assert (listed.code, listed.reason) == ("bad_format", "not audio")


async def test_nothing_is_paid_for_while_done_cannot_be_written(tmp_path, monkeypatch):
    """It waits, with one line in the log that names the folder, and goes on by itself."""
    monkeypatch.setattr(attempts, "LOOK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(disk_threads, "FIRST_CHECK_SECONDS", 0.01)
    async with House(make_config(tmp_path)) as house:
        (tmp_path / "done").write_text("a file where the folder should be")
        with capture_logs() as lines:
            await house.drop("call.wav")
            await house.until(lambda: house.engine.folders.closed_reason("calls"))
            await house.drop("next.wav")
            await house.rest()
        (line,) = [line for line in lines if line["event"] == "file.not_sent"]
        assert line["reason"].startswith(f"{tmp_path}/done: ")
        assert house.providers["main"].calls == []
        (tmp_path / "done").unlink()
        await house.until(lambda: len(house.listener.files) == 2)

    assert tree(tmp_path / "done") > {"call.wav", "call.json", "call.txt"}


async def test_a_fallback_takes_what_a_held_provider_cannot(tmp_path):
    """With a list, files go to the first provider that is not held; the sidecar names it."""
    from dropscribe.config.model import ProviderConfig

    providers = {
        name: ProviderConfig(name=name, type="openai", concurrency=1) for name in ("first", "second")
    }
    first = ScriptedProvider([ProviderUnusable("unauthorized", status=401)] * 99)
    config = make_config(tmp_path, providers=providers, hold=(60.0, 60.0))
    async with House(config, {"first": first, "second": ScriptedProvider()}) as house:
        for number in range(3):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.rest()

    names = {read_json(path)["provider"]["name"] for path in (tmp_path / "done").glob("*.json")}
    assert names == {"second"}


async def test_concurrency_is_never_exceeded(tmp_path):
    """A provider with two slots never sees three requests."""
    from dropscribe.config.model import ProviderConfig

    script = ScriptedProvider(gate=asyncio.Event())
    providers = {"main": ProviderConfig(name="main", type="openai", concurrency=2)}
    async with House(make_config(tmp_path, providers=providers), {"main": script}) as house:
        for number in range(6):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: script.in_flight == 2)
        script.gate.set()
        await house.rest()

    assert script.most_in_flight == 2
    assert len(house.listener.files) == 6


async def test_an_inode_of_all_64_bits_is_as_good_as_another(tmp_path):
    """mergerfs and others number files so; a database's integers are signed."""
    inode = (1 << 64) - 5
    async with House(make_config(tmp_path)) as house:
        new = NewJob("calls", b"a.wav", FileSnapshot(1, inode, 10, 20), 0.0)
        assert (await asyncio.to_thread(house.engine.intake.submit, [new]))[0].is_new
        row = await house.store.do(lambda db: db.execute("SELECT inode FROM jobs").fetchone())
        assert inode_of_row(row[0]) == inode
