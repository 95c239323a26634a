"""The keys of the sections for logs, HTTP, metrics, hooks and notifications."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dropscribe.config import field_types as t  # noqa: TC001 - pydantic reads the annotations
from dropscribe.config.section import Keys

MINUTE = 60.0


class LogKeys(Keys):
    """The section `log`."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    format: Literal["auto", "console", "json", "logfmt"] = Field(
        default="auto", description="`auto`: console on a terminal, fields in the journal, logfmt elsewhere."
    )


class HttpKeys(Keys):
    """Metrics, health and status over HTTP."""

    listen: t.Listen = Field(
        default="127.0.0.1:8790",
        description="HOST:PORT, or `unix:/PATH` for a socket; beyond loopback a token is required.",
    )
    pages: t.Boolean = Field(default=True, description="The web pages, beside metrics, health and status.")
    uploads: t.Boolean = Field(default=False, description="Recordings may be dropped onto a folder's page.")
    allowed_hosts: t.Exclude = Field(
        default=(), description="Host names under which the pages are reached, such as `dropscribe.lan`."
    )
    root_path: t.RootPath = Field(
        default="", description="The path under which a reverse proxy serves the pages: `/dropscribe`."
    )
    token: t.SecretText | None = Field(
        default=None, description="Asked of every request as `Authorization: Bearer`."
    )
    token_file: t.Text | None = Field(default=None, description="A file that holds the token.")


class MetricsKeys(Keys):
    """Metrics as a file."""

    file: t.Text = Field(description="Written now and then for node_exporter's textfile collector.")


class HeartbeatKeys(Keys):
    """A sign of life for a monitor elsewhere."""

    url: t.Url = Field(description="Asked while all is well; with `/fail` behind it when something is not.")
    every: t.Duration = Field(default=5 * MINUTE, description="How often.")


class HooksKeys(Keys):
    """Commands for what happened: argv without a shell, the JSON on standard input."""

    on_done: t.Command = Field(default=(), description="After a file arrived in done.")
    on_failed: t.Command = Field(default=(), description="After a file arrived in failed.")
    on_held: t.Command = Field(default=(), description="When a provider or a rule is held.")
    on_budget: t.Command = Field(default=(), description="When 80 % of a budget is spent, once in its time.")
    timeout: t.Duration = Field(default=30.0, description="A command that takes longer is ended.")
    retry: t.Boolean = Field(
        default=False, description="A command that failed is run again, also after a restart."
    )


class WebhookKeys(Keys):
    """A program elsewhere that is told."""

    url: t.Url = Field(description="Gets one signed POST an event, again until it answers with 2xx.")
    secret: t.SecretText | None = Field(
        default=None, description="What the signature is made with, best as `${NAME}`; this or the next."
    )
    secret_file: t.Text | None = Field(default=None, description="A file that holds the secret.")


class NotifyKeys(Keys):
    """Who is told of failed files, of holds and their ends, and of budgets."""

    urls: t.SecretUrls = Field(
        default=(),
        description="People, by the apprise library (`dropscribe[notify]`): `mailto://…`, `ntfy://…`, …",
    )
    batch: t.Duration = Field(
        default=5 * MINUTE,
        description="People get one message at most in this time, about all that happened.",
    )
    quiet_hours: t.Hours | None = Field(
        default=None,
        description="No message to people then, such as `22:00-07:00` (`time_zone`); it comes after.",
    )
    webhook: WebhookKeys | None = Field(default=None, description="A program that is told of each event.")
