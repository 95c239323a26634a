"""The pages for people. Everything that is shown passes the templates' escaping.

They are rendered in threads: many readers, or a long transcript, would hold up the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from dropscribe.core.errors import AudioError
from dropscribe.core.model import JobState
from dropscribe.core.naming import OUTPUT_FORMATS
from dropscribe.core.text.printing import path_text
from dropscribe.pipeline.disk_threads import HANG_SECONDS
from dropscribe.search.finding import MOST_LOOKED_AT, search
from dropscribe.search.index import NEWEST
from dropscribe.web import file_views, reading, views
from dropscribe.web.recordings import send_file
from dropscribe.web.site import Refused, Site

_SILENT_WORDS = "the folder's file system does not answer: recording and transcript cannot be shown"
_FILTERS = ("state", "q", "provider", "since", "code", "before")
_LONGEST_FILTER = 200
_NOT_KEPT = frozenset({"before", "did", "n"})  # Parts of a query that the links to other pages leave out


async def overview(site: Site, request: Request) -> Response:
    """All folders and providers, the newest files, and the last days."""
    config, document = site.config, await site.source.status()
    lists, days = await site.run(reading.read_lists, config, site.source.sending)
    return await site.run(
        site.page,
        request,
        "overview.html",
        title="Overview",
        overview=views.overview(document, time.time()),
        inboxes={name: str(rule.inbox) for name, rule in config.folders.items()},
        lists=lists,
        chart=views.chart_of(days),
    )


async def folder(site: Site, request: Request) -> Response:
    """One folder's files, filtered and page by page."""
    config, rule = site.config, site.rule(request)
    chosen = {name: request.query_params.get(name, "")[:_LONGEST_FILTER] for name in _FILTERS}
    wanted = reading.filter_of(rule.name, chosen)
    rows, older_than, unlisted = await site.run(reading.read_page, config, wanted)
    document = await site.source.status()
    query = {key: value for key, value in request.query_params.items() if key not in _NOT_KEPT}
    here = f"{site.access.http.root_path}/folders/{quote(rule.name, safe='')}?"
    return await site.run(
        site.page,
        request,
        "folder.html",
        title=rule.name,
        folder=rule.name,
        inbox=str(rule.inbox),
        rows=rows,
        unlisted=unlisted,
        chosen=chosen,
        states=[(value, label) for value, (label, _) in reading.STATES.items()],
        providers=list(config.providers),
        failed_ids=",".join(str(row.id) for row in rows if row.state == "failed"),
        backlog=document["folders"].get(rule.name, {}).get("backlog", 0),
        uploads=site.access.http.uploads,
        **_pager(here, query, wanted.before_id, older_than),
    )


async def search_page(site: Site, request: Request) -> Response:
    """The transcripts that hold some words."""
    config = site.config
    if not config.search:
        raise Refused(words="The config turns it off (search: false).", title="Search is off")
    query = request.query_params.get("q", "")[:500]
    before_id = reading.id_of(request.query_params.get("before"))
    found = await site.run(
        search, config, query, before_id=before_id or NEWEST, most_looked_at=MOST_LOOKED_AT
    )
    here = f"{site.access.http.root_path}/search?"
    return await site.run(
        site.page,
        request,
        "search.html",
        title=f"{query} · Search" if query else "Search",
        query=query,
        files=found.files,
        **_pager(here, {"q": query}, before_id, found.older_than),
    )


def _pager(
    here: str, query: Mapping[str, str], before_id: int | None, older_than: int | None
) -> dict[str, Any]:
    """The links to the newest and the older entries; "" on the first and the last page."""
    return {
        "newest_href": here + urlencode(query) if before_id else "",
        "older_href": here + urlencode({**query, "before": older_than}) if older_than else "",
    }


async def file(site: Site, request: Request) -> Response:
    """The record of one file, its transcript and its recording."""
    async with site.file_found(request) as found:
        return await site.run(_file_page, site, request, found)


def _file_page(site: Site, request: Request, found: reading.FileDetails) -> Response:
    record, told, has_audio = found.record, found.explanation, reading.AUDIO in found.forms
    return site.page(
        request,
        "file.html",
        title=path_text(record.path),
        folder=record.folder,
        record=record,
        remedy=told.remedy,
        state=told.state.replace("_", " "),
        tone={"done": "good", "failed": "bad"}.get(told.state, "warn"),
        sentences=[*told.words, *([_SILENT_WORDS] if found.is_silent else [])],
        can_retry=record.state is JobState.FAILED and has_audio,
        has_audio=has_audio,
        sidecars=[form for form in found.forms if form != reading.AUDIO],
        formats=OUTPUT_FORMATS,
        steps=file_views.steps_of(record),
        **_transcript(found.document, record.size_bytes),
    )


def _transcript(document: Mapping[str, Any], size_bytes: int) -> dict[str, Any]:
    """The parts of a transcript that the page shows; none of one that another program has broken."""
    try:
        return {
            "can_forget": bool(file_views.digest_in(document)),
            "warnings": file_views.warnings_of(document),
            "language": file_views.language_of(document),
            "turns": file_views.turns_of(document) if document else None,
            "facts": file_views.facts_of(document, size_bytes),
        }
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return _transcript({}, size_bytes)


async def part_of_file(site: Site, request: Request) -> Response:
    """A file's recording, to listen to; or its transcript of the form in the address, to save."""
    record = await site.find_job(request)
    calls = site.calls(record.folder)
    form = request.path_params.get("form", reading.AUDIO)
    found = await calls.make(HANG_SECONDS, reading.find_part, site.config, record, form)
    if found is None:
        raise Refused
    try:
        return await send_file(request, calls, *found, download=form != reading.AUDIO)
    except (AudioError, OSError):
        raise Refused from None
