"""Events in words, and the hours in which people sleep."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from dropscribe.service.notifications import retry_seconds
from dropscribe.service.outbound import compose, quiet_until

AT = "2026-11-21T05:00:00Z"


def failed(number: int, code: str = "bad_format", folder: str = "calls") -> dict[str, object]:
    """One failed file's event."""
    file = {"folder": folder, "path": f"2026/{number}.wav", "code": code, "reason": "no audio"}
    return {"event": "failed", "at": AT, "provider": "pulse", **file}


HELD = {"event": "held", "at": AT, "provider": "pulse", "code": "unauthorized", "reason": "bad key"}
RELEASED = {"event": "released", "at": AT, "provider": "pulse", "held_seconds": 60.0}


def test_one_message_about_several_events():
    """The title counts, the text names each with its code and reason."""
    title, text = compose([failed(1), HELD, RELEASED], "nas")
    assert title == "dropscribe on nas: 1 file failed; provider pulse is held; provider pulse goes on"
    assert text.splitlines() == [
        f"{AT}  provider pulse is held: unauthorized: bad key",
        f"{AT}  provider pulse goes on",
        f"{AT}  calls: 2026/1.wav failed: bad_format: no audio",
    ]


def test_many_failures_are_told_as_numbers():
    """By folder and code, the most frequent first, with an example."""
    events = [failed(number) for number in range(200)] + [failed(7, "too_large", "talks")]
    title, text = compose(events, "nas")
    assert title == "dropscribe on nas: 201 files failed"
    assert text.splitlines() == [
        "calls: 200 failed with bad_format, such as 2026/0.wav",
        "talks: 1 failed with too_large, such as 2026/7.wav",
    ]


def test_a_message_is_bounded_and_plain():
    """However much happened, and whatever bytes a name has."""
    events = [{**HELD, "provider": f"p{number}"} for number in range(500)]
    title, text = compose([*events, {**failed(1), "path": "a\nb\udcff.wav"}], "nas")
    assert len(title) < 200
    assert len(text.splitlines()) == 61
    assert compose([{**failed(1), "path": "a\nb\udcff.wav"}], "nas")[1].count("\n") == 0


def test_an_event_of_another_kind_is_told_too():
    """What this version has no words for is named."""
    title, text = compose([{"event": "budget", "at": AT, "folder": "calls", "reason": "80 % spent"}], "nas")
    assert title == "dropscribe on nas: the budget of folder calls"
    assert text == f"{AT}  the budget of folder calls: 80 % spent"


NIGHT = (22 * 60, 7 * 60)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("now", "hours", "until"),
    [
        ("2026-11-20 21:59", NIGHT, None),
        ("2026-11-20 22:00", NIGHT, "2026-11-21 07:00"),
        ("2026-11-21 06:59", NIGHT, "2026-11-21 07:00"),
        ("2026-11-21 07:00", NIGHT, None),
        ("2026-11-21 13:30", (13 * 60, 14 * 60), "2026-11-21 14:00"),
        ("2026-11-21 14:00", (13 * 60, 14 * 60), None),
        ("2026-12-31 23:30", NIGHT, "2027-01-01 07:00"),
        ("2026-10-24 23:00", NIGHT, "2026-10-25 07:00"),  # an hour longer: summer time ends
    ],
)
def test_quiet_hours_end_in_the_morning(now, hours, until):
    """Across midnight, the year and a change of the clocks, in the zone that is asked for."""

    def seconds(text):
        return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=BERLIN).timestamp()

    assert quiet_until(seconds(now), hours, BERLIN) == seconds(until or now)


def test_the_zone_decides():
    """The same instant is night in one place and day in another."""
    now = datetime(2026, 11, 21, 21, 30, tzinfo=UTC).timestamp()
    assert quiet_until(now, NIGHT, ZoneInfo("UTC")) == now
    assert quiet_until(now, NIGHT, BERLIN) == now + 8.5 * 3600


def test_retries_grow_to_an_hour():
    """Doubling from five seconds, never all at once."""
    assert [retry_seconds(tries, 1.0) for tries in (1, 2, 3, 30)] == [5.0, 10.0, 20.0, 3600.0]
    assert retry_seconds(1, 0.0) == 2.5
