"""The config: one frozen definition of each section and key.

Guarantees: every path is absolute, every duration is in seconds, every size in bytes, and every name of a
provider in a rule is known. Only ``load.py`` makes a config from a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dropscribe.config.keys import key
from dropscribe.config.notation import field_types as t
from dropscribe.config.sections.provider import (
    BUDGET,
    BUDGET_WORDS,
    LANGUAGE,
    SPEAKERS,
    VOCABULARY,
    VOCABULARY_FILE,
    ProviderConfig,
)
from dropscribe.config.sections.queue import QueueConfig, make_queue
from dropscribe.config.sections.services import (
    HeartbeatConfig,
    HooksConfig,
    HttpConfig,
    LogConfig,
    MetricsConfig,
    NotifyConfig,
    WebhookConfig,
    make_heartbeat,
    make_hooks,
    make_http,
    make_notify,
)
from dropscribe.core.rules import DEFAULT_INCLUDE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    from dropscribe.config.notation.secret import Secret
    from dropscribe.core.limits import Budget
    from dropscribe.core.requests.params import ParamValue

__all__ = [
    "Config",
    "FolderRule",
    "HeartbeatConfig",
    "HoldConfig",
    "HooksConfig",
    "HttpConfig",
    "LogConfig",
    "MetricsConfig",
    "NotifyConfig",
    "ProviderConfig",
    "QueueConfig",
    "RetryConfig",
    "SubtitleLayout",
    "WebhookConfig",
]

DAY = 86_400.0

Watch = Literal["auto", "native", "poll"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtitleLayout:
    """The largest cue of `srt` and `vtt`."""

    line_characters: int = key(t.POSITIVE_COUNT, "Characters in one line.", default=42, name="line")
    lines: int = key(t.POSITIVE_COUNT, "Lines in one cue.", default=2)
    cue_seconds: float = key(t.DURATION, "How long one cue is shown.", default=7.0, name="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderRule:
    """One inbox and the treatment of the audio in it.

    Attributes:
        providers: At least one; the first that is not held is asked.
        params: For each of `providers`, its parameters with the rule's laid over; see :meth:`params_for`.
        include: At least one pattern.
        link_hosts: At least one with `links`.
        settle_seconds: None means auto.
        settle_incomplete_seconds: None means auto.
        settle_ignores_writers: From `settle: ignore_writers`.
        rescan_seconds: None means auto: 60 native, 5 polled.
        language, vocabulary, speakers: Empty or None means the provider's own setting.
    """

    name: str
    inbox: Path = key(t.PATH, "The folder into which audio is dropped.", example="inbox")
    done: Path = key(
        t.PATH,
        "The folder for audio and transcripts; default: `done` beside the inbox.",
        default=Path(),
        example="done",
    )
    failed: Path = key(
        t.PATH,
        "The folder for audio that can never be transcribed; default: `failed` beside the inbox.",
        default=Path(),
        example="failed",
    )
    providers: tuple[str, ...] = key(
        t.NAMES, "A provider's name, or a list: the first that is not held.", name="provider", example="local"
    )
    fallback: Literal["held", "refused", "both"] = key(
        t.one_of("held", "refused", "both"),
        "When the next provider of a list is asked: the one before is held, or refused the file as such (too "
        "large, format), or both. With `refused` a held provider is waited for.",
        default="held",
    )
    language: str | None = key(t.LANGUAGE, LANGUAGE, default=None, example="en")
    vocabulary: tuple[str, ...] = key(
        t.TEXTS, VOCABULARY, default=(), also={"_file": VOCABULARY_FILE}, example="[Dropscribe]"
    )
    speakers: bool | None = key(t.BOOLEAN, SPEAKERS, default=None, example="true")
    params: Mapping[str, Mapping[str, ParamValue]] = key(
        t.RULE_PARAMS,
        "Request parameters over the provider's; with a list of providers, keyed by provider name.",
        default={},
        example="{temperature: 0}",
    )
    include: tuple[str, ...] = key(
        t.NAMES,
        "Patterns of the names that are taken, in any case; default: the known audio and video suffixes.",
        default=DEFAULT_INCLUDE,
        example='["*.wav", "*.mp3"]',
    )
    exclude: tuple[str, ...] = key(t.TEXTS, "Patterns of file names that are left alone.", default=())
    recursive: bool = key(t.BOOLEAN, "Sub-folders too; done and failed get the same ones.", default=True)
    links: bool = key(
        t.BOOLEAN,
        "Also `.url`, `.webloc` and `.desktop` files: the provider fetches the recordings behind them.",
        default=False,
    )
    link_hosts: tuple[str, ...] = key(
        t.HOSTS,
        "The hosts whose links are sent on: `example.com`, `*.example.com` for all below it.",
        default=(),
    )
    prepare: Literal["never", "when_needed", "always"] = key(
        t.one_of("never", "when_needed", "always"),
        "Whether recordings are sent as small mono files: `when_needed` for max_upload, max_duration or the "
        "provider's formats; `always` saves the uplink. Needs the extra `media`.",
        default="never",
    )
    silence: Literal["send", "skip"] = key(
        t.one_of("send", "skip"),
        "With `skip`, a recording without any sound is done without being sent. Needs the extra `media`.",
        default="send",
    )
    silence_threshold_dbfs: float = key(
        t.DECIBELS, "With `silence: skip`: a tenth of a second above this is sound (dBFS).", default=-50.0
    )
    channels: Literal["mix", "split"] = key(
        t.one_of("mix", "split"),
        "With `split`, the two channels of a stereo call are transcribed as two speakers, and both are paid "
        "for. Needs the extra `media`.",
        default="mix",
    )
    tracks: Literal["default", "all"] = key(
        t.one_of("default", "all"),
        "The audio tracks that are transcribed: the `default` one, or `all`. Needs the extra `media`.",
        default="default",
    )
    outputs: tuple[str, ...] = key(
        t.list_of(t.one_of("json", "txt", "srt", "vtt", "md"), least=1),
        "Transcript files to write: `json`, `txt`, `srt`, `vtt`, `md`.",
        default=("json", "txt"),
    )
    template: Path | None = key(
        t.PATH,
        "A Jinja2 template for one more text output: `minutes.txt.j2` makes `NAME.minutes.txt`.",
        default=None,
        example="minutes.txt.j2",
    )
    paragraphs: bool = key(t.BOOLEAN, "`txt` gets a blank line at long pauses.", default=False)
    subtitles: SubtitleLayout = key(
        t.section(SubtitleLayout),
        "The largest cue of `srt` and `vtt`: `{line: 42, lines: 2, seconds: 7s}`; "
        "`line: 16` suits Chinese and Japanese.",
        default=SubtitleLayout(),
    )
    speaker_names: Mapping[str, str] = key(
        t.SPEAKER_NAMES,
        "Names for speaker labels: `{speaker_0: Agent, channel_1: Caller}`.",
        default={},
        example="{speaker_0: Agent}",
    )
    sidecar_name: Literal["stem", "full"] = key(
        t.one_of("stem", "full"), "`stem`: call.json; `full`: call.wav.json.", default="stem"
    )
    recorded_at: str | None = key(
        t.TIME_PATTERN,
        "When a recording was made, from its file name: `%Y%m%d-%H%M%S` (strptime).",
        default=None,
        example='"%Y%m%d-%H%M%S"',
    )
    companions: tuple[str, ...] = key(
        t.COMPANIONS,
        "Files that belong to a recording and go with it: `{stem}.json` is `call.json` beside `call.wav`, "
        "`{name}.xml` is `call.wav.xml`.",
        default=(),
        example='["{stem}.json"]',
    )
    companions_wait_seconds: float = key(
        t.DURATION_OR_ZERO,
        "How long a complete recording waits for its companions; then it is taken without them.",
        default=60.0,
    )
    backlog: Literal["take", "ask"] = key(
        t.one_of("take", "ask"),
        "Files that are in the inbox when the rule first starts: `take` them, or `ask`: they wait for "
        "`dropscribe release --folder NAME`. Files dropped later are taken at once.",
        default="take",
    )
    budget: Budget | None = key(BUDGET, BUDGET_WORDS, default=None, example="{per_day: 600min}")
    duplicates: Literal["reuse", "transcribe", "skip"] = key(
        t.one_of("reuse", "transcribe", "skip"),
        "A recording that was transcribed before, under any name: `reuse` its transcript, `transcribe` it "
        "again, or `skip` it (it goes to failed).",
        default="reuse",
    )
    settle_seconds: float | None = key(
        t.SETTLE,
        "How long a file must be unchanged if nothing else shows that it is complete. `ignore_writers`: as "
        "`auto`, but a file that stays open is taken after a long quiet time.",
        default=None,
    )
    settle_incomplete_seconds: float | None = key(
        t.DURATION_OR_AUTO, "The same for a file whose own header says that more is to come.", default=None
    )
    settle_ignores_writers: bool = False
    min_age_seconds: float = key(
        t.DURATION_OR_ZERO,
        "A file is not taken before this time has passed since its last change, even if it is complete.",
        default=0.0,
    )
    watch: Watch = key(
        t.one_of("auto", "native", "poll"),
        "How changes are noticed; `auto` polls network file systems.",
        default="auto",
    )
    rescan_seconds: float | None = key(
        t.RESCAN, "The inbox is listed again this often; `auto`: 60s, polled: 5s.", default=None
    )

    @property
    def reads_media(self) -> bool:
        """Whether recordings are decoded here before they are sent."""
        plain = (self.prepare, self.silence, self.channels, self.tracks)
        return plain != ("never", "send", "mix", "default")

    def params_for(self, provider: str) -> dict[str, ParamValue]:
        """The request parameters for *provider*: its own with this rule's laid over them."""
        return dict(self.params.get(provider, {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """Retries of a file: their waits, and the limits after which it fails."""

    first_seconds: float = key(t.DURATION, "The first wait; it doubles, with jitter.", default=5.0)
    max_seconds: float = key(t.DURATION, "The longest wait.", default=3600.0)
    give_up_after_seconds: float = key(
        t.DURATION,
        "A file goes to failed this long after its first attempt; holds do not count.",
        default=5 * DAY,
    )
    max_ambiguous: int = key(
        t.POSITIVE_COUNT,
        "At most so many attempts that were sent whole without an answer: each may have been paid for.",
        default=3,
    )
    max_crashes: int = key(
        t.POSITIVE_COUNT, "At most so many attempts in a row that the end of the daemon cut off.", default=10
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldConfig:
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
        t.section(QueueConfig, make_queue),
        "Where the queue is: in the state directory when absent, or in a PostgreSQL that several machines "
        "share.",
        default=None,
    )
    retry: RetryConfig = key(
        t.section(RetryConfig), "When a file is tried again, and when it is given up.", default=RetryConfig()
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
        t.section(HttpConfig, make_http),
        "Web pages, metrics, health and status over HTTP; off when absent.",
        default=None,
    )
    metrics: MetricsConfig | None = key(
        t.section(MetricsConfig), "Metrics as a file; off when absent.", default=None
    )
    heartbeat: HeartbeatConfig | None = key(
        t.section(HeartbeatConfig, make_heartbeat),
        "A sign of life for a monitor elsewhere; off when absent.",
        default=None,
    )
    hooks: HooksConfig | None = key(
        t.section(HooksConfig, make_hooks),
        "Commands (no shell) that get events as JSON on standard input; off when absent.",
        default=None,
    )
    notify: NotifyConfig | None = key(
        t.section(NotifyConfig, make_notify),
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
        """The secrets that must not be in log lines and in the environment of commands."""
        found: list[Secret | None] = [provider.api_key for provider in self.providers.values()]
        found.append(self.http.token if self.http else None)
        found += [self.queue.dsn, self.queue.password] if self.queue else []
        if self.notify:
            found += self.notify.urls
            found.append(self.notify.webhook.secret if self.notify.webhook else None)
        return [secret.reveal() for secret in found if secret is not None]
