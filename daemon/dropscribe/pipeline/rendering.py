"""Builds, parses and renders documents beside the event loop.

Guarantees: this takes seconds for an answer of megabytes, and runs on the event loop only for a short one,
which takes less time than a thread takes to answer.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog

from dropscribe.config.model import FolderRule
from dropscribe.config.sections.templates import read_template, template_output
from dropscribe.core.errors import DropscribeError
from dropscribe.core.model import StoredResult
from dropscribe.core.naming import TEMPLATE
from dropscribe.core.text.printing import name_text, one_line
from dropscribe.files.threads import DaemonThreads
from dropscribe.native.process import child_environment
from dropscribe.transcripts.document import is_document, is_error
from dropscribe.transcripts.render import DEFAULT_LAYOUT, RENDERERS, Layout

log = structlog.get_logger()

T = TypeVar("T")

_SHORT_VALUES, _CHARACTERS_OF_A_VALUE = 1000, 40
_CONTAINERS = {dict, list, tuple}

RENDER_SECONDS = 60.0  # longest time for one render, on a machine that has much else to do

TEMPLATE_FAILED = "template_failed"
LAYOUT = "layout"  # key of a stored document that no sidecar has: its layout, where it is not the default one


class RenderError(DropscribeError):
    """Raised when a document cannot be written as text: a bug, or an absurd answer."""


class TemplateFailed(DropscribeError):
    """Raised with the reason, in words for people, when a template gives no text."""


class Rendered(NamedTuple):
    """A document in every form."""

    document: Mapping[str, Any]  # with the warnings of its rendering
    packed: bytes  # as it is stored, with its layout: a reload may change the rule before a crash
    contents: dict[str, bytes]  # by sidecar format, in writing order


class Renderer:
    """Makes documents and their texts, one after the other."""

    def __init__(self) -> None:
        self._threads = DaemonThreads(1, "render")
        self._template_threads = DaemonThreads(1, "template")

    async def build(self, make: Callable[[], T], *parts: object) -> T:
        """The result of *make*, or RenderError; *parts* are JSON values whose size predicts its duration."""
        try:
            if _is_short(*parts):
                return make()
            return await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except Exception as error:
            raise RenderError(type(error).__name__) from error

    async def render(self, rule: FolderRule, document: Mapping[str, Any], audio: bytes) -> Rendered:
        """*document* in the forms that *rule* asks for, or RenderError; *audio* is its name in ``done``."""
        if is_error(document):
            return await self.build(partial(_rendered, document, ("error",), DEFAULT_LAYOUT), document)
        forms, subtitles, texts = rule.outputs, rule.subtitles, dict[str, str]()
        if rule.template is not None:
            document, texts = await self._by_template(rule, rule.template, document, audio)
            forms = (*forms, *texts)
        layout = Layout(
            line_characters=subtitles.line_characters,
            cue_lines=subtitles.lines,
            cue_seconds=subtitles.cue_seconds,
            paragraphs=rule.paragraphs,
            texts=texts,
        )
        return await self.build(partial(_rendered, document, forms, layout), document)

    async def _by_template(
        self, rule: FolderRule, template: Path, document: Mapping[str, Any], audio: bytes
    ) -> tuple[Mapping[str, Any], dict[str, str]]:
        """(document, text by format): where the template fails, a warning in the document and no text."""
        warnings = [word for word in document["warnings"] if word != TEMPLATE_FAILED]
        document = {**document, "warnings": warnings}
        call = partial(render_by_template, template, document, name_text(audio))
        try:
            text = await asyncio.get_running_loop().run_in_executor(self._template_threads, call)
        except TemplateFailed as error:
            log.warning(
                "template.failed", folder=rule.name, path=document["source"]["path"], reason=str(error)
            )
            return {**document, "warnings": [*warnings, TEMPLATE_FAILED]}, {}
        return document, {TEMPLATE + template_output(template): text}


def render_by_template(path: Path, document: Mapping[str, Any], audio: str) -> str:
    """The text that the template at *path* makes of *document*; raises TemplateFailed.

    *audio* is the recording's name in ``done``.
    """
    try:
        request = json.dumps({"template": read_template(path), "document": document, "audio": audio}).encode()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "dropscribe.transcripts.template"],
            input=request,
            capture_output=True,
            timeout=RENDER_SECONDS,
            check=False,
            env=child_environment(),
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise TemplateFailed(f"it was not rendered within {RENDER_SECONDS:g} s") from None
    except (OSError, ValueError) as error:
        raise TemplateFailed(str(error)) from error
    if done.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
        raise TemplateFailed("it takes too much work")
    if done.returncode:
        said = one_line(done.stderr.decode(errors="replace"))[-500:]
        raise TemplateFailed(said or f"exit status {done.returncode}")
    return done.stdout.decode()


def _is_short(*parts: Any) -> bool:
    """Whether a document of these JSON values is built and rendered within a millisecond or two."""
    left: int = _SHORT_VALUES
    waiting: list[Any] = [parts]
    while waiting and (left := left - len(waiting[-1])) > 0:
        for value in waiting.pop():
            kind = type(value)  # of short documents hundreds of values are looked at, for each file
            if kind is str or kind is bytes:
                left -= len(value) // _CHARACTERS_OF_A_VALUE
            elif kind in _CONTAINERS:
                waiting.append(value)  # of a mapping the keys, which may be long too
                if kind is dict:
                    waiting.append(value.values())
    return left > 0


def content_of(result: StoredResult) -> Mapping[str, Any]:
    """The document of a stored result: as built, or parsed after a restart."""
    return result.content if result.content is not None else unpacked(result.document)[0]


def unpacked(packed: bytes) -> tuple[dict[str, Any], Layout]:
    """A stored document and its layout; raises ValueError if it is none of ours."""
    document = json.loads(packed)
    if not is_document(document):
        raise ValueError("it is no document of dropscribe's: another program has written it")
    layout = document.pop(LAYOUT, {})
    # A newer version, in a cluster that is being updated, may have stored more.
    known = {each.name: layout[each.name] for each in fields(Layout) if each.name in layout}
    return document, Layout(**known)


def loaded(result: StoredResult) -> StoredResult:
    """*result*, parsed and rendered anew."""
    document, layout = unpacked(result.document)
    rendered = _contents(document, [form for form, _ in result.output_names.sidecars], layout)
    files = tuple((name, rendered[form]) for form, name in result.output_names.sidecars)
    return replace(result, content=document, files=files)


def _contents(document: Mapping[str, Any], formats: Collection[str], layout: Layout) -> dict[str, bytes]:
    contents = {}
    for form in formats:
        text = layout.texts.get(form)
        content = RENDERERS[form](document, layout) if text is None else text.encode("utf-8", "replace")
        if content is not None:
            contents[form] = content
    return contents


def _rendered(document: Mapping[str, Any], formats: Collection[str], layout: Layout) -> Rendered:
    contents = _contents(document, formats, layout)
    if layout != DEFAULT_LAYOUT:
        packed = json.dumps({**document, LAYOUT: asdict(layout)}).encode()
    else:
        packed = contents.get("json") or contents.get("error") or json.dumps(document).encode()
    return Rendered(document, packed, contents)
