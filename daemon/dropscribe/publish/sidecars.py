"""The sidecars of one group: written whole, or taken back.

Guarantees: a name that is taken is ours only if it holds exactly our bytes, from before a crash; nothing
else is ever written over or removed.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dropscribe.files import writing
from dropscribe.files.crashpoint import reached
from dropscribe.publish.publication import NameTaken

if TYPE_CHECKING:
    from dropscribe.publish.publication import PublishRequest

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
"""How a file is opened that may by now be anything: no link is followed, no pipe waited for."""


def write_sidecars(publication: PublishRequest, folder: int, look: writing.Look) -> None:
    """Write what is not there yet into the open target *folder*; the names are not synced.

    Raises:
        NameTaken: One of the names is somebody else's.
    """
    for index, (name, content) in enumerate(publication.files):
        try:
            writing.write_new(folder, name, content, look, publication.temp_name(index))
        except FileExistsError:
            path = publication.group.path(name)
            if not holds(path, content):
                raise NameTaken(path) from None
        reached("sidecar_linked")


def take_back_sidecars(publication: PublishRequest) -> None:
    """Remove those that are exactly ours."""
    for name, content in publication.files:
        path = publication.group.path(name)
        if holds(path, content):
            os.unlink(path)
    reached("taken_back")


def holds(path: bytes, content: bytes) -> bool:
    """Whether *path* is a regular file with exactly *content*."""
    try:
        descriptor = os.open(path, READ)
    except OSError:
        return False
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_file and os.pread(descriptor, len(content) + 1, 0) == content
    except OSError:
        return False
    finally:
        os.close(descriptor)
