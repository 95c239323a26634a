"""The parts that all pages and actions share: their data, threads, templates and answers."""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlencode

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dropscribe.config.model import Config, FolderRule
from dropscribe.core.errors import StoreBusy
from dropscribe.core.text.printing import escape_deceptive, path_text, utc_text
from dropscribe.files.audio import AudioFile
from dropscribe.files.threads import DaemonThreads
from dropscribe.pipeline.disk_threads import FolderHangs
from dropscribe.queue.engine import Engine
from dropscribe.queue.sql.history import JobRecord
from dropscribe.reports.wording import clock_words, moment_words
from dropscribe.web.guard import Access
from dropscribe.web.reading import FileDetails, read_details, read_job
from dropscribe.web.views import pieces_of

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
THREADS_PER_FOLDER = 4
TRANSCRIPTS_PER_FOLDER = 2
"""Transcripts in memory at once, each for a page: one of many hours takes 100 MiB there."""

DETAILS_SECONDS = 8.0
"""Limit for the files of one job; a page has two seconds more, and says why it has none of them."""

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


@dataclass(frozen=True, slots=True)
class PageSource:
    """The parts of the daemon that the pages show and act on."""

    config: Callable[[], Config]  # that the daemon runs on now
    status: Callable[[], Awaitable[dict[str, Any]]]  # the object of ``status --json``
    engine: Engine
    sending: Mapping[int, AudioFile]  # recordings with a running attempt, by job id
    change_token: Callable[[], object]  # differs after every change of the queue or the inboxes; cheap


@dataclass(eq=False)
class Refused(Exception):
    """Raised where a request cannot be answered as it asks; the texts are for people."""

    status: int = 404
    words: str = "There is nothing of that name here, or it is not there any more."
    title: str = "Not found"


class FolderCalls:
    """The calls of one request on one folder's disk: one after another, each with a time limit."""

    def __init__(self, folder: str, executor: Executor) -> None:
        self._folder = folder
        self._executor = executor
        self._last: Future[object] | None = None

    @property
    def hangs(self) -> bool:
        """Whether the last call has not returned within its limit, nor since."""
        return self._last is not None and not self._last.done()

    async def make(self, seconds: float | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of *call*, made in one of the folder's threads.

        Raises FolderHangs after *seconds*; a call that has begun goes on in its thread.
        """
        made = self._executor.submit(call, *args, **kwargs)
        self._last = made  # type: ignore[assignment]  # Future is invariant
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(made)
        except TimeoutError as error:
            raise FolderHangs(self._folder) from error

    def follow(self, call: Callable[[], object]) -> Future[None]:
        """Make *call* after the last one, also where that returns late; the result says that it was made."""
        followed: Future[None] = Future()

        def run(_last: object = None) -> None:
            self._executor.submit(call).add_done_callback(lambda _: followed.set_result(None))

        if self._last is None:
            run()
        else:
            self._last.add_done_callback(run)
        return followed


class Site:
    """Gives the pages their data, and makes their answers.

    A folder's disk is called in threads of its own, so that one that hangs holds up only its own pages; the
    pipeline's threads are others.
    """

    def __init__(self, source: PageSource, access: Access) -> None:
        self.source = source
        self.access = access
        self._threads = DaemonThreads(THREADS, "page")
        self._folder_threads: dict[str, DaemonThreads] = {}
        self._rooms = defaultdict[str, asyncio.Semaphore](partial(asyncio.Semaphore, TRANSCRIPTS_PER_FOLDER))
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("dropscribe.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "clock": clock_words,
            "local_time": moment_words,
            "path_text": path_text,
            "pieces": pieces_of,
            "utc_text": utc_text,
        }

    @property
    def config(self) -> Config:
        """The config that the daemon runs on now."""
        return self.source.config()

    def version(self) -> str:
        """A short text that differs after every change that a page would show; cheap."""
        sending = [(job_id, *astuple(audio.progress)) for job_id, audio in self.source.sending.items()]
        return f"{zlib.crc32(repr((self.source.change_token(), sending)).encode()):08x}"

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of *work*, which may block on the queue or the index, but not on a folder's disk."""
        return await asyncio.wrap_future(self._threads.submit(work, *args, **kwargs))

    def calls(self, folder: str) -> FolderCalls:
        """Calls on the disk of *folder* for one request."""
        if folder not in self._folder_threads:
            self._folder_threads[folder] = DaemonThreads(THREADS_PER_FOLDER, f"page {folder}")
        return FolderCalls(folder, self._folder_threads[folder])

    async def find_job(self, request: Request) -> JobRecord:
        """The job that the address names; raises Refused where there is none."""
        record = await self.run(read_job, self.config, request.path_params["id"])
        if record is None:
            raise Refused
        return record

    @asynccontextmanager
    async def file_found(self, request: Request) -> AsyncIterator[FileDetails]:
        """The job that the address names, with its files and its transcript, which is forgotten at the end.

        Raises Refused where there is none, FolderHangs where the folder's threads all wait for its disk,
        ClientDisconnect if the client went away before its turn came.
        """
        record = await self.find_job(request)
        async with self._rooms[record.folder]:
            if await request.is_disconnected():
                raise ClientDisconnect
            yield await self.calls(record.folder).make(DETAILS_SECONDS, read_details, self.config, record)

    def rule(self, request: Request) -> FolderRule:
        """The rule of the folder that the address names; raises Refused where there is none."""
        rule = self.config.folders.get(request.path_params["folder"])
        if rule is None:
            raise Refused(words="The config has no folder of that name.", title="No such folder")
        return rule

    def page(self, request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """The page that *template* makes of *context*."""
        did = _SAID.get(request.query_params.get("did", ""), "")
        number = request.query_params.get("n", "")
        text = self._templates.get_template(template).render(
            {"folder": "", "query": "", **context},
            root=self.access.http.root_path,
            version=getattr(request.state, "version", ""),
            folder_names=list(self.config.folders),
            said=did.format(n=number if number.isdecimal() else ""),
            has_search=self.config.search,
            has_session=self.access.token is not None and self.access.cookie in request.cookies,
        )
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """The page for Refused, FolderHangs, StoreBusy, TimeoutError, and an address that is not there."""
        if isinstance(error, FolderHangs):
            words = f"The file system of the folder {error} does not answer."
            error = Refused(503, words, "No answer")
        elif isinstance(error, StoreBusy):
            error = Refused(
                503, f"The queue cannot be read now: {error}. The daemon waits for it.", "No answer"
            )
        elif isinstance(error, HTTPException):
            error = Refused()
        elif not isinstance(error, Refused):
            error = Refused(503, "The page could not be made in time. Load it again later.", "Busy")
        return self.page(request, "message.html", status=error.status, title=error.title, words=error.words)

    def go(self, path: str, did: str = "", number: int = 0) -> Response:
        """Redirect the browser to *path*, which reports the action and its number of files."""
        query = f"?{urlencode({'did': did, 'n': number})}" if did else ""
        return RedirectResponse(f"{self.access.http.root_path}{path}{query}", 303)
