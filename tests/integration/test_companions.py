"""Files that belong to a recording: waited for, carried along, and never lost, mixed up or overwritten."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from dataclasses import replace

import pytest

from dropscribe.core.errors import AudioRejected, PublishError
from dropscribe.core.naming import Companion
from dropscribe.files.audio import snapshot_of
from dropscribe.files.companions import JSON_BYTES, JSON_DEPTH
from dropscribe.files.mounts import ignore_sigio
from dropscribe.publish.filing import publish, withdraw
from dropscribe.publish.publication import NameTaken
from dropscribe.publish.return_to_inbox import return_to_inbox
from support.faults import WAYS, Faults, filled, tmpfs
from support.house import House, make_config, read_json, tree
from support.inboxes import Station
from support.publications import publication_of
from support.scripted import ScriptedProvider

CALL = {"talkgroup": 4711, "start_time": 1_780_000_000, "units": [{"id": "7", "text": "Grüße"}]}
RADIO = json.dumps(CALL).encode()


@pytest.fixture(autouse=True)
def _leases():
    ignore_sigio()


def beside(root, name, content=RADIO):
    """A file in the inbox."""
    path = root / "inbox" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# Through the pipeline


async def test_a_companion_goes_with_its_recording_and_into_the_transcript(tmp_path):
    """In done both stand beside our sidecars, which get other names; the date is the call's."""
    os.utime(beside(tmp_path, "2026/call.json"), ns=(10**18, 10**18))
    beside(tmp_path, "2026/call.xml", b"<call/>")
    beside(tmp_path, "2026/other.json")
    config = make_config(tmp_path, companions=("{stem}.json", "{stem}.xml"), outputs=("json", "txt"))
    async with House(config) as house:
        await house.drop("2026/call.wav")
        await house.rest()
        (filed,) = house.listener.files

    done = tmp_path / "done/2026"
    assert tree(done) == {"call.wav", "call.wav.json", "call.wav.txt", "call.json", "call.xml"}
    assert (done / "call.json").read_bytes() == RADIO
    assert (done / "call.json").stat().st_mtime_ns == 10**18
    assert (done / "call.xml").read_bytes() == b"<call/>"
    document = read_json(done / "call.wav.json")
    assert document["companion"] == {"call.json": CALL}
    assert (document["recorded_at"], document["recorded_by"]) == ("2026-05-28T20:26:40Z", "companion")
    assert document["warnings"] == []
    assert tree(tmp_path / "inbox") == {"2026/other.json"}
    assert [os.fsdecode(filed.names.path(each.name)) for each in filed.names.companions] == [
        f"{done}/call.json",
        f"{done}/call.xml",
    ]


async def test_what_a_reused_answer_says_of_companions_is_this_recordings(tmp_path):
    """The same recording under another name brings its own companion, or none."""
    config = make_config(tmp_path, companions=("{stem}.json",), ledger_keep_seconds=60.0)
    beside(tmp_path, "one.json")
    async with House(config) as house:
        for name in ("one.wav", "two.wav"):
            await house.drop(name)
            await house.rest()

    document = read_json(tmp_path / "done/two.json")
    assert (document["reused"], document["companion"]) == (True, None)
    assert document["recorded_by"] == "mtime"
    assert document["warnings"] == ["companion_missing"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"half": ',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b"[" * (JSON_DEPTH + 2) + b"]" * (JSON_DEPTH + 2),
        b"[" * 200_000,
        b'"' + b"x" * JSON_BYTES + b'"',
    ],
    ids=["empty", "half", "nan", "infinite", "digits", "bytes", "deep", "very deep", "large"],
)
async def test_json_that_cannot_be_carried_is_only_moved(tmp_path, content):
    """Damaged, not representable, too deep or too large: the recording is done all the same."""
    beside(tmp_path, "call.json", content)
    async with House(make_config(tmp_path, companions=("{stem}.json",))) as house:
        await house.drop("call.wav")
        await house.rest()

    assert (tmp_path / "done/call.json").read_bytes() == content
    assert read_json(tmp_path / "done/call.wav.json")["companion"] is None


@pytest.mark.parametrize("content", [b'{"when": ' + b"9" * 400 + b', "date": 1e300}', b'{"date": "\\ud800"}'])
async def test_odd_values_in_a_companion_cost_no_transcript(tmp_path, content):
    """Numbers that no date can have, half a character: carried as they are."""
    beside(tmp_path, "call.json", content)
    async with House(make_config(tmp_path, companions=("{stem}.json",), outputs=("json", "md"))) as house:
        await house.drop("call.wav")
        await house.rest()

    assert read_json(tmp_path / "done/call.wav.json")["companion"] == {"call.json": json.loads(content)}


async def test_names_that_are_taken_give_the_whole_group_the_next_number(tmp_path):
    """Somebody's call.xml in done stays; the companion of the next recording has the number of its audio."""
    (tmp_path / "done").mkdir()
    (tmp_path / "done/call.xml").write_bytes(b"<theirs/>")
    beside(tmp_path, "call.XML", b"<mine/>")
    async with House(make_config(tmp_path, companions=("{stem}.xml",))) as house:
        await house.drop("call.wav")
        await house.rest()

    assert tree(tmp_path / "done") == {"call.xml", "call.XML", "call.wav", "call.json", "call.txt"}
    assert (tmp_path / "done/call.xml").read_bytes() == b"<theirs/>"
    beside(tmp_path, "call.xml", b"<next/>")
    async with House(make_config(tmp_path, companions=("{stem}.xml",))) as house:
        await house.drop("call.wav", b"RIFF another")
        await house.rest()
    assert (tmp_path / "done/call-2.xml").read_bytes() == b"<next/>"
    assert (tmp_path / "done/call-2.wav").exists()


async def test_a_companion_that_changes_before_it_is_moved_is_read_again(tmp_path):
    """What is in done and what the transcript says are the same version."""
    path = beside(tmp_path, "2026/call.json")
    config = make_config(tmp_path, companions=("{stem}.json",))
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(config, {"main": script}) as house:
        await house.drop("2026/call.wav")
        await house.until(lambda: script.in_flight)
        (tmp_path / "done").mkdir()
        (tmp_path / "done/2026").write_text("in the way")
        script.gate.set()

        async def is_answered():
            return (await house.stats()).publishing

        await house.until(is_answered)
        path.write_bytes(b'{"talkgroup": 1}')
        (tmp_path / "done/2026").unlink()
        await house.until(lambda: house.listener.files)

    assert read_json(tmp_path / "done/2026/call.json") == {"talkgroup": 1}
    assert read_json(tmp_path / "done/2026/call.wav.json")["companion"] == {"call.json": {"talkgroup": 1}}
    assert tree(tmp_path / "inbox") == set()


async def test_a_companion_that_is_being_written_stays(tmp_path):
    """After the wait the recording goes without it, and says so."""
    path = beside(tmp_path, "call.json", b'{"half": ')
    with path.open("ab"):
        async with House(make_config(tmp_path, companions=("{stem}.json",))) as house:
            await house.drop("call.wav")
            await house.rest()

    assert tree(tmp_path / "inbox") == {"call.json"}
    assert read_json(tmp_path / "done/call.json")["warnings"] == ["companion_missing"]


async def test_a_link_is_no_companion(tmp_path):
    """It stays where it is, and what it leads to is not read."""
    secret = tmp_path / "secret.json"
    secret.write_bytes(RADIO)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/call.json").symlink_to(secret)
    async with House(make_config(tmp_path, companions=("{stem}.json",))) as house:
        await house.drop("call.wav")
        await house.rest()

    assert (tmp_path / "inbox/call.json").is_symlink()
    assert read_json(tmp_path / "done/call.json")["companion"] is None


async def test_a_failed_recording_takes_its_companion_along_and_brings_it_back(tmp_path):
    """To failed and, by retry, back into the inbox under the names that belong together."""
    beside(tmp_path, "call.json")
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed/call.json").write_bytes(b"another call's")
    config = make_config(tmp_path, companions=("{stem}.json",))
    refusal = AudioRejected("bad_format", "no", status=415)
    async with House(config, {"main": ScriptedProvider([refusal])}) as house:
        await house.drop("call.wav")
        await house.rest()
    assert tree(tmp_path / "failed") == {"call.json", "call-2.wav", "call-2.json", "call-2.error.json"}

    beside(tmp_path, "call.json", b"of a recording to come")
    back = return_to_inbox(config.folders["calls"], b"call-2.wav", b"call.wav")
    assert os.path.basename(back) == b"call-2.wav"
    assert (tmp_path / "inbox/call-2.json").read_bytes() == RADIO
    assert (tmp_path / "inbox/call.json").read_bytes() == b"of a recording to come"
    assert tree(tmp_path / "failed") == {"call.json"}


@pytest.mark.slow
async def test_a_full_done_for_real(tmp_path):
    """A companion without room waits with its recording; nothing of the group stands there meanwhile."""
    beside(tmp_path, "call.xml", b"<a>" * 30_000)
    with tmpfs(tmp_path / "done"):
        async with House(make_config(tmp_path, companions=("{stem}.xml",))) as house:
            with filled(tmp_path / "done", leave_bytes=40_000):
                await house.drop("call.wav")
                await house.until(lambda: house.engine.folders.closed_reason("calls"))
                await house.rest()
                assert tree(tmp_path / "inbox") == {"call.wav", "call.xml"}
                assert tree(tmp_path / "done") == {".ballast"}
            await house.until(lambda: house.listener.files)
        assert (tmp_path / "done/call.xml").read_bytes() == b"<a>" * 30_000
    assert tree(tmp_path / "inbox") == set()


# Publishing


def request_with_companion(root, content=RADIO):
    """A group of an audio, two sidecars and a companion."""
    audio, path = beside(root, "call.wav", b"audio"), beside(root, "call.xml", content)
    request = publication_of(audio, root / "done")
    companion = Companion(b"{stem}.xml", b"call.xml", snapshot_of(path.stat()), b"call.xml")
    return replace(request, output_names=replace(request.output_names, companions=(companion,)))


WHOLE = {"call.wav", "call.json", "call.txt", "call.xml"}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["rename", "plain", "bare", "copy"])
def test_a_call_that_fails_at_any_step_loses_no_companion(memory_path, monkeypatch, way):
    """Each system call in turn fails: it is in the inbox or in done, and in the end in done alone."""
    faults = Faults(monkeypatch)
    faults.always.update(WAYS[way])
    for step in range(500):
        root = memory_path / str(step)
        request = request_with_companion(root)
        faults.arm(errno.EIO, step)
        while not is_published(request):
            places = (
                root / "inbox/call.xml",
                root / "done/call.xml",
                *(root / "inbox").glob(".dropscribe-*"),
            )
            assert RADIO in [path.read_bytes() for path in places if path.exists()]
        assert {name for name in tree(root / "done") if name != ".dropscribe-trial"} == WHOLE
        assert (root / "done/call.xml").read_bytes() == RADIO
        assert tree(root / "inbox") == set()
        if not faults.has_hit:
            return
    raise AssertionError("no call without a fault")


def is_published(request):
    """One try."""
    try:
        publish(request)
    except (PublishError, OSError):
        return False
    return True


def test_a_companion_in_done_that_is_somebody_elses_is_left_alone(tmp_path):
    """Equal content is no proof; both stay, and the group gets other names."""
    request = request_with_companion(tmp_path)
    (tmp_path / "done").mkdir()
    (tmp_path / "done/call.xml").write_bytes(RADIO)
    with pytest.raises(NameTaken):
        publish(request)
    withdraw(request)
    assert tree(tmp_path / "done") == {"call.xml"}
    assert tree(tmp_path / "inbox") == {"call.wav", "call.xml"}


def test_the_last_copy_is_never_withdrawn(tmp_path, monkeypatch):
    """The original has gone from the inbox: the copy stays, whatever becomes of the recording."""
    request = request_with_companion(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("dropscribe.publish.moving.move_audio", _fail)
        with pytest.raises(PublishError):
            publish(request)
    (tmp_path / "inbox/call.xml").unlink()
    withdraw(request)
    assert tree(tmp_path / "done") == {"call.xml"}


def _fail(*_, **__):
    raise OSError(errno.EIO, "Input/output error")


# Waiting


@pytest.fixture
def station(tmp_path):
    """A polled inbox under a manual clock, whose recordings come with a JSON file."""
    (tmp_path / "inbox").mkdir()
    made = Station(tmp_path / "inbox", companions=("{stem}.json",), companions_wait_seconds=60.0)
    yield made
    made.close()


def test_a_recording_waits_for_its_companion(station):
    """`why` names the companion and the end of the wait; it is taken soon after the companion came."""
    station.write("call.wav")
    station.run(20)
    assert station.paths == []
    words = station.waiting[b"call.wav"]
    assert words.startswith("its companion 'call.json' is not there or not complete; taken without it in ")
    assert words.endswith(("39 s", "40 s", "41 s"))
    assert station.state.waits_for_quiet
    station.write("call.json", RADIO)
    station.run(6)
    assert station.paths == [b"call.wav"]


def test_after_the_wait_it_is_taken_without(station):
    """As long as the rule says, and no longer; the wait begins anew when the recording changes."""
    station.write("call.wav")
    station.run(59)
    assert station.paths == []
    station.run(2)
    assert station.paths == [b"call.wav"]


def test_a_companion_that_is_being_written_is_waited_for(station):
    """An open or half written file is not there yet; a damaged one must be quiet for a moment."""
    station.write("call.wav")
    path = station.write("call.json", b'{"half": ')
    with open(path, "ab") as file:
        station.run(10)
        assert station.paths == []
        file.write(b"1")
    station.run(1)
    assert station.paths == []
    station.run(10)
    assert station.paths == [b"call.wav"]


def test_the_least_age_is_the_recordings_alone(tmp_path):
    """A companion that is there does not have to age once more when the recording is old enough."""
    (tmp_path / "inbox").mkdir()
    made = Station(tmp_path / "inbox", companions=("{stem}.json",), min_age_seconds=30.0)
    made.write("call.wav")
    made.write("call.json", RADIO)
    made.run(31)
    assert made.paths == [b"call.wav"]
    made.close()


def test_a_companion_is_no_recording(tmp_path):
    """Also where the rule takes everything: it is neither taken nor counted."""
    (tmp_path / "inbox").mkdir()
    made = Station(tmp_path / "inbox", include=("*",), companions=("{stem}.json",))
    made.write("call.json", RADIO)
    made.run(100)
    assert (made.paths, made.waiting) == ([], {})
    made.close()
