"""The pages over a real socket: a scene's config, queue and folders behind a real listener."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2

from dropscribe.config.load import load_config
from dropscribe.config.model import HttpConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.web.listener import Listener
from dropscribe.web.routes import Endpoints
from dropscribe.web.site import PageSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dropscribe.core.model import Scope
    from support.scene import Scene


class WatchedEngine:
    """The parts of the queue that the pages call by themselves; remembers what they asked for."""

    def __init__(self) -> None:
        self.probed: list[str] = []
        self.error: Exception | None = None
        self.holds = self
        self.signals = SimpleNamespace(wake=asyncio.Event())

    def probe_now(self, scope: Scope) -> None:
        if self.error:
            raise self.error
        self.probed.append(f"{scope.kind.value} {scope.name}")


class Site:
    """A running listener, and clients for it."""

    def __init__(self, scene: Scene, **http: Any) -> None:
        self.scene = scene
        self.engine = WatchedEngine()
        self.token = 0
        self.asked = 0
        secret = http.pop("token", None)
        host = http.pop("host", "127.0.0.1")
        listen = HttpConfig(
            listen=f"{host}:0", host=host, port=0, token=Secret(secret, "test") if secret else None, **http
        )
        config, _ = load_config(scene.config, environ={})
        self.config = replace(config, http=listen)
        source = PageSource(lambda: self.config, self.status, self.engine, {}, lambda: self.token)
        endpoints = Endpoints(self._metrics, self.status, lambda: "", lambda: "")
        self.listener = Listener(listen, endpoints, source if listen.pages else None)

    async def _metrics(self) -> bytes:
        return b""

    async def status(self) -> dict[str, Any]:
        """The object of ``status --json`` for the scene."""
        self.asked += 1
        import io
        from contextlib import redirect_stdout

        with redirect_stdout(io.StringIO()) as out:
            self.scene.run("status", "--json")
        return json.loads(out.getvalue())

    def client(self, **options: Any) -> httpx2.AsyncClient:
        """A client of this site; it follows no redirects unless asked."""
        url = f"http://127.0.0.1:{self.listener.port}"
        # The default context would load the system's certificates, each time.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=tls, **options)


@contextlib.asynccontextmanager
async def serving(scene: Scene, **http: Any) -> AsyncIterator[Site]:
    """The pages of *scene* while the block runs."""
    site = Site(scene, **http)
    await site.listener.start()
    try:
        yield site
    finally:
        await site.listener.close()
