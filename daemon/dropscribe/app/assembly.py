"""Builds the pipeline and its runtime config, for the daemon and for the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.media.fitted import add_fitted_providers
from dropscribe.pipeline.attempts import Attempts
from dropscribe.pipeline.budgets import Budgets
from dropscribe.pipeline.deduplication import Deduplication, settings_digest
from dropscribe.pipeline.disk_threads import DiskThreads
from dropscribe.pipeline.failures import Failures, Fallback
from dropscribe.pipeline.folder_troubles import PlaceChecks, PublishTroubles
from dropscribe.pipeline.handler import Handler
from dropscribe.pipeline.holds import Holds
from dropscribe.pipeline.links import add_link_providers
from dropscribe.pipeline.publisher import Publisher
from dropscribe.pipeline.results import Results
from dropscribe.pipeline.runtime_config import RuntimeConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.config.model import Config
    from dropscribe.pipeline.observer import Observer
    from dropscribe.pipeline.runtime_config import IntakeSide
    from dropscribe.providers.base import Provider
    from dropscribe.queue.engine import Engine


def build_runtime(config: Config, providers: Mapping[str, Provider], queue: Engine) -> RuntimeConfig:
    """Everything that the pipeline takes from *config*, as one immutable value.

    Args:
        providers: Each provider that a rule names.
        queue: Its rate limits hold for the pieces of long recordings too.
    """
    decorated: dict[tuple[str, str], Provider] = {}
    add_fitted_providers(config, providers, decorated, queue.dispatcher.wait_for_turn)
    add_link_providers(config, providers, decorated)  # last: links are not prepared as recordings are
    digests = {
        (rule.name, name): settings_digest(rule, config.providers[name])
        for rule in config.folders.values()
        for name in rule.providers
    }
    return RuntimeConfig(config, providers, decorated, digests)


class Pipeline:
    """The parts of the pipeline, joined.

    Attributes:
        handler: The queue's callbacks; its ``runtime`` is swapped at a reload.
        budgets: The caller audits them at the start, at each reload and when a day begins.
    """

    def __init__(
        self,
        runtime: RuntimeConfig,
        queue: Engine,
        intake: IntakeSide,
        observer: Observer,
        *,
        token: str,
        jitter: Callable[[], float],
    ) -> None:
        self._disks = disks = DiskThreads(queue)
        holds, fallback, results = Holds(queue, observer), Fallback(queue), Results(queue, disks)
        failures = Failures(queue, holds, fallback, results, jitter)
        self.budgets = Budgets(queue, observer, disks)
        deduplication = Deduplication(queue)
        self._checks = checks = PlaceChecks(queue, disks)
        attempts = Attempts(
            holds, intake, observer, disks, checks, results, deduplication, fallback, self.budgets, failures
        )
        troubles = PublishTroubles(queue, intake, disks, results)
        publisher = Publisher(queue, troubles, observer, disks, results, token)
        self.handler = Handler(runtime, attempts, publisher)

    def rule_changed(self, folder: str) -> None:
        """Let the next file of *folder* show whether its places can be written now."""
        self._checks.reopen(folder)

    def close(self) -> None:
        """Stop accepting calls on users' folders, without waiting for hanging ones."""
        self._checks.close()
        self._disks.close()
