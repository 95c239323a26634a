"""What happens over days and weeks, on a clock that skips the waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC

import pytest

from dropscribe.app import housekeeping
from dropscribe.config.model import FolderRule, ProviderConfig
from dropscribe.core import settling
from dropscribe.core.budget import Budget, Limit
from dropscribe.core.errors import AmbiguousFailure, AudioRejected, ProviderUnusable, TemporaryFailure
from dropscribe.intake import availability, inboxes, owner_file, pending
from dropscribe.queue.embedded import dispatcher
from dropscribe.reports.explain import explain
from dropscribe.reports.queue_reader import view_queue
from support.house import House, make_config, read_json
from support.inboxes import wav
from support.reloaded import Reloaded
from support.scripted import ScriptedProvider, transcript_of
from support.virtual_time import run_in_virtual_time

DAY = 86400.0


@pytest.fixture
def _long_sleeps(monkeypatch):
    """What is waited for ends each sleep; a look once a minute would be most of a month's work."""
    monkeypatch.setattr(dispatcher, "_LONGEST_SLEEP_SECONDS", 6 * 3600.0)


ODD_DAYS = (
    (2, 12, TemporaryFailure("connect_failed", "refused")),
    (12, 13, AmbiguousFailure("http_504", status=504)),
    (13, 15, ProviderUnusable("insufficient_quota", status=429)),
    (15, 17, TemporaryFailure("html_page", "an HTML page", status=200)),
    (17, 18, TemporaryFailure("busy", status=503, retry_after_seconds=7200.0, slows_provider=True)),
)


class Vendor(ScriptedProvider):
    """Has its bad days; a clip whose name begins with "short" is refused on every day."""

    def __init__(self):
        super().__init__()
        self.began = time.time()
        self.sent, self.answered = Counter(), Counter()

    async def _play(self, step, audio):
        async for _ in audio.blocks():
            pass
        await asyncio.sleep(5.0)
        day = (time.time() - self.began) / DAY
        for first, last, error in ODD_DAYS:
            if first <= day < last:
                self.sent[audio.name] += isinstance(error, AmbiguousFailure)
                raise error
        if audio.name.startswith(b"short"):
            raise AudioRejected("http_400", "the audio is too short", status=400, maybe_rule=True)
        self.answered[audio.name] += 1
        return transcript_of("x")


@pytest.mark.slow
@pytest.mark.usefixtures("_long_sleeps")
def test_a_month_of_odd_days_ends_every_file(tmp_path, monkeypatch):
    """A provider that is down for ten days, then answers by a gateway's timeout, has no credit, is behind a
    login page, asks for pauses: each file ends, nothing good fails but for what was sent too often.
    """
    providers = {"main": ProviderConfig(name="main", type="openai", concurrency=2)}
    retry = {"first_seconds": 5.0, "max_seconds": 3600.0, "give_up_after_seconds": 5 * DAY}
    config = make_config(tmp_path, providers=providers, retry=retry, hold=(30.0, 900.0))
    vendors = []

    async def month():
        vendors.append(Vendor())
        async with House(config, {"main": vendors[0]}) as house:
            for number in range(31 * 8):
                name = f"short {number}.wav" if number % 9 == 0 else f"{number}.wav"
                await house.drop(name, name.encode())
                await asyncio.sleep(3 * 3600.0)
            await asyncio.sleep(2 * DAY)
            return await house.stats()

    stats = run_in_virtual_time(monkeypatch, month())

    assert (stats.queued, stats.deferred, stats.held, stats.transcribing, stats.publishing) == (0,) * 5
    assert stats.done + stats.failed == 31 * 8
    vendor = vendors[0]
    assert max(vendor.sent.values()) <= 3
    assert set(vendor.answered.values()) == {1}
    codes = Counter(read_json(path)["code"] for path in (tmp_path / "failed").glob("*.error.json"))
    assert set(codes) <= {"http_400", "http_504"}
    assert codes["http_400"] <= len([number for number in range(31 * 8) if number % 9 == 0])


@pytest.mark.slow
@pytest.mark.usefixtures("_long_sleeps")
def test_a_provider_that_is_down_for_a_month_fails_no_file(tmp_path, monkeypatch):
    """Held, it is tried every quarter of an hour; back, it gets all that waits."""
    providers = {"main": ProviderConfig(name="main", type="openai", concurrency=2)}
    config = make_config(tmp_path, providers=providers, hold=(30.0, 86400.0))
    script = ScriptedProvider([TemporaryFailure("connect_failed", "refused")] * 60)

    async def month():
        async with House(config, {"main": script}) as house:
            for number in range(5):
                await house.drop(f"{number}.wav", b"%d" % number)
            while (await house.stats()).done < 5:  # noqa: ASYNC110  # on a clock that skips
                await asyncio.sleep(6 * 3600.0)
            return await house.stats()

    began = time.time()
    stats = run_in_virtual_time(monkeypatch, month())
    assert (stats.done, stats.failed) == (5, 0)
    assert time.time() - began > 28 * DAY


MONTH_DAYS, DROPS_A_DAY = 31, 8
ODD_TIMES = (-(2**31), 1, 2**32, 10_413_792_000)  # 1901 to 2300


class Month:
    """A month of two rules: files come, the config changes, writers forget to close.

    Attributes:
        dropped: Bytes of each file that was written to its end, by rule and name.
        states: How often ``why`` found a file in a state; each file is asked for once a day.
        told: What ``why`` said.
        lacking: Files for which it gave no reason.
    """

    def __init__(self, root, vendor):
        self.root, self.vendor = root, vendor
        self.dropped, self.states, self.told, self.lacking = {}, Counter(), set(), []
        self.refused_reloads = 0

    def config(self, *, providers=("main", "spare"), rules=("calls", "memos"), timeout_seconds=60.0):
        """As it is on most days, but for what is given."""
        first, second = providers
        of_rule = {"calls": (first,), "memos": (second, first)}
        return make_config(
            self.root,
            rules={
                name: FolderRule(
                    name=name,
                    providers=of_rule[name],
                    rescan_seconds=3600.0,
                    **{part: self.root / name / part for part in ("inbox", "done", "failed")},
                )
                for name in rules
            },
            providers={
                name: ProviderConfig(
                    name=name,
                    type="openai",
                    concurrency=2,
                    timeout_seconds=timeout_seconds,
                    budget=Budget(per_day=Limit(0.2, is_money=False)),  # answers are of a second each
                )
                for name in providers
            },
            retry={"first_seconds": 5.0, "max_seconds": 3600.0, "give_up_after_seconds": 5 * DAY},
            hold=(30.0, 900.0),
            time_zone=UTC,
        )

    def configs(self):
        """One for each day: limits change, providers are renamed, a rule leaves and comes back."""
        for day in range(MONTH_DAYS):
            if day in {6, 7, 14, 16}:
                yield self.config(providers=("renamed", "spare"))
            elif 19 <= day < 22:
                yield self.config(rules=("calls",))
            elif day % 5 == 1:
                yield self.config(timeout_seconds=61.0 + day)
            elif day % 5 == 3:
                yield replace(self.config(), state_dir=self.root / "elsewhere")  # is refused
            else:
                yield self.config()

    def drop(self, rule, name, content, *, odd_time=None):
        """A whole file, by a rename."""
        path = self.root / rule / "inbox" / name
        temporary = path.with_name(".incoming")
        temporary.write_bytes(content)
        if odd_time is not None:
            os.utime(temporary, (odd_time, odd_time))
        temporary.rename(path)
        self.dropped[rule, name] = content

    def note_states(self, config):
        """What ``why`` says of each file in the inboxes of the rules."""
        with view_queue(config) as view:
            for rule in config.folders.values():
                for path in sorted(rule.inbox.glob("[!.]*.wav")):
                    _, explanation = explain(config, os.fsencode(path), view)
                    self.states[explanation.state] += 1
                    self.told.update(explanation.words)
                    if not all(explanation.words or [""]) or explanation.state == "unknown":
                        self.lacking.append((path.name, explanation))

    async def live(self, house):
        """The whole month, and three days more."""
        never, late = (open(self.root / "calls/inbox" / name, "wb") for name in ("never.wav", "late.wav"))  # noqa: SIM115
        with never, late:
            late.write(wav(777))
            self.dropped["calls", "late.wav"] = wav(777)
            for day, config in enumerate(self.configs()):
                self.refused_reloads += not await house.reload(config)
                await self._pass_day(day, house)
                if day == 9:
                    late.close()
            assert await house.reload(self.config())
            await asyncio.sleep(3 * DAY)
            self.note_states(house.daemon.config)
            return await house.daemon.report.status(), house.daemon.inboxes.live()

    async def _pass_day(self, day, house):
        for number in range(DROPS_A_DAY * day, DROPS_A_DAY * (day + 1)):
            name = f"short {number}.wav" if number % 9 == 0 else f"{number}.wav"
            odd_time = ODD_TIMES[number % 4] if number % 5 == 0 else None
            content = wav(1000 + number)
            self.drop("memos" if number % 3 else "calls", name, content, odd_time=odd_time)
            await asyncio.sleep(DAY / DROPS_A_DAY)
        self.note_states(house.daemon.config)


def _look_rarely(monkeypatch):
    """What looks every few seconds, or each minute, whether anything has changed does so twice an hour."""
    for module, name in (
        (inboxes, "_HANG_CHECK_SECONDS"),
        (availability, "AVAILABLE_SECONDS"),
        (housekeeping, "RELEASE_LOOK_SECONDS"),
        (housekeeping, "INDEX_LOOK_SECONDS"),
        (housekeeping, "DELETION_LOOK_SECONDS"),
        (owner_file, "BEAT_SECONDS"),
        (settling, "WRITER_MAX_SECONDS"),
        (pending, "_LONGEST_RETRY_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 1800.0)


@pytest.mark.slow
def test_in_a_month_of_all_kinds_of_trouble_every_file_ends_or_waits_with_a_reason(tmp_path, monkeypatch):
    """The whole daemon with its inboxes: vendors have bad days, budgets are spent, files have odd dates,
    writers forget to close, a download never ends, the config is changed each day.
    """
    months = []

    async def live():
        vendor = Vendor()
        month = Month(tmp_path, vendor)
        months.append(month)
        config = month.config()
        (tmp_path / "calls/inbox/download.wav").write_bytes(wav(55))
        (tmp_path / "calls/inbox/download.wav.aria2").write_bytes(b"")
        house = Reloaded(monkeypatch, config, lambda _: vendor)
        _look_rarely(monkeypatch)
        async with house:
            return await month.live(house)

    status, inboxes_at_end = run_in_virtual_time(monkeypatch, live())

    month = months[0]
    assert month.lacking == []
    assert month.refused_reloads == 6
    assert {"held", "settling"} <= set(month.states)
    assert any("budget" in words for words in month.told)
    waiting = inboxes_at_end["calls"]["waiting"]
    assert set(waiting) == {"never.wav", "download.wav"}
    assert "a writer has it open" in waiting["never.wav"]
    assert "aria2 has not finished" in waiting["download.wav"]
    for name, folder in status["folders"].items():
        states = ("queued", "deferred", "held", "transcribing", "publishing")
        assert [folder[state] for state in states] == [0] * 5, name
    filed = [path for part in ("done", "failed") for path in tmp_path.glob(f"*/{part}/**/*.wav")]
    assert Counter(path.read_bytes() for path in filed) == Counter(month.dropped.values())
    assert set(month.vendor.answered.values()) == {1}
    assert max(month.vendor.sent.values()) <= 3
    codes = {read_json(path)["code"] for path in tmp_path.glob("*/failed/*.error.json")}
    assert codes == {"http_400", "http_504"}
