"""The pages over a real socket: a scene's config, queue and folders behind a real listener."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx2

from dropscribe.config.load import load_config
from dropscribe.config.model import HttpConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.web.endpoints import Endpoints
from dropscribe.web.folder_threads import FolderThreads
from dropscribe.web.listener import Listener
from dropscribe.web.site import PageSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from support.scene import Scene


class RecordedActions:
    """Remembers what the pages asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.error: Exception | None = None

    async def retry(self, job_ids: Sequence[int]) -> tuple[int, int]:
        self.calls.append(("retry", list(job_ids)))
        return len(job_ids), 0

    async def release(self, folder: str) -> int:
        self.calls.append(("release", folder))
        return 3

    async def forget(self, sha256: str) -> int:
        self.calls.append(("forget", sha256))
        return 1

    def try_now(self, *, provider: str = "", folder: str = "") -> None:
        if self.error:
            raise self.error
        self.calls.append(("try", provider or folder))


class Site:
    """A running listener, and clients for it."""

    def __init__(self, scene: Scene, **http: Any) -> None:
        self.scene = scene
        self.actions = RecordedActions()
        self.token = 0
        self.asked = 0
        secret = http.pop("token", None)
        host = http.pop("host", "127.0.0.1")
        listen = HttpConfig(
            listen=f"{host}:0", host=host, port=0, token=Secret(secret, "test") if secret else None, **http
        )
        config, _ = load_config(scene.config, environ={})
        self.config = replace(config, http=listen)
        self.executor = ThreadPoolExecutor(4)
        source = PageSource(
            lambda: self.config,
            self.status,
            self.actions,
            self.executor,
            FolderThreads().of,
            lambda: self.token,
        )
        endpoints = Endpoints(self._metrics, self.status, lambda: "", lambda: "")
        self.listener = Listener(listen, endpoints, source)

    async def _metrics(self) -> bytes:
        return b""

    async def status(self) -> dict[str, Any]:
        """What ``status --json`` says of the scene."""
        self.asked += 1
        import io
        from contextlib import redirect_stdout

        with redirect_stdout(io.StringIO()) as out:
            self.scene.run("status", "--json")
        return json.loads(out.getvalue())

    def client(self, **options: Any) -> httpx2.AsyncClient:
        """A client of this site; it follows no redirects unless asked."""
        url = f"http://127.0.0.1:{self.listener.port}"
        return httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False, **options)


@contextlib.asynccontextmanager
async def serving(scene: Scene, **http: Any) -> AsyncIterator[Site]:
    """The pages of *scene* while the block runs."""
    site = Site(scene, **http)
    await site.listener.start()
    try:
        yield site
    finally:
        await site.listener.close()
        site.executor.shutdown(wait=False)
