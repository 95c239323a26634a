"""The config as the daemon works with it: resolved, absolute, frozen.

Guarantees: every path is absolute, every duration in seconds, every size in bytes, every reference
between the parts holds. Built by ``load.py`` alone; the defaults of the file's keys live in ``keys.py``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo
    from pathlib import Path

    from dropscribe.config.secret import Secret
    from dropscribe.core.limits import Budget
    from dropscribe.core.params import ParamValue

ProviderType = Literal["pulse", "reson8", "openai", "local"]
Watch = Literal["auto", "native", "poll"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtitleLayout:
    """The largest cue of a subtitle file.

    Attributes:
        line_characters: Characters in one line.
        lines: Lines in one cue.
        cue_seconds: How long one cue is shown.
    """

    line_characters: int = 42
    lines: int = 2
    cue_seconds: float = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """One account at one vendor, or the engine on this machine.

    Attributes:
        name: The user's own name for it.
        url: None means the provider's documented endpoint.
        api_key: None for `local`, and for `openai` where the server asks for none.
        concurrency: Requests in flight at once.
        requests_per_minute: None means no limit.
        timeout_seconds: From the last byte sent to the whole answer; None means for ever.
        max_upload_bytes: Larger files are failed before they are sent; None means no limit.
        max_duration_seconds: Longer recordings are cut, where the rule prepares them; None means no limit.
        price_per_minute: For plan, status and budget, in a currency of the user's choice; or None.
        params: Request parameters, the type's defaults included.
        language: Spoken language as a BCP 47 tag ("en", "pt-BR"); None lets the provider detect it.
        vocabulary: Words and names that are likely to be said.
        speakers: True asks for diarization, False asks for none; None leaves it to `params`.
        preset: For openai: the name of a known service, which sets `url` and its limits; else None.
        device: For local: where the model runs.
        compute_type: For local: CTranslate2's number format; `auto` lets the engine choose.
        extra: The keys that only this type has, by the names that the file uses.
        auth: `apikey` or `bearer` for reson8, else None.
        model: `auto`, a model's name or a directory for local, else None.
        cpu_threads: For local; 0 lets the engine choose.
        idle_unload_seconds: After so long without a file the local engine's model leaves memory.
    """

    name: str
    type: ProviderType
    url: str | None = None
    api_key: Secret | None = None
    concurrency: int = 1
    requests_per_minute: float | None = None
    timeout_seconds: float | None = None
    max_upload_bytes: int | None = None
    max_duration_seconds: float | None = None
    price_per_minute: float | None = None
    budget: Budget | None = None
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    language: str | None = None
    vocabulary: tuple[str, ...] = ()
    speakers: bool | None = None
    preset: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = "auto"
    extra: Mapping[str, ParamValue] = field(default_factory=dict)
    auth: str | None = None
    model: str | None = None
    cpu_threads: int = 0
    idle_unload_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderRule:
    """One inbox, and what becomes of the audio in it.

    Attributes:
        providers: Names, at least one; the first that is not held is asked.
        params: For each of `providers`, its parameters with the rule's laid over; see :meth:`params_for`.
        include: Shell patterns of file names, matched in any case; at least one.
        exclude: Shell patterns of file names that are left alone.
        links: Whether link files are taken too, for a provider that fetches what they point to.
        link_hosts: Whose links are sent on: host names, or `*.` before one; at least one with `links`.
        outputs: Some of `json`, `txt`, `srt`, `vtt`, `md`; at least one.
        template: A Jinja2 template for one more text output; None writes none.
        paragraphs: Whether `txt` has a blank line at long pauses.
        subtitles: The largest cue of `srt` and `vtt`.
        speaker_names: Names for the provider's speaker labels: {"speaker_0": "Agent"}.
        recorded_at: A strptime pattern of file names that tells when a recording was made; or None.
        companions: Patterns of file names that belong to a recording: "{stem}.json".
        companions_wait_seconds: How long a recording waits for its companions.
        tracks: Which audio tracks of a recording are transcribed.
        language: Spoken language, before the provider's own setting; see :class:`ProviderConfig`.
        vocabulary: Likely words and names; empty means the provider's own list.
        speakers: Diarization, before the provider's own setting.
        prepare: When a recording is made anew to fit its provider.
        silence: What becomes of a recording without any sound.
        silence_threshold_dbfs: What is louder is sound.
        channels: Whether a stereo call is transcribed as two speakers.
        settle_seconds: Quiet time for a file that nothing proves complete sooner; None means auto.
        settle_incomplete_seconds: The same where the file's header says that more is to come.
        settle_ignores_writers: Whether a file that a process holds open is taken after a long quiet time.
        min_age_seconds: No file is taken before this time has passed since its last change.
        rescan_seconds: None means auto: 60 native, 5 polled.
    """

    name: str
    inbox: Path
    done: Path
    failed: Path
    providers: tuple[str, ...]
    params: Mapping[str, Mapping[str, ParamValue]] = field(default_factory=dict)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    recursive: bool = True
    links: bool = False
    link_hosts: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("json", "txt")
    prepare: Literal["never", "when_needed", "always"] = "never"
    silence: Literal["send", "skip"] = "send"
    silence_threshold_dbfs: float = -50.0
    channels: Literal["mix", "split"] = "mix"
    sidecar_name: Literal["stem", "full"] = "stem"
    template: Path | None = None
    paragraphs: bool = False
    subtitles: SubtitleLayout = field(default_factory=SubtitleLayout)
    speaker_names: Mapping[str, str] = field(default_factory=dict)
    recorded_at: str | None = None
    companions: tuple[str, ...] = ()
    companions_wait_seconds: float = 60.0
    tracks: Literal["default", "all"] = "default"
    language: str | None = None
    vocabulary: tuple[str, ...] = ()
    speakers: bool | None = None
    budget: Budget | None = None
    backlog: Literal["take", "ask"] = "take"
    fallback: Literal["held", "refused", "both"] = "held"
    duplicates: Literal["reuse", "transcribe", "skip"] = "reuse"
    settle_seconds: float | None = None
    settle_incomplete_seconds: float | None = None
    settle_ignores_writers: bool = False
    min_age_seconds: float = 0.0
    watch: Watch = "auto"
    rescan_seconds: float | None = None

    @property
    def reads_media(self) -> bool:
        """Whether recordings are looked into, and perhaps made anew, before they are sent."""
        return (
            self.prepare != "never"
            or self.silence == "skip"
            or self.channels == "split"
            or self.tracks == "all"
        )

    def params_for(self, provider: str) -> dict[str, ParamValue]:
        """The request parameters for *provider*: its own with this rule's laid over them."""
        return dict(self.params.get(provider, {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """The queue in PostgreSQL, which several nodes share.

    Attributes:
        dsn: For libpq, which alone gives it a meaning, TLS included. Empty only in a config that was
            loaded without its need (:func:`dropscribe.config.load.load_config`).
        role: Whether this node watches inboxes, works on what is queued, or both.
        roots: The places that nodes share: a name, the same on every node, and where it is on this one.
            At least one, none inside another.
        node: This node's name, unique in the cluster.
        password: The dsn's, if it has one: what no log line may hold by itself.
    """

    type: Literal["postgres"] = "postgres"
    dsn: Secret
    role: Literal["all", "watch", "work"] = "all"
    roots: Mapping[str, Path]
    node: str
    password: Secret | None = field(default=None, compare=False)

    def root_of(self, path: Path) -> tuple[str, PurePath] | None:
        """The name of the root that *path* lies beneath, and its path there; None beneath no root.

        By the names alone: links are not followed, and ``..`` takes back the name before it.
        """
        plain = PurePath(os.path.normpath(path))
        for name, root in self.roots.items():
            if plain.is_relative_to(root):
                return name, plain.relative_to(root)
        return None

    def serves(self, rule: FolderRule) -> bool:
        """Whether this node can reach all of *rule*: each of its folders lies beneath a root."""
        return all(self.root_of(path) is not None for path in (rule.inbox, rule.done, rule.failed))

    def watches(self, rule: FolderRule) -> bool:
        """Whether this node looks after *rule*'s inbox; else other nodes do."""
        return self.role != "work" and self.serves(rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """How often a file is tried again, and when it is given up."""

    first_seconds: float
    max_seconds: float
    give_up_after_seconds: float
    max_ambiguous: int
    max_crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldConfig:
    """How often a held provider is tried again."""

    first_seconds: float
    max_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json", "logfmt"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """The listener for metrics, health and status.

    Attributes:
        listen: As written: "127.0.0.1:8790", or "unix:/run/dropscribe.sock".
        host: Its host without brackets; empty for a unix socket.
        port: 0 lets the kernel choose; 0 for a unix socket.
        socket: The unix socket's path, or None.
        token: Asked of every request where set; always set when *host* is not loopback.
        pages: Whether the web pages are served beside metrics, health and status.
        uploads: Whether the pages accept recordings for a folder.
        allowed_hosts: Values of the Host header that are accepted beside *host* and loopback names.
        root_path: The path under which a reverse proxy serves the pages: "" or "/dropscribe".
    """

    listen: str
    host: str
    port: int
    socket: Path | None = None
    token: Secret | None = None
    pages: bool = True
    uploads: bool = False
    allowed_hosts: tuple[str, ...] = ()
    root_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """Where the metrics are written for node_exporter's textfile collector."""

    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatConfig:
    """A url that is asked now and then, so that silence is noticed elsewhere.

    Attributes:
        url: Kept out of repr: such urls are keys in themselves.
    """

    url: str = field(repr=False)
    every_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksConfig:
    """Commands (argv, never a shell) for what happened; an empty one is off.

    Attributes:
        retry: Whether a command that failed is run again, also after a restart.
    """

    on_done: tuple[str, ...] = ()
    on_failed: tuple[str, ...] = ()
    on_held: tuple[str, ...] = ()
    on_budget: tuple[str, ...] = ()
    timeout_seconds: float = 30.0
    retry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """A program elsewhere that is told of each event.

    Attributes:
        url: Kept out of repr: such urls are often keys in themselves.
    """

    url: str = field(repr=False)
    secret: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyConfig:
    """Who is told what went wrong.

    Attributes:
        urls: People, as the apprise library takes them.
        quiet_hours: (begin, end) in minutes of the day; people get no message then.
    """

    urls: tuple[Secret, ...] = ()
    batch_seconds: float = 300.0
    quiet_hours: tuple[int, int] | None = None
    webhook: WebhookConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole of it; the optional parts are None where they are off.

    Attributes:
        path: The file it was read from, or None for text in memory.
        queue: None is the embedded engine, on this machine alone.
        time_zone: In which the days of budgets turn; None is the system's.
        ledger_keep_seconds: How long answers may be used again; 0 means that none is kept.
        history_keep_seconds: How long the queue remembers files that ended.
        search: Whether finished transcripts are indexed for search.
    """

    path: Path | None
    state_dir: Path
    providers: Mapping[str, ProviderConfig]
    folders: Mapping[str, FolderRule]
    retry: RetryConfig
    hold: HoldConfig
    shutdown_grace_seconds: float
    log: LogConfig
    queue: QueueConfig | None = None
    http: HttpConfig | None = None
    metrics: MetricsConfig | None = None
    heartbeat: HeartbeatConfig | None = None
    hooks: HooksConfig | None = None
    notify: NotifyConfig | None = None

    def watches(self, rule: FolderRule) -> bool:
        """Whether this machine looks after *rule*'s inbox; in a cluster other nodes may do it instead."""
        return self.queue is None or self.queue.watches(rule)

    @property
    def secrets(self) -> list[str]:
        """All that no log line and no command's environment may hold."""
        found = [provider.api_key for provider in self.providers.values()]
        found.append(self.http.token if self.http else None)
        found += [self.queue.dsn, self.queue.password] if self.queue else []
        if self.notify:
            found += self.notify.urls
            found.append(self.notify.webhook.secret if self.notify.webhook else None)
        return [secret.reveal() for secret in found if secret is not None]

    ledger_keep_seconds: float = 90 * 86400.0
    history_keep_seconds: float = 365 * 86400.0
    search: bool = True
    time_zone: tzinfo | None = None
