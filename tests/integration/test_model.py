"""Users, crashes and bad providers in any order: four things stay true.

No audio is lost or changed; nothing is overwritten; done means all sidecars, of that audio; every job ends
once the provider is well. The store, the files, the intake and the work are real; the provider follows the
machine, and the intake's clock is the machine's. ``MODEL_EXAMPLES`` in the environment asks for more.
"""

from __future__ import annotations

import asyncio
import collections
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dropscribe.core.errors import AmbiguousFailure, AudioRejected, ProviderUnusable, TemporaryFailure
from dropscribe.files import moves
from dropscribe.intake import inbox_queue
from dropscribe.intake.inbox import Inbox
from dropscribe.intake.inbox_queue import InboxQueue
from dropscribe.pipeline import attempts, publisher
from dropscribe.publish import filing, moving
from dropscribe.queue import engine, holds, job_runner, job_tasks, retrying_database
from dropscribe.queue import intake as queue_intake
from dropscribe.queue.embedded import dispatcher
from support.house import House, digest, make_config, read_json
from support.inboxes import wav
from support.scripted import ScriptedProvider

NAMES = ("a.wav", "b.wav", "A.wav", "sub/a.wav", "sub/deep er/a.wav", "a-2.wav", "\udcff.wav", "é\n.wav")
ANSWERS = {
    "well": lambda: None,
    "failing": lambda: TemporaryFailure("http_500", status=500),
    "unusable": lambda: ProviderUnusable("unauthorized", status=401),
    "rejecting": lambda: AudioRejected("bad_format", status=415),
    "ambiguous": lambda: AmbiguousFailure("no_answer"),
}
_WAITS = {
    publisher: ("LONGEST_WAIT_SECONDS", "MISSING_WAIT_SECONDS", "WRITER_WAIT_SECONDS"),
    attempts: ("LOOK_AGAIN_SECONDS", "LONGEST_LOOK_SECONDS"),
    retrying_database: ("RETRY_SECONDS",),
    job_tasks: ("_SEARCH_GAP_SECONDS",),
}
names = st.sampled_from(NAMES)
which = st.integers(0, 1000)


class Crash(BaseException):
    """The process ends here."""


class Life:
    """One start of the house, with an intake whose time is given; it may end in a crash."""

    def __init__(self, config, provider, now, patch):
        self.house = House(config, {"main": provider})
        self.now = now
        self.has_crashed = False
        self.steps_left = None
        queue_parts = (dispatcher, engine, holds, job_runner, job_tasks, queue_intake)
        for module in (*queue_parts, attempts, moves, filing, moving, inbox_queue):
            patch.setattr(module, "reached", self._reached)

    def _reached(self, _name):
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.has_crashed = True
        if self.has_crashed:
            raise Crash

    async def open(self):
        self.house.lookout = self
        await self.house.__aenter__()
        store = self.house.store
        self._do, self._call = store.do, store.call
        store.do, store.call = self._do_unless_dead, self._call_unless_dead
        queue = InboxQueue(self.house.engine, asyncio.get_running_loop())
        self.inbox = Inbox(self.house.rule(), queue, lambda: None, clock=lambda: self.now)

    async def _do_unless_dead(self, work):
        if self.has_crashed:
            raise asyncio.CancelledError
        return await self._do(work)

    def _call_unless_dead(self, work):
        if self.has_crashed:
            raise Crash
        return self._call(work)

    def look_again(self, _folder, changed=None):
        self.inbox.look_again(changed)

    def _pass(self, seconds):
        until = self.now + seconds
        while (deadline := self.inbox.step(self.now)) <= until:
            self.now = max(self.now, deadline)
        self.now = until

    async def pass_time(self, seconds):
        """The intake's time passes; the rest goes on beside it."""
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._pass, seconds)
        except BaseException:
            if not self.has_crashed:
                raise

    async def work(self, turns=40):
        """Until nothing changes any more, or for a while."""
        last, same = None, 0
        for _ in range(turns):
            await asyncio.sleep(0.002)
            if self.house.feeding.done():
                return
            provider = self.house.providers["main"]
            seen = (len(self.house.engine.in_flight), len(provider.calls), len(self.house.listener.files))
            same = same + 1 if seen == last else 0
            last = seen
            if same >= 4 and seen[0] == provider.in_flight:
                return

    async def close(self, *, crash):
        """End; by a crash nothing is handed back and nothing more gets into the store."""
        self.has_crashed = self.has_crashed or crash
        self.inbox._scanner.availability.release()
        self.inbox.stop()
        self.house.feeding.cancel()
        try:
            await self.house.feeding
        except asyncio.CancelledError:
            pass
        except BaseException:
            if not self.has_crashed:
                raise
        for batch in self.house.handler._disks._batches.values():
            batch.executor.shutdown(wait=True)
        self.house.store.close()


class World(RuleBasedStateMachine):
    """The user, the provider and the power supply."""

    def __init__(self):
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(dir=memory))
        self.patch = pytest.MonkeyPatch()
        for module, constants in _WAITS.items():
            for constant in constants:
                self.patch.setattr(module, constant, 0.002)
        self.loop = asyncio.new_event_loop()
        self.config = make_config(self.root, settle_seconds=2.0, hold=(0.01, 0.02))
        self.provider = ScriptedProvider(collections.defaultdict())
        self.provider.script = _Answers(self)
        self.mode, self.count = "well", 0
        self.audio = collections.Counter()
        self.bystanders, self.filed, self.may_stay = {}, {}, set()
        self.life = None
        self._start(1000.0)

    # Machinery ----------------------------------------------------------------------------------

    def _go(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def _start(self, now):
        self.life = Life(self.config, self.provider, now, self.patch)
        self._go(self.life.open())

    def _end(self, *, crash):
        self._go(self.life.close(crash=crash))
        self._start(self.life.now + 1.0)

    def _run(self, coroutine):
        self._go(coroutine)
        if self.life.has_crashed:
            self._end(crash=True)
        elif self.life.house.feeding.done():
            self.life.house.feeding.result()

    def _content(self, size, declared=None):
        self.count += 1
        mark = b"recording %d " % self.count
        head = wav(0, declared_bytes=len(mark) + size if declared is None else declared)
        return head + mark + b"." * size

    def _pick(self, part, index):
        found = _audio_below(self.root / part)
        return found[index % len(found)] if found else None

    def _new_name(self, name):
        path = self.root / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return None if path.exists() else path

    def _became(self, old, new):
        """The user put the content *new* in place of *old*; None is nothing."""
        if old is not None:
            self.audio[old] -= 1
        if new is not None:
            self.audio[new] += 1

    # The user -----------------------------------------------------------------------------------

    @initialize(mode=st.sampled_from([*ANSWERS]), is_quick=st.booleans())
    def begin(self, mode, is_quick):
        """Three recordings are there already."""
        for name in NAMES[1:4]:
            self.drop(name, 1, is_whole=True)
        self.answer(mode, is_quick)
        self.pass_more_time()

    @rule(name=names, size=st.sampled_from([0, 1, 5000]), is_whole=st.sampled_from([True, True, True, False]))
    def drop(self, name, size, is_whole):
        """A recording appears; one that is not whole has a header that says that more is to come."""
        path = self._new_name(name)
        if path is not None:
            content = self._content(size, declared=None if is_whole else 100_000)
            path.write_bytes(content)
            self._became(None, content)

    @rule(index=which, how=st.sampled_from(["append", "replace", "delete", "chmod", "touch"]))
    def change(self, index, how):
        """A recording grows, is renamed over, goes, or only looks different."""
        path = self._pick("inbox", index)
        if path is None:
            return
        old = path.read_bytes()
        # Changed before it was seen again, a recording that was taken back cannot be known for what it was.
        self.may_stay.update(_orphans(self.root, self.bystanders))
        if how == "append":
            with path.open("ab") as file:
                file.write(b"more")
            self._became(old, old + b"more")
        elif how == "replace":
            new, other = self._content(9), self.root / "incoming"
            other.write_bytes(new)
            other.rename(path)
            self._became(old, new)
        elif how == "delete":
            path.unlink()
            self._became(old, None)
        elif how == "chmod":
            path.chmod(0o640)
        else:
            path.touch()

    @rule(index=which, name=names)
    def rename(self, index, name):
        """Within the inbox, into its folders and out of them."""
        path, other = self._pick("inbox", index), self._new_name(name)
        if path is not None and other is not None:
            path.rename(other)

    @rule(index=which)
    def take_back(self, index):
        """A filed recording is put into the inbox again, by hand."""
        part = "failed" if self._pick("failed", 0) else "done"
        path = self._pick(part, index)
        other = path and self._new_name(path.relative_to(self.root / part))
        if other is None:
            return
        path.rename(other)
        if part == "done":
            self.filed.pop(path)
            for suffix in (".json", ".txt"):
                sidecar = path.with_suffix(suffix)
                self.bystanders[sidecar] = sidecar.read_bytes()

    @rule(
        name=names,
        suffix=st.sampled_from([".json", ".txt", ".error.json"]),
        part=st.sampled_from(["done", "failed"]),
    )
    def squat(self, name, suffix, part):
        """Somebody puts a file of his own where a sidecar might go."""
        path = (self.root / part / name).with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"somebody's own")
            self.bystanders[path] = b"somebody's own"

    # The provider, time and power ---------------------------------------------------------------

    @rule(mode=st.sampled_from([*ANSWERS, "well", "well"]), is_quick=st.booleans())
    def answer(self, mode, is_quick):
        """From now on the provider does this, at once or when it is told to."""
        self.mode = mode
        if is_quick:
            self._let_answers_go()
        elif self.provider.gate is None:
            self.provider.gate = asyncio.Event()

    def _let_answers_go(self):
        if self.provider.gate is not None:
            self.provider.gate.set()
            self.provider.gate = None
        self._run(self.life.work())

    @rule(seconds=st.sampled_from([1.0, 3.0, 70.0]))
    def pass_time(self, seconds):
        """The intake's clock goes on, then the work."""
        self._run(self._pass_and_work(seconds))

    @rule()
    def pass_more_time(self):
        """The same, so that it is drawn more often."""
        self._run(self._pass_and_work(5.0))

    async def _pass_and_work(self, seconds):
        await self.life.pass_time(seconds)
        await self.life.work()

    @rule(steps=st.integers(0, 25))
    def crash_soon(self, steps):
        """At a durable step that is still to come."""
        self.life.steps_left = steps

    @rule(is_crash=st.booleans())
    def start_again(self, is_crash):
        """After a crash wherever it stands, or in good order."""
        self.life.steps_left = None
        self._end(crash=is_crash)

    # What stays true ----------------------------------------------------------------------------

    @invariant()
    def no_audio_is_lost_or_changed(self):
        """Every recording stands exactly once, somewhere, as the user left it."""
        found = collections.Counter(
            path.read_bytes()
            for part in ("inbox", "done", "failed")
            for path in _audio_below(self.root / part)
        )
        assert found == +self.audio

    @invariant()
    def nothing_is_overwritten(self):
        """Neither somebody's own files nor what was filed before."""
        for path, content in self.bystanders.items():
            assert path.read_bytes() == content
        for path, contents in self.filed.items():
            assert _group(path) == contents

    @invariant()
    def done_means_all_sidecars(self):
        """They stand beside their audio from its first instant there, and are its own."""
        for path in _audio_below(self.root / "done"):
            audio, document, _ = self.filed.setdefault(path, _group(path))
            assert document is not None
            assert read_json(path.with_suffix(".json"))["source"]["sha256"] == digest(audio)
        for path in _audio_below(self.root / "failed"):
            assert read_json(path.with_suffix(".error.json"))["schema"] == "dropscribe.error/1"

    def teardown(self):
        """Once the provider is well, every job ends, and nothing but whole groups is left."""
        try:
            self.mode, self.life.steps_left = "well", None
            self._let_answers_go()
            for _ in range(60):
                self._run(self._pass_and_work(70.0))
                if not _audio_below(self.root / "inbox") and self._is_idle():
                    break
            self.no_audio_is_lost_or_changed()
            self.nothing_is_overwritten()
            self.done_means_all_sidecars()
            assert _audio_below(self.root / "inbox") == []
            assert self._is_idle()
            assert set(_orphans(self.root, self.bystanders)) <= self.may_stay
            self._go(self.life.close(crash=False))
        finally:
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.patch.undo()
            shutil.rmtree(self.root)

    def _is_idle(self):
        stats = self._go(self.life.house.stats())
        live = stats.queued + stats.deferred + stats.held + stats.transcribing + stats.publishing
        return live == 0


class _Answers:
    """As long as any script; each element is what the machine wants at that moment."""

    def __init__(self, world):
        self._world = world

    def __len__(self):
        return 1 << 40

    def __getitem__(self, _number):
        return lambda _audio: ANSWERS[self._world.mode]()


def _audio_below(folder):
    return sorted(path for path in folder.rglob("*.wav") if path.is_file())


def _group(path):
    return tuple(
        each.read_bytes() if each.exists() else None
        for each in (path, path.with_suffix(".json"), path.with_suffix(".txt"))
    )


def _orphans(root, bystanders):
    """What stands in done and failed beside no audio, and is nobody's own; hidden files anywhere."""
    found = [path for part in ("done", "failed") for path in (root / part).rglob("*") if path.is_file()]
    stems = {path.with_suffix("") for path in found if path.suffix == ".wav"}
    orphans = [
        path
        for path in found
        if path.suffix != ".wav" and path not in bystanders and _stem(path) not in stems
    ]
    return orphans + list(root.rglob(".dropscribe-*"))


def _stem(path):
    return path.with_name(path.name.removesuffix(".error.json").removesuffix(".json").removesuffix(".txt"))


TestWorld = World.TestCase
# Sixty lives of a house, on cores that others use too.
TestWorld.pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
TestWorld.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "60")),
    stateful_step_count=25,
    derandomize="MODEL_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # threads take part: a failure is read from its log, not shrunk
    suppress_health_check=list(HealthCheck),
)
