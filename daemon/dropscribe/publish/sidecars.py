"""Writes, names and withdraws the sidecars of one job."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dropscribe.files.crashpoint import reached
from dropscribe.files.moves import FileName
from dropscribe.files.own_file import start_writing, write_all
from dropscribe.publish.publication import NameTaken

if TYPE_CHECKING:
    from dropscribe.files.capabilities import Capabilities
    from dropscribe.files.own_file import OwnFile
    from dropscribe.files.permissions import Permissions
    from dropscribe.publish.publication import PublishRequest


class Sidecars:
    """The sidecars of one job on their way into an open folder.

    Args:
        request: The job's.
        folder: The open target folder.
        can: Of its mount.
    """

    def __init__(self, request: PublishRequest, folder: int, can: Capabilities) -> None:
        self._request = request
        self._folder = folder
        self._all = request.sidecars(folder, can)
        self._begun: list[tuple[OwnFile, bytes]] = []

    def write(self, permissions: Permissions, *, missing_alone: bool = False) -> None:
        """Write those that are not there yet under their hidden names; nothing is synced.

        Args:
            missing_alone: The audio is in place already: existing files keep their names.
        """
        for (sidecar, content), (name, _) in zip(self._all, self._request.files, strict=True):
            if missing_alone and FileName(self._folder, name).status() is not None:
                continue
            self._begun.append((sidecar, name))
            sidecar.begin(partial(_fill, permissions, content), permissions.mode_of_empty)

    def make_durable(self) -> None:
        """Sync what was written; the hidden names are not synced."""
        for sidecar, _ in self._begun:
            sidecar.make_durable()
            reached("sidecar_written")

    def place(self) -> None:
        """Give the durable sidecars their names, which are not synced.

        Raises:
            NameTaken: Another file has one of the names.
        """
        for sidecar, name in self._begun:
            try:
                sidecar.place()
            except FileExistsError:
                raise NameTaken(self._request.output_names.path(name)) from None
            reached("sidecar_linked")

    def abandon(self) -> None:
        """Remove the sidecars that are written and not durable yet. Safe to call twice."""
        for sidecar, _ in self._begun:
            sidecar.abandon()


def _fill(permissions: Permissions, content: bytes, descriptor: int) -> None:
    permissions.apply(descriptor)  # before there is anything to read
    write_all(descriptor, content)
    start_writing(descriptor)


def withdraw_sidecars(request: PublishRequest, folder: int, can: Capabilities) -> bool:
    """Remove the sidecars of this job that are in the open *folder*; returns whether any was removed."""
    removed = [sidecar.withdraw() for sidecar, _ in request.sidecars(folder, can)]
    return any(removed)
