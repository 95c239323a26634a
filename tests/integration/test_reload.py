"""Configs that change while the daemon works: attempts end as they began, a refusal changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from dropscribe.config.model import FolderRule, HttpConfig, LogConfig, ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ConfigError,
    Problem,
    ProviderUnusable,
    TemporaryFailure,
)
from dropscribe.core.model import NewJob
from dropscribe.files.audio import snapshot_of
from dropscribe.intake import inbox as intake_inbox
from dropscribe.intake import inboxes as intake_inboxes
from dropscribe.intake.availability import TAKEN, TAKEN_BY_US
from dropscribe.intake.inbox import Inbox
from dropscribe.intake.inboxes import INTAKE_KEYS, Inboxes
from dropscribe.pipeline import publisher
from dropscribe.publish import moving
from dropscribe.queue.sql import intake_queries
from dropscribe.queue.sql.backlog import mark_of
from dropscribe.queue.sql.rows import read_recent_starts
from dropscribe.web.listener import Listener
from support.faults import mounted
from support.house import digest, make_config, read_json, stats_of
from support.inboxes import MemoryQueue, Station, wav
from support.reloaded import Reloaded
from support.scripted import ScriptedProvider, transcript_of

RULES = tuple(f"rule{number}" for number in range(5))
PROVIDERS = tuple(f"provider{number}" for number in range(4))


class Vendor(ScriptedProvider):
    """Answers after a moment, and now and then fails in one of the ways of vendors."""

    def __init__(self, rng, answered):
        super().__init__()
        self.rng, self.answered, self.is_closed = rng, answered, False

    async def _play(self, step, audio):
        async for _ in audio.blocks():
            pass
        await asyncio.sleep(self.rng.random() * 0.02)
        assert not self.is_closed, "an attempt is under way"
        if self.rng.random() < 0.15:
            errors = (
                AmbiguousFailure("no_answer"),
                TemporaryFailure("http_500", status=500),
                ProviderUnusable("quota", status=402),
            )
            raise self.rng.choice(errors)
        self.answered[audio.sha256] += 1
        return transcript_of(audio.sha256)

    async def close(self):
        self.is_closed = True


def _rule(root, name, providers):
    places = {part: root / name / part for part in ("inbox", "done", "failed")}
    return FolderRule(name=name, providers=tuple(providers), rescan_seconds=0.5, **places)


def _random_config(rng, root, port, rules):
    config = make_config(
        root,
        rules={name: _rule(root, name, rng.sample(PROVIDERS, rng.randint(1, 3))) for name in rules},
        providers={
            name: ProviderConfig(
                name=name,
                type="openai",
                concurrency=rng.randint(1, 3),
                requests_per_minute=rng.choice([None, None, 6000.0]),
                timeout_seconds=float(rng.randint(60, 62)),
            )
            for name in PROVIDERS
        },
        retry={"max_ambiguous": 1000, "give_up_after_seconds": 9e9},
        hold=(0.01, 0.05),
    )
    host = rng.choice(["127.0.0.1", "0.0.0.0", None])  # a token is set
    token = Secret("a token of sixteen", "test")
    http = host and HttpConfig(listen=f"{host}:{port}", host=host, port=port, token=token)
    return replace(config, http=http, log=LogConfig(level=rng.choice(["info", "debug"])))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _open_files():
    return len(os.listdir("/proc/self/fd"))


async def _use_inboxes(rng, root, dropped, count):
    """Drop files, rename some that may be in flight, and write others under their old names."""
    for number in range(count):
        inbox = root / rng.choice(RULES) / "inbox"
        content = wav(200 + number)
        dropped[digest(content)] += 1
        (inbox / ".incoming").write_bytes(content)
        (inbox / ".incoming").rename(inbox / f"{number % 40} {number}.wav")
        waiting = sorted(inbox.glob("*.wav"))
        if waiting and rng.random() < 0.4:
            with contextlib.suppress(FileNotFoundError):
                path = rng.choice(waiting)
                path.rename(inbox / f"renamed {number}.wav")
                again = wav(1000 + number)
                dropped[digest(again)] += 1
                path.write_bytes(again)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 15), *(pytest.param(seed, 100, marks=pytest.mark.slow) for seed in (2, 3))]
)
async def test_reloads_under_load_lose_and_double_nothing(tmp_path, monkeypatch, seed, count):
    """Rules, providers, limits, listener and logging come and go, files are renamed in flight: each file is
    done once with its own transcript, was answered once, and nothing is left open.
    """
    rng, root, port = random.Random(seed), tmp_path, _free_port()
    answered, dropped, vendors = Counter(), Counter(), []
    for name in RULES:
        (root / name / "inbox").mkdir(parents=True)

    def make_provider(_config):
        vendors.append(Vendor(rng, answered))
        return vendors[-1]

    everything = _random_config(rng, root, port, RULES)
    async with Reloaded(monkeypatch, everything, make_provider) as house:
        using = asyncio.create_task(_use_inboxes(rng, root, dropped, count * 8 // 5))
        open_before = _open_files()
        for _ in range(count):
            rules = rng.sample(RULES, rng.randint(1, len(RULES)))
            assert await house.reload(_random_config(rng, root, port, rules))
        await using
        assert await house.reload(everything)
        await house.until(
            lambda: not [path for name in RULES for path in (root / name / "inbox").glob("*.wav")]
        )
        await house.until(lambda: not house.daemon.engine.in_flight)
        assert _open_files() < open_before + 40

    assert all(vendor.is_closed for vendor in vendors)
    done = [path for name in RULES for path in (root / name / "done").glob("*.wav")]
    assert Counter(digest(path.read_bytes()) for path in done) == dropped
    for path in done:
        document = read_json(path.with_suffix(".json"))
        assert document["source"]["sha256"] == digest(path.read_bytes())
        assert (
            document["source"]["file"] == path.name
            or path.name.rsplit("-", 1)[0] in document["source"]["file"]
        )
    assert set(answered.values()) == {1}


async def test_a_refused_reload_leaves_everything_as_it_was(tmp_path, monkeypatch):
    """Neither listener, logging nor rules change, whatever the refusal comes from."""
    port = _free_port()
    rng = random.Random(3)
    for name in RULES:
        (tmp_path / name / "inbox").mkdir(parents=True)
    config = _random_config(rng, tmp_path, port, RULES[:2])
    config = replace(config, http=HttpConfig(listen=f"127.0.0.1:{port}", host="127.0.0.1", port=port))
    async with Reloaded(monkeypatch, config, lambda _: ScriptedProvider()) as house:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken_port = other.getsockname()[1]
            elsewhere = HttpConfig(listen=f"127.0.0.1:{taken_port}", host="127.0.0.1", port=taken_port)
            wanted = _random_config(rng, tmp_path, port, RULES)
            assert not await house.reload(replace(wanted, http=elsewhere))
        assert not await house.reload(replace(wanted, state_dir=Path("/nowhere")))
        assert not await house.reload(ConfigError((Problem("a mistake"),)))
        assert not await house.reload(OSError("the disk"))
        assert house.taken == []
        assert house.daemon.config is config
        assert set(house.daemon.inboxes.live()) == set(RULES[:2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
        assert b" 200 " in await reader.readline()
        writer.close()
        (tmp_path / "rule0/inbox/call.wav").write_bytes(wav())
        await house.until((tmp_path / "rule0/done/call.wav").exists)


async def test_a_listener_that_was_lost_is_opened_by_the_next_reload(tmp_path, monkeypatch):
    """Another process takes the port while the listener moves between two addresses of it."""
    port, thieves = _free_port(), []
    config = make_config(tmp_path, rules={})
    here = HttpConfig(listen=f"127.0.0.1:{port}", host="127.0.0.1", port=port)
    token = Secret("0123456789abcdef", "test")
    everywhere = HttpConfig(listen=f"0.0.0.0:{port}", host="0.0.0.0", port=port, token=token)
    close = Listener.close

    async def close_and_lose_the_port(listener):
        await close(listener)
        thieves.append(socket.create_server(("127.0.0.1", port)))

    async with Reloaded(monkeypatch, replace(config, http=here), lambda _: ScriptedProvider()) as house:
        with monkeypatch.context() as patch:
            patch.setattr(Listener, "close", close_and_lose_the_port)
            assert not await house.reload(replace(config, http=everywhere))
        (thief,) = thieves
        thief.close()
        assert await house.reload(replace(config, http=here))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
        assert b" 200 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("error", [AmbiguousFailure("no_answer"), AudioRejected("no", status=415)])
async def test_a_provider_that_leaves_while_an_attempt_fails_strands_no_file(tmp_path, monkeypatch, error):
    """The attempt ends with the old provider; the file goes on with those that its rule has now."""
    (tmp_path / "rule0/inbox").mkdir(parents=True)
    gate = asyncio.Event()
    old, new = ScriptedProvider([error], gate=gate), ScriptedProvider()
    providers = {"old": old, "new": new}

    def config_with(name):
        settings = {name: ProviderConfig(name=name, type="openai", concurrency=4)}
        return make_config(tmp_path, rules={"rule0": _rule(tmp_path, "rule0", [name])}, providers=settings)

    async with Reloaded(monkeypatch, config_with("old"), lambda each: providers[each.name]) as house:
        (tmp_path / "rule0/inbox/call.wav").write_bytes(wav())
        await house.until(lambda: old.in_flight)
        assert await house.reload(config_with("new"))
        gate.set()
        ends = "done" if isinstance(error, AmbiguousFailure) else "failed"
        await house.until((tmp_path / "rule0" / ends / "call.wav").exists)

    assert len(old.calls) == 1
    assert len(new.calls) == (1 if ends == "done" else 0)


async def test_a_rule_that_leaves_while_its_file_is_in_flight_ends_it_as_it_began(tmp_path, monkeypatch):
    """The upload under way is filed where the old config says; nothing fails."""
    for name in ("rule0", "rule1"):
        (tmp_path / name / "inbox").mkdir(parents=True)
    gate = asyncio.Event()
    script = ScriptedProvider(gate=gate)

    def config_with(*names):
        rules = {name: _rule(tmp_path, name, ["main"]) for name in names}
        return make_config(tmp_path, rules=rules)

    async with Reloaded(monkeypatch, config_with("rule0", "rule1"), lambda _: script) as house:
        (tmp_path / "rule0/inbox/call.wav").write_bytes(wav())
        await house.until(lambda: script.in_flight)
        assert await house.reload(config_with("rule1"))
        gate.set()
        await house.until(lambda: not house.daemon.engine.in_flight)
        assert await house.reload(config_with("rule0", "rule1"))
        await house.until((tmp_path / "rule0/done/call.wav").exists)

    assert len(script.calls) == 1


async def test_an_inbox_whose_thread_cannot_start_leaves_no_other_locked(tmp_path, monkeypatch):
    """The reload is refused, and the next one takes all of its inboxes."""
    rules = {name: _rule(tmp_path, name, ["main"]) for name in ("rule0", "rule1", "rule2")}
    for name in rules:
        (tmp_path / name / "inbox").mkdir(parents=True)
    first = make_config(tmp_path, rules={"rule0": rules["rule0"]})
    start = Inbox.start

    def start_but_the_last(inbox):
        if inbox.rule.name == "rule2":
            raise RuntimeError("can't start new thread")
        start(inbox)

    async with Reloaded(monkeypatch, first, lambda _: ScriptedProvider()) as house:
        with monkeypatch.context() as patch:
            patch.setattr(Inbox, "start", start_but_the_last)
            assert not await house.reload(make_config(tmp_path, rules=rules))
        assert await house.reload(make_config(tmp_path, rules=rules))
        (tmp_path / "rule1/inbox/call.wav").write_bytes(wav())
        await house.until((tmp_path / "rule1/done/call.wav").exists)


async def test_a_renamed_rule_takes_over_its_inbox_without_an_alarm(tmp_path, monkeypatch):
    """The new rule never reports that another daemon has the inbox, and takes files."""
    (tmp_path / "rule0/inbox").mkdir(parents=True)
    one = _rule(tmp_path, "rule0", ["main"])
    rules = [replace(one, name="rule1"), one, replace(one, min_age_seconds=0.01)]
    reasons = set()

    def is_available(inboxes):
        reasons.update(inboxes.unavailable().values())
        return not inboxes.unavailable()

    first = make_config(tmp_path, rules={one.name: one})
    with capture_logs() as logs:
        async with Reloaded(monkeypatch, first, lambda _: ScriptedProvider()) as house:
            inboxes = house.daemon.inboxes
            for number, rule in enumerate(rules):
                assert await house.reload(make_config(tmp_path, rules={rule.name: rule}))
                await house.until(lambda: is_available(inboxes))
                (tmp_path / f"rule0/inbox/{number}.wav").write_bytes(wav(200 + number))
                await house.until((tmp_path / f"rule0/done/{number}.wav").exists)
    assert TAKEN not in reasons
    assert not [line for line in logs if line["event"] == "inbox.unavailable"]


def _config_of(tmp_path, rule):
    return make_config(tmp_path, rules={rule.name: rule})


@contextlib.asynccontextmanager
async def _uploading(tmp_path, monkeypatch, rule, script):
    """A daemon with one rule whose upload waits for the gate of *script*."""
    async with Reloaded(monkeypatch, _config_of(tmp_path, rule), lambda _: script) as house:
        (rule.inbox / "call.wav").write_bytes(wav())
        await house.until(lambda: script.in_flight)
        yield house


async def test_an_inbox_that_was_renamed_with_its_rule_is_no_other_daemons(tmp_path, monkeypatch):
    """The old thread has the folder locked until the reload is taken; files in flight go on."""
    script, one = ScriptedProvider(gate=asyncio.Event()), _rule(tmp_path, "rule0", ["main"])
    async with _uploading(tmp_path, monkeypatch, one, script) as house:
        one.inbox.rename(tmp_path / "moved")
        with capture_logs() as logs:
            assert await house.reload(_config_of(tmp_path, replace(one, inbox=tmp_path / "moved")))
            script.gate.set()
            await house.until((tmp_path / "rule0/done/call.wav").exists)
            (tmp_path / "moved/another.wav").write_bytes(wav(300))
            await house.until((tmp_path / "rule0/done/another.wav").exists)
    assert len(script.calls) == 2
    assert TAKEN not in [line.get("reason") for line in logs]


@pytest.mark.parametrize("kept", [True, False])
async def test_two_rules_with_one_folder_are_refused(tmp_path, monkeypatch, kept):
    """Their paths differ (a bind mount): the second rule would wait for ever, without a word in the log."""
    one, other = _rule(tmp_path, "rule0", ["main"]), _rule(tmp_path, "rule1", ["main"])
    changed = one if kept else replace(one, min_age_seconds=0.01)
    for rule in (one, other):
        rule.inbox.mkdir(parents=True)
    with mounted(other.inbox, "--bind", one.inbox):
        async with Reloaded(monkeypatch, _config_of(tmp_path, one), lambda _: ScriptedProvider()) as house:
            assert not await house.reload(make_config(tmp_path, rules={"rule0": changed, "rule1": other}))
            (one.inbox / "call.wav").write_bytes(wav())
            await house.until((tmp_path / "rule0/done/call.wav").exists)


async def test_a_renamed_rule_takes_over_its_files_too(tmp_path, monkeypatch):
    """The upload under way goes on under the new name, and nothing is paid for twice."""
    script, one = ScriptedProvider(gate=asyncio.Event()), _rule(tmp_path, "rule0", ["main"])
    async with _uploading(tmp_path, monkeypatch, one, script) as house:
        assert await house.reload(_config_of(tmp_path, replace(one, name="renamed")))
        await asyncio.sleep(0.3)  # the new thread has listed the inbox
        script.gate.set()
        await house.until((tmp_path / "rule0/done/call.wav").exists)
        await house.until(lambda: not house.daemon.engine.in_flight)
        stats = await stats_of(house.daemon.engine)
    assert len(script.calls) == 1
    assert stats.removed == {}
    assert stats.folders["renamed"].done == 1


@pytest.mark.parametrize(
    "names",
    [("rule1", "rule0"), ("rule1", "rule2"), ("new", "rule0")],
    ids=["swapped", "shifted", "handed on"],
)
async def test_uploads_go_on_where_rules_exchange_their_inboxes(tmp_path, monkeypatch, names):
    """A slot is free: the rule that lists the inbox now does not send its files once more."""
    script = ScriptedProvider(gate=asyncio.Event())
    rules = [_rule(tmp_path, f"rule{number}", ["main"]) for number in (0, 1)]

    def config_with(*rules):
        return make_config(tmp_path, rules={rule.name: rule for rule in rules})

    async with Reloaded(monkeypatch, config_with(*rules), lambda _: script) as house:
        for rule in rules:
            (rule.inbox / f"{rule.name}.wav").write_bytes(wav(int(rule.name[-1]) * 100 + 300))
        await house.until(lambda: len(script.calls) == 2)
        exchanged = [replace(rule, name=name) for rule, name in zip(rules, names, strict=True)]
        assert await house.reload(config_with(*exchanged))
        await asyncio.sleep(0.3)  # the new threads have listed the inboxes
        script.gate.set()
        for rule in rules:
            await house.until((rule.done / f"{rule.name}.wav").exists)
        await house.until(lambda: not house.daemon.engine.in_flight)
        stats = await stats_of(house.daemon.engine)
    assert len(script.calls) == 2
    assert stats.removed == {}
    assert {name: stats.folders[name].done for name in names} == dict.fromkeys(names, 1)


async def test_a_rule_that_comes_back_under_another_name_takes_over_its_files(tmp_path, monkeypatch):
    """It has left by one reload and comes back by the next: its answer is filed, and no row stays behind."""
    script = ScriptedProvider(gate=asyncio.Event())
    one, other = _rule(tmp_path, "rule0", ["main"]), _rule(tmp_path, "other", ["main"])

    def config_with(*rules):
        return make_config(tmp_path, rules={rule.name: rule for rule in rules})

    async with Reloaded(monkeypatch, config_with(one, other), lambda _: script) as house:
        (tmp_path / "rule0/inbox/call.wav").write_bytes(wav())
        await house.until(lambda: script.in_flight)
        assert await house.reload(config_with(other))
        script.gate.set()
        await house.until(lambda: not house.daemon.engine.in_flight)
        assert (await stats_of(house.daemon.engine)).removed == {"rule0": 1}
        assert await house.reload(config_with(replace(one, name="renamed"), other))
        await house.until((tmp_path / "rule0/done/call.wav").exists)
        await house.until(lambda: not house.daemon.engine.in_flight)
        assert (await stats_of(house.daemon.engine)).removed == {}
    assert len(script.calls) == 1


async def test_a_file_queued_under_the_new_name_too_is_paid_for_once(tmp_path, monkeypatch):
    """The job that has begun under the old name stays, and the queued one of the same file ends."""
    gate = asyncio.Event()
    script = ScriptedProvider(gate=gate)
    one = _rule(tmp_path, "rule0", ["main"])
    inbox = tmp_path / "rule0/inbox"

    def config_with(rule):
        return make_config(tmp_path, rules={rule.name: rule})

    async with Reloaded(monkeypatch, config_with(one), lambda _: script) as house:
        store = house.daemon.engine.store
        (inbox / "call.wav").write_bytes(wav())
        await house.until(lambda: script.in_flight)
        snapshot = snapshot_of(os.stat(inbox / "call.wav"))
        job = NewJob("renamed", b"call.wav", snapshot, time.time())
        [submitted] = await store.do(lambda db: intake_queries.submit(db, [job]))
        assert submitted.is_new
        assert await house.reload(config_with(replace(one, name="renamed")))
        gate.set()
        await house.until((tmp_path / "rule0/done/call.wav").exists)
        await house.until(lambda: not house.daemon.engine.in_flight)
        stats = await stats_of(house.daemon.engine)
        states = await store.do(
            lambda db: db.execute("SELECT folder, state FROM jobs ORDER BY id").fetchall()
        )
    assert len(script.calls) == 1
    assert stats.removed == {}
    assert [tuple(row) for row in states] == [("renamed", "done"), ("renamed", "withdrawn")]


async def test_files_that_settle_while_their_rule_is_renamed_are_no_ghosts(tmp_path, monkeypatch):
    """The old thread may hand files over until it has ended; the backlog's mark goes with the name."""
    one = _rule(tmp_path, "rule0", ["main"])
    rules = [replace(one, name=f"n{number}", backlog="ask") for number in range(6)]

    def config_with(rule):
        return make_config(tmp_path, rules={rule.name: rule})

    async with Reloaded(monkeypatch, config_with(rules[0]), lambda _: ScriptedProvider()) as house:
        engine = house.daemon.engine
        for number, rule in enumerate(rules[1:]):
            for file in range(40):
                (tmp_path / f"rule0/inbox/{number}-{file}.wav").write_bytes(wav(300 + 40 * number + file))
            assert await house.reload(config_with(rule))
        done = tmp_path / "rule0/done"
        await house.until(lambda: len(list(done.glob("*.wav"))) == 200)
        await house.until(lambda: not engine.in_flight)
        stats = await stats_of(engine)
        facts = await engine.store.do(lambda db: [mark_of(db, rule.name) for rule in rules])
    assert stats.removed == {}
    assert stats.folders["n5"].backlog == 0
    assert [fact is not None for fact in facts] == [False] * 5 + [True]


async def test_a_file_that_the_rule_leaves_alone_now_is_not_sent(tmp_path, monkeypatch):
    """A drop by mistake is stopped by `exclude` and a reload, as `plan` says."""
    gate = asyncio.Event()
    script = ScriptedProvider(gate=gate)
    one = _rule(tmp_path, "rule0", ["main"])
    slots = {"main": ProviderConfig(name="main", type="openai", concurrency=1)}

    def config_with(rule):
        return make_config(tmp_path, rules={rule.name: rule}, providers=slots)

    async with Reloaded(monkeypatch, config_with(one), lambda _: script) as house:
        for name in ("a.wav", "b.wav", "keep.wav"):
            (tmp_path / "rule0/inbox" / name).write_bytes(wav() + name.encode())
            await house.until(lambda: script.in_flight)
        await asyncio.sleep(0.5)  # all are queued
        assert await house.reload(config_with(replace(one, exclude=("b*.wav",))))
        gate.set()
        await house.until((tmp_path / "rule0/done/keep.wav").exists)
        await house.until(lambda: not house.daemon.engine.in_flight)
        starts = await house.daemon.engine.store.do(lambda db: read_recent_starts(db, 0.0))
    assert (tmp_path / "rule0/inbox/b.wav").exists()
    assert len(script.calls) == len(starts) == 2


@pytest.mark.parametrize(
    ("place", "step", "files"),
    [
        ("done", None, ["a.json", "a.txt", "a.wav"]),
        ("failed", AudioRejected("undecodable", "no audio"), ["a.error.json", "a.wav"]),
    ],
)
async def test_a_place_that_is_changed_gets_the_files_that_the_old_one_refuses(
    tmp_path, monkeypatch, place, step, files
):
    """Their results are stored with names in a folder that the config does not have any more."""
    monkeypatch.setattr(publisher, "backoff_seconds", lambda *_: 0.05)
    gate = asyncio.Event()
    script = ScriptedProvider([step], gate=gate)
    one = _rule(tmp_path, "rule0", ["main"])
    slots = {"main": ProviderConfig(name="main", type="openai", concurrency=1)}

    def config_with(rule):
        return make_config(tmp_path, rules={rule.name: rule}, providers=slots)

    async with Reloaded(monkeypatch, config_with(one), lambda _: script) as house:
        (tmp_path / "rule0/inbox/a.wav").write_bytes(wav())
        await house.until(lambda: script.in_flight)
        getattr(one, place).write_bytes(b"no folder")
        gate.set()
        await house.until(lambda: house.daemon.engine.folders.closed)
        assert await house.reload(config_with(replace(one, **{place: tmp_path / "rule0/new"})))
        await house.until((tmp_path / "rule0/new/a.wav").exists)
        await house.until(lambda: not house.daemon.engine.folders.closed)
    assert sorted(os.listdir(tmp_path / "rule0/new")) == files
    assert len(script.calls) == 1


async def test_a_copy_that_stands_in_the_old_done_gets_no_second_one_in_the_new(tmp_path, monkeypatch):
    """Its original cannot be removed from the inbox: the trouble is not the old folder's."""
    one, refused = _rule(tmp_path, "rule0", ["main"]), []

    def other_mount(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def refuse(*_):
        refused.append(1)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def config_with(rule):
        return make_config(tmp_path, rules={rule.name: rule})

    monkeypatch.setattr(moving, "move_new", other_mount)
    monkeypatch.setattr(moving, "remove_if", refuse)
    monkeypatch.setattr(publisher, "backoff_seconds", lambda *_: 0.01)
    async with Reloaded(monkeypatch, config_with(one), lambda _: ScriptedProvider()) as house:
        (tmp_path / "rule0/inbox/a.wav").write_bytes(wav())
        await house.until(lambda: refused)
        assert await house.reload(config_with(replace(one, done=tmp_path / "rule0/new")))
        before = len(refused)
        await house.until(lambda: len(refused) > before + 2)
    assert [path.parent.name for path in (tmp_path / "rule0").glob("[dn]*/a.wav")] == ["done"]


class _StoppedQueue(MemoryQueue):
    """A queue whose calls do not return before it is let go, as those of a mount that hangs."""

    def __init__(self):
        super().__init__()
        self.began, self.go = threading.Event(), threading.Event()

    def submit(self, jobs):
        self.began.set()
        self.go.wait()
        return super().submit(jobs)


async def test_an_inbox_whose_old_thread_hangs_is_not_waited_for(tmp_path, monkeypatch):
    """The log names the thread that has it; `run --once` ends; the new thread goes on once it has ended."""
    monkeypatch.setattr(intake_inbox, "HANGS_SECONDS", 0.2)
    monkeypatch.setattr(intake_inboxes, "_HANG_CHECK_SECONDS", 0.05)
    queue, one = _StoppedQueue(), _rule(tmp_path, "rule0", ["main"])
    one.inbox.mkdir(parents=True)
    inboxes = Inboxes(Mock(), queue, lambda: None, "token")
    with capture_logs() as logs:
        inboxes.commit(await inboxes.prepare({"rule0": one}))
        (one.inbox / "call.wav").write_bytes(wav())
        await _until(queue.began.is_set)
        inboxes.commit(await inboxes.prepare({"rule0": replace(one, min_age_seconds=0.01)}))
        await _until(lambda: not inboxes.is_settling())
        assert inboxes.unavailable() == {"rule0": TAKEN_BY_US}
        (hanging,) = (line["reason"] for line in logs if line["event"] == "inbox.hangs")
        assert hanging.startswith("the queue has not answered for ")
        queue.go.set()
        await _until(lambda: not inboxes.unavailable())
        await inboxes.stop()
        await inboxes.release()


async def _until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # it depends on threads
            await asyncio.sleep(0.01)


async def test_every_key_that_an_inbox_reads_restarts_it_when_it_changes(tmp_path):
    """A running inbox compiles its keys once: a reload has to know all of them."""
    read = set()

    class Watched:
        def __init__(self, rule):
            self.rule = rule

        def __getattr__(self, key):
            read.add(key)
            return getattr(self.rule, key)

        @property
        def patterns(self):
            return FolderRule.patterns.fget(self)

        @property
        def quiet_times(self):
            return FolderRule.quiet_times.fget(self)

    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.wav").write_bytes(b"a")
    station = Station(tmp_path / "inbox")
    station.close()
    inbox = Inbox(Watched(station.rule), MemoryQueue(), lambda: None)
    for now in range(0, 60, 5):
        inbox.step(float(now))
    inbox._scanner.availability.release()
    inbox.stop()
    assert {"inbox", "companions", "settle_seconds"} <= read
    assert read <= {"name", *INTAKE_KEYS}
