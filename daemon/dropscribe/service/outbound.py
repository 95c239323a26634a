"""Requests to the admin's urls: the heartbeat to a monitor; webhook and apprise, which receive notifications.

Guarantees: connections and proxies are those of the providers' requests; no redirect is followed; an answer's
body is not read; urls, which work like passwords, and secrets are neither logged nor kept in the outbox; no
failed request ends the daemon; a monitor that is away costs one log line, not one a ping;
a receiver that drops events whose id it has seen gets each once. The apprise library (the extra ``notify``)
is imported when the first message is sent and not before; a message comes at most once a ``batch``, the first
one PROMPT_SECONDS after its event, none in the quiet hours.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import structlog

from dropscribe.core.errors import ProviderError
from dropscribe.core.text.printing import escape_text, plural
from dropscribe.providers.redaction import Redactor
from dropscribe.providers.transport.http import HttpTransport
from dropscribe.providers.transport.requests import Upload
from dropscribe.queue.sql.outbox import Notification
from dropscribe.service.notifications import GIVE_UP_SECONDS, Recipient

PING_SECONDS = 10.0
_LOOK_SECONDS = 0.02
WEBHOOK_SECONDS = 15.0
PROMPT_SECONDS = 10.0
"""Events within this time of the first go into one message: one full disk fails many files."""

MOST_AT_ONCE = 1000
MOST_FAILURES = 10  # a message lists up to this many failures one by one, and more of them as counts by kind
MOST_LINES = 60
_WORDS = {"held": "{} is held", "released": "{} goes on", "budget": "the budget of {}"}
_CHATTY = ("apprise", "urllib3", "requests")
"""Loggers that would write messages and urls; apprise itself answers only yes or no."""

log = structlog.get_logger()


class Heartbeat:
    """Pings *url*, and its ``/fail`` while the daemon is degraded (as healthchecks.io understands it).

    While *is_degraded* answers None, which means that it is not known yet, a ping waits.
    """

    def __init__(self, url: str, every_seconds: float, is_degraded: Callable[[], bool | None]) -> None:
        self._url = url
        self._every_seconds = every_seconds
        self._is_degraded = is_degraded
        self._is_missing = False

    async def run(self) -> None:
        """Ping until cancelled; silence tells the monitor that the daemon is down."""
        while True:
            await self.ping()
            await asyncio.sleep(self._every_seconds)

    async def ping(self) -> bool:
        """Send one ping; returns whether the monitor accepted it."""
        url = urlsplit(self._url)
        while (is_degraded := self._is_degraded()) is None:  # noqa: ASYNC110  # threads change it
            await asyncio.sleep(_LOOK_SECONDS)
        if is_degraded:
            url = url._replace(path=url.path.rstrip("/") + "/fail")
        reason = await _request("GET", Upload(urlunsplit(url)), PING_SECONDS)
        if reason and not self._is_missing:
            log.warning("heartbeat.missed", server_address=url.hostname, reason=reason)
        elif self._is_missing and not reason:
            log.info("heartbeat.restored", server_address=url.hostname)
        self._is_missing = bool(reason)
        return not reason


class Webhook(Recipient):
    """A recipient behind one url; it gets each event at once and by itself, in a signed POST."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret
        self.name = f"webhook:{_digest(url)}"

    async def deliver(self, notifications: Sequence[Notification]) -> str:
        """POST the one notification, with a signature that proves sender and time; any 2xx is an arrival."""
        (notification,) = notifications
        body = notification.content.encode("ascii")
        timestamp = str(int(time.time()))
        signature = hmac.new(self._secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
        headers = {
            "Content-Type": "application/json",
            "X-Dropscribe-Event-Id": notification.event_id,
            "X-Dropscribe-Timestamp": timestamp,
            "X-Dropscribe-Signature": f"sha256={signature.hexdigest()}",
        }
        return await _request("POST", Upload(self._url, headers, before=body), WEBHOOK_SECONDS)


async def _request(method: str, upload: Upload, seconds: float) -> str:
    """Send one request; returns "" after any 2xx, else the code of its failure."""
    transport = HttpTransport(redactor=Redactor(()))
    try:
        async with asyncio.timeout(seconds):
            answer = await transport.send(method, upload, timeout_seconds=None, reads_body=False)
    except ProviderError as error:
        return error.code
    except TimeoutError:
        return "timeout"
    finally:
        await transport.close()
    return "" if answer.status // 100 == 2 else f"http_{answer.status}"


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:12]


class AppriseNotifier(Recipient):
    """A recipient behind one apprise url, which is a secret; *batch_seconds* lie between two messages."""

    most_at_once = MOST_AT_ONCE

    def __init__(
        self, url: str, batch_seconds: float, quiet_hours: tuple[int, int] | None, zone: tzinfo | None
    ) -> None:
        self._url = url
        self._batch_seconds = batch_seconds
        self.keep_seconds = GIVE_UP_SECONDS + batch_seconds
        self._quiet_hours = quiet_hours
        self._zone = zone
        self.name = f"apprise:{_digest(url)}"

    def not_before(self, due_at: float, last_at: float, now: float, *, is_last_chance: bool) -> float:
        """After the batch interval and outside the quiet hours."""
        prompt_at = due_at if is_last_chance else due_at + PROMPT_SECONDS
        # The clock may have been set back since the last message.
        begin_at = max(prompt_at, min(last_at, now) + self._batch_seconds if last_at else 0.0)
        if self._quiet_hours is None:
            return begin_at
        return quiet_until(max(begin_at, now), self._quiet_hours, self._zone)

    async def deliver(self, notifications: Sequence[Notification]) -> str:
        """Send one message about all *notifications*."""
        title, text = compose([json.loads(each.content) for each in notifications], socket.gethostname())
        return await asyncio.to_thread(self._send, title, text)

    def _send(self, title: str, text: str) -> str:
        import apprise  # noqa: PLC0415 - the extra `notify`; some 25 MB loaded only for notifications

        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            service = apprise.Apprise.instantiate(self._url)
            if service is None:
                return "apprise does not know the url"
            was_sent = service.notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT)
        except Exception as error:  # noqa: BLE001 - a hundred plugins, each with errors of its own
            return type(error).__name__
        return "" if was_sent else "apprise could not deliver it"


def quiet_until(now: float, hours: tuple[int, int], zone: tzinfo | None) -> float:
    """The end of the quiet hours that *now* lies in, else *now*; Unix seconds. *zone*: None is the system's.

    *hours* are (begin, end) in minutes of the day; past midnight where the end is the smaller one.
    """
    begin, end = hours
    here = datetime.fromtimestamp(now, zone)
    minute = here.hour * 60 + here.minute
    is_quiet = begin <= minute < end if begin < end else minute >= begin or minute < end
    if not is_quiet:
        return now
    day = here if minute < end else here + timedelta(days=1)
    return day.replace(hour=end // 60, minute=end % 60, second=0, microsecond=0).timestamp()


def compose(events: Sequence[Mapping[str, Any]], host: str) -> tuple[str, str]:
    """(title, text) about *events*, oldest first."""
    failures = [event for event in events if event["event"] == "failed"]
    others = [event for event in events if event["event"] != "failed"]
    lines = [*map(_line, others)]
    lines += map(_line, failures) if len(failures) <= MOST_FAILURES else _summary(failures)
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"… and {plural(len(lines) - MOST_LINES, 'more line')}"]
    parts = [f"{plural(len(failures), 'file')} failed"] if failures else []
    parts += dict.fromkeys(map(_what, others))
    headline = "; ".join(parts[:3]) + ("; …" if len(parts) > 3 else "")
    return f"dropscribe on {host}: {headline}", "\n".join(lines)


def _what(event: Mapping[str, Any]) -> str:
    name = str(event["event"])
    if name == "failed":
        return f"{event['folder']}: {escape_text(event['path'])} failed"
    kind = "provider" if "provider" in event else "folder"
    return _WORDS.get(name, name).format(f"{kind} {event.get(kind, '?')}")


def _line(event: Mapping[str, Any]) -> str:
    said = [_what(event), *(str(event[key]) for key in ("code", "reason") if event.get(key))]
    line = ": ".join(dict.fromkeys(said))
    return f"{event['at']}  {line}"


def _summary(failures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    examples = {(event["folder"], event["code"]): event["path"] for event in reversed(failures)}
    kinds = Counter((event["folder"], event["code"]) for event in failures)
    for (folder, code), count in kinds.most_common():
        yield f"{folder}: {count} failed with {code}, such as {escape_text(examples[folder, code])}"
