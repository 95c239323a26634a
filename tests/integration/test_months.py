"""What happens over days and weeks, on a clock that skips the waits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AmbiguousFailure, AudioRejected, ProviderUnusable, TemporaryFailure
from support.house import House, make_config, read_json
from support.scripted import ScriptedProvider, transcript_of
from support.virtual_time import run_in_virtual_time

DAY = 86400.0

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
