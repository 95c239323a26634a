"""The metrics as a file, for node_exporter's textfile collector."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WRITE_SECONDS = 15.0

log = structlog.get_logger()


class MetricsFile:
    """Writes the metrics to a file at intervals; a file that cannot be written never ends the daemon."""

    def __init__(self, path: Path, render: Callable[[], Awaitable[bytes]]) -> None:
        self._path = path
        self._render = render
        self._trouble = ""

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self.write()
            await asyncio.sleep(WRITE_SECONDS)

    async def write(self) -> None:
        """Write once; a new reason why that fails is logged."""
        content, trouble = await self._render(), ""
        try:
            await asyncio.to_thread(write_metrics_file, self._path, content)
        except OSError as error:
            trouble = error.strerror or str(error)
        if trouble and trouble != self._trouble:
            log.warning("metrics.unwritten", reason=trouble)
        self._trouble = trouble


def write_metrics_file(path: Path, content: bytes) -> None:
    """Put *content* at *path* in one step, readable by all: for node_exporter's textfile collector.

    The temporary name does not end in ``.prom``, so that the collector never reads half a file.

    Raises:
        OSError: The folder is missing or full; the old file at *path* is unchanged.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
