"""The worker process's side: reads requests, decodes and recognises, answers.

Guarantees: nothing of a recording is read before the process has given up network, writing and other files;
each recording has its own limit of memory and CPU time; an exception becomes an answer.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import traceback
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from dropscribe.core.errors import ProviderError
from dropscribe.native.messages import ConnectionLost, Message, receive, send
from dropscribe.native.recording import RawForm
from dropscribe.native.worker import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DECODING_BYTES = (1024 + 64 * (os.cpu_count() or 1)) * sandbox.MIB
RECOGNISING_BYTES = 6 * 1024 * sandbox.MIB
"""Memory of one recording beside the libraries and the loaded model.

FFmpeg starts threads for each processor, and they reserve address space for their stacks.
"""

BASE_CPU_SECONDS = 600.0
CPU_SECONDS_PER_MIB = 30.0
"""Decoding takes 0.1 s a MiB on a current machine, and some 3 s with codecs at their lowest rates."""

WINDOW_CPU_SECONDS = 2 * 3600.0
"""Limit for 30 s of speech: large models on small machines take many times as long as the speech."""


class Server:
    """Answers requests, one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loaded: tuple[Mapping[str, Any], Any] | None = None
        self._operations: dict[str, Callable[[Mapping[str, Any], int], Mapping[str, Any]]] = {
            "describe": self._describe,
            "survey": self._survey,
            "encode": self._encode,
            "transcribe": self._transcribe,
        }

    def answer(self, request: Message) -> None:
        """Run the operation of *request* and send its result or error.

        Raises:
            ConnectionLost: The daemon has ended.
        """
        descriptor = request.descriptor
        if descriptor is None:
            raise ConnectionLost("a request without a recording")
        try:
            size_mib = os.fstat(descriptor).st_size / sandbox.MIB
            sandbox.limit_cpu(BASE_CPU_SECONDS + CPU_SECONDS_PER_MIB * size_mib)
            self.send("result", self._operations[request.kind](request.body, descriptor))
        except ConnectionLost:
            raise
        except Exception as error:  # noqa: BLE001 - any error of a library is this request's answer
            self.send("error", _described(error))
        finally:
            os.close(descriptor)

    def send(self, kind: str, body: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send the daemon one message."""
        send(self._connection, Message(kind, dict(body), payload))

    def _write_at(self, offset: int, content: bytes) -> None:
        """Have the daemon write into the piece that is being encoded."""
        self.send("write", {"at": offset}, content)

    def _describe(self, body: Mapping[str, Any], descriptor: int) -> Mapping[str, Any]:
        from dropscribe.native.worker import container, survey  # noqa: PLC0415 - loaded behind the sandbox

        self._decoding()
        form = _form(body)
        tracks = survey.sounding_tracks(descriptor, form) if body["listen"] else None
        with container.opened(descriptor, form) as found:
            head = os.pread(descriptor, 64, 0)
            return asdict(container.describe(found, head, tracks or (container.default_track(found),)))

    def _survey(self, body: Mapping[str, Any], descriptor: int) -> Mapping[str, Any]:
        from dropscribe.native.worker.survey import survey  # noqa: PLC0415

        self._decoding()
        found = survey(self._track(body, descriptor), until_dbfs=body["until_dbfs"])
        self.send("loudness", {}, found.loudness.tobytes())
        return {
            "sound_seconds": round(found.sound_seconds, 6),
            "end_seconds": round(found.end_seconds, 6),
            "channels_differ": found.channels_differ,
            "is_whole": found.is_whole,
        }

    def _encode(self, body: Mapping[str, Any], descriptor: int) -> Mapping[str, Any]:
        from dropscribe.native.worker.encoding import Encoder, encoded_pieces  # noqa: PLC0415

        self._decoding()
        track = self._track(body, descriptor)
        options = {str(name): str(value) for name, value in body["options"]}
        make_encoder = partial(Encoder, body["container"], body["codec"], options, self._write_at)
        for piece in encoded_pieces(track, body["channel"], body["cuts"], body["skipped"], make_encoder):
            self.send("piece", asdict(piece))
        return {"warning": track.warning}

    def _transcribe(self, body: Mapping[str, Any], descriptor: int) -> Mapping[str, Any]:
        from dropscribe.native.worker.recognition import Recognition  # noqa: PLC0415

        model = self._model(body["model"])
        recognition = Recognition(
            model, body["name"], body["language"], body["options"], self._progress, self._heard
        )
        recognition.asked = body["asked"]
        self._decoding()
        return recognition.run(descriptor, _form(body))

    def _model(self, wanted: Mapping[str, Any]) -> Any:
        from dropscribe.native.worker.engine import load_model  # noqa: PLC0415

        if self._loaded is None or self._loaded[0] != wanted:
            self.send("phase", {"phase": "loading"})
            sandbox.unlimit_memory()
            self._loaded = (wanted, load_model(**wanted))
            sandbox.limit_memory(RECOGNISING_BYTES)
            self.send("loaded", {})
        return self._loaded[1]

    def _progress(self, phase: str) -> None:
        if phase == "recognising":
            sandbox.limit_cpu(WINDOW_CPU_SECONDS)
        self.send("phase", {"phase": phase})

    def _heard(self, seconds: float) -> None:
        self.send("heard", {"heard_seconds": seconds})

    def _decoding(self) -> None:
        self._progress("decoding")

    def _track(self, body: Mapping[str, Any], descriptor: int) -> Any:
        from dropscribe.native.worker.samples import Track  # noqa: PLC0415

        return Track(descriptor, _form(body), body["track"], self._decoding)


def serve(requests: str, life: str, has_gpu: str, *folders: str) -> None:
    """Answer requests until the daemon ends.

    Args:
        requests: Number of the descriptor of a connected Unix socket.
        life: Number of the read end of a pipe; the daemon holds the other end.
        has_gpu: "1" where a graphics card is used.
        folders: Readable folders beside Python's own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(requests))
    sandbox.end_with(int(life))
    sandbox.enter(folders, has_gpu=has_gpu == "1")
    server = Server(connection)
    try:
        _load_libraries(server)
        while True:
            server.answer(receive(connection))
    except ConnectionLost:
        os._exit(0)  # threads of native libraries are not worth waiting for


def _load_libraries(server: Server) -> None:
    try:
        importlib.import_module("numpy")
        importlib.import_module("av")
    except ImportError as error:
        server.send("error", {"type": "ProviderUnusable", "code": "engine_missing", "reason": str(error)})
        return
    sandbox.limit_memory(DECODING_BYTES)
    server.send("ready", {})


def _form(body: Mapping[str, Any]) -> RawForm | None:
    return None if body["form"] is None else RawForm(**body["form"])


def _described(error: Exception) -> Mapping[str, Any]:
    """*error* as a message: its class name if the daemon knows the class, else a bug with its traceback."""
    if isinstance(error, ProviderError):
        return {"type": type(error).__name__, "code": error.code, "reason": error.reason}
    if isinstance(error, MemoryError):
        return {"type": "MemoryError"}
    if isinstance(error, OSError) and error.errno:
        return {"type": "OSError", "errno": error.errno, "reason": os.strerror(error.errno)}
    return {"type": "bug", "trace": "".join(traceback.format_exception(error))}
