"""Where files stand and what they are called: other mounts, folders that come and go, names of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import subprocess
import unicodedata
from dataclasses import replace

import pytest

from dropscribe.config.model import FolderRule
from dropscribe.config.sections.provider import ProviderConfig
from dropscribe.core.errors import AudioRejected, TemporaryFailure
from dropscribe.files import mounts
from dropscribe.pipeline import attempts, disk_threads, publisher
from dropscribe.pipeline.claims import build_runtime
from dropscribe.publish.places import PlaceRefused, check_places
from support.faults import mount, mounted, run_as_nobody, tmpfs, unmount
from support.house import House, digest, make_config, read_json, stats_of, tree
from support.inboxes import wav
from support.lossy_fuse import mounted_lossy
from support.scripted import ScriptedProvider
from support.whole import Whole


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(publisher, "LONGEST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(publisher, "LONGEST_OWN_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(attempts, "LOOK_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(disk_threads, "FIRST_CHECK_SECONDS", 0.02)


GROUP = {"call.wav", "call.json", "call.txt"}


def make_rule(root, name="calls", **keys):
    """A rule with folders of its own below *root*/*name*."""
    folders = {part: root / name / part for part in ("inbox", "done", "failed")}
    return FolderRule(name=name, **{**folders, "providers": ("main",), **keys})


# Other mounts --------------------------------------------------------------------------------------


async def test_done_on_another_file_system(tmp_path):
    """Copied: content, mode, times and owner are kept, and the original goes only then."""
    with tmpfs(tmp_path / "done", "16m"):
        async with House(make_config(tmp_path)) as house:
            path = tmp_path / "inbox/call.wav"
            path.write_bytes(wav(3_000_000))
            path.chmod(0o741)
            os.chown(path, 1234, 2345)
            os.utime(path, ns=(1_500_000_000_000_000_001, 1_600_000_000_123_456_789))
            await house.submit("call.wav")
            await house.rest()

        moved = (tmp_path / "done/call.wav").stat()
        sidecar = (tmp_path / "done/call.json").stat()
        assert tree(tmp_path / "done") == GROUP
        assert (tmp_path / "done/call.wav").read_bytes() == wav(3_000_000)
    assert tree(tmp_path / "inbox") == set()
    assert (stat.S_IMODE(moved.st_mode), moved.st_uid, moved.st_gid) == (0o741, 1234, 2345)
    assert moved.st_mtime_ns == 1_600_000_000_123_456_789
    assert (stat.S_IMODE(sidecar.st_mode), sidecar.st_uid, sidecar.st_gid) == (0o640, 1234, 2345)


async def test_two_bind_mounts_of_one_file_system(tmp_path):
    """Equal st_dev and yet EXDEV, as under two ReadWritePaths=: the file is copied and removed."""
    for name in ("inbox", "done"):
        (tmp_path / "disk" / name).mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        for name in ("inbox", "done"):
            stack.enter_context(mounted(tmp_path / name, "--bind", tmp_path / "disk" / name))
        assert (tmp_path / "inbox").stat().st_dev == (tmp_path / "done").stat().st_dev
        with pytest.raises(OSError, match="cross-device"):
            os.rename(tmp_path / "inbox", tmp_path / "done/x")
        async with House(make_config(tmp_path)) as house:
            await house.drop("2026/call.wav", b"RIFF bound")
            await house.rest()
        assert tree(tmp_path / "done") == {f"2026/{name}" for name in GROUP}
        assert (tmp_path / "done/2026/call.wav").read_bytes() == b"RIFF bound"
        assert tree(tmp_path / "inbox") == set()


async def test_a_done_that_becomes_read_only(tmp_path):
    """The answer waits, paid once, and no more is uploaded for that folder until it can be written."""
    with tmpfs(tmp_path / "done"):
        async with House(make_config(tmp_path), held_back()) as house:
            await house.drop("call.wav")
            await house.until(lambda: house.providers["main"].in_flight == 1)
            mount("-o", "remount,ro", tmp_path / "done")
            house.providers["main"].gate.set()
            await house.until(lambda: house.engine.folders.closed_reason("calls"))
            assert "ead-only" in house.engine.folders.closed_reason("calls")
            await house.drop("next.wav")
            await house.rest()
            assert (await house.stats()).queued == 1
            assert house.providers["main"].calls == [b"call.wav"]
            mount("-o", "remount,rw", tmp_path / "done")
            await house.until(lambda: len(house.listener.files) == 2)
        assert tree(tmp_path / "done") >= GROUP
    assert sorted(house.providers["main"].calls) == [b"call.wav", b"next.wav"]


async def test_a_read_only_done_beside_a_writable_one(tmp_path, monkeypatch):
    """Of one file system, so that its abilities are known: nothing is paid for, and status says why."""
    rules = {name: make_rule(tmp_path, name) for name in ("calls", "other")}
    script = ScriptedProvider()
    with mounted(tmp_path / "calls/done", "--bind", tmp_path / "calls/done"):
        mount("-o", "remount,bind,ro", tmp_path / "calls/done")
        async with Whole(monkeypatch, make_config(tmp_path, rules=rules), {"main": script}) as whole:
            (tmp_path / "other/inbox/call.wav").write_bytes(wav(300))
            await whole.until((tmp_path / "other/done/call.wav").exists)
            (tmp_path / "calls/inbox/call.wav").write_bytes(wav())
            reason = f"{tmp_path}/calls/done: Read-only file system"
            await whole.until(lambda: _status_is(whole, reason=reason))
            (tmp_path / "other/inbox/next.wav").write_bytes(wav(500))
            await whole.until((tmp_path / "other/done/next.wav").exists)
            await whole.until(lambda: _status_is(whole, reason=reason, done=0))
            assert b"call.wav" not in script.calls[1:]
            mount("-o", "remount,bind,rw", tmp_path / "calls/done")
            await whole.until((tmp_path / "calls/done/call.wav").exists)
            await whole.until(lambda: _status_is(whole, reason=None, done=1))


async def test_a_read_only_inbox_of_a_writable_file_system(tmp_path):
    """Mounted once more, read-only: nothing can leave it, so nothing is sent until that is mended."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/call.wav").write_bytes(b"RIFF")
    with mounted(tmp_path / "inbox", "--bind", tmp_path / "inbox"):
        mount("-o", "remount,bind,ro", tmp_path / "inbox")
        async with House(make_config(tmp_path)) as house:
            await house.submit("call.wav")
            await house.until(lambda: house.engine.folders.closed_reason("calls"))
            assert house.engine.folders.closed_reason("calls") == f"{tmp_path}/inbox: Read-only file system"
            assert house.providers["main"].calls == []
            mount("-o", "remount,bind,rw", tmp_path / "inbox")
            await house.until(lambda: house.listener.files)


@pytest.mark.parametrize(
    ("place", "file"), [("done", "call.wav"), ("done", "new/call.wav"), ("inbox", "call.wav")]
)
def test_a_place_that_another_user_may_not_write(tmp_path, place, file):
    """As a plain user: nothing is paid for until the file can be moved from there and to there."""
    _make_folders_of_nobody(tmp_path)

    async def steps():
        async with House(make_config(tmp_path)) as house:
            (tmp_path / "inbox" / file).write_bytes(b"RIFF")
            (tmp_path / place).chmod(0o555)
            await house.submit(file)
            await house.until(lambda: house.engine.folders.closed_reason("calls"))
            assert house.engine.folders.closed_reason("calls") == f"{tmp_path / place}: Permission denied"
            assert house.providers["main"].calls == []
            (tmp_path / place).chmod(0o755)
            await house.until(lambda: house.listener.files)
            assert house.engine.folders.closed_reason("calls") is None

    assert run_as_nobody(tmp_path, steps) == 0
    assert (tmp_path / "done" / file).exists()


@pytest.mark.parametrize("path", [b"call.wav", b"2026/call.wav"])
def test_a_done_that_cannot_be_reached_is_the_rules_trouble(tmp_path, path):
    """The file's sub-folder is not blamed: the rule takes nothing new."""
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut").chmod(0)

    async def steps():
        with pytest.raises(PlaceRefused) as caught:
            check_places(bytes(tmp_path / "inbox"), bytes(tmp_path / "shut/done"), path)
        assert caught.value.is_of_rule
        assert str(caught.value) == f"[Errno 13] Permission denied: '{tmp_path}/shut/done'"

    assert run_as_nobody(tmp_path, steps) == 0


def _make_folders_of_nobody(root):
    for name in ("inbox", "done", "inbox/2026", "inbox/new", "done/2026"):
        (root / name).mkdir()
        if os.geteuid() == 0:
            os.chown(root / name, 65534, 65534)


def refuse_inbox(root):
    """The sub-folder of the inbox takes no changes."""
    (root / "inbox/2026").chmod(0o555)
    return root / "inbox/2026", "Permission denied; give uid 65534 write access", lambda: _open(root, "inbox")


def refuse_done(root):
    """The sub-folder of done takes no files."""
    (root / "done/2026").chmod(0o555)
    return root / "done/2026", "Permission denied; give uid 65534 write access", lambda: _open(root, "done")


def _open(root, part):
    (root / part / "2026").chmod(0o755)


def link_done(root):
    """A link to another folder has the sub-folder's name in done."""
    place = root / "done/2026"
    place.rmdir()
    place.symlink_to(root)
    return place, "leads through a link or a file; put a folder in its place", place.unlink


def block_done(root):
    """A plain file has the sub-folder's name in done."""
    place = root / "done/2026"
    place.rmdir()
    place.write_text("in the way")
    return place, "leads through a link or a file; put a folder in its place", place.unlink


@pytest.mark.parametrize("moment", ["before", "in flight"])
@pytest.mark.parametrize("refuse", [refuse_inbox, refuse_done, link_done, block_done])
def test_a_sub_folder_that_refuses_its_files_stops_no_others(tmp_path, monkeypatch, refuse, moment):
    """Its files wait with the reason, found out before they are paid for where it can be known."""
    monkeypatch.setattr(attempts, "FIRST_PLACE_SECONDS", 0.02)
    monkeypatch.setattr(publisher, "LONGEST_OWN_WAIT_SECONDS", 0.02)
    _make_folders_of_nobody(tmp_path)

    async def steps():
        script = ScriptedProvider(gate=asyncio.Event())
        async with House(make_config(tmp_path), {"main": script}) as house:
            (tmp_path / "inbox/2026/call.wav").write_bytes(b"RIFF")
            if moment == "before":
                place, words, mend = refuse(tmp_path)
            await house.submit("2026/call.wav")
            if moment == "in flight":
                await house.until(lambda: script.in_flight == 1)
                place, words, mend = refuse(tmp_path)
            script.gate.set()
            await house.until(lambda: _is_stuck(house, f"{place}: {words}"))
            await house.drop("good.wav")
            await house.until(lambda: house.listener.files)
            assert house.engine.folders.closed_reason("calls") is None
            assert script.calls == [b"good.wav"] if moment == "before" else [b"call.wav", b"good.wav"]
            mend()
            await house.until(lambda: len(house.listener.files) == 2)
            assert sorted(script.calls) == [b"call.wav", b"good.wav"]

    assert run_as_nobody(tmp_path, steps) == 0
    assert tree(tmp_path / "done") == {"good.wav", "good.json", "good.txt"} | {
        f"2026/{each}" for each in GROUP
    }


async def _is_stuck(house, words):
    stats = await house.stats()
    return stats.stuck == 1 and stats.stuck_reason.startswith(words)


def test_a_sticky_folder_keeps_another_users_file(tmp_path, monkeypatch):
    """Nothing is sent; the reason names owner and remedy, and the other files go on."""
    monkeypatch.setattr(attempts, "FIRST_PLACE_SECONDS", 0.02)
    _make_folders_of_nobody(tmp_path)
    for place in ("inbox", "inbox/2026"):
        os.chown(tmp_path / place, 0, 0)
        (tmp_path / place).chmod(0o1777)
    for file in ("call.wav", "2026/call.wav"):
        (tmp_path / "inbox" / file).write_bytes(b"RIFF")

    async def steps():
        async with House(make_config(tmp_path)) as house:
            await house.submit("call.wav")
            await house.submit("2026/call.wav")
            await house.drop("2026/good.wav", b"RIFF good")
            await house.until(lambda: house.listener.files)

            async def are_stuck():
                stats = await house.stats()
                return stats.stuck == 2 and "its sticky bit keeps 'call.wav'" in stats.stuck_reason

            await house.until(are_stuck)
            assert house.engine.folders.closed_reason("calls") is None
            assert house.providers["main"].calls == [b"good.wav"]

    assert run_as_nobody(tmp_path, steps) == 0


needs_chattr = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("chattr") is None, reason="needs root and chattr"
)


@needs_chattr
@pytest.mark.parametrize(
    ("change", "place", "name", "is_of_rule"),
    [
        ("+a", "inbox", "1.wav", True),
        ("+a", "done", "1.wav", True),
        ("+i", "inbox", "1.wav", True),
        ("+i", "done", "1.wav", True),
        ("+a", "inbox/2026", "2026/1.wav", False),
        ("+i", "inbox/1.wav", "1.wav", False),
    ],
)
async def test_what_chattr_keeps_in_place_is_not_paid_for(
    tmp_path, monkeypatch, change, place, name, is_of_rule
):
    """An append-only folder looks writable, and an immutable file can be read; no file can be moved."""
    monkeypatch.setattr(attempts, "FIRST_PLACE_SECONDS", 0.02)
    config = make_config(tmp_path)
    for folder in ("inbox/2026", "done"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "inbox" / name).write_bytes(b"RIFF")
    if not _change_attribute(change, tmp_path / place):
        pytest.skip("no such attributes on this file system")
    try:
        async with House(config) as house:
            reasons = set()

            async def has_reason():  # which is not told while the file is tried again
                stuck = (await house.stats()).stuck_reason
                reasons.add(house.engine.folders.closed_reason("calls") if is_of_rule else stuck)
                return any(reasons)

            await house.submit(name)
            await house.until(has_reason)
            (reason,) = filter(None, reasons)
            assert reason.startswith(f"{tmp_path / place}: it is immutable or append-only")
            assert house.providers["main"].calls == []
            assert _change_attribute("-" + change[1], tmp_path / place)
            await house.until(lambda: house.listener.files)
    finally:
        _change_attribute("-" + change[1], tmp_path / place)
    assert name in tree(tmp_path / "done")


@needs_chattr
async def test_a_hidden_cause_stops_the_rule_after_three_files(tmp_path, monkeypatch):
    """A folder that looks writable and lets no file go, on a mount without attributes: three are paid for."""
    monkeypatch.setattr("dropscribe.publish.places.is_kept_in_place", lambda _: False)
    config = make_config(tmp_path)
    for number in range(5):
        (tmp_path / f"inbox/{number}.wav").write_bytes(b"RIFF %d" % number)
    if not _change_attribute("+a", tmp_path / "inbox"):
        pytest.skip("no such attributes on this file system")
    try:
        async with House(config) as house:
            for number in range(3):
                await house.submit(f"{number}.wav")
                await house.until(lambda number=number: _count_stuck(house, number + 1))
            await house.until(lambda: house.engine.folders.closed_reason("calls"))
            await house.submit("3.wav")
            await house.submit("4.wav")
            await asyncio.sleep(0.2)
            assert len(house.providers["main"].calls) == 3

            assert _change_attribute("-a", tmp_path / "inbox")
            await house.until(lambda: len(house.listener.files) == 5)
            assert len(house.providers["main"].calls) == 5
    finally:
        _change_attribute("-a", tmp_path / "inbox")


def _change_attribute(change, folder):
    return subprocess.run(["chattr", change, folder], capture_output=True, check=False).returncode == 0


async def _count_stuck(house, count):
    return len(house.listener.attempts) == count == (await house.stats()).publishing


async def test_a_reload_that_names_another_done_is_tried_at_once(tmp_path, monkeypatch):
    """The folder was closed for a done that is no folder; the new config's is one."""
    monkeypatch.setattr(disk_threads, "FIRST_CHECK_SECONDS", 3600.0)
    (tmp_path / "done").write_text("")
    async with House(make_config(tmp_path)) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.engine.folders.closed_reason("calls"))
        config = make_config(tmp_path, rules={"calls": replace(house.rule(), done=tmp_path / "elsewhere")})
        house.handler.runtime = build_runtime(config, house.providers, house.engine)
        house.handler.checks.reopen("calls")
        await house.until(lambda: house.listener.files)
    assert tree(tmp_path / "elsewhere") == GROUP


# Inboxes that come and go --------------------------------------------------------------------------


def held_back():
    """A provider that takes nothing for now."""
    return {"main": ScriptedProvider(gate=asyncio.Event())}


async def test_an_inbox_that_is_missing_at_the_start(tmp_path, monkeypatch):
    """It is unavailable, neither it nor done is created, other rules work, and it goes on by itself."""
    rules = {name: make_rule(tmp_path, name) for name in ("calls", "other")}
    config = make_config(tmp_path, rules=rules)
    shutil.rmtree(tmp_path / "calls")
    async with Whole(monkeypatch, config) as whole:
        (tmp_path / "other/inbox/call.wav").write_bytes(wav())
        await whole.until((tmp_path / "other/done/call.wav").exists)
        status = await whole.status()
        assert (status["available"], (await whole.status("other"))["available"]) == (False, True)
        assert not (tmp_path / "calls").exists()
        (tmp_path / "calls/inbox").mkdir(parents=True)
        (tmp_path / "calls/inbox/call.wav").write_bytes(wav())
        await whole.until((tmp_path / "calls/done/call.wav").exists)


@pytest.mark.parametrize("moment", ["start", "idle", "in_flight"])
@pytest.mark.parametrize("done", ["share/done", "share"])
async def test_nothing_is_filed_below_the_mount_point_of_a_share_that_is_away(tmp_path, moment, done):
    """What is put there would be hidden once the share of done is back; the file waits, and says why."""
    config = make_config(tmp_path)
    config = make_config(tmp_path, rules={"calls": replace(config.folders["calls"], done=tmp_path / done)})
    share = tmp_path / "share"
    gate = asyncio.Event()
    with tmpfs(share):
        async with House(config, {"main": ScriptedProvider(gate=gate)}) as house:
            if moment == "idle":
                gate.set()
                await house.drop("first.wav", b"RIFF first")
                await house.until(lambda: len(house.listener.files) == 1)
            elif moment == "in_flight":
                await house.drop("first.wav", b"RIFF first")
                await house.until(lambda: house.providers["main"].calls)
            else:
                await house.until(lambda: os.fsencode(tmp_path / done) in mounts._found_on)
            unmount(share)
            gate.set()
            await house.drop("call.wav", b"RIFF call")
            await house.until(lambda: house.engine.folders.closed_reason("calls"))
            assert f"nothing is mounted on {share} any more" in house.engine.folders.closed_reason("calls")
            assert os.listdir(share) == []
            assert b"call.wav" not in house.providers["main"].calls
            mount("-t", "tmpfs", "tmpfs", share)
            await house.until(lambda: len(house.listener.files) == (1 if moment == "start" else 2))
            assert {"call.wav", "call.json", "call.txt"} <= tree(tmp_path / done)


async def test_a_share_of_failed_alone_is_remembered_from_the_start(tmp_path):
    """The first file may fail long after the share has gone."""
    rule = replace(make_config(tmp_path).folders["calls"], failed=tmp_path / "share/failed")
    gate = asyncio.Event()
    refused = AudioRejected("bad_audio", "no sound")
    with tmpfs(tmp_path / "share"):
        script = ScriptedProvider([refused], gate=gate)
        async with House(make_config(tmp_path, rules={"calls": rule}), {"main": script}) as house:
            await house.drop("call.wav")
            await house.until(lambda: os.fsencode(rule.failed) in mounts._found_on and script.calls)
            unmount(tmp_path / "share")
            gate.set()
            await house.until(lambda: house.engine.folders.closed_reason("calls"))
            assert os.listdir(tmp_path / "share") == []
            mount("-t", "tmpfs", "tmpfs", tmp_path / "share")
            await house.until(lambda: house.listener.files)
            assert "call.wav" in tree(rule.failed)


def test_a_share_in_other_trouble_is_not_called_unmounted(tmp_path):
    """One whose server is gone is mounted still: its own error says more, as that of this link does."""
    share = tmp_path / "share"
    done = os.fsencode(share / "done")
    with tmpfs(share):
        (share / "done").mkdir()
        mounts.require_mount(done)
    share.rmdir()
    share.symlink_to(share)
    with pytest.raises(OSError) as refused:
        mounts.require_mount(done)
    assert refused.value.errno == errno.ELOOP


async def test_an_unmounted_inbox_is_not_an_empty_one(tmp_path, monkeypatch):
    """Unmounted while files wait: no job is withdrawn, nothing is made in its place; back, it goes on."""
    config = make_config(tmp_path, providers=None, hold=(0.05, 0.1))
    shutil.rmtree(tmp_path / "inbox")
    broken = [True]
    script = ScriptedProvider([lambda _: TemporaryFailure("http_500") if broken[0] else None] * 10_000)
    with tmpfs(tmp_path / "disk"):
        (tmp_path / "disk/inbox").mkdir()
        with mounted(tmp_path / "inbox", "--bind", tmp_path / "disk/inbox"):
            async with Whole(monkeypatch, config, {"main": script}) as whole:
                for number in range(3):
                    (tmp_path / f"inbox/{number}.wav").write_bytes(wav(number + 100))
                await whole.until(lambda: _waiting(whole, 3))
                unmount(tmp_path / "inbox")
                await whole.until_away()
                await whole.until(lambda: not whole.daemon.engine.in_flight)  # attempts begun before that
                calls = len(script.calls)
                for _ in range(5):
                    whole.daemon.inboxes.look_again("calls")
                    await asyncio.sleep(0.05)  # several looks at what is not there
                assert await _waiting(whole, 3)
                assert len(script.calls) <= calls + 1
                assert os.listdir(tmp_path / "inbox") == []
                assert not (tmp_path / "done").exists()
                broken[0] = False
                mount("--bind", tmp_path / "disk/inbox", tmp_path / "inbox")
                await whole.until(lambda: len(tree(tmp_path / "done")) == 9)
                await whole.until(lambda: _status_is(whole, done=3))


async def _waiting(whole, number):
    status = await whole.status()
    waiting = sum(status[key] for key in ("queued", "deferred", "held", "transcribing", "publishing"))
    return waiting == number


async def test_an_inbox_removed_and_made_again(tmp_path, monkeypatch):
    """Another folder of the name is a new inbox: what waited in the old one ends, what comes is taken."""
    script = held_back()
    rules = {name: make_rule(tmp_path, name) for name in ("calls", "other")}
    providers = {"main": ProviderConfig(name="main", type="openai", concurrency=1)}
    async with Whole(monkeypatch, make_config(tmp_path, rules=rules, providers=providers), script) as whole:
        (tmp_path / "other/inbox/first.wav").write_bytes(wav(300))
        await whole.until(lambda: script["main"].calls)  # the one slot is taken: what comes now waits
        (tmp_path / "calls/inbox/old.wav").write_bytes(wav())
        await whole.until(lambda: _waiting(whole, 1))
        os.rename(tmp_path / "calls/inbox", tmp_path / "elsewhere")
        await whole.until_away()
        assert not (tmp_path / "calls/done").exists()
        (tmp_path / "calls/inbox").mkdir()
        (tmp_path / "calls/inbox/new.wav").write_bytes(wav(500))
        script["main"].gate.set()
        await whole.until((tmp_path / "calls/done/new.wav").exists)
        await whole.until(lambda: _waiting(whole, 0))
    assert tree(tmp_path / "calls/done") == {"new.wav", "new.json", "new.txt"}
    assert (tmp_path / "elsewhere/old.wav").read_bytes() == wav()


async def test_an_inbox_mounted_over(tmp_path, monkeypatch):
    """While another file system hides the waiting files none of them is withdrawn; uncovered they go on."""
    script = held_back()
    async with Whole(monkeypatch, make_config(tmp_path), script) as whole:
        (tmp_path / "inbox/under.wav").write_bytes(wav())
        await whole.until(lambda: _waiting(whole, 1))
        with tmpfs(tmp_path / "inbox"):
            (tmp_path / "inbox/over.wav").write_bytes(wav(300))
            await whole.until(lambda: _waiting(whole, 2))
            script["main"].gate.set()
            await whole.until((tmp_path / "done/over.wav").exists)
            await whole.until(lambda: _waiting(whole, 1))
        await whole.until((tmp_path / "done/under.wav").exists)
    assert (tmp_path / "done/under.wav").read_bytes() == wav()
    assert sorted(script["main"].calls) == [b"over.wav", b"under.wav"]
    assert (tmp_path / "done/over.wav").read_bytes() == wav(300)


# Names ---------------------------------------------------------------------------------------------

NAMES = {
    "newline": b"new\nline.wav",
    "dash": b"-rf.wav",
    "shell": b"$(touch pwned) `id`;&|.wav",
    "quotes": b"'q\"\\.wav",
    "not-utf8": b"\xff\xfe\xc3.wav",
    "escape": b"\x1b[31mred\x07.wav",
    "255-bytes": b"x" * 251 + b".wav",
    "255-bytes-utf8": "é".encode() * 125 + b"x.wav",
    "dots": b"a.b..c.wav",
    "space": b" lead and trail .wav",
    "error": b"call.error.wav",
    "upper": b"CALL.WAV",
}


@pytest.mark.parametrize("sidecar_name", ["stem", "full"])
async def test_names_of_every_kind_end_in_done(tmp_path, monkeypatch, sidecar_name):
    """Through the whole house at once: each audio under its name, each with its own whole sidecars."""
    config = make_config(tmp_path, sidecar_name=sidecar_name)
    inbox, done = os.fsencode(tmp_path / "inbox"), os.fsencode(tmp_path / "done")
    contents = {}
    for number, name in enumerate(NAMES.values()):
        contents[name] = wav(200 + number)
        _write(inbox, name, contents[name])
    async with Whole(monkeypatch, config) as whole:
        await whole.until(lambda: _status_is(whole, done=len(NAMES)))

    audio = {name for name in os.listdir(done) if name.lower().endswith(b".wav")}
    assert len(os.listdir(done)) == 3 * len(NAMES)
    assert {name for name in audio if len(name) < 240} == {name for name in NAMES.values() if len(name) < 240}
    assert sorted(_read(done, name) for name in audio) == sorted(contents.values())
    for name in audio:
        stem = name if sidecar_name == "full" else name[:-4]
        source = read_json(tmp_path / "done" / os.fsdecode(stem + b".json"))["source"]
        assert source["sha256"] == digest(_read(done, name))


def _read(folder, name):
    with open(folder + b"/" + name, "rb") as file:
        return file.read()


def _write(folder, name, content):
    with open(folder + b"/" + name, "wb") as file:
        file.write(content)


async def _status_is(whole, **wanted):
    status = await whole.status()
    return all(status[key] == value for key, value in wanted.items())


@pytest.mark.parametrize("options", [("EINVAL",), ("EINVAL", "--no-symlinks"), ("ENOENT",)])
async def test_a_done_on_fat(tmp_path, monkeypatch, queue_kind, options):
    """A name that it has not waits, says so, stops no other, and is paid for once; long ones are cut."""
    monkeypatch.setattr(publisher, "LONGEST_OWN_WAIT_SECONDS", 0.02)
    config = make_config(tmp_path)
    with mounted_lossy(tmp_path / "backing", tmp_path / "done", "--no-links", "--fat", *options) as done:
        async with Whole(monkeypatch, config) as whole:
            (tmp_path / "inbox/é.wav").write_bytes(wav(200))
            await whole.until(lambda: _waits_for_its_name(whole, "'é.wav'"))
            for number, stem in enumerate(("plain", "L" * 251)):
                (tmp_path / f"inbox/{stem}.wav").write_bytes(wav(300 + number))
            await whole.until(lambda: _status_is(whole, done=2))
            (tmp_path / "inbox/é.wav").rename(tmp_path / "inbox/e.wav")
            await whole.until(lambda: _status_is(whole, done=3))
        stems = {"plain", "L" * 250, "e"}
        assert tree(done) == {stem + end for stem in stems for end in (".wav", ".json", ".txt")}
        contents = sorted(path.read_bytes() for path in done.glob("*.wav"))
        assert contents == sorted(map(wav, (200, 300, 301)))
    # A cluster knows files by path, because inodes differ between nodes: a renamed one is another.
    assert len(whole.providers["main"].calls) == (4 if queue_kind == "postgres" else 3)


async def _waits_for_its_name(whole, name):
    stats = (await stats_of(whole.daemon.engine)).folders["calls"]
    return stats.stuck == 1 and f"{name} (" in stats.stuck_reason


TWINS = {
    "case": ("Call.wav", "call.wav"),
    "unicode": tuple(unicodedata.normalize(form, "café.wav") for form in ("NFC", "NFD")),
    "suffix": ("a.wav", "a.mp3"),
    "number": ("a.wav", "a-2.wav", "a.mp3"),
    "cut": ("x" * 250 + "1.wav", "x" * 250 + "2.wav"),
    "sidecars": ("a.wav", "a.json.wav", "a.txt.wav"),
}


@pytest.mark.parametrize("sidecar_name", ["stem", "full"])
@pytest.mark.parametrize("names", TWINS.values(), ids=TWINS)
async def test_names_that_are_nearly_one(tmp_path, names, sidecar_name):
    """Each transcript stands beside its own audio, and none has taken another's name."""
    async with House(make_config(tmp_path, sidecar_name=sidecar_name)) as house:
        for number, name in enumerate(names):
            await house.drop(name, b"audio %d" % number)
        await house.rest()

    assert len(tree(tmp_path / "done")) == 3 * len(names)
    digests = {digest(path.read_bytes()): path for path in (tmp_path / "done").iterdir()}
    for path in (tmp_path / "done").glob("*.json"):
        source = read_json(path)["source"]
        audio = digests[source["sha256"]]
        stem = audio.name if sidecar_name == "full" else audio.stem
        assert path.name == f"{stem}.json"
        assert (tmp_path / "done" / f"{stem}.txt").exists()


TAKEN = {
    "audio": lambda path: path.write_text("somebody's"),
    "json": lambda path: path.with_suffix(".json").write_text("somebody's"),
    "last": lambda path: path.with_suffix(".txt").write_text("somebody's"),
    "folder": lambda path: path.mkdir(),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "pipe": os.mkfifo,
    "pipe-sidecar": lambda path: os.mkfifo(path.with_suffix(".json")),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way", ["rename", "copy"])
@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
async def test_a_name_that_is_taken_is_never_overwritten(tmp_path, take, when, way):
    """Whatever has it, before the names are chosen or after: the whole group gets the next number."""
    with contextlib.ExitStack() as stack:
        if way == "copy":
            stack.enter_context(tmpfs(tmp_path / "done"))
        (tmp_path / "done").mkdir(exist_ok=True)
        script = ScriptedProvider()
        async with House(make_config(tmp_path), {"main": script}) as house:
            if when == "before":
                take(tmp_path / "done/call.wav")
            else:
                _take_when_kept(house, lambda: take(tmp_path / "done/call.wav"))
            before = _listed(tmp_path / "done")
            await house.drop("call.wav", b"ours")
            await house.rest()

        expected = {"call-2.wav", "call-2.json", "call-2.txt"}
        assert _listed(tmp_path / "done").keys() >= expected
        assert (tmp_path / "done/call-2.wav").read_bytes() == b"ours"
        others = {name: mode for name, mode in _listed(tmp_path / "done").items() if name not in expected}
        assert len(others) == 1
        assert before.items() <= others.items()
        assert len(script.calls) == 1


def _take_when_kept(house, take):
    """Between the choice of the names and the publishing."""
    keep = house.engine.store_result

    async def keep_and_take(*arguments, **keywords):
        job = await keep(*arguments, **keywords)
        house.engine.store_result = keep
        take()
        return job

    house.engine.store_result = keep_and_take


def _listed(folder):
    return {path.name: path.lstat().st_mode for path in folder.iterdir()}


async def test_a_folder_with_an_audio_name_is_a_folder(tmp_path, monkeypatch):
    """x.wav/ is looked into, and its files keep their place below it."""
    async with Whole(monkeypatch, make_config(tmp_path)) as whole:
        (tmp_path / "inbox/x.wav").mkdir()
        (tmp_path / "inbox/x.wav/y.wav").write_bytes(wav())
        await whole.until((tmp_path / "done/x.wav/y.wav").exists)
    assert tree(tmp_path / "done") == {f"x.wav/y.{suffix}" for suffix in ("wav", "json", "txt")}


async def test_deep_trees(tmp_path, monkeypatch):
    """Forty folders down, names near PATH_MAX in all: kept in done as they are."""
    deep = "/".join(f"folder {number} " + "d" * 40 for number in range(40))
    async with Whole(monkeypatch, make_config(tmp_path)) as whole:
        (tmp_path / "inbox" / deep).mkdir(parents=True)
        (tmp_path / "inbox" / deep / "call.wav").write_bytes(wav())
        await whole.until((tmp_path / "done" / deep / "call.wav").exists)
    assert tree(tmp_path / "done") == {f"{deep}/{name}" for name in GROUP}


async def test_two_rules_that_share_a_done_folder(tmp_path):
    """Names chosen by one rule's live jobs are not given to the other's."""
    rules = {
        name: make_rule(tmp_path, name, done=tmp_path / "done", failed=tmp_path / "failed")
        for name in ("one", "two")
    }
    async with House(make_config(tmp_path, rules=rules)) as house:
        for number in range(5):
            for name in rules:
                await house.drop(f"{number}.wav", f"{name} {number}".encode(), folder=name)
        await house.rest()

    audio = {path.read_bytes() for path in (tmp_path / "done").glob("*.wav")}
    assert audio == {f"{name} {number}".encode() for name in rules for number in range(5)}
    for path in (tmp_path / "done").glob("*.json"):
        document = read_json(path)
        content = path.with_suffix(".wav").read_bytes()
        assert document["source"]["sha256"] == digest(content)
        assert content.startswith(document["job"]["folder"].encode())
