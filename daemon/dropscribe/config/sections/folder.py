"""The rules for folders: their keys, and the provider settings that each rule inherits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dropscribe.config.extras import install_hint, is_installed
from dropscribe.config.keys import REQUIRED, Section, SectionRead, key
from dropscribe.config.notation import field_types as t
from dropscribe.config.sections import params as p
from dropscribe.config.sections.provider import (
    BUDGET_WORDS,
    LANGUAGE,
    SPEAKERS,
    VOCABULARY,
    VOCABULARY_FILE,
    BudgetKeys,
)
from dropscribe.config.sections.provider_types import facts_of
from dropscribe.core.budget import Budget
from dropscribe.core.naming import OUTPUT_FORMATS
from dropscribe.core.requests.params import ParamValue
from dropscribe.core.rules import DEFAULT_INCLUDE, FilePatterns, compiled_patterns
from dropscribe.core.settling import QuietTimes

_WITHOUT_MEDIA = {"prepare": "never", "silence": "send", "channels": "mix", "tracks": "default"}
"""The keys that need the extra `media`, each with its value that does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtitleLayout(Section):
    """The largest cue of `srt` and `vtt`."""

    line_characters: int = key("Characters in one line.", default=42, name="line")
    lines: int = key("Lines in one cue.", default=2)
    cue_seconds: float = key("How long one cue is shown.", default=7.0, name="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderRule(Section):
    """One inbox and the treatment of the audio in it.

    `params` holds, for each of `providers`, its parameters with the rule's laid over. None means auto for
    times, and the provider's own setting for `language` and `speakers`.
    """

    name: str
    inbox: Path = key("The folder into which audio is dropped.", default=REQUIRED, example="inbox")
    done: Path = key(
        "The folder for audio and transcripts; default: `done` beside the inbox.",
        default=Path(),
        example="done",
    )
    failed: Path = key(
        "The folder for audio that can never be transcribed; default: `failed` beside the inbox.",
        default=Path(),
        example="failed",
    )
    providers: tuple[str, ...] = key(
        "A provider's name, or a list: the first that is not held.",
        t.NAMES,
        default=REQUIRED,
        name="provider",
        example="local",
    )
    fallback: Literal["held", "refused", "both"] = key(
        "When the next provider of a list is asked: the one before is held, or refused the file as such (too "
        "large, format), or both. With `refused` a held provider is waited for.",
        default="held",
    )
    language: str | None = key(LANGUAGE, t.LANGUAGE, example="en")
    vocabulary: tuple[str, ...] = key(
        VOCABULARY, default=(), also={"_file": VOCABULARY_FILE}, example="[Dropscribe]"
    )
    speakers: bool | None = key(SPEAKERS, example="true")
    params: Mapping[str, Mapping[str, ParamValue]] = key(
        "Request parameters over the provider's; with a list of providers, keyed by provider name.",
        t.RULE_PARAMS,
        default={},
        example="{temperature: 0}",
    )
    include: tuple[str, ...] = key(
        "Patterns of the names that are taken, in any case; default: the known audio and video suffixes.",
        t.NAMES,
        default=DEFAULT_INCLUDE,
        example='["*.wav", "*.mp3"]',
    )
    exclude: tuple[str, ...] = key("Patterns of file names that are left alone.", default=())
    recursive: bool = key("Sub-folders too; done and failed get the same ones.", default=True)
    links: bool = key(
        "Also `.url`, `.webloc` and `.desktop` files: the provider fetches the recordings behind them.",
        default=False,
    )
    link_hosts: tuple[str, ...] = key(
        "The hosts whose links are sent on: `example.com`, `*.example.com` for all below it.",
        t.HOSTS,
        default=(),
    )
    prepare: Literal["never", "when_needed", "always"] = key(
        "Whether recordings are sent as small mono files: `when_needed` for max_upload, max_duration or the "
        "provider's formats; `always` saves the uplink. Needs the extra `media`.",
        default="never",
    )
    silence: Literal["send", "skip"] = key(
        "With `skip`, a recording without any sound is done without being sent. Needs the extra `media`.",
        default="send",
    )
    silence_threshold_dbfs: float = key(
        "With `silence: skip`: a tenth of a second above this is sound (dBFS).", t.DECIBELS, default=-50.0
    )
    channels: Literal["mix", "split"] = key(
        "With `split`, the two channels of a stereo call are transcribed as two speakers, and both are paid "
        "for. Needs the extra `media`.",
        default="mix",
    )
    tracks: Literal["default", "all"] = key(
        "The audio tracks that are transcribed: the `default` one, or `all`. Needs the extra `media`.",
        default="default",
    )
    outputs: tuple[str, ...] = key(
        "Transcript files to write: `json`, `txt`, `srt`, `vtt`, `md`.",
        t.list_of(t.one_of(*OUTPUT_FORMATS), least=1),
        default=("json", "txt"),
    )
    template: Path | None = key(
        "A Jinja2 template for one more text output: `minutes.txt.j2` makes `NAME.minutes.txt`.",
        example="minutes.txt.j2",
    )
    paragraphs: bool = key("`txt` gets a blank line at long pauses.", default=False)
    subtitles: SubtitleLayout = key(
        "The largest cue of `srt` and `vtt`: `{line: 42, lines: 2, seconds: 7s}`; "
        "`line: 16` suits Chinese and Japanese.",
        default=SubtitleLayout(),
    )
    speaker_names: Mapping[str, str] = key(
        "Names for speaker labels: `{speaker_0: Agent, channel_1: Caller}`.",
        t.map_of(t.TEXT, t.TEXT),
        default={},
        example="{speaker_0: Agent}",
    )
    sidecar_name: Literal["stem", "full"] = key("`stem`: call.json; `full`: call.wav.json.", default="stem")
    recorded_at: str | None = key(
        "When a recording was made, from its file name: `%Y%m%d-%H%M%S` (strptime).",
        t.TIME_PATTERN,
        example='"%Y%m%d-%H%M%S"',
    )
    companions: tuple[str, ...] = key(
        "Files that belong to a recording and go with it: `{stem}.json` is `call.json` beside `call.wav`, "
        "`{name}.xml` is `call.wav.xml`.",
        t.COMPANIONS,
        default=(),
        example='["{stem}.json"]',
    )
    companions_wait_seconds: float = key(
        "How long a complete recording waits for its companions; then it is taken without them.",
        t.DURATION_OR_ZERO,
        default=60.0,
    )
    backlog: Literal["take", "ask"] = key(
        "Files that are in the inbox when the rule first starts: `take` them, or `ask`: they wait for "
        "`dropscribe release --folder NAME`. Files dropped later are taken at once.",
        default="take",
    )
    budget: Budget | None = key(BUDGET_WORDS, t.section(BudgetKeys), example="{per_day: 600min}")
    duplicates: Literal["reuse", "transcribe", "skip"] = key(
        "A recording that was transcribed before, under any name: `reuse` its transcript, `transcribe` it "
        "again, or `skip` it (it goes to failed).",
        default="reuse",
    )
    settle_seconds: float | None = key(
        "How long a file must be unchanged if nothing else shows that it is complete. `ignore_writers`: as "
        "`auto`, but a file that stays open is taken after a long quiet time.",
        t.SETTLE,
    )
    settle_incomplete_seconds: float | None = key(
        "The same for a file whose own header says that more is to come.", t.DURATION_OR_AUTO
    )
    settle_ignores_writers: bool = False  # from `settle: ignore_writers`
    min_age_seconds: float = key(
        "A file is not taken before this time has passed since its last change, even if it is complete.",
        t.DURATION_OR_ZERO,
        default=0.0,
    )
    watch: Literal["auto", "native", "poll"] = key(
        "How changes are noticed; `auto` polls network file systems.", default="auto"
    )
    rescan_seconds: float | None = key(
        "The inbox is listed again this often; `auto`: 60s, polled: 5s.", t.RESCAN
    )

    @property
    def paths(self) -> dict[str, Path]:
        """The rule's folders, by key."""
        return {"inbox": self.inbox, "done": self.done, "failed": self.failed}

    @property
    def patterns(self) -> FilePatterns:
        """The patterns of the names that it takes."""
        return compiled_patterns(
            self.include, self.exclude, recursive=self.recursive, links=self.links, companions=self.companions
        )

    @property
    def quiet_times(self) -> QuietTimes:
        """Its own quiet times, by which a file is judged complete."""
        return QuietTimes(
            self.settle_seconds,
            self.settle_incomplete_seconds,
            self.min_age_seconds,
            ignores_writers=self.settle_ignores_writers,
        )

    @property
    def reads_media(self) -> bool:
        """Whether recordings are decoded here before they are sent."""
        return any(getattr(self, name) != value for name, value in _WITHOUT_MEDIA.items())

    @property
    def sends_as_dropped(self) -> bool:
        """Whether recordings are sent as they are: never made smaller, and neither cut nor split."""
        return (self.prepare, self.channels, self.tracks) == ("never", "mix", "default")

    def params_for(self, provider: str) -> dict[str, ParamValue]:
        """The request parameters for *provider*: its own with this rule's laid over them."""
        return dict(self.params.get(provider, {}))

    @classmethod
    def build(cls, read: SectionRead) -> FolderRule:
        """The rule with its default folders, and the parameters for each of its providers."""
        values = read.values
        inbox: Path = values["inbox"]
        values.setdefault("done", inbox.parent / "done")
        values.setdefault("failed", inbox.parent / "failed")
        if values.get("settle_seconds") == float("inf"):
            values |= {"settle_seconds": None, "settle_ignores_writers": True}
        for name, value in _WITHOUT_MEDIA.items():
            if values.get(name, value) != value and not is_installed("media"):
                read.report(name, f"'{name}' needs PyAV, which is not installed", install_hint("media"))
        params = {}
        for name, path, written in p.written_params(read):
            if provider := read.reader.providers.get(name):
                facts = facts_of(provider.type, provider.preset or "")
                target = p.Target(provider.type, provider.model or "", facts.params)
                params[name] = p.layered_params(read, target, provider.params, written, path)
        return cls(name=str(read.path[-1]), **{**values, "params": params})
