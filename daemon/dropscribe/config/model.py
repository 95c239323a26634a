"""The config: one frozen definition of each section and key.

Guarantees: every path is absolute, every duration is in seconds, every size in bytes, and every name of a
provider in a rule is known. Only ``load.py`` makes a config from a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import tzinfo
from pathlib import Path
from typing import Any

from dropscribe.config.keys import Section, key, keys_of
from dropscribe.config.notation import field_types as t
from dropscribe.config.notation.secret import Secret
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
class RetryKeys(RetryLimits, Section):
    """The limits of retries as keys of `retry`."""

    first_seconds: float = key("The first wait; it doubles, with jitter.", default=_RETRY.first_seconds)
    max_seconds: float = key("The longest wait.", default=_RETRY.max_seconds)
    give_up_after_seconds: float = key(
        "A file goes to failed this long after its first attempt; holds do not count.",
        default=_RETRY.give_up_after_seconds,
    )
    max_ambiguous: int = key(
        "At most so many attempts that were sent whole without an answer: each may have been paid for.",
        default=_RETRY.max_ambiguous,
    )
    max_crashes: int = key(
        "At most so many attempts in a row that the end of the daemon cut off.", default=_RETRY.max_crashes
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldConfig(Section):
    """Waits between the probes of a held provider."""

    first_seconds: float = key("The first wait; it doubles.", default=30.0)
    max_seconds: float = key("The longest wait.", default=900.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Section):
    """The whole config; the optional sections are None where they are off."""

    path: Path | None  # None for text in memory
    state_dir: Path = key(
        "The folder of the queue, on a local disk. Default: `$STATE_DIRECTORY`, `/var/lib/dropscribe` for a "
        "config in /etc/dropscribe, else `dropscribe` in the XDG state home.",
        default=Path(),
        example="state",
    )
    providers: Mapping[str, ProviderConfig] = key("The providers, under names of your own.", default={})
    folders: Mapping[str, FolderRule] = key("Folder rules, under names of your own.", default={})
    queue: QueueConfig | None = key(
        "Where the queue is: in the state directory when absent, or in a PostgreSQL that several machines "
        "share."
    )
    retry: RetryKeys = key("When a file is tried again, and when it is given up.", default=RetryKeys())
    hold: HoldConfig = key("How often a held provider is tried again.", default=HoldConfig())
    time_zone: tzinfo | None = key(
        "The time zone in which the days of budgets begin, such as `Europe/Berlin`; default: the system's.",
        t.TIME_ZONE,
        example="Europe/Berlin",
    )
    ledger_keep_seconds: float = key(
        "How long answers are kept in the state directory, to be used again; 0: not at all.",
        t.DURATION_OR_ZERO,
        default=90 * DAY,
    )
    history_keep_seconds: float = key(
        "How long the queue keeps the records of files that are done or failed.", default=365 * DAY
    )
    search: bool = key(
        "Finished transcripts are indexed, for `dropscribe search` and the pages.", default=True
    )
    shutdown_grace_seconds: float = key(
        "On shutdown, running uploads get this long; unfinished ones are requeued.",
        t.DURATION_OR_ZERO,
        default=30.0,
    )
    log: LogConfig = key("The level and format of the log.", default=LogConfig())
    http: HttpConfig | None = key("Web pages, metrics, health and status over HTTP; off when absent.")
    metrics: MetricsConfig | None = key("Metrics as a file; off when absent.")
    heartbeat: HeartbeatConfig | None = key("A sign of life for a monitor elsewhere; off when absent.")
    hooks: HooksConfig | None = key(
        "Commands (no shell) that get events as JSON on standard input; off when absent."
    )
    notify: NotifyConfig | None = key(
        "People and programs that are told of failed files, of holds and their ends, and of budgets; "
        "off when absent."
    )
    # The file's values without secrets: for :mod:`dropscribe.config.running`.
    source: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def watches(self, rule: FolderRule) -> bool:
        """Whether this machine watches *rule*'s inbox; in a cluster other nodes may do it instead."""
        return self.queue is None or self.queue.watches(rule)

    @property
    def secrets(self) -> list[str]:
        """The secrets that must not be in log lines and in the environment of commands."""
        return list(_secrets_in(self))


def _secrets_in(value: object) -> Iterator[str]:
    """Each :class:`Secret` in *value*, and the urls that act as keys and are kept out of ``repr``."""
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, Mapping | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _secrets_in(item)
    elif isinstance(value, Section):
        for each in fields(value):  # type: ignore[arg-type]  # each section is a dataclass
            inner = getattr(value, each.name)
            is_url = "key" in each.metadata and not each.repr
            yield from (inner,) if is_url else _secrets_in(inner)


def diff_configs(old: Config, new: Config) -> list[str]:
    """The changes of a reload, in the order of the file: "providers.p changed: api_key"; never a value."""
    found: list[str] = []
    for name, about in keys_of(Config).items():
        before, after = getattr(old, about.attribute), getattr(new, about.attribute)
        if name in {"providers", "folders"}:
            for each in dict.fromkeys([*before, *after]):
                found += _change_of(f"{name}.{each}", before.get(each), after.get(each))
        elif about.type.section is not None:
            found += _change_of(name, before, after)
        elif before != after:
            found.append(f"{name} changed")
    return found


def _change_of(section: str, old: Any, new: Any) -> Iterator[str]:
    if old is None and new is not None:
        yield f"{section} added"
    elif new is None and old is not None:
        yield f"{section} removed"
    elif old != new:
        # The one attribute that is compared and is no key comes from `settle: ignore_writers`.
        names = {about.attribute: name for name, about in keys_of(type(old)).items()}
        changed = dict.fromkeys(
            names.get(field.name, "settle")
            for field in fields(old)
            if field.compare and getattr(old, field.name) != getattr(new, field.name)
        )
        yield f"{section} changed: {', '.join(changed)}"
