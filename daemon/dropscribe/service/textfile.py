"""The metrics as a file, for node_exporter's textfile collector."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


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
