"""Paid once: the same recording, under any name, is answered from the ledger."""

from __future__ import annotations

import dataclasses
import os
import time

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AudioRejected
from dropscribe.queue.sql import result_cache
from dropscribe.reports.explain import explain
from dropscribe.reports.queue_reader import view_queue
from dropscribe.transcripts.model import Segment, Transcript
from support.house import House, digest, make_config, read_json, tree
from support.scripted import ScriptedProvider

DAY = 86400.0
AUDIO = b"RIFF the same recording"


def keeping(root, **keys):
    """One rule with the ledger on."""
    return make_config(root, ledger_keep_seconds=90 * DAY, **keys)


async def drop_in_turn(house, *names, content=AUDIO):
    """Each file ends before the next is dropped."""
    for name in names:
        await house.drop(name, content)
        await house.rest()


async def test_the_same_recording_under_another_name_is_not_sent_again(tmp_path):
    """Its transcript comes from the ledger, marked as reused; names, times and path are its own."""
    async with House(keeping(tmp_path, outputs=("json", "txt", "srt"))) as house:
        await drop_in_turn(house, "first.wav", "2026/again.wav")

    assert len(house.providers["main"].calls) == 1
    first, again = (read_json(tmp_path / "done" / name) for name in ("first.json", "2026/again.json"))
    assert (first["reused"], again["reused"]) == (False, True)
    assert again["source"]["path"] == "2026/again.wav"
    assert again["source"]["sha256"] == first["source"]["sha256"] == digest(AUDIO)
    assert again["job"]["attempts"] == 0
    assert again["job"]["received_at"] > first["job"]["received_at"]
    for key in ("text", "words", "segments", "raw", "provider"):
        assert again[key] == first[key]
    assert tree(tmp_path / "done") >= {"2026/again.wav", "2026/again.txt", "2026/again.srt"}
    assert [filed.document["reused"] for filed in house.listener.files] == [False, True]


async def test_speakers_with_one_name_are_told_apart_by_another_rule(tmp_path):
    """A rule that calls both of them Staff does not merge them in the stored answer."""
    said = (("Hi.", "speaker_0"), ("Hello.", "speaker_1"))
    segments = tuple(Segment(text, at, at + 1.0, speaker) for at, (text, speaker) in enumerate(said))
    script = ScriptedProvider([Transcript("Hi. Hello.", segments=segments, raw={})])
    config = keeping(tmp_path, speaker_names={"speaker_0": "Staff", "speaker_1": "Staff"})
    async with House(config, {"main": script}) as house:
        await drop_in_turn(house, "first.wav")
    async with House(keeping(tmp_path), {"main": script}) as house:
        await drop_in_turn(house, "again.wav")

    assert len(script.calls) == 1
    first, again = (read_json(tmp_path / "done" / name) for name in ("first.json", "again.json"))
    assert first["speakers"] == ["Staff"]
    assert again["reused"] is True
    assert (again["speakers"], again["speaker_names"]) == (["speaker_0", "speaker_1"], {})
    assert [segment["speaker"] for segment in again["segments"]] == ["speaker_0", "speaker_1"]


async def test_an_answer_survives_a_new_start(tmp_path):
    """What was paid for before the restart is not paid for after it."""
    config = keeping(tmp_path)
    async with House(config) as house:
        await drop_in_turn(house, "first.wav")
    async with House(config) as house:
        await drop_in_turn(house, "again.wav")

    assert house.providers["main"].calls == []
    assert read_json(tmp_path / "done/again.json")["reused"] is True


async def test_another_content_of_the_same_size_is_sent(tmp_path):
    """The size only asks the question; the content answers it."""
    async with House(keeping(tmp_path)) as house:
        await drop_in_turn(house, "a.wav", content=b"one")
        await drop_in_turn(house, "b.wav", content=b"two")

    assert house.providers["main"].calls == [b"a.wav", b"b.wav"]


@pytest.mark.parametrize(
    "changed",
    [{"params": {"main": {"language": "de"}}}, {"providers": ("other",)}],
    ids=["language", "url"],
)
async def test_other_settings_are_another_answer(tmp_path, changed):
    """Another language, or another server, is asked anew."""
    providers = {
        "main": ProviderConfig(name="main", type="openai"),
        "other": ProviderConfig(name="other", type="openai", url="http://127.0.0.1:9/v1"),
    }
    config = keeping(tmp_path, providers=providers)
    rule = dataclasses.replace(config.folders["calls"], providers=("main",))
    async with House(dataclasses.replace(config, folders={"calls": rule})) as house:
        await drop_in_turn(house, "first.wav")
    rule = dataclasses.replace(rule, **changed)
    async with House(dataclasses.replace(config, folders={"calls": rule})) as house:
        await drop_in_turn(house, "again.wav")

    assert sum(len(provider.calls) for provider in house.providers.values()) == 1
    assert read_json(tmp_path / "done/again.json")["reused"] is False


@pytest.mark.parametrize("keys", [{"duplicates": "transcribe"}, {}], ids=["transcribe", "ledger-off"])
async def test_who_wants_to_pay_again_does(tmp_path, keys):
    """With duplicates: transcribe, and with ledger_keep: 0, every file is sent."""
    config = make_config(tmp_path, ledger_keep_seconds=90 * DAY if keys else 0.0, **keys)
    async with House(config) as house:
        await drop_in_turn(house, "first.wav", "again.wav")

    assert len(house.providers["main"].calls) == 2


async def test_a_skipped_duplicate_names_the_first(tmp_path):
    """With duplicates: skip it goes to failed, and the reason says where the first one was filed."""
    async with House(config := keeping(tmp_path, duplicates="skip")) as house:
        await drop_in_turn(house, "first.wav", "again.wav")
        with view_queue(config) as view:
            _, said = explain(config, os.fsencode(tmp_path / "failed/again.wav"), view)

    assert f"dropscribe forget {tmp_path}/failed/again.wav" in said.remedy
    error = read_json(tmp_path / "failed/again.error.json")
    assert error["code"] == "duplicate"
    assert os.fspath(tmp_path / "done/first.wav") in error["reason"]
    assert error["attempts"] == []
    assert (tmp_path / "failed/again.wav").read_bytes() == AUDIO
    assert len(house.providers["main"].calls) == 1


async def test_a_refusal_is_no_answer(tmp_path):
    """Only transcripts are remembered: a file that was refused may be tried again."""
    script = ScriptedProvider([AudioRejected("bad_format", status=415)])
    async with House(keeping(tmp_path), {"main": script}) as house:
        await drop_in_turn(house, "first.wav", "again.wav")

    assert (tmp_path / "done/again.wav").exists()
    assert len(script.calls) == 2


async def test_warnings_of_the_other_file_are_not_taken_over(tmp_path):
    """Incomplete audio, and missing times, are said of the file that they are true of."""
    async with House(keeping(tmp_path)) as house:
        await house.drop("first.wav", AUDIO, incomplete=True)
        await house.rest()
        await drop_in_turn(house, "again.wav")

    assert "incomplete_audio" in read_json(tmp_path / "done/first.json")["warnings"]
    assert "incomplete_audio" not in read_json(tmp_path / "done/again.json")["warnings"]


async def test_a_forgotten_answer_is_paid_for_again(tmp_path):
    """Forgetting takes effect at once, in a daemon that runs."""
    async with House(keeping(tmp_path)) as house:
        await drop_in_turn(house, "first.wav")
        assert await house.store.do(lambda db: result_cache.forget(db, digest(AUDIO))) == 1
        await drop_in_turn(house, "again.wav")

    assert len(house.providers["main"].calls) == 2


async def test_an_answer_that_is_too_old_is_not_used(tmp_path):
    """After ledger_keep the file is sent, whether the old answer has gone yet or not."""
    async with House(keeping(tmp_path)) as house:
        await drop_in_turn(house, "first.wav")
        await house.store.do(lambda db: db.execute("UPDATE ledger SET kept_at = kept_at - ?", (91 * DAY,)))
        await drop_in_turn(house, "again.wav")

    assert len(house.providers["main"].calls) == 2


async def test_the_ledger_stays_within_its_bounds(tmp_path):
    """The oldest go first, by age and by size, and the count of bytes stays true."""
    async with House(keeping(tmp_path)) as house:
        for number in range(6):
            await drop_in_turn(house, f"{number}.wav", content=os.urandom(16))

        def prune(db):
            sizes = [n for (n,) in db.execute("SELECT length(document) FROM ledger ORDER BY kept_at")]
            gone = result_cache.prune(db, 0.0, most_bytes=sum(sizes[3:]))
            left = db.execute("SELECT sum(length(document)) FROM ledger").fetchone()[0]
            return (
                gone,
                left == sum(sizes[3:]),
                db.execute("SELECT bytes FROM ledger_total").fetchone()[0] == left,
            )

        assert await house.store.do(prune) == (3, True, True)
        assert await house.store.do(lambda db: result_cache.prune(db, time.time() + 1)) == 3


async def test_a_plain_file_is_not_hashed_for_the_ledger(tmp_path, monkeypatch):
    """Where no known recording has its size, the file is read once, by the upload."""
    async with House(keeping(tmp_path)) as house:
        await drop_in_turn(house, "first.wav", content=b"one size")
        asked = []
        recall = result_cache.read_answer

        def spy(db, key, since):
            asked.append(key.sha256)
            return recall(db, key, since)

        monkeypatch.setattr(result_cache, "read_answer", spy)
        await drop_in_turn(house, "other.wav", content=b"quite another size")
        assert asked == []
        await drop_in_turn(house, "again.wav", content=b"one size")
        assert asked == [digest(b"one size")]
