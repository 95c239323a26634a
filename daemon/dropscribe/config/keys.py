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
from dropscribe.config.service_keys import (
    HeartbeatKeys,
    HooksKeys,
    HttpKeys,
    LogKeys,
    MetricsKeys,
    NotifyKeys,
)
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

_LANGUAGE = "The spoken language: `en`, `pt-BR`; by default the provider detects it. `params` wins."
_VOCABULARY = "Words and names that are likely to be said, for providers that take such a list."
_VOCABULARY_FILE = "A text file with more of them, one on each line; lines that begin with `#` are ignored."
_SPEAKERS = "`true`: the provider separates the speakers (diarization)."

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
    language: t.Language | None = Field(default=None, description=_LANGUAGE)
    vocabulary: t.Vocabulary = Field(default=(), description=_VOCABULARY)
    vocabulary_file: t.Text | None = Field(default=None, description=_VOCABULARY_FILE)
    speakers: t.Boolean | None = Field(default=None, description=_SPEAKERS)
    params: t.Params = Field(
        default={},
        description="Request parameters, passed through unchanged over the type's own; null removes one.",
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
    preset: t.Name | None = Field(
        default=None, description="A known service with this interface; sets `url` and its limits."
    )
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
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the model runs; `auto`: on a CUDA GPU if there is one."
    )
    compute_type: t.Text = Field(
        default="auto", description="CTranslate2's number format, such as `int8` or `float16`."
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


class SubtitlesKeys(Keys):
    """The largest cue of `srt` and `vtt`."""

    line: t.PositiveCount = Field(default=42, description="Characters in one line.")
    lines: t.PositiveCount = Field(default=2, description="Lines in one cue.")
    seconds: t.Duration = Field(default=7.0, description="How long one cue is shown.")


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
    template: t.Text | None = Field(
        default=None, description="A Jinja2 template for one more text output, such as `minutes.txt.j2`."
    )
    paragraphs: t.Boolean = Field(default=False, description="`txt` gets a blank line at long pauses.")
    subtitles: SubtitlesKeys = Field(
        default_factory=SubtitlesKeys,
        description="The largest cue of `srt` and `vtt`: `{line: 42, lines: 2, seconds: 7s}`.",
    )
    speaker_names: t.TextOfText = Field(
        default={}, description="Names for speaker labels: `{speaker_0: Agent, channel_1: Caller}`."
    )
    recorded_at: t.TimePattern | None = Field(
        default=None,
        description="When a recording was made, from its file name: `%Y%m%d-%H%M%S` (strptime).",
    )
    companions: t.Companions = Field(
        default=(),
        description="Files that belong to a recording and move with it: `{stem}.json`, `{stem}.xml`.",
    )
    companions_wait: t.DurationOrZero = Field(
        default=60.0, description="How long a recording waits for its companions."
    )
    tracks: Literal["default", "all"] = Field(
        default="default",
        description="Audio tracks that are transcribed: the `default` one, or `all`. "
        "Needs `dropscribe[media]`.",
    )
    language: t.Language | None = Field(default=None, description=_LANGUAGE)
    vocabulary: t.Vocabulary = Field(default=(), description=_VOCABULARY)
    vocabulary_file: t.Text | None = Field(default=None, description=_VOCABULARY_FILE)
    speakers: t.Boolean | None = Field(default=None, description=_SPEAKERS)
    sidecar_name: Literal["stem", "full"] = Field(
        default="stem", description="`stem`: call.json; `full`: call.wav.json."
    )
    budget: BudgetKeys | None = Field(default=None, description=_BUDGET)
    duplicates: Literal["reuse", "transcribe", "skip"] = Field(
        default="reuse",
        description="A recording that was answered before, under any name: `reuse` its answer, "
        "`transcribe` it again, or `skip` it (it goes to failed).",
    )
    settle: t.Settle = Field(
        default=None,
        description="How long a file must be unchanged if nothing else shows that it is complete. "
        "`ignore_writers`: as `auto`, but a file that stays open is taken after a long quiet time.",
    )
    settle_incomplete: t.DurationOrAuto = Field(
        default=None, description="The same for a file whose own header says that more is to come."
    )
    min_age: t.DurationOrZero = Field(
        default=0.0,
        description="A file is not taken before this time has passed since its last change, "
        "even if it is complete.",
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
    history_keep: t.Duration = Field(
        default=365 * DAY, description="How long the queue remembers files that are done or failed."
    )
    search: t.Boolean = Field(
        default=True, description="Finished transcripts are indexed, for `dropscribe search` and the pages."
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
