"""Turns answers into documents, and stores them under names that nothing else has."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from dropscribe.config.sections.templates import template_output
from dropscribe.core.errors import AudioError, DropscribeError
from dropscribe.core.model import Attempt, JobState, StoredResult
from dropscribe.core.naming import TEMPLATE, OutputPlan, number_names
from dropscribe.files.audio import open_folder_of
from dropscribe.files.beneath import closing
from dropscribe.files.companions import find_companions
from dropscribe.files.threads import DaemonThreads
from dropscribe.pipeline.disk_threads import FolderHangs
from dropscribe.pipeline.templates import TemplateFailed, render_by_template
from dropscribe.providers.params import effective_params
from dropscribe.publish.free_names import find_free_names
from dropscribe.transcripts.document import (
    ERROR_SCHEMA_PREFIX,
    ErrorFacts,
    TranscriptFacts,
    error_document,
    is_document,
    name_text,
    reused_document,
    transcript_document,
    with_companions,
)
from dropscribe.transcripts.layout import DEFAULT_LAYOUT, Layout
from dropscribe.transcripts.render import RENDERERS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from dropscribe.config.model import FolderRule
    from dropscribe.core.bookings import Booking
    from dropscribe.core.model import AttemptEnd, Job, OutputNames
    from dropscribe.files.companions import FoundCompanion
    from dropscribe.pipeline.disk_threads import DiskThreads
    from dropscribe.pipeline.runtime_config import RuntimeConfig
    from dropscribe.queue.engine import Engine
    from dropscribe.transcripts.model import Transcript

log = structlog.get_logger()

T = TypeVar("T")

Refusals = Sequence[tuple[str, str]]
"""(provider, code) of those who refused a file before, in order."""

SHORTEST_NAME_MAX_BYTES = 143
"""The longest name that every file system here takes (eCryptfs has the least)."""

_SHORT_VALUES, _CHARACTERS_OF_A_VALUE = 500, 40

TEMPLATE_FAILED = "template_failed"
LAYOUT = "layout"
"""Key of a stored document that no sidecar has: its layout, where it is not the default one."""


def is_error(document: Mapping[str, Any]) -> bool:
    """Whether a kept document tells of a failure."""
    return str(document["schema"]).startswith(ERROR_SCHEMA_PREFIX)


class RenderError(DropscribeError):
    """Raised when a document cannot be written as text: a bug, or an absurd answer."""


class Results:
    """Builds documents and stores them under free names.

    Guarantees: building, parsing and rendering take seconds for an answer of megabytes. They run on the event
    loop only for a short one, which takes less time than a thread takes to answer.
    """

    def __init__(self, queue: Engine, disks: DiskThreads) -> None:
        self._queue = queue
        self._disks = disks
        self._threads = DaemonThreads(1, "render")
        self._template_threads = DaemonThreads(1, "template")

    async def transcript(
        self,
        job: Job,
        runtime: RuntimeConfig,
        transcript: Transcript,
        sha256: str,
        seconds: float,
        refusals: Refusals,
    ) -> dict[str, Any]:
        """The document of a new answer.

        Raises:
            RenderError: It cannot be built.
        """
        facts = _facts(job, runtime, sha256, job.attempts, seconds, refusals)
        outputs = runtime.rule(job.folder).outputs
        build = partial(transcript_document, transcript, facts, outputs=outputs, warnings=_warnings(job))
        is_short = _is_short(transcript.text, transcript.segments, transcript.words, transcript.raw)
        return await self._rendering(build, is_short=is_short)

    async def reused(
        self, job: Job, runtime: RuntimeConfig, cached: bytes, sha256: str, refusals: Refusals
    ) -> dict[str, Any]:
        """The document of a file whose content was answered before; nothing was sent.

        Args:
            cached: The document of the earlier file.

        Raises:
            RenderError: It cannot be built.
        """
        facts = _facts(job, runtime, sha256, job.attempts - 1, 0.0, refusals)
        outputs = runtime.rule(job.folder).outputs
        return await self._rendering(
            lambda: reused_document(_unpacked(cached)[0], facts, outputs=outputs, warnings=_warnings(job))
        )

    async def loaded(self, job: Job) -> Job:
        """*job* with the content of its stored result, which after a restart is parsed and rendered anew.

        Raises:
            RenderError: This version cannot render it.
        """
        result = job.result
        if result is None or (result.content is not None and result.files is not None):
            return job
        return replace(job, result=await self._rendering(partial(_loaded, result)))

    async def error(self, job: Job, code: str, reason: str, ended: AttemptEnd) -> dict[str, Any]:
        """The error document of *job*, with every attempt."""
        attempts = await self._queue.results.attempts(job)
        was_sent = ended.counted or any(attempt.refused for attempt in attempts)
        last = Attempt(time.time(), job.provider, ended.seconds, ended.status, ended.code, ended.reason)
        if attempts:
            last = replace(last, at=attempts[-1].at)
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

    async def store(
        self,
        job: Job,
        runtime: RuntimeConfig,
        document: Mapping[str, Any],
        sha256: str,
        ended: AttemptEnd,
        booking: Booking | None = None,
    ) -> Job:
        """Store *document* under the first names that neither the disk nor another job has.

        Raises:
            RenderError: It cannot be rendered; nothing is stored.
        """
        rejected = is_error(document)
        rule = runtime.rule(job.folder)
        companions = await self._companions(job, runtime)
        if rule.companions and not rejected:
            document = _with_companions(document, companions, rule)
        audio = job.path.rpartition(b"/")[2]
        document, packed, rendered = await self._rendered(job, rule, document, audio)
        root = os.fsencode(rule.failed if rejected else rule.done)
        files_to_name = tuple(each.file for each in companions)
        plan = OutputPlan(root, job.path, tuple(rendered), rule.sidecar_name, files_to_name)
        refused: set[int] = set()
        while True:
            number, names = await self._free_names(job, plan, refused)
            if rule.template is not None and not rejected and names.audio != audio:
                audio = names.audio  # the template may name the recording
                document, packed, rendered = await self._rendered(job, rule, document, audio)
                plan = replace(plan, formats=tuple(rendered))
                continue
            files = tuple((name, rendered[form]) for form, name in names.sidecars)
            result = StoredResult(packed, sha256, names, files, document)
            if job.result is None:
                moved = await self._queue.results.store_result(
                    job, result, ended, rejected=rejected, booking=booking
                )
            elif rejected and job.state is JobState.TRANSCRIBED:
                moved = await self._queue.results.reject_result(job, result)
            else:
                moved = await self._queue.results.rename_outputs(job, result)
            if moved is not None:
                return moved
            refused.add(number)

    async def _rendering(self, work: Callable[[], T], *, is_short: bool = False) -> T:
        """*work* in a thread of its own, or at once if it *is_short*.

        Raises:
            RenderError: It failed.
        """
        try:
            if is_short:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Exception as error:
            raise RenderError(type(error).__name__) from error

    async def _rendered(
        self, job: Job, rule: FolderRule, document: Mapping[str, Any], audio: bytes
    ) -> tuple[Mapping[str, Any], bytes, dict[str, bytes]]:
        """(document, document to store, content by format) of a job whose recording gets the name *audio*.

        Raises:
            RenderError: It cannot be rendered.
        """
        forms, layout = (
            (("error",), DEFAULT_LAYOUT) if is_error(document) else (rule.outputs, layout_of(rule))
        )
        if rule.template is not None and not is_error(document):
            document, texts = await self._by_template(rule.template, job, document, audio)
            forms, layout = (*forms, *texts), replace(layout, texts=texts)
        packed, rendered = await self._rendering(
            partial(_packed_and_rendered, document, forms, layout), is_short=_is_short(document)
        )
        return document, packed, rendered

    async def _by_template(
        self, template: Path, job: Job, document: Mapping[str, Any], audio: bytes
    ) -> tuple[Mapping[str, Any], dict[str, str]]:
        """(document, text by format): where the template fails, a warning in the document and no text."""
        document = {
            **document,
            "warnings": [word for word in document["warnings"] if word != TEMPLATE_FAILED],
        }
        call = partial(render_by_template, template, document, name_text(audio))
        try:
            text = await asyncio.get_running_loop().run_in_executor(self._template_threads, call)
        except TemplateFailed as error:
            log.warning("template.failed", folder=job.folder, path=job.path, reason=str(error))
            return {**document, "warnings": [*document["warnings"], TEMPLATE_FAILED]}, {}
        return document, {TEMPLATE + template_output(template): text}

    async def _companions(self, job: Job, runtime: RuntimeConfig) -> list[FoundCompanion]:
        """The companions beside the recording; none where its folder does not answer."""
        rule, inbox = runtime.rule(job.folder), runtime.inbox(job.folder)
        if not rule.companions:
            return []
        name = job.path.rpartition(b"/")[2]

        def find() -> list[FoundCompanion]:
            with closing(open_folder_of(inbox, job.path)) as folder:
                return find_companions(folder, name, rule.companions, rule.settle_seconds)

        try:
            return await self._disks.run(job.folder, find)
        except (AudioError, OSError, FolderHangs):
            return []

    async def _free_names(
        self, job: Job, plan: OutputPlan, refused: Collection[int]
    ) -> tuple[int, OutputNames]:
        """The first free number with its names; *refused* numbers were reserved by other live jobs."""
        search = partial(find_free_names, plan, frozenset(refused))
        try:
            return await self._disks.run(job.folder, search)
        except FolderHangs:
            # The answer is paid for and is stored now; publishing finds out whether the names are free.
            number = max(refused, default=0) + 1
            return number, number_names(plan, number, SHORTEST_NAME_MAX_BYTES)


def _is_short(*parts: object) -> bool:
    """Whether a document of these JSON values is built and rendered within a millisecond or two."""
    left, waiting = _SHORT_VALUES, list(parts)
    while waiting and left > 0:
        value = waiting.pop()
        left -= 1
        if isinstance(value, str):
            left -= len(value) // _CHARACTERS_OF_A_VALUE
        elif isinstance(value, (dict, list, tuple)):
            if len(value) > left:
                return False
            waiting += value.values() if isinstance(value, dict) else value
    return left > 0


def _with_companions(
    document: Mapping[str, Any], found: Collection[FoundCompanion], rule: FolderRule
) -> dict[str, Any]:
    contents = {name_text(each.file.source): each.content[0] for each in found if each.content}
    is_missing = rule.companions_wait_seconds > 0 and len(found) < len(rule.companions)
    return with_companions(document, contents, rule.recorded_at, is_missing=is_missing)


def _facts(
    job: Job, runtime: RuntimeConfig, sha256: str, attempts: int, seconds: float, refusals: Refusals
) -> TranscriptFacts:
    provider, rule = runtime.config.providers[job.provider], runtime.rule(job.folder)
    return TranscriptFacts(
        path=job.path,
        size_bytes=job.snapshot.size_bytes,
        sha256=sha256,
        modified_at=job.snapshot.mtime_ns / 1e9,
        provider_name=provider.name,
        provider_type=provider.type,
        params=effective_params(provider.type, rule.params_for(job.provider)),
        folder=job.folder,
        attempts=attempts,
        received_at=job.received_at,
        transcribed_at=time.time(),
        elapsed_seconds=seconds,
        refusals=refusals,
        speaker_names=rule.speaker_names,
        date_pattern=rule.recorded_at,
    )


def _warnings(job: Job) -> tuple[str, ...]:
    return ("incomplete_audio",) if job.incomplete else ()


def content_of(result: StoredResult) -> Mapping[str, Any]:
    """The document of a stored result: as built, or parsed after a restart."""
    return result.content if result.content is not None else _unpacked(result.document)[0]


def _unpacked(packed: bytes) -> tuple[dict[str, Any], Layout]:
    document = json.loads(packed)
    if not is_document(document):
        raise ValueError("it is no document of dropscribe's: another program has written it")
    layout = document.pop(LAYOUT, None)
    return document, Layout.from_json(layout) if layout else DEFAULT_LAYOUT


def _loaded(result: StoredResult) -> StoredResult:
    document, layout = _unpacked(result.document)
    rendered = render(document, [form for form, _ in result.output_names.sidecars], layout)
    files = tuple((name, rendered[form]) for form, name in result.output_names.sidecars)
    return replace(result, content=document, files=files)


def layout_of(rule: FolderRule) -> Layout:
    """The layout of the text outputs of *rule*."""
    return Layout(
        line_characters=rule.subtitles.line_characters,
        cue_lines=rule.subtitles.lines,
        cue_seconds=rule.subtitles.cue_seconds,
        paragraphs=rule.paragraphs,
    )


def render(
    document: Mapping[str, Any], formats: Collection[str], layout: Layout = DEFAULT_LAYOUT
) -> dict[str, bytes]:
    """Form → content, in writing order; forms with nothing to show (no times) are left out."""
    rendered = {form: _rendered_form(form, document, layout) for form in formats}
    return {form: content for form, content in rendered.items() if content is not None}


def _rendered_form(form: str, document: Mapping[str, Any], layout: Layout) -> bytes | None:
    if form in layout.texts:
        return layout.texts[form].encode("utf-8", "replace")
    return RENDERERS[form](document, layout)


def _packed_and_rendered(
    document: Mapping[str, Any], forms: Collection[str], layout: Layout
) -> tuple[bytes, dict[str, bytes]]:
    rendered = render(document, forms, layout)
    return _packed(document, rendered, layout), rendered


def _packed(document: Mapping[str, Any], rendered: Mapping[str, bytes], layout: Layout) -> bytes:
    """The document to store, with the layout: a reload may change the rule before a crash."""
    if layout != DEFAULT_LAYOUT:
        return json.dumps({**document, LAYOUT: layout.as_json()}).encode()
    return rendered.get("json") or rendered.get("error") or json.dumps(document).encode()
