"""Handlers of the pages' forms: user actions and login."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from starlette.responses import PlainTextResponse

from dropscribe.web.file_views import sha256_of
from dropscribe.web.guard import COOKIE, SESSION_SECONDS
from dropscribe.web.queries import id_of
from dropscribe.web.reading import PAGE_ROWS, unavailable_reason
from dropscribe.web.site import READ_SECONDS, NotHere, Site

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST_FORM_BYTES = 64 * 1024
MOST_FORM_FIELDS = 20


async def log_in(site: Site, request: Request) -> Response:
    """The login form, and a session for a reader with the token."""
    access = site.access
    if access.token is None:
        return site.go("/")
    if request.method in {"GET", "HEAD"}:
        return site.page(request, "login.html", title="Log in", wrong=False)
    if access.has_token((await _form_of(request)).get("token", "")):
        answer = site.go("/")
        answer.set_cookie(
            COOKIE,
            access.new_session(time.time()),
            max_age=SESSION_SECONDS,
            path=access.root_path or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer
    refusal = await access.slow_down()
    return refusal or site.page(request, "login.html", status=401, title="Log in", wrong=True)


async def log_out(site: Site, _request: Request) -> Response:
    """End the session."""
    answer = site.go("/login")
    answer.delete_cookie(COOKIE, path=site.access.root_path or "/", httponly=True, samesite="strict")
    return answer


async def retry_file(site: Site, request: Request) -> Response:
    """Take one failed file back into its inbox."""
    job_id = id_of(request.path_params["id"])
    if job_id is None:
        raise NotHere
    return await _retry(site, f"/files/{job_id}", [job_id])


async def retry_shown(site: Site, request: Request) -> Response:
    """Take the failed files of one page back into their inbox."""
    given = (await _form_of(request)).get("ids", "").split(",")
    ids = [number for part in given if (number := id_of(part)) is not None]
    return await _retry(site, _page_of(request.path_params["folder"]), ids[:PAGE_ROWS])


async def _retry(site: Site, path: str, ids: list[int]) -> Response:
    moved, refused = await site.source.actions.retry(ids)
    return site.go(path, "refused" if refused else "retried", refused or moved)


async def release(site: Site, request: Request) -> Response:
    """Start a folder's backlog."""
    rule = site.rule(request)
    released = await site.source.actions.release(rule.name)
    return site.go(_page_of(rule.name), "released", released)


async def try_folder(site: Site, request: Request) -> Response:
    """Try a held folder with the next file."""
    site.source.actions.try_now(folder=site.rule(request).name)
    return site.go("/", "tried")


async def try_provider(site: Site, request: Request) -> Response:
    """Try a held provider with the next file."""
    name = request.path_params["provider"]
    if name not in site.source.config().providers:
        raise NotHere
    site.source.actions.try_now(provider=name)
    return site.go("/", "tried")


async def forget(site: Site, request: Request) -> Response:
    """Drop the stored answers of a file's recording."""
    found = await site.find_file(request)
    digest = sha256_of(found.document)
    if not digest:
        raise NotHere
    forgotten = await site.source.actions.forget(digest)
    return site.go(f"/files/{found.record.id}", "forgotten", forgotten)


async def upload(site: Site, request: Request) -> Response:
    """Take recordings into a folder's inbox, from its form or a script."""
    from dropscribe.web.uploads import UploadRefused, take_upload  # noqa: PLC0415  # where it is used alone

    config = site.source.config()
    if not config.http or not config.http.uploads:
        return _refuse_upload(site, request, 403, "uploads are off (http.uploads)")
    rule = config.folders.get(request.path_params["folder"])
    if rule is None:
        return _refuse_upload(site, request, 404, "the config has no folder of that name")
    unavailable = await site.read(unavailable_reason, config, rule.name)
    try:
        names = await take_upload(request, rule, site.calls(rule.name), unavailable)
    except UploadRefused as error:
        return _refuse_upload(site, request, error.status, error.words)
    if _is_script(request):
        return PlainTextResponse("".join(f"{name}\n" for name in names).encode("utf-8", "replace"))
    return site.go(_page_of(rule.name), "uploaded", len(names))


def _refuse_upload(site: Site, request: Request, status: int, words: str) -> Response:
    if _is_script(request):
        return PlainTextResponse(f"{words}\n", status)
    return site.message(request, status, "The upload was refused", words)


def _is_script(request: Request) -> bool:
    return "text/html" not in request.headers.get("accept", "")


def _page_of(folder: str) -> str:
    return f"/folders/{quote(folder, safe='')}"


async def _form_of(request: Request) -> dict[str, str]:
    """The fields of a small urlencoded form; {} for one that is too large or has too many fields."""
    body = b""
    async with asyncio.timeout(READ_SECONDS):
        async for block in request.stream():
            body += block
            if len(body) > MOST_FORM_BYTES:
                return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=MOST_FORM_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}
