"""The webhook and apprise, told of what happens, against a real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import importlib.util
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dropscribe.app.monitoring import build_notifications
from dropscribe.config.extras import LIBRARIES, install_hint
from dropscribe.config.load import parse_config
from dropscribe.core.budget import Account, Limit, Period
from dropscribe.core.errors import ConfigError
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.queue.embedded.store import Store
from dropscribe.queue.sql import outbox
from dropscribe.queue.sql.outbox import Notification
from dropscribe.service import notifications as module
from dropscribe.service import outbound as people_module
from dropscribe.service.notifications import DeliveryLoop, Notifications
from dropscribe.service.outbound import AppriseNotifier, Webhook, compose
from dropscribe.service.reporter import Reporter
from support.daemon_process import Installation, wait_until
from support.emulator import Emulator, Fault
from support.receiver import Receiver
from support.waiting import until

SECRET = "hook-secret-canary"
FAILED = {"folder": "calls", "path": "a\udcff.wav", "code": "bad_format", "reason": "no audio"}

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
"""apprise's own, when it is imported."""

needs_apprise = pytest.mark.skipif(
    importlib.util.find_spec("apprise") is None, reason="the extra `notify` (apprise) is not installed"
)


@pytest.fixture
def receiver():
    """Who is told."""
    with Receiver() as running:
        yield running


@pytest.fixture
def store(tmp_path):
    """The queue's file."""
    with contextlib.closing(Store(tmp_path / "state")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    """The first retry after some 50 ms."""
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.05)


@contextlib.asynccontextmanager
async def running(notifications: Notifications):
    """Its loops, for as long as the block lasts."""
    task = asyncio.create_task(notifications.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def waiting(store: Store) -> int:
    """Letters in the outbox."""
    return await store.do(lambda db: db.execute("SELECT count(*) FROM outbox").fetchone()[0])


async def emptied(store: Store) -> None:
    """Wait until nothing is left to deliver."""
    async with asyncio.timeout(20):
        while await waiting(store):  # noqa: ASYNC110 - a condition in a file has no Event
            await asyncio.sleep(0.01)


async def test_the_webhook_is_signed(store, receiver):
    """HMAC-SHA256 over timestamp, dot and body; the body names event, id and time."""
    notifications = Notifications(store, [Webhook(receiver.url, SECRET)])
    async with running(notifications):
        notifications.notify("failed", FAILED)
        await until(lambda: receiver.told)
        await emptied(store)
    (told,) = receiver.told
    signed = told.headers["x-dropscribe-timestamp"].encode() + b"." + told.body
    digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert told.headers["x-dropscribe-signature"] == f"sha256={digest}"
    assert abs(int(told.headers["x-dropscribe-timestamp"]) - time.time()) < 60
    assert told.json["id"] == told.headers["x-dropscribe-event-id"]
    assert {**told.json, "id": "", "at": ""} == {
        "schema": "dropscribe.event/1",
        "id": "",
        "at": "",
        "event": "failed",
        **FAILED,
    }


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_what_is_refused_is_told_again(store, receiver, status):
    """With the same id and the same body; a redirect is a refusal, and nobody goes where it points."""
    receiver.statuses.extend([status, status])
    notifications = Notifications(store, [Webhook(receiver.url, SECRET)])
    with capture_logs() as lines:
        async with running(notifications):
            notifications.notify("failed", FAILED)
            await until(lambda: len(receiver.told) == 3)
            await emptied(store)
    assert len({(told.path, told.headers["x-dropscribe-event-id"], told.body) for told in receiver.told}) == 1
    said = [(line["event"], line["reason"], line["tries"]) for line in lines]
    assert said == [("notification.undelivered", f"http_{status}", tries) for tries in (1, 2)]
    assert "URLSECRET" not in repr(lines)


async def test_a_notification_survives_the_daemon(tmp_path, receiver):
    """Told while nobody listens and the daemon ends at once: the next start delivers it, under its id."""
    store = Store(tmp_path / "state")
    gone = Notifications(store, [Webhook(receiver.url, SECRET)])
    gone.notify("failed", FAILED)
    store.close()
    for file in (tmp_path / "state").iterdir():
        assert SECRET.encode() not in file.read_bytes()
        assert b"URLSECRET" not in file.read_bytes()

    with contextlib.closing(Store(tmp_path / "state")) as store:
        async with running(Notifications(store, [Webhook(receiver.url, SECRET)])):
            await until(lambda: receiver.told)
    assert receiver.events == ["failed"]


async def test_a_notification_is_given_up_after_a_day(store, receiver):
    """With one line; what is younger is tried again."""
    hook = Webhook(receiver.url, SECRET)
    receiver.statuses.extend([500, 500])
    old = Notification(0, "old", time.time() - module.GIVE_UP_SECONDS - 60, '{"event": "failed"}')
    await store.do(lambda db: outbox.put(db, old, [hook.name]))
    with capture_logs() as lines:
        loop = DeliveryLoop(store, hook, {})
        assert await loop._round() == 0
    assert [(line["event"], line["count"]) for line in lines] == [("notification.given_up", 1)]
    assert await waiting(store) == 0


async def test_what_nobody_gets_any_more_is_forgotten(store, receiver):
    """A recipient that left the config, and what lay for more than a day while the daemon was down."""
    hook = Webhook(receiver.url, SECRET)
    now = time.time()
    await store.do(lambda db: outbox.put(db, Notification(0, "a", now, "{}"), ["webhook:gone"]))
    await store.do(lambda db: outbox.put(db, Notification(0, "b", now - 2 * 86400, "{}"), [hook.name]))
    with capture_logs() as lines:
        async with running(Notifications(store, [hook])):
            await emptied(store)
    assert [(line["event"], line["count"]) for line in lines] == [("notification.forgotten", 2)]
    assert receiver.told == []


async def test_what_waits_for_its_batch_is_not_outdated(store, monkeypatch):
    """A message a week: a restart forgets none of its events."""
    monkeypatch.setattr(people_module, "PROMPT_SECONDS", 0.0)
    people, now = Recorder(batch_seconds=7 * 86400.0), time.time()
    event = Notification(0, "b", now - 6 * 86400, '{"event": "held", "provider": "main", "at": ""}')
    await store.do(lambda db: outbox.put(db, event, [people.name]))
    async with running(Notifications(store, [people])):
        await until(lambda: people.sent)


async def test_a_clock_set_back_keeps_nobody_waiting(store, receiver):
    """A notification from the future goes out at the next start."""
    hook = Webhook(receiver.url, SECRET)
    await store.do(
        lambda db: outbox.put(db, Notification(0, "a", time.time() + 10**8, '{"event": "x"}'), [hook.name])
    )
    async with running(Notifications(store, [hook])):
        await until(lambda: receiver.told)


async def test_a_full_box_takes_no_more(store, monkeypatch):
    """Nobody listens: the newest is dropped with a line, the rest waits."""
    monkeypatch.setattr(outbox, "MOST_WAITING", 2)
    notifications = Notifications(store, [Webhook("http://127.0.0.1:9/", SECRET)])
    with capture_logs() as lines:
        for _ in range(3):
            notifications.notify("failed", FAILED)
        await until(lambda: lines)
    assert [line["event"] for line in lines] == ["notification.lost"]
    assert await waiting(store) == 2


async def test_the_end_delivers_what_it_can(store, receiver):
    """At the daemon's end each is told once more, with no wait for company; what fails waits."""
    people = Recorder()
    notifications = Notifications(store, [Webhook(receiver.url, SECRET), people])
    receiver.statuses.append(500)
    notifications.notify("failed", FAILED)
    await notifications.close(10.0)
    assert receiver.events == ["failed"]
    assert len(people.sent) == 1
    assert await waiting(store) == 1


class Recorder(AppriseNotifier):
    """Somebody whose messages are kept here; all else as it is."""

    def __init__(self, batch_seconds: float = 60.0, quiet_hours: tuple[int, int] | None = None) -> None:
        super().__init__("json://x", batch_seconds, quiet_hours, None)
        self.sent: list[tuple[float, str]] = []

    def _send(self, title: str, text: str) -> str:
        self.sent.append((time.monotonic(), text))
        return ""


async def test_what_happens_together_is_one_message(store, monkeypatch):
    """The first message comes promptly with its neighbours, the next not before the batch's time."""
    monkeypatch.setattr(people_module, "PROMPT_SECONDS", 0.2)
    people = Recorder(batch_seconds=0.4)
    notifications = Notifications(store, [people])
    async with running(notifications):
        notifications.notify("failed", {**FAILED, "path": "1.wav"})
        notifications.notify("failed", {**FAILED, "path": "2.wav"})
        await until(lambda: len(people.sent) == 1)
        notifications.notify("failed", {**FAILED, "path": "3.wav"})
        notifications.notify("failed", {**FAILED, "path": "4.wav"})
        await until(lambda: len(people.sent) == 2)
    (first_at, first), (second_at, second) = people.sent
    assert "1.wav" in first
    assert "2.wav" in first
    assert "3.wav" in second
    assert "4.wav" in second
    assert second_at - first_at > 0.35


async def tell_and_end(state_dir: Path, people: Recorder, path: str) -> None:
    """A daemon's life: it starts, a file fails, and it ends."""
    with contextlib.closing(Store(state_dir)) as store:
        notifications = Notifications(store, [people])
        async with running(notifications):
            notifications.notify("failed", {**FAILED, "path": path})
            await until(lambda: notifications.deliveries)
        await notifications.close(10.0)


async def test_the_batch_outlives_restarts(tmp_path, monkeypatch):
    """A new daemon knows when the last message was, and so does its end: people get one in this time."""
    monkeypatch.setattr(people_module, "PROMPT_SECONDS", 0.0)
    first, second, third = (Recorder(batch_seconds=seconds) for seconds in (3600.0, 3600.0, 0.0))
    await tell_and_end(tmp_path / "state", first, "1.wav")
    assert len(first.sent) == 1
    await tell_and_end(tmp_path / "state", second, "2.wav")
    assert second.sent == []
    await tell_and_end(tmp_path / "state", third, "3.wav")  # now its time has come
    text = "".join(text for _, text in third.sent)
    assert "1.wav" not in text
    assert "2.wav" in text
    assert "3.wav" in text


def test_a_clock_set_back_does_not_stretch_the_batch():
    """The last message may lie in the future by the new clock."""
    now = time.time()
    people = Recorder(batch_seconds=60.0)
    assert people.not_before(now, now + 86400 * 365, now, is_last_chance=False) == now + 60


async def test_a_notification_that_cannot_be_sent_ends_nothing(store, receiver):
    """A mistake in one recipient is a failed delivery; the other gets its notification."""

    class Broken(Recorder):
        async def deliver(self, notifications):
            raise KeyError(len(notifications))

    broken = Broken()
    broken._batch_seconds = 0.0
    notifications = Notifications(store, [broken, Webhook(receiver.url, SECRET)])
    notifications.notify("failed", FAILED)
    with capture_logs() as lines:
        await notifications.close(20.0)
    assert [(line["event"], line["reason"]) for line in lines] == [("notification.undelivered", "KeyError")]
    assert receiver.events == ["failed"]
    assert await waiting(store) == 1


class Slow(Recorder):
    """Somebody whose message is on its way until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def _send(self, title: str, text: str) -> str:
        self.begun.set()
        self.go_on.wait(20)
        return super()._send(title, text)


async def test_the_end_does_not_say_it_twice(store, monkeypatch):
    """A message is on its way when the loops are ended: the last words wait for it."""
    monkeypatch.setattr(people_module, "PROMPT_SECONDS", 0.0)
    people = Slow()
    notifications = Notifications(store, [people])
    async with running(notifications):
        notifications.notify("failed", FAILED)
        await until(people.begun.is_set)
    closing = asyncio.create_task(notifications.close(20.0))
    await asyncio.sleep(0)
    people.go_on.set()
    await closing
    assert len(people.sent) == 1
    assert await waiting(store) == 0


@pytest.mark.parametrize("reloads", [1, 2])
async def test_a_reload_does_not_say_it_twice(store, monkeypatch, reloads):
    """A message is on its way when a new config takes over: the same recipient waits for it."""
    monkeypatch.setattr(people_module, "PROMPT_SECONDS", 0.0)
    people, again = Slow(), Recorder()
    notifications = Notifications(store, [people])
    async with running(notifications):
        notifications.notify("failed", FAILED)
        await until(people.begun.is_set)
    for _ in range(reloads):
        notifications = Notifications(store, [again], notifications)
    async with running(notifications):
        await asyncio.sleep(0.2)
        people.go_on.set()
        await emptied(store)
    assert (len(people.sent), again.sent) == (1, [])


async def test_a_notification_that_a_reload_deletes_ends_nothing(store, monkeypatch):
    """The new config leaves the recipient out, just when its notification is to be read."""
    people = Recorder()
    monkeypatch.setattr(outbox, "read_due", lambda db, *_: outbox.begin(db, {}, time.time()) and [])
    loop = DeliveryLoop(store, people, {})
    await store.do(lambda db: outbox.put(db, Notification(0, "id", time.time() - 60, "{}"), [people.name]))
    assert await loop._round() == 0
    assert people.sent == []


async def test_the_last_words_are_said_after_a_look_that_found_nothing_due(store, monkeypatch):
    """The loop looked just before the end, and would have waited for company."""
    people = Recorder()
    notifications = Notifications(store, [people])
    asked, may_ask = asyncio.Event(), asyncio.Event()
    ask = store.do

    async def slow(work):
        asked.set()
        await may_ask.wait()
        return await ask(work)

    async with running(notifications):
        notifications.notify("failed", FAILED)
        await until(lambda: notifications.deliveries)
        await notifications.deliveries[people.name]
        monkeypatch.setattr(store, "do", slow)
        notifications._loops[0].news.set()
        await asked.wait()
    closing = asyncio.create_task(notifications.close(20.0))
    await asyncio.sleep(0)
    may_ask.set()
    await closing
    assert len(people.sent) == 1


def test_the_quiet_hours_wait_for_the_morning():
    """Also at the daemon's end: what was not said stays in the outbox."""
    now = time.mktime((2026, 11, 21, 23, 0, 0, 0, 0, -1))
    morning = time.mktime((2026, 11, 22, 7, 0, 0, 0, 0, -1))
    people = Recorder(quiet_hours=(22 * 60, 7 * 60))
    assert people.not_before(now - 5, 0.0, now, is_last_chance=False) == morning
    assert people.not_before(now - 5, 0.0, now, is_last_chance=True) == morning


@needs_apprise
async def test_apprise_brings_it(store, receiver, monkeypatch):
    """A real apprise url: one message with title and text."""
    monkeypatch.setattr(people_module, "PROMPT_SECONDS", 0.01)
    people = AppriseNotifier(f"json://127.0.0.1:{receiver.port}/people?+token=URLSECRET", 60.0, None, None)
    notifications = Notifications(store, [people])
    async with running(notifications):
        notifications.notify("failed", FAILED)
        await until(lambda: receiver.told)
        await emptied(store)
    (told,) = receiver.told
    assert told.path.startswith("/people")
    assert told.json["title"].endswith("1 file failed")
    assert "bad_format: no audio" in told.json["message"]


@needs_apprise
async def test_apprise_that_fails_is_tried_again(store, receiver, monkeypatch):
    """Once the batch's time is over, with one line of log and no url in it."""
    monkeypatch.setattr(people_module, "PROMPT_SECONDS", 0.01)
    receiver.statuses.append(500)
    people = AppriseNotifier(f"json://127.0.0.1:{receiver.port}/?+token=URLSECRET", 0.1, None, None)
    notifications = Notifications(store, [people])
    with capture_logs() as lines:
        async with running(notifications):
            notifications.notify("failed", FAILED)
            await until(lambda: len(receiver.told) == 2)
            await emptied(store)
    assert [line["event"] for line in lines] == ["notification.undelivered"]
    assert "URLSECRET" not in repr(lines)


@pytest.mark.slow
def test_the_daemon_tells_of_failures_and_holds(tmp_path, receiver):
    """From the whole command: a refused file, a hold and its end, once each; a done file is no news."""
    hook = {"notify": {"webhook": {"url": receiver.url, "secret": SECRET}}}
    hold = {"hold": {"first": "100ms", "max": "100ms"}}
    with Emulator() as emulator:
        house = Installation(tmp_path, emulator.url, extra=hook | hold)
        emulator.fail(Fault(status=415, body={"message": "no audio"}), Fault(status=401), Fault(status=401))
        house.drop("a.wav")
        with house.start_ready() as process:
            process.until_logged("file.failed")
            house.drop("b.wav", b"other audio")
            process.until_logged("file.done")
            wait_until(lambda: len(receiver.told) == 3, "three events")
            assert process.stop() == 0
        log = process.log_path.read_text()
    assert receiver.events == ["failed", "held", "released"]
    failed, held, _ = (told.json for told in receiver.told)
    assert (failed["path"], failed["code"]) == ("a.wav", "http_415")
    assert held["provider"] == "pulse"
    assert SECRET not in log
    assert "URLSECRET" not in log


async def test_a_budget_that_runs_low_is_told(store, receiver):
    """Whose it is, and how much of it is spent."""
    notifications = Notifications(store, [Webhook(receiver.url, SECRET)])
    limit = Limit(5.0, is_money=True)
    today = (date(2026, 11, 21), time.time() + 3600, "2026-11-22 00:00")
    account = Account(Scope(ScopeKind.PROVIDER, "pulse"), Period.DAY, limit, *today, 4.1, 0, None)
    async with running(notifications):
        Reporter(notifications=notifications).budget_low(account)
        await until(lambda: receiver.told)
    (told,) = receiver.told
    assert (told.json["event"], told.json["provider"]) == ("budget", "pulse")
    title, text = compose([told.json], "nas")
    assert title == "dropscribe on nas: the budget of provider pulse"
    assert text.endswith("the budget of provider pulse: 82% of 5.00 a day is spent")


async def test_quiet_hours_are_in_the_configs_time_zone(tmp_path, store, monkeypatch):
    """Half past nine in the evening in UTC is night in Berlin."""
    pytest.importorskip("apprise")
    monkeypatch.setattr(people_module, "PROMPT_SECONDS", 0.0)
    text = BASE + "  urls: ['json://localhost/']\n  quiet_hours: 22:00-07:00\ntime_zone: Europe/Berlin\n"
    config, _ = parse_config(text, folder=tmp_path, environ={})
    (loop,) = build_notifications(config, store)._loops
    now = datetime(2026, 11, 21, 21, 30, tzinfo=UTC).timestamp()
    assert loop.recipient.not_before(now, 0.0, now, is_last_chance=False) == now + 8.5 * 3600


@pytest.mark.slow
def test_a_reload_says_who_is_told(tmp_path, receiver):
    """The section comes with a SIGHUP; what fails from then on is told."""
    with Emulator() as emulator:
        house = Installation(tmp_path, emulator.url)
        with house.start_ready() as process:
            house.extra = {"notify": {"webhook": {"url": receiver.url, "secret": SECRET}}}
            house.write_config()
            process.send(signal.SIGHUP)
            assert process.until_logged("config.reloaded")[0]["changes"] == ["notify added"]
            emulator.fail(Fault(status=415, body={"message": "no audio"}))
            house.drop("a.wav")
            wait_until(lambda: receiver.told, "the event")
    assert receiver.events == ["failed"]


@pytest.mark.slow
def test_a_killed_daemon_tells_after_its_restart(tmp_path, receiver):
    """Nobody takes the event, then kill -9: the next start brings it, and the file was filed all along."""
    hook = {"notify": {"webhook": {"url": receiver.url, "secret": SECRET}}}
    with Emulator() as emulator:
        house = Installation(tmp_path, emulator.url, extra=hook)
        receiver.statuses.append(503)
        emulator.fail(Fault(status=415, body={"message": "no audio"}))
        house.drop("a.wav")
        with house.start_ready() as process:
            process.until_logged("notification.undelivered")
            assert (house.failed / "a.wav").exists()
            process.kill()
        with house.start_ready():
            wait_until(lambda: len(receiver.told) >= 2, "the event again")
    assert len({told.headers["x-dropscribe-event-id"] for told in receiver.told}) == 1


BASE = "providers: {p: {type: pulse, api_key: k}}\nfolders: {f: {inbox: in, provider: p}}\nnotify:\n"


@pytest.mark.parametrize(
    ("keys", "place", "message"),
    [
        ("  urls: [plainCANARY]", "4:10", "is not a url"),
        ("  urls: ['nonsense://CANARY']", "4:", "apprise cannot use"),
        ("  batch: often", "4:10", "is not a duration"),
        ("  quiet_hours: 22-7", "4:16", "is not a range of times"),
        ("  quiet_hours: 07:00-07:00", "4:16", "is an empty range"),
        ("  quiet_hours: 25:00-07:00", "4:16", "is not a range of times"),
        ("  webhook: {url: 'https://h/CANARY'}", "4:3", "there is no secret"),
        ("  webhook: {secret: CANARY}", "4:3", "'url' is missing"),
        ("  webhook: {url: 'ftp://h/CANARY', secret: 0123456789abcdef}", "4:", "not an http or https url"),
        ("  webhook: {url: 'https://h/', secret: CANARY, secret_file: x}", "4:", "secret is given too"),
        ("  webhook: {url: 'https://h/', secrt: CANARY}", "4:", "unknown key 'secrt'"),
        ("  webhook: {url: 'http://h.example/CANARY', secret: 0123456789abcdef}", "4:", "unencrypted"),
        ("  quiet_hours: 22:00-07:00", "3:1", "neither urls nor webhook is given"),
    ],
)
def test_bad_keys_are_refused_at_their_place(tmp_path, keys, place, message):
    """Each with its line and column (the last two are warnings); urls and secrets are never shown."""
    if "nonsense" in keys and importlib.util.find_spec("apprise") is None:
        pytest.skip("the extra `notify` (apprise) is not installed")
    problems = problems_of(BASE + keys + "\n", tmp_path)
    problem = next(problem for problem in problems if message in problem.message)
    assert f"{problem.line}:{problem.column}".startswith(place)
    assert "CANARY" not in "\n".join(map(str, problems))


def test_urls_without_the_library_are_refused(tmp_path, monkeypatch):
    """The message says which extra is missing."""
    monkeypatch.setitem(LIBRARIES, "notify", ("no_such_library",))
    (problem,) = problems_of(BASE + "  urls: ['json://localhost/CANARY']\n", tmp_path)
    assert problem.hint == install_hint("notify")
    assert "CANARY" not in str(problem)


def test_without_urls_apprise_is_not_loaded(tmp_path):
    """Neither by the config nor by what a daemon with a webhook imports."""
    config = BASE + "  webhook: {url: 'https://h.example/', secret: 0123456789abcdef}\n"
    script = (
        "import sys, pathlib, dropscribe.app.daemon\n"
        "from dropscribe.config.load import parse_config\n"
        f"config, _ = parse_config({config!r}, folder=pathlib.Path('/srv'), environ={{}})\n"
        "assert config.notify.webhook\n"
        "assert 'apprise' not in sys.modules and 'requests' not in sys.modules"
    )
    source = str(Path(module.__file__).parents[2])
    call = [sys.executable, "-c", script]
    ran = subprocess.run(call, env={"PYTHONPATH": source}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def problems_of(text, folder):
    """What is said about *text* as a config."""
    try:
        return parse_config(text, folder=folder, environ={})[1]
    except ConfigError as error:
        return error.problems
