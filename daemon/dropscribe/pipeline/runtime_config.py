"""One config with the objects built from it, a value that a reload replaces; a job under such a config."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.media.fitted import FittedProvider
from dropscribe.media.spool import Spool
from dropscribe.pipeline.deduplication import settings_digest
from dropscribe.pipeline.links import WithLinks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import Config, FolderRule, ProviderConfig
    from dropscribe.core.model import Job, StoredResult
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.providers.base import Provider, Transcriber
    from dropscribe.publish.places import FreeNames
    from dropscribe.queue.engine import Engine


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """One config and the providers built for it."""

    config: Config
    providers: Mapping[str, Provider]
    transcribers: Mapping[tuple[str, str], Transcriber]
    """(folder, provider) → the provider, wrapped with the rule's preparation where the rule wants it."""
    digests: Mapping[tuple[str, str], str]
    """(folder, provider) → the digest of all settings that affect an answer."""


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
            digests[rule.name, name] = settings_digest(rule, settings)
    return RuntimeConfig(config, providers, transcribers, digests)


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
        """The digest of all settings that affect an answer to the job."""
        return self.runtime.digests[self.rule.name, self.job.provider]

    @property
    def result(self) -> StoredResult:
        """The job's stored result; ValueError where there is none is a bug."""
        if self.job.result is None:
            raise ValueError("a job without a result has nothing to publish")
        return self.job.result
