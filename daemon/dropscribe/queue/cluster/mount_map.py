"""Names for mounts: a path in a cluster's rows is a root's name and the path below it.

Each node may mount a share elsewhere; ``//share/done/a.wav`` in a row is ``/mnt/share/done/a.wav`` here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dropscribe.core.errors import StoreError
from dropscribe.core.naming import leads_below

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class MountMap:
    """Translates absolute paths to and from their form in rows.

    Args:
        mounts: Root → its absolute path on this node; none inside another.
    """

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._mounts = {name.encode(): os.fsencode(path).rstrip(b"/") for name, path in mounts.items()}

    def stored(self, path: bytes) -> bytes:
        """*path* as a row holds it.

        Raises:
            StoreError: It lies beneath no root; the config's checks refuse such a folder.
        """
        for name, mount in self._mounts.items():
            if path == mount or path.startswith(mount + b"/"):
                return b"//" + name + path[len(mount) :]
        raise StoreError(
            os.fsdecode(path), "lies beneath none of queue.roots", "name its mount in queue.roots"
        )

    def local(self, stored: bytes) -> bytes:
        """A row's path as this node has it; as it stands where the node lacks its root.

        Raises:
            StoreError: It has no root, or leads out of it: another program has written the row.
        """
        name, slash, rest = stored[2:].partition(b"/")
        if not stored.startswith(b"//") or not leads_below(stored[2:]):
            raise StoreError(os.fsdecode(stored), "leads out of its root", "see who else writes to the queue")
        mount = self._mounts.get(name)
        return stored if mount is None else mount + slash + rest
