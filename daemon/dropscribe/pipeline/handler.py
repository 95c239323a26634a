"""The queue's two callbacks, one attempt at a job and the publishing of its result, and the config they use.

Guarantees: both are safe to call again from any point. Once an answer exists nothing is sent again. Of link
files the daemon itself fetches nothing, a link that the rule refuses is sent nowhere, and urls are stored and
logged without their query.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from os.path import splitext
from typing import TYPE_CHECKING, cast

from dropscribe.core.errors import AudioRejected, ProviderError
from dropscribe.core.links import LinkRefused, check_link, is_link, read_link, why_no_links, without_query
from dropscribe.core.model import AttemptEnd, JobState, Retry, Withdrawn
from dropscribe.core.requests.params import effective_params
from dropscribe.core.retry import MAX_INTERNAL_ERRORS
from dropscribe.core.text.printing import path_text
from dropscribe.files.mounts import require_mount
from dropscribe.media.fitted import FittedProvider
from dropscribe.media.spool import Spool
from dropscribe.pipeline.attempts import Attempts
from dropscribe.pipeline.budgets import Budgets
from dropscribe.pipeline.disk_threads import DiskThreads, PlaceChecks
from dropscribe.pipeline.failures import Failures, HoldPolicy
from dropscribe.pipeline.publisher import Publisher
from dropscribe.pipeline.results import Results

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.config.model import Config, FolderRule, ProviderConfig
    from dropscribe.core.model import Job, Outcome, StoredResult
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.intake.inboxes import Inboxes
    from dropscribe.providers.base import Provider, Transcriber
    from dropscribe.providers.vendor import HttpProvider
    from dropscribe.publish.places import FreeNames
    from dropscribe.queue.engine import Engine
    from dropscribe.service.reporter import Reporter
    from dropscribe.transcripts.model import Transcript

_SHAPING = ("prepare", "silence", "silence_threshold_dbfs", "channels", "tracks")
"""Settings of a rule that change the answer when recordings are prepared."""


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """One config and the providers built for it, a value that a reload replaces."""

    config: Config
    providers: Mapping[str, Provider]
    transcribers: Mapping[tuple[str, str], Transcriber]
    """(folder, provider) → the provider, wrapped with the rule's preparation where the rule wants it."""
    digests: Mapping[tuple[str, str], str]
    """(folder, provider) → a digest of all settings that shape an answer, as the language does."""


def build_runtime(config: Config, providers: Mapping[str, Provider], queue: Engine) -> RuntimeConfig:
    """Everything that the pipeline takes from *config*; *providers* are those that rules name."""
    transcribers: dict[tuple[str, str], Transcriber] = {}
    digests, spool = {}, Spool(config.state_dir)
    for rule in config.folders.values():
        for name in rule.providers:
            settings, plain = config.providers[name], providers[name]
            transcriber: Transcriber = plain
            if rule.reads_media:
                # The queue's rate limits hold for the pieces of long recordings too.
                transcriber = FittedProvider(plain, settings, rule, spool, queue.dispatcher.wait_for_turn)
            if rule.links:  # outermost: links are not prepared as recordings are
                transcriber = WithLinks(transcriber, plain, rule)
            transcribers[rule.name, name] = transcriber
            digests[rule.name, name] = _settings_digest(rule, settings)
    return RuntimeConfig(config, providers, transcribers, digests)


def _settings_digest(rule: FolderRule, provider: ProviderConfig) -> str:
    shaping = {
        "type": provider.type,
        "url": provider.url,
        "model": provider.model,
        "params": effective_params(provider.type, rule.params_for(provider.name)),
        **({name: getattr(rule, name) for name in _SHAPING} if rule.reads_media else {}),
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class WithLinks:
    """A provider of one rule: *fetching* fetches the targets of link files, *inner* gets all other files."""

    inner: Transcriber
    fetching: Provider
    rule: FolderRule

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """As any Transcriber; a link file must have passed :meth:`Claim.refusal_of`."""
        if not is_link(audio.suffix):
            return await self.inner.transcribe(audio, params)
        url = _link_in(audio, self.rule)
        try:
            transcript = await cast("HttpProvider", self.fetching).transcribe_link(url, params)
        except ProviderError as error:
            error.reason = without_query(error.reason)
            raise
        return replace(transcript, attributes={**transcript.attributes, "link": without_query(url)})


def _link_in(audio: AudioFile, rule: FolderRule) -> str:
    # The head holds more than a link file may have.
    return check_link(read_link(audio.suffix, audio.head), rule.link_hosts)


@dataclass(slots=True)
class Claim:
    """One claimed job and the config that its callback began with, also when a reload swaps it meanwhile."""

    job: Job  # replaced when its row changes: a reload may give it to a rule of another name
    runtime: RuntimeConfig
    rule: FolderRule
    free_names: FreeNames | None = None
    """Names that were free when the recording was opened, so that storing an answer waits for no disk."""

    @property
    def config(self) -> Config:
        """The config."""
        return self.runtime.config

    @property
    def inbox(self) -> bytes:
        """The rule's inbox."""
        return os.fsencode(self.rule.inbox)

    @property
    def provider_config(self) -> ProviderConfig:
        """The config of the job's provider."""
        return self.runtime.config.providers[self.job.provider]

    @property
    def params(self) -> Mapping[str, ParamValue]:
        """The request parameters for the job."""
        return self.rule.params_for(self.job.provider)

    @property
    def falls_back(self) -> bool:
        """Whether a file that one provider refuses goes to the next."""
        return self.rule.fallback != "held" and len(self.rule.providers) > 1

    @property
    def settings(self) -> str:
        """The digest of all settings that shape an answer to the job."""
        return self.runtime.digests[self.rule.name, self.job.provider]

    @property
    def result(self) -> StoredResult:
        """The job's stored result; ValueError where there is none is a bug."""
        if self.job.result is None:
            raise ValueError("a job without a result has nothing to publish")
        return self.job.result

    @property
    def is_link(self) -> bool:
        """Whether the file is a link that the rule has its provider fetch."""
        return self.rule.links and is_link(splitext(path_text(self.job.path))[1].lower())

    @property
    def keep_seconds(self) -> float:
        """Seconds for which an answer may be reused; 0 for a link, because its target may change."""
        return 0.0 if self.is_link else self.config.ledger_keep_seconds

    def refusal_of(self, audio: AudioFile) -> AudioRejected | None:
        """The reason why the recording *audio* of the job fails before it is sent, if any."""
        if audio.size_bytes == 0:
            return AudioRejected("empty_file", "the file is empty")
        provider, size_bytes = self.provider_config, audio.size_bytes
        most = provider.max_upload_bytes
        # A rule that reads media may make it smaller, or not send it at all.
        if most is not None and size_bytes > most and not self.rule.reads_media:
            return AudioRejected("too_large", f"{size_bytes} bytes; {provider.name} takes {most} at most")
        if not self.is_link:
            return None
        try:
            _link_in(audio, self.rule)
        except LinkRefused as refused:
            return AudioRejected("link_refused", str(refused))
        why = why_no_links(provider.type, provider.url, self.params.get("model"))
        return AudioRejected("links_not_supported", why) if why else None


class Handler:
    """See :data:`dropscribe.queue.model.AttemptJob` and :data:`~dropscribe.queue.model.PublishJob`.

    Attributes:
        runtime: Replaced whole at a reload; a call keeps the value that it began with.
        budgets: The caller audits them at the start, at each reload and when a day begins.
        checks: Folders that take no files. A reload reopens those of changed rules.
    """

    def __init__(
        self,
        runtime: RuntimeConfig,
        queue: Engine,
        intake: Inboxes,
        reporter: Reporter,
        *,
        token: str,
        jitter: Callable[[], float],
    ) -> None:
        self.runtime = runtime
        self._disks = disks = DiskThreads(queue)
        self.checks = PlaceChecks(queue, disks)
        self.budgets = Budgets(queue, reporter, disks)
        holds, results = HoldPolicy(queue, reporter), Results(queue, disks)
        failures = Failures(queue, holds, results, jitter)
        self.attempts = Attempts(
            queue, holds, intake, reporter, disks, self.checks, results, self.budgets, failures
        )
        self._publisher = Publisher(queue, intake, reporter, disks, results, token)
        for rule in runtime.config.folders.values():  # remembers their mounts from the start
            for folder in (rule.done, rule.failed):
                disks.of(rule.name).submit(require_mount, os.fsencode(folder))

    async def attempt(self, job: Job) -> Outcome:
        """Make one attempt to transcribe *job*."""
        claim = self._claim(job)
        if claim is None:
            reason = "its rule or its provider has left the config"
            # Jobs at such a provider are no longer polled.
            ended = AttemptEnd(0.0, code="provider_removed", reason=reason, ambiguous=True)
            return Retry(0.0, "reloaded", reason, ended if job.remote else None)
        if job.remote is None and (left_alone := claim.rule.patterns.reason_not_taken(job.path)):
            # The rule has changed since the file was queued: a drop by mistake can still be stopped.
            return Withdrawn(f"the rule no longer takes it: {left_alone}")
        return await self.attempts.make(claim)

    async def publish(self, job: Job) -> Outcome:
        """Write the files of *job*."""
        claim = self._claim(job)
        if claim is None:
            return Retry(0.0, "reloaded", "its rule has left the config")
        if job.state is JobState.TRANSCRIBED and job.internal_errors >= MAX_INTERNAL_ERRORS:
            return await self._publisher.reject(claim)
        return await self._publisher.publish(claim)

    def _claim(self, job: Job) -> Claim | None:
        """*job* under the current config; None where that has lost its rule or its provider."""
        rule = self.runtime.config.folders.get(job.folder)
        if rule is None or (job.result is None and job.provider not in rule.providers):
            return None
        return Claim(job, self.runtime, rule)

    def close(self) -> None:
        """Stop accepting calls on users' folders, without waiting for hanging ones."""
        self.checks.close()
        self._disks.close()
