"""A model hub on a real socket: as much of Hugging Face's interface as its client needs for one model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ModelHub:
    """Serves *files* of the model *name* ("Owner/name"); use it as a context manager.

    Attributes:
        downloads: Names of the files that were sent, in turn.
        lies: Names of files whose content is not the one that their hash is of.
        gate: The second half of `model.bin` is sent once this is set.
    """

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        self.name = name
        self.files = files
        self.downloads: list[str] = []
        self.lies: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        """The model's description, or one of its files; a large one has its SHA-256 as ETag."""
        path = request.path.partition("?")[0]
        file = path.removeprefix(f"/{self.name}/resolve/{COMMIT}/")
        if path == f"/api/models/{self.name}/revision/main":
            siblings = [{"rfilename": each} for each in self.files]
            self._send(
                request, json.dumps({"id": self.name, "sha": COMMIT, "siblings": siblings}).encode(), {}
            )
        elif path == f"/api/models/{self.name}/tree/{COMMIT}":
            self._send(request, json.dumps([self._entry(each) for each in self.files]).encode(), {})
        elif file in self.files:
            digest = self._entry(file)["oid"]
            content = self.files[file]
            if file in self.lies:
                content = content[::-1]
            if with_body:
                self.downloads.append(file)
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}
            self._send(request, content, headers, with_body=with_body)
        else:
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()

    def _entry(self, file: str) -> dict[str, Any]:
        """A file in the model's listing: a large one has its SHA-256, the others what Git calls them."""
        content = self.files[file]
        about: dict[str, Any] = {"type": "file", "path": file, "size": len(content)}
        if file != "model.bin":
            return about | {"oid": hashlib.sha1(content, usedforsecurity=False).hexdigest()}
        digest = hashlib.sha256(content).hexdigest()
        return about | {"oid": digest, "lfs": {"oid": digest, "size": len(content), "pointerSize": 134}}

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        content: bytes,
        headers: dict[str, str],
        *,
        with_body: bool = True,
    ) -> None:
        request.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        if not with_body:
            return
        half = len(content) // 2
        request.wfile.write(content[:half])
        if request.path.endswith("/model.bin"):
            self.gate.wait()
        with contextlib.suppress(OSError):  # the client was ended
            request.wfile.write(content[half:])
