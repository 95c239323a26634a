"""The pages for people. Everything that is shown passes the templates' escaping."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from dropscribe.core.errors import AudioError
from dropscribe.core.model import JobState
from dropscribe.core.naming import OUTPUT_FORMATS
from dropscribe.core.text.printing import path_text
from dropscribe.pipeline.disk_threads import FolderHangs
from dropscribe.search.finding import MOST_LOOKED_AT, search
from dropscribe.search.index import NEWEST
from dropscribe.web import file_views, reading, views
from dropscribe.web.queries import STATES, chosen_from, filter_of, id_of
from dropscribe.web.recordings import OpenFile, send_file
from dropscribe.web.site import READ_SECONDS, NotHere, Site

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

_SILENT_WORDS = "the folder's file system does not answer: recording and transcript cannot be shown"
_NOT_KEPT = frozenset({"before", "did", "n"})
"""Parts of a query that the links to other pages leave out."""


async def overview(site: Site, request: Request) -> Response:
    """All folders and providers, the newest files, and the last days."""
    config = site.source.config()
    async with asyncio.timeout(READ_SECONDS):
        document = await site.source.status()
    lists, days = await site.read(reading.read_lists, config, site.source.progress)
    inboxes = {name: str(rule.inbox) for name, rule in config.folders.items()}
    return site.page(
        request,
        "overview.html",
        title="Overview",
        overview=views.overview(document, inboxes),
        lists=lists,
        today=views.day_words(days[-1][1]) if days else "",
        chart=views.chart_of(days),
    )


async def folder(site: Site, request: Request) -> Response:
    """One folder's files, filtered and page by page."""
    config, rule = site.source.config(), site.rule(request)
    chosen = chosen_from(request.query_params)
    wanted = filter_of(rule.name, chosen)
    shown = await site.read(reading.read_page, config, wanted)
    older = shown.older_than
    query = {key: value for key, value in request.query_params.items() if key not in _NOT_KEPT}
    here = f"{site.access.root_path}/folders/{quote(rule.name, safe='')}"
    async with asyncio.timeout(READ_SECONDS):
        document = await site.source.status()
    return site.page(
        request,
        "folder.html",
        title=rule.name,
        folder=rule.name,
        inbox=str(rule.inbox),
        rows=shown.rows,
        unlisted=shown.unlisted,
        chosen=chosen,
        states=[(value, label) for value, (label, _) in STATES.items()],
        providers=list(config.providers),
        failed_ids=",".join(str(row["id"]) for row in shown.rows if row["state"] == "failed"),
        backlog=document["folders"].get(rule.name, {}).get("backlog", 0),
        uploads=bool(config.http and config.http.uploads),
        newest_href=f"{here}?{urlencode(query)}" if wanted.before_id else "",
        older_href=f"{here}?{urlencode({**query, 'before': older})}" if older else "",
    )


async def search_page(site: Site, request: Request) -> Response:
    """The transcripts that hold some words."""
    config = site.source.config()
    if not config.search:
        raise NotHere("Search is off", "The config turns it off (search: false).")
    query, before_id = request.query_params.get("q", "")[:500], id_of(request.query_params.get("before"))
    found = await site.read(
        lambda: search(config, query, before_id=before_id or NEWEST, most_looked_at=MOST_LOOKED_AT)
    )
    here = f"{site.access.root_path}/search?"
    return site.page(
        request,
        "search.html",
        title=f"{query} · Search" if query else "Search",
        query=query,
        hits=[views.hit_of(file) for file in found.files],
        newest_href=here + urlencode({"q": query}) if before_id else "",
        older_href=here + urlencode({"q": query, "before": found.older_than}) if found.older_than else "",
    )


async def file(site: Site, request: Request) -> Response:
    """The record of one file, its transcript and its recording."""
    found = await site.find_file(request)
    record, told = found.record, found.explanation
    shown = {
        "id": record.id,
        "name": path_text(record.path),
        "folder": record.folder,
        "state": told.state.replace("_", " "),
        "tone": {"done": "good", "failed": "bad"}.get(told.state, "warn"),
        "has_ended": not record.state.is_live,
        "sentences": [*told.words, *([_SILENT_WORDS] if found.is_silent else [])],
        "remedy": told.remedy,
        "can_retry": record.state is JobState.FAILED and found.has_audio,
        "downloads": [
            {"form": form, "label": form.upper() if form in OUTPUT_FORMATS else form}
            for form in found.sidecars
        ],
        "has_audio": found.has_audio,
        "steps": file_views.steps_of(record),
        **_transcript(found.document, record.size_bytes),
    }
    return site.page(request, "file.html", title=shown["name"], folder=record.folder, file=shown)


def _transcript(document: Mapping[str, Any] | None, size_bytes: int) -> dict[str, Any]:
    """The parts of a transcript that the page shows; none of one that another program has broken."""
    try:
        return {
            "can_forget": bool(document and file_views.sha256_of(document)),
            "warnings": file_views.warnings_of(document),
            "turns": file_views.turns_of(document) if document else None,
            "facts": file_views.facts_of(document, size_bytes),
        }
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return _transcript(None, size_bytes)


async def audio(site: Site, request: Request) -> Response:
    """A file's recording, to listen to."""
    found = await site.find_file(request)
    path = found.place.path if found.place else None
    return await _send(site, request, found, path, download=False)


async def sidecar(site: Site, request: Request) -> Response:
    """One of a file's transcripts, to save."""
    found = await site.find_file(request)
    path = found.sidecars.get(request.path_params["form"])
    return await _send(site, request, found, path, download=True)


async def _send(
    site: Site, request: Request, found: reading.FileStory, path: bytes | None, *, download: bool
) -> Response:
    if found.is_silent:
        raise FolderHangs(found.record.folder)
    if found.place is None or path is None:
        raise NotHere
    calls = site.calls(found.record.folder)
    try:
        opened = await calls.make(OpenFile, found.place.root, path)
    except (AudioError, OSError):
        raise NotHere from None
    return send_file(request, opened, calls, download=download)
