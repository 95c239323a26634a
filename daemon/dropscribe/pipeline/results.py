"""Answers made fit to keep: the whole document, and names that nobody else has."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dropscribe.core.model import Attempt, StoredResult
from dropscribe.core.naming import first_free, number_group
from dropscribe.files.writing import name_max_bytes
from dropscribe.providers.params import effective_params
from dropscribe.transcripts.document import (
    ErrorFacts,
    TranscriptFacts,
    error_document,
    name_text,
    path_text,
    reused_document,
    transcript_document,
)
from dropscribe.transcripts.render import RENDERERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dropscribe.config.model import FolderRule
    from dropscribe.core.model import AttemptEnd, Booking, Group, Job
    from dropscribe.pipeline.runtime_config import DiskThreads, RuntimeConfig
    from dropscribe.queue.engine import Engine
    from dropscribe.transcripts.model import Transcript

Refusals = Sequence[tuple[str, str]]
"""(provider, code) of those who refused a file before, in order."""

ERROR_SCHEMA_PREFIX = "dropscribe.error/"


def is_error(document: Mapping[str, Any]) -> bool:
    """Whether a kept document tells of a failure."""
    return str(document["schema"]).startswith(ERROR_SCHEMA_PREFIX)


class Answers:
    """Builds documents and keeps them under free names."""

    def __init__(self, queue: Engine, disks: DiskThreads) -> None:
        self._queue = queue
        self._disks = disks
        self._foreseen: dict[int, _Naming] = {}

    def transcript(
        self,
        job: Job,
        setup: RuntimeConfig,
        transcript: Transcript,
        sha256: str,
        seconds: float,
        refusals: Refusals,
    ) -> dict[str, Any]:
        """The transcript's document (CONTRACT.md §5)."""
        facts = _facts(job, setup, sha256, job.attempts, seconds, refusals)
        outputs = setup.rule(job.folder).outputs
        return transcript_document(transcript, facts, outputs=outputs, warnings=_warnings(job))

    def reused(
        self, job: Job, setup: RuntimeConfig, known: Mapping[str, Any], sha256: str, refusals: Refusals
    ) -> dict[str, Any]:
        """The transcript's document for a file whose content was answered before; nothing was sent."""
        facts = _facts(job, setup, sha256, job.attempts - 1, 0.0, refusals)
        outputs = setup.rule(job.folder).outputs
        return reused_document(known, facts, outputs=outputs, warnings=_warnings(job))

    async def error(self, job: Job, code: str, reason: str, ended: AttemptEnd) -> dict[str, Any]:
        """The error's document (CONTRACT.md §4), every attempt in it."""
        attempts = await self._queue.attempts(job)
        was_sent = ended.counted or any(attempt.refused for attempt in attempts)
        last = Attempt(attempts[-1].at, job.provider, ended.seconds, ended.status, ended.code, ended.reason)
        return error_document(
            ErrorFacts(
                path=job.path,
                folder=job.folder,
                code=code,
                reason=reason,
                failed_at=time.time(),
                provider=job.provider,
                attempts=[*attempts[:-1], *([last] if was_sent else [])],
            )
        )

    async def keep(
        self,
        job: Job,
        setup: RuntimeConfig,
        document: Mapping[str, Any],
        sha256: str,
        ended: AttemptEnd,
        booking: Booking | None = None,
    ) -> Job:
        """Keep *document* under the first names that neither the disk nor another job has."""
        rejected = is_error(document)
        rendered = _render(document, ("error",) if rejected else setup.rule(job.folder).outputs)
        naming = None if rejected else self._foreseen.get(job.id)
        refused: set[int] = set()
        while True:
            if naming is None:
                naming = await self._free_naming(job, setup, tuple(rendered), refused, rejected=rejected)
            group = naming.group(job.path, tuple(rendered))
            files = tuple((name, rendered[form]) for form, name in group.sidecars)
            result = StoredResult(_packed(document, rendered), sha256, group, files, document)
            if job.result is not None:
                moved = await self._queue.rename_outputs(job, result)
            else:
                moved = await self._queue.store_result(job, result, ended, rejected=rejected, booking=booking)
            if moved is not None:
                return moved
            refused.add(naming.number)
            naming = None

    def reserve_names(self, job: Job, setup: RuntimeConfig) -> None:
        """Find the names that an answer to *job* would get; blocking, for the thread that opens its audio.

        One way to a thread and back less a file. Should another take a name meanwhile, keeping or
        publishing finds out, as it does for a name that is taken between those two.
        """
        rule = setup.rule(job.folder)
        self._foreseen[job.id] = _first_free(rule, job.path, rule.outputs, frozenset(), rejected=False)

    def forget(self, job: Job) -> None:
        """The attempt is over: what was foreseen is old."""
        self._foreseen.pop(job.id, None)

    async def _free_naming(
        self, job: Job, setup: RuntimeConfig, formats: tuple[str, ...], refused: set[int], *, rejected: bool
    ) -> _Naming:
        """The next number's; *refused* numbers were reserved by other live jobs."""
        rule = setup.rule(job.folder)
        search = partial(_first_free, rule, job.path, formats, frozenset(refused), rejected=rejected)
        return await self._disks.run(job.folder, search)


@dataclass(frozen=True, slots=True)
class _Naming:
    """A number under which every name of a group was free."""

    root: bytes
    sidecar_name: str
    name_max_bytes: int
    number: int

    def group(self, path: bytes, formats: tuple[str, ...]) -> Group:
        return number_group(
            self.root,
            path,
            formats,
            sidecar_name=self.sidecar_name,
            number=self.number,
            name_max_bytes=self.name_max_bytes,
        )


def _first_free(
    rule: FolderRule, path: bytes, formats: tuple[str, ...], refused: Collection[int], *, rejected: bool
) -> _Naming:
    root = os.fsencode(rule.failed if rejected else rule.done)
    first = _Naming(root, rule.sidecar_name, name_max_bytes(root), 1)

    def is_free(number: int) -> bool:
        return number not in refused and _is_free(replace(first, number=number).group(path, formats))

    return replace(first, number=first_free(is_free))


def _facts(
    job: Job, setup: RuntimeConfig, sha256: str, attempts: int, seconds: float, refusals: Refusals
) -> TranscriptFacts:
    provider = setup.config.providers[job.provider]
    return TranscriptFacts(
        path=job.path,
        size_bytes=job.snapshot.size_bytes,
        sha256=sha256,
        modified_at=job.snapshot.mtime_ns / 1e9,
        provider_name=provider.name,
        provider_type=provider.type,
        params=effective_params(provider.type, setup.rule(job.folder).params_for(job.provider)),
        folder=job.folder,
        attempts=attempts,
        received_at=job.received_at,
        transcribed_at=time.time(),
        elapsed_seconds=seconds,
        refusals=refusals,
    )


def _warnings(job: Job) -> tuple[str, ...]:
    return ("incomplete_audio",) if job.incomplete else ()


def content_of(result: StoredResult) -> Mapping[str, Any]:
    """The document of a stored result: as built, or parsed after a restart."""
    return result.content if result.content is not None else json.loads(result.document)


def files_of(kept: StoredResult) -> tuple[tuple[bytes, bytes], ...]:
    """(file name, content) of the sidecars: at hand, or rendered again from the document."""
    if kept.files is not None:
        return kept.files
    rendered = _render(content_of(kept), [form for form, _ in kept.group.sidecars])
    return tuple((name, rendered[form]) for form, name in kept.group.sidecars)


def renamed(document: Mapping[str, Any], path: bytes) -> dict[str, Any]:
    """*document* for a file that was renamed inside its inbox while it was in flight."""
    if is_error(document):
        return {**document, "file": name_text(path)}
    source = {**document["source"], "file": name_text(path), "path": path_text(path)}
    return {**document, "source": source}


def _render(document: Mapping[str, Any], formats: Collection[str]) -> dict[str, bytes]:
    """Form → content, in writing order; forms with nothing to show (no times) are left out."""
    rendered = {form: RENDERERS[form](document) for form in formats}
    return {form: content for form, content in rendered.items() if content is not None}


def _packed(document: Mapping[str, Any], rendered: Mapping[str, bytes]) -> bytes:
    return rendered.get("json") or rendered.get("error") or json.dumps(document).encode()


def _is_free(group: Group) -> bool:
    return not any(os.path.lexists(group.path(name)) for name in group.names)
