"""The parts that all pages and actions share: their data, their templates and their answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlencode

import jinja2
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dropscribe.core.text.printing import escape_deceptive
from dropscribe.web.folder_threads import FolderCalls
from dropscribe.web.guard import COOKIE
from dropscribe.web.queries import id_of
from dropscribe.web.reading import FileStory, read_job, read_story

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import Executor

    from starlette.requests import Request

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.files.audio import Progress
    from dropscribe.web.guard import Access

T = TypeVar("T")

READ_SECONDS = 10.0

_SAID = {
    "retried": "Back in the inbox: {n}.",
    "refused": "Could not be taken back: {n}; the log says why.",
    "released": "Released: {n}.",
    "tried": "It is being tried now.",
    "forgotten": "Stored answers forgotten: {n}.",
    "uploaded": "Added to the inbox: {n}.",
}


def _shown(value: object) -> object:
    """*value* as every page prints it: no name can change the order of letters; markup stays as it is."""
    return escape_deceptive(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


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
        executor: Threads for calls that block on the queue and the index; never the event loop's own.
        folder_threads: Threads for calls on one folder's disk, by its name.
        change_token: A cheap value that differs after every change that a page would show.
        progress: How far the attempt at a job is, by the job's id; None where this process makes none.
    """

    config: Callable[[], Config]
    status: Callable[[], Awaitable[dict[str, Any]]]
    actions: Actions
    executor: Executor
    folder_threads: Callable[[str], Executor]
    change_token: Callable[[], object]
    progress: Callable[[int], Progress | None] = lambda _: None


class NotHere(Exception):
    """Raised when the address names nothing; the message is for people."""

    def __init__(
        self,
        title: str = "Not found",
        words: str = "There is nothing of that name here, or it is not there any more.",
    ) -> None:
        super().__init__(words)
        self.title = title
        self.words = words


class Site:
    """Gives the pages their data, and makes their answers."""

    def __init__(self, source: PageSource, access: Access) -> None:
        self.source = source
        self.access = access
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("dropscribe.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def read(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of *work*, which may block on the queue, within :data:`READ_SECONDS`."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(READ_SECONDS):
            return await loop.run_in_executor(self.source.executor, work, *arguments)

    def calls(self, folder: str) -> FolderCalls:
        """Calls on the disk of *folder* for one request."""
        return FolderCalls(folder, self.source.folder_threads(folder))

    async def find_file(self, request: Request) -> FileStory:
        """The file that the address names.

        Raises:
            NotHere: There is none.
            FolderHangs: Too many other calls wait for the folder's disk.
        """
        config, job_id = self.source.config(), id_of(request.path_params["id"])
        record = None if job_id is None else await self.read(read_job, config, job_id)
        if record is None:
            raise NotHere
        return await self.calls(record.folder).make_within(READ_SECONDS, read_story, config, record)

    def rule(self, request: Request) -> FolderRule:
        """The rule of the folder that the address names.

        Raises:
            NotHere: There is none.
        """
        rule = self.source.config().folders.get(request.path_params["folder"])
        if rule is None:
            raise NotHere("No such folder", "The config has no folder of that name.")
        return rule

    def page(self, request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """The page that *template* makes of *context*."""
        config = self.source.config()
        did = _SAID.get(request.query_params.get("did", ""), "")
        number = request.query_params.get("n", "")
        context = {
            "root": self.access.root_path,
            "folder_names": list(config.folders),
            "folder": "",
            "query": "",
            "said": did.format(n=number if number.isdecimal() else ""),
            "has_search": config.search,
            "has_session": self.access.token is not None and COOKIE in request.cookies,
            **context,
        }
        text = self._templates.get_template(template).render(context)
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)

    def message(self, request: Request, status: int, title: str, words: str) -> Response:
        """A page with one message."""
        return self.page(request, "message.html", status=status, title=title, words=words)

    async def not_here(self, request: Request, error: Exception) -> Response:
        """The page for :class:`NotHere`."""
        assert isinstance(error, NotHere)  # noqa: S101  # registered for it alone
        return self.message(request, 404, error.title, error.words)

    async def hangs(self, request: Request, error: Exception) -> Response:
        """The page for :class:`FolderHangs`."""
        words = f"The file system of the folder {error} does not answer."
        return self.message(request, 503, "No answer", words)

    def go(self, path: str, did: str = "", number: int = 0) -> Response:
        """Redirect the browser to *path*, which reports the action and its number of files."""
        query = f"?{urlencode({'did': did, 'n': number})}" if did else ""
        return RedirectResponse(f"{self.access.root_path}{path}{query}", 303)
