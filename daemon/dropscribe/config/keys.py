"""What may be written in the config file: every key, its type, its default and one line about it.

The one source of the checks (pydantic), the JSON Schema (``schema.py``) and the reference
(``reference.py``). What the daemon works with is ``model.py``; ``build.py`` makes one of the other.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dropscribe.config import field_types as t
from dropscribe.config.queue_keys import QueueKeys  # noqa: TC001 - pydantic reads the annotations
from dropscribe.config.section import Keys
from dropscribe.core.params import FIXED_PARAMS, ParamValue
from dropscribe.core.rules import DEFAULT_INCLUDE

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR


class BudgetKeys(Keys):
    """What may be spent, in money (`5.00`, by `price_per_minute`) or in audio (`600min`)."""

    per_day: t.Limit | None = Field(default=None, description="From midnight to midnight, in `time_zone`.")
    per_month: t.Limit | None = Field(default=None, description="From the first of a month to the next.")


_BUDGET = "What may be spent: `{per_day: 5.00, per_month: 600min}`, money or minutes of audio."

Concurrency = Annotated[t.PositiveCount, Field(description="Requests in flight at once.")]
Rate = Annotated[t.NumberOrNone, Field(description="Requests begun in one minute, at most; or `none`.")]
Timeout = Annotated[
    t.DurationOrNone,
    Field(
        description="From the last byte sent to the whole answer, or `none`. Sending: 60 s of no progress."
    ),
]
MaxUpload = Annotated[
    t.SizeOrNone, Field(description="Larger files are failed before they are sent; or `none`.")
]


class ProviderKeys(Keys):
    """What every provider has; each type sets its own defaults."""

    default_params: ClassVar[dict[str, ParamValue]] = {}

    concurrency: Concurrency = 1
    requests_per_minute: Rate = None
    timeout: Timeout = None
    max_upload: MaxUpload = None
    max_duration: t.DurationOrNone = Field(
        default=None,
        description="Longer recordings are cut at pauses and sent in pieces, by rules with `prepare`.",
    )
    price_per_minute: t.Number | None = Field(
        default=None, description="What a minute of audio costs, for `plan`, `status` and budgets."
    )
    budget: BudgetKeys | None = Field(default=None, description=_BUDGET)
    params: t.Params = Field(
        default={},
        description="Request parameters, sent as they are, over the type's own; a null one is not sent.",
    )


class RemoteKeys(ProviderKeys):
    """A provider behind a url."""

    url: t.Url | None = Field(
        default=None, description="The endpoint; without it the provider's documented one."
    )
    api_key: t.SecretText | None = Field(
        default=None, description="The key, best as `${NAME}` of an environment variable."
    )
    api_key_file: t.Text | None = Field(
        default=None,
        description="A file that holds the key and nothing else; a newline at its end is dropped.",
    )
    api_key_credential: t.Text | None = Field(
        default=None, description="The systemd credential (`LoadCredential=`) that holds the key."
    )


class PulseKeys(RemoteKeys):
    """Smallest AI Pulse."""

    default_params: ClassVar[dict[str, ParamValue]] = FIXED_PARAMS["pulse"]

    type: Literal["pulse"] = Field(description="`pulse`: Smallest AI Pulse.")
    concurrency: Concurrency = 2
    requests_per_minute: Rate = 20.0
    timeout: Timeout = 5 * MINUTE
    max_upload: MaxUpload = 250_000_000


class Reson8Keys(RemoteKeys):
    """Reson8, prerecorded."""

    default_params: ClassVar[dict[str, ParamValue]] = FIXED_PARAMS["reson8"]

    type: Literal["reson8"] = Field(description="`reson8`: Reson8, prerecorded.")
    timeout: Timeout = 5 * MINUTE
    auth: Literal["apikey", "bearer"] = Field(
        default="apikey", description="How the key is sent: `ApiKey`, or `Bearer` for an access token."
    )


class OpenAIKeys(RemoteKeys):
    """OpenAI, and every server that speaks its `/audio/transcriptions`."""

    type: Literal["openai"] = Field(description="`openai`: OpenAI and compatible servers.")
    concurrency: Concurrency = 2
    timeout: Timeout = 10 * MINUTE
    max_upload: t.SizeOrNone = Field(
        default=None,
        description="Larger files are failed before they are sent; or `none`. "
        "At api.openai.com the default is 25MiB less the form, elsewhere none.",
    )


class LocalKeys(ProviderKeys):
    """The embedded engine: faster-whisper on this machine's CPU."""

    type: Literal["local"] = Field(
        description="`local`: the embedded engine; no key, nothing leaves the machine."
    )
    model: t.Text = Field(
        default="auto",
        description="`auto` (the best that is installed), a Whisper model's name, or its directory.",
    )
    cpu_threads: t.Count = Field(
        default=0, description="Threads of one transcription; 0: the engine chooses."
    )
    idle_unload: t.Duration = Field(
        default=10 * MINUTE, description="After so long without a file the model leaves memory."
    )


AnyProvider = Annotated[PulseKeys | Reson8Keys | OpenAIKeys | LocalKeys, Field(discriminator="type")]
PROVIDER_TYPES: dict[str, type[ProviderKeys]] = {
    "pulse": PulseKeys,
    "reson8": Reson8Keys,
    "openai": OpenAIKeys,
    "local": LocalKeys,
}


class FolderKeys(Keys):
    """One folder rule."""

    inbox: t.Text = Field(description="Where audio is dropped.")
    done: t.Text | None = Field(
        default=None, description="Where audio and transcripts go; default: `done` beside the inbox."
    )
    failed: t.Text | None = Field(
        default=None,
        description="Where audio goes that can never be transcribed; default: `failed` beside the inbox.",
    )
    provider: t.Names = Field(description="A provider's name, or a list: the first that is not held.")
    backlog: Literal["take", "ask"] = Field(
        default="take",
        description="What is in the inbox on the rule's very first start: `take` it, or `ask`: it waits for "
        "`dropscribe release --folder NAME`. What is dropped later flows.",
    )
    fallback: Literal["held", "refused", "both"] = Field(
        default="held",
        description="When the next of a list is asked: the one before is held, or refused the file as itself "
        "(too large, format), or both. With `refused` a held one is waited for.",
    )
    params: t.RuleParams = Field(
        default={}, description="Request parameters over the provider's; with a list, keyed by provider name."
    )
    include: t.Include = Field(
        default=DEFAULT_INCLUDE,
        description="Names that are taken, in any case; default: the known audio and video suffixes.",
    )
    exclude: t.Exclude = Field(default=(), description="Names that are left alone.")
    recursive: t.Boolean = Field(
        default=True, description="Also sub-folders; they are kept in done and failed."
    )
    links: t.Boolean = Field(
        default=False,
        description="Also `.url`, `.webloc` and `.desktop` files: the provider fetches what they point to.",
    )
    link_hosts: t.Hosts = Field(
        default=(), description="Whose links are sent on: `example.com`, `*.example.com` for all below it."
    )
    prepare: Literal["never", "when_needed", "always"] = Field(
        default="never",
        description="Recordings are sent as small mono files: `when_needed` for max_upload, max_duration or "
        "the provider's formats; `always` saves the uplink. Needs `dropscribe[media]`.",
    )
    silence: Literal["send", "skip"] = Field(
        default="send",
        description="`skip`: a recording without any sound is done, unsent. Needs `dropscribe[media]`.",
    )
    silence_threshold: t.Decibels = Field(
        default=-50.0, description="With `silence: skip`: a tenth of a second above this is sound (dBFS)."
    )
    channels: Literal["mix", "split"] = Field(
        default="mix",
        description="`split`: the two channels of a stereo call are transcribed apart, as two speakers; "
        "it is paid for twice. Needs `dropscribe[media]`.",
    )
    outputs: t.Outputs = Field(
        default=["json", "txt"], min_length=1, description="Which sidecars are written."
    )
    sidecar_name: Literal["stem", "full"] = Field(
        default="stem", description="`stem`: call.json; `full`: call.wav.json."
    )
    budget: BudgetKeys | None = Field(default=None, description=_BUDGET)
    duplicates: Literal["reuse", "transcribe", "skip"] = Field(
        default="reuse",
        description="A recording that was answered before, under any name: `reuse` its answer, "
        "`transcribe` it again, or `skip` it (it goes to failed).",
    )
    settle: t.DurationOrAuto = Field(
        default=None, description="Quiet time for a file that nothing proves complete sooner."
    )
    settle_incomplete: t.DurationOrAuto = Field(
        default=None, description="Quiet time for a file whose own header says that more is to come."
    )
    watch: Literal["auto", "native", "poll"] = Field(
        default="auto", description="How changes are noticed; `auto` polls network file systems."
    )
    rescan: t.RescanOrAuto = Field(
        default=None, description="The inbox is listed again this often; `auto`: 60s, polled: 5s."
    )


class RetryKeys(Keys):
    """The section `retry`."""

    first: t.Duration = Field(default=5.0, description="The first wait; it doubles, with jitter.")
    max: t.Duration = Field(default=HOUR, description="The longest wait.")
    give_up_after: t.Duration = Field(
        default=5 * DAY,
        description="A file goes to failed so long after its first attempt; holds do not count.",
    )
    max_ambiguous: t.PositiveCount = Field(
        default=3, description="Attempts sent whole with no answer: each may have been paid for."
    )
    max_crashes: t.PositiveCount = Field(
        default=10, description="Attempts in a row that the daemon's own end cut off."
    )


class HoldKeys(Keys):
    """The section `hold`."""

    first: t.Duration = Field(default=30.0, description="The first wait; it doubles.")
    max: t.Duration = Field(default=15 * MINUTE, description="The longest wait.")


class LogKeys(Keys):
    """The section `log`."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    format: Literal["auto", "console", "json", "logfmt"] = Field(
        default="auto", description="`auto`: console on a terminal, fields in the journal, logfmt elsewhere."
    )


class HttpKeys(Keys):
    """Metrics, health and status over HTTP."""

    listen: t.Listen = Field(
        default="127.0.0.1:8790", description="Host and port; beyond loopback a token is demanded."
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


class FileKeys(Keys):
    """The whole file."""

    state_dir: t.Text | None = Field(
        default=None,
        description="The queue's place, on a local disk; default: `$STATE_DIRECTORY`, `/var/lib/dropscribe` "
        "for a config in /etc/dropscribe, else `dropscribe` in the XDG state home.",
    )
    providers: dict[t.Name, AnyProvider] = Field(
        default={}, description="Who transcribes, under names of your own."
    )
    folders: dict[t.Name, FolderKeys] = Field(
        default={}, description="Folder rules, under names of your own."
    )
    queue: QueueKeys | None = Field(
        default=None,
        description="Where the queue is: in the state directory when absent, or in a PostgreSQL that several "
        "machines share.",
    )
    retry: RetryKeys = Field(
        default_factory=RetryKeys, description="When a file is tried again, and when it is given up."
    )
    hold: HoldKeys = Field(default_factory=HoldKeys, description="How often a held provider is tried again.")
    time_zone: t.TimeZone | None = Field(
        default=None,
        description="In which the days of budgets turn, such as `Europe/Berlin`; default: the system's.",
    )
    ledger_keep: t.DurationOrZero = Field(
        default=90 * DAY,
        description="Answers are kept so long in the state directory, to be used again; 0: not at all.",
    )
    shutdown_grace: t.DurationOrZero = Field(
        default=30.0, description="At the end, what is in flight gets so long before it is handed back."
    )
    log: LogKeys = Field(default_factory=LogKeys, description="What is logged, and in which form.")
    http: HttpKeys | None = Field(
        default=None, description="Metrics, health and status over HTTP; off when absent."
    )
    metrics: MetricsKeys | None = Field(default=None, description="Metrics as a file; off when absent.")
    heartbeat: HeartbeatKeys | None = Field(
        default=None, description="A sign of life for a monitor elsewhere; off when absent."
    )
    hooks: HooksKeys | None = Field(default=None, description="Commands for what happened; off when absent.")
    notify: NotifyKeys | None = Field(
        default=None, description="People and programs that are told what went wrong; off when absent."
    )
