"""The sections about output: log, HTTP, metrics, hooks, notifications."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from dropscribe.config.credentials import with_origin
from dropscribe.config.install_hints import install_hint
from dropscribe.config.keys import key
from dropscribe.config.notation import field_types as t
from dropscribe.config.notation.quantities import parse_listen
from dropscribe.config.reading import MISSING
from dropscribe.core.text.addresses import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

    from dropscribe.config.notation.secret import Secret
    from dropscribe.config.reading import Reader
    from dropscribe.config.yaml.document import Document
    from dropscribe.config.yaml.document import Path as KeyPath

LEAST_TOKEN_CHARACTERS = 16
_RANDOM = "make a random one: openssl rand -hex 16"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Level and format of the log."""

    level: Literal["debug", "info", "warning", "error"] = key(
        t.one_of("debug", "info", "warning", "error"), "The least severe level to log.", default="info"
    )
    format: Literal["auto", "console", "json", "logfmt"] = key(
        t.one_of("auto", "console", "json", "logfmt"),
        "`auto`: readable on a terminal, else for the journal.",
        default="auto",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """The listener for pages, metrics, health and status.

    Attributes:
        listen: As written: "127.0.0.1:8790", or "unix:/run/dropscribe.sock".
        host: Its host without brackets; empty for a unix socket.
        port: 0 lets the kernel choose; 0 for a unix socket.
        socket: The unix socket's path, or None.
        token: Always set when *host* is not loopback.
    """

    listen: str = key(
        t.LISTEN,
        "HOST:PORT, or `unix:/PATH` for a socket. Beyond loopback a token is required.",
        default="127.0.0.1:8790",
    )
    host: str
    port: int
    socket: Path | None = None
    token: Secret | None = key(
        t.SECRET,
        "At least 16 characters; programs send it as `Authorization: Bearer`, people log in with it.",
        default=None,
        also={"_file": "A file that holds the token."},
        example="${DROPSCRIBE_TOKEN}",
    )
    pages: bool = key(t.BOOLEAN, "The web pages, beside metrics, health and status.", default=True)
    uploads: bool = key(t.BOOLEAN, "Recordings may be dropped onto a folder's page.", default=False)
    allowed_hosts: tuple[str, ...] = key(
        t.TEXTS,
        "Host names under which the pages are reached, such as `dropscribe.lan`.",
        default=(),
        example="[dropscribe.lan]",
    )
    root_path: str = key(
        t.URL_PATH,
        "The path under which a reverse proxy serves the pages: `/dropscribe`.",
        default="",
        example="/dropscribe",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """Metrics file for node_exporter's textfile collector."""

    file: Path = key(
        t.PATH,
        "Written at intervals for node_exporter's textfile collector.",
        example="metrics/dropscribe.prom",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatConfig:
    """A url that is requested at intervals, so that a monitor elsewhere notices silence.

    Attributes:
        url: Kept out of repr: such urls are keys in themselves.
    """

    url: str = key(
        t.URL,
        "Requested while all is well; with `/fail` appended while there is a problem.",
        example='"https://hc-ping.com/…"',
        is_shown=False,
    )
    every_seconds: float = key(t.DURATION, "The time between two requests.", default=300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksConfig:
    """Commands (argv, never a shell) for events; an empty one is off."""

    on_done: tuple[str, ...] = key(
        t.COMMAND, "After a file arrived in done.", default=(), example="[/usr/local/bin/on-done]"
    )
    on_failed: tuple[str, ...] = key(
        t.COMMAND, "After a file arrived in failed.", default=(), example="[/usr/local/bin/on-failed]"
    )
    on_held: tuple[str, ...] = key(
        t.COMMAND, "When a provider or a rule is held.", default=(), example="[/usr/local/bin/on-held]"
    )
    on_budget: tuple[str, ...] = key(
        t.COMMAND,
        "When 80 % of a budget is spent, once in its period.",
        default=(),
        example="[/usr/local/bin/on-budget]",
    )
    timeout_seconds: float = key(t.DURATION, "A command that takes longer is ended.", default=30.0)
    retry: bool = key(t.BOOLEAN, "A command that failed is run again, also after a restart.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """A webhook that receives each event.

    Attributes:
        url: Kept out of repr: such urls are often keys in themselves.
    """

    url: str = key(
        t.URL,
        "Gets one signed POST for each event, repeated until it answers with 2xx.",
        example='"https://example.com/hook"',
        is_shown=False,
    )
    secret: Secret = key(  # type: ignore[assignment] # its absence is reported where the section is made
        t.SECRET,
        "The key of the signature, best as `${NAME}`; at least 16 characters.",
        default=None,
        also={"_file": "A file that holds the secret."},
        example="${DROPSCRIBE_WEBHOOK_SECRET}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyConfig:
    """Notifications of failures, holds and budgets, to people and programs.

    Attributes:
        quiet_hours: (begin, end) in minutes of the day.
    """

    urls: tuple[Secret, ...] = key(
        t.SECRET_URLS,
        "People, by the apprise library (the extra `notify`): `mailto://…`, `ntfy://…`, …",
        default=(),
        example="[]",
    )
    batch_seconds: float = key(
        t.DURATION, "People get at most one message in this time, with all events.", default=300.0
    )
    quiet_hours: tuple[int, int] | None = key(
        t.HOURS,
        "No messages to people in this time, such as `22:00-07:00` (`time_zone`); they are sent afterwards.",
        default=None,
        example='"22:00-07:00"',
    )
    webhook: WebhookConfig | None = key(
        t.section(WebhookConfig), "A webhook that receives each event.", default=None
    )


def make_http(reader: Reader, path: KeyPath, data: Any) -> Any:
    """The section `http`; beyond loopback it must have a token."""
    values = reader.section(path, data, HttpConfig)
    if values is None:
        return MISSING
    document = reader.document
    host, port, socket = parse_listen(values.setdefault("listen", "127.0.0.1:8790"))
    token: Secret | None = values.get("token")
    _check_length(token, "token", path, document)
    if not (token or socket or is_loopback(host) or _is_refused("token", path, document)):
        message = f"a token is required to listen on {host}"
        document.report((*path, "listen"), message, "add token_file: PATH, or listen on 127.0.0.1")
    return HttpConfig(
        host=host, port=port, socket=reader.around.absolute(socket) if socket else None, **values
    )


def make_hooks(reader: Reader, path: KeyPath, data: Any) -> Any:
    """The section `hooks`; a program that is a path begins at the config's folder."""
    values = reader.section(path, data, HooksConfig)
    if values is None:
        return MISSING
    for name, argv in values.items():
        if isinstance(argv, tuple) and argv and "/" in argv[0]:
            values[name] = (str(reader.around.absolute(argv[0])), *argv[1:])
    return HooksConfig(**values)


def make_heartbeat(reader: Reader, path: KeyPath, data: Any) -> Any:
    """The section `heartbeat`."""
    values = reader.section(path, data, HeartbeatConfig)
    if values is None:
        return MISSING
    said = "the url, which is a key in itself, travels unencrypted"
    warn_of_plain_http(reader.document, (*path, "url"), values["url"], said)
    return HeartbeatConfig(**values)


def make_notify(reader: Reader, path: KeyPath, data: Any) -> Any:
    """The section `notify`; apprise is loaded only where there are urls for it."""
    values = reader.section(path, data, NotifyConfig)
    if values is None:
        return MISSING
    document = reader.document
    urls = values.get("urls", ())
    if not urls and "webhook" not in values and not document.has_problem_below(path):
        message = "neither urls nor webhook is given"
        document.report(path, message, "add urls: […] or webhook: {…}", on_key=True, warning=True)
    values["urls"] = _checked_urls(reader, (*path, "urls"), urls, data.get("urls"))
    return NotifyConfig(**values)


def make_webhook(reader: Reader, path: KeyPath, data: Any) -> Any:
    """The section `notify.webhook`; it must have a secret."""
    values = reader.section(path, data, WebhookConfig)
    if values is None:
        return MISSING
    document = reader.document
    warn_of_plain_http(document, (*path, "url"), values["url"], "the notifications travel unencrypted")
    _check_length(values.get("secret"), "secret", path, document)
    if "secret" not in values:
        if not _is_refused("secret", path, document):
            hint = "add secret: ${NAME}, or secret_file: PATH"
            document.report(path, "there is no secret", hint, on_key=True)
        return MISSING
    return WebhookConfig(**values)


def warn_of_plain_http(document: Document, path: KeyPath, url: str | None, said: str) -> None:
    """Warn if *url* is http to another machine."""
    if url and url.startswith("http:") and not is_loopback(urlsplit(url).hostname or ""):
        document.report(path, said, "use https", warning=True)


def has_apprise() -> bool:
    """Whether the extra ``notify`` is installed; nothing of it is loaded."""
    return importlib.util.find_spec("apprise") is not None


def _check_length(secret: Secret | None, name: str, path: KeyPath, document: Document) -> None:
    """Report a secret that is so short that it can be guessed."""
    if secret is not None and len(secret.reveal()) < LEAST_TOKEN_CHARACTERS:
        message = f"the {name} is shorter than {LEAST_TOKEN_CHARACTERS} characters"
        known = (*path, name)
        document.report(known if document.line_of(known) else (*path, f"{name}_file"), message, _RANDOM)


def _is_refused(name: str, path: KeyPath, document: Document) -> bool:
    """Whether the secret *name* is given in the section at *path*, and something is wrong with it."""
    return document.has_problem((*path, name)) or document.has_problem((*path, f"{name}_file"))


def _checked_urls(
    reader: Reader, path: KeyPath, urls: tuple[Secret, ...], written: Any
) -> tuple[Secret, ...]:
    document = reader.document
    if urls and not has_apprise():
        document.report(path, "the apprise library is not installed", install_hint("notify"), on_key=True)
        return ()
    is_list = isinstance(written, list)
    places: list[KeyPath] = [(*path, index) if is_list else path for index in range(len(urls))]
    for url, place in zip(urls, places, strict=True):
        if not _is_known(url):
            hint = "each service has a form of its own: see apprise's documentation"
            document.report(place, "apprise cannot use this url", hint)
    return tuple(
        with_origin(url, place, document, reader.around) for url, place in zip(urls, places, strict=True)
    )


def _is_known(url: Secret) -> bool:
    import apprise  # noqa: PLC0415 - the extra `notify`, loaded only where urls are given

    return apprise.Apprise.instantiate(url.reveal()) is not None
