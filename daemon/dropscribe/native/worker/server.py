"""The worker process's side: decodes and recognises as requested, and answers.

Guarantees: each recording has its own limit of memory and CPU time; an exception becomes an answer.
"""

from __future__ import annotations

import gc
import os
import socket
import traceback
from array import array
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NoReturn

from dropscribe import __version__
from dropscribe.core.errors import ProviderError
from dropscribe.native.messages import ConnectionLost, Message, receive, receive_descriptor, send
from dropscribe.native.recording import RawForm
from dropscribe.native.worker import container, sandbox
from dropscribe.native.worker.encoding import Encoder, encoded_pieces
from dropscribe.native.worker.samples import Track, sounding_tracks, survey

DECODING_BYTES = (1024 + 64 * (os.cpu_count() or 1)) * sandbox.MIB
RECOGNISING_BYTES = 6 * 1024 * sandbox.MIB
"""Memory of one recording beside the libraries and the loaded model.

FFmpeg starts threads for each processor, and they reserve address space for their stacks.
"""

BASE_CPU_SECONDS = 600.0
# Decoding takes 0.1 s a MiB on a current machine, and some 3 s with codecs at their lowest rates.
CPU_SECONDS_PER_MIB = 30.0
# Limit for 30 s of speech: large models on small machines take many times as long as the speech.
WINDOW_CPU_SECONDS = 2 * 3600.0


class Server:
    """Answers requests, one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loaded: tuple[Mapping[str, Any], Any] | None = None
        self._operations = {
            "describe": self._describe,
            "survey": self._survey,
            "encode": self._encode,
            "transcribe": self._transcribe,
        }

    def serve(self) -> NoReturn:
        """Answer each request with its result or error; raises ConnectionLost when the daemon has ended."""
        # From PyAV 19 on resamplers are in reference cycles, and each has threads with stacks: dozens of
        # them, left to Python's own collections, took all the memory that a recording may.
        gc.freeze()  # what is loaded stays, so that a collection takes no time
        sandbox.limit_memory(DECODING_BYTES)
        self._send("ready", {"version": __version__})
        while True:
            request = receive(self._connection)
            descriptor = receive_descriptor(self._connection)
            try:
                size_mib = os.fstat(descriptor).st_size / sandbox.MIB
                sandbox.limit_cpu(BASE_CPU_SECONDS + CPU_SECONDS_PER_MIB * size_mib)
                self._operations[request.kind](request.body, descriptor)
            except ConnectionLost:
                raise
            except Exception as error:  # noqa: BLE001 - any error of a library is this request's answer
                self._send("error", _described(error))
            finally:
                os.close(descriptor)
                gc.collect()

    def _send(self, kind: str, body: Mapping[str, Any] | None = None, payload: bytes = b"") -> None:
        send(self._connection, Message(kind, dict(body or {}), payload))

    def _describe(self, body: Mapping[str, Any], descriptor: int) -> None:
        self._progress("decoding")
        form = _form(body)
        tracks = sounding_tracks(descriptor, form) if body["listen"] else None
        with container.opened(descriptor, form) as found:
            head = os.pread(descriptor, 64, 0)
            recording = container.describe(found, head, tracks or (container.default_track(found),))
        self._send("result", asdict(recording))

    def _survey(self, body: Mapping[str, Any], descriptor: int) -> None:
        found = survey(self._track(body, descriptor), until_dbfs=body["until_dbfs"])
        self._send("result", asdict(replace(found, loudness=())), array("f", found.loudness).tobytes())

    def _encode(self, body: Mapping[str, Any], descriptor: int) -> None:
        track = self._track(body, descriptor)

        def write_at(offset: int, content: bytes) -> None:
            self._send("write", {"at": offset}, content)

        make_encoder = partial(Encoder, body["container"], body["codec"], dict(body["options"]), write_at)
        for piece in encoded_pieces(track, body["channel"], body["cuts"], body["skipped"], make_encoder):
            self._send("piece", asdict(piece))
        self._send("result", {"warning": track.warning})

    def _transcribe(self, body: Mapping[str, Any], descriptor: int) -> None:
        from dropscribe.native.worker.recognition import Recognition  # noqa: PLC0415 - few workers need it

        def heard(seconds: float) -> None:
            self._send("heard", {"heard_seconds": seconds})

        recognition = Recognition(self._model(body["model"]), body, self._progress, heard)
        self._progress("decoding")
        self._send("result", recognition.run(descriptor, _form(body)))

    def _track(self, body: Mapping[str, Any], descriptor: int) -> Track:
        self._progress("decoding")
        return Track(descriptor, _form(body), body["track"], partial(self._progress, "decoding"))

    def _model(self, wanted: Mapping[str, Any]) -> Any:
        from dropscribe.native.worker.recognition import load_model  # noqa: PLC0415

        if self._loaded is None or self._loaded[0] != wanted:
            self._progress("loading")
            sandbox.limit_memory(None)  # a model may have any size
            self._loaded = (wanted, load_model(**wanted))
            sandbox.limit_memory(RECOGNISING_BYTES)
            self._send("loaded")
        return self._loaded[1]

    def _progress(self, phase: str) -> None:
        if phase == "recognising":
            sandbox.limit_cpu(WINDOW_CPU_SECONDS)
        self._send("phase", {"phase": phase})


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
