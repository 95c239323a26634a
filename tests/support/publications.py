"""One file ready to be published, without a queue."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from dropscribe.core.model import OutputNames
from dropscribe.files.audio import snapshot_of
from dropscribe.publish.publication import PublishRequest

if TYPE_CHECKING:
    from pathlib import Path

SIDECARS = {"json": b"{}", "txt": b"text\n"}


def publication_of(audio: Path, done: Path) -> PublishRequest:
    """*audio*, as it is now, on its way to *done* with two sidecars under its stem."""
    names = tuple((form, os.fsencode(f"{audio.stem}.{form}")) for form in SIDECARS)
    return PublishRequest(
        inbox=os.fsencode(audio.parent),
        path=os.fsencode(audio.name),
        snapshot=snapshot_of(audio.stat()),
        stable_inodes=True,
        sha256=hashlib.sha256(audio.read_bytes()).hexdigest(),
        output_names=OutputNames(os.fsencode(done), b"", os.fsencode(audio.name), names),
        files=tuple((name, SIDECARS[form]) for form, name in names),
        token="token-1",
    )
