"""A claimed job with the config that its callback began with, and the providers that are built for a config.

Guarantees: of link files the daemon itself fetches nothing, a link that the rule refuses is sent nowhere, and
urls are stored and logged without their query.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os.path import splitext
from typing import cast

from dropscribe.config.model import Config, FolderRule, ProviderConfig
from dropscribe.core.errors import AudioRejected, ProviderError
from dropscribe.core.links import LinkRefused, check_link, is_link, read_link, why_no_links, without_query
from dropscribe.core.model import Job, StoredResult
from dropscribe.core.requests.params import ParamValue, effective_params
from dropscribe.core.text.printing import path_text
from dropscribe.files.audio import AudioFile
from dropscribe.media.fitted import FittedProvider
from dropscribe.media.spool import Spool
from dropscribe.providers.base import Provider, Transcriber
from dropscribe.providers.vendor import HttpProvider
from dropscribe.publish.places import FreeNames
from dropscribe.queue.engine import Engine
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
