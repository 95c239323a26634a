"""Handlers of the pages' forms: user actions and login."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from functools import partial
from urllib.parse import parse_qs, quote

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dropscribe.config.model import Config
from dropscribe.core.model import JobState, Scope, ScopeKind
from dropscribe.core.text.printing import path_text
from dropscribe.media.spool import Spool
from dropscribe.pipeline.disk_threads import SLOWEST_BYTES_PER_SECOND
from dropscribe.publish.return_to_inbox import return_to_inbox
from dropscribe.queue.sql import backlog, result_cache
from dropscribe.queue.sql.history import JobRecord, read_record
from dropscribe.reports.queue_reader import view_queue, write_queue_once
from dropscribe.reports.timed_calls import ANSWER_SECONDS, ask_disk
from dropscribe.web.file_views import digest_in
from dropscribe.web.guard import SESSION_SECONDS
from dropscribe.web.reading import PAGE_ROWS, id_of, place_of, unavailable_reason
from dropscribe.web.site import Refused, Site
from dropscribe.web.uploads import take_upload

log = structlog.get_logger()

FORM_SECONDS = 10.0
MOST_FORM_BYTES = 64 * 1024
MOST_FORM_FIELDS = 20


async def show_login(site: Site, request: Request) -> Response:
    """The login form."""
    if site.access.token is None:
        return site.go("/")
    return _login_page(site, request, request.query_params.get("next", ""))


def _login_page(site: Site, request: Request, path: str, status: int = 200) -> Response:
    context = {"title": "Log in", "wrong": status == 401, "next": _own_page(path)}
    return site.page(request, "login.html", status=status, **context)


def _own_page(path: str) -> str:
    """*path* if it leads to a page of this site, else the first page: any link can name a path."""
    # Browsers drop tabs and line breaks, and two slashes begin the name of another site.
    return path if re.fullmatch(r"/(?![/\\])[^\x00-\x20]*", path) else "/"


async def log_in(site: Site, request: Request) -> Response:
    """Begin a session for a reader who gives the token."""
    access = site.access
    if access.token is None:
        return site.go("/")
    form = await _form_of(request)
    path = form.get("next", "")
    if access.has_token(form.get("token", "")):
        answer = site.go(_own_page(path))
        answer.set_cookie(
            access.cookie,
            access.new_session(time.time()),
            max_age=SESSION_SECONDS,
            path=access.http.root_path or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="Strict",  # type: ignore[arg-type]  # the standard's spelling, for naive clients
        )
        return answer
    refusal = await access.slow_down()
    return refusal or _login_page(site, request, path, 401)


async def log_out(site: Site, _request: Request) -> Response:
    """End the session."""
    answer, access = site.go("/login"), site.access
    answer.delete_cookie(access.cookie, path=access.http.root_path or "/", httponly=True, samesite="strict")
    return answer


async def retry_file(site: Site, request: Request) -> Response:
    """Move one failed file back into its inbox, where it is another job: its folder's page shows that."""
    record = await site.find_job(request)
    return await _retry(site, _page_of(record.folder), [record.id])


async def retry_shown(site: Site, request: Request) -> Response:
    """Move the failed files of one page back into their inbox."""
    given = (await _form_of(request)).get("ids", "").split(",")
    ids = [number for part in given if (number := id_of(part)) is not None]
    return await _retry(site, _page_of(request.path_params["folder"]), ids[:PAGE_ROWS])


async def _retry(site: Site, path: str, ids: list[int]) -> Response:
    config = site.config
    records = await site.run(_read_failed, config, ids)
    moved = [await site.calls(each.folder).make(None, _return_failed, config, each) for each in records]
    if refused := moved.count(False):
        return site.go(path, "refused", refused)
    return site.go(path, "retried", len(moved))


def _read_failed(config: Config, job_ids: list[int]) -> list[JobRecord]:
    with view_queue(config) as view:
        records = [read_record(view.db, job_id) for job_id in job_ids] if view.db else []
    return [record for record in records if record is not None and record.state is JobState.FAILED]


def _return_failed(config: Config, record: JobRecord) -> bool:
    """Move a failed file back into its inbox; False, with the reason in the log, where it stays."""
    place = place_of(config, record)
    try:
        if place is None or place.part != "failed":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        back = partial(return_to_inbox, place.rule, place.path, os.path.basename(record.path))
        seconds = ANSWER_SECONDS + record.size_bytes / SLOWEST_BYTES_PER_SECOND  # it may be a copy
        ask_disk(place.root, back, seconds=seconds)
    except OSError as error:
        log.warning("retry.refused", path=path_text(record.path), reason=error.strerror or str(error))
        return False
    return True


async def release(site: Site, request: Request) -> Response:
    """Start a folder's backlog."""
    name = site.rule(request).name
    released = await site.run(write_queue_once, site.config, lambda db: backlog.release(db, name))
    site.source.engine.signals.wake.set()
    return site.go(_page_of(name), "released", released or 0)


async def try_held(site: Site, request: Request) -> Response:
    """Try a held folder or provider with the next file."""
    if provider := request.path_params.get("provider"):
        scope = Scope(ScopeKind.PROVIDER, provider)
        if provider not in site.config.providers:
            raise Refused
    else:
        scope = Scope(ScopeKind.FOLDER, site.rule(request).name)
    site.source.engine.holds.probe_now(scope)
    return site.go("/", "tried")


async def forget(site: Site, request: Request) -> Response:
    """Delete the stored answers of a file's recording and of its pieces."""
    async with asyncio.timeout(FORM_SECONDS), site.file_found(request) as found:
        digest, job_id = digest_in(found.document), found.record.id
    if not digest:
        raise Refused
    config = site.config
    answers = await site.run(write_queue_once, config, lambda db: result_cache.forget(db, digest))
    pieces = await site.run(Spool(config.state_dir).forget, digest)
    return site.go(f"/files/{job_id}", "forgotten", (answers or 0) + pieces)


async def upload(site: Site, request: Request) -> Response:
    """Take recordings into a folder's inbox, from its form or a script."""
    is_script = "text/html" not in request.headers.get("accept", "")
    try:
        names = await _take_upload(site, request)
    except Refused as error:
        if is_script:
            return PlainTextResponse(f"{error.words}\n", error.status)
        error.title = "The upload was refused"
        raise
    if is_script:
        return PlainTextResponse("".join(f"{name}\n" for name in names).encode("utf-8", "replace"))
    return site.go(_page_of(request.path_params["folder"]), "uploaded", len(names))


async def _take_upload(site: Site, request: Request) -> list[str]:
    if not site.access.http.uploads:
        raise Refused(403, "uploads are off (http.uploads)")
    rule = site.rule(request)
    async with asyncio.timeout(FORM_SECONDS):
        unavailable = await site.run(unavailable_reason, site.config, rule.name)
    if unavailable:
        raise Refused(503, f"the inbox is not available: {unavailable}")
    return await take_upload(request, rule, site.calls(rule.name))


def _page_of(folder: str) -> str:
    return f"/folders/{quote(folder, safe='')}"


async def _form_of(request: Request) -> dict[str, str]:
    """The fields of a small urlencoded form; {} for one that is too large or has too many fields."""
    body = b""
    async with asyncio.timeout(FORM_SECONDS):
        async for block in request.stream():
            body += block
            if len(body) > MOST_FORM_BYTES:
                return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=MOST_FORM_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}
