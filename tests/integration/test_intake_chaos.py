"""A mixed load of every way in which files come: none missed, none torn, none doubled."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from dropscribe.intake.inbox import Inbox
from support.inboxes import MemoryQueue, Station, link_unnamed, running, wait_until, wav


class Load:
    """Writers that note when each file became complete, just before the step that completes it."""

    def __init__(self, inbox, outside, seed):
        self.inbox, self.outside, self.seed = inbox, outside, seed
        self.completed = {}
        self.stop_at = time.monotonic() + 30

    def run(self):
        kinds = (self.slow, self.reopened, self.parts, self.links, self.unnamed, self.trees, self.mapped)
        threads = [
            threading.Thread(target=kind, args=(random.Random(f"{self.seed} {kind}"),)) for kind in kinds
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def path(self, name):
        return os.path.join(self.inbox, name)

    def complete(self, name):
        self.completed[os.fsencode(name)] = time.monotonic()

    def slow(self, rng):
        """The header says the whole length at once; the audio comes with pauses."""
        files = [(f"slow{number}.wav", open(self.path(f"slow{number}.wav"), "wb", 0)) for number in range(15)]  # noqa: SIM115
        whole = wav(1000)
        for start in range(0, len(whole), 200):
            for _, file in files:
                file.write(whole[start : start + 200])
            time.sleep(rng.uniform(0.05, 0.4))
        for name, file in files:
            self.complete(name)
            file.close()

    def reopened(self, rng):
        """Appended to and closed, again and again."""
        whole = wav(1000)
        names = [f"reopened{number}.wav" for number in range(15)]
        for start in range(0, len(whole), 300):
            for name in names:
                with open(self.path(name), "ab", 0) as file:
                    file.write(whole[start : start + 300])
                    if start + 300 >= len(whole):
                        self.complete(name)
            time.sleep(rng.uniform(0.05, 0.3))

    def parts(self, rng):
        for number in range(200):
            name = f"part{number}.mp3"
            with open(self.path(name + ".part"), "wb") as file:
                file.write(b"\xff\xfb" * rng.randrange(1, 500))
            self.complete(name)
            os.rename(self.path(name + ".part"), self.path(name))

    def links(self, _rng):
        for number in range(50):
            name = f"link{number}.wav"
            outside = os.path.join(self.outside, name)
            with open(outside, "wb") as file:
                file.write(wav(100))
            self.complete(name)
            os.link(outside, self.path(name))

    def unnamed(self, _rng):
        for number in range(50):
            descriptor = os.open(self.inbox, os.O_TMPFILE | os.O_RDWR)
            os.write(descriptor, wav(100))
            name = f"unnamed{number}.wav"
            self.complete(name)
            link_unnamed(descriptor, os.fsencode(self.path(name)))
            os.close(descriptor)

    def trees(self, rng):
        for number in range(40):
            base = self.inbox if number % 2 else self.outside
            folder = os.path.join(base, f"tree{number}", "a", "b")
            os.makedirs(folder)
            for name in ("x.wav", "y.wav"):
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(wav(rng.randrange(1, 3000)))
                    if base == self.inbox:
                        self.complete(f"tree{number}/a/b/{name}")
            if base == self.outside:
                for name in ("x.wav", "y.wav"):
                    self.complete(f"tree{number}/a/b/{name}")
                os.rename(os.path.join(base, f"tree{number}"), self.path(f"tree{number}"))

    def mapped(self, rng):
        """Room is made for the whole file first; then it is filled."""
        for number in range(10):
            name = f"mapped{number}.wav"
            content = wav(2000)
            with open(self.path(name), "w+b") as file:
                os.posix_fallocate(file.fileno(), 0, len(content))
                time.sleep(rng.uniform(0, 0.1))
                file.write(content)
                self.complete(name)


class WatchfulQueue(MemoryQueue):
    """Also notes the content at the hand-over."""

    def __init__(self, root):
        super().__init__()
        self.root, self.torn = root, []

    def _submit(self, job):
        result = super()._submit(job)
        if result.is_new and os.stat(os.path.join(self.root, job.path)).st_size != job.snapshot.size_bytes:
            self.torn.append(job.path)
        return result


@pytest.mark.slow
@pytest.mark.parametrize("watch", ["native", "poll"])
def test_nothing_is_missed_torn_or_doubled(tmp_path, watch):
    """With hints and with hints switched off, over every kind of writer at once."""
    inbox_dir, outside = tmp_path / "inbox", tmp_path / "outside"
    inbox_dir.mkdir()
    outside.mkdir()
    queue = WatchfulQueue(os.fsencode(inbox_dir))
    # Where nothing hints at a writer's return, re-openers are told by their headers alone.
    rule = Station(inbox_dir, queue, watch=watch, rescan_seconds=0.5, settle_seconds=0.5).rule
    load = Load(str(inbox_dir), str(outside), seed=7)
    inbox = Inbox(rule, queue, lambda: None)
    with running(inbox):
        load.run()
        wait_until(lambda: set(queue.paths) >= set(load.completed), 40)
    assert set(queue.paths) == set(load.completed)
    assert [job.path for job in queue.taken if queue.taken_at[job.path] < load.completed[job.path]] == []
    assert len(queue.taken) == len(load.completed)
    assert queue.torn == []
    assert queue.withdrawn == []


@pytest.mark.slow
def test_a_burst_of_moves_with_listings_under_way(tmp_path):
    """Ten thousand files moved in at once, in and out of order with listings: each is taken once."""
    inbox_dir, outside = tmp_path / "inbox", tmp_path / "outside"
    inbox_dir.mkdir()
    outside.mkdir()
    for number in range(10_000):
        (outside / f"{number}.wav").write_bytes(wav(10))
    station = Station(inbox_dir, watch="native")
    inbox = Inbox(station.rule, station.queue, lambda: None)
    with running(inbox):
        for number in range(10_000):
            os.rename(outside / f"{number}.wav", inbox_dir / f"{number}.wav")
            if number % 1000 == 0:
                inbox.look_again()
        wait_until(lambda: len(station.queue.taken) >= 10_000)
    assert len(station.paths) == len(station.queue.taken) == 10_000
    assert station.queue.calls < 5_000
