"""The sections about output: log, HTTP, metrics, hooks, notifications."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dropscribe.config.credentials import with_origin
from dropscribe.config.extras import install_hint, is_installed
from dropscribe.config.keys import MISSING, REQUIRED, Section, SectionRead, key, keys_of
from dropscribe.config.notation import field_types as t
from dropscribe.config.notation.quantities import parse_listen
from dropscribe.config.notation.secret import Secret
from dropscribe.core.hosts import is_loopback

LEAST_TOKEN_CHARACTERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig(Section):
    """Level and format of the log."""

    level: Literal["debug", "info", "warning", "error"] = key(
        "The least severe level to log.", default="info"
    )
    format: Literal["auto", "console", "json", "logfmt"] = key(
        "`auto`: readable on a terminal, else for the journal.", default="auto"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig(Section):
    """The listener for pages, metrics, health and status."""

    listen: str = key(
        "HOST:PORT, or `unix:/PATH` for a socket. Beyond loopback a token is required.",
        t.LISTEN,
        default="127.0.0.1:8790",
    )
    # The parts of `listen`:
    host: str = field(compare=False)  # without brackets; empty for a unix socket
    port: int = field(compare=False)  # 0 lets the kernel choose; 0 for a unix socket
    socket: Path | None = field(default=None, compare=False)
    token: Secret | None = key(
        "At least 16 characters; programs send it as `Authorization: Bearer`, people log in with it.",
        also={"_file": "A file that holds the token."},
        example="${DROPSCRIBE_TOKEN}",
    )
    pages: bool = key("The web pages, beside metrics, health and status.", default=True)
    uploads: bool = key("Recordings may be dropped onto a folder's page.", default=False)
    allowed_hosts: tuple[str, ...] = key(
        "Host names under which the pages are reached: `dropscribe.lan`, `*.lan` for all below it.",
        t.OWN_HOSTS,
        default=(),
        example="[dropscribe.lan]",
    )
    root_path: str = key(
        "The path under which a reverse proxy serves the pages: `/dropscribe`.",
        t.URL_PATH,
        default="",
        example="/dropscribe",
    )

    @classmethod
    def build(cls, read: SectionRead) -> HttpConfig:
        """The section; reports an address beyond loopback without a token."""
        host, port, socket = parse_listen(read.values.setdefault("listen", keys_of(cls)["listen"].default))
        if not (_has_secret(read, "token") or socket or is_loopback(host)):
            message = f"a token is required to listen on {host}"
            read.report("listen", message, "add token_file: PATH, or listen on 127.0.0.1")
        place = read.document.absolute(socket) if socket else None
        return cls(host=host, port=port, socket=place, **read.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig(Section):
    """Metrics file for node_exporter's textfile collector."""

    file: Path = key(
        "Written at intervals for node_exporter's textfile collector.",
        default=REQUIRED,
        example="metrics/dropscribe.prom",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatConfig(Section):
    """A url that is requested at intervals, so that a monitor elsewhere notices silence.

    The url is kept out of repr, because it is a key in itself.
    """

    url: str = key(
        "Requested while all is well; with `/fail` appended while an inbox is away or the queue is stuck.",
        t.URL,
        default=REQUIRED,
        example='"https://hc-ping.com/…"',
        is_shown=False,
    )
    every_seconds: float = key("The time between two requests.", default=300.0)

    @classmethod
    def build(cls, read: SectionRead) -> HeartbeatConfig:
        """The section; warns of plain http."""
        warn_of_plain_http(read, "the url, which is a key in itself, travels unencrypted")
        return cls(**read.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksConfig(Section):
    """Commands (argv, never a shell) for events; an empty one is off."""

    on_done: tuple[str, ...] = key(
        "After a file arrived in done.", t.COMMAND, default=(), example="[/usr/local/bin/on-done]"
    )
    on_failed: tuple[str, ...] = key(
        "After a file arrived in failed.", t.COMMAND, default=(), example="[/usr/local/bin/on-failed]"
    )
    on_held: tuple[str, ...] = key(
        "When a provider or a rule is held.", t.COMMAND, default=(), example="[/usr/local/bin/on-held]"
    )
    on_budget: tuple[str, ...] = key(
        "When 80 % of a budget is spent, once in its period.",
        t.COMMAND,
        default=(),
        example="[/usr/local/bin/on-budget]",
    )
    timeout_seconds: float = key("A command that takes longer is ended.", default=30.0)
    retry: bool = key("A command that failed is run again, also after a restart.", default=False)

    @property
    def commands(self) -> dict[str, tuple[str, ...]]:
        """The commands that are given, by event."""
        events = ("done", "failed", "held", "budget")
        return {event: argv for event in events if (argv := getattr(self, f"on_{event}"))}

    @classmethod
    def build(cls, read: SectionRead) -> HooksConfig:
        """The section, with relative paths of programs made absolute from the config's folder."""
        for name, argv in read.values.items():
            if isinstance(argv, tuple) and argv and "/" in argv[0]:
                read.values[name] = (str(read.document.absolute(argv[0])), *argv[1:])
        return cls(**read.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig(Section):
    """A webhook that receives each event; its url, often a key in itself, is kept out of repr."""

    url: str = key(
        "Gets one signed POST for each event, repeated until it answers with 2xx.",
        t.URL,
        default=REQUIRED,
        example='"https://example.com/hook"',
        is_shown=False,
    )
    secret: Secret = key(
        "The key of the signature, best as `${NAME}`; at least 16 characters.",
        also={"_file": "A file that holds the secret."},
        example="${DROPSCRIBE_WEBHOOK_SECRET}",
    )

    @classmethod
    def build(cls, read: SectionRead) -> Any:
        """The section; reports a missing secret."""
        warn_of_plain_http(read, "the notifications travel unencrypted")
        if not _has_secret(read, "secret"):
            read.report("", "there is no secret", "add secret: ${NAME}, or secret_file: PATH", on_key=True)
        return cls(**read.values) if "secret" in read.values else MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyConfig(Section):
    """Notifications of failures, holds and budgets, to people and programs."""

    urls: tuple[Secret, ...] = key(
        "People, by the apprise library (the extra `notify`): `mailto://…`, `ntfy://…`, …",
        t.SECRET_URLS,
        default=(),
        example="[]",
    )
    batch_seconds: float = key("People get at most one message in this time, with all events.", default=300.0)
    quiet_hours: tuple[int, int] | None = key(  # (begin, end) in minutes of the day
        "No messages to people in this time, such as `22:00-07:00` (`time_zone`); they are sent afterwards.",
        t.HOURS,
        example='"22:00-07:00"',
    )
    webhook: WebhookConfig | None = key("A webhook that receives each event.")

    @classmethod
    def build(cls, read: SectionRead) -> NotifyConfig:
        """The section; the apprise library is loaded only if there are urls for it."""
        if not (read.values.get("urls") or "webhook" in read.values or read.has_problem_in()):
            message = "neither urls nor webhook is given"
            read.report("", message, "add urls: […] or webhook: {…}", on_key=True, warning=True)
        urls: tuple[Secret, ...] = read.values.get("urls", ())
        if urls and not is_installed("notify"):
            read.report("urls", "the apprise library is not installed", install_hint("notify"), on_key=True)
        elif urls:
            import apprise  # noqa: PLC0415 - the extra `notify`, loaded only where urls are given

            read.values["urls"] = ()
            for index, url in enumerate(urls):
                path = read.document.item_path((*read.path, "urls"), index)
                is_known_bad = read.document.has_problem_below(path)  # such as a variable that is not set
                if not is_known_bad and apprise.Apprise.instantiate(url.reveal()) is None:
                    hint = "each service has a form of its own: see apprise's documentation"
                    read.document.report(path, "apprise cannot use this url", hint)
                read.values["urls"] += (with_origin(url, path, read.document),)
        return cls(**read.values)


def warn_of_plain_http(read: SectionRead, said: str) -> None:
    """Report that the section's `url` is http to another machine."""
    url: str = read.values.get("url") or ""
    if url.startswith("http:") and not is_loopback(urlsplit(url).hostname or ""):
        read.report("url", said, "use https", warning=True)


def _has_secret(read: SectionRead, name: str) -> bool:
    """Whether the secret *name* is given, right or wrong; one so short that it can be guessed is reported."""
    secret: Secret | None = read.values.get(name)
    if secret is not None and len(secret.reveal()) < LEAST_TOKEN_CHARACTERS:
        message = f"the {name} is shorter than {LEAST_TOKEN_CHARACTERS} characters"
        hint = "make a random one: openssl rand -hex 16"
        read.report(name if read.data.get(name) is not None else f"{name}_file", message, hint)
    return secret is not None or read.has_problem_in(name) or read.has_problem_in(f"{name}_file")
