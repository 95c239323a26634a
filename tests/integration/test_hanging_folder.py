"""A folder whose disk does not answer: its neighbours, the queue and the end of the process go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from dropscribe.config.model import FolderRule, ProviderConfig
from dropscribe.files import audio
from dropscribe.files.audio import AudioFile
from dropscribe.files.threads import DaemonThreads
from dropscribe.pipeline import attempts, disk_threads, publisher
from dropscribe.publish import moving
from dropscribe.publish.publication import CopyNeeded
from support.house import House, make_config, tree


@pytest.fixture
def hang(monkeypatch):
    """Files named ``stuck…`` are opened when the event is set, and not before."""
    answers = threading.Event()
    real_open = AudioFile.open

    def slow_open(root, path, *rest):
        if path.startswith(b"stuck"):
            assert answers.wait(60)
        return real_open(root, path, *rest)

    monkeypatch.setattr(AudioFile, "open", slow_open)
    monkeypatch.setattr(attempts, "LOOK_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(disk_threads, "HANG_SECONDS", 0.05)
    yield answers
    answers.set()


def _two_rules(root):
    return {
        name: FolderRule(
            name=name,
            inbox=root / name,
            providers=("main",),
            done=root / f"{name}-done",
            failed=root / f"{name}-failed",
        )
        for name in ("share", "local")
    }


async def test_a_folder_that_hangs_gives_its_slots_back(tmp_path, hang):
    """Its files wait, named in the reason; the other folder's get the provider's only slot."""
    one_slot = {"main": ProviderConfig(name="main", type="openai", concurrency=1)}
    config = make_config(tmp_path, rules=_two_rules(tmp_path), providers=one_slot)
    async with House(config) as house:
        for number in range(3):
            await house.drop(f"stuck {number}.wav", b"%d" % number, folder="share")
        await house.until(lambda: house.engine.folders.closed_reason("share"))
        for number in range(3):
            await house.drop(f"{number}.wav", b"1%d" % number, folder="local")
        await house.until(lambda: len(house.listener.files) == 3)
        assert house.engine.folders.closed_reason("share") == "its disk does not answer"
        assert tree(tmp_path / "share-done") == set()
        hang.set()
        await house.until(lambda: len(house.listener.files) == 6)

    assert len([name for name in tree(tmp_path / "share-done") if name.endswith(".wav")]) == 3
    assert len(house.providers["main"].calls) == 6


async def test_a_read_that_hangs_in_mid_upload_gives_the_slot_back(tmp_path, monkeypatch):
    """The attempt ends unsent, the other folder goes on, and the file is done once its disk answers."""
    answers = threading.Event()
    real_pread = os.pread

    def slow_pread(descriptor, count, offset):
        if offset and threading.current_thread().name.startswith("disk share"):
            assert answers.wait(60)
        return real_pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", slow_pread)
    monkeypatch.setattr(audio, "READ_SECONDS", 0.05)
    monkeypatch.setattr(attempts, "LOOK_AGAIN_SECONDS", 0.01)
    one_slot = {"main": ProviderConfig(name="main", type="openai", concurrency=1)}
    config = make_config(tmp_path, rules=_two_rules(tmp_path), providers=one_slot)
    async with House(config) as house:
        await house.drop("long.wav", bytes(audio.BLOCK_BYTES + 1), folder="share")
        await house.until(lambda: house.providers["main"].calls)
        await house.drop("short.wav", b"1", folder="local")
        await house.until((tmp_path / "local-done/short.wav").exists)
        answers.set()
        await house.until((tmp_path / "share-done/long.wav").exists)


ON_BOTH_ENGINES = pytest.mark.parametrize(
    "queue_kind", ["embedded", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True
)


@contextlib.asynccontextmanager
async def share_that_waits(tmp_path, monkeypatch, *, slots, hang_seconds, files):
    """A house with the folders "local" and "share", which publishes nothing within the block."""
    answers, publish = threading.Event(), publisher.publish_together

    def slow_publish(requests):
        if requests[0].inbox.endswith(b"/share"):
            assert answers.wait(60)
        return publish(requests)

    monkeypatch.setattr(publisher, "publish_together", slow_publish)
    monkeypatch.setattr(attempts, "LOOK_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(disk_threads, "FIRST_CHECK_SECONDS", 0.05)
    monkeypatch.setattr("dropscribe.queue.job_tasks.PUBLISHING_SLOTS", slots)
    monkeypatch.setattr(disk_threads, "HANG_SECONDS", hang_seconds)
    async with House(make_config(tmp_path, rules=_two_rules(tmp_path))) as house:
        try:
            yield house
        finally:
            answers.set()
        await house.until(lambda: len(house.listener.files) == files)


@ON_BOTH_ENGINES
async def test_publications_that_hang_hold_up_no_other_folder(tmp_path, monkeypatch, queue_kind):
    """Neither slots nor ``run --once`` wait for a ``done`` that does not answer; later all is filed."""
    async with share_that_waits(tmp_path, monkeypatch, slots=2, hang_seconds=0.05, files=8) as house:
        for number in range(4):
            await house.drop(f"{number}.wav", b"%d" % number, folder="share")
        await house.until(lambda: house.engine.folders.closed_reason("share"))
        for number in range(4):
            await house.drop(f"{number}.wav", b"1%d" % number, folder="local")
        await house.until(lambda: len(house.listener.files) == 4)
        await house.rest()
        assert len(house.engine.in_flight) > 0

    assert len([name for name in tree(tmp_path / "share-done") if name.endswith(".wav")]) == 4


@ON_BOTH_ENGINES
async def test_a_slow_done_holds_up_no_other_folder(tmp_path, monkeypatch, queue_kind):
    """More results than there are slots wait for a share that answers, but too slowly for all of them."""
    async with share_that_waits(tmp_path, monkeypatch, slots=4, hang_seconds=600.0, files=18) as house:
        for number in range(12):
            await house.drop(f"{number}.wav", b"%d" % number, folder="share")
        await house.until(lambda: _are_stored(house, 12))
        for number in range(6):
            await house.drop(f"{number}.wav", b"1%d" % number, folder="local")
        await house.until(lambda: len(house.listener.files) == 6)


async def _are_stored(house, count):
    return (await house.stats("share")).publishing == count


async def test_copies_to_another_mount_do_not_count_as_a_disk_that_hangs(tmp_path, monkeypatch):
    """A crowd of them leaves threads for short calls, and the time that one waits for its turn is no hang."""
    publish = publisher.publish

    def slow_copy(request):
        time.sleep(0.2)
        return publish(request)

    def refuse_to_copy(requests):
        return [CopyNeeded() for _ in requests]

    monkeypatch.setattr(publisher, "publish", slow_copy)
    monkeypatch.setattr(publisher, "publish_together", refuse_to_copy)
    monkeypatch.setattr(disk_threads, "HANG_SECONDS", 1.0)
    providers = {"main": ProviderConfig(name="main", type="openai", concurrency=40)}
    with capture_logs() as logs:
        async with House(make_config(tmp_path, providers=providers)) as house:
            for number in range(45):
                await house.drop(f"{number}.wav", b"%d" % number)
            await house.until(lambda: len(house.listener.files) == 45, 30)
    assert not [line for line in logs if line["event"] == "folder.hangs"]


@pytest.mark.parametrize("copied", ["the audio, to another mount", "a large companion"])
async def test_one_long_copy_is_no_disk_that_hangs(tmp_path, other_file_system, monkeypatch, copied):
    """While a large file is copied, however long that takes for its size, its folder takes others."""
    has_begun, may_end = threading.Event(), threading.Event()
    copy_function = "copy_verified" if "companion" in copied else "copy_audio"
    copy = getattr(moving, copy_function)

    def long_copy(source, target):
        has_begun.set()
        assert may_end.wait(60)
        copy(source, target)

    monkeypatch.setattr(moving, copy_function, long_copy)
    monkeypatch.setattr(disk_threads, "HANG_SECONDS", 0.2)
    monkeypatch.setattr(disk_threads, "SLOWEST_BYTES_PER_SECOND", 1)
    config = make_config(tmp_path, companions=("{stem}.mp4",))
    if copy_function == "copy_audio":
        rules = {"calls": replace(config.folders["calls"], done=other_file_system / "done")}
        config = make_config(tmp_path, rules=rules)
    else:
        (tmp_path / "inbox/long.mp4").write_bytes(bytes(3_000_000))
    async with House(config) as house:
        try:
            await house.drop("long.wav", bytes(1000))
            await house.until(has_begun.is_set)
            await asyncio.sleep(0.5)
            await house.until(lambda: house.engine.folders.closed_reason("calls") is None, 5)
        finally:
            may_end.set()
        await house.until(lambda: len(house.listener.files) == 1)


async def test_the_end_waits_for_no_call_that_hangs(tmp_path, hang):
    """The queue is stopped while a call into the folder has not come back."""
    async with House(make_config(tmp_path)) as house:
        await house.drop("stuck.wav")
        await house.until(lambda: house.engine.folders.closed_reason("calls"))
        began = time.monotonic()
    assert time.monotonic() - began < 30
    assert not hang.is_set()


def test_a_process_ends_with_calls_that_never_return():
    """The interpreter joins no thread of the pool when it exits."""
    program = (
        "import threading\n"
        "from dropscribe.files.threads import DaemonThreads\n"
        "pool = DaemonThreads(2, 'x')\n"
        "began = threading.Event()\n"
        "pool.submit(lambda: (began.set(), threading.Event().wait()))\n"
        "assert began.wait(30)\n"
        "pool.shutdown()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_pool_runs_calls_and_tells_of_errors():
    """Results and exceptions reach the caller; a shut pool takes nothing more and cancels what waits."""
    pool = DaemonThreads(1, "x")
    assert pool.submit(divmod, 7, 2).result(30) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(30)
    gate = threading.Event()
    running, waiting = pool.submit(gate.wait, 30), pool.submit(int)
    while not running.running():
        time.sleep(0.001)
    pool.shutdown()
    gate.set()
    assert running.result(30)
    assert waiting.cancelled()
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_calls_one_after_the_other_need_one_thread():
    """Who has heard of a call's end finds its thread free."""
    pool = DaemonThreads(8, "only one of these")
    for number in range(200):
        assert pool.submit(abs, -number).result(30) == number
    assert sum(thread.name.startswith("only one of these") for thread in threading.enumerate()) == 1
    pool.shutdown(wait=True)


async def test_more_calls_than_threads_all_come_back():
    """Queued calls are made as threads become free."""
    pool = DaemonThreads(3, "x")
    loop = asyncio.get_running_loop()
    numbers = await asyncio.gather(*(loop.run_in_executor(pool, abs, -n) for n in range(200)))
    pool.shutdown(wait=True)
    assert numbers == list(range(200))


def test_a_thread_that_could_not_be_started_is_started_for_a_later_call(monkeypatch):
    """Else that call would wait for one that hangs, though the pool has room."""
    pool, first, second = DaemonThreads(2, "pool"), threading.Event(), threading.Event()
    ended = pool.submit(first.wait)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        pool.submit(second.wait)
    first.set()
    ended.result(5)
    assert pool.submit(lambda: 1).result(5) == 1
    second.set()
    pool.shutdown(wait=True)
