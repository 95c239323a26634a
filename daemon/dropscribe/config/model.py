"""The config: one frozen definition of each section and key.

Guarantees: every path is absolute, every duration is in seconds, every size in bytes, and every name of a
provider in a rule is known. Only ``load.py`` makes a config from a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dropscribe.config.keys import Section, key
from dropscribe.config.notation import field_types as t
from dropscribe.config.sections.folder import FolderRule, SubtitleLayout
from dropscribe.config.sections.provider import ProviderConfig
from dropscribe.config.sections.queue import QueueConfig
from dropscribe.config.sections.services import (
    HeartbeatConfig,
    HooksConfig,
    HttpConfig,
    LogConfig,
    MetricsConfig,
    NotifyConfig,
)
from dropscribe.core.retry import RetryLimits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    from dropscribe.config.notation.secret import Secret
    from dropscribe.config.reading import SectionRead

__all__ = [
    "Config",
    "FolderRule",
    "HoldConfig",
    "HooksConfig",
    "HttpConfig",
    "LogConfig",
    "ProviderConfig",
    "QueueConfig",
    "SubtitleLayout",
]

DAY = 86_400.0
_RETRY = RetryLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryKeys(Section):
    """The keys of `retry`; the config has :class:`~dropscribe.core.retry.RetryLimits` instead."""

    first_seconds: float = key(
        t.DURATION, "The first wait; it doubles, with jitter.", default=_RETRY.first_seconds
    )
    max_seconds: float = key(t.DURATION, "The longest wait.", default=_RETRY.max_seconds)
    give_up_after_seconds: float = key(
        t.DURATION,
        "A file goes to failed this long after its first attempt; holds do not count.",
        default=_RETRY.give_up_after_seconds,
    )
    max_ambiguous: int = key(
        t.POSITIVE_COUNT,
        "At most so many attempts that were sent whole without an answer: each may have been paid for.",
        default=_RETRY.max_ambiguous,
    )
    max_crashes: int = key(
        t.POSITIVE_COUNT,
        "At most so many attempts in a row that the end of the daemon cut off.",
        default=_RETRY.max_crashes,
    )

    @classmethod
    def build(cls, read: SectionRead) -> RetryLimits:
        """The limits."""
        return RetryLimits(**read.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldConfig(Section):
    """Waits between the probes of a held provider."""

    first_seconds: float = key(t.DURATION, "The first wait; it doubles.", default=30.0)
    max_seconds: float = key(t.DURATION, "The longest wait.", default=900.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole config; the optional sections are None where they are off.

    Attributes:
        path: The file it was read from, or None for text in memory.
        queue: None is the embedded engine, on this machine alone.
        time_zone: None is the system's.
        source: The file's values without secrets, as JSON: for :mod:`dropscribe.config.running`.
    """

    path: Path | None
    state_dir: Path = key(
        t.PATH,
        "The folder of the queue, on a local disk. Default: `$STATE_DIRECTORY`, `/var/lib/dropscribe` for a "
        "config in /etc/dropscribe, else `dropscribe` in the XDG state home.",
        default=Path(),
        example="state",
    )
    providers: Mapping[str, ProviderConfig] = key(
        t.map_of(t.section(ProviderConfig), t.NAME), "The providers, under names of your own.", default={}
    )
    folders: Mapping[str, FolderRule] = key(
        t.map_of(t.section(FolderRule), t.NAME), "Folder rules, under names of your own.", default={}
    )
    queue: QueueConfig | None = key(
        t.section(QueueConfig),
        "Where the queue is: in the state directory when absent, or in a PostgreSQL that several machines "
        "share.",
        default=None,
    )
    retry: RetryLimits = key(
        t.section(RetryKeys), "When a file is tried again, and when it is given up.", default=_RETRY
    )
    hold: HoldConfig = key(
        t.section(HoldConfig), "How often a held provider is tried again.", default=HoldConfig()
    )
    time_zone: tzinfo | None = key(
        t.TIME_ZONE,
        "The time zone in which the days of budgets begin, such as `Europe/Berlin`; default: the system's.",
        default=None,
        example="Europe/Berlin",
    )
    ledger_keep_seconds: float = key(
        t.DURATION_OR_ZERO,
        "How long answers are kept in the state directory, to be used again; 0: not at all.",
        default=90 * DAY,
    )
    history_keep_seconds: float = key(
        t.DURATION,
        "How long the queue keeps the records of files that are done or failed.",
        default=365 * DAY,
    )
    search: bool = key(
        t.BOOLEAN, "Finished transcripts are indexed, for `dropscribe search` and the pages.", default=True
    )
    shutdown_grace_seconds: float = key(
        t.DURATION_OR_ZERO,
        "On shutdown, running uploads get this long; unfinished ones are requeued.",
        default=30.0,
    )
    log: LogConfig = key(t.section(LogConfig), "The level and format of the log.", default=LogConfig())
    http: HttpConfig | None = key(
        t.section(HttpConfig),
        "Web pages, metrics, health and status over HTTP; off when absent.",
        default=None,
    )
    metrics: MetricsConfig | None = key(
        t.section(MetricsConfig), "Metrics as a file; off when absent.", default=None
    )
    heartbeat: HeartbeatConfig | None = key(
        t.section(HeartbeatConfig), "A sign of life for a monitor elsewhere; off when absent.", default=None
    )
    hooks: HooksConfig | None = key(
        t.section(HooksConfig),
        "Commands (no shell) that get events as JSON on standard input; off when absent.",
        default=None,
    )
    notify: NotifyConfig | None = key(
        t.section(NotifyConfig),
        "People and programs that are told of failed files, of holds and their ends, and of budgets; "
        "off when absent.",
        default=None,
    )
    source: str = field(default="", repr=False, compare=False)

    def watches(self, rule: FolderRule) -> bool:
        """Whether this machine watches *rule*'s inbox; in a cluster other nodes may do it instead."""
        return self.queue is None or self.queue.watches(rule)

    @property
    def secrets(self) -> list[str]:
        """The secrets that must not be in log lines and in the environment of commands.

        The urls of a heartbeat and of a webhook are among them, because they act as keys.
        """
        found: list[Secret | None] = [provider.api_key for provider in self.providers.values()]
        found.append(self.http.token if self.http else None)
        found += [self.queue.dsn, self.queue.password] if self.queue else []
        if self.notify:
            found += self.notify.urls
            found.append(self.notify.webhook.secret if self.notify.webhook else None)
        urls = [self.heartbeat.url] if self.heartbeat else []
        urls += [self.notify.webhook.url] if self.notify and self.notify.webhook else []
        return [secret.reveal() for secret in found if secret is not None] + urls
