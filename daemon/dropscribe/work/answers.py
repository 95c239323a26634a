"""Answers made fit to keep: the whole document, and names that nobody else has."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dropscribe.core.model import Attempt, Kept
from dropscribe.core.naming import first_free, number_group
from dropscribe.disk.writing import name_max_bytes
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

    from dropscribe.core.model import AttemptEnd, Booking, Group, Job
    from dropscribe.jobs.engine import Engine
    from dropscribe.transcripts.model import Transcript
    from dropscribe.work.setup import DiskThreads, Setup

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

    def transcript(
        self, job: Job, setup: Setup, transcript: Transcript, sha256: str, seconds: float, refusals: Refusals
    ) -> dict[str, Any]:
        """The transcript's document (CONTRACT.md §5)."""
        facts = _facts(job, setup, sha256, job.attempts, seconds, refusals)
        outputs = setup.rule(job.folder).outputs
        return transcript_document(transcript, facts, outputs=outputs, warnings=_warnings(job))

    def reused(
        self, job: Job, setup: Setup, known: Mapping[str, Any], sha256: str, refusals: Refusals
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
        setup: Setup,
        document: Mapping[str, Any],
        sha256: str,
        ended: AttemptEnd,
        booking: Booking | None = None,
    ) -> Job:
        """Keep *document* under the first names that neither the disk nor another job has."""
        rejected = is_error(document)
        rendered = _render(document, ("error",) if rejected else setup.rule(job.folder).outputs)
        refused: set[int] = set()
        while True:
            group = await self._free_group(job, setup, tuple(rendered), refused, rejected=rejected)
            files = tuple((name, rendered[form]) for form, name in group.sidecars)
            kept = Kept(_packed(document, rendered), sha256, group, files)
            moved = await self._queue.keep(job, kept, ended, rejected=rejected, booking=booking)
            if moved is not None:
                return moved

    async def _free_group(
        self, job: Job, setup: Setup, formats: tuple[str, ...], refused: set[int], *, rejected: bool
    ) -> Group:
        """The group with the next number; *refused* numbers were reserved by other live jobs."""
        rule = setup.rule(job.folder)
        root = os.fsencode(rule.failed if rejected else rule.done)

        def choose() -> tuple[int, Group]:
            limit_bytes = name_max_bytes(root)

            def group(number: int) -> Group:
                return number_group(
                    root,
                    job.path,
                    formats,
                    sidecar_name=rule.sidecar_name,
                    number=number,
                    name_max_bytes=limit_bytes,
                )

            number = first_free(lambda number: number not in refused and _is_free(group(number)))
            return number, group(number)

        loop = asyncio.get_running_loop()
        number, group = await loop.run_in_executor(self._disks.of(job.folder), choose)
        refused.add(number)
        return group


def _facts(
    job: Job, setup: Setup, sha256: str, attempts: int, seconds: float, refusals: Refusals
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


def files_of(kept: Kept) -> tuple[tuple[bytes, bytes], ...]:
    """(file name, content) of the sidecars: at hand, or rendered again from the document."""
    if kept.files is not None:
        return kept.files
    document = json.loads(kept.document)
    rendered = _render(document, [form for form, _ in kept.group.sidecars])
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
