"""The pages for people and their actions. Everything that is shown passes the templates' escaping."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar
from urllib.parse import parse_qs, quote, urlencode

import jinja2
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dropscribe.core.errors import AudioError
from dropscribe.core.model import JobState
from dropscribe.files.audio import open_beneath
from dropscribe.search.finding import search
from dropscribe.search.index import NEWEST
from dropscribe.transcripts.document import path_text
from dropscribe.web import file_views, reading, views
from dropscribe.web.guard import COOKIE, SESSION_SECONDS
from dropscribe.web.queries import STATES, chosen_from, filter_of, id_of
from dropscribe.web.recordings import send_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from concurrent.futures import Executor

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.files.audio import Progress
    from dropscribe.web.changes import Changes
    from dropscribe.web.guard import Access, Guard

T = TypeVar("T")
Handler: TypeAlias = "Callable[[Request], Coroutine[None, None, Response]]"

READ_SECONDS = 10.0
MOST_FORM_BYTES = 64 * 1024
MOST_FORM_FIELDS = 20
_NOT_KEPT = frozenset({"before", "did", "n"})
"""Parts of a query that the links to other pages leave out."""

_SAID = {
    "retried": "Back in the inbox: {n}.",
    "refused": "Could not be taken back: {n}; the log says why.",
    "released": "Released: {n}.",
    "tried": "It is being tried now.",
    "forgotten": "Stored answers forgotten: {n}.",
    "uploaded": "Added to the inbox: {n}.",
}


class Actions(Protocol):
    """Actions that the page offers. All may raise StoreError."""

    async def retry(self, job_ids: Sequence[int]) -> tuple[int, int]:
        """Take failed files back into their inboxes: (moved, refused)."""
        ...

    async def release(self, folder: str) -> int:
        """Start the backlog of a folder; the number of files."""
        ...

    async def forget(self, sha256: str) -> int:
        """Drop the stored answers of a recording; their number."""
        ...

    def try_now(self, *, provider: str = "", folder: str = "") -> None:
        """Try a held provider or folder with the next file."""
        ...


@dataclass(frozen=True, slots=True)
class PageSource:
    """Data and actions of the pages.

    Attributes:
        config: The config that the daemon runs on now.
        status: The object of ``status --json``.
        executor: Threads for everything that may block; never the event loop's own.
        change_token: A cheap value that differs after every change that a page would show.
        progress: How far the attempt at a job is, by the job's id; None where this process makes none.
    """

    config: Callable[[], Config]
    status: Callable[[], Awaitable[dict[str, Any]]]
    actions: Actions
    executor: Executor
    change_token: Callable[[], object]
    progress: Callable[[int], Progress | None] = lambda _: None


class Pages:
    """Routes and handlers of the pages."""

    def __init__(self, source: PageSource, access: Access, changes: Changes) -> None:
        self._source = source
        self._access = access
        self._changes = changes
        self.guard: Guard | None = None
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("dropscribe.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[BaseRoute]:
        """Routes for a Starlette application."""
        post = ["POST"]
        return [
            Route("/", self._shared(self._overview)),
            Route("/events", self._changes.respond),
            Route("/search", self._search),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/logout", self._logout, methods=post),
            Route("/folders/{folder}", self._shared(self._folder)),
            Route("/folders/{folder}/retry", self._retry_shown, methods=post),
            Route("/folders/{folder}/release", self._release, methods=post),
            Route("/folders/{folder}/try", self._try_folder, methods=post),
            Route("/folders/{folder}/upload", self._upload, methods=post),
            Route("/providers/{provider}/try", self._try_provider, methods=post),
            Route("/files/{id}", self._file),
            Route("/files/{id}/audio", self._audio),
            Route("/files/{id}/retry", self._retry_file, methods=post),
            Route("/files/{id}/forget", self._forget, methods=post),
            Route("/files/{id}/{form}", self._sidecar),
            Mount("/static", StaticFiles(packages=[("dropscribe.web", "static")])),
        ]

    # Pages --------------------------------------------------------------------------------------

    async def _overview(self, request: Request) -> Response:
        config = self._source.config()
        async with asyncio.timeout(READ_SECONDS):
            document = await self._source.status()
        lists = await self._read(reading.read_lists, config, self._source.progress)
        inboxes = {name: str(rule.inbox) for name, rule in config.folders.items()}
        overview = views.overview(document, inboxes)
        overview.in_flight, overview.waiting = lists.in_flight, lists.waiting
        overview.done, overview.failed = lists.done, lists.failed
        overview.today = views.day_words(lists.days[-1][1]) if lists.days else ""
        chart = views.chart_of(lists.days)
        return self._page(request, "overview.html", title="Overview", overview=overview, chart=chart)

    async def _folder(self, request: Request) -> Response:
        config = self._source.config()
        rule = config.folders.get(request.path_params["folder"])
        if rule is None:
            return self._message(request, 404, "No such folder", "The config has no folder of that name.")
        chosen = chosen_from(request.query_params)
        wanted = filter_of(rule.name, chosen)
        rows, older = await self._read(reading.read_page, config, wanted)
        query = {key: value for key, value in request.query_params.items() if key not in _NOT_KEPT}
        here = f"{self._access.root_path}/folders/{quote(rule.name, safe='')}"
        document = await self._source.status()
        return self._page(
            request,
            "folder.html",
            title=rule.name,
            folder=rule.name,
            inbox=str(rule.inbox),
            rows=rows,
            chosen=chosen,
            states=[(value, label) for value, (label, _) in STATES.items()],
            providers=list(config.providers),
            failed_ids=",".join(str(row.id) for row in rows if row.state == "failed"),
            backlog=document["folders"].get(rule.name, {}).get("backlog", 0),
            uploads=bool(config.http and config.http.uploads),
            newest_href=f"{here}?{urlencode(query)}" if wanted.before_id else "",
            older_href=f"{here}?{urlencode({**query, 'before': older})}" if older else "",
        )

    async def _search(self, request: Request) -> Response:
        config = self._source.config()
        if not config.search:
            return self._message(request, 404, "Search is off", "The config turns it off (search: false).")
        query, before_id = request.query_params.get("q", "")[:500], id_of(request.query_params.get("before"))
        found = await self._read(lambda: search(config, query, before_id=before_id or NEWEST))
        here = f"{self._access.root_path}/search?"
        return self._page(
            request,
            "search.html",
            title=f"{query} · Search" if query else "Search",
            query=query,
            hits=[views.hit_of(file) for file in found.files],
            newest_href=here + urlencode({"q": query}) if before_id else "",
            older_href=here + urlencode({"q": query, "before": found.older_than}) if found.older_than else "",
        )

    async def _file(self, request: Request) -> Response:
        found = await self._find(request)
        if found is None:
            return self._no_file(request)
        story, told = found.story, found.explanation
        document = found.document
        file = {
            "id": story.id,
            "name": path_text(story.path),
            "folder": story.folder,
            "state": told.state.replace("_", " "),
            "tone": {"done": "good", "failed": "bad"}.get(told.state, "warn"),
            "sentences": told.words,
            "remedy": told.remedy,
            "can_retry": story.state is JobState.FAILED and found.has_audio,
            "can_forget": document is not None and bool(file_views.sha256_of(document)),
            "downloads": [{"form": form, "label": form.upper()} for form in found.sidecars],
            "has_audio": found.has_audio,
            "warnings": file_views.warnings_of(document),
            "turns": file_views.turns_of(document) if document else None,
            "steps": file_views.steps_of(story.received_at, story.tries, story.ended_at, story.state.value),
            "facts": file_views.facts_of(document, story.size_bytes),
        }
        return self._page(request, "file.html", title=file["name"], folder=story.folder, file=file)

    async def _audio(self, request: Request) -> Response:
        found = await self._find(request)
        if found is None or found.place is None:
            return self._no_file(request)
        return await self._send(request, found.place.root, found.place.path, download=False)

    async def _sidecar(self, request: Request) -> Response:
        found = await self._find(request)
        form = request.path_params["form"]
        if found is None or found.place is None or form not in found.sidecars:
            return self._no_file(request)
        return await self._send(request, found.place.root, found.sidecars[form], download=True)

    async def _login(self, request: Request) -> Response:
        if self._access.token is None:
            return self._go("/")
        if request.method == "GET":
            return self._page(request, "login.html", title="Log in", wrong=False)
        form = await _form_of(request)
        if self._access.has_token(form.get("token", "")):
            answer = self._go("/")
            answer.set_cookie(
                COOKIE,
                self._access.new_session(time.time()),
                max_age=SESSION_SECONDS,
                path=self._access.root_path or "/",
                secure=request.url.scheme == "https",
                httponly=True,
                samesite="strict",
            )
            return answer
        refusal = await self.guard.slow_down() if self.guard else None
        return refusal or self._page(request, "login.html", status=401, title="Log in", wrong=True)

    async def _logout(self, _request: Request) -> Response:
        answer = self._go("/login")
        answer.delete_cookie(COOKIE, path=self._access.root_path or "/", httponly=True, samesite="strict")
        return answer

    # Actions ------------------------------------------------------------------------------------

    async def _retry_file(self, request: Request) -> Response:
        job_id = id_of(request.path_params["id"])
        if job_id is None:
            return self._no_file(request)
        moved, refused = await self._source.actions.retry([job_id])
        return self._after_retry(f"/files/{job_id}", moved, refused)

    async def _retry_shown(self, request: Request) -> Response:
        folder = request.path_params["folder"]
        given = (await _form_of(request)).get("ids", "").split(",")
        ids = [number for part in given if (number := id_of(part)) is not None]
        moved, refused = await self._source.actions.retry(ids[: reading.PAGE_ROWS])
        return self._after_retry(f"/folders/{quote(folder, safe='')}", moved, refused)

    def _after_retry(self, path: str, moved: int, refused: int) -> Response:
        return self._go(path, "refused" if refused else "retried", refused or moved)

    async def _release(self, request: Request) -> Response:
        rule = self._rule(request)
        if rule is None:
            return self._no_file(request)
        released = await self._source.actions.release(rule.name)
        return self._go(f"/folders/{quote(rule.name, safe='')}", "released", released)

    async def _try_folder(self, request: Request) -> Response:
        rule = self._rule(request)
        if rule is None:
            return self._no_file(request)
        self._source.actions.try_now(folder=rule.name)
        return self._go("/", "tried")

    async def _try_provider(self, request: Request) -> Response:
        name = request.path_params["provider"]
        if name not in self._source.config().providers:
            return self._no_file(request)
        self._source.actions.try_now(provider=name)
        return self._go("/", "tried")

    async def _forget(self, request: Request) -> Response:
        found = await self._find(request)
        digest = file_views.sha256_of(found.document) if found and found.document else ""
        if not digest:
            return self._no_file(request)
        forgotten = await self._source.actions.forget(digest)
        return self._go(f"/files/{id_of(request.path_params['id'])}", "forgotten", forgotten)

    async def _upload(self, request: Request) -> Response:
        from dropscribe.web.uploads import UploadRefused, take_upload  # noqa: PLC0415  # where it is used alone

        config, rule = self._source.config(), self._rule(request)
        if rule is None or not config.http or not config.http.uploads:
            return PlainTextResponse("uploads are off (http.uploads)\n", 403)
        is_script = "text/html" not in request.headers.get("accept", "")
        try:
            names = await take_upload(request, rule, self._source.executor)
        except UploadRefused as error:
            if is_script:
                return PlainTextResponse(error.words + "\n", error.status)
            return self._message(request, error.status, "The upload was refused", error.words)
        if is_script:
            return PlainTextResponse("".join(f"{name}\n" for name in names).encode("utf-8", "replace"))
        return self._go(f"/folders/{quote(rule.name, safe='')}", "uploaded", len(names))

    # Helpers ------------------------------------------------------------------------------------

    def _shared(self, page: Handler) -> Handler:
        """*page*, made once for many readers who are told of the same change."""

        async def respond(request: Request) -> Response:
            key = str(request.url), COOKIE in request.cookies
            return await self._changes.share(key, lambda: page(request))

        return respond

    async def _read(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(READ_SECONDS):
            return await loop.run_in_executor(self._source.executor, lambda: work(*arguments))

    async def _find(self, request: Request) -> reading.FileStory | None:
        job_id = id_of(request.path_params["id"])
        return None if job_id is None else await self._read(reading.read_file, self._source.config(), job_id)

    async def _send(self, request: Request, root: bytes, path: bytes, *, download: bool) -> Response:
        try:
            descriptor = await self._read(open_beneath, root, path)
        except (AudioError, OSError):
            return self._no_file(request)
        name = os.path.basename(path)
        return send_file(request, descriptor, name, self._source.executor, download=download)

    def _rule(self, request: Request) -> FolderRule | None:
        return self._source.config().folders.get(request.path_params["folder"])

    def _page(self, request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        did = _SAID.get(request.query_params.get("did", ""), "")
        number = request.query_params.get("n", "")
        context = {
            "root": self._access.root_path,
            "folder_names": list(self._source.config().folders),
            "folder": "",
            "query": "",
            "said": did.format(n=number if number.isdecimal() else "") if did else "",
            "has_search": self._source.config().search,
            "has_session": self._access.token is not None and COOKIE in request.cookies,
            **context,
        }
        text = self._templates.get_template(template).render(context)
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)

    def _message(self, request: Request, status: int, title: str, words: str) -> Response:
        return self._page(request, "message.html", status=status, title=title, words=words)

    def _no_file(self, request: Request) -> Response:
        words = "There is nothing of that name here, or it is not there any more."
        return self._message(request, 404, "Not found", words)

    def _go(self, path: str, did: str = "", number: int = 0) -> Response:
        query = f"?{urlencode({'did': did, 'n': number})}" if did else ""
        return RedirectResponse(f"{self._access.root_path}{path}{query}", 303)


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
